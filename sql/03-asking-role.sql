-- The asking role: reads the catalogue, and rows only in the name of a client's role (snapshots).
--
--   psql -d app -f sql/03-asking-role.sql
--   psql -d app -c '\password walcast_asking'
--
-- Variables (psql -v):
--   asking_role   its name; "walcast_asking"
--
-- Needs: CREATEROLE, and the ownership of the database for the GRANT. Can be applied again at any
-- time.
--
-- It must have neither SUPERUSER nor BYPASSRLS, or row-level security would not hold for it, and
-- no REPLICATION. NOINHERIT: what the client roles may read it may read only after SET ROLE, so
-- that a question asked in nobody's name finds nothing. `walcast check` looks at all of this.

\set ON_ERROR_STOP on
\if :{?asking_role}
\else
    \set asking_role walcast_asking
\endif

SELECT format('CREATE ROLE %I LOGIN NOINHERIT', :'asking_role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'asking_role')
\gexec

ALTER ROLE :"asking_role" LOGIN NOINHERIT;
-- walcast sets these for its sessions, too; here they hold for whoever else gets the password.
ALTER ROLE :"asking_role" SET default_transaction_read_only = on;
ALTER ROLE :"asking_role" SET statement_timeout = '30s';
ALTER ROLE :"asking_role" SET idle_in_transaction_session_timeout = '60s';

GRANT CONNECT ON DATABASE :"DBNAME" TO :"asking_role";

-- The replication role: reads the log through the slot, and nothing else.
--
--   psql -d app -f sql/02-replication-role.sql
--   psql -d app -c '\password walcast_replication'
--
-- Variables (psql -v):
--   replication_role   its name; "walcast_replication"
--
-- Needs: a superuser; from version 16 also CREATEROLE together with REPLICATION. Managed servers
-- have a role of their own for this (rds_replication, azure_pg_admin, cloudsqlsuperuser); grant
-- that instead. Can be applied again at any time.
--
-- It owns nothing and is granted no table: logical decoding asks for none. But what it reads is
-- every published row, so keep its password as you keep the data. In pg_hba.conf an ordinary line
-- for the database lets it in; the keyword "replication" is for physical replication only.

\set ON_ERROR_STOP on
\if :{?replication_role}
\else
    \set replication_role walcast_replication
\endif

SELECT format('CREATE ROLE %I LOGIN REPLICATION', :'replication_role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'replication_role')
\gexec

SELECT format('ALTER ROLE %I LOGIN REPLICATION', :'replication_role')
FROM pg_roles
WHERE rolname = :'replication_role' AND NOT (rolcanlogin AND rolreplication)
\gexec

GRANT CONNECT ON DATABASE :"DBNAME" TO :"replication_role";

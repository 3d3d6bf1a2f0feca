-- The client roles: what the users of an application may read.
--
--   psql -d app -v roles='customer, driver' -v tables='public.orders' -f sql/04-client-roles.sql
--
-- Variables (psql -v):
--   roles         names of roles, separated by commas; needed
--   tables        tables that all of them may read, quoted as in SQL; none
--   asking_role   the role of 03-asking-role.sql; "walcast_asking"
--
-- Needs: CREATEROLE, and the ownership of the tables and their schemas. Can be applied again at
-- any time: it only adds.
--
-- A token's claim names one of these roles, and a client gets the columns that its role may
-- SELECT. Where an application has such roles already, name those: they are left as they are, and
-- only the asking role becomes a member. To let a role read some columns, leave the table out here
-- and grant them yourself:
--
--   GRANT SELECT (id, status, total) ON public.orders TO customer;
--
-- Grants say which columns; which rows is said by policies, in walcast.toml.

\set ON_ERROR_STOP on
\if :{?tables}
\else
    \set tables ''
\endif
\if :{?asking_role}
\else
    \set asking_role walcast_asking
\endif

SELECT format('CREATE ROLE %I NOLOGIN', trim(name))
FROM unnest(string_to_array(:'roles', ',')) AS name
WHERE trim(name) <> '' AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = trim(name))
\gexec

SELECT format('GRANT %I TO %I', r.rolname, :'asking_role')
FROM unnest(string_to_array(:'roles', ',')) AS name
JOIN pg_roles r ON r.rolname = trim(name)
WHERE NOT EXISTS (
    SELECT
    FROM pg_auth_members m
    JOIN pg_roles asking ON asking.oid = m.member
    WHERE m.roleid = r.oid AND asking.rolname = :'asking_role'
)
\gexec

SELECT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, r.rolname),
       format('GRANT SELECT ON %s TO %I', c.oid::regclass, r.rolname)
FROM unnest(string_to_array(:'tables', ',')) AS wanted
JOIN pg_class c ON c.oid = CASE WHEN trim(wanted) <> '' THEN trim(wanted)::regclass END
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN unnest(string_to_array(:'roles', ',')) AS name
JOIN pg_roles r ON r.rolname = trim(name)
\gexec

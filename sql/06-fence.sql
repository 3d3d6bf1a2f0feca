-- A mark in the log at each change of what decides who sees what, so that it counts for every change
-- that commits after it, also where nothing about the changed table itself was altered: functions,
-- schemas, policies and rewritten columns of other tables that a policy reads, the publication.
--
--   psql -d app -f sql/06-fence.sql
--
-- Variables (psql -v):
--   remove   if it is given, the trigger and its function go; otherwise they are made
--
-- Needs: a superuser, as every event trigger does. Optional: without it such changes count within
-- two seconds. Roles and their memberships are the whole server's, for which no event trigger fires:
-- they count within two seconds in any case. Can be applied again at any time.

\set ON_ERROR_STOP on
SET client_min_messages = warning;

DROP EVENT TRIGGER IF EXISTS walcast_fence;
DROP FUNCTION IF EXISTS public.walcast_fence();

\if :{?remove}
\else

CREATE FUNCTION public.walcast_fence() RETURNS event_trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- In the transaction, so that it stands in the log where that commits.
    PERFORM pg_logical_emit_message(true, 'walcast', 'catalog');
END
$$;

CREATE EVENT TRIGGER walcast_fence ON ddl_command_end
WHEN TAG IN (
    'ALTER FUNCTION', 'ALTER POLICY', 'ALTER PUBLICATION', 'ALTER ROUTINE', 'ALTER SCHEMA',
    'ALTER TABLE', 'ALTER TYPE',
    'CREATE FUNCTION', 'CREATE POLICY', 'DROP FUNCTION', 'DROP OWNED', 'DROP POLICY',
    'DROP ROUTINE', 'DROP SCHEMA', 'DROP TABLE', 'GRANT', 'REVOKE'
)
EXECUTE FUNCTION public.walcast_fence();

\endif

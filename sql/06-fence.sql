-- A mark in the log at each change of what decides who sees what, so that it counts for every change
-- that commits after it, also where nothing about the changed table itself was altered: functions,
-- schemas, policies and rewritten columns of other tables that a policy reads, the publication.
--
--   psql -d app -f sql/06-fence.sql
--
-- Variables (psql -v):
--   remove   if it is given, the trigger and its function go; otherwise they are made
--   anyway   "yes": makes them as a role that is no superuser, too, where a provider lets it
--
-- Needs: a superuser, as every event trigger does. Run as somebody else it makes nothing, and says
-- so. Optional: without it such changes count within two seconds. Roles and their memberships are the
-- whole server's, for which no event trigger fires: they count within two seconds in any case. Can be
-- applied again at any time.

\set ON_ERROR_STOP on
SET client_min_messages = warning;

\if :{?remove}

DROP EVENT TRIGGER IF EXISTS walcast_fence;
DROP FUNCTION IF EXISTS public.walcast_fence();

\else

\if :{?anyway}
\else
    \set anyway no
\endif

-- The mark is made in the transaction, so that it stands in the log where that commits.
SELECT 'CREATE OR REPLACE FUNCTION public.walcast_fence() RETURNS event_trigger LANGUAGE plpgsql '
    || format('SET search_path = pg_catalog, pg_temp AS %L', wanted.body)
FROM (VALUES ('BEGIN PERFORM pg_logical_emit_message(true, ''walcast'', ''catalog''); END')) AS wanted (body)
WHERE (current_setting('is_superuser') = 'on' OR :'anyway' = 'yes')
  AND NOT EXISTS (
      SELECT
      FROM pg_proc f
      WHERE f.pronamespace = 'public'::regnamespace AND f.proname = 'walcast_fence'
        AND f.prosrc = wanted.body
  )
\gexec

SELECT statement
FROM (
    SELECT string_agg(quote_literal(tag), ', ') AS list, array_agg(tag) AS tags
    FROM unnest(ARRAY[
        'ALTER FUNCTION', 'ALTER POLICY', 'ALTER PUBLICATION', 'ALTER ROUTINE', 'ALTER SCHEMA',
        'ALTER TABLE', 'ALTER TYPE', 'CREATE FUNCTION', 'CREATE POLICY', 'DROP FUNCTION', 'DROP OWNED',
        'DROP POLICY', 'DROP ROUTINE', 'DROP SCHEMA', 'DROP TABLE', 'GRANT', 'REVOKE'
    ]) AS tag
) AS wanted
LEFT JOIN pg_event_trigger t ON t.evtname = 'walcast_fence'
CROSS JOIN LATERAL (VALUES
    (1, CASE WHEN t.oid IS NOT NULL THEN 'DROP EVENT TRIGGER walcast_fence' END),
    (2, format('CREATE EVENT TRIGGER walcast_fence ON ddl_command_end WHEN TAG IN (%s) '
               'EXECUTE FUNCTION public.walcast_fence()', wanted.list))
) AS step (number, statement)
WHERE (current_setting('is_superuser') = 'on' OR :'anyway' = 'yes')
  AND (t.oid IS NULL OR t.evttags IS DISTINCT FROM wanted.tags OR t.evtenabled = 'D')
  AND statement IS NOT NULL
ORDER BY number
\gexec

-- A warning for who is no superuser.
SELECT 'without the event trigger walcast_fence, which takes a superuser (sql/06-fence.sql), changes '
    || 'of functions, schemas and tables that policies read count within two seconds, not at once'
    AS "note"
WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'walcast_fence');

\endif

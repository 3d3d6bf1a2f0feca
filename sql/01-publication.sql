-- The publication: which tables' changes leave the database.
--
--   psql -d app -v tables='public.orders, public.sessions' -f sql/01-publication.sql
--
-- Variables (psql -v):
--   publication   its name; "walcast"
--   tables        tables to add, separated by commas, quoted as in SQL; none
--
-- Needs: CREATE on the database, and the ownership of each table. Can be applied again at any
-- time: tables are added, none is taken out.
--
-- Apply it before the first start of walcast: a slot that is older than its publication can't be
-- read. And look at what it prints in the end: while a table without a usable replica identity is
-- published, every UPDATE and DELETE of it fails, in your application, too.

\set ON_ERROR_STOP on
\if :{?publication}
\else
    \set publication walcast
\endif
\if :{?tables}
\else
    \set tables ''
\endif

SELECT format('CREATE PUBLICATION %I', :'publication')
WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = :'publication')
\gexec

-- Every kind of change, or clients would miss some without being told; and a partitioned table as
-- one table, under its own name.
ALTER PUBLICATION :"publication" SET (
    publish = 'insert, update, delete, truncate',
    publish_via_partition_root = true
);

SELECT format('ALTER PUBLICATION %I ADD TABLE %s', :'publication', wanted.relation)
FROM (
    SELECT DISTINCT trim(name)::regclass AS relation
    FROM unnest(string_to_array(:'tables', ',')) AS name
    WHERE trim(name) <> ''
) AS wanted
WHERE NOT EXISTS (
    SELECT
    FROM pg_publication p
    JOIN pg_publication_rel r ON r.prpubid = p.oid
    WHERE p.pubname = :'publication' AND r.prrelid = wanted.relation
)
ORDER BY wanted.relation::text
\gexec

-- Not done for you, because FULL writes every old row to the log: walcast needs it where a policy
-- or a filter reads columns outside the key.
SELECT c.oid::regclass AS "table",
       CASE WHEN c.relreplident = 'd' AND key.found THEN 'old rows by key only'
            ELSE 'UPDATE and DELETE FAIL' END AS "replica identity",
       format('ALTER TABLE %s REPLICA IDENTITY FULL;', c.oid::regclass) AS "to have all of it"
FROM pg_publication_tables p
JOIN pg_namespace n ON n.nspname = p.schemaname
JOIN pg_class root ON root.relnamespace = n.oid AND root.relname = p.tablename
LEFT JOIN LATERAL pg_partition_tree(root.oid::regclass) leaf ON leaf.isleaf
JOIN pg_class c ON c.oid = COALESCE(leaf.relid::oid, root.oid) AND c.relkind = 'r'
CROSS JOIN LATERAL (
    SELECT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate
    ) AS found
) AS key
WHERE p.pubname = :'publication' AND c.relreplident NOT IN ('f', 'i')
ORDER BY 1;

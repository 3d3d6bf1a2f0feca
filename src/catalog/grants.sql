-- For the tables of OIDs $1 and the roles named $2, and those as which functions run: what may be
-- selected. A row without columns means all of them; no row means none. The functions know PUBLIC,
-- memberships and inheritance.
SELECT c.oid,
       r.rolname::text,
       CASE WHEN NOT has_table_privilege(r.oid, c.oid, 'SELECT') THEN ARRAY(
           SELECT a.attname::text
           FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')
           ORDER BY a.attnum
       ) END AS columns
FROM pg_class c
CROSS JOIN pg_roles r
WHERE c.oid = ANY ($1::oid[])
  AND (r.rolname = ANY ($2::text[])
       OR r.oid IN (SELECT f.proowner FROM pg_proc f WHERE f.prosecdef AND f.oid >= 16384))
  AND has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
  AND has_any_column_privilege(r.oid, c.oid, 'SELECT')
ORDER BY c.oid, r.rolname

-- The tables of publication $1, those named by schemas $2 and names $3, and those of OIDs $4, and
-- those that the policies of all these read, and their functions, as far as a name in a body tells:
-- each with the columns that the stream carries, as the stream describes them. What some server
-- versions lack is read through to_jsonb.
WITH RECURSIVE published AS (
    SELECT c.oid, to_jsonb(p) -> 'attnames' AS columns,
           to_jsonb(p) ->> 'rowfilter' IS NULL
               AND u.pubinsert AND u.pubupdate AND u.pubdelete AND u.pubtruncate AS whole
    FROM pg_publication_tables p
    JOIN pg_publication u ON u.pubname = p.pubname
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
    WHERE p.pubname = $1::text
), publication AS (
    SELECT u.oid, u.oid || ':' || u.xmin::text AS stamp FROM pg_publication u WHERE u.pubname = $1::text
), member AS (
    -- What puts a table, or all of a schema, into the publication: each time that it does anew, another.
    SELECT whole.refclassid AS class, whole.refobjid AS oid, part.objid AS entry
    FROM publication u
    JOIN pg_depend part
      ON part.refclassid = 'pg_publication'::regclass AND part.refobjid = u.oid
    JOIN pg_depend whole
      ON whole.classid = part.classid AND whole.objid = part.objid
     AND whole.refclassid IN ('pg_class'::regclass, 'pg_namespace'::regclass)
), named AS (
    SELECT oid FROM published
    UNION
    SELECT c.oid
    FROM unnest($2::text[], $3::text[]) AS named (schema, name)
    JOIN pg_namespace n ON n.nspname = named.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = named.name
    UNION
    SELECT unnest($4::oid[])
), reached (class, oid) AS (
    SELECT 'pg_class'::regclass::oid, oid FROM named
    UNION
    SELECT part.class, part.oid
    FROM reached
    CROSS JOIN LATERAL (
        SELECT d.refclassid, d.refobjid
        FROM pg_policy p
        JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
        WHERE reached.class = 'pg_class'::regclass AND p.polrelid = reached.oid
          AND p.polcmd IN ('r', '*')
        UNION ALL
        SELECT d.refclassid, d.refobjid
        FROM pg_depend d
        WHERE reached.class = 'pg_proc'::regclass
          AND d.classid = 'pg_proc'::regclass AND d.objid = reached.oid
        UNION ALL
        SELECT 'pg_class'::regclass, c.oid
        FROM pg_proc f
        JOIN pg_language l ON l.oid = f.prolang AND l.lanname IN ('sql', 'plpgsql')
        JOIN pg_class c ON c.oid >= 16384 AND c.relkind IN ('r', 'p')
                       AND strpos(lower(f.prosrc), lower(c.relname)) > 0
        WHERE reached.class = 'pg_proc'::regclass AND f.oid = reached.oid AND f.oid >= 16384
        UNION ALL
        SELECT 'pg_proc'::regclass, called.oid
        FROM pg_proc f
        JOIN pg_language l ON l.oid = f.prolang AND l.lanname IN ('sql', 'plpgsql')
        JOIN pg_proc called ON called.oid >= 16384
                           AND strpos(lower(f.prosrc), lower(called.proname)) > 0
        WHERE reached.class = 'pg_proc'::regclass AND f.oid = reached.oid AND f.oid >= 16384
    ) AS part (class, oid)
    WHERE part.class IN ('pg_class'::regclass, 'pg_proc'::regclass)
), wanted AS (
    SELECT oid FROM reached WHERE class = 'pg_class'::regclass
), defaults AS (
    -- Whether the database's own collation compares by bytes.
    SELECT CASE COALESCE(to_jsonb(d) ->> 'datlocprovider', 'c')
               WHEN 'c' THEN d.datcollate IN ('C', 'POSIX')
               WHEN 'b' THEN true
               ELSE false
           END AS bytewise
    FROM pg_database d
    WHERE d.datname = current_database()
)
SELECT c.oid,
       n.nspname::text,
       c.relname::text,
       c.relreplident,
       c.relkind,
       c.relrowsecurity,
       c.relforcerowsecurity,
       p.oid IS NOT NULL AS published,
       stream.names,
       stream.types,
       stream.modifiers,
       stream.in_identity,
       stream.collations,
       ARRAY(
           SELECT a.attname::text
           FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND NOT a.attname::text = ANY (stream.names)
           ORDER BY a.attnum
       ) AS unpublished,
       ARRAY(
           SELECT a.attname::text
           FROM pg_index i
           CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS key (attnum, place)
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.attnum
           WHERE i.indrelid = c.oid AND i.indisprimary AND key.place <= i.indnkeyatts
           ORDER BY key.place
       ) AS primary_key,
       COALESCE(p.whole, false) AS whole,
       c.relhassubclass AS inherited,
       stream.stamps,
       COALESCE((SELECT stamp FROM publication), '') || COALESCE((
           SELECT string_agg(':' || m.entry, '' ORDER BY m.entry)
           FROM member m
           WHERE (m.class, m.oid) IN (('pg_class'::regclass, c.oid),
                                      ('pg_namespace'::regclass, c.relnamespace))
       ), '') AS published_as
FROM wanted w
JOIN pg_class c ON c.oid = w.oid AND c.relkind IN ('r', 'p')
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN defaults
LEFT JOIN published p ON p.oid = c.oid
LEFT JOIN LATERAL (
    -- The index that makes the identity, by the server's own conditions.
    SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1] AS columns
    FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisunique AND i.indimmediate
      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END
    LIMIT 1
) identity ON true
CROSS JOIN LATERAL (
    SELECT COALESCE(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS names,
           COALESCE(array_agg(a.atttypid ORDER BY a.attnum), '{}') AS types,
           COALESCE(array_agg(a.atttypmod ORDER BY a.attnum), '{}') AS modifiers,
           -- Another number where a column was made anew, another version where its values were.
           COALESCE(array_agg(a.attnum || ':' || a.xmin::text ORDER BY a.attnum), '{}') AS stamps,
           COALESCE(array_agg(
               c.relreplident = 'f' OR COALESCE(a.attnum = ANY (identity.columns), false)
               ORDER BY a.attnum), '{}') AS in_identity,
           COALESCE(array_agg(
               CASE WHEN a.attcollation = 0 THEN 'none'
                    WHEN NOT o.collisdeterministic THEN 'nondeterministic'
                    WHEN o.collprovider = 'b'
                      OR o.collprovider = 'c' AND o.collcollate IN ('C', 'POSIX')
                      OR o.collprovider = 'd' AND defaults.bytewise THEN 'bytes'
                    ELSE 'locale'
               END ORDER BY a.attnum), '{}') AS collations
    FROM pg_attribute a
    LEFT JOIN pg_collation o ON o.oid = a.attcollation
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND (p.columns IS NULL OR jsonb_exists(p.columns, a.attname::text))
      -- Generated columns go out only from version 18, and only where they are published.
      AND (a.attgenerated = ''
           OR a.attgenerated = 's' AND p.columns IS NOT NULL
              AND current_setting('server_version_num')::int >= 180000)
) stream
ORDER BY c.oid

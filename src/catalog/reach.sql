-- What the policies for SELECT of the tables of OIDs $1 reach, as one JSON document: the table's
-- columns in order, those that each policy reads (null: the row as a whole), and the tables that all of
-- them look into, through functions, views and the policies of other tables (null: that is not known). A
-- function's text is only searched for names, so there may be tables too many.
WITH RECURSIVE secured AS (
    SELECT c.oid
    FROM pg_class c
    WHERE c.oid = ANY ($1::oid[]) AND c.relrowsecurity
), policy AS (
    SELECT p.oid, p.polname, p.polrelid
    FROM pg_policy p
    WHERE p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL
), reached (root, class, id) AS (
    SELECT secured.oid, 'self', secured.oid
    FROM secured
    UNION
    SELECT r.root, next.class, next.id
    FROM reached r
    CROSS JOIN LATERAL (
        SELECT CASE d.refclassid WHEN 'pg_class'::regclass THEN 'table' ELSE 'function' END,
               d.refobjid
        FROM policy p
        JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
        WHERE r.class <> 'function' AND p.polrelid = r.id
          AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
          AND (d.refclassid, d.refobjid) <> ('pg_class'::regclass, p.polrelid)
        UNION ALL
        SELECT CASE d.refclassid WHEN 'pg_class'::regclass THEN 'table' ELSE 'function' END,
               d.refobjid
        FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        WHERE r.class = 'table' AND w.ev_class = r.id
          AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
        UNION ALL
        SELECT 'table', i.inhrelid FROM pg_inherits i WHERE r.class = 'table' AND i.inhparent = r.id
        UNION ALL
        SELECT 'table', i.inhparent FROM pg_inherits i WHERE r.class = 'table' AND i.inhrelid = r.id
        UNION ALL
        SELECT CASE d.refclassid WHEN 'pg_class'::regclass THEN 'table' ELSE 'function' END,
               d.refobjid
        FROM pg_depend d
        WHERE r.class = 'function' AND d.classid = 'pg_proc'::regclass AND d.objid = r.id
          AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
        UNION ALL
        SELECT 'table', c.oid
        FROM pg_proc f
        JOIN pg_class c ON strpos(lower(f.prosrc), lower(c.relname)) > 0
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE r.class = 'function' AND f.oid = r.id AND f.oid >= 16384
          AND c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          -- As a word, and not as a column of something else.
          AND f.prosrc ~* concat(
              '(^|[^.\w"])("?', regexp_replace(n.nspname, '(\W)', '\\\1', 'g'), '"?\s*\.\s*)?"?',
              regexp_replace(c.relname, '(\W)', '\\\1', 'g'), '($|\W)')
        UNION ALL
        SELECT 'function', called.oid
        FROM pg_proc f
        JOIN pg_proc called ON strpos(lower(f.prosrc), lower(called.proname)) > 0
        WHERE r.class = 'function' AND f.oid = r.id AND f.oid >= 16384 AND called.oid >= 16384
    ) AS next (class, id)
)
SELECT COALESCE(jsonb_agg(jsonb_build_object(
    'id', s.oid::bigint,
    'columns', ARRAY(
        SELECT a.attname::text
        FROM pg_attribute a
        WHERE a.attrelid = s.oid AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum
    ),
    'reads', COALESCE((
        SELECT jsonb_object_agg(p.polname, CASE WHEN NOT EXISTS (
            SELECT
            FROM pg_depend d
            WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid
              AND d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid
              AND d.refobjsubid = 0 AND d.deptype = 'n'
        ) THEN ARRAY(
            SELECT a.attname::text
            FROM pg_depend d
            JOIN pg_attribute a ON a.attrelid = s.oid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid
              AND d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid
              AND d.refobjsubid > 0
            ORDER BY 1
        ) END)
        FROM policy p
        WHERE p.polrelid = s.oid
    ), '{}'),
    'tables', CASE WHEN NOT EXISTS (
        SELECT
        FROM reached r
        JOIN pg_proc f ON f.oid = r.id
        JOIN pg_language l ON l.oid = f.prolang
        WHERE r.root = s.oid AND r.class = 'function' AND f.oid >= 16384
          AND (l.lanname NOT IN ('sql', 'plpgsql', 'internal', 'c')
               OR l.lanname = 'plpgsql' AND f.prosrc ~* '\mexecute\M')
    ) THEN ARRAY(
        SELECT DISTINCT r.id::bigint
        FROM reached r
        WHERE r.root = s.oid AND r.class = 'table' AND r.id >= 16384
        ORDER BY 1
    ) END
) ORDER BY s.oid), '[]')::text
FROM secured s

-- What the policies for SELECT of the tables of OIDs $1 reach, as one JSON document: the table's
-- columns in order, those that each policy reads (null: the row as a whole), and the tables that all of
-- them look into, through functions, views and the policies of other tables (null: that is not known). A
-- function's text is only searched for names, so there may be tables too many.
--
-- And what tells how long an answer holds: whether it changes only where one of these tables does
-- ("steady"; what is not understood here is not), what else it hangs on ("version", another one where
-- functions, grants or columns are others), and which settings are read (null: that is not known).
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
), called AS (
    SELECT r.root, f.oid, f.prosrc, f.proargdefaults, f.prokind, f.provolatile, l.lanname
    FROM reached r
    JOIN pg_proc f ON f.oid = r.id AND f.oid >= 16384
    JOIN pg_language l ON l.oid = f.prolang
    WHERE r.class = 'function'
), looked_into AS (
    SELECT r.root, c.oid, c.relkind, c.relnamespace
    FROM reached r
    JOIN pg_class c ON c.oid = r.id AND c.oid >= 16384
    WHERE r.class = 'table'
), texts (root, text) AS (
    SELECT r.root, pg_get_expr(p.polqual, p.polrelid)
    FROM reached r
    JOIN pg_policy p ON p.polrelid = r.id AND p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL
    WHERE r.class <> 'function'
    UNION ALL
    SELECT f.root, concat_ws(' ', COALESCE(pg_get_function_sqlbody(f.oid), f.prosrc),
                             pg_get_expr(f.proargdefaults, 0))
    FROM called f
    WHERE f.lanname IN ('sql', 'plpgsql')
), dark (root) AS (
    -- Nobody knows what these do.
    SELECT f.root
    FROM called f
    WHERE f.lanname NOT IN ('sql', 'plpgsql', 'internal', 'c')
       OR f.lanname = 'plpgsql' AND f.prosrc ~* '\mexecute\M'
), unsteady (root) AS (
    SELECT root FROM dark
    UNION ALL
    SELECT f.root
    FROM called f
    WHERE f.prokind <> 'f' OR f.provolatile = 'v'
       OR f.lanname NOT IN ('sql', 'plpgsql') AND f.provolatile <> 'i'
    UNION ALL
    -- Views and foreign tables have no changes of their own.
    SELECT t.root FROM looked_into t WHERE t.relkind NOT IN ('r', 'p')
    UNION ALL
    -- Nor have sequences.
    SELECT t.root
    FROM texts t
    JOIN pg_class s ON s.relkind = 'S' AND strpos(lower(t.text), lower(s.relname)) > 0
    UNION ALL
    -- The clock and what is read by it, the catalogue, and names that are spelled in other ways.
    SELECT t.root
    FROM texts t
    WHERE t.text ~* concat(
              '\m(now|today|tomorrow|yesterday|(current|local)_?(date|time|timestamp)|date|time|timetz|',
              'timestamp|timestamptz|age|session_user|information_schema|reg(class|proc|procedure|oper|',
              'operator|role|type|namespace|config|dictionary|collation))\M')
       OR t.text ~* '\mpg_(?!catalog\M)|%\s*(row)?type\M|\mu&'
    UNION ALL
    -- The server's own functions that answer otherwise without a change of any table.
    SELECT t.root
    FROM texts t
    CROSS JOIN regexp_matches(t.text, '(\w+)"?\s*(?:\(|/\*|--)', 'g') AS word
    JOIN pg_proc f ON f.proname = lower(word[1]) AND f.oid < 16384
    WHERE f.provolatile = 'v'
       OR f.provolatile = 's' AND f.proname NOT IN (
           'array_to_string', 'concat', 'concat_ws', 'current_setting', 'date_part', 'date_trunc',
           'extract', 'format', 'generate_series', 'json_agg', 'json_build_array',
           'json_build_object', 'json_object_agg', 'jsonb_agg', 'jsonb_build_array',
           'jsonb_build_object', 'jsonb_object_agg', 'length', 'quote_literal', 'row_to_json',
           'to_char', 'to_json', 'to_jsonb')
    UNION ALL
    -- Operators, casts and types that somebody has made may do anything.
    SELECT r.root
    FROM reached r
    JOIN policy p ON p.polrelid = r.id
    JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
    WHERE r.class <> 'function'
      AND (d.refclassid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass)
           OR d.refclassid = 'pg_type'::regclass
              AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = d.refobjid AND e.typtype = 'e'))
    UNION ALL
    SELECT f.root
    FROM called f
    WHERE f.lanname IN ('sql', 'plpgsql') AND (EXISTS (
        SELECT
        FROM pg_proc made
        JOIN pg_language l ON l.oid = made.prolang AND l.lanname NOT IN ('internal', 'c')
        WHERE made.oid IN (SELECT o.oprcode FROM pg_operator o WHERE o.oid >= 16384)
           OR made.oid IN (SELECT c.castfunc FROM pg_cast c WHERE c.oid >= 16384)
    ) OR EXISTS (SELECT FROM pg_constraint c WHERE c.contypid <> 0 AND c.oid >= 16384))
), named (root, name) AS (
    SELECT DISTINCT t.root, lower(setting[1])
    FROM texts t
    CROSS JOIN regexp_matches(t.text, 'current_setting"?\s*\(\s*''([\w.]+)''', 'gi') AS setting
), unnamed (root) AS (
    SELECT root FROM dark
    UNION ALL
    SELECT t.root
    FROM texts t
    WHERE t.text ~* '\mpg_settings\M'
       OR (SELECT count(*) FROM regexp_matches(t.text, 'current_setting', 'gi'))
          > (SELECT count(*)
             FROM regexp_matches(t.text, 'current_setting"?\s*\(\s*''[\w.]+''', 'gi'))
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
    'tables', CASE WHEN s.oid NOT IN (SELECT root FROM dark) THEN ARRAY(
        SELECT DISTINCT r.id::bigint
        FROM reached r
        WHERE r.root = s.oid AND r.class = 'table' AND r.id >= 16384
        ORDER BY 1
    ) END,
    'steady', s.oid NOT IN (SELECT root FROM unsteady),
    'version', md5(concat(
        (SELECT string_agg(concat_ws(' ', f.oid, f.xmin, n.nspacl), ',' ORDER BY f.oid)
         FROM called c
         JOIN pg_proc f ON f.oid = c.oid
         JOIN pg_namespace n ON n.oid = f.pronamespace
         WHERE c.root = s.oid),
        (SELECT string_agg(concat_ws(' ', c.oid, c.relowner, c.relacl, c.relrowsecurity,
                                     c.relforcerowsecurity, n.nspacl), ',' ORDER BY c.oid)
         FROM looked_into t
         JOIN pg_class c ON c.oid = t.oid
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE t.root = s.oid),
        (SELECT string_agg(concat_ws(' ', a.attrelid, a.attnum, a.xmin), ','
                           ORDER BY a.attrelid, a.attnum)
         FROM looked_into t
         JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0
         WHERE t.root = s.oid),
        (SELECT string_agg(concat_ws(' ', p.oid, p.xmin), ',' ORDER BY p.oid)
         FROM looked_into t
         JOIN pg_policy p ON p.polrelid = t.oid
         WHERE t.root = s.oid)
    )),
    'settings', CASE WHEN s.oid NOT IN (SELECT root FROM unnamed) THEN ARRAY(
        SELECT n.name FROM named n WHERE n.root = s.oid ORDER BY 1
    ) END
) ORDER BY s.oid), '[]')::text
FROM secured s

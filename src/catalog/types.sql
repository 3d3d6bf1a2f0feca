-- The types of OIDs $1, and those that they are made of, as far as their OIDs are not below $2.
WITH RECURSIVE used (oid) AS (
    SELECT unnest($1::oid[])
    UNION
    SELECT part.oid
    FROM used
    JOIN pg_type t ON t.oid = used.oid AND t.oid >= $2::oid
    CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL
        SELECT t.typelem WHERE t.typelem <> 0
        UNION ALL
        SELECT a.atttypid
        FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS part (oid)
)
SELECT t.oid,
       t.typname::text,
       t.typtype,
       t.typbasetype,
       COALESCE(e.oid, 0) AS element,
       -- Two built-in arrays (int2vector, oidvector) have a form of their own.
       CASE WHEN t.oid IN (22, 30) THEN ' '::"char" ELSE COALESCE(e.typdelim, ',') END AS delimiter,
       ARRAY(
           SELECT l.enumlabel::text
           FROM pg_enum l
           WHERE l.enumtypid = t.oid
           ORDER BY l.enumsortorder
       ) AS labels,
       ARRAY(
           SELECT a.attname::text
           FROM pg_attribute a
           WHERE t.typtype = 'c' AND a.attrelid = t.typrelid
             AND a.attnum > 0 AND NOT a.attisdropped
           ORDER BY a.attnum
       ) AS attribute_names,
       ARRAY(
           SELECT a.atttypid
           FROM pg_attribute a
           WHERE t.typtype = 'c' AND a.attrelid = t.typrelid
             AND a.attnum > 0 AND NOT a.attisdropped
           ORDER BY a.attnum
       ) AS attribute_types,
       -- The casts that to_jsonb looks for: to json, of types that are not built in.
       t.oid >= 16384 AND EXISTS (
           SELECT
           FROM pg_cast k
           WHERE k.castsource = t.oid AND k.casttarget = 'json'::regtype AND k.castmethod = 'f'
       ) AS has_json_cast
FROM used
JOIN pg_type t ON t.oid = used.oid AND t.oid >= $2::oid
-- An element makes an array only with the array's own subscripting: name and point have elements,
-- too.
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typsubscript = 'array_subscript_handler'::regproc
ORDER BY t.oid

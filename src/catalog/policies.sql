-- The policies for SELECT of the tables of OIDs $1, as far as they concern the roles named $2, or
-- those as which functions run, as one JSON document; with the functions that they call, and the
-- enums of their columns.
WITH RECURSIVE secured AS (
    SELECT c.oid, c.relowner, c.relforcerowsecurity
    FROM pg_class c
    WHERE c.oid = ANY ($1::oid[]) AND c.relrowsecurity
), client AS (
    SELECT r.oid, r.rolname::text AS name, r.rolsuper OR r.rolbypassrls AS bypasses
    FROM pg_roles r
    WHERE r.rolname = ANY ($2::text[])
       OR r.oid IN (SELECT f.proowner FROM pg_proc f WHERE f.prosecdef AND f.oid >= 16384)
), policy AS (
    SELECT p.*
    FROM pg_policy p
    JOIN secured s ON s.oid = p.polrelid
    -- Without a condition a policy admits nothing, and forbids nothing.
    WHERE p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL
), called (oid) AS (
    SELECT d.refobjid
    FROM policy p
    JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                    AND d.refclassid = 'pg_proc'::regclass
    UNION
    -- What a body calls is only known by its text, unless it is stored.
    SELECT f.oid
    FROM called
    JOIN pg_proc caller ON caller.oid = called.oid AND caller.oid >= 16384
    JOIN pg_proc f ON f.oid >= 16384 AND (
        strpos(lower(caller.prosrc), lower(f.proname)) > 0
        OR caller.prosqlbody IS NOT NULL AND EXISTS (
            SELECT
            FROM pg_depend d
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = caller.oid
              AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = f.oid
        )
    )
    JOIN pg_language l ON l.oid = f.prolang AND l.lanname IN ('sql', 'plpgsql')
    JOIN pg_language of_caller ON of_caller.oid = caller.prolang
                              AND of_caller.lanname IN ('sql', 'plpgsql')
)
SELECT jsonb_build_object(
    'names', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
            'id', c.oid::bigint,
            'schema', n.nspname,
            'name', c.relname,
            'columns', COALESCE((
                SELECT jsonb_agg(jsonb_build_array(a.attnum, a.attname) ORDER BY a.attnum)
                FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            ), '[]')
        ) ORDER BY c.oid)
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY ($1::oid[])
    ), '[]'),
    'tables', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
            'id', s.oid::bigint,
            'exempt', ARRAY(
                SELECT client.name
                FROM client
                WHERE client.bypasses
                   OR NOT s.relforcerowsecurity
                      AND pg_has_role(client.oid, s.relowner, 'USAGE')
                ORDER BY client.name
            ),
            'policies', COALESCE((
                SELECT jsonb_agg(jsonb_build_object(
                    'name', p.polname,
                    'permissive', p.polpermissive,
                    'roles', ARRAY(
                        SELECT client.name
                        FROM client
                        WHERE EXISTS (
                            SELECT
                            FROM unnest(p.polroles) AS named (oid)
                            WHERE named.oid = 0 OR pg_has_role(client.oid, named.oid, 'USAGE')
                        )
                        ORDER BY client.name
                    ),
                    'tree', p.polqual::text,
                    'text', pg_get_expr(p.polqual, p.polrelid)
                ) ORDER BY p.polname)
                FROM policy p
                WHERE p.polrelid = s.oid
            ), '[]')
        ) ORDER BY s.oid)
        FROM secured s
    ), '[]'),
    'enums', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
            'id', t.oid::bigint,
            'name', t.typname,
            'labels', (
                SELECT jsonb_agg(jsonb_build_array(l.oid::bigint, l.enumlabel) ORDER BY l.oid)
                FROM pg_enum l
                WHERE l.enumtypid = t.oid
            )
        ) ORDER BY t.oid)
        FROM pg_type t
        WHERE t.typtype = 'e' AND t.oid IN (
            SELECT a.atttypid
            FROM pg_attribute a
            WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
        ) AND EXISTS (SELECT FROM pg_enum l WHERE l.enumtypid = t.oid)
    ), '[]'),
    'functions', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
            'id', f.oid::bigint,
            'schema', n.nspname,
            'name', f.proname,
            'result', f.prorettype::bigint,
            'language', l.lanname,
            'body', f.prosrc,
            'parameters', ARRAY(
                SELECT jsonb_build_array(COALESCE(f.proargnames[part.place], ''), part.of::bigint)
                FROM unnest(f.proargtypes::oid[]) WITH ORDINALITY AS part (of, place)
                ORDER BY part.place
            ),
            -- Of parameters, those that are given, and columns (RETURNS TABLE).
            'is_plain', f.prokind = 'f'
                AND COALESCE(f.proargmodes::text[] <@ ARRAY['i', 't'], true)
                AND (f.proretset OR f.proargmodes IS NULL),
            'rows', CASE
                WHEN NOT f.proretset THEN NULL
                WHEN f.proargmodes IS NOT NULL THEN to_jsonb(ARRAY(
                    SELECT jsonb_build_array(f.proargnames[part.place], part.of::bigint)
                    FROM unnest(f.proallargtypes) WITH ORDINALITY AS part (of, place)
                    WHERE f.proargmodes[part.place] = 't'
                    ORDER BY part.place
                ))
                WHEN of_rows.typrelid <> 0 THEN to_jsonb(ARRAY(
                    SELECT jsonb_build_array(a.attname, a.atttypid::bigint)
                    FROM pg_attribute a
                    WHERE a.attrelid = of_rows.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                    ORDER BY a.attnum
                ))
                ELSE jsonb_build_array(jsonb_build_array('', f.prorettype::bigint))
            END,
            'stored', CASE WHEN f.prosqlbody IS NOT NULL THEN
                jsonb_build_array(f.prosqlbody::text, pg_get_function_sqlbody(f.oid))
            END,
            'is_strict', f.proisstrict,
            'is_only', (SELECT count(*) FROM pg_proc same WHERE same.proname = f.proname) = 1,
            'owner', CASE WHEN f.prosecdef THEN pg_get_userbyid(f.proowner) END,
            'settings', COALESCE(to_jsonb(f.proconfig), '[]'),
            'callers', ARRAY(
                SELECT client.name
                FROM client
                WHERE has_function_privilege(client.oid, f.oid, 'EXECUTE')
                ORDER BY client.name
            ),
            'namers', ARRAY(
                SELECT client.name
                FROM client
                WHERE has_function_privilege(client.oid, f.oid, 'EXECUTE')
                  AND has_schema_privilege(client.oid, f.pronamespace, 'USAGE')
                ORDER BY client.name
            )
        ) ORDER BY f.oid)
        FROM pg_proc f
        JOIN pg_namespace n ON n.oid = f.pronamespace
        JOIN pg_language l ON l.oid = f.prolang
        JOIN pg_type of_rows ON of_rows.oid = f.prorettype
        -- Of one name there may be several: none of them is looked into then.
        WHERE EXISTS (
            SELECT
            FROM called
            JOIN pg_proc same ON same.oid = called.oid
            WHERE same.pronamespace = f.pronamespace AND same.proname = f.proname
        )
    ), '[]'),
    'ambiguous', COALESCE((
        SELECT jsonb_agg(DISTINCT c.relname)
        FROM pg_class c
        JOIN pg_class other ON other.relname = c.relname AND other.oid <> c.oid
        WHERE c.oid = ANY ($1::oid[]) AND other.relkind IN ('r', 'p', 'v', 'm', 'f')
    ), '[]'),
    -- Whether a body could mean something else than the server's own by a name: of an aggregate, and
    -- by any other.
    'shadowed_aggregates', EXISTS (
        SELECT
        FROM pg_proc f
        WHERE f.pronamespace <> 'pg_catalog'::regnamespace AND f.proname IN ('array_agg', 'count')
    ),
    'shadowed', EXISTS (
        SELECT
        FROM pg_proc f
        WHERE f.pronamespace <> 'pg_catalog'::regnamespace
          AND f.proname IN ('current_setting', 'lower', 'upper', 'length', 'char_length',
                            'character_length')
    ) OR EXISTS (
        SELECT
        FROM pg_operator o
        WHERE o.oprnamespace <> 'pg_catalog'::regnamespace
          AND o.oprleft < 16384 AND o.oprright < 16384
          AND o.oprname IN ('=', '<>', '<', '<=', '>', '>=', '~~', '!~~', '~~*', '!~~*', '->', '->>',
                            '#>', '#>>', '?', '?|', '?&', '@>', '<@', '&&', '||')
    )
)::text

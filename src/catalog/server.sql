-- The server's own operators and functions, as far as policies may be made of them. Their OIDs are
-- given before any database is made, and their code is the server's.
SELECT jsonb_build_object(
    'operators', (
        SELECT jsonb_agg(jsonb_build_array(
            o.oid::bigint, o.oprname, o.oprleft::bigint, o.oprright::bigint))
        FROM pg_operator o
        JOIN pg_proc p ON p.oid = o.oprcode
        WHERE o.oid < 16384 AND o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0
          AND p.oid < 16384 AND p.prolang = 12
    ),
    'functions', (
        SELECT jsonb_agg(jsonb_build_array(
            p.oid::bigint, p.proname, ARRAY(SELECT unnest(p.proargtypes::oid[])::bigint)))
        FROM pg_proc p
        WHERE p.oid < 16384 AND p.pronamespace = 'pg_catalog'::regnamespace AND p.prolang = 12
          AND NOT p.proretset
          AND p.proname IN ('current_setting', 'lower', 'upper', 'length', 'char_length',
                            'character_length', 'int2', 'int4', 'int8', 'numeric', 'float8', 'text',
                            'date', 'timestamp')
    )
)::text

-- What `walcast check` looks at, as one JSON document: publication $1, slot $2, replication role
-- $3 (null: not asked), client roles $4, tables of the configuration $5 (schemas) and $6 (names). Rows whose columns differ between versions are taken whole.
SELECT jsonb_build_object(
    'version', current_setting('server_version_num')::int,
    'database', current_database(),
    'encoding', (SELECT pg_encoding_to_char(encoding) FROM pg_database
                 WHERE datname = current_database()),
    'in_recovery', pg_is_in_recovery(),
    'settings', (
        SELECT jsonb_object_agg(name, setting)
        FROM pg_settings
        WHERE name IN ('wal_level', 'max_slot_wal_keep_size', 'wal_sender_timeout',
                       'max_wal_senders', 'max_replication_slots',
                       'idle_replication_slot_timeout')
    ),
    'clock', extract(epoch FROM clock_timestamp()),
    'fence', EXISTS (
        SELECT FROM pg_event_trigger WHERE evtname = 'walcast_fence' AND evtenabled <> 'D'),
    -- What their policies say depends on functions or other tables, or their partitions are announced.
    'late', COALESCE((
        SELECT jsonb_agg(c.oid::regclass ORDER BY p.schemaname, p.tablename)
        FROM pg_publication_tables p
        JOIN pg_namespace n ON n.nspname = p.schemaname
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
        WHERE p.pubname = $1::text AND c.relrowsecurity
          AND (c.relkind = 'p' OR EXISTS (
              SELECT
              FROM pg_policy y
              JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = y.oid
              WHERE y.polrelid = c.oid
                AND (d.refclassid = 'pg_proc'::regclass AND d.refobjid >= 16384
                     OR d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid)))
    ), '[]'),
    'slots_used', (SELECT count(*) FROM pg_replication_slots),
    -- What is in a row of it only some may see; how many there are, everybody.
    'senders_used', (SELECT count(*) FROM pg_stat_replication),
    'slot', (
        SELECT to_jsonb(s) || jsonb_build_object(
            'lag_bytes', CASE WHEN NOT pg_is_in_recovery()
                THEN pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.confirmed_flush_lsn) END,
            'retained_bytes', CASE WHEN NOT pg_is_in_recovery()
                THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END,
            'reader', (
                SELECT format('process %s (%s, as %s)', a.pid, a.application_name, a.usename)
                FROM pg_stat_activity a
                WHERE a.pid = s.active_pid))
        FROM pg_replication_slots s
        WHERE s.slot_name = $2::text
    ),
    -- Slots that nobody reads, but for the one that is ours.
    'idle_slots', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
            'name', s.slot_name,
            'plugin', COALESCE(s.plugin, 'physical replication'),
            'here', s.database = current_database(),
            'retained_bytes', CASE WHEN NOT pg_is_in_recovery()
                THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END
        ) ORDER BY s.slot_name)
        FROM pg_replication_slots s
        WHERE NOT s.active AND s.slot_name <> $2::text
    ), '[]'),
    'partitioned', EXISTS (
        SELECT
        FROM pg_publication p
        JOIN pg_class c ON c.relkind = 'p' AND (p.puballtables OR EXISTS (
            SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))
        WHERE p.pubname = $1::text
    ),
    'publication', (SELECT to_jsonb(p) FROM pg_publication p WHERE p.pubname = $1::text),
    'row_filters', COALESCE((
        SELECT jsonb_agg(jsonb_build_object('schema', p.schemaname, 'name', p.tablename))
        FROM pg_publication_tables p
        WHERE p.pubname = $1::text AND to_jsonb(p) ->> 'rowfilter' IS NOT NULL
    ), '[]'),
    'asking_role', (SELECT to_jsonb(r) FROM pg_roles r WHERE r.rolname = current_user),
    'replication_role', (SELECT to_jsonb(r) FROM pg_roles r WHERE r.rolname = $3::text),
    'unknown_roles', to_jsonb(ARRAY(
        SELECT wanted FROM unnest($4::text[]) AS wanted
        WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = wanted)
    )),
    'foreign_roles', to_jsonb(ARRAY(
        SELECT r.rolname::text FROM pg_roles r
        WHERE r.rolname = ANY ($4::text[]) AND NOT pg_has_role(current_user, r.oid,
            CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER'
                 ELSE 'SET' END)
    )),
    -- Client roles that no row-level security holds.
    'exempt_roles', to_jsonb(ARRAY(
        SELECT r.rolname::text FROM pg_roles r
        WHERE r.rolname = ANY ($4::text[]) AND (r.rolsuper OR r.rolbypassrls)
    )),
    -- Every table whose rows are written under the publication, or would be if the configuration's
    -- tables were published: for a partitioned one, its leaves.
    'identities', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
            'schema', n.nspname,
            'name', c.relname,
            'kind', c.relreplident,
            'published', written.published,
            'usable', c.relreplident = 'f' OR EXISTS (
                SELECT FROM pg_index i
                WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisunique AND i.indimmediate
                  AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
                                          WHEN 'i' THEN i.indisreplident END),
            'has_key', EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
        ) ORDER BY n.nspname, c.relname)
        FROM (
            SELECT COALESCE(leaf.relid::oid, root.oid) AS oid,
                   bool_or(wanted.published) AS published
            FROM (
                SELECT p.schemaname, p.tablename, true
                FROM pg_publication_tables p
                WHERE p.pubname = $1::text
                UNION ALL
                SELECT schema, name, false
                FROM unnest($5::text[], $6::text[]) AS configured (schema, name)
            ) AS wanted (schema, name, published)
            JOIN pg_namespace n ON n.nspname = wanted.schema
            JOIN pg_class root ON root.relnamespace = n.oid AND root.relname = wanted.name
            LEFT JOIN LATERAL pg_partition_tree(root.oid::regclass) leaf ON leaf.isleaf
            GROUP BY 1
        ) AS written
        JOIN pg_class c ON c.oid = written.oid AND c.relkind = 'r'
        JOIN pg_namespace n ON n.oid = c.relnamespace
    ), '[]')
)::text

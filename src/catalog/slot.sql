-- What the server says of the slot $1, and how much log it keeps for it. Cheap enough for each
-- second. Positions as texts.
SELECT s.active,
       s.active_pid,
       s.wal_status,
       s.safe_wal_size,
       s.restart_lsn::text,
       s.confirmed_flush_lsn::text,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_lsn() END::text,
       NULLIF(pg_size_bytes(current_setting('max_slot_wal_keep_size')), -1),
       oldest.who
FROM pg_replication_slots s
-- The oldest transaction that has written: the log is kept from its beginning on, until it ends.
LEFT JOIN LATERAL (
    SELECT who
    FROM (
        SELECT age(backend_xid),
               format('process %s (%s)', pid, COALESCE(NULLIF(application_name, ''), usename, '?'))
        FROM pg_stat_activity
        WHERE backend_xid IS NOT NULL
        UNION ALL
        SELECT age(transaction), format('prepared transaction %L', gid)
        FROM pg_prepared_xacts
    ) AS open (age, who)
    ORDER BY open.age DESC
    LIMIT 1
) AS oldest ON true
WHERE s.slot_name = $1::text

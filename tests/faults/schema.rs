//! The tables that are written and watched, and what is known of them beforehand.
//!
//! All tables have the same columns, so that a writer and a filter need not know which they have.
//! They differ in what makes changes differ: the replica identity, partitions, large values.

/// The tables that writers write to.
pub(crate) const TABLES: [&str; 4] = ["orders", "jobs", "events", "notes"];

/// The leaves of the partitioned table `events`.
pub(crate) const LEAVES: [&str; 2] = ["events_even", "events_odd"];

/// What a status may be.
pub(crate) const STATUSES: [&str; 4] = ["open", "held", "sent", "done"];

/// How many regions there are.
pub(crate) const REGIONS: u64 = 6;

/// The role of the clients.
pub(crate) const ROLE: &str = "web";

/// The statements that make everything before anybody writes.
///
/// `shape_log` gets a row in each transaction that changes a table's shape or whether it is
/// published, so that the truth knows at which commit that happened. Clients don't see it.
pub(crate) fn statements(by_root: bool) -> String {
    const COLUMNS: &str = "id bigint NOT NULL, region int, status text, amount int, note text, \
                           writer int, number bigint, chain text, PRIMARY KEY (id)";
    let mut sql = String::new();
    for table in ["orders", "jobs", "notes"] {
        sql.push_str(&format!("CREATE TABLE {table} ({COLUMNS});"));
    }
    sql.push_str(&format!("CREATE TABLE events ({COLUMNS}) PARTITION BY HASH (id);"));
    // The second leaf has its columns in another order.
    sql.push_str(
        "CREATE TABLE events_even PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE events_odd (chain text, number bigint, writer int, note text, amount int, \
             status text, region int, id bigint NOT NULL PRIMARY KEY);
         ALTER TABLE events ATTACH PARTITION events_odd FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
    );
    for table in ["orders", "events", "events_even", "events_odd"] {
        sql.push_str(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL;"));
    }
    for table in ["orders", "jobs", "notes", "events", "events_even", "events_odd"] {
        sql.push_str(&format!("ALTER TABLE {table} ALTER COLUMN note SET STORAGE EXTERNAL;"));
    }
    sql.push_str(&format!(
        "CREATE TABLE ledger (writer int PRIMARY KEY, transaction bigint, number bigint, chain text);
         CREATE TABLE shape_log (number bigserial PRIMARY KEY, relation text, published bool, \
             identity_full bool, columns text);
         CREATE ROLE {ROLE} NOLOGIN;
         GRANT SELECT ON orders, jobs, notes, events, events_even, events_odd, ledger TO {ROLE};
         CREATE PUBLICATION walcast FOR TABLE orders, jobs, notes, events, ledger
             WITH (publish_via_partition_root = {by_root});",
    ));
    sql
}

/// The statement that notes a table's shape as it is now, in the transaction that changed it.
pub(crate) fn note_shape(table: &str, published: bool) -> String {
    format!(
        "INSERT INTO shape_log (relation, published, identity_full, columns) \
         SELECT '{table}', {published}, c.relreplident = 'f', \
             (SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute \
              WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) \
         FROM pg_class c WHERE c.oid = '{table}'::regclass;"
    )
}

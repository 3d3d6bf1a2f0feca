//! The tables that are written and watched, and what is known of them beforehand.
//!
//! All tables have the same columns, so that a writer and a filter need not know which they have.
//! They differ in what makes changes differ: the replica identity, partitions, large values, and
//! who may see their rows. `members` alone is another one: policies read it.

/// The tables that everybody may see, and that writers write to.
pub(crate) const TABLES: [&str; 4] = ["orders", "jobs", "events", "notes"];

/// Those with policies. Writers write to them, too.
pub(crate) const GUARDED: [&str; 3] = ["docs", "papers", "asks"];

/// The leaves of the partitioned table `events`.
pub(crate) const LEAVES: [&str; 2] = ["events_even", "events_odd"];

/// What a status may be.
pub(crate) const STATUSES: [&str; 4] = ["open", "held", "sent", "done"];

/// How many regions there are.
pub(crate) const REGIONS: u64 = 6;

/// The role of most clients.
pub(crate) const ROLE: &str = "web";

/// The role of those whose policy is altered now and then.
pub(crate) const STAFF: &str = "staff";

/// The tables' columns.
pub(crate) const COLUMNS: [&str; 8] =
    ["id", "region", "status", "amount", "note", "writer", "number", "chain"];

/// What the policies are: members see the rows of their regions, whoever has a number those of this
/// writer, and about `asks` Postgres is asked, because of the PERFORM. `guard` says it once more.
const POLICIES: &str = "
    CREATE TABLE members (team int, who text, active bool NOT NULL, PRIMARY KEY (team, who));
    CREATE TABLE policy_log (number bigint PRIMARY KEY, statuses text);
    CREATE SCHEMA auth;
    CREATE FUNCTION auth.uid() RETURNS text LANGUAGE sql STABLE AS
      $$ SELECT current_setting('request.jwt.claims', true)::json ->> 'sub' $$;
    CREATE FUNCTION auth.writer() RETURNS int LANGUAGE sql STABLE AS
      $$ SELECT (current_setting('request.jwt.claims', true)::json ->> 'writer')::int $$;
    CREATE FUNCTION auth.may(region int, status text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
      BEGIN
        PERFORM 1;
        IF status = 'open' THEN RETURN true; END IF;
        RETURN EXISTS (SELECT FROM public.members m
                       WHERE m.team = region AND m.who = auth.uid() AND m.active);
      END $$;
    GRANT USAGE ON SCHEMA auth TO PUBLIC;
    GRANT SELECT ON docs, papers, asks, members TO web, staff;
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    ALTER TABLE papers ENABLE ROW LEVEL SECURITY;
    ALTER TABLE asks ENABLE ROW LEVEL SECURITY;
    ALTER TABLE members ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON members TO web USING (who = auth.uid());
    CREATE POLICY members ON docs TO web USING (EXISTS (SELECT FROM members m
      WHERE m.team = docs.region AND m.who = auth.uid() AND m.active));
    CREATE POLICY staff ON docs TO staff USING (status IN ('open', 'held'));
    CREATE POLICY members ON papers TO web USING (region IN (SELECT team FROM members
      WHERE who = auth.uid() AND active));
    CREATE POLICY own ON papers TO web USING (writer = auth.writer());
    CREATE POLICY done ON papers AS RESTRICTIVE USING (status <> 'done' OR id < 0);
    CREATE POLICY staff ON papers TO staff USING (true);
    CREATE POLICY members ON asks TO web USING (auth.may(region, status));
    CREATE POLICY staff ON asks TO staff USING (auth.may(region, status) IS NOT NULL);
";

/// Which statuses staff may see of `docs` in the beginning.
pub(crate) const FIRST_STATUSES: [&str; 2] = ["open", "held"];

/// The statements that make everything before anybody writes.
///
/// `shape_log` gets a row in each transaction that changes a table's shape or whether it is
/// published, so that the truth knows at which commit that happened. Clients don't see it.
pub(crate) fn statements(by_root: bool) -> String {
    const TYPED: &str = "id bigint NOT NULL, region int, status text, amount int, note text, \
                           writer int, number bigint, chain text, PRIMARY KEY (id)";
    let mut sql = String::new();
    for table in ["orders", "jobs", "notes"].iter().chain(&GUARDED) {
        sql.push_str(&format!("CREATE TABLE {table} ({TYPED});"));
    }
    sql.push_str(&format!("CREATE TABLE events ({TYPED}) PARTITION BY HASH (id);"));
    // The second leaf has its columns in another order.
    sql.push_str(
        "CREATE TABLE events_even PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE events_odd (chain text, number bigint, writer int, note text, amount int, \
             status text, region int, id bigint NOT NULL PRIMARY KEY);
         ALTER TABLE events ATTACH PARTITION events_odd FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
    );
    for table in ["orders", "events", "events_even", "events_odd", "docs", "asks"] {
        sql.push_str(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL;"));
    }
    for table in
        ["orders", "jobs", "notes", "events", "events_even", "events_odd"].iter().chain(&GUARDED)
    {
        sql.push_str(&format!("ALTER TABLE {table} ALTER COLUMN note SET STORAGE EXTERNAL;"));
    }
    sql.push_str(&format!(
        "CREATE TABLE ledger (writer int PRIMARY KEY, transaction bigint, number bigint, chain text);
         CREATE TABLE shape_log (number bigserial PRIMARY KEY, relation text, published bool, \
             identity_full bool, columns text);
         CREATE ROLE {ROLE} NOLOGIN; CREATE ROLE {STAFF} NOLOGIN;
         GRANT SELECT ON orders, jobs, notes, events, events_even, events_odd, ledger TO {ROLE};
         {POLICIES}
         CREATE PUBLICATION walcast FOR TABLE orders, jobs, notes, events, ledger, docs, papers, asks,
             members WITH (publish_via_partition_root = {by_root});",
    ));
    sql
}

/// The statements that let staff see other statuses of `docs`, and note it in their transaction.
pub(crate) fn alter_policy(number: i64, statuses: &[&str]) -> String {
    let list = statuses.join("', '");
    format!(
        "ALTER POLICY staff ON docs USING (status IN ('{list}')); \
         INSERT INTO policy_log VALUES ({number}, '{}')",
        statuses.join(",")
    )
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

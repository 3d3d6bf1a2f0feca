//! `walcast check`, as a user runs it: exit codes, and whether the SQL that it prints mends what it
//! finds.

use std::process::Output;

use tokio_postgres::Client;

use crate::program::Folder;
use crate::program::printed;
use crate::program::run;
use crate::sql::psql;
use crate::support;
use crate::support::Database;

/// A database, its configuration, and the names of its roles.
struct Checked {
    database: Database,
    sql: Client,
    folder: Folder,
}

impl Checked {
    /// Makes a database with everything that walcast needs; `tables` are the `[[table]]` sections.
    async fn new(tables: &str) -> Checked {
        let database = support::database().await;
        let sql = database.connect().await;
        let checked = Checked { database, sql, folder: Folder::new() };
        checked
            .execute(
                "CREATE ROLE NAME_repl LOGIN REPLICATION; CREATE ROLE NAME_ask LOGIN; \
                 CREATE ROLE NAME_web NOLOGIN; GRANT NAME_web TO NAME_ask; \
                 CREATE TABLE orders (id int PRIMARY KEY, customer text); \
                 ALTER TABLE orders REPLICA IDENTITY FULL; GRANT SELECT ON orders TO NAME_web; \
                 CREATE PUBLICATION walcast FOR TABLE orders",
            )
            .await;
        // Not in a transaction block, as a batch would be.
        checked.sql.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '2GB'", &[]).await.unwrap();
        checked.sql.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
        let text = format!(
            "[database]\nurl = '{}'\nask_url = '{}'\nslot = '{}'\n\
             [auth]\nroles = ['{web}']\nanonymous_role = '{web}'\n{tables}",
            checked.url("repl"),
            checked.url("ask"),
            checked.database.name,
            web = checked.named("NAME_web"),
        );
        checked.folder.write("walcast.toml", text);
        checked
    }

    fn url(&self, role: &str) -> String {
        let role = self.named(&format!("NAME_{role}"));
        self.database.server.connection_string_as(&role, &self.database.name)
    }

    fn named(&self, text: &str) -> String {
        text.replace("NAME", &self.database.name)
    }

    async fn execute(&self, sql: &str) {
        self.sql.batch_execute(&self.named(sql)).await.unwrap();
    }

    fn check(&self) -> Output {
        let file = self.folder.path("walcast.toml");
        run(&["check", "--online", "--config", file.to_str().unwrap()])
    }
}

/// The SQL that a report prints, one finding's after the other.
fn mends(report: &str) -> impl Iterator<Item = &str> {
    report.lines().filter_map(|line| line.strip_prefix("           "))
}

const ORDERS: &str = "[[table]]\nname = 'public.orders'\n\
                      policy = \"customer = claims ->> 'sub'\"\n";

#[tokio::test]
async fn exit_codes_tell_errors_from_warnings() {
    let checked = Checked::new(ORDERS).await;
    let good = checked.check();
    assert_eq!(good.status.code(), Some(0), "{}", printed(&good));
    assert!(printed(&good).contains("ok       configuration and database"), "{}", printed(&good));

    checked.execute("ALTER PUBLICATION walcast SET (publish = 'insert')").await;
    let warned = checked.check();
    assert_eq!(warned.status.code(), Some(2), "{}", printed(&warned));
    assert!(printed(&warned).contains("0 errors, 1 warning"), "{}", printed(&warned));

    checked.execute("DROP PUBLICATION walcast").await;
    let wrong = checked.check();
    assert_eq!(wrong.status.code(), Some(1), "{}", printed(&wrong));
    assert!(printed(&wrong).contains("1 error, 0 warnings"), "{}", printed(&wrong));
}

#[tokio::test]
async fn the_sql_that_is_printed_mends_what_was_found() {
    let parts = "[[table]]\nname = 'stock.parts'\nopen = true\n";
    let checked = Checked::new(&format!("{ORDERS}{parts}")).await;
    checked
        .execute(
            "CREATE SCHEMA stock; CREATE TABLE stock.parts (id int); \
             ALTER ROLE NAME_repl NOREPLICATION; ALTER ROLE NAME_ask BYPASSRLS; \
             REVOKE NAME_web FROM NAME_ask; REVOKE SELECT ON orders FROM NAME_web; \
             ALTER TABLE orders DROP CONSTRAINT orders_pkey, REPLICA IDENTITY DEFAULT; \
             DROP PUBLICATION walcast",
        )
        .await;
    let mut report = checked.check();
    assert_eq!(report.status.code(), Some(1), "{}", printed(&report));
    let mut applied = Vec::new();
    // Some faults hide others: a table that is not published has no identity to speak of.
    for _ in 0..3 {
        for sql in mends(&printed(&report)) {
            checked.sql.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            applied.push(sql.to_owned());
        }
        report = checked.check();
        if report.status.success() {
            break;
        }
    }
    assert!(report.status.success(), "{}\nafter {applied:#?}", printed(&report));
}

#[tokio::test]
async fn a_policy_that_does_not_fit_its_table_is_found() {
    let policy = "[[table]]\nname = 'public.orders'\npolicy = \"owner = claims ->> 'sub'\"\n";
    let checked = Checked::new(policy).await;
    let report = checked.check();
    assert_eq!(report.status.code(), Some(1), "{}", printed(&report));
    assert!(printed(&report).contains("public.orders: its policy can't be decided"));
    assert!(printed(&report).contains("invalid column for filter owner"), "{}", printed(&report));
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_one_finding_for_each_connection() {
    let checked = Checked::new(ORDERS).await;
    checked.execute("ALTER ROLE NAME_ask NOLOGIN; ALTER ROLE NAME_repl NOLOGIN").await;
    let report = checked.check();
    assert_eq!(report.status.code(), Some(1), "{}", printed(&report));
    let text = printed(&report);
    assert!(text.contains("error    database.url: "), "{text}");
    assert!(text.contains("error    database.ask_url: "), "{text}");
    assert!(text.contains("is not permitted to log in"), "{text}");
}

#[test]
fn a_policy_that_cannot_be_read_is_a_mistake_with_its_line() {
    let folder = Folder::new();
    let file = folder.write(
        "walcast.toml",
        "database.url = 'postgres://walcast@localhost/app'\nauth.anonymous_role = 'web'\n\
         [[table]]\nname = 'orders'\npolicy = 'customer = '\n",
    );
    for (command, code) in [("check", 1), ("serve", 78)] {
        let output = run(&[command, "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{}", printed(&output));
        let text = printed(&output);
        assert!(text.contains("walcast.toml:5:1: table.0.policy = \"customer = \": "), "{text}");
    }
}

#[tokio::test]
async fn each_policy_of_the_database_is_said_to_be_decided_or_why_not() {
    let checked = Checked::new("").await;
    checked
        .execute(
            "ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
             CREATE POLICY mine ON orders USING (customer = current_setting('app.customer', true));
             CREATE POLICY late ON orders USING (now() > '2024-01-01');
             CREATE POLICY flag ON orders AS RESTRICTIVE USING (
                 (current_setting('request.jwt.claims')::json -> 'user_metadata' ->> 'x') = 'y')",
        )
        .await;
    let report = printed(&checked.check());
    assert!(report.contains("is served by its own policies: \"flag\""), "{report}");
    assert!(report.contains("its policy \"late\" is not decided here"), "{report}");
    assert!(report.contains("\"flag\" reads user_metadata"), "{report}");
    assert!(report.contains("current_setting('app.customer') is not supported"), "{report}");
    assert!(report.contains("[[auth.settings]]"), "{report}");

    let mapped = "[[auth.settings]]\nname = 'app.customer'\nclaim = ['org', 'customer']\n";
    let file = checked.folder.path("walcast.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{mapped}")).unwrap();
    let report = printed(&checked.check());
    assert!(report.contains("is served by its own policies: \"flag\", \"mine\""), "{report}");
}

/// Whoever is a member of an order's organisation sees it.
const MEMBERSHIP: &str = "
    CREATE TABLE members (org text, who text);
    ALTER TABLE members ENABLE ROW LEVEL SECURITY;
    GRANT SELECT ON members TO NAME_web;
    CREATE POLICY own ON members USING (
        who = current_setting('request.jwt.claims', true)::json ->> 'sub');
    ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
    CREATE POLICY of_members ON orders USING (EXISTS (
        SELECT FROM members m WHERE m.org = orders.customer
        AND m.who = current_setting('request.jwt.claims', true)::json ->> 'sub'))";

/// The lines of a report that are about a table and have a code.
fn lines<'r>(report: &'r str, table: &str, code: &str) -> Vec<&'r str> {
    let (table, code) = (format!(" {table}: "), format!("[{code}]"));
    let is_of = |line: &&str| line.contains(&table) && line.ends_with(&code);
    report.lines().filter(is_of).collect()
}

#[tokio::test]
async fn it_is_told_which_tier_decides_and_what_a_table_needs_to_be_held() {
    let checked = Checked::new("[[table]]\nname = 'orders'\nopen = true\n").await;
    checked.execute(MEMBERSHIP).await;
    psql(&checked.database, "postgres", "06-fence.sql", &[]);
    let report = printed(&checked.check());
    let tier = lines(&report, "public.orders", "policy-tier").concat();
    assert!(tier.contains("Postgres is asked about each change, because policy"), "{report}");
    assert!(tier.contains("its changes are not in the publication"), "{report}");
    let unheld = lines(&report, "public.members", "replica-unheld").concat();
    for why in [
        "the publication does not have the table",
        "the table has no replica identity",
        "row-level security hides rows from the reading role",
    ] {
        assert!(unheld.contains(why), "{why}: {report}");
    }
    // What it prints mends it, with the role that it asks for.
    let mut sql: Vec<&str> = mends(&report).filter(|sql| sql.contains("members")).collect();
    sql.sort_by_key(|sql| !sql.contains("IDENTITY"));
    assert!(sql.len() == 3, "{sql:?}");
    for sql in sql {
        checked.sql.batch_execute(sql).await.unwrap();
    }
    let file = checked.folder.path("walcast.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = format!("{text}[replicas]\nrole = 'walcast_tables'\nbytes_max = 1048576\n");
    std::fs::write(&file, &text).unwrap();
    let good = checked.check();
    let report = printed(&good);
    assert_eq!(good.status.code(), Some(0), "{report}");
    let tier = lines(&report, "public.orders", "policy-tier").concat();
    let holds = "walcast, by the row, the claims and what it holds of public.members";
    assert!(tier.contains(holds), "{report}");
    assert!(lines(&report, "public.members", "replica-unheld").is_empty(), "{report}");
    let held = lines(&report, "public.members", "replica").concat();
    assert!(held.contains("policies of public.orders read its org, who; about 0 rows"), "{report}");

    // What is too much together, and what nothing mends.
    checked
        .execute(
            "INSERT INTO members SELECT n, n FROM generate_series(1, 20000) n; ANALYZE members",
        )
        .await;
    let large = checked.check();
    assert_eq!(large.status.code(), Some(2), "{}", printed(&large));
    let report = printed(&large);
    let held = lines(&report, "public.members", "replica").concat();
    assert!(held.contains("about 20000 rows, "), "{report}");
    assert_eq!(lines(&report, "replicas.bytes_max", "replicas-too-large").len(), 1, "{report}");
    checked.execute("CREATE TABLE more (note text) INHERITS (members)").await;
    std::fs::write(&file, format!("{text}[rls]\nundecided = 'refuse'\n")).unwrap();
    let report = printed(&checked.check());
    let unheld = lines(&report, "public.members", "replica-unheld").concat();
    assert!(unheld.starts_with("warning"), "{report}");
    assert!(
        unheld.contains("so that subscriptions are refused: other tables inherit from it"),
        "{report}"
    );
    let tier = lines(&report, "public.orders", "policy-tier").concat();
    assert!(tier.contains("it is refused, because policy"), "{report}");
}

#[tokio::test]
async fn a_table_is_found_before_it_is_published_and_breaks_the_application() {
    let parts = "[[table]]\nname = 'parts'\nopen = true\n";
    let checked = Checked::new(&format!("{ORDERS}{parts}")).await;
    checked.execute("CREATE TABLE parts (id int); GRANT SELECT ON parts TO NAME_web").await;
    let report = checked.check();
    assert_eq!(report.status.code(), Some(1), "{}", printed(&report));
    let text = printed(&report);
    let expected =
        "public.parts: has no usable replica identity: give it one before it is published";
    assert!(text.contains(expected), "{text}");
    // In this order nothing of the application fails in between.
    let mends: Vec<&str> = mends(&text).collect();
    let identity = mends.iter().position(|sql| sql.contains("REPLICA IDENTITY FULL"));
    let published = mends.iter().position(|sql| sql.contains("ADD TABLE public.parts"));
    assert!(identity.unwrap() < published.unwrap(), "{mends:?}");
}

#[tokio::test]
async fn forgotten_slots_are_found_and_programs_can_read_all_of_it() {
    let checked = Checked::new(ORDERS).await;
    let name = format!("walcast_old_{}", checked.database.name);
    let create = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')");
    checked.execute(&create).await;
    checked.execute("ALTER ROLE NAME_web BYPASSRLS").await;
    let file = checked.folder.path("walcast.toml");
    let arguments = ["check", "--online", "--format", "json", "--config", file.to_str().unwrap()];
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["warnings"], 2, "{report}");
    let findings = report["findings"].as_array().unwrap();
    let orphan = findings.iter().find(|finding| finding["code"] == "slot-orphaned").unwrap();
    assert_eq!((&orphan["subject"], &orphan["severity"]), (&name.into(), &"warning".into()));
    assert!(findings.iter().any(|finding| finding["code"] == "client-role-too-strong"));
    for finding in findings.iter().filter(|finding| finding["severity"] == "warning") {
        checked.execute(finding["sql"].as_str().unwrap()).await;
    }
    assert_eq!(checked.check().status.code(), Some(0), "{}", printed(&checked.check()));
}

//! The files of `sql/`, applied with psql as a DBA would, and the audit of what they leave.

use std::process::Command;

use walcast::catalog::Catalog;
use walcast::catalog::Settings;
use walcast::catalog::TableName;
use walcast::catalog::audit::Access;
use walcast::catalog::audit::Expectations;
use walcast::catalog::audit::ExpectedTable;
use walcast::catalog::audit::Finding;
use walcast::catalog::audit::Severity;
use walcast::catalog::audit::judge;
use walcast::tls::TlsMode;

use crate::support::Database;
use crate::support::database;

/// What an application has before walcast comes.
const APPLICATION: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, status text, total numeric);
    ALTER TABLE orders REPLICA IDENTITY FULL;
    CREATE TABLE \"We Ird\" (id int PRIMARY KEY, at tsvector);
    ALTER TABLE \"We Ird\" REPLICA IDENTITY FULL;
    CREATE TABLE keyless (x int);
    CREATE TABLE unmentioned (id int PRIMARY KEY);
    CREATE TABLE parts (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
";

/// The names of this test's own roles: roles belong to the whole server.
struct Names {
    replication: String,
    asking: String,
    customer: String,
    driver: String,
}

impl Names {
    fn of(database: &Database) -> Names {
        let name = |role: &str| format!("{role}_{}", database.name);
        Names {
            replication: name("replication"),
            asking: name("asking"),
            customer: name("Cust omer"),
            driver: name("driver"),
        }
    }
}

/// Applies a file; returns what psql printed.
pub(crate) fn psql(
    database: &Database,
    user: &str,
    file: &str,
    variables: &[(&str, &str)],
) -> String {
    let connection = database.server.connection_string_as(user, &database.name);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/");
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-d", &connection, "-f", &format!("{folder}{file}")]);
    for (name, value) in variables {
        command.args(["-v", &format!("{name}={value}")]);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.is_empty(), "{file} as {user}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn apply(database: &Database, user: &str, names: &Names, with_replication: bool) {
    let tables = "orders, public.\"We Ird\",parts";
    let roles = format!("{}, {}", names.customer, names.driver);
    let asking = ("asking_role", &*names.asking);
    psql(database, user, "01-publication.sql", &[("tables", tables)]);
    if with_replication {
        let role = ("replication_role", &*names.replication);
        psql(database, user, "02-replication-role.sql", &[role]);
    }
    psql(database, user, "03-asking-role.sql", &[asking]);
    let variables = [("roles", &*roles), ("tables", tables), asking];
    psql(database, user, "04-client-roles.sql", &variables);
}

fn expected(names: &Names) -> Expectations {
    let table = |name: &str| ExpectedTable {
        name: TableName { schema: "public".into(), name: name.into() },
        access: Access::Open,
    };
    Expectations {
        slot: "walcast".into(),
        creates_slot: true,
        publication: "walcast".into(),
        replication_role: Some(names.replication.as_str().into()),
        window_bytes: 64 << 20,
        warn_bytes: None,
        budget_bytes: None,
        roles: vec![names.customer.as_str().into(), names.driver.as_str().into()],
        tables: ["orders", "We Ird", "parts"].map(table).into(),
    }
}

async fn audit(database: &Database, user: &str, expected: &Expectations) -> Vec<Finding> {
    let connection = database.server.connection_string_as(user, &database.name);
    let catalog = Catalog::connect(Settings {
        connection: connection.parse().unwrap(),
        tls_mode: TlsMode::Disable,
        tls_ca_file: None,
        publication: expected.publication.clone(),
        roles: expected.roles.clone(),
        tables: expected.tables.iter().map(|table| table.name.clone()).collect(),
    })
    .await
    .unwrap();
    judge(&catalog.facts(expected).await.unwrap(), &catalog.current(), expected)
}

fn codes(findings: &[Finding], severity: Severity) -> Vec<(&str, &str)> {
    let matching = findings.iter().filter(|finding| finding.severity == severity);
    matching.map(|finding| (finding.code, &*finding.subject)).collect()
}

#[tokio::test]
async fn a_superuser_applies_them_twice_and_the_audit_is_content() {
    let database = database().await;
    let client = database.connect().await;
    client.batch_execute(APPLICATION).await.unwrap();
    let names = Names::of(&database);
    apply(&database, "postgres", &names, true);
    apply(&database, "postgres", &names, true);

    let findings = audit(&database, &names.asking, &expected(&names)).await;
    assert_eq!(codes(&findings, Severity::Error), []);
    // The test server keeps WAL without a bound, as every fresh one does.
    assert_eq!(codes(&findings, Severity::Warning), [("wal-unbounded", "max_slot_wal_keep_size")]);
    assert_eq!(
        codes(&findings, Severity::Notice),
        [
            ("slot-missing", "walcast"),
            ("identity-key-only", "public.parts_1"),
            ("type-opaque", "public.\"We Ird\".at"),
        ]
    );
}

#[tokio::test]
async fn what_the_audit_finds_is_mended_by_its_own_sql() {
    let database = database().await;
    let client = database.connect().await;
    client.batch_execute(APPLICATION).await.unwrap();
    let names = Names::of(&database);
    apply(&database, "postgres", &names, true);
    let Names { asking, customer, driver, replication } = &names;
    client
        .batch_execute(&format!(
            "ALTER PUBLICATION walcast ADD TABLE keyless, unmentioned;
             ALTER PUBLICATION walcast DROP TABLE orders;
             ALTER PUBLICATION walcast SET (publish = 'insert, update');
             ALTER ROLE {asking} BYPASSRLS; ALTER ROLE {replication} NOREPLICATION;
             REVOKE {driver} FROM {asking};
             ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
             REVOKE SELECT ON parts FROM {driver}, \"{customer}\";
             ALTER TABLE unmentioned ENABLE ROW LEVEL SECURITY;
             ALTER TABLE unmentioned REPLICA IDENTITY NOTHING;"
        ))
        .await
        .unwrap();
    let findings = audit(&database, asking, &expected(&names)).await;
    assert_eq!(
        codes(&findings, Severity::Error),
        [
            ("replication-role-weak", &**replication),
            ("identity-missing", "public.keyless"),
            ("identity-missing", "public.unmentioned"),
            ("table-unpublished", "public.orders"),
        ]
    );
    assert_eq!(
        codes(&findings, Severity::Warning),
        [
            ("wal-unbounded", "max_slot_wal_keep_size"),
            ("publication-partial", "walcast"),
            ("asking-role-too-strong", &**asking),
            ("role-not-granted", &**driver),
            ("fence", "event trigger walcast_fence"),
            ("row-security-without-policy", "public.parts"),
            ("table-ungranted", "public.parts"),
            ("row-security-without-policy", "public.unmentioned"),
        ]
    );
    // Settings are the whole server's, and the slot needs none.
    let mends = findings.iter().filter(|finding| !finding.code.starts_with("wal-"));
    for mend in mends.filter_map(|finding| finding.mend.as_deref()) {
        client.batch_execute(mend).await.unwrap();
    }
    psql(&database, "postgres", "06-fence.sql", &[]);
    client.batch_execute("SELECT pg_drop_replication_slot('walcast')").await.unwrap();

    let findings = audit(&database, asking, &expected(&names)).await;
    assert_eq!(codes(&findings, Severity::Error), []);
    assert_eq!(
        codes(&findings, Severity::Warning),
        [
            ("wal-unbounded", "max_slot_wal_keep_size"),
            ("row-security-without-policy", "public.parts"),
            ("row-security-without-policy", "public.unmentioned"),
        ]
    );
}

#[tokio::test]
async fn the_owner_of_the_database_needs_no_superuser_but_for_replication() {
    let database = database().await;
    let client = database.connect().await;
    let owner = format!("owner_{}", database.name);
    client
        .batch_execute(&format!(
            "CREATE ROLE {owner} LOGIN CREATEROLE; ALTER DATABASE {} OWNER TO {owner};
             ALTER SCHEMA public OWNER TO {owner}; SET ROLE {owner}; {APPLICATION}",
            database.name
        ))
        .await
        .unwrap();
    let names = Names::of(&database);
    apply(&database, &owner, &names, false);
    apply(&database, &owner, &names, false);

    let expected = Expectations { replication_role: None, ..expected(&names) };
    let findings = audit(&database, &names.asking, &expected).await;
    assert_eq!(codes(&findings, Severity::Error), []);
}

#[tokio::test]
async fn tables_that_would_break_the_application_are_printed() {
    let database = database().await;
    database.connect().await.batch_execute(APPLICATION).await.unwrap();
    let tables = ("tables", "keyless, unmentioned, orders, parts");
    let printed = psql(&database, "postgres", "01-publication.sql", &[tables]);
    let line = |table: &str| printed.lines().find(|line| line.trim().starts_with(table));
    assert!(line("keyless").unwrap().contains("FAIL"), "{printed}");
    assert!(line("unmentioned").unwrap().contains("key only"), "{printed}");
    assert!(line("parts_1").unwrap().contains("key only"), "{printed}");
    assert!(line("orders").is_none(), "{printed}");
}

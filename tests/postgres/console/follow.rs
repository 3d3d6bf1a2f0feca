//! `SUBSCRIBE`, `COPY (SUBSCRIBE …) TO STDOUT` and `EXPLAIN DELIVERY`, in psql and by drivers.

use std::process::ExitStatus;
use std::process::Stdio;

use futures_util::StreamExt;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_postgres::Client as Sql;
use tokio_postgres::types::FromSql;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use super::Desk;
use super::PASSWORD;
use super::psql;
use super::text;
use crate::deployment::DEADLINE;
use crate::deployment::Plan;

/// A desk whose shard and console look after their peers every second.
async fn desk() -> Desk {
    Desk::open(Plan {
        schema: "CREATE TABLE orders (id bigint PRIMARY KEY, owner text, note text); \
                 ALTER TABLE orders REPLICA IDENTITY FULL; \
                 CREATE TABLE secrets (id bigint PRIMARY KEY)",
        tables: "[[table]]\nname = 'orders'\npolicy = \"owner = claims ->> 'sub' or note = 'all'\"\n",
        set: &["limits.ping_seconds=1", "limits.outbox_bytes_max=65536"],
        ..Plan::default()
    })
    .await
}

impl Desk {
    /// The clause for somebody.
    fn as_claims(&self, sub: &str) -> String {
        format!("AS CLAIMS '{}'", json!({ "role": self.deployment.role, "sub": sub }))
    }

    async fn insert(&self, ids: std::ops::RangeInclusive<u32>, owner: &str) {
        for id in ids {
            let insert = format!("INSERT INTO orders VALUES ({id}, '{owner}', '')");
            self.deployment.execute(&[&insert]).await;
        }
    }

    /// Waits until the console has so many sessions.
    async fn has_sessions(&self, count: usize) {
        let inspector = self.deployment.daemon.inspector();
        let reached = async {
            // A shard that is busy does not answer, and is asked again.
            let found = async || inspector.sessions(10).await.map(|listed| listed.rows.len());
            while found().await != Ok(count) {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("never {count} sessions"));
    }
}

/// A psql that runs, and what it prints. In a pipe it would print when it ends: `stdbuf` makes it
/// print lines, as in a terminal.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(connection: &str, statement: &str) -> Following {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "psql", "-X", connection, "-c", statement]);
        command.env("PGPASSWORD", PASSWORD).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Following { child, lines }
    }

    /// The next line, which is JSON.
    async fn line(&mut self) -> Value {
        let line = timeout(DEADLINE, self.lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line.expect("psql ended")).unwrap()
    }

    /// The next row's operation, and its id.
    async fn row(&mut self) -> (String, u64) {
        let line = self.line().await;
        assert_eq!(line["type"], "row", "{line}");
        (line["op"].as_str().unwrap().to_owned(), line["new"]["id"].as_u64().unwrap())
    }

    async fn begun(connection: &str, statement: &str) -> Following {
        let mut following = Following::start(connection, statement);
        assert_eq!(following.line().await["type"], "subscribed");
        following
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// How it ended, and what it said.
    async fn ended(mut self) -> (ExitStatus, String) {
        let status = timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        (status, said)
    }
}

fn insert(id: u64) -> (String, u64) {
    ("insert".to_owned(), id)
}

#[tokio::test]
async fn psql_prints_rows_as_they_are_committed_until_it_is_interrupted() {
    let desk = desk().await;
    let copy = format!("COPY (SUBSCRIBE TO orders {}) TO STDOUT", desk.as_claims("ann"));
    let mut ann = Following::begun(&desk.over_tcp("dba"), &copy).await;
    desk.insert(1..=1, "ann").await;
    assert_eq!(ann.row().await, insert(1));
    // Two at once, and claims decide.
    let copy = format!("COPY (SUBSCRIBE TO orders {}) TO STDOUT", desk.as_claims("bob"));
    let mut bob = Following::begun(&desk.over_socket("root"), &copy).await;
    desk.insert(2..=2, "bob").await;
    desk.insert(3..=3, "ann").await;
    assert_eq!(ann.row().await, insert(3));
    assert_eq!(bob.row().await, insert(2));
    desk.has_sessions(2).await;

    ann.signal("-INT").await;
    let (status, said) = ann.ended().await;
    assert!(!status.success());
    assert!(said.contains("canceling statement due to user request"), "{said}");
    desk.has_sessions(1).await;
    desk.insert(4..=4, "bob").await;
    assert_eq!(bob.row().await, insert(4));
}

#[tokio::test]
async fn a_psql_that_is_killed_is_noticed_though_nothing_happens() {
    let desk = desk().await;
    let copy = format!("COPY (SUBSCRIBE TO orders {}) TO STDOUT", desk.as_claims("ann"));
    for connection in [desk.over_tcp("dba"), desk.over_socket("root")] {
        let psql = Following::begun(&connection, &copy).await;
        desk.has_sessions(1).await;
        psql.signal("-KILL").await;
        desk.has_sessions(0).await;
    }
}

#[tokio::test]
async fn who_comes_back_with_the_cursor_misses_nothing_and_gets_nothing_twice() {
    let desk = desk().await;
    let (connection, claims) = (desk.over_socket("root"), desk.as_claims("ann"));
    let copy = format!("COPY (SUBSCRIBE TO orders {claims}) TO STDOUT");
    let mut first = Following::begun(&connection, &copy).await;
    desk.insert(1..=5, "ann").await;
    let mut cursor = String::new();
    for id in 1..=3 {
        let line = first.line().await;
        assert_eq!(line["new"]["id"], id);
        line["cursor"].as_str().unwrap().clone_into(&mut cursor);
    }
    first.signal("-KILL").await;
    desk.insert(6..=8, "ann").await;
    let copy = format!("COPY (SUBSCRIBE TO orders {claims} SINCE '{cursor}') TO STDOUT");
    let mut again = Following::begun(&connection, &copy).await;
    for id in 4..=8 {
        assert_eq!(again.row().await, insert(id));
    }
    assert_eq!(again.line().await["type"], "synced");

    let elsewhere = "COPY (SUBSCRIBE TO orders SINCE '7.1.1.0') TO STDOUT";
    let mut lost = Following::begun(&connection, elsewhere).await;
    let line = lost.line().await;
    assert_eq!((&line["type"], &line["reason"]), (&json!("resync"), &json!("other_history")));
    desk.deployment.execute(&["INSERT INTO orders VALUES (9, 'x', 'all')"]).await;
    assert_eq!(lost.row().await, insert(9));
}

#[tokio::test]
async fn a_limit_ends_it_and_a_snapshot_begins_it() {
    let desk = desk().await;
    desk.insert(1..=3, "ann").await;
    let claims = desk.as_claims("ann");
    let root = desk.over_socket("root");
    let copy = format!("COPY (SUBSCRIBE TO orders {claims} WITH SNAPSHOT LIMIT 2) TO STDOUT");
    let output = psql(&root, &["-c", &copy]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert_eq!(printed.matches(r#""op":"snapshot""#).count(), 2, "{printed}");
    desk.has_sessions(0).await;

    // As rows, which psql prints in the end; and what psql makes of \copy.
    let subscribe = format!("SUBSCRIBE TO orders (id) {claims} WITH SNAPSHOT LIMIT 3");
    let output = psql(&root, &["-At", "-c", &subscribe]).await;
    let mut rows: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    rows.sort();
    let expected = r#"snapshot|{"id":1}||{"id":1}||"#;
    assert_eq!((rows.len(), rows[0].as_str()), (3, expected), "{}", text(&output.stderr));
    let file = desk.folder.join("orders.csv");
    let copy = format!(
        "\\copy (SUBSCRIBE TO orders (id) {claims} WITH SNAPSHOT LIMIT 3) TO '{}' CSV HEADER",
        file.display()
    );
    let output = psql(&root, &["-c", &copy]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let csv = std::fs::read_to_string(file).unwrap();
    assert_eq!(csv.lines().next(), Some("op,key,old,new,cursor,commit_ts"));
    assert!(csv.contains("snapshot,\"{\"\"id\"\":2}\",,\"{\"\"id\"\":2}\",,\n"), "{csv}");
    assert_eq!(csv.lines().count(), 4, "{csv}");
}

#[tokio::test]
async fn a_mistake_is_pointed_at_and_a_refusal_says_why() {
    let desk = desk().await;
    let root = desk.over_socket("root");
    let viewer = desk.over_tcp("viewer");
    for (who, statement, said) in [
        (&root, "COPY (SUBSCRIBE TO orders WHRE id = 1) TO STDOUT", "expected ), found \"WHRE\""),
        (
            &root,
            "COPY (SUBSCRIBE TO orders WHRE id = 1) TO STDOUT",
            "                                  ^",
        ),
        (&root, "SUBSCRIBE TO orders WHERE id = 'x'", "'x' is not a valid"),
        (&root, "SELECT 1; SUBSCRIBE TO orders WHERE id = 'x'", "LINE 1: SELECT 1; SUBSCRIBE"),
        (&root, "SUBSCRIBE TO nothing", "table public.nothing is not published"),
        (&root, "SUBSCRIBE TO nothing", "HINT:  name it as schema.table"),
        (&root, "SUBSCRIBE TO nothing", "                     ^"),
        (&root, "SUBSCRIBE TO secrets", "DETAIL:  code: table_closed"),
        (&root, "SUBSCRIBE TO orders AS CLAIMS '{'", "not a JSON object"),
        (&root, "SUBSCRIBE TO orders AS 'x.y.z'", "not a token"),
        (&viewer, "SUBSCRIBE TO orders AS CLAIMS '{}'", "viewer has the level stats"),
        (&viewer, "EXPLAIN DELIVERY OF orders KEY (id = 1)", "viewer has the level stats"),
    ] {
        let output = psql(who, &["-c", statement]).await;
        let printed = text(&output.stderr);
        assert!(!output.status.success() && printed.contains(said), "{statement}: {printed}");
    }
    desk.has_sessions(0).await;
}

#[tokio::test]
async fn a_stats_user_follows_in_the_name_of_a_token() {
    let desk = desk().await;
    let token = desk.deployment.token(json!({ "sub": "ann" }));
    let copy = format!("COPY (SUBSCRIBE TO orders AS '{token}') TO STDOUT");
    let mut ann = Following::begun(&desk.over_tcp("viewer"), &copy).await;
    desk.insert(1..=1, "bob").await;
    desk.insert(2..=2, "ann").await;
    assert_eq!(ann.row().await, insert(2));
}

#[tokio::test]
async fn what_ends_a_subscription_half_way_is_an_error_that_says_how_to_go_on() {
    let desk = desk().await;
    let claims = desk.as_claims("ann");
    let root = desk.over_socket("root");
    let copy = format!("COPY (SUBSCRIBE TO orders WHERE note = '' {claims}) TO STDOUT");
    let mut ended = Following::begun(&root, &copy).await;
    desk.insert(1..=1, "ann").await;
    ended.row().await;
    let role = &desk.deployment.role;
    let narrow = format!(
        "REVOKE SELECT ON orders FROM {role}; GRANT SELECT (id, owner) ON orders TO {role}"
    );
    desk.deployment.execute(&[&narrow]).await;
    let (_, said) = ended.ended().await;
    assert!(said.contains("column note of public.orders does not exist"), "{said}");
    assert!(said.contains("HINT:  ask for granted columns only"), "{said}");

    let copy = format!("COPY (SUBSCRIBE TO orders (id) {claims}) TO STDOUT");
    let mut killed = Following::begun(&root, &copy).await;
    desk.insert(2..=2, "ann").await;
    killed.row().await;
    let sessions = desk.deployment.daemon.inspector().sessions(1).await.unwrap().rows;
    let inspector = desk.deployment.daemon.inspector();
    let id = inspector.id_of(sessions[0].0, sessions[0].1.number);
    desk.psql(&format!("KILL {id}")).await;
    let (_, said) = killed.ended().await;
    assert!(said.contains("an operator ended the session"), "{said}");
    let (_, hint) = said.split_once("SINCE '").unwrap();
    let cursor = hint.split('\'').next().unwrap();
    let copy = format!("COPY (SUBSCRIBE TO orders (id) {claims} SINCE '{cursor}') TO STDOUT");
    let mut again = Following::begun(&root, &copy).await;
    assert_eq!(again.line().await["type"], "synced");
}

/// A driver's connection to the console.
async fn connect(desk: &Desk) -> Sql {
    let mut config: tokio_postgres::Config = desk.over_tcp("dba").parse().unwrap();
    config.password(PASSWORD);
    let (sql, driver) = config.connect(tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the task ends with the client of the test")]
    tokio::spawn(driver);
    sql
}

/// JSON, as its text.
#[derive(Debug, PartialEq)]
struct Json(Value);

impl<'a> FromSql<'a> for Json {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Json, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Json(serde_json::from_slice(raw)?))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::JSON
    }
}

#[tokio::test]
async fn tokio_postgres_gets_rows_one_by_one_and_copies() {
    let desk = desk().await;
    let claims = desk.as_claims("ann");
    let sql = connect(&desk).await;
    let none: [&(dyn ToSql + Sync); 0] = [];
    let subscribe = format!("SUBSCRIBE TO orders {claims} LIMIT 2");
    let rows = sql.query_raw(&subscribe, none).await.unwrap();
    let mut rows = std::pin::pin!(rows);
    // The answer begins before there is a row.
    desk.has_sessions(1).await;
    desk.insert(1..=1, "ann").await;
    let row = timeout(DEADLINE, rows.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(row.get::<_, &str>("op"), "insert");
    assert_eq!(row.get::<_, Json>("key"), Json(json!({ "id": 1 })));
    assert_eq!(row.get::<_, Json>("new").0["owner"], "ann");
    assert!(row.get::<_, Option<Json>>("old").is_none());
    let age = row.get::<_, std::time::SystemTime>("commit_ts").elapsed().unwrap_or_default();
    assert!(age < DEADLINE * 4, "{age:?}");
    desk.deployment.execute(&["UPDATE orders SET note = 'b'"]).await;
    let row = timeout(DEADLINE, rows.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(row.get::<_, Json>("old").0["note"], "");
    let cursor = row.get::<_, String>("cursor");
    assert!(timeout(DEADLINE, rows.next()).await.unwrap().is_none());

    // One that does not read gets everything all the same.
    let copy = format!("COPY (SUBSCRIBE TO orders {claims} SINCE '{cursor}' LIMIT 5000) TO STDOUT");
    let data = sql.copy_out(&copy).await.unwrap();
    let fill =
        "INSERT INTO orders SELECT i, 'ann', repeat('x', 1000) FROM generate_series(2, 5001) i";
    desk.deployment.execute(&[fill]).await;
    let mut data = std::pin::pin!(data);
    let mut next = 2;
    while let Some(line) = timeout(DEADLINE, data.next()).await.unwrap() {
        let line: Value = serde_json::from_slice(&line.unwrap()).unwrap();
        if line["type"] == "row" {
            assert_eq!(line["new"]["id"], next);
            next += 1;
        }
    }
    assert_eq!(next, 5002);
    desk.has_sessions(0).await;

    let fetched = sql.query(&format!("SUBSCRIBE TO nothing {claims}"), &[]).await.unwrap_err();
    assert_eq!(fetched.as_db_error().unwrap().code().code(), "42P01");
    let one = sql.simple_query(&format!("SUBSCRIBE TO orders {claims} LIMIT 0")).await.unwrap();
    assert_eq!(one.len(), 2, "{one:?}");
}

#[tokio::test]
async fn psycopg_reads_rows_and_copies() {
    let desk = desk().await;
    desk.insert(1..=2, "ann").await;
    let script = "
import json, sys, psycopg
claims, connection = sys.argv[1], sys.argv[2]
with psycopg.connect(connection, autocommit=True) as db:
    with db.cursor() as cursor:
        with cursor.copy(f'COPY (SUBSCRIBE TO orders {claims} WITH SNAPSHOT LIMIT 2) TO STDOUT') as copy:
            lines = [json.loads(bytes(line)) for line in copy]
    assert [line['type'] for line in lines] == ['subscribed', 'row', 'row'], lines
    rows = db.execute(f'SUBSCRIBE TO orders {claims} WITH SNAPSHOT LIMIT 2').fetchall()
    assert sorted(row[1]['id'] for row in rows) == [1, 2], rows
    with db.cursor() as cursor:
        for row in cursor.stream(f'SUBSCRIBE TO orders (id) {claims} WITH SNAPSHOT LIMIT 2'):
            assert row[0] == 'snapshot', row
    try:
        db.execute('SUBSCRIBE TO nothing')
        raise SystemExit('not refused')
    except psycopg.errors.UndefinedTable as error:
        assert 'schema.table' in error.diag.message_hint
print('fine')
";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script, &desk.as_claims("ann"), &desk.over_tcp("dba")]);
    command.env("PGPASSWORD", PASSWORD).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    assert_eq!(text(&output.stdout), "fine\n", "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_delivery_is_explained_by_key_by_row_and_by_cursor() {
    let desk = desk().await;
    let role = &desk.deployment.role;
    let claims = desk.as_claims("ann");
    let mut ann = desk.deployment.client_with(json!({ "sub": "ann" })).await;
    ann.subscribed(json!({ "id": "o", "table": "orders" })).await;
    desk.insert(1..=1, "ann").await;
    let cursor = ann.row().await["cursor"].as_str().unwrap().to_owned();
    let for_claims = claims.replace("AS CLAIMS", "FOR CLAIMS");
    let of_bob = for_claims.replace("ann", "bob");

    let key = desk.psql(&format!("EXPLAIN DELIVERY OF orders KEY (id = 1) {for_claims}")).await;
    assert!(key.starts_with("delivered as snapshot: every clause admits the row\n"), "{key}");
    assert!(key.contains(&format!("role: {role}\n")), "{key}");
    let change = desk.psql(&format!("EXPLAIN DELIVERY AT '{cursor}' {of_bob} FORMAT json")).await;
    let change: Value = serde_json::from_str(&change).unwrap();
    assert_eq!((&change["outcome"], &change["change"]), (&json!("hidden"), &json!("insert")));
    let row = desk
        .psql(&format!(
            "explain delivery of orders row '{{\"id\":5,\"note\":\"all\"}}' where id > 5 {of_bob}"
        ))
        .await;
    let because = "not delivered: the filter, in its part id > '5' does not admit the row";
    assert!(row.starts_with("not delivered: the filter, in its part id > 5"), "{because}: {row}");
    let gone = psql(&desk.over_socket("root"), &["-c", "EXPLAIN DELIVERY AT '7.1.1.1'"]).await;
    assert!(text(&gone.stderr).contains("another history"), "{}", text(&gone.stderr));
}

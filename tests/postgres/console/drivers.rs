//! Drivers, by the simple protocol and by the extended one.

use tokio::process::Command;
use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use super::Desk;
use super::PASSWORD;
use super::text;
use crate::deployment::DEADLINE;
use crate::deployment::Plan;
use crate::support;

#[tokio::test]
async fn a_driver_reads_tables_with_their_types() {
    let desk = Desk::open(Plan::default()).await;
    let client = desk.deployment.client().await;
    let quoted = PASSWORD.replace('\'', "\\'");
    let sql = support::connect(&format!("{} password='{quoted}'", desk.over_tcp("viewer"))).await;

    let row = sql.query_one("SHOW STATE", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>("state"), "streaming");
    assert_eq!((row.get::<_, bool>("paused"), row.get::<_, i64>("clients")), (false, 1));
    assert_eq!(row.get::<_, Option<&str>>("stopping"), None);
    assert_eq!(sql.query_one("SELECT 1", &[]).await.unwrap().get::<_, i64>(0), 1);
    assert!(sql.query("SHOW REPLICAS", &[]).await.unwrap().is_empty());
    let prepared = sql.prepare("SHOW CLIENTS LIMIT 5").await.unwrap();
    for _ in 0..2 {
        let rows = sql.query(&prepared, &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, &str>("transport"), "websocket");
    }
    let refused = sql.query("KILL 1", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501");
    let refused = sql.query("SHOW NOTHING", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42601");
    // The connection goes on.
    let all = sql.simple_query("SHOW VERSION; -- nothing\n; SELECT true").await.unwrap();
    let rows = all.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let version = concat!("walcast ", env!("CARGO_PKG_VERSION"));
    assert_eq!(rows.collect::<Vec<_>>(), [version, "t"]);
    drop(client);
}

#[tokio::test]
async fn parameters_and_parts_of_a_table_are_taken() {
    let plan = Plan {
        schema: "CREATE TABLE orders (id bigint PRIMARY KEY, note text)",
        tables: "[[table]]\nname = 'orders'\nopen = true\n",
        ..Plan::default()
    };
    let desk = Desk::open(plan).await;
    let (one, another) = (desk.deployment.client().await, desk.deployment.client().await);
    let mut sql = support::connect(&desk.over_socket("root")).await;
    let rows = sql.query("SHOW CLIENTS LIMIT $1", &[&"5"]).await.unwrap();
    assert_eq!(rows.len(), 2);
    let refused = sql.query("KILL $1", &[&"1; SHUTDOWN"]).await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().message(), "$1 has to be a whole number");
    let killed = sql.execute("KILL $1", &[&rows[0].get::<_, i64>("id").to_string()]).await;
    assert!(killed.is_ok(), "{killed:?}");

    // A subscription that ends after its rows.
    let follow = sql.prepare("SUBSCRIBE TO orders WHERE note = $1 LIMIT $2").await.unwrap();
    let insert = async {
        let counted = async || desk.psql("SHOW SUBSCRIPTIONS").await.lines().count();
        while timeout(DEADLINE, counted()).await.unwrap() == 0 {}
        desk.deployment
            .execute(&["INSERT INTO orders VALUES (1, 'a'), (2, 'it''s'), (3, 'b')"])
            .await;
    };
    let (rows, ()) = tokio::join!(sql.query(&follow, &[&"it's", &"1"]), insert);
    let rows = rows.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, &str>("op"), "insert");

    // A table comes in parts; a subscription does not, and says what works.
    let transaction = sql.transaction().await.unwrap();
    let portal = transaction.bind("SHOW HELP", &[]).await.unwrap();
    let first = transaction.query_portal(&portal, 3).await.unwrap();
    assert_eq!(first.len(), 3);
    let rest = transaction.query_portal(&portal, 0).await.unwrap();
    assert!(rest.len() > 10, "{}", rest.len());
    let portal = transaction.bind("SUBSCRIBE TO orders", &[]).await.unwrap();
    let refused = transaction.query_portal(&portal, 3).await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "0A000");
    assert!(refused.hint().unwrap().contains("LIMIT n"), "{refused:?}");
    drop((one, another));
}

const PSYCOPG: &str = r#"
import sys, psycopg
connection = sys.argv[1]
with psycopg.connect(connection, autocommit=True) as sql:
    state, paused = sql.execute('SHOW STATE').fetchone()[0], sql.execute('SELECT 1').fetchone()
    assert (state, paused) == ('streaming', (1,)), (state, paused)
    names = [column.name for column in sql.execute('SHOW LAG').description]
    assert names == ['stage', 'lsn', 'lag_bytes'], names
    assert isinstance(sql.execute('SHOW LAG').fetchone()[2], int)
    assert len(sql.execute('SHOW HELP').fetchmany(2)) == 2
    assert sql.execute('SHOW CLIENTS LIMIT %s', [5]).fetchall() == []
    assert sql.execute('SHOW CLIENTS LIMIT %b', [5]).fetchall() == []
# In a transaction that it opens by itself, binary, from a cursor of the client.
with psycopg.connect(connection) as sql:
    cursor = sql.cursor(binary=True)
    assert cursor.execute('SHOW VERSION').fetchone()[0].startswith('walcast ')
    try:
        cursor.execute('nonsense')
    except psycopg.errors.SyntaxError as error:
        assert 'SHOW HELP' in error.diag.message_hint, error.diag.message_hint
    else:
        sys.exit('no error')
    sql.rollback()
    assert cursor.execute('SHOW REPLICAS').fetchall() == []
print('good')
"#;

#[tokio::test]
async fn psycopg_is_served() {
    let desk = Desk::open(Plan::default()).await;
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PSYCOPG, &desk.over_tcp("dba")]).env("PGPASSWORD", PASSWORD);
    let output = timeout(DEADLINE, command.kill_on_drop(true).output()).await.unwrap().unwrap();
    assert_eq!(text(&output.stdout), "good\n", "{}", text(&output.stderr));
}

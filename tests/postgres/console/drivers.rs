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

const PSYCOPG: &str = r#"
import sys, psycopg
connection = sys.argv[1]
with psycopg.connect(connection, autocommit=True) as sql:
    state, paused = sql.execute('SHOW STATE').fetchone()[0], sql.execute('SELECT 1').fetchone()
    assert (state, paused) == ('streaming', (1,)), (state, paused)
    names = [column.name for column in sql.execute('SHOW LAG').description]
    assert names == ['stage', 'lsn', 'lag_bytes'], names
    assert isinstance(sql.execute('SHOW LAG').fetchone()[2], int)
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

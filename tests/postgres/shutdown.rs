//! A server that is told to stop while walcast is attached and holds log back. It must not wait for
//! walcast, and what was held must still be there when it is back.

use std::time::Duration;
use std::time::SystemTime;

use serde_json::json;
use tokio::task::spawn_blocking;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::Stop;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::support;
use crate::support::Database;

/// How long `pg_ctl stop -m fast` may take.
const AT_MOST: Duration = Duration::from_secs(1);

/// A daemon on a server of its own. The server goes with the process.
async fn open(set: &[&str]) -> (&'static PrivateServer, Deployment) {
    let server: &'static PrivateServer = Box::leak(Box::new(support::server()));
    let database = Database { server, name: "postgres".to_owned() };
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n";
    let plan = Plan { schema, tables, set, ..Plan::default() };
    (server, Deployment::on(database, plan).await)
}

async fn stop(server: &'static PrivateServer) -> Duration {
    let began = SystemTime::now();
    spawn_blocking(|| server.stop(Stop::Fast)).await.unwrap().unwrap();
    began.elapsed().unwrap()
}

/// Writes rows from a number on, and reads them.
async fn write(server: &PrivateServer, client: &mut Client, ids: std::ops::Range<i32>) {
    let sql = support::connect(&server.connection_string("postgres")).await;
    for id in ids.clone() {
        sql.execute("INSERT INTO notes VALUES ($1, repeat('x', 2000))", &[&id]).await.unwrap();
    }
    for id in ids {
        assert_eq!(client.row().await["new"]["id"], json!(id));
    }
}

async fn confirmed(server: &PrivateServer) -> (String, bool) {
    let sql = support::connect(&server.connection_string("postgres")).await;
    let query = "SELECT confirmed_flush_lsn::text, confirmed_flush_lsn < pg_current_wal_lsn() \
                 FROM pg_replication_slots WHERE slot_name = 'postgres'";
    let row = sql.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_stop_takes_less_than_a_second_while_log_is_held_back() {
    let (server, deployment) = open(&[]).await;
    let mut client = deployment.client().await;
    let first = client.subscribed(json!({"id": "n", "table": "notes"})).await;
    write(server, &mut client, 0..300).await;
    let (held, is_behind) = confirmed(server).await;
    assert!(is_behind, "nothing is held back");
    for round in 1..=3 {
        let took = stop(server).await;
        assert!(took < AT_MOST, "stop {round} took {took:?}");
        spawn_blocking(|| server.start_again()).await.unwrap().unwrap();
        write(server, &mut client, round * 1000..round * 1000 + 100).await;
        assert_eq!(confirmed(server).await.0, held, "what was held back was given up");
    }
    // Another daemon still finds all of it.
    let deployment = deployment.restart().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes", "since": first["cursor"]})).await;
    for id in (0..300).chain(1000..1100).chain(2000..2100).chain(3000..3100) {
        assert_eq!(client.row().await["new"]["id"], json!(id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_stop_takes_less_than_a_second_while_rows_are_written() {
    let (server, deployment) = open(&["window.seconds=1"]).await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes"})).await;
    let sql = support::connect(&server.connection_string("postgres")).await;
    // Ends with its connection.
    let writing = tokio::time::timeout(Duration::from_secs(20), async {
        for id in 0_i32.. {
            let text = format!("INSERT INTO notes VALUES ({id}, repeat('x', 2000))");
            if sql.batch_execute(&text).await.is_err() {
                return;
            }
        }
    });
    let stopping = async {
        for _ in 0..200 {
            client.row().await;
        }
        stop(server).await
    };
    let (written, took) = tokio::join!(writing, stopping);
    written.unwrap();
    assert!(took < AT_MOST, "it took {took:?}");
    spawn_blocking(|| server.start_again()).await.unwrap().unwrap();
    let sql = support::connect(&server.connection_string("postgres")).await;
    let row = sql.query_one("SELECT max(id) FROM notes", &[]).await.unwrap();
    let last = row.get::<_, i32>(0);
    for id in 200..=last {
        assert_eq!(client.row().await["new"]["id"], json!(id));
    }
}

//! A large transaction comes in parts, also over a connection that breaks in the middle of it.

use std::sync::Arc;

use tokio_postgres::Client;
use walcast::change::transaction::Transaction;
use walcast::ring::feed::Feed;

use super::stage::NO_WINDOW;
use super::stage::Stage;
use super::stage::changes;
use super::stage::confirmed;
use super::stage::settings;
use super::stage::until;
use crate::support;
use crate::support::Database;

/// More than the sockets between server and stage hold.
const ROWS: u32 = 150_000;
const LARGE: &str = "INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(0, 149999) n";
const PART_BYTES: usize = 256 << 10;

/// A stage that holds two parts at the most, in the middle of a transaction of [`ROWS`] rows.
async fn in_the_middle() -> (Database, Client, Stage, Vec<Arc<Transaction>>) {
    let database = support::database().await;
    let client = database.connect().await;
    let sql = "CREATE TABLE t (id int, body text); CREATE PUBLICATION walcast FOR ALL TABLES";
    client.batch_execute(sql).await.unwrap();
    let mut settings = settings(&database.connection_string(), &database.name);
    settings.window = NO_WINDOW;
    settings.part_bytes = PART_BYTES;
    settings.in_flight_bytes_max = 2 * PART_BYTES;
    let mut stage = Stage::start(settings).await;
    stage.live().await;
    client.batch_execute(LARGE).await.unwrap();
    let mut parts = Vec::new();
    while parts.len() < 5 {
        parts.push(stage.transaction().await);
    }
    (database, client, stage, parts)
}

/// Checks that the parts are of one transaction and hold each of its changes once, in order.
fn check_whole(parts: &[Arc<Transaction>]) {
    let mut next = 0;
    for part in parts {
        assert_eq!((part.xid, part.commit_lsn), (parts[0].xid, parts[0].commit_lsn));
        assert!(part.bytes() < PART_BYTES + 10_000, "{}", part.bytes());
        for change in part.changes() {
            assert_eq!(change.index, next);
            next += 1;
        }
    }
    assert_eq!(next, ROWS);
    let (last, before) = parts.split_last().unwrap();
    assert!(last.end_lsn.is_some() && before.iter().all(|part| part.end_lsn.is_none()));
}

async fn break_connection(database: &Database, client: &Client) {
    let terminate = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{0}'",
        database.name
    );
    client.batch_execute(&terminate).await.unwrap();
    let free = format!(
        "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{}'",
        database.name
    );
    until(client, &free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_the_middle_of_a_transaction_costs_nothing() {
    let (database, client, mut stage, mut parts) = in_the_middle().await;
    break_connection(&database, &client).await;
    let (mut interrupted, mut resumed) = (0, 0);
    while parts.last().is_none_or(|part| part.end_lsn.is_none()) {
        match stage.next().await {
            Feed::Transaction(part) => {
                assert!(confirmed(&client, &database.name).await <= part.commit_lsn);
                stage.routed.add(1);
                parts.push(part);
            }
            Feed::Interrupted => interrupted += 1,
            Feed::Resumed => resumed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((interrupted, resumed), (1, 1));
    check_whole(&parts);

    let end_lsn = parts.last().and_then(|part| part.end_lsn).unwrap();
    client.batch_execute("INSERT INTO t VALUES (1, 'after')").await.unwrap();
    assert_eq!(stage.changes().await, ["insert t (1,after)"]);
    let reached = format!(
        "SELECT confirmed_flush_lsn >= '{end_lsn}' FROM pg_replication_slots \
         WHERE slot_name = '{}'",
        database.name
    );
    until(&client, &reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_lost_its_slot_in_the_middle_ends_with_a_new_history() {
    let (database, client, mut stage, _) = in_the_middle().await;
    let drop = "SELECT pg_drop_replication_slot($1)";
    loop {
        break_connection(&database, &client).await;
        // The stage may have been quicker.
        if client.execute(drop, &[&database.name]).await.is_ok() {
            break;
        }
    }
    loop {
        match stage.next().await {
            Feed::Transaction(part) => {
                assert_eq!(part.end_lsn, None);
                stage.routed.add(1);
            }
            Feed::Start { .. } => break,
            Feed::Interrupted | Feed::Resumed => {}
            other => panic!("{other:?}"),
        }
    }
    stage.live_again().await;
    client.batch_execute("INSERT INTO t VALUES (1, 'after')").await.unwrap();
    let after = stage.transaction().await;
    assert_eq!(changes(&after), ["insert t (1,after)"]);
    assert_eq!(after.first_index, 0);
}

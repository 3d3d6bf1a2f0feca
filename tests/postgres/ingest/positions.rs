//! What the slot is told, and what is not read.

use std::time::Duration;

use walcast::cli::demo::postgres::PrivateServer;
use walcast::ingest::State;
use walcast::ingest::progress::Window;
use walcast::ring::feed::Feed;

use super::stage::NO_WINDOW;
use super::stage::Stage;
use super::stage::confirmed;
use super::stage::log_end;
use super::stage::settings;
use super::stage::until;
use crate::support;

const TABLE: &str = "CREATE TABLE t (id int); CREATE PUBLICATION walcast FOR TABLE t; \
                     CREATE TABLE unpublished (id int)";

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_publication_is_confirmed_while_others_write() {
    let database = support::database().await;
    let client = database.connect().await;
    client.batch_execute(TABLE).await.unwrap();
    let mut settings = settings(&database.connection_string(), &database.name);
    settings.window = NO_WINDOW;
    let mut stage = Stage::start(settings).await;
    stage.live().await;
    let write = "INSERT INTO unpublished SELECT generate_series(1, 1000)";
    client.batch_execute(write).await.unwrap();
    let end = log_end(&client).await;
    let reached = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{}'",
        database.name
    );
    until(&client, &reached).await;
    // The shards hear of it, too.
    loop {
        if let Feed::Advance(lsn) = stage.next().await
            && lsn >= end
        {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_shard_has_routed_is_not_confirmed() {
    let database = support::database().await;
    let client = database.connect().await;
    client.batch_execute(TABLE).await.unwrap();
    let mut settings = settings(&database.connection_string(), &database.name);
    settings.window = NO_WINDOW;
    let mut stage = Stage::start(settings).await;
    stage.live().await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let transaction = loop {
        if let Feed::Transaction(transaction) = stage.next().await {
            break transaction;
        }
    };
    // Two statuses later (the server sees them in the order in which they were sent) the position
    // is where it was.
    client.batch_execute("INSERT INTO unpublished VALUES (1)").await.unwrap();
    let end = log_end(&client).await;
    let written = format!(
        "SELECT bool_and(write_lsn >= '{end}') FROM pg_stat_replication \
         WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}')",
        database.name
    );
    until(&client, &written).await;
    let end_lsn = transaction.end_lsn.unwrap();
    assert!(confirmed(&client, &database.name).await < end_lsn);
    stage.routed.add(1);
    let reached = format!(
        "SELECT confirmed_flush_lsn >= '{end_lsn}' FROM pg_replication_slots \
         WHERE slot_name = '{}'",
        database.name
    );
    until(&client, &reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_takes_nothing_holds_the_stream_and_the_server_still_hears_from_us() {
    let options = support::options().parameter("wal_sender_timeout", "1s");
    let server = PrivateServer::start(options).unwrap();
    let string = server.connection_string("postgres");
    let client = support::connect(&string).await;
    client.batch_execute(TABLE).await.unwrap();
    let mut stage = Stage::start_with_room(settings(&string, "walcast"), 3).await;
    stage.live().await;
    for id in 0..500 {
        client.execute("INSERT INTO t VALUES ($1)", &[&id]).await.unwrap();
    }
    // Longer than the server waits for a status.
    client.batch_execute("SELECT pg_sleep(3)").await.unwrap();
    let handed = stage.metrics.ingest.transactions.get();
    assert!(handed < 10, "{handed} transactions were taken for a shard that has room for 3");
    assert_eq!(stage.enters(|_| true).await, State::Streaming);
    for id in 0..500 {
        assert_eq!(stage.changes().await, [format!("insert t ({id})")]);
    }
    assert_eq!(stage.metrics.ingest.connections.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_received_and_not_routed_is_bounded_in_bytes() {
    let database = support::database().await;
    let client = database.connect().await;
    client.batch_execute(TABLE).await.unwrap();
    let mut settings = settings(&database.connection_string(), &database.name);
    settings.in_flight_bytes_max = 2000;
    let mut stage = Stage::start(settings).await;
    stage.live().await;
    for id in 0..200 {
        client.execute("INSERT INTO t VALUES ($1)", &[&id]).await.unwrap();
    }
    client.batch_execute("SELECT pg_sleep(0.3)").await.unwrap();
    let handed = stage.metrics.ingest.transactions.get();
    assert!((1..20).contains(&handed), "{handed}");
    for id in 0..200 {
        assert_eq!(stage.changes().await, [format!("insert t ({id})")]);
    }
    // One that is larger than the bound passes.
    let many = "INSERT INTO t SELECT generate_series(1, 1000)";
    client.batch_execute(many).await.unwrap();
    assert_eq!(stage.changes().await.len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_outlives_the_servers_patience() {
    let options = support::options().parameter("wal_sender_timeout", "1s");
    let server = PrivateServer::start(options).unwrap();
    let string = server.connection_string("postgres");
    let client = support::connect(&string).await;
    client.batch_execute(TABLE).await.unwrap();
    let mut stage = Stage::start(settings(&string, "walcast")).await;
    stage.live().await;
    client.batch_execute("SELECT pg_sleep(3)").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(stage.changes().await, ["insert t (1)"]);
    assert_eq!(stage.metrics.ingest.connections.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_holds_the_slot_back_until_it_has_passed() {
    let database = support::database().await;
    let client = database.connect().await;
    client.batch_execute(TABLE).await.unwrap();
    let mut settings = settings(&database.connection_string(), &database.name);
    settings.window.age = Duration::from_secs(1);
    let mut stage = Stage::start(settings).await;
    stage.live().await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let end_lsn = stage.transaction().await.end_lsn.unwrap();
    assert!(confirmed(&client, &database.name).await < end_lsn);
    let reached = format!(
        "SELECT confirmed_flush_lsn >= '{end_lsn}' FROM pg_replication_slots \
         WHERE slot_name = '{}'",
        database.name
    );
    until(&client, &reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_is_a_part_of_what_the_server_keeps_for_a_slot() {
    let options = support::options()
        .parameter("max_slot_wal_keep_size", "4MB")
        .parameter("checkpoint_timeout", "1h");
    let server = PrivateServer::start(options).unwrap();
    let string = server.connection_string("postgres");
    let client = support::connect(&string).await;
    client.batch_execute(TABLE).await.unwrap();
    let mut settings = settings(&string, "walcast");
    // Neither is passed in this test.
    settings.window = Window { bytes: 1 << 30, age: Duration::from_hours(1) };
    let mut stage = Stage::start(settings).await;
    stage.live().await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let first = stage.transaction().await.end_lsn.unwrap();
    assert!(confirmed(&client, "walcast").await < first);
    for _ in 0..3 {
        let fill = "INSERT INTO t SELECT generate_series(1, 10000)";
        client.batch_execute(fill).await.unwrap();
        stage.transaction().await;
    }
    let reached = format!(
        "SELECT confirmed_flush_lsn >= '{first}' AND \
         pg_current_wal_lsn() - confirmed_flush_lsn > 500000 FROM pg_replication_slots"
    );
    until(&client, &reached).await;
}

//! What happens to the stream when something happens to the server, the slot or the connection:
//! nothing is lost, nothing comes twice, or a new `Start` says so.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::Stop;
use walcast::ingest::State;
use walcast::ring::feed::Feed;

use super::stage::NO_WINDOW;
use super::stage::Stage;
use super::stage::changes;
use super::stage::confirmed;
use super::stage::settings;
use super::stage::until;
use crate::support;

const SLOT: &str = "walcast";
const TERMINATE: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                         WHERE active AND slot_name = ";

/// A server of the test's own with a table, and a live stage on it.
async fn own_server() -> (PrivateServer, Client, Stage) {
    let server = PrivateServer::start(support::options().parameter("fsync", "on")).unwrap();
    let client = support::connect(&server.connection_string("postgres")).await;
    let sql = "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION walcast FOR ALL TABLES";
    client.batch_execute(sql).await.unwrap();
    let mut stage = Stage::start(settings(&server.connection_string("postgres"), SLOT)).await;
    stage.live().await;
    (server, client, stage)
}

async fn insert(client: &Client, id: i32) {
    client.execute("INSERT INTO t VALUES ($1)", &[&id]).await.unwrap();
}

/// Reads until the stream goes on; gives back the changes that came meanwhile.
async fn resumed(stage: &mut Stage) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match stage.next().await {
            Feed::Resumed => return seen,
            Feed::Transaction(transaction) => {
                stage.routed.add(1);
                seen.extend(changes(&transaction));
            }
            Feed::Interrupted | Feed::Advance(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Reads until a new history begins.
async fn started_anew(stage: &mut Stage) -> Feed {
    loop {
        match stage.next().await {
            start @ Feed::Start { .. } => return start,
            // From 16 on a standby serves the slot, too, until it is promoted.
            Feed::Interrupted | Feed::Resumed | Feed::Advance(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walsender_that_is_terminated_costs_nothing() {
    let database = support::database().await;
    let client = database.connect().await;
    let sql = "CREATE TABLE t (id int); CREATE PUBLICATION walcast FOR ALL TABLES";
    client.batch_execute(sql).await.unwrap();
    let mut stage = Stage::start(settings(&database.connection_string(), &database.name)).await;
    stage.live().await;
    insert(&client, 1).await;
    assert_eq!(stage.changes().await, ["insert t (1)"]);
    client.batch_execute(&format!("{TERMINATE} '{}'", database.name)).await.unwrap();
    insert(&client, 2).await;
    assert!(resumed(&mut stage).await.is_empty());
    assert_eq!(stage.changes().await, ["insert t (2)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_and_repeats_nothing() {
    let (server, client, mut stage) = own_server().await;
    let mut seen = BTreeSet::new();
    for id in 0..300 {
        insert(&client, id).await;
    }
    for _ in 0..100 {
        for change in stage.changes().await {
            assert!(seen.insert(change));
        }
    }
    server.restart(Stop::Kill).unwrap();
    let client = support::connect(&server.connection_string("postgres")).await;
    insert(&client, 300).await;
    for change in resumed(&mut stage).await {
        assert!(seen.insert(change));
    }
    while seen.len() < 301 {
        for change in stage.changes().await {
            assert!(seen.insert(change));
        }
    }
    assert!(seen.contains("insert t (300)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stops_at_once_although_the_slot_is_held_back() {
    let (server, client, mut stage) = own_server().await;
    let held = confirmed(&client, SLOT).await;
    for id in 0..50 {
        insert(&client, id).await;
        stage.transaction().await;
    }
    // Panics where it takes a minute, which it does without the second status.
    let began = std::time::SystemTime::now();
    server.stop(Stop::Fast).unwrap();
    let took = began.elapsed().unwrap();
    assert!(took.as_secs() < 10, "{took:?}");
    server.start_again().unwrap();
    assert!(resumed(&mut stage).await.is_empty());
    let client = support::connect(&server.connection_string("postgres")).await;
    assert_eq!(confirmed(&client, SLOT).await, held);
    insert(&client, 50).await;
    assert_eq!(stage.changes().await, ["insert t (50)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_busy_is_waited_for() {
    let database = support::database().await;
    let client = database.connect().await;
    let sql = "CREATE TABLE t (id int); CREATE PUBLICATION walcast FOR ALL TABLES";
    client.batch_execute(sql).await.unwrap();
    let settings = || settings(&database.connection_string(), &database.name);
    let mut first = Stage::start(settings()).await;
    first.live().await;
    let mut second = Stage::start(settings()).await;
    let reason = second.waits().await;
    assert!(reason.contains("waiting for the slot, which process"), "{reason}");
    insert(&client, 1).await;
    assert_eq!(first.changes().await, ["insert t (1)"]);
    first.stop().await.unwrap();
    // What the first did not confirm comes to the second.
    second.live().await;
    assert_eq!(second.enters(|state| *state == State::Streaming).await, State::Streaming);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_begins_a_new_history() {
    let database = support::database().await;
    let client = database.connect().await;
    let sql = "CREATE TABLE t (id int); CREATE PUBLICATION walcast FOR ALL TABLES";
    client.batch_execute(sql).await.unwrap();
    let mut stage = Stage::start(settings(&database.connection_string(), &database.name)).await;
    let (source, _) = stage.live().await;
    insert(&client, 1).await;
    let last = stage.transaction().await.end_lsn.unwrap();
    let drop_it = format!(
        "DO $$ BEGIN PERFORM pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots \
         WHERE active AND slot_name = '{0}'; PERFORM pg_drop_replication_slot('{0}'); END $$",
        database.name
    );
    client.batch_execute(&drop_it).await.unwrap();
    let Feed::Start { source: again, tail } = started_anew(&mut stage).await else { panic!() };
    assert_eq!(source, again);
    assert!(tail > last, "a cursor at {last} must lie before the tail {tail}");
    stage.live_again().await;
    insert(&client, 2).await;
    assert_eq!(stage.changes().await, ["insert t (2)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_server_is_another_history() {
    let (server, client, mut stage) = own_server().await;
    insert(&client, 1).await;
    stage.transaction().await;
    server.stop(Stop::Fast).unwrap();
    std::fs::write(server.data_folder().join("standby.signal"), "").unwrap();
    server.start_again().unwrap();
    let client = support::connect(&server.connection_string("postgres")).await;
    client.batch_execute("SELECT pg_promote()").await.unwrap();
    // From 16 on it may have been read as a standby already, and would simply be read on.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE backend_type = 'walsender'";
    client.batch_execute(end).await.unwrap();
    insert(&client, 2).await;
    // What is held back comes again, as part of the new history.
    let (mut timeline, mut seen) = (1, Vec::new());
    while seen.last().is_none_or(|last| last != "insert t (2)") {
        match stage.next().await {
            Feed::Start { source, .. } => (timeline, seen) = (source.timeline, Vec::new()),
            Feed::Transaction(transaction) => seen.extend(changes(&transaction)),
            Feed::Advance(_) | Feed::Live | Feed::Interrupted | Feed::Resumed => {}
        }
    }
    assert_eq!((timeline, seen), (2, vec!["insert t (1)".to_owned(), "insert t (2)".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_younger_than_a_change_in_the_slot_begins_a_new_history() {
    let database = support::database().await;
    let client = database.connect().await;
    client.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    let create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    client.execute(create, &[&database.name]).await.unwrap();
    insert(&client, 1).await;
    client.batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES").await.unwrap();
    let mut stage = Stage::start(settings(&database.connection_string(), &database.name)).await;
    if support::version(&client).await < 180_000 {
        started_anew(&mut stage).await;
        started_anew(&mut stage).await;
        stage.live_again().await;
    } else {
        // Since 18 the server warns and leaves out what the publication did not have then.
        stage.live().await;
    }
    insert(&client, 2).await;
    assert_eq!(stage.changes().await, ["insert t (2)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_postgres_gave_up_is_replaced() {
    let options = support::options()
        .parameter("max_slot_wal_keep_size", "1MB")
        .parameter("min_wal_size", "32MB")
        .parameter("max_wal_size", "32MB");
    let server = PrivateServer::start(options).unwrap();
    let string = server.connection_string("postgres");
    let client = support::connect(&string).await;
    let sql = "CREATE TABLE t (id int); CREATE PUBLICATION walcast FOR ALL TABLES; \
               CREATE TABLE filler (x text)";
    client.batch_execute(sql).await.unwrap();
    let create = "SELECT pg_create_logical_replication_slot('walcast', 'pgoutput')";
    client.batch_execute(create).await.unwrap();
    for _ in 0..3 {
        let fill = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
        client.batch_execute(fill).await.unwrap();
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
    }
    until(&client, "SELECT wal_status = 'lost' FROM pg_replication_slots").await;
    let mut stage = Stage::start(settings(&string, SLOT)).await;
    started_anew(&mut stage).await;
    stage.live_again().await;
    insert(&client, 1).await;
    assert_eq!(stage.changes().await, ["insert t (1)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_stage_reads_the_window_again_with_the_same_positions() {
    let database = support::database().await;
    let client = database.connect().await;
    let sql = "CREATE TABLE t (id int); CREATE PUBLICATION walcast FOR ALL TABLES";
    client.batch_execute(sql).await.unwrap();
    let settings = || settings(&database.connection_string(), &database.name);
    let mut stage = Stage::start(settings()).await;
    stage.live().await;
    let mut before = Vec::new();
    for id in 0..20 {
        insert(&client, id).await;
        before.push(stage.transaction().await.end_lsn.unwrap());
    }
    stage.stop().await.unwrap();
    let free = format!(
        "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{}'",
        database.name
    );
    until(&client, &free).await;
    let mut stage = Stage::start(settings()).await;
    let Feed::Start { tail, .. } = started_anew(&mut stage).await else { panic!() };
    assert!(tail < before[0]);
    for end_lsn in before {
        assert_eq!(stage.transaction().await.end_lsn, Some(end_lsn));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_prepared_before_an_interruption_comes_when_it_is_committed() {
    let options = support::options().parameter("max_prepared_transactions", "5");
    let server = PrivateServer::start(options).unwrap();
    let string = server.connection_string("postgres");
    let client = support::connect(&string).await;
    let sql = "CREATE TABLE t (id int); CREATE PUBLICATION walcast FOR ALL TABLES";
    client.batch_execute(sql).await.unwrap();
    let mut settings = settings(&string, SLOT);
    settings.window = NO_WINDOW;
    let mut stage = Stage::start(settings).await;
    stage.live().await;
    let prepare = "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'one'";
    client.batch_execute(prepare).await.unwrap();
    let prepare = "BEGIN; INSERT INTO t VALUES (9); PREPARE TRANSACTION 'never'";
    client.batch_execute(prepare).await.unwrap();
    insert(&client, 2).await;
    let second = stage.transaction().await;
    assert_eq!(changes(&second), ["insert t (2)"]);
    client.batch_execute(&format!("{TERMINATE} '{SLOT}'")).await.unwrap();
    client.batch_execute("ROLLBACK PREPARED 'never'").await.unwrap();
    client.batch_execute("COMMIT PREPARED 'one'").await.unwrap();
    assert!(resumed(&mut stage).await.is_empty());
    let first = stage.transaction().await;
    assert_eq!(changes(&first), ["insert t (1)"]);
    assert!(first.end_lsn > second.end_lsn);
}

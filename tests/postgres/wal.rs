//! The log that the slot keeps: a stream that rests, a budget that is exceeded, and what becomes of
//! the clients.

use std::time::Duration;
use std::time::SystemTime;

use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_postgres::Client as Sql;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::Stop;
use walcast::ingest::Standing;
use walcast::ingest::State;
use walcast::ingest::budget::Level;
use walcast::ingest::budget::Report;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::support;
use crate::support::Database;

const SCHEMA: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
const TABLES: &str = "[[table]]\nname = 'public.notes'\nopen = true\n";

/// Warned at 16 MiB, shed at 48, over at 64.
const BUDGET: [&str; 2] = ["wal.warn_bytes=16777216", "wal.budget_bytes=67108864"];

/// A daemon on a server of its own, which goes with the process.
async fn open(parameters: &[(&str, &str)], set: &[&str]) -> (&'static PrivateServer, Deployment) {
    let options = support::options();
    let options = parameters.iter().fold(options, |options, it| options.parameter(it.0, it.1));
    let server: &'static PrivateServer =
        Box::leak(Box::new(PrivateServer::start(options).unwrap()));
    let database = Database { server, name: "postgres".to_owned() };
    let plan = Plan { schema: SCHEMA, tables: TABLES, set, ..Plan::default() };
    (server, Deployment::on(database, plan).await)
}

async fn insert(sql: &Sql, ids: std::ops::Range<i32>) {
    for id in ids {
        let text = format!("INSERT INTO notes VALUES ({id}, repeat('x', 1000))");
        sql.batch_execute(&text).await.unwrap();
    }
}

/// Makes the log longer by so many MiB, with nothing that anybody wants.
async fn lengthen(sql: &Sql, megabytes: usize) {
    for _ in 0..megabytes / 8 {
        let text = "SELECT pg_logical_emit_message(false, 'length', repeat('x', 8 << 20))";
        sql.batch_execute(text).await.unwrap();
    }
}

impl Deployment {
    async fn pause(&self, paused: bool) {
        let control = self.daemon.control();
        let done = if paused { control.pause().await } else { control.resume().await };
        done.unwrap();
        let expected = if paused { State::Paused } else { State::Streaming };
        self.stands(|standing| standing.state == expected).await;
    }

    async fn stands(&self, is: impl FnMut(&Standing) -> bool) -> Standing {
        let mut standing = self.daemon.standing();
        timeout(DEADLINE, standing.wait_for(is)).await.unwrap().unwrap().clone()
    }

    async fn keeps(&self, is: impl FnMut(&Report) -> bool) -> Report {
        let mut report = self.daemon.wal();
        let kept = timeout(DEADLINE, report.wait_for(is)).await;
        // What an alert goes by.
        let measured = self.daemon.metrics().slot.retained_bytes.get();
        assert!(measured > 0 || self.daemon.wal().borrow().retained_bytes() == 0);
        kept.unwrap_or_else(|_| panic!("{:?}", self.daemon.wal().borrow())).unwrap().clone()
    }

    async fn subscriber(&self) -> Client {
        let mut client = self.client().await;
        client.subscribed(json!({"id": "n", "table": "notes"})).await;
        client
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_rests_is_heard_by_the_server_and_goes_on_with_nothing_lost() {
    let (_server, deployment) = open(&[("wal_sender_timeout", "500ms")], &[]).await;
    let mut client = deployment.subscriber().await;
    insert(&deployment.sql, 0..1).await;
    client.row().await;
    deployment.pause(true).await;
    let before = deployment.daemon.metrics().ingest.transactions.get();
    insert(&deployment.sql, 1..200).await;
    // Longer than the server waits for a status.
    deployment.execute(&["SELECT pg_sleep(1.2)"]).await;
    let meters = &deployment.daemon.metrics().ingest;
    let after = meters.transactions.get();
    assert_eq!(before, after, "it was read all the same");
    deployment.pause(false).await;
    for id in 1..200 {
        assert_eq!(client.row().await["new"]["id"], json!(id));
    }
    assert_eq!(meters.connections.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_not_kept_waiting_by_a_stream_that_rests() {
    let (server, deployment) = open(&[], &[]).await;
    let mut client = deployment.subscriber().await;
    deployment.pause(true).await;
    insert(&deployment.sql, 0..10).await;
    // More than the connection holds.
    lengthen(&deployment.sql, 32).await;
    let began = SystemTime::now();
    spawn_blocking(|| server.stop(Stop::Fast)).await.unwrap().unwrap();
    let took = began.elapsed().unwrap();
    // It would wait for `wal_sender_timeout`, a minute, and again and again.
    assert!(took < Duration::from_secs(20), "{took:?}");
    spawn_blocking(|| server.start_again()).await.unwrap().unwrap();
    deployment.stands(|standing| standing.state == State::Paused).await;
    deployment.pause(false).await;
    for id in 0..10 {
        assert_eq!(client.row().await["new"]["id"], json!(id));
    }
}

/// From the first warning until the log is let go; then clients go on.
async fn let_go(deployment: &Deployment) {
    let mut client = deployment.subscriber().await;
    insert(&deployment.sql, 0..1).await;
    let row = client.row().await;
    deployment.pause(true).await;
    insert(&deployment.sql, 1..2).await;
    lengthen(&deployment.sql, 24).await;
    deployment.keeps(|report| report.level == Level::Warned).await;
    lengthen(&deployment.sql, 32).await;
    let report = deployment.keeps(|report| report.level == Level::Shed).await;
    assert_eq!((report.sheds, report.let_goes), (1, 0));
    assert_eq!(deployment.stands(|_| true).await.renewals, 0);
    lengthen(&deployment.sql, 16).await;
    let standing = deployment.stands(|it| it.renewals == 1 && it.state == State::Paused).await;
    let why = &*standing.renewed.unwrap().why;
    assert!(why.starts_with("the log is let go: the slot keeps "), "{why}");

    let resync = client.expect("resync").await;
    assert_eq!(resync["reason"], "other_history");
    deployment.pause(false).await;
    insert(&deployment.sql, 2..3).await;
    assert_eq!(client.row().await["new"]["id"], 2, "what was let go came all the same");
    // Who was away is told, too.
    let mut late = deployment.client().await;
    let request = json!({"id": "n", "table": "notes", "since": row["cursor"]});
    late.subscribed(request).await;
    assert_eq!(late.expect("resync").await["reason"], "too_old");
    deployment.sql.batch_execute("CHECKPOINT").await.unwrap();
    let report = deployment.keeps(|report| report.level == Level::Good).await;
    assert_eq!(report.let_goes, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_budget_the_log_is_let_go_and_every_client_is_told() {
    let set = [BUDGET[0], BUDGET[1], "wal.over_budget=let_go"];
    let (_server, deployment) = open(&[], &set).await;
    Box::pin(let_go(&deployment)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_a_dba_made_is_moved_on_and_not_dropped() {
    let set = [BUDGET[0], BUDGET[1], "wal.over_budget=let_go"];
    let (_server, mut deployment) = open(&[], &set).await;
    deployment.config.database.create_slot = false;
    let deployment = deployment.restart().await;
    Box::pin(let_go(&deployment)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_budget_the_log_is_kept_where_the_settings_say_so() {
    let (_server, deployment) = open(&[], &BUDGET).await;
    let mut client = deployment.subscriber().await;
    deployment.pause(true).await;
    insert(&deployment.sql, 0..10).await;
    lengthen(&deployment.sql, 72).await;
    let report = deployment.keeps(|report| report.level == Level::Over).await;
    assert!(report.retained_bytes() >= 64 << 20, "{report:?}");
    deployment.pause(false).await;
    for id in 0..10 {
        assert_eq!(client.row().await["new"]["id"], json!(id));
    }
    insert(&deployment.sql, 10..11).await;
    client.row().await;
    // The server frees it as it notes which transactions are open.
    deployment.sql.batch_execute("CHECKPOINT").await.unwrap();
    let report = deployment.keeps(|report| report.level == Level::Good).await;
    assert_eq!((report.sheds, report.let_goes), (1, 0));
    assert_eq!(deployment.stands(|_| true).await.renewals, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_an_open_transaction_is_not_let_go_in_vain() {
    let set = [BUDGET[0], BUDGET[1], "wal.over_budget=let_go"];
    let (server, deployment) = open(&[], &set).await;
    let mut client = deployment.subscriber().await;
    let open = support::connect(&server.connection_string("postgres")).await;
    open.batch_execute("SET application_name = 'forgotten'; BEGIN").await.unwrap();
    insert(&open, 0..1).await;
    lengthen(&deployment.sql, 72).await;
    let report = deployment.keeps(|report| report.level == Level::Over).await;
    let oldest = report.slot.as_ref().unwrap().oldest.as_deref().unwrap();
    assert!(oldest.ends_with("(forgotten)"), "{oldest}");
    // It is looked again a few times.
    let at = report.at;
    deployment.keeps(|report| report.at > at + Duration::from_millis(1500)).await;
    open.batch_execute("COMMIT").await.unwrap();
    assert_eq!(client.row().await["new"]["id"], 0);
    deployment.sql.batch_execute("CHECKPOINT").await.unwrap();
    let report = deployment.keeps(|report| report.level == Level::Good).await;
    assert_eq!(report.let_goes, 0);
    assert_eq!(deployment.stands(|_| true).await.renewals, 0);
}

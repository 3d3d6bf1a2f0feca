//! Subscriptions that begin with the rows that are there: snapshot plus stream is the table.
//!
//! `WALCAST_SEED` sets the seed of the writers, which is printed.
#![expect(clippy::print_stdout, reason = "a test shows what it did")]

mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;

const ITEMS: &str = "CREATE TABLE items (id int PRIMARY KEY, kind int, n int, note text); \
                     ALTER TABLE items REPLICA IDENTITY FULL";
const OPEN: &str = "[[table]]\nname = 'public.items'\nopen = true\n";

const WRITERS: u64 = 8;
const SNAPSHOTS: usize = 400;
/// How many take them at the same time.
const CLIENTS: usize = 4;
/// Rows that writers fight over.
const ROWS: u64 = 120;

/// Rows by key, as a client holds them.
type Rows = BTreeMap<i64, Value>;

async fn items() -> Deployment {
    Deployment::start(Plan { schema: ITEMS, tables: OPEN, ..Plan::default() }).await
}

/// Takes a row frame; strictly, so that what comes twice or is missing shows.
fn apply(rows: &mut Rows, frame: &Value) {
    let image = if frame["new"].is_null() { &frame["old"] } else { &frame["new"] };
    let id = image["id"].as_i64();
    let new = frame["new"].clone();
    match frame["op"].as_str().unwrap() {
        "snapshot" | "insert" | "enter" => {
            assert_eq!(rows.insert(id.unwrap(), new), None, "there already: {frame}");
        }
        "update" => {
            let old = rows.insert(id.unwrap(), new);
            assert_eq!(old.as_ref(), Some(&frame["old"]), "{frame}");
        }
        "delete" => {
            assert_eq!(rows.remove(&id.unwrap()).as_ref(), Some(&frame["old"]), "{frame}");
        }
        "leave" => assert!(rows.remove(&id.unwrap()).is_some(), "not there: {frame}"),
        "truncate" => rows.clear(),
        other => panic!("{other}"),
    }
}

/// Everything up to `synced`: the rows, and its cursor. Nothing before it has a cursor. Where it
/// can't be had in one piece it begins again.
async fn snapshot(client: &mut Client) -> Result<(Rows, String), Value> {
    let mut rows = Rows::new();
    loop {
        let frame = client.frame().await;
        match frame["type"].as_str().unwrap() {
            "row" => {
                assert!(frame["cursor"].is_null(), "{frame}");
                apply(&mut rows, &frame);
            }
            "resync" => {
                assert!(frame["cursor"].is_null(), "{frame}");
                rows.clear();
            }
            "synced" => return Ok((rows, frame["cursor"].as_str().unwrap().to_owned())),
            "error" => return Err(frame),
            _ => panic!("{frame}"),
        }
    }
}

/// The same, and it must come.
async fn until_synced(client: &mut Client) -> (Rows, String) {
    snapshot(client).await.unwrap_or_else(|frame| panic!("{frame}"))
}

/// A cursor's position; those of one history are ordered by it.
fn position(cursor: &str) -> (u64, u64) {
    let parts: Vec<u64> =
        cursor.split('.').map(|part| u64::from_str_radix(part, 16).unwrap()).collect();
    (parts[2], parts[3])
}

/// Random numbers from a seed that can be set.
struct Dice(u64);

impl Dice {
    fn seeded(stream: u64) -> Dice {
        let seed = std::env::var_os("WALCAST_SEED");
        let seed: u64 = seed.map_or(7, |seed| seed.to_str().unwrap().parse().unwrap());
        if stream == 0 {
            println!("WALCAST_SEED={seed}");
        }
        Dice((seed << 8 | stream).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// A statement that some row will take, or none.
fn statement(dice: &mut Dice, note_bytes: u64) -> String {
    let (id, kind, n) = (dice.below(ROWS), dice.below(4), dice.below(1000));
    let note = format!("repeat('{kind}', {note_bytes})");
    match dice.below(10) {
        0..4 => format!(
            "INSERT INTO items VALUES ({id}, {kind}, {n}, {note}) ON CONFLICT (id) DO UPDATE SET n = {n}"
        ),
        4..7 => format!("UPDATE items SET kind = {kind}, n = n + 1 WHERE id = {id}"),
        7 => format!("UPDATE items SET n = {n} WHERE id BETWEEN {id} AND {}", id + 5),
        _ => format!("DELETE FROM items WHERE id = {id}"),
    }
}

/// What the writers are told, and what they tell.
#[derive(Debug, Default)]
struct Writing {
    stop: AtomicBool,
    transactions: AtomicUsize,
}

/// Writes transactions of every form until told to stop.
async fn write(
    sql: tokio_postgres::Client,
    (number, note_bytes): (u64, u64),
    writing: Arc<Writing>,
) {
    let mut dice = Dice::seeded(number);
    if number.is_multiple_of(3) {
        sql.batch_execute("SET synchronous_commit = off").await.unwrap();
    }
    while !writing.stop.load(Ordering::Relaxed) {
        let mut script = String::from("BEGIN;");
        for _ in 0..=dice.below(3) {
            script.push_str(&statement(&mut dice, note_bytes));
            script.push(';');
        }
        if dice.below(3) == 0 {
            let end = if dice.below(2) == 0 { "ROLLBACK TO s" } else { "RELEASE s" };
            script.push_str(&format!("SAVEPOINT s; {}; {end};", statement(&mut dice, note_bytes)));
        }
        script.push_str(if dice.below(12) == 0 { "ROLLBACK" } else { "COMMIT" });
        // A deadlock between two writers is no failure of theirs.
        if sql.batch_execute(&script).await.is_err() {
            sql.batch_execute("ROLLBACK").await.unwrap();
        }
        writing.transactions.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a client with a snapshot has: its filter, its rows, their position, and where it goes on.
struct Taken {
    kind: Option<i64>,
    rows: Rows,
    position: (u64, u64),
    client: Option<Client>,
}

/// The rows that a filter by kind admits.
fn of_kind(rows: &Rows, kind: Option<i64>) -> Rows {
    let mut rows = rows.clone();
    rows.retain(|_, row| kind.is_none_or(|kind| row["kind"] == kind));
    rows
}

/// Takes snapshots one after the other, its share of them and more while little was written; some
/// clients stay.
async fn take(url: String, worker: usize, snapshots: usize, writing: Arc<Writing>) -> Vec<Taken> {
    let mut taken = Vec::new();
    let is_little = || writing.transactions.load(Ordering::Relaxed) <= snapshots;
    for number in (0..).take_while(|number| *number < snapshots / CLIENTS || is_little()) {
        let mut client = Client::connect(&url).await;
        let kind = [None, Some(0), Some(1), Some(3)][(worker + number) % 4];
        let mut request = json!({"id": "s", "table": "items", "snapshot": true});
        if let Some(kind) = kind {
            request["where"] = json!(format!("kind = {kind}"));
        }
        let (rows, cursor) = loop {
            let answer = client.subscribed(request.clone()).await;
            assert!(answer["cursor"].is_null(), "{answer}");
            match snapshot(&mut client).await {
                Ok(taken) => break taken,
                Err(frame) => assert_eq!(frame["code"], "snapshot_overtaken"),
            }
        };
        let client = number.is_multiple_of(20).then_some(client);
        taken.push(Taken { kind, rows, position: position(&cursor), client });
    }
    taken
}

/// Records every change with its position until the last row comes.
async fn record(mut client: Client) -> Vec<((u64, u64), Value)> {
    let mut history = Vec::new();
    loop {
        let frame = client.row().await;
        if frame["new"]["note"] == "the end" {
            return history;
        }
        history.push((position(frame["cursor"].as_str().unwrap()), frame));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_hundred_snapshots_under_eight_writers_equal_the_table() {
    compare(&items().await, SNAPSHOTS, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_equal_the_table_where_the_ring_is_much_too_small() {
    let set = ["ring.bytes_max=1048576", "limits.outbox_bytes_max=268435456"];
    let plan = Plan { schema: ITEMS, tables: OPEN, set: &set, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    compare(&deployment, SNAPSHOTS / 4, 1000).await;
    println!("{:?}", deployment.daemon.metrics().read());
}

/// Takes snapshots while everything is written, and compares each with the table at its cursor.
#[expect(clippy::disallowed_methods, reason = "the tasks are joined below")]
async fn compare(deployment: &Deployment, snapshots: usize, note_bytes: u64) {
    let mut recorder = deployment.client().await;
    recorder.subscribed(json!({"id": "all", "table": "items"})).await;
    let recording = tokio::spawn(record(recorder));
    let writing = Arc::new(Writing::default());
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let sql = crate::support::connect(&deployment.config.database.url).await;
        writers.spawn(write(sql, (number, note_bytes), Arc::clone(&writing)));
    }
    let mut clients = JoinSet::new();
    for worker in 0..CLIENTS {
        clients.spawn(take(deployment.url(), worker, snapshots, Arc::clone(&writing)));
    }
    let mut taken: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    writing.stop.store(true, Ordering::Relaxed);
    writers.join_all().await;
    let written = writing.transactions.load(Ordering::Relaxed);
    deployment.execute(&["INSERT INTO items VALUES (1000000, 0, 0, 'the end')"]).await;
    let history = recording.await.unwrap();
    println!("{written} transactions, {} changes, {} snapshots", history.len(), taken.len());
    // The table at each position, from a stream that began when it was empty.
    taken.sort_by_key(|taken| taken.position);
    let (mut table, mut passed) = (Rows::new(), history.iter().peekable());
    for Taken { kind, rows, position, .. } in &taken {
        while let Some((_, frame)) = passed.next_if(|(at, _)| at <= position) {
            apply(&mut table, frame);
        }
        assert_eq!(*rows, of_kind(&table, *kind), "at {position:?}, kind {kind:?}");
    }
    passed.for_each(|(_, frame)| apply(&mut table, frame));
    for Taken { kind, mut rows, client, .. } in taken {
        let (Some(mut client), wanted) = (client, of_kind(&table, kind)) else { continue };
        while rows != wanted {
            apply(&mut rows, &client.row().await);
        }
    }
}

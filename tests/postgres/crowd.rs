//! A storm: a thousand clients lose their connections at once and come back at once, each with its
//! cursor, while others are served.

use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::Resource;
use rustix::process::Rlimit;
use serde_json::Value;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;
use tungstenite::Message;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;

const CLIENTS: usize = 1000;
/// Half of the clients see everything, the others one bucket each.
const BUCKETS: usize = 50;
/// Rows that are written while nobody is there.
const MISSED: usize = 100;

/// As many clients as there may be open files: each has two ends here.
fn clients() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _as_it_was = rustix::process::setrlimit(Resource::Nofile, raised);
    let files = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let clients = usize::try_from(files.saturating_sub(200) / 2).unwrap_or(usize::MAX);
    clients.min(CLIENTS)
}

/// A client without its connection.
struct Away {
    bucket: Option<usize>,
    cursor: Value,
}

async fn open() -> Deployment {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, bucket int)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n";
    Deployment::start(Plan { schema, tables, ..Plan::default() }).await
}

async fn subscribe(url: &str, bucket: Option<usize>, since: Option<&Value>) -> (Client, Value) {
    let mut client = Client::connect(url).await;
    let mut request = json!({"id": "n", "table": "notes"});
    if let Some(bucket) = bucket {
        request["where"] = json!(format!("bucket = {bucket}"));
    }
    if let Some(since) = since {
        request["since"] = since.clone();
    }
    let subscribed = client.subscribed(request).await;
    (client, subscribed["cursor"].clone())
}

/// Comes back and reads up to the last row; returns what it got.
async fn come_back(
    url: String,
    away: Away,
    mut last: watch::Receiver<Option<usize>>,
) -> Vec<usize> {
    let (mut client, _) = subscribe(&url, away.bucket, Some(&away.cursor)).await;
    let mut got = Vec::new();
    let mut synced = false;
    loop {
        let is_last = |last: &Option<usize>| match (*last, away.bucket) {
            (None, _) => false,
            (Some(last), None) => got.last() == Some(&last),
            (Some(last), Some(_)) => got.last().is_some_and(|got| got + BUCKETS > last),
        };
        if synced && is_last(&last.borrow()) {
            return got;
        }
        let message = tokio::select! {
            message = timeout(DEADLINE, client.socket.next()) => message.unwrap().unwrap().unwrap(),
            changed = last.changed() => { changed.unwrap(); continue }
        };
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(text.as_str()).unwrap();
        match frame["type"].as_str().unwrap() {
            "row" => got.push(frame["new"]["id"].as_u64().unwrap().try_into().unwrap()),
            "synced" => synced = true,
            "heartbeat" => {}
            other => panic!("{other}: {frame}"),
        }
    }
}

/// Everything was got, once and in order.
fn check(bucket: Option<usize>, got: &[usize], rows: usize) {
    let wanted = |id: &usize| bucket.is_none_or(|bucket| id % BUCKETS == bucket);
    let expected: Vec<usize> = (0..rows).filter(wanted).collect();
    assert!(got == expected, "bucket {bucket:?}: {got:?}");
}

/// Writes one row after the other and notes when each was committed, until it is told to stop and
/// every bucket has as many.
async fn write(
    sql: &tokio_postgres::Client,
    written: &watch::Sender<usize>,
    stop: &watch::Receiver<bool>,
) -> Vec<Instant> {
    let mut at = Vec::new();
    let insert = sql.prepare("INSERT INTO notes VALUES ($1, $2)").await.unwrap();
    while !*stop.borrow() || at.len() % BUCKETS != 0 {
        let id = i32::try_from(at.len()).unwrap();
        let bucket = i32::try_from(at.len() % BUCKETS).unwrap();
        sql.execute(&insert, &[&id, &bucket]).await.unwrap();
        at.push(Instant::now());
        written.send_replace(at.len());
        // A rate, so that the load does not depend on the machine.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reconnects_is_served_and_the_live_ones_with_it() {
    let clients = clients();
    let deployment = open().await;
    let url = deployment.url();
    let (mut live, _) = subscribe(&url, None, None).await;
    let mut connected = Vec::new();
    for number in 0..clients {
        let bucket = Some(number % BUCKETS).filter(|_| number % 2 == 0);
        let (client, cursor) = subscribe(&url, bucket, None).await;
        connected.push((client, Away { bucket, cursor }));
    }
    let (written, mut is_written) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    let (last, lasts) = watch::channel(None);
    let storm = async {
        // They vanish at once; what they would have resumed from is the same for all but a few.
        let away: Vec<Away> = connected.into_iter().map(|(_, away)| away).collect();
        is_written.wait_for(|rows| *rows >= MISSED).await.unwrap();
        let began = Instant::now();
        let mut back = JoinSet::new();
        for away in away {
            let (url, last, bucket) = (url.clone(), lasts.clone(), away.bucket);
            back.spawn(async move { (bucket, come_back(url, away, last).await) });
        }
        let sessions = || deployment.daemon.metrics().sessions();
        while sessions() <= clients {
            assert!(began.elapsed() < DEADLINE, "{} of {clients} are back", sessions());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.send_replace(true);
        (began, back)
    };
    let (done, mut is_done) = watch::channel(false);
    let receive = async {
        let mut at = Vec::new();
        loop {
            tokio::select! {
                frame = live.frame() => {
                    assert_eq!(frame["new"]["id"], at.len());
                    at.push(Instant::now());
                }
                _ = is_done.changed() => return (live, at),
            }
        }
    };
    let drive = async {
        let (at, storm) = tokio::join!(write(&deployment.sql, &written, &stopped), storm);
        last.send_replace(Some(at.len() - 1));
        let (began, mut back) = storm;
        let mut count = 0;
        while let Some(client) = timeout(DEADLINE, back.join_next()).await.unwrap() {
            let (bucket, got) = client.unwrap();
            check(bucket, &got, at.len());
            count += 1;
        }
        let took = began.elapsed();
        done.send_replace(true);
        (at, began, took, count)
    };
    let ((committed, began, took, back), (mut live, mut received)) = tokio::join!(drive, receive);
    assert_eq!(back, clients);
    while received.len() < committed.len() {
        let frame = live.frame().await;
        assert_eq!(frame["new"]["id"], received.len());
        received.push(Instant::now());
    }
    let late = committed.iter().zip(&received).filter(|(at, _)| **at >= began);
    let latest = late.map(|(at, received)| received.saturating_duration_since(*at)).max().unwrap();
    println!(
        "{clients} clients were back and had all after {took:?}; a live one waited {latest:?}"
    );
    // In a storm on a machine that is busy with other tests; where the live ones starve, it is the
    // whole of it.
    assert!(latest < Duration::from_secs(5), "a live client waited for {latest:?}");
}

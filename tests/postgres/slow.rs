//! A subscriber that stops reading: the others are not delayed, memory stays bounded, and it
//! catches up without a gap.

use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::timeout;
use tungstenite::Message;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;

const ROWS: usize = 30_000;

async fn open(set: &[&str]) -> Deployment {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n";
    Deployment::start(Plan { schema, tables, set, ..Plan::default() }).await
}

async fn subscriber(deployment: &Deployment) -> Client {
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes"})).await;
    client
}

/// Writes rows in transactions of a hundred, 30 MB in all; `quick` reads each before the next.
async fn write(deployment: &Deployment, quick: &mut Client) {
    for first in (0..ROWS).step_by(100) {
        let insert = format!(
            "INSERT INTO notes SELECT n, repeat('x', 1000) FROM generate_series({first}, {}) n",
            first + 99
        );
        deployment.sql.batch_execute(&insert).await.unwrap();
        read(quick, first, first + 100).await;
    }
}

/// Reads rows and checks that none is missing, doubled or out of order.
async fn read(client: &mut Client, first: usize, end: usize) {
    let mut next = first;
    while next < end {
        let message = timeout(DEADLINE, client.socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let frame: serde_json::Value = serde_json::from_str(text.as_str()).unwrap();
        if frame["type"] == "row" {
            assert_eq!(frame["new"]["id"], json!(next), "{}", frame["cursor"]);
            next += 1;
        } else {
            assert_eq!(frame["type"], "heartbeat", "{frame}");
        }
    }
}

#[cfg(target_os = "linux")]
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_delays_nobody_and_catches_up_without_a_gap() {
    let deployment = open(&["ring.bytes_max=268435456", "limits.outbox_bytes_max=262144"]).await;
    let mut slow = subscriber(&deployment).await;
    let mut quick = subscriber(&deployment).await;
    let began = Instant::now();
    write(&deployment, &mut quick).await;
    let quick_took = began.elapsed();
    let counted = deployment.daemon.metrics().read();
    assert!(counted.contains(&("fell_behind".to_owned(), 1)), "{counted:?}");
    read(&mut slow, 0, ROWS).await;
    println!("the quick one was done after {quick_took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_cost_bounded_memory_and_are_told_what_they_lost() {
    let deployment = open(&["ring.bytes_max=4194304", "limits.outbox_bytes_max=262144"]).await;
    let mut stopped = Vec::new();
    for _ in 0..20 {
        stopped.push(subscriber(&deployment).await);
    }
    let mut quick = subscriber(&deployment).await;
    let before = resident_kib();
    write(&deployment, &mut quick).await;
    // 20 outboxes share their bytes with each other, the ring and the channel: 600 MB were
    // withheld from their sockets.
    let grown = resident_kib().saturating_sub(before);
    println!("grown by {grown} KiB");
    assert!(grown < 200 << 10, "grown by {grown} KiB");
    let mut last = None;
    let reason = loop {
        let frame = stopped[0].frame().await;
        if frame["type"] == "resync" {
            break frame["reason"].clone();
        }
        let id = frame["new"]["id"].as_u64().unwrap();
        assert!(last.is_none_or(|last| id == last + 1), "{id} after {last:?}");
        last = Some(id);
    };
    assert_eq!(reason, "too_old");
}

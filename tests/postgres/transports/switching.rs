//! One subscriber that changes the transport between any two changes, while they are made.
//!
//! Each step it connects in one way, with the cursor of the last change that it took, takes a few
//! changes (in the middle of a transaction, of a write, of an answer) and goes away. `WALCAST_SEED`
//! sets the seed, which is printed.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;

use crate::deployment::Deployment;
use crate::transports::http;
use crate::transports::open;

const CHANGES: usize = 3000;
/// How many changes of one answer are taken at the most, so that all of them need many visits.
const TAKEN_AT_ONCE_MAX: usize = 200;

/// A sequence that looks random (Sebastiano Vigna's `splitmix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }
}

/// What the subscriber has.
#[derive(Default)]
struct Taken {
    /// Each change as it must come: `n` is the n-th that was made.
    changes: usize,
    cursor: Option<String>,
}

impl Taken {
    /// Takes a frame; `true` where it was a change.
    fn take(&mut self, frame: &Value) -> bool {
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        match frame["type"].as_str().unwrap() {
            "row" => {
                let expected = if self.changes.is_multiple_of(2) { "insert" } else { "update" };
                assert_eq!(frame["op"], expected, "change {}: {frame}", self.changes);
                assert_eq!(frame["new"]["id"], self.changes / 2, "{frame}");
                self.changes += 1;
                true
            }
            "subscribed" | "synced" | "heartbeat" => false,
            other => panic!("{other}: {frame}"),
        }
    }

    fn query(&self, path: &str) -> String {
        let since = self.cursor.iter().map(|cursor| format!("&since={cursor}"));
        format!("{path}?table=notes{}", since.collect::<String>())
    }
}

async fn by_websocket(deployment: &Deployment, taken: &mut Taken, count: usize) {
    let mut client = deployment.client().await;
    let id = format!("n{}", count % 3);
    let mut request = json!({"id": id, "table": "notes"});
    if let Some(cursor) = &taken.cursor {
        request["since"] = json!(cursor);
    }
    taken.take(&client.subscribed(request).await);
    let mut left = count;
    while left > 0 && taken.changes < CHANGES {
        left -= usize::from(taken.take(&client.frame().await));
    }
}

async fn by_events(deployment: &Deployment, taken: &mut Taken, count: usize) {
    let http = http(deployment).await;
    let mut stream = match &taken.cursor {
        Some(cursor) if count.is_multiple_of(2) => {
            http.events("/v1/events?table=notes", &[("last-event-id", cursor)]).await
        }
        _ => http.events(&taken.query("/v1/events"), &[]).await,
    };
    let mut left = count;
    while left > 0 && taken.changes < CHANGES {
        let frame = stream.any_frame().await.unwrap();
        left -= usize::from(taken.take(&frame));
        if let Some(cursor) = &taken.cursor {
            assert!(frame["cursor"].is_null() || *cursor == stream.last_id, "{frame}");
        }
    }
}

async fn by_changes(deployment: &Deployment, taken: &mut Taken, count: usize) {
    let mut http = http(deployment).await;
    for _ in 0..count % 4 {
        let answer = http.get(&format!("{}&wait=1", taken.query("/v1/changes")), &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        let frames = answer.json["frames"].as_array().unwrap();
        // Of some answers only the first half is taken, and of none more than a part of all.
        let whole = count.is_multiple_of(3) && frames.len() <= TAKEN_AT_ONCE_MAX;
        let half = frames.len().div_ceil(2).min(TAKEN_AT_ONCE_MAX);
        let end = if whole { frames.len() } else { half };
        for frame in frames.iter().take(end) {
            taken.take(frame);
        }
        if whole || frames.is_empty() {
            taken.cursor = Some(answer.json["cursor"].as_str().unwrap().to_owned());
        }
    }
}

/// Inserts and updates rows, in transactions of one to forty rows.
async fn write(deployment: &Deployment, mut random: Random) {
    let mut next = 0;
    while next < CHANGES / 2 {
        let end = (next + 1 + random.below(40)).min(CHANGES / 2);
        let statements: String = (next..end)
            .map(|id| {
                format!(
                    "INSERT INTO notes VALUES ({id}, repeat('x', {}));\
                     UPDATE notes SET extra = '{id}' WHERE id = {id};",
                    random.below(2000)
                )
            })
            .collect();
        deployment.execute(&[&format!("BEGIN; {statements} COMMIT")]).await;
        next = end;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_changes_transports_has_each_change_once_and_in_order() {
    let deployment = open(&["listen.shards=2"]).await;
    let given = std::env::var_os("WALCAST_SEED");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed: u64 = given.map_or_else(now, |seed| seed.to_str().unwrap().parse().unwrap());
    println!("WALCAST_SEED={seed}");
    let mut random = Random(seed);
    let mut taken = Taken::default();
    // From here on nothing may be missing.
    taken.take(&deployment.client().await.subscribed(json!({"id": "n", "table": "notes"})).await);
    let writer = Random(random.0 ^ 1);
    let reads = async {
        let mut by = [0; 3];
        // Each of the three transports once, in any order, and again.
        let mut round = Vec::new();
        while taken.changes < CHANGES {
            if round.is_empty() {
                round = vec![0, 1, 2];
            }
            let transport = round.swap_remove(random.below(round.len()));
            let count = 1 + random.below(60);
            by[transport] += 1;
            match transport {
                0 => by_websocket(&deployment, &mut taken, count).await,
                1 => by_events(&deployment, &mut taken, count).await,
                _ => by_changes(&deployment, &mut taken, count).await,
            }
        }
        by
    };
    let (by, ()) = tokio::join!(reads, write(&deployment, writer));
    println!("{by:?} connections by WebSocket, events and changes");
    assert!(by.iter().all(|count| *count > 2), "{by:?}");
}

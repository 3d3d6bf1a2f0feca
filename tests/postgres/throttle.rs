//! Throttled and resting subscriptions: who asks to hear less hears less, and in the end the same.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;

const DRIVERS: i64 = 50;
const ROUNDS: i64 = 400;

const SCHEMA: &str = "CREATE TABLE drivers \
    (id int PRIMARY KEY, n int NOT NULL, lat float8, lng numeric, name text, region int); \
    INSERT INTO drivers SELECT id, 0, 0, 0, 'd', id % 5 FROM generate_series(1, 50) id; \
    CREATE TABLE pings (driver int, n int); \
    CREATE TABLE secrets (id int PRIMARY KEY, code text)";

async fn open(set: &[&str]) -> Deployment {
    let tables = "[[table]]\nname = 'public.drivers'\nopen = true\n\
                  [[table]]\nname = 'public.pings'\nopen = true\n\
                  [[table]]\nname = 'public.secrets'\nopen = true\n";
    Deployment::start(Plan { schema: SCHEMA, tables, set, ..Plan::default() }).await
}

/// What a client knows of the drivers, and how often it heard of each.
#[derive(Default)]
struct Map {
    newest: BTreeMap<i64, i64>,
    heard: BTreeMap<i64, usize>,
    cursor: Option<String>,
}

impl Map {
    /// Takes a row frame; no driver may go back in time.
    fn take(&mut self, frame: &Value) {
        assert_eq!(frame["type"], "row", "{frame}");
        let (id, n) = (frame["new"]["id"].as_i64().unwrap(), frame["new"]["n"].as_i64().unwrap());
        let before = self.newest.insert(id, n).unwrap_or(-1);
        assert!(n >= before, "{id}: {n} after {before}");
        *self.heard.entry(id).or_default() += 1;
        self.cursor = Some(frame["cursor"].as_str().unwrap().to_owned());
    }

    fn is_final(&self) -> bool {
        self.newest.len() == 50 && self.newest.values().all(|n| *n == ROUNDS)
    }

    async fn follow(&mut self, client: &mut Client, end: impl Fn(&Map) -> bool) {
        while !end(self) {
            let frame = client.frame().await;
            if frame["type"] != "synced" {
                self.take(&frame);
            }
        }
    }
}

/// Moves every driver, again and again: 20,000 changes.
async fn drive(deployment: &Deployment) {
    for n in 1..=ROUNDS {
        let update = format!("UPDATE drivers SET n = {n}");
        deployment.sql.batch_execute(&update).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hears_as_often_as_it_asked_and_all_end_with_the_same() {
    let deployment = open(&[]).await;
    let every = |ms: Option<u64>| {
        let mut request = json!({"id": "d", "table": "drivers"});
        if let Some(ms) = ms {
            request["throttle"] = json!({ "interval_ms": ms });
        }
        request
    };
    let intervals = [None, Some(200), Some(200), Some(500)];
    let began = Instant::now();
    let mut clients = Vec::new();
    for interval in intervals {
        let mut client = deployment.client().await;
        client.subscribed(every(interval)).await;
        clients.push(async move {
            let mut map = Map::default();
            map.follow(&mut client, Map::is_final).await;
            (interval, map, began.elapsed())
        });
    }
    // One more, whose connection is lost in the middle, twice.
    let mut lost = deployment.client().await;
    lost.subscribed(every(Some(100))).await;
    let follow = async {
        let mut map = Map::default();
        map.follow(&mut lost, |map| map.heard.values().sum::<usize>() >= 120).await;
        for more in [100, usize::MAX] {
            drop(std::mem::replace(&mut lost, deployment.client().await));
            let mut request = every(Some(100));
            request["since"] = json!(map.cursor);
            lost.subscribed(request).await;
            let heard = map.heard.values().sum::<usize>();
            let enough =
                |map: &Map| map.is_final() || map.heard.values().sum::<usize>() - heard >= more;
            map.follow(&mut lost, enough).await;
        }
        map
    };
    let ((), resumed, followed) = tokio::join!(drive(&deployment), follow, join_all(clients));
    assert!(resumed.is_final());
    for (interval, map, took) in followed {
        println!("{interval:?}: {} frames in {took:?}", map.heard.values().sum::<usize>());
        for (driver, heard) in &map.heard {
            match interval {
                None => assert_eq!(*heard, usize::try_from(ROUNDS).unwrap(), "driver {driver}"),
                Some(ms) => {
                    let fits =
                        usize::try_from(took.as_millis()).unwrap() / usize::try_from(ms).unwrap();
                    assert!(*heard <= fits + 1, "driver {driver}: {heard} times in {took:?}");
                }
            }
        }
    }
    let rows = deployment.sql.query("SELECT id, n FROM drivers ORDER BY id", &[]).await.unwrap();
    let table = rows.iter().map(|row| (row.get::<_, i32>(0).into(), row.get::<_, i32>(1).into()));
    assert_eq!(table.collect::<BTreeMap<i64, i64>>(), resumed.newest);
    assert_eq!(i64::try_from(resumed.newest.len()).unwrap(), DRIVERS);
    assert!(counted(&deployment, "conflated") > 10_000);
}

fn counted(deployment: &Deployment, name: &str) -> u64 {
    let counters = deployment.daemon.metrics().read();
    counters.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

/// A client of one driver that hears of it at most every thirty seconds: what comes second is held.
async fn patient(deployment: &Deployment, claims: Value) -> Client {
    let mut client = deployment.client_with(claims).await;
    let throttle = json!({ "interval_ms": 30_000 });
    let request = json!({"id": "d", "table": "drivers", "where": "id = 1", "throttle": throttle});
    client.subscribed(request).await;
    client
}

/// Moves the first driver twice, and waits until both changes were routed.
async fn hold(deployment: &Deployment, patient: &mut Client) {
    let mut witness = deployment.client().await;
    witness.subscribed(json!({"id": "w", "table": "drivers", "where": "id = 1"})).await;
    deployment.execute(&["UPDATE drivers SET n = 1"]).await;
    assert_eq!(patient.rows(1, "n").await, ["update 1"]);
    deployment.execute(&["UPDATE drivers SET n = 2 WHERE id = 1"]).await;
    assert_eq!(witness.rows(2, "n").await, ["update 1", "update 2"]);
    // One shard routes for one client before the other: the counter is the later one.
    let held = async {
        while counted(deployment, "conflated") == 0 {
            deployment.execute(&["UPDATE drivers SET n = 3 WHERE id = 1"]).await;
            witness.row().await;
        }
    };
    timeout(DEADLINE, held).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_not_delivered_after_a_revoke() {
    let deployment = open(&[]).await;
    let mut client = patient(&deployment, json!({})).await;
    hold(&deployment, &mut client).await;
    let revoke = format!("REVOKE SELECT ON drivers FROM {}", deployment.role);
    deployment.execute(&[&revoke]).await;
    let error = client.expect("error").await;
    assert_eq!(error["code"], "table_forbidden");
    client.send(json!({"type": "ping"})).await;
    client.expect("pong").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_judged_again_under_new_claims() {
    let tables = "[[table]]\nname = 'public.drivers'\n\
                  policy = \"n < (claims ->> 'sees')::int\"\n";
    let plan = Plan { schema: SCHEMA, tables, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let mut client = deployment.client_with(json!({"sub": "a", "sees": 9})).await;
    let throttle = json!({ "interval_ms": 500 });
    let request = json!({"id": "d", "table": "drivers", "throttle": throttle});
    client.subscribed(request).await;
    deployment.execute(&["UPDATE drivers SET n = 1 WHERE id <= 2"]).await;
    assert_eq!(client.rows(2, "id").await, ["update 1", "update 2"]);
    let second = ["UPDATE drivers SET n = 3 WHERE id = 1", "UPDATE drivers SET n = 8 WHERE id = 2"];
    deployment.execute(&second).await;
    // Sees the first of the two from now on.
    let token = deployment.token(json!({"sub": "a", "sees": 5}));
    client.send(json!({"type": "auth", "token": token})).await;
    let mut heard = Vec::new();
    deployment.execute(&["UPDATE drivers SET n = 4 WHERE id = 3"]).await;
    let mut authenticated = false;
    while heard.len() < 2 {
        let frame = client.frame().await;
        authenticated |= frame["type"] == "authenticated";
        if frame["type"] == "row" {
            let row = &frame["new"];
            // Whatever came in time for the old claims may have been delivered under them.
            assert!(!authenticated || row["n"].as_i64().unwrap() < 5, "{frame}");
            if row["n"] != json!(8) {
                heard.push(format!("{} {}", row["id"], row["n"]));
            }
        }
    }
    heard.sort();
    assert_eq!(heard, ["1 3", "3 4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_hardly_moves_is_not_told_of() {
    let deployment = open(&[]).await;
    let mut client = deployment.client().await;
    let throttle = json!({
        "interval_ms": 50, "min_move_m": 100, "key": ["id"], "position": ["lat", "lng"],
    });
    let request =
        json!({"id": "d", "table": "drivers", "columns": ["id", "n"], "throttle": throttle});
    client.subscribed(request).await;
    let began = Instant::now();
    // Twelve metres north each time; the hundredth of them and the last one count.
    for n in 1..=20 {
        let lat = f64::from(n) * 0.000_11;
        let update = format!("UPDATE drivers SET n = {n}, lat = {lat} WHERE id = 1");
        deployment.execute(&[&update]).await;
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&20) {
        heard.push(client.row().await["new"]["n"].as_i64().unwrap());
    }
    // Twenty changes reach two hundred and thirty metres, and the last one is waited for.
    let lingered = usize::try_from(began.elapsed().as_millis()).unwrap() / 500;
    assert!(heard.len() <= 4 + lingered, "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_hidden_hears_nothing_until_it_is_seen() {
    let deployment = open(&["ring.bytes_max=4194304"]).await;
    let mut client = deployment.client().await;
    let mut witness = deployment.client().await;
    let throttle = json!({ "interval_ms": 10 });
    client.subscribed(json!({"id": "d", "table": "drivers", "throttle": throttle})).await;
    client.subscribed(json!({"id": "p", "table": "pings"})).await;
    witness.subscribed(json!({"id": "w", "table": "drivers", "where": "id = 1"})).await;
    client.send(json!({"type": "pause", "id": "x"})).await;
    assert_eq!(client.expect("error").await["code"], "unknown_id");
    for id in ["d", "p", "d"] {
        client.send(json!({"type": "pause", "id": id})).await;
        assert_eq!(client.expect("paused").await["id"], id);
    }
    for n in 1..=20 {
        let statements =
            [format!("UPDATE drivers SET n = {n}"), format!("INSERT INTO pings VALUES (1, {n})")];
        deployment.execute(&[&statements[0], &statements[1]]).await;
    }
    witness.rows(20, "n").await;
    client.send(json!({"type": "resume", "id": "d"})).await;
    client.expect("resumed").await;
    let rows = client.rows(50, "n").await;
    assert!(rows.iter().all(|row| row == "update 20"), "{rows:?}");
    client.expect("synced").await;
    client.send(json!({"type": "resume", "id": "p"})).await;
    client.expect("resumed").await;
    let expected: Vec<String> = (1..=20).map(|n| format!("insert {n}")).collect();
    assert_eq!(client.rows(20, "n").await, expected);
    let synced = client.expect("synced").await;

    // While it rests longer than the ring reaches, it costs nothing, and is told so.
    client.send(json!({"type": "pause", "id": "p"})).await;
    assert_eq!(client.expect("paused").await["cursor"], synced["cursor"]);
    for _ in 0..10 {
        let much = "UPDATE drivers SET name = repeat('x', 20000)";
        deployment.execute(&[much]).await;
    }
    witness.rows(10, "id").await;
    client.send(json!({"type": "resume", "id": "p"})).await;
    let mut frames = Vec::new();
    while frames.len() < 2 {
        let frame = client.frame().await;
        if frame["id"] == "p" {
            frames.push(format!("{} {}", frame["type"], frame["reason"]));
        }
    }
    assert_eq!(frames, [r#""resumed" null"#, r#""resync" "too_old""#]);
    assert_eq!(counted(&deployment, "paused"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_gets_the_last_values_when_it_goes_on() {
    let deployment = open(&["limits.outbox_bytes_max=262144"]).await;
    let mut slow = deployment.client().await;
    let mut quick = deployment.client().await;
    let throttle = json!({ "interval_ms": 20 });
    slow.subscribed(json!({"id": "d", "table": "drivers", "throttle": throttle})).await;
    quick.subscribed(json!({"id": "q", "table": "drivers", "where": "id = 1"})).await;
    // Each round is 100 KB, 40 MB in all; what the sockets take is a few.
    for n in 1..=ROUNDS {
        let update = format!("UPDATE drivers SET n = {n}, name = repeat('{}', 2000)", n % 10);
        deployment.execute(&[&update]).await;
        assert_eq!(quick.row().await["new"]["n"], json!(n));
    }
    let mut map = Map::default();
    map.follow(&mut slow, Map::is_final).await;
    let heard = map.heard.values().sum::<usize>();
    println!("{heard} frames instead of {}", DRIVERS * ROUNDS);
    assert!(heard < 15_000, "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_left_out_is_not() {
    let deployment = open(&[]).await;
    deployment.execute(&["ALTER TABLE drivers ALTER name SET STORAGE EXTERNAL"]).await;
    let mut client = deployment.client().await;
    let throttle = json!({ "interval_ms": 30_000 });
    client.subscribed(json!({"id": "d", "table": "drivers", "throttle": throttle})).await;
    let throttle = json!({ "interval_ms": 30_000, "key": "driver" });
    client.subscribed(json!({"id": "p", "table": "pings", "throttle": throttle})).await;
    deployment.execute(&["UPDATE drivers SET n = 1 WHERE id = 1"]).await;
    assert_eq!(client.rows(1, "n").await, ["update 1"]);
    deployment
        .execute(&[
            // Large, and not in the second change: the first one can't be left out.
            "UPDATE drivers SET n = 2, name = repeat('x', 9000) WHERE id = 1",
            "UPDATE drivers SET n = 3 WHERE id = 1",
        ])
        .await;
    let row = client.row().await;
    assert_eq!((&row["new"]["n"], &row["unchanged"]), (&json!(2), &Value::Null));
    // A change of the key takes what is held with it, in order.
    deployment.execute(&["UPDATE drivers SET id = 77 WHERE id = 1"]).await;
    let row = client.row().await;
    assert_eq!((&row["new"]["n"], &row["unchanged"]), (&json!(3), &json!(["name"])));
    let row = client.row().await;
    assert_eq!((&row["old"]["id"], &row["new"]["id"]), (&json!(1), &json!(77)));
    // An insert and a delete within an interval are one delete.
    let statements =
        "BEGIN; INSERT INTO drivers VALUES (81, 1); DELETE FROM drivers WHERE id = 81; COMMIT";
    deployment.execute(&[statements]).await;
    assert_eq!(client.rows(1, "id").await, ["delete 81"]);
    // What is held before a truncate is void.
    let statements = "BEGIN; INSERT INTO pings VALUES (1, 1); TRUNCATE pings; \
                      INSERT INTO pings VALUES (1, 2), (1, 3), (2, 4); COMMIT";
    deployment.execute(&[statements]).await;
    assert_eq!(client.expect("row").await["op"], "truncate");
    assert_eq!(client.rows(2, "n").await, ["insert 3", "insert 4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_that_does_not_fit_is_refused() {
    let deployment = open(&[]).await;
    let revoke = format!(
        "REVOKE SELECT ON drivers FROM {0}; GRANT SELECT (id, n, lat, name) ON drivers TO {0}",
        deployment.role
    );
    deployment.execute(&[&revoke]).await;
    let deployment = deployment.restart().await;
    let mut client = deployment.client().await;
    for (table, throttle, code, part) in [
        ("pings", json!({"interval_ms": 100}), "bad_throttle", "no primary key"),
        ("pings", json!({"interval_ms": 5, "key": "n"}), "bad_request", "interval_ms"),
        ("pings", json!({"interval_ms": 100, "key": "x"}), "column_forbidden", "column x"),
        (
            "drivers",
            json!({"interval_ms": 100, "min_move_m": 5, "position": ["lat", "name"]}),
            "bad_throttle",
            "column name is no number",
        ),
        (
            "drivers",
            json!({"interval_ms": 100, "min_move_m": 5, "position": ["lat", "lng"]}),
            "column_forbidden",
            "column lng",
        ),
    ] {
        let request = json!({"id": "a", "table": table, "throttle": throttle});
        let error = client.subscribe(request).await;
        assert_eq!((&error["id"], &error["code"]), (&json!("a"), &json!(code)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
        assert!(error["hint"].is_string(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_comes_whole_and_what_follows_is_throttled() {
    let deployment = open(&[]).await;
    let mut client = deployment.client().await;
    let throttle = json!({ "interval_ms": 100 });
    let request = json!({"id": "d", "table": "drivers", "snapshot": true, "throttle": throttle});
    client.subscribed(request).await;
    // Before it has come whole, or just after: it makes no difference in the end.
    client.send(json!({"type": "pause", "id": "d"})).await;
    client.send(json!({"type": "resume", "id": "d"})).await;
    let follow = async {
        let (mut map, mut whole, mut others) = (Map::default(), 0, Vec::new());
        let resumed = |others: &[String]| others.iter().position(|other| other == "resumed");
        let synced = |others: &[String]| {
            resumed(others).is_some_and(|at| others[at..].iter().any(|other| other == "synced"))
        };
        while !(map.is_final() && synced(&others)) {
            let frame = client.frame().await;
            match frame["type"].as_str().unwrap() {
                "row" => {
                    let row = &frame["new"];
                    let (id, n) = (row["id"].as_i64().unwrap(), row["n"].as_i64().unwrap());
                    whole += usize::from(frame["op"] == "snapshot");
                    map.newest.insert(id, n);
                }
                other => {
                    assert!(other != "synced" || frame["cursor"].is_string(), "{frame}");
                    others.push(other.to_owned());
                }
            }
        }
        (whole, others)
    };
    let ((), (whole, others)) = tokio::join!(drive(&deployment), follow);
    println!("{whole} rows, {others:?}");
    assert!((50..=100).contains(&whole), "{whole} rows, {others:?}");
}

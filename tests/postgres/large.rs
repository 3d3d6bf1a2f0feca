//! Large things: a transaction of very many rows, and rows of very many bytes. Both pass, in bounded
//! memory, and whoever is not concerned notices nothing.
//!
//! `WALCAST_LARGE_ROWS` and `WALCAST_LARGE_BYTES` make them larger: the rows of the transaction, and
//! the bytes of the row.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::time::timeout;
use tokio_postgres::Client as Sql;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::program::Folder;
use crate::program::walcast;
use crate::support;

/// One row in so many is for the subscriber.
const SHARE: usize = 100;

fn from_environment(name: &str, otherwise: usize) -> usize {
    std::env::var_os(name).map_or(otherwise, |text| text.to_str().unwrap().parse().unwrap())
}

/// The most memory that a process has had, in MiB, and how to begin anew.
struct Peak(String);

impl Peak {
    fn of(pid: &str) -> Peak {
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        Peak(pid.to_owned())
    }

    fn read(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }
}

/// A database, and the program on it.
struct Serving {
    sql: Sql,
    folder: Folder,
    set: Vec<String>,
    child: Child,
    url: String,
}

impl Serving {
    async fn start(schema: &str, set: &[&str]) -> Serving {
        let database = support::database().await;
        let sql = database.connect().await;
        let role = format!("web_{}", database.name);
        let statements = format!(
            "{schema}; CREATE ROLE {role} NOLOGIN; GRANT SELECT ON large TO {role}; \
             CREATE PUBLICATION walcast FOR TABLE large"
        );
        sql.batch_execute(&statements).await.unwrap();
        let folder = Folder::new();
        let text = format!(
            "[database]\nurl = '{}'\nslot = '{}'\n[listen]\naddress = '127.0.0.1:0'\n[admin]\naddress = '127.0.0.1:0'\n\
             [auth]\nanonymous_role = '{role}'\n[[table]]\nname = 'large'\nopen = true\n",
            database.connection_string(),
            database.name,
        );
        folder.write("walcast.toml", text);
        let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        let (child, url) = serve(&folder, &set).await;
        Serving { sql, folder, set, child, url }
    }

    fn peak(&self) -> Peak {
        Peak::of(&self.child.id().unwrap().to_string())
    }

    /// Kills the program (`kill -9`) and starts it again.
    async fn kill_and_start(&mut self) {
        self.child.kill().await.unwrap();
        (self.child, self.url) = serve(&self.folder, &self.set).await;
    }

    async fn subscriber(&self, request: Value) -> Client {
        let mut client = Client::connect(&self.url).await;
        client.subscribed(request).await;
        client
    }
}

/// Starts `walcast serve`; returns it with its URL when it accepts clients.
async fn serve(folder: &Folder, set: &[String]) -> (Child, String) {
    let config = folder.path("walcast.toml");
    let mut arguments = vec!["serve", "--config", config.to_str().unwrap()];
    arguments.extend(set.iter().flat_map(|set| ["--set", set]));
    let mut command = walcast(&arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
        if line.contains("accepting clients") {
            break line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        }
    };
    #[expect(clippy::disallowed_methods, reason = "ends with the program")]
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, format!("ws://{address}/v1/ws"))
}

const SCHEMA: &str = "CREATE TABLE large (id int PRIMARY KEY, who int, body text)";

/// Inserts rows from 0 on in one transaction.
async fn insert(sql: &Sql, rows: usize, body: usize) {
    let insert = format!(
        "INSERT INTO large SELECT n, n % {SHARE}, repeat('x', {body}) \
         FROM generate_series(0, {}) n",
        rows - 1
    );
    sql.batch_execute(&insert).await.unwrap();
}

/// Reads rows until the transaction is over, and checks that each is the next one. Returns the
/// cursor of each.
async fn read(client: &mut Client, first: usize, end: usize) -> BTreeMap<usize, Value> {
    let mut cursors = BTreeMap::new();
    for id in (first..end).step_by(SHARE) {
        let row = client.row().await;
        assert_eq!((&row["op"], &row["new"]["id"]), (&json!("insert"), &json!(id)), "{row}");
        cursors.insert(id, row["cursor"].clone());
    }
    cursors
}

fn share(since: Option<&Value>) -> Value {
    json!({ "id": "mine", "table": "large", "where": "who = 0", "columns": ["id", "who"],
            "since": since })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_very_many_rows_passes_in_bounded_memory() {
    let rows = from_environment("WALCAST_LARGE_ROWS", 300_000);
    let serving = Serving::start(SCHEMA, &["ring.bytes_max=16777216"]).await;
    let mut client = serving.subscriber(share(None)).await;
    let peak = serving.peak();
    let began = tokio::time::Instant::now();
    insert(&serving.sql, rows, 400).await;
    let written = began.elapsed();
    let cursors = read(&mut client, 0, rows).await;
    let (took, peak) = (began.elapsed() - written, peak.read());
    println!("{rows} rows of 400 bytes: peak {peak} MiB, {took:?} after the commit");
    // 64 MiB in flight, 16 MiB of ring, and the program itself.
    assert!(peak < 128, "{peak} MiB");

    // What is still in the ring is read on from, inside the transaction; what is not is told.
    let late = rows - 5 * SHARE;
    let mut resumed = serving.subscriber(share(cursors.get(&late))).await;
    read(&mut resumed, late + SHARE, rows).await;
    resumed.expect("synced").await;
    let mut too_late = serving.subscriber(share(cursors.get(&0))).await;
    assert_eq!(too_late.expect("resync").await["reason"], "too_old");

    serving.sql.batch_execute("INSERT INTO large VALUES (-1, 0, 'after')").await.unwrap();
    for client in [&mut client, &mut resumed, &mut too_late] {
        assert_eq!(client.row().await["new"]["id"], -1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_inside_a_large_transaction_outlives_a_kill_in_the_middle_of_it() {
    let rows = 150_000;
    let mut serving = Serving::start(SCHEMA, &["ring.bytes_max=67108864"]).await;
    let mut client = serving.subscriber(share(None)).await;
    insert(&serving.sql, rows, 100).await;
    let middle = 50 * SHARE;
    let cursors = read(&mut client, 0, middle).await;
    serving.kill_and_start().await;
    for first in [0, 7 * SHARE, middle - SHARE] {
        let mut resumed = serving.subscriber(share(cursors.get(&first))).await;
        read(&mut resumed, first + SHARE, rows).await;
        resumed.expect("synced").await;
        drop(resumed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_middle_of_a_large_transaction_is_not_noticed() {
    let rows = 150_000;
    let tables = "[[table]]\nname = 'large'\nopen = true\n";
    let set = ["ring.bytes_max=4194304", "window.seconds=1", "window.bytes=1048576"];
    let plan = Plan { schema: SCHEMA, tables, set: &set, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let mut client = deployment.client().await;
    client.subscribed(share(None)).await;
    insert(&deployment.sql, rows, 100).await;
    read(&mut client, 0, 10 * SHARE).await;
    let slot = &deployment.config.database.slot;
    let cut = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
         WHERE slot_name = '{slot}'"
    );
    deployment.sql.batch_execute(&cut).await.unwrap();
    read(&mut client, 10 * SHARE, rows).await;
    let after = "INSERT INTO large VALUES (-1, 0, 'after')";
    deployment.sql.batch_execute(after).await.unwrap();
    assert_eq!(client.row().await["new"]["id"], -1);

    let end = "SELECT pg_current_wal_insert_lsn()::text";
    let end: String = deployment.sql.query_one(end, &[]).await.unwrap().get(0);
    let confirmed = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    let reached = async {
        while !deployment.sql.query_one(&confirmed, &[]).await.unwrap().get::<_, bool>(0) {
            deployment.sql.batch_execute("SELECT pg_sleep(0.05)").await.unwrap();
        }
    };
    timeout(DEADLINE, reached).await.expect("the slot is confirmed after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_100_mb_goes_out_as_a_reference_and_holds_nothing_up() {
    let bytes = from_environment("WALCAST_LARGE_BYTES", 100_000_000);
    let schema = "CREATE TABLE docs (id int PRIMARY KEY, title text, body text); \
                  ALTER TABLE docs REPLICA IDENTITY FULL";
    let tables = "[[table]]\nname = 'docs'\nopen = true\n";
    let deployment = Deployment::start(Plan { schema, tables, ..Plan::default() }).await;
    let (mut whole, mut narrow) = (deployment.client().await, deployment.client().await);
    whole.subscribed(json!({ "id": "d", "table": "docs" })).await;
    whole.subscribed(json!({ "id": "s", "table": "docs", "where": "body = 'small'" })).await;
    narrow.subscribed(json!({ "id": "d", "table": "docs", "columns": ["id", "title"] })).await;
    let peak = Peak::of("self");
    let before = peak.read();
    let began = tokio::time::Instant::now();
    deployment
        .execute(&[
            &format!("INSERT INTO docs VALUES (1, 'one', repeat('x', {bytes}))"),
            "UPDATE docs SET title = 'first' WHERE id = 1",
            "UPDATE docs SET id = 9 WHERE id = 1",
            "DELETE FROM docs WHERE id = 9",
            "INSERT INTO docs VALUES (2, 'two', 'small')",
        ])
        .await;
    let mut told = Vec::new();
    loop {
        let mut row = whole.row().await;
        if row["id"] == "s" {
            assert_eq!(row["new"]["id"], 2);
            break;
        }
        if row["reference"].is_object() {
            let size = row["bytes"].as_u64().unwrap();
            assert!((bytes..bytes + 100).contains(&usize::try_from(size).unwrap()), "{size}");
        }
        let object = row.as_object_mut().unwrap();
        object.retain(|name, _| ["op", "new", "old", "reference"].contains(&name.as_str()));
        told.push(row);
    }
    let grown = peak.read() - before;
    println!("a row of {bytes} bytes, five times: grown by {grown} MiB in {:?}", began.elapsed());
    assert!(grown < 64, "{grown} MiB");
    let expected = [
        json!({ "op": "insert", "reference": { "id": 1 } }),
        json!({ "op": "update", "reference": { "id": 1 }, "old": { "id": 1 } }),
        json!({ "op": "update", "reference": { "id": 9 }, "old": { "id": 1 } }),
        json!({ "op": "delete", "reference": { "id": 9 } }),
        json!({ "op": "insert", "new": { "id": 2, "title": "two", "body": "small" } }),
    ];
    assert_eq!(told, expected);
    let row = narrow.row().await;
    assert_eq!(row["new"], json!({ "id": 1, "title": "one" }));
    let row = narrow.row().await;
    assert_eq!(row["new"], json!({ "id": 1, "title": "first" }));
    assert_eq!(row["old"], json!({ "id": 1, "title": "one" }));
    assert_eq!(narrow.row().await["new"], json!({ "id": 9, "title": "first" }));
    assert_eq!(narrow.row().await["old"], json!({ "id": 9, "title": "first" }));
    assert_eq!(narrow.row().await["new"]["id"], 2);

    let counted = deployment.daemon.metrics().read();
    assert!(counted.contains(&("referenced".to_owned(), 4)), "{counted:?}");
    assert!(counted.contains(&("undecided".to_owned(), 4)), "{counted:?}");

    // A snapshot tells it like the stream.
    let huge = format!("INSERT INTO docs VALUES (3, 'three', repeat('x', {bytes}))");
    deployment.execute(&[&huge]).await;
    let mut late = deployment.client().await;
    late.subscribed(json!({ "id": "d", "table": "docs", "snapshot": true })).await;
    for expected in [2, 3] {
        let row = late.row().await;
        let image = if expected == 3 { &row["reference"] } else { &row["new"] };
        assert_eq!(image["id"], expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_says_as_much_as_fits() {
    let schema = "CREATE TABLE docs (id int PRIMARY KEY, body text); \
                  ALTER TABLE docs REPLICA IDENTITY FULL";
    let tables = "[[table]]\nname = 'docs'\nopen = true\n";
    let set = ["limits.frame_bytes_max=20000"];
    let deployment = Deployment::start(Plan { schema, tables, set: &set, ..Plan::default() }).await;
    let (mut whole, mut keyless) = (deployment.client().await, deployment.client().await);
    whole.subscribed(json!({ "id": "d", "table": "docs" })).await;
    keyless.subscribed(json!({ "id": "d", "table": "docs", "columns": ["body"] })).await;
    let statements = [
        "INSERT INTO docs VALUES (1, repeat('x', 15000))",
        "UPDATE docs SET body = repeat('y', 15000)",
        // Fits as a value, and not in a frame.
        "UPDATE docs SET body = repeat('z', 19990)",
        "UPDATE docs SET body = 'small'",
        "UPDATE docs SET body = 'smaller'",
        // Six bytes in JSON.
        "UPDATE docs SET body = repeat(chr(1), 5000)",
    ];
    deployment.execute(&statements).await;
    let seen = |row: Value| {
        let length = |value: &Value| value["body"].as_str().map(str::len);
        let reference = row["reference"].as_object().map(|key| json!(key).to_string());
        (length(&row["new"]), length(&row["old"]), reference)
    };
    let reference = |key: &str| Some(key.to_owned());
    for expected in [
        (Some(15_000), None, None),
        (Some(15_000), None, None),
        (None, None, reference(r#"{"id":1}"#)),
        (Some(5), None, None),
        (Some(7), Some(5), None),
        (None, None, reference(r#"{"id":1}"#)),
    ] {
        assert_eq!(seen(whole.row().await), expected);
    }
    for expected in [
        (Some(15_000), None, None),
        (None, None, reference("{}")),
        (None, None, reference("{}")),
        (None, None, reference("{}")),
        (Some(7), Some(5), None),
        (None, None, reference("{}")),
    ] {
        assert_eq!(seen(keyless.row().await), expected);
    }
}

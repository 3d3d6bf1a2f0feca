//! Orders to a running daemon, and its configuration read again.

use std::fs;
use std::ops::Range;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use walcast::control::Change;
use walcast::control::ControlError;
use walcast::control::Reloaded;
use walcast::control::State;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::deployment::SECRET;

/// A daemon that serves `notes`.
async fn notes() -> Deployment {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n";
    Deployment::start(Plan { schema, tables, ..Plan::default() }).await
}

/// Replaces text in the configuration file.
fn edit(deployment: &Deployment, from: &str, to: &str) {
    let text = fs::read_to_string(&deployment.files.config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&deployment.files.config, text.replace(from, to)).unwrap();
}

fn state(deployment: &Deployment) -> State {
    deployment.daemon.control().state().borrow().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_is_told_with_its_source() {
    let deployment = notes().await;
    let settings = deployment.daemon.control().config().await.unwrap();
    let source = |name: &str| {
        let setting = settings.iter().find(|it| it.name == name).unwrap();
        let file = deployment.files.config.display().to_string();
        (setting.value.clone(), setting.source.replace(&file, "FILE"))
    };
    let is = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    let text = fs::read_to_string(&deployment.files.config).unwrap();
    let line = |of: &str| text.lines().position(|line| line == of).unwrap() + 1;
    let drain = format!("FILE:{}", line("[drain]") + 1);
    assert_eq!(source("drain.seconds"), is("0", &drain));
    assert_eq!(source("window.seconds"), is("60", "default"));
    let table = format!("FILE:{}", line("name = 'public.notes'"));
    assert_eq!(source("table.0.name"), is("public.notes", &table));
    let secret = deployment.files.secret.display().to_string();
    assert_eq!(source("auth.keys.0.secret_file").0, secret);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_mistakes_changes_nothing_and_all_of_them_are_told() {
    let deployment = notes().await;
    let control = deployment.daemon.control();
    let before = control.config().await.unwrap();
    edit(&deployment, "open = true", "policy = 'id = = 1'\nopne = true");
    let Err(ControlError::Refused { mistakes }) = control.reload().await else {
        panic!("it was reloaded")
    };
    let [policy, key] = mistakes.as_slice() else { panic!("{mistakes:?}") };
    assert!(policy.contains(":1: table.0.policy = \"id = = 1\""), "{policy}");
    assert!(key.contains("did you mean table[].open?"), "{key}");
    assert_eq!(control.config().await.unwrap(), before);
    let failed = state(&deployment).reload_failed.unwrap();
    assert!(failed.contains("table[].open"), "{failed}");

    edit(&deployment, "policy = 'id = = 1'\nopne = true", "open = true");
    assert_eq!(control.reload().await.unwrap().changes, []);
    assert_eq!(state(&deployment), State { reloads: 1, reloads_refused: 1, ..State::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_to_rest_and_to_stop_are_passed_on() {
    let deployment = notes().await;
    let control = deployment.daemon.control();
    control.pause().await.unwrap();
    assert!(state(&deployment).paused);
    control.resume().await.unwrap();
    control.drain().await.unwrap();
    control.shutdown().await.unwrap();
    control.drain().await.unwrap();
    let stop = Some(walcast::control::Stop::Now);
    assert_eq!(state(&deployment), State { stop, ..State::default() });
    deployment.daemon.stop().await;
    assert_eq!(control.reload().await, Err(ControlError::Stopping));
}

async fn reload(deployment: &Deployment) -> Reloaded {
    deployment.daemon.control().reload().await.unwrap()
}

fn change(name: &str, old: Option<&str>, new: Option<&str>, applied: bool) -> Change {
    let text = |it: Option<&str>| it.map(str::to_owned);
    Change { name: name.to_owned(), old: text(old), new: text(new), applied }
}

async fn insert(deployment: &Deployment, ids: Range<i32>) {
    for id in ids {
        let insert = "INSERT INTO notes VALUES ($1, $1 % 2)";
        deployment.sql.execute(insert, &[&id]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_subscriptions_follow_another_policy() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, half int); \
                  CREATE TABLE other (id int PRIMARY KEY)";
    let tables = "[[table]]\nname = 'public.notes'\npolicy = 'half = 1'\n\
                  [[table]]\nname = 'public.other'\nopen = true\n";
    let deployment = Deployment::start(Plan { schema, tables, ..Plan::default() }).await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes"})).await;
    client.subscribed(json!({"id": "o", "table": "other"})).await;
    insert(&deployment, 0..4).await;
    assert_eq!(client.rows(2, "id").await, ["insert 1", "insert 3"]);

    edit(&deployment, "half = 1", "half = 0");
    let expected = change("table.0.policy", Some("half = 1"), Some("half = 0"), true);
    assert_eq!(reload(&deployment).await.changes, [expected]);
    insert(&deployment, 4..8).await;
    assert_eq!(client.rows(2, "id").await, ["insert 4", "insert 6"]);

    // A table that is closed ends its subscriptions and no others.
    edit(&deployment, "name = 'public.other'", "name = 'public.nothing'");
    reload(&deployment).await;
    let ended = client.expect("error").await;
    assert_eq!((&ended["id"], &ended["code"]), (&json!("o"), &json!("table_closed")), "{ended}");
    insert(&deployment, 8..10).await;
    assert_eq!(client.rows(1, "id").await, ["insert 8"]);
    edit(&deployment, "name = 'public.nothing'", "name = 'public.other'");
    reload(&deployment).await;
    client.subscribed(json!({"id": "o", "table": "other"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_while_clients_stay() {
    let deployment = notes().await;
    let old = deployment.token(json!({"sub": "ann"}));
    let url = |token: &str| format!("{}?token={token}", deployment.url());
    let mut ann = Client::connect(&url(&old)).await;
    ann.subscribed(json!({"id": "n", "table": "notes"})).await;

    let secret = "another secret of the tests, as long as the first one";
    fs::write(&deployment.files.secret, secret).unwrap();
    let name = "auth.keys.0.secret_file";
    let changes = reload(&deployment).await.changes;
    assert_eq!(changes, [change(name, Some("(file)"), Some("(file)"), true)]);
    let told = format!("{changes:?}{:?}", deployment.daemon.control().config().await.unwrap());
    assert!(!told.contains("another secret") && !told.contains("tests, of"), "{told}");

    let refused = tokio_tungstenite::connect_async(url(&old)).await.unwrap_err();
    assert!(refused.to_string().contains("401"), "{refused}");
    // The secret that the helper signs with is the old one.
    let claims = json!({"sub": "ann", "role": deployment.role, "exp": 4_102_444_800_u64});
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let new = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let mut again = Client::connect(&url(&new)).await;
    again.subscribed(json!({"id": "n", "table": "notes"})).await;
    ann.send(json!({"type": "auth", "token": old})).await;
    assert_eq!(ann.expect("error").await["code"], "bad_token");
    ann.send(json!({"type": "auth", "token": new})).await;
    ann.expect("authenticated").await;
    deployment.execute(&["INSERT INTO notes VALUES (1)"]).await;
    assert_eq!(ann.rows(1, "id").await, ["insert 1"]);
    assert_eq!(again.rows(1, "id").await, ["insert 1"]);

    // A file that holds no key changes nothing.
    fs::write(&deployment.files.secret, "short").unwrap();
    let refused = deployment.daemon.control().reload().await.unwrap_err();
    assert!(refused.to_string().contains("shorter than 32 bytes"), "{refused}");
    fs::write(&deployment.files.secret, SECRET).unwrap();
    Client::connect(&url(&new)).await;
    reload(&deployment).await;
    Client::connect(&url(&old)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_roles_hold_from_now_on_and_the_rest_waits_for_the_next_start() {
    let deployment = notes().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": 1, "table": "notes"})).await;
    client.subscribed(json!({"id": 2, "table": "notes"})).await;
    let (from, role) = (format!("roles = ['{}']", deployment.role), "postgres");
    edit(&deployment, &from, &format!("roles = ['{}', '{role}']", deployment.role));
    edit(&deployment, "[limits]", "[limits]\nsubscriptions_per_session = 1");
    edit(&deployment, "[drain]", "[console]\nidle_seconds = 9\n[drain]");
    let roles = format!("{},{role}", deployment.role);
    let expected = [
        change("auth.roles", Some(&deployment.role), Some(&roles), true),
        change("console.idle_seconds", Some("3600"), Some("9"), false),
        change("limits.subscriptions_per_session", Some("100"), Some("1"), true),
    ];
    assert_eq!(reload(&deployment).await.changes, expected);

    // What is there stays; what comes is bounded.
    let refused = client.subscribe(json!({"id": 3, "table": "notes"})).await;
    assert_eq!(refused["code"], "too_many_subscriptions", "{refused}");
    let mut other = deployment.client_with(json!({"role": role})).await;
    other.subscribed(json!({"id": 1, "table": "notes"})).await;
    assert_eq!(
        other.subscribe(json!({"id": 2, "table": "notes"})).await["code"],
        "too_many_subscriptions"
    );
    deployment.execute(&["INSERT INTO notes VALUES (1)"]).await;
    assert_eq!(client.rows(2, "id").await, ["insert 1", "insert 1"]);
    assert_eq!(other.rows(1, "id").await, ["insert 1"]);

    // It is said again until it holds.
    let waiting = reload(&deployment).await.changes;
    assert_eq!(waiting, [change("console.idle_seconds", Some("3600"), Some("9"), false)]);
    let settings = deployment.daemon.control().config().await.unwrap();
    let idle = settings.iter().find(|it| it.name == "console.idle_seconds").unwrap();
    assert_eq!((idle.value.as_str(), idle.reloadable), ("3600", false));
}

/// Reads rows until the last one, and gives their numbers.
async fn read(mut client: Client, last: i32) -> Vec<i32> {
    let mut ids = Vec::new();
    while ids.last() != Some(&last) {
        let row = client.row().await;
        ids.push(row["new"]["id"].as_i64().unwrap().try_into().unwrap());
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_drop_nobody_and_lose_nothing() {
    const ROWS: i32 = 1500;
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, half int)";
    let tables = "[[table]]\nname = 'public.notes'\npolicy = 'half < 10'\n";
    let set = &["listen.shards=2"];
    let deployment = Deployment::start(Plan { schema, tables, set, ..Plan::default() }).await;
    let mut readers = JoinSet::new();
    for _ in 0..12 {
        let mut client = deployment.client().await;
        client.subscribed(json!({"id": "n", "table": "notes"})).await;
        readers.spawn(read(client, ROWS - 1));
    }
    let (progress, mut written) = watch::channel(0);
    let writing = async {
        for id in 0..ROWS {
            insert(&deployment, id..id + 1).await;
            progress.send_replace(id);
        }
    };
    let reloading = async {
        for round in 0..14 {
            written.wait_for(|id| *id >= round * 100).await.unwrap();
            let policy = |bound: i32| format!("half < {bound}");
            edit(&deployment, &policy(10 + round), &policy(11 + round));
            let drain = |seconds: i32| format!("[drain]\nseconds = {seconds}\n");
            edit(&deployment, &drain(round), &drain(round + 1));
            assert_eq!(reload(&deployment).await.changes.len(), 2);
        }
    };
    tokio::join!(writing, reloading);
    while let Some(ids) = timeout(DEADLINE, readers.join_next()).await.unwrap() {
        assert_eq!(ids.unwrap(), (0..ROWS).collect::<Vec<_>>());
    }
    assert_eq!(state(&deployment).reloads, 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_and_kept_is_changed_while_clients_follow() {
    let deployment = notes().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes"})).await;
    let mut log = deployment.daemon.wal();
    let more = "[window]\nbytes = 7000000\nseconds = 5\n[ring]\nbytes_max = 2097152\nseconds_max = 30\n\
                [wal]\nwarn_bytes = 11\nbudget_bytes = 40000000\n[database]\n";
    edit(&deployment, "[database]\n", more);
    let changes = reload(&deployment).await.changes;
    assert_eq!(changes.len(), 6, "{changes:?}");
    assert!(changes.iter().all(|change| change.applied), "{changes:?}");

    let warned = log.wait_for(|report| report.bounds.warn_bytes == 11);
    let report = timeout(DEADLINE, warned).await.unwrap().unwrap().clone();
    assert_eq!(report.bounds.budget_bytes, 40_000_000);
    let held = async {
        while deployment.daemon.metrics().ingest.window_bytes.get() != 7_000_000 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, held).await.unwrap();
    deployment.execute(&["INSERT INTO notes VALUES (1, 'a')"]).await;
    assert_eq!(client.rows(1, "id").await, ["insert 1"]);
    let rings = deployment.daemon.inspector().rings().await.unwrap();
    assert!(rings.iter().all(|(_, ring)| (ring.bytes_max, ring.seconds_max) == (2 << 20, 30)));
    // Kept in the ring that is there: a client reads on from before the reload.
    assert_eq!(rings.iter().map(|(_, ring)| ring.transactions).max(), Some(1));

    // A quarter of a smaller budget.
    edit(&deployment, "budget_bytes = 40000000", "budget_bytes = 4000000");
    reload(&deployment).await;
    let held = async {
        while deployment.daemon.metrics().ingest.window_bytes.get() != 1_000_000 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, held).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_watched_is_read_again_when_another_takes_its_name() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, half int)";
    let tables = "[[table]]\nname = 'public.notes'\npolicy = 'half = 1'\n";
    let set = &["reload.watch=true"];
    let deployment = Deployment::start(Plan { schema, tables, set, ..Plan::default() }).await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes"})).await;
    let mut state = deployment.daemon.control().state();
    let text = fs::read_to_string(&deployment.files.config).unwrap();
    let other = deployment.files.config.with_extension("new");
    let replace = |text: &str| {
        fs::write(&other, text).unwrap();
        fs::rename(&other, &deployment.files.config).unwrap();
    };
    replace(&text.replace("half = 1", "half = 0"));
    timeout(DEADLINE, state.wait_for(|state| state.reloads > 0)).await.unwrap().unwrap();
    insert(&deployment, 0..4).await;
    assert_eq!(client.rows(2, "id").await, ["insert 0", "insert 2"]);
    replace(&text.replace("half = 1", "half = ="));
    let refused = |state: &State| state.reload_failed.is_some();
    timeout(DEADLINE, state.wait_for(refused)).await.unwrap().unwrap();
}

//! A daemon that is started while its database is down waits for it, and says so; what no waiting
//! mends ends it at once.

use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::net::UnixDatagram;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::Stop;
use walcast::daemon::Daemon;
use walcast::ingest::State;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::program::Folder;
use crate::program::printed;
use crate::program::run;
use crate::program::walcast;
use crate::support;
use crate::support::Database;

const SCHEMA: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
const TABLES: &str = "[[table]]\nname = 'public.notes'\nopen = true\n";

/// A server of the test's own, which goes with the process.
fn server() -> &'static PrivateServer {
    Box::leak(Box::new(support::server()))
}

async fn stop(server: &'static PrivateServer) {
    spawn_blocking(|| server.stop(Stop::Fast)).await.unwrap().unwrap();
}

async fn start(server: &'static PrivateServer) {
    spawn_blocking(|| server.start_again()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_comes_before_its_database_waits_for_it_and_goes_on_from_the_cursor() {
    let server = server();
    let database = Database { server, name: "postgres".to_owned() };
    let plan = Plan { schema: SCHEMA, tables: TABLES, ..Plan::default() };
    let deployment = Deployment::on(database, plan).await;
    let mut client = deployment.client().await;
    let subscribed = client.subscribed(json!({"id": "n", "table": "notes"})).await;
    deployment.execute(&["INSERT INTO notes VALUES (1, 'before')"]).await;
    client.row().await;
    let config = deployment.config.clone();
    deployment.daemon.stop().await;
    stop(server).await;

    let mut daemon = Daemon::start(&config).unwrap();
    let mut standing = daemon.standing();
    let waiting = standing.wait_for(|it| matches!(it.state, State::WaitingForDatabase { .. }));
    let waiting = timeout(DEADLINE, waiting).await.unwrap().unwrap().clone();
    let why = waiting.state.why().unwrap().to_owned();
    assert!(why.starts_with("connecting as the asking role: "), "{why}");

    start(server).await;
    timeout(DEADLINE, daemon.live()).await.unwrap().unwrap();
    let url = format!("ws://{}/v1/ws", daemon.address());
    let mut client = crate::deployment::Client::connect(&url).await;
    let since = &subscribed["cursor"];
    client.subscribed(json!({"id": "n", "table": "notes", "since": since})).await;
    assert_eq!(client.row().await["new"]["body"], "before");
    assert!(standing.borrow().state.is_streaming());
    daemon.stop().await;
}

/// A configuration for a database; `connection` is its connection string.
fn configuration(folder: &Folder, connection: &str) -> String {
    let text = format!(
        "[database]\nurl = '{connection}'\n[admin]\naddress = '127.0.0.1:0'\n[listen]\naddress = '127.0.0.1:0'\n\
         [auth]\nroles = ['web']\nanonymous_role = 'web'\n{TABLES}"
    );
    folder.write("walcast.toml", text).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_is_told_to_systemd_once_to_the_log_and_a_stop_ends_it() {
    let folder = Folder::new();
    let port = walcast::cli::demo::postgres::free_port().unwrap();
    let nobody = format!("host=127.0.0.1 port={port} user=postgres dbname=app sslmode=disable");
    let config = configuration(&folder, &nobody);
    let notified = UnixDatagram::bind(folder.path("notify")).unwrap();
    let mut command =
        walcast(&["serve", "--config", &config, "--log", "info,walcast::daemon=debug"]);
    command.env("NOTIFY_SOCKET", folder.path("notify")).stderr(Stdio::piped());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let mut buffer = [0; 512];
    loop {
        let length = timeout(DEADLINE, notified.recv(&mut buffer)).await.unwrap().unwrap();
        let told = str::from_utf8(&buffer[..length]).unwrap();
        assert!(told.contains("EXTEND_TIMEOUT_USEC="), "{told}");
        assert!(!told.contains("READY=1"), "{told}");
        if told.contains("STATUS=not ready: the daemon starts, waiting for the database: connecting as the asking role") {
            break;
        }
    }
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut said, mut tried) = (0, 0);
    while let Some(line) = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap() {
        said += usize::from(line.contains("stream: waiting for the database"));
        tried += usize::from(line.contains("trying again in"));
        if tried == 3 {
            let pid = child.id().unwrap().to_string();
            let killed = tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await;
            assert!(killed.unwrap().success());
        }
    }
    assert_eq!(said, 1, "a wait is logged once");
    assert_eq!(timeout(DEADLINE, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_waiting_mends_is_said_at_once() {
    let database = support::database().await;
    let sql = database.connect().await;
    sql.batch_execute("CREATE ROLE may_not LOGIN").await.unwrap();
    let folder = Folder::new();
    let server = database.server;
    let good = database.connection_string();
    let weak = server.connection_string_as("may_not", &database.name);
    for (connection, slot, expected) in [
        (server.connection_string("nowhere"), "true", "database \"nowhere\" does not exist"),
        (
            server.connection_string_as("nobody", &database.name),
            "true",
            "\"nobody\" does not exist",
        ),
        (weak, "true", "42501"),
        (good.clone(), "true", "publication walcast does not exist"),
        (good, "false", "replication slot walcast does not exist"),
    ] {
        if slot == "false" {
            sql.batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES").await.unwrap();
        }
        let config = configuration(&folder, &connection);
        let set = format!("database.create_slot={slot}");
        let output = spawn_blocking(move || run(&["serve", "--config", &config, "--set", &set]));
        let output = timeout(DEADLINE, output).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        assert!(printed(&output).contains(expected), "{expected}: {}", printed(&output));
    }
}

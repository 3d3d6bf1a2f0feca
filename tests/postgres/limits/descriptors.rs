//! A process without descriptors: those that are there are served, operators are, and who comes later
//! is, too, when somebody has gone.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::commands::Company;
use crate::commands::Running;
use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::http::Http;

/// Descriptors that the daemon may have.
const FILES: usize = 140;

/// A daemon with few descriptors, and its address. Operators come to a socket that it is handed.
async fn serve(company: &Company, operators: &TcpListener, set: &[&str]) -> (Running, String) {
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("LISTEN_FDNAMES", "admin").stdin(OwnedFd::from(operators.try_clone().unwrap()));
    let script = format!(
        "ulimit -n {FILES} && LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null"
    );
    command.args(["-c", &script, env!("CARGO_BIN_EXE_walcast"), "serve"]);
    command.args(["--config", &company.config()]);
    for set in ["listen.address=127.0.0.1:0", "listen.shards=1"].iter().chain(set) {
        command.args(["--set", set]);
    }
    let mut daemon = Running::spawn(command);
    let line = daemon.says("accepting clients").await;
    let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap();
    (daemon, address.to_owned())
}

#[tokio::test]
async fn without_descriptors_those_that_are_there_are_served_and_others_wait() {
    let company = Company::new().await;
    let operators = TcpListener::bind("127.0.0.1:0").unwrap();
    // Nobody is cut off meanwhile for asking nothing.
    let set = ["limits.connections=100000", "limits.handshake_seconds=300"];
    let (mut daemon, address) = serve(&company, &operators, &set).await;
    let url = format!("ws://{address}/v1/ws");
    let mut there = Client::connect(&url).await;
    there.subscribed(json!({"id": "o", "table": "orders"})).await;
    let mut crowd = Vec::new();
    for _ in 0..FILES + 40 {
        crowd.push(TcpStream::connect(&address).await.unwrap());
    }
    let line = daemon.says("connections can't be accepted").await;
    assert!(line.contains("Too many open files"), "{line}");
    let operators = operators.local_addr().unwrap();
    let mut monitor = Http::connect(operators).await;
    // Oftener than descriptors are kept for operators.
    for id in 0..12 {
        company.execute(&[&format!("INSERT INTO orders VALUES ({id}, 'ann', 'new')")]).await;
        assert_eq!(there.rows(1, "id").await, [format!("insert {id}")]);
        for path in ["/healthz", "/readyz", "/metrics"] {
            ask(operators, path).await;
        }
        // One who waits would have had a descriptor by then that an operator gave back.
        let before = failed_accepts(&mut monitor).await;
        let again = async { while failed_accepts(&mut monitor).await == before {} };
        timeout(DEADLINE, again).await.unwrap();
    }
    // One that comes now waits, and has its turn when others have gone.
    let (mut late, ()) = tokio::join!(Client::connect(&url), async { drop(crowd) });
    daemon.says("connections are accepted again").await;
    late.subscribed(json!({"id": "o", "table": "orders"})).await;
    company.execute(&["INSERT INTO orders VALUES (100, 'ann', 'new')"]).await;
    assert_eq!(late.rows(1, "id").await, ["insert 100"]);
    assert_eq!(there.rows(1, "id").await, ["insert 100"]);
}

/// Asks as monitoring does, on a connection of its own.
async fn ask(operators: SocketAddr, path: &str) {
    let mut http = timeout(DEADLINE, Http::connect(operators)).await.unwrap();
    let (status, text) = timeout(DEADLINE, http.text(path)).await.unwrap();
    assert_eq!(status.as_u16(), 200, "{path}: {text}");
    if path == "/metrics" {
        assert_eq!(value(&text, "process_max_fds "), FILES);
        // Operators have the rest.
        assert!(value(&text, "process_open_fds ") > FILES - 10, "{text}");
        assert!(value(&text, "process_threads ") > 1);
    }
}

/// How often a client could not be accepted.
async fn failed_accepts(monitor: &mut Http) -> usize {
    let (_, text) = timeout(DEADLINE, monitor.text("/metrics")).await.unwrap();
    value(&text, "walcast_refused_total{code=\"accept_failed\"} ")
}

fn value(metrics: &str, name: &str) -> usize {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    value.parse().unwrap()
}

#[tokio::test]
async fn by_default_there_are_descriptors_left_for_everything_else() {
    let company = Company::new().await;
    // Nobody is cut off meanwhile for asking nothing more.
    let operators = TcpListener::bind("127.0.0.1:0").unwrap();
    let set = ["limits.handshake_seconds=300"];
    let (_daemon, address) = serve(&company, &operators, &set).await;
    let mut crowd = Vec::new();
    let answer = loop {
        // Each is let in when it is answered, and turned away when that is 503.
        let mut http = Http::connect(address.parse().unwrap()).await;
        let answer = timeout(DEADLINE, http.get("/v1/nothing", &[])).await.unwrap();
        if answer.status.as_u16() == 503 {
            break answer;
        }
        crowd.push(http);
        assert!(crowd.len() < FILES, "all descriptors are given to clients");
    };
    assert_eq!(answer.json["code"], "too_many_connections");
    assert_eq!(crowd.len(), FILES - 64);
    // Rows are read from the database by connections of their own.
    let rows = crowd[0].get("/v1/rows?table=orders", &[]).await;
    assert_eq!(rows.status.as_u16(), 200, "{}", rows.json);
}

//! A process without descriptors: those that are there are served, and who comes later is, too, when
//! somebody has gone.

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

/// A daemon with few descriptors, and its address.
async fn serve(company: &Company, set: &[&str]) -> (Running, String) {
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let script = format!("ulimit -n {FILES} && exec \"$0\" \"$@\"");
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
    let (mut daemon, address) = serve(&company, &["limits.connections=100000"]).await;
    let url = format!("ws://{address}/v1/ws");
    let mut there = Client::connect(&url).await;
    there.subscribed(json!({"id": "o", "table": "orders"})).await;
    let mut crowd = Vec::new();
    for _ in 0..FILES + 20 {
        crowd.push(TcpStream::connect(&address).await.unwrap());
    }
    let line = daemon.says("connections can't be accepted").await;
    assert!(line.contains("Too many open files"), "{line}");
    for id in 0..20 {
        company.execute(&[&format!("INSERT INTO orders VALUES ({id}, 'ann', 'new')")]).await;
        assert_eq!(there.rows(1, "id").await, [format!("insert {id}")]);
    }
    // One that comes now waits, and has its turn when others have gone.
    let (mut late, ()) = tokio::join!(Client::connect(&url), async { drop(crowd) });
    daemon.says("connections are accepted again").await;
    late.subscribed(json!({"id": "o", "table": "orders"})).await;
    company.execute(&["INSERT INTO orders VALUES (100, 'ann', 'new')"]).await;
    assert_eq!(late.rows(1, "id").await, ["insert 100"]);
    assert_eq!(there.rows(1, "id").await, ["insert 100"]);
}

#[tokio::test]
async fn by_default_there_are_descriptors_left_for_everything_else() {
    let company = Company::new().await;
    // Nobody is cut off meanwhile for asking nothing more.
    let (_daemon, address) = serve(&company, &["limits.handshake_seconds=300"]).await;
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

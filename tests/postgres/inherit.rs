//! Sockets that systemd holds: clients that come before the start and during a restart wait, and
//! are served by the next process.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::commands::Company;
use crate::commands::Running;
use crate::deployment::Client;
use crate::program::walcast;

/// Starts the daemon as systemd does: the socket is descriptor 3, and the environment says so.
fn serve(company: &Company, name: &str, socket: impl Into<OwnedFd>) -> Running {
    let program = walcast(&[]);
    // What a child gets beyond its first three descriptors is for a shell to say.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --config \"$1\" \
                  --set listen.shards=2 3<&0 </dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program.get_program()).arg(company.config());
    command.env_remove("NOTIFY_SOCKET").env("LISTEN_FDNAMES", name).stdin(socket.into());
    Running::spawn(command)
}

/// A client that connects now; it is there when somebody serves it.
#[expect(clippy::disallowed_methods, reason = "the test waits for the task")]
fn connect(socket: &TcpListener) -> JoinHandle<Client> {
    let url = format!("ws://{}/v1/ws", socket.local_addr().unwrap());
    tokio::spawn(async move { Client::connect(&url).await })
}

#[tokio::test]
async fn who_comes_while_no_daemon_runs_is_served_by_the_next() {
    let company = Company::new().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let early = connect(&socket);
    let mut daemon = serve(&company, "public", socket.try_clone().unwrap());
    let says = daemon.says("accepting clients").await;
    assert!(says.contains(&socket.local_addr().unwrap().to_string()), "{says}");
    let mut early = early.await.unwrap();
    let first = early.subscribed(json!({"id": "o", "table": "orders"})).await;

    daemon.signal("-TERM").await;
    assert_eq!(early.closed().await, 1012);
    assert!(daemon.ended().await.success());
    company.execute(&["INSERT INTO orders VALUES (1, 'ann', 'new')"]).await;
    let waiting = connect(&socket);
    let mut more: Vec<_> = (0..8).map(|_| connect(&socket)).collect();

    let _next = serve(&company, "public", socket.try_clone().unwrap());
    let mut client = waiting.await.unwrap();
    client.subscribed(json!({"id": "o", "table": "orders", "since": first["cursor"]})).await;
    assert_eq!(client.row().await["new"]["id"], 1);
    for client in more.drain(..) {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_socket_that_is_a_path_is_refused_and_one_without_a_meaning_is_named() {
    let company = Company::new().await;
    let path = company.folder.path("socket");
    let mut daemon = serve(&company, "public", UnixListener::bind(&path).unwrap());
    daemon.says("systemd's socket `public` is a path").await;
    assert_eq!(daemon.ended().await.code(), Some(1));

    let mut daemon = serve(&company, "publik", TcpListener::bind("127.0.0.1:0").unwrap());
    let says = daemon.says("a name that means nothing here").await;
    assert!(says.contains("publik"), "{says}");
    daemon.says("accepting clients").await;
}

//! What waits for a client that does not read, when its token is over.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use walcast::tls::Verify;
use walcast::tls::client_config;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::http::Http;
use crate::tokens::notes;

/// Rows of 100 kB: more than the system, TLS, hyper and the outbox hold together.
const ROWS: usize = 160;
/// Questions that are answered one after the other, each of which gives every task of the shard its
/// turn: after them the stream has handed on what is taken from it.
const TURNS: usize = 400;

/// A socket that takes in little.
async fn dial(deployment: &Deployment) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    timeout(DEADLINE, socket.connect(deployment.daemon.address())).await.unwrap().unwrap()
}

/// Ann does not read her stream while her notes are written; then the key of her token is taken
/// away. Returns what she reads after that.
async fn rest_of<S>(deployment: &Deployment, [mut stream, probe, quiet]: [S; 3]) -> Vec<u8>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let token = deployment.token(json!({"sub": "ann"}));
    let request = format!(
        "GET /v1/events?table=notes HTTP/1.1\r\nhost: walcast\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !String::from_utf8_lossy(&head).contains("\"type\":\"subscribed\"") {
        let read = timeout(DEADLINE, stream.read_buf(&mut head)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&head));
    }
    let head = String::from_utf8(head).unwrap();
    let since = head.split("\"cursor\":\"").nth(1).unwrap().split('"').next().unwrap();
    let path = format!("/v1/events?table=notes&where=id%3D0&token={token}");
    let mut quiet = Http::over(quiet).await.events(&path, &[]).await;
    quiet.expect("subscribed").await;
    let insert = format!(
        "INSERT INTO notes SELECT n, 'ann', repeat('x', 100000) FROM generate_series(1, {ROWS}) n"
    );
    deployment.execute(&[&insert]).await;
    let mut probe = Http::over(probe).await;
    // It is answered when the last of them is routed.
    let path =
        format!("/v1/changes?table=notes&where=id%3D{ROWS}&columns=id&since={since}&token={token}");
    assert_eq!(probe.get(&path, &[]).await.json["frames"][0]["new"]["id"], json!(ROWS));
    for _ in 0..TURNS {
        assert_eq!(probe.get("/v1/nothing", &[]).await.status.as_u16(), 404);
    }
    let config = fs::read_to_string(&deployment.files.config).unwrap();
    let config = config.replace("algorithm = 'HS256'", "algorithm = 'HS512'");
    fs::write(&deployment.files.config, config).unwrap();
    deployment.daemon.control().reload().await.unwrap();
    // Hers ends at the same look at tokens.
    quiet.expect("closed").await;
    let mut rest = Vec::new();
    // Cut off, it may end with a reset.
    let _reset = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap();
    rest
}

fn assert_cut_off(rest: &[u8]) {
    assert!(rest.len() < ROWS * 100_000, "all of it was taken at once");
    let end = String::from_utf8_lossy(&rest[rest.len().saturating_sub(200)..]);
    assert!(!end.contains("\"closed\""), "more was handed on: {end}");
    assert!(!end.ends_with("\r\n0\r\n\r\n"), "the answer has its end: {end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_read_is_cut_off_with_what_waits_for_it() {
    let deployment = notes("", &["listen.shards=1"]).await;
    let sockets = [dial(&deployment).await, dial(&deployment).await, dial(&deployment).await];
    assert_cut_off(&rest_of(&deployment, sockets).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_for_what_was_encrypted() {
    let fixture =
        |name: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(name);
    let certificate = format!("listen.tls_cert_file={}", fixture("server.pem").display());
    let key = format!("listen.tls_key_file={}", fixture("server.key").display());
    let deployment = notes("", &["listen.shards=1", &certificate, &key]).await;
    let config = client_config(Some(&fixture("ca.pem")), Verify::AuthorityAndHost).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let dial = async || connector.connect(name.clone(), dial(&deployment).await).await.unwrap();
    let sockets = [dial().await, dial().await, dial().await];
    assert_cut_off(&rest_of(&deployment, sockets).await);
}

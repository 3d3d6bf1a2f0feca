//! TLS on the public listener, by clients that people use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::Connector;
use tokio_tungstenite::client_async_tls_with_config;
use walcast::tls::Verify;
use walcast::tls::client_config;

use crate::commands::Company;
use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Http;
use crate::limits::refused;
use crate::program::walcast;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls")).join(name)
}

async fn open(set: &[&str]) -> Deployment {
    let certificate = format!("listen.tls_cert_file={}", fixture("server.pem").display());
    let key = format!("listen.tls_key_file={}", fixture("server.key").display());
    let set: Vec<&str> = [certificate.as_str(), key.as_str()].iter().chain(set).copied().collect();
    let schema = "CREATE TABLE t (id int PRIMARY KEY, text text)";
    let tables = "[[table]]\nname = 'public.t'\nopen = true\n";
    Deployment::start(Plan { schema, tables, set: &set, ..Plan::default() }).await
}

/// Believes the fixtures' authority, and speaks HTTP/1.1.
fn believing() -> ClientConfig {
    let mut config = client_config(Some(&fixture("ca.pem")), Verify::AuthorityAndHost).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

async fn shake(
    deployment: &Deployment,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(deployment.daemon.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    timeout(DEADLINE, TlsConnector::from(Arc::new(config)).connect(name, socket)).await.unwrap()
}

/// A WebSocket client; the socket takes in no more than a little at a time.
async fn client(deployment: &Deployment) -> Client {
    let address = deployment.daemon.address();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let socket = timeout(DEADLINE, socket.connect(address)).await.unwrap().unwrap();
    let url = format!("wss://localhost:{}/v1/ws", address.port());
    let connector = Connector::Rustls(Arc::new(believing()));
    let shaken = client_async_tls_with_config(url, socket, None, Some(connector));
    let (socket, _) = timeout(DEADLINE, shaken).await.unwrap().unwrap();
    let mut client = Client { socket, welcome: json!(null) };
    client.welcome = client.frame().await;
    client
}

#[tokio::test]
async fn rows_come_over_wss_whole_and_in_order_however_slowly_they_are_read() {
    let deployment = open(&["limits.outbox_bytes_max=65536"]).await;
    let mut prompt = client(&deployment).await;
    let mut slow = client(&deployment).await;
    let idle = client(&deployment).await;
    for client in [&mut prompt, &mut slow] {
        client.subscribed(json!({"id": "t", "table": "t"})).await;
    }
    // More than the socket, the records and the outbox hold: one falls behind.
    let insert =
        "INSERT INTO t SELECT g, repeat(chr(97 + g % 26), 20000) FROM generate_series(1, 200) g";
    deployment.execute(&["INSERT INTO t VALUES (0, 'small')", insert]).await;
    for reader in [&mut prompt, &mut slow] {
        for id in 0..=200 {
            let row = reader.row().await;
            assert_eq!(row["new"]["id"], id);
            if id > 0 {
                let text = row["new"]["text"].as_str().unwrap();
                let letter = char::from(b'a' + u8::try_from(id % 26).unwrap());
                assert!(text.len() == 20_000 && text.chars().all(|it| it == letter), "{id}");
            }
        }
    }
    // One that is closed in order is told so within TLS, too.
    let (reader, ()) = tokio::join!(ends(idle), deployment.daemon.stop());
    assert_eq!(reader, Some(1012));
}

/// The close code, and that the stream ends in order after it.
async fn ends(mut client: Client) -> Option<u16> {
    let mut code = None;
    while let Some(message) = timeout(DEADLINE, client.socket.next()).await.unwrap() {
        if let tungstenite::Message::Close(frame) = message.unwrap() {
            code = frame.map(|frame| frame.code.into());
        }
    }
    code
}

#[tokio::test]
async fn every_transport_is_there_over_https() {
    let deployment = open(&[]).await;
    deployment.execute(&["INSERT INTO t VALUES (1, 'one')"]).await;
    let mut http = Http::over(shake(&deployment, believing()).await.unwrap()).await;
    let rows = http.get("/v1/rows?table=t", &[]).await;
    assert_eq!(rows.json["rows"][0]["text"], "one", "{}", rows.json);
    let changes = http.get("/v1/changes?table=t", &[]).await;
    let since = changes.json["cursor"].as_str().unwrap().to_owned();
    let mut events = http.events("/v1/events?table=t", &[]).await;
    events.expect("subscribed").await;
    deployment.execute(&["INSERT INTO t VALUES (2, 'two')"]).await;
    assert_eq!(events.expect("row").await["new"]["id"], 2);
    let mut http = Http::over(shake(&deployment, believing()).await.unwrap()).await;
    let changes = http.get(&format!("/v1/changes?table=t&since={since}"), &[]).await;
    assert_eq!(changes.json["frames"][0]["new"]["id"], 2, "{}", changes.json);
}

#[tokio::test]
async fn tls_1_2_is_spoken_and_what_is_no_tls_is_cut_off_in_time() {
    let deployment = open(&["limits.handshake_seconds=1"]).await;
    let mut old = believing();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut only = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots())
        .with_no_client_auth();
    only.alpn_protocols.clone_from(&old.alpn_protocols);
    let stream = shake(&deployment, only).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let rows = Http::over(stream).await.get("/v1/rows?table=t", &[]).await;
    assert_eq!(rows.status.as_u16(), 200);

    // Who speaks HTTP/2 only, who speaks no TLS, and who says nothing.
    old.alpn_protocols = vec![b"h2".to_vec()];
    assert!(shake(&deployment, old).await.is_err());
    let mut plain = TcpStream::connect(deployment.daemon.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let silent = TcpStream::connect(deployment.daemon.address()).await.unwrap();
    for mut socket in [plain, silent] {
        let mut rest = Vec::new();
        let _reset = timeout(DEADLINE, socket.read_to_end(&mut rest)).await.unwrap();
        assert!(!rest.starts_with(b"HTTP"));
    }
    // A socket is closed before it is counted.
    let counted = async {
        while refused(&deployment, "tls_handshake") < 3 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, counted).await.unwrap();
    assert_eq!(refused(&deployment, "tls_handshake"), 3);
}

fn roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture("ca.pem")).unwrap()).unwrap();
    roots
}

#[tokio::test]
async fn who_is_one_too_many_is_told_so_within_tls() {
    let deployment = open(&["limits.connections=1"]).await;
    let _there = client(&deployment).await;
    let mut http = Http::over(shake(&deployment, believing()).await.unwrap()).await;
    let answer = http.get("/v1/rows?table=t", &[]).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json["code"]),
        (503, &json!("too_many_connections"))
    );
}

#[tokio::test]
async fn a_reload_shows_another_certificate_and_a_bad_one_is_not_shown() {
    let company = Company::new().await;
    let put = |certificate: &str, key: &str| {
        let read = |name| std::fs::read(fixture(name)).unwrap();
        company.folder.write("listen.pem", read(certificate));
        company.folder.write("listen.key", read(key));
    };
    put("server.pem", "server.key");
    let path = |name| company.folder.path(name).display().to_string();
    let (certificate, key) = (path("listen.pem"), path("listen.key"));
    let environment = [
        ("WALCAST__LISTEN__TLS_CERT_FILE", certificate.as_str()),
        ("WALCAST__LISTEN__TLS_KEY_FILE", key.as_str()),
    ];
    let (mut daemon, address) = company.serve_with("127.0.0.1:0", &environment).await;
    assert_eq!(shown(&address).await, leaf("server.pem"));
    let connected = shake_at(&address).await;

    put("server.pem", "renewed.key");
    daemon.signal("-HUP").await;
    daemon.says("the configuration was not reloaded").await;
    assert_eq!(shown(&address).await, leaf("server.pem"));

    put("renewed.pem", "renewed.key");
    daemon.signal("-HUP").await;
    let renewed = async {
        while shown(&address).await != leaf("renewed.pem") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, renewed).await.unwrap();
    // Who was connected still is.
    let rows = Http::over(connected).await.get("/v1/rows?table=orders", &[]).await;
    assert_eq!(rows.status.as_u16(), 200);
}

fn leaf(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(fixture(name)).unwrap()
}

/// A connection that believes any certificate.
async fn shake_at(address: &str) -> TlsStream<TcpStream> {
    let config = Arc::new(client_config(None, Verify::Nothing).unwrap());
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    timeout(DEADLINE, TlsConnector::from(config).connect(name, socket)).await.unwrap().unwrap()
}

/// The certificate that is shown.
async fn shown(address: &str) -> CertificateDer<'static> {
    let stream = shake_at(address).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn check_finds_what_is_wrong_with_a_certificate() {
    let company = Company::new().await;
    for (certificate, key, code, said) in [
        ("server.pem", "server.key", 0, ""),
        ("expired.pem", "expired.key", 2, "listen.tls_cert_file: the certificate has expired"),
        ("server.pem", "renewed.key", 1, "certificate and key can't be used together"),
        ("server.pem", "", 1, "a certificate needs its key"),
    ] {
        let mut command = walcast(&["check", "--config", &company.config()]);
        command.env("WALCAST__LISTEN__TLS_CERT_FILE", fixture(certificate));
        if !key.is_empty() {
            command.env("WALCAST__LISTEN__TLS_KEY_FILE", fixture(key));
        }
        let output = command.output().unwrap();
        let text = crate::program::printed(&output);
        assert!(text.contains(said), "{text}");
        if code == 1 {
            assert_eq!(output.status.code(), Some(1), "{text}");
        }
    }
}

/// What a user of Node writes: `ws` for the WebSocket.
const NODE: &str = r#"
const WebSocket = require("ws");
const socket = new WebSocket(process.argv[1], ["walcast.v1"]);
socket.on("open", () => socket.send(JSON.stringify({type: "subscribe", id: "t", table: "t", snapshot: true})));
socket.on("message", data => {
  const frame = JSON.parse(data);
  if (frame.type === "row") console.log(frame.new.text);
  if (frame.type === "synced") process.exit(0);
});
socket.on("error", error => { console.error(error); process.exit(1); });
"#;

#[tokio::test]
async fn node_s_websocket_believes_the_certificate_and_gets_rows() {
    let deployment = open(&[]).await;
    deployment.execute(&["INSERT INTO t VALUES (1, 'by node')"]).await;
    let url = format!("wss://localhost:{}/v1/ws", deployment.daemon.address().port());
    let mut node = tokio::process::Command::new("node");
    node.args(["-e", NODE, &url]).kill_on_drop(true);
    node.env("NODE_EXTRA_CA_CERTS", fixture("ca.pem")).env("NODE_PATH", "/usr/share/nodejs");
    // The name has an address of IPv6, too, where nobody listens.
    node.env("NODE_OPTIONS", "--dns-result-order=ipv4first");
    let output = timeout(DEADLINE, node.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "by node", "{said}");
}

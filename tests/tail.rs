//! The terminal's client against a daemon that misbehaves on purpose, and the commands as they are
//! typed. What a real daemon sends is checked where there is one (`tests/postgres`).
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::large_futures, reason = "a test has a stack of its own")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use walcast::cli::tail::client::{Client, ClientError, Progress, Settings, TokenSource};
use walcast::cli::tail::frame::Content;
use walcast::logging;

const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0LWNsYWltcw.c2lnbmF0dXJl";
const SUBSCRIBED: &str = r#"{"type":"subscribed","id":"tail","cursor":"c0","columns":[{"name":"id","type":"int8"}],"key":["id"]}"#;

/// One side of a connection, the daemon's.
struct Daemon {
    listener: TcpListener,
    socket: Option<WebSocketStream<TcpStream>>,
}

impl Daemon {
    async fn new() -> Daemon {
        Daemon { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), socket: None }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.listener.local_addr().unwrap())
    }

    async fn accept(&mut self) {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's callback has this shape")]
        let answer = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/v1/ws");
            let protocol = request.headers().get("sec-websocket-protocol").unwrap();
            assert_eq!(protocol, "walcast.v1");
            response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
            Ok(response)
        };
        let accepted = tokio_tungstenite::accept_hdr_async(stream, answer).await.unwrap();
        self.socket = Some(accepted);
    }

    async fn request(&mut self) -> Value {
        let message = within(self.socket.as_mut().unwrap().next()).await.unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    async fn send(&mut self, text: &str) {
        self.socket.as_mut().unwrap().send(Message::text(text)).await.unwrap();
    }

    async fn row(&mut self, number: u32) {
        self.send(&format!(
            r#"{{"type":"row","id":"tail","op":"insert","new":{{"id":{number}}},"cursor":"c{number}"}}"#
        ))
        .await;
    }

    async fn close(&mut self, code: u16, reason: &str) {
        let close = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.socket.take().unwrap().close(Some(close)).await.unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap()
}

fn settings(url: String) -> Settings {
    Settings {
        url,
        token: TokenSource::Text(TOKEN.to_owned()),
        table: "orders".to_owned(),
        condition: Some("id > 1".to_owned()),
        filter: None,
        columns: vec!["id".to_owned()],
        events: Vec::new(),
        since: None,
        snapshot: false,
    }
}

/// What the client saw, shortly, up to the first thing that `until` is in.
async fn seen(client: &mut Client, until: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let what = match within(client.next()).await.unwrap() {
            Progress::Connected => "connected".to_owned(),
            Progress::Waiting { .. } => "waiting".to_owned(),
            Progress::Frame(frame) => match frame.content {
                Content::Row(row) => format!("row {}", row.new.unwrap().get("id").unwrap()),
                other => format!("{other:?}").split([' ', '{']).next().unwrap().to_owned(),
            },
        };
        seen.push(what);
        if seen.last().unwrap() == until {
            return seen;
        }
    }
}

#[tokio::test]
async fn a_lost_connection_is_taken_up_at_the_last_cursor() {
    let mut daemon = Daemon::new().await;
    let mut client = Client::new(settings(daemon.url())).unwrap();
    let script = async {
        daemon.accept().await;
        let first = [daemon.request().await, daemon.request().await];
        daemon.send(r#"{"type":"welcome","ping_seconds":25,"version":"9.9","new":[1]}"#).await;
        daemon.send(r#"{"type":"something_new","id":"tail"}"#).await;
        daemon.send(SUBSCRIBED).await;
        daemon.row(1).await;
        daemon.row(2).await;
        // Without a word, as when a cable is pulled.
        daemon.socket = None;
        daemon.accept().await;
        let second = [daemon.request().await, daemon.request().await];
        daemon.send(SUBSCRIBED).await;
        daemon.send(r#"{"type":"heartbeat","cursor":"c7"}"#).await;
        daemon.send(r#"{"type":"restart","cursor":"c8","retry_ms":1}"#).await;
        daemon.close(1012, "restart").await;
        daemon.accept().await;
        let third = [daemon.request().await, daemon.request().await];
        daemon.send(r#"{"type":"resync","id":"tail","reason":"too_old","cursor":"c9"}"#).await;
        daemon.row(10).await;
        [first, second, third]
    };
    let (requests, seen) = tokio::join!(script, seen(&mut client, "row 10"));
    let expected = [
        "connected",
        "Welcome",
        "Other",
        "Subscribed",
        "row 1",
        "row 2",
        "waiting",
        "connected",
        "Subscribed",
        "Heartbeat",
        "Restart",
        "waiting",
        "connected",
        "Resync",
        "row 10",
    ];
    assert_eq!(seen, expected);
    assert_eq!(client.cursor(), Some("c10"));
    for ([auth, subscribe], since) in requests.iter().zip([None, Some("c0"), Some("c8")]) {
        assert_eq!(auth["type"], "auth");
        assert_eq!(auth["token"], TOKEN);
        assert_eq!(subscribe["type"], "subscribe");
        assert_eq!(subscribe["table"], "orders");
        assert_eq!(subscribe["where"], "id > 1");
        assert_eq!(subscribe["columns"], serde_json::json!(["id"]));
        assert!(subscribe.get("filter").is_none() && subscribe.get("events").is_none());
        // The second connection resumes after row 2, not at the position of `subscribed`.
        let since = since.map(|since| if since == "c0" { "c2" } else { since });
        assert_eq!(subscribe.get("since").and_then(Value::as_str), since);
    }
}

#[tokio::test]
async fn a_refusal_ends_it_and_is_told_without_the_token() {
    for (code, frame) in [
        (None, r#"{"type":"error","id":"tail","code":"no_table","message":"no such table"}"#),
        (None, r#"{"type":"error","code":"bad_token","message":"expired","hint":"get another"}"#),
        (Some(4401), ""),
        (Some(1008), ""),
    ] {
        let mut daemon = Daemon::new().await;
        let mut client = Client::new(settings(daemon.url())).unwrap();
        let script = async {
            daemon.accept().await;
            // Closing over unread requests would reset the connection under the close frame.
            let _requests = [daemon.request().await, daemon.request().await];
            match code {
                Some(code) => daemon.close(code, "no").await,
                None => daemon.send(frame).await,
            }
        };
        let all = async {
            assert_eq!(client.next().await.unwrap(), Progress::Connected);
            client.next().await.unwrap_err()
        };
        let ((), error) = within(async { tokio::join!(script, all) }).await;
        assert_eq!(matches!(error, ClientError::Closed { .. }), code.is_some(), "{error}");
        let shown = format!("{error} {error:?} {client:?}");
        assert!(TOKEN.split('.').all(|part| !shown.contains(part)), "{shown}");
    }
}

#[tokio::test]
async fn something_else_behind_the_address_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut client = Client::new(settings(url)).unwrap();
    let answer = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream
    };
    let (_stream, progress) = within(async { tokio::join!(answer, client.next()) }).await;
    let error = progress.unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
}

/// A log that can be read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_token_is_in_no_log_however_much_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(
            logging::filter("trace, tungstenite=trace,tungstenite::protocol=trace").unwrap(),
        )
        .with_writer(move || writer.clone())
        .finish();
    // For the whole process, because that is what bridges the crate `log`, which tungstenite uses.
    tracing_subscriber::util::SubscriberInitExt::try_init(subscriber).unwrap();
    tracing::info!("begin");
    let mut daemon = Daemon::new().await;
    let mut client = Client::new(settings(daemon.url())).unwrap();
    let script = async {
        daemon.accept().await;
        daemon.request().await;
        daemon.send(SUBSCRIBED).await;
    };
    tokio::join!(script, seen(&mut client, "Subscribed"));
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("begin"));
    assert!(logged.contains("TRACE"), "more than the lowest level is logged: {logged}");
    for part in TOKEN.split('.') {
        assert!(!logged.contains(part), "{logged}");
        let hexadecimal: String = part.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!logged.contains(&hexadecimal), "{logged}");
    }
}

fn walcast(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
    command.env_clear().envs(environment.iter().copied()).args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn check_counts_its_findings_in_the_exit_code() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let good = folder.join("good.toml");
    let text = "database.url = 'host=/x user=w'\ndatabase.ask_url = 'host=/x user=a'\n\
                auth.anonymous_role = 'v'\n[[table]]\nname = 'orders'\nopen = true\n";
    std::fs::write(&good, text).unwrap();
    let good = good.to_str().unwrap();
    let ok = walcast(&["check", "--config", good], &[]);
    assert_eq!(ok.status.code(), Some(0), "{ok:?}");

    let warned = walcast(
        &["check"],
        &[
            ("WALCAST_CONFIG", good),
            ("WALCAST__DATABASE__ASK_URL", ""),
            ("WALCAST__TABLE__0__OPEN", "true"),
        ],
    );
    assert_eq!(warned.status.code(), Some(0), "an empty variable is none: {warned:?}");

    let bad = walcast(&["check", "--config", good, "--set", "ring.bytes=1"], &[]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let text = String::from_utf8(bad.stdout).unwrap();
    assert!(text.contains("did you mean ring.bytes_max?"), "{text}");

    let missing = walcast(&["check", "--config", "/nonexistent.toml"], &[]);
    assert_eq!(missing.status.code(), Some(1));
    let text = String::from_utf8(missing.stderr).unwrap();
    assert!(text.contains("because: No such file"), "{text}");

    assert_eq!(walcast(&["check", "--offline"], &[]).status.code(), Some(2));
}

#[test]
fn token_prints_a_token_and_nothing_else() {
    let secret = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokens/secret.txt");
    let made = walcast(&["token", "--secret-file", secret, "--sub", "7", "--role", "driver"], &[]);
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap();
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let key = walcast::auth::Key {
        algorithm: "HS256".parse().unwrap(),
        kid: None,
        material: walcast::auth::Material::Secret(walcast::auth::Secret::new(
            std::fs::read_to_string(secret).unwrap().trim().as_bytes().to_vec(),
        )),
    };
    let settings = walcast::auth::Settings {
        keys: vec![key],
        roles: vec!["driver".to_owned()],
        ..walcast::auth::Settings::default()
    };
    let claims = walcast::auth::Verifier::new(settings).unwrap().verify(token.trim()).unwrap();
    assert_eq!((claims.role(), claims.subject()), ("driver", Some("7")));
}

#[test]
fn tail_shows_no_token_when_it_fails() {
    let failed = walcast(&["tail", "orders", "--token", TOKEN, "--url", "ftp://x"], &[]);
    let help = walcast(&["tail", "--help"], &[("WALCAST_TOKEN", TOKEN)]);
    assert_eq!(failed.status.code(), Some(1));
    for output in [failed, help] {
        let shown = format!("{output:?}");
        assert!(TOKEN.split('.').all(|part| !shown.contains(part)), "{shown}");
    }
}

#[tokio::test]
async fn tail_prints_rows_and_ends_after_its_count() {
    let mut daemon = Daemon::new().await;
    let url = daemon.url();
    let printed = tokio::task::spawn_blocking(move || {
        walcast(&["tail", "orders", "--count", "2", "--url", &url, "--events", "insert"], &[])
    });
    daemon.accept().await;
    let subscribe = daemon.request().await;
    assert_eq!(subscribe["events"], serde_json::json!(["insert"]));
    daemon.send(SUBSCRIBED).await;
    daemon.row(1).await;
    daemon.row(2).await;
    let output = within(printed).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "insert  id=1\ninsert  id=2\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "walcast tail: subscribed to orders\n");
}

//! Peers that vanish without a word, behind a proxy that goes half-open: idle, with an outbox that
//! nobody takes, and with requests that wait for their answers to be read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;
use tungstenite::Message;
use walcast::metrics::Metrics;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;

/// After what time a request that nobody takes is taken by nobody.
const STALLED: Duration = Duration::from_secs(1);

/// Forwards connections until it is told to do nothing any more; it closes none.
struct Proxy {
    address: SocketAddr,
    /// Whether it forwards what the daemon sends, and what clients send.
    open: watch::Sender<(bool, bool)>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn before(daemon: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel((true, true));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pipes = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(daemon).await.unwrap();
                let (client, server) = (Arc::new(client), Arc::new(server));
                let down = (Arc::clone(&server), Arc::clone(&client));
                pipes.spawn(forward(down, is_open.clone(), |open| open.0));
                pipes.spawn(forward((client, server), is_open.clone(), |open| open.1));
            }
        });
        Proxy { address, open, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.address)
    }
}

/// Copies from one connection to the other while it is open, and then holds on to both.
async fn forward(
    (from, to): (Arc<TcpStream>, Arc<TcpStream>),
    mut is_open: watch::Receiver<(bool, bool)>,
    direction: fn((bool, bool)) -> bool,
) {
    let mut buffer = [0; 4096];
    let copy = async {
        loop {
            from.readable().await.unwrap();
            let Ok(read) = from.try_read(&mut buffer) else { continue };
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                to.writable().await.unwrap();
                if let Ok(written) = to.try_write(rest) {
                    rest = &rest[written..];
                }
            }
            if read == 0 {
                return;
            }
        }
    };
    tokio::select! {
        () = copy => {}
        closed = is_open.wait_for(|open| !direction(*open)) => { closed.unwrap(); }
    }
    std::future::pending::<()>().await;
}

/// Waits until the session is gone that is there beside the healthy one.
async fn forgotten(whose: &str, metrics: &Metrics) {
    assert_eq!(metrics.sessions(), 2);
    let began = Instant::now();
    while metrics.sessions() > 1 {
        assert!(began.elapsed() < DEADLINE, "{whose} is not forgotten");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    // Three seconds of silence, at the next second. A goodbye would take three more.
    assert!(took < Duration::from_millis(5500), "{whose}: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_vanish_are_forgotten_whatever_they_were_doing() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, body text); \
                  CREATE TABLE quiet (id int PRIMARY KEY)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n\
                  [[table]]\nname = 'public.quiet'\nopen = true\n";
    let set =
        ["limits.ping_seconds=1", "limits.silence_seconds=3", "limits.outbox_bytes_max=65536"];
    let deployment = Deployment::start(Plan { schema, tables, set: &set, ..Plan::default() }).await;
    let metrics = deployment.daemon.metrics();
    let mut healthy = deployment.client().await;
    healthy.subscribed(json!({"id": "q", "table": "quiet"})).await;
    let vanish = async {
        let proxy = Proxy::before(deployment.daemon.address()).await;
        let mut idle = Client::connect(&proxy.url()).await;
        idle.subscribed(json!({"id": "q", "table": "quiet"})).await;
        proxy.open.send_replace((false, false));
        forgotten("an idle one", metrics).await;

        let proxy = Proxy::before(deployment.daemon.address()).await;
        let mut stuck = Client::connect(&proxy.url()).await;
        stuck.subscribed(json!({"id": "n", "table": "notes"})).await;
        proxy.open.send_replace((false, false));
        let insert =
            ["INSERT INTO notes SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n"];
        let insert = deployment.execute(&insert);
        tokio::join!(insert, forgotten("one with a full outbox", metrics));
        assert!(metrics.read().contains(&("fell_behind".to_owned(), 1)), "{:?}", metrics.read());

        let proxy = Proxy::before(deployment.daemon.address()).await;
        let asking = Client::connect(&proxy.url()).await;
        // Nothing comes down any more; it goes on asking until nobody takes its requests.
        proxy.open.send_replace((false, true));
        let (mut requests, _answers) = asking.socket.split();
        let request = format!(r#"{{"type":"ping","{}":1}}"#, "x".repeat(32_000));
        let mut sent = 0;
        while timeout(STALLED, requests.send(Message::text(&*request))).await.is_ok() {
            sent += 1;
            assert!(sent < 4000, "the daemon takes every request");
        }
        assert!(metrics.outbox_bytes() > 2 * 65536, "{}", metrics.outbox_bytes());
        proxy.open.send_replace((false, false));
        forgotten("one whose requests wait", metrics).await;
        assert_eq!(metrics.outbox_bytes(), 0);
    };
    // The healthy one reads, and so answers pings, all the while.
    tokio::select! {
        () = vanish => {}
        frame = healthy.frame() => panic!("{frame}"),
    }
    deployment.execute(&["INSERT INTO quiet VALUES (7)"]).await;
    assert_eq!(healthy.rows(1, "id").await, ["insert 7"]);
}

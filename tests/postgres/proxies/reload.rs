//! Every transport through a proxy, over a silence, and over the proxy's reload.

use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;
use tungstenite::Message;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Events;
use crate::proxies::Behind;
use crate::proxies::Kind;
use crate::proxies::Proxy;
use crate::proxies::fixture;

/// A client of one transport: what it saw, and from where it goes on.
#[derive(Default)]
struct Seen {
    ids: Vec<u64>,
    cursor: String,
    heartbeats: usize,
}

impl Seen {
    fn take(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "row" => self.ids.push(frame["new"]["id"].as_u64().unwrap()),
            "heartbeat" => self.heartbeats += 1,
            "subscribed" | "synced" => {}
            _ => panic!("{frame}"),
        }
        if let Some(cursor) = frame["cursor"].as_str() {
            cursor.clone_into(&mut self.cursor);
        }
    }

    /// Reads a WebSocket until enough was seen, or it ends.
    async fn websocket(&mut self, client: &mut Client, enough: impl Fn(&Seen) -> bool) {
        while !enough(self) {
            match timeout(DEADLINE, client.socket.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => self.take(&serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_))) => {}
                _ => return,
            }
        }
    }

    /// The same of an event stream.
    async fn events(&mut self, stream: &mut Events, enough: impl Fn(&Seen) -> bool) {
        while !enough(self) {
            let Some(frame) = stream.any_frame().await else { return };
            self.take(&frame);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_as_in_the_guide_carries_every_transport() {
    Box::pin(carries_every_transport(Kind::Nginx)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_as_in_the_guide_carries_every_transport() {
    Box::pin(carries_every_transport(Kind::Haproxy)).await;
}

async fn carries_every_transport(kind: Kind) {
    let deployment = Deployment::start(Plan {
        schema: "CREATE TABLE notes (id int PRIMARY KEY)",
        tables: "[[table]]\nname = 'public.notes'\nopen = true\n",
        set: &["limits.ping_seconds=1"],
        anonymous: false,
    })
    .await;
    let proxy = Proxy::start(kind, &[Behind::of(&deployment.daemon)]).await;
    let token = deployment.token(json!({}));
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let insert = async |id: u64| {
        deployment.execute(&[&format!("INSERT INTO notes VALUES ({id})")]).await;
    };

    let mut client = proxy.client(&token).await;
    client.subscribed(json!({"id": "n", "table": "notes"})).await;
    let mut stream = proxy.http().await.events("/v1/events?table=notes", &headers).await;
    stream.expect("subscribed").await;
    let (mut pushed, mut streamed) = (Seen::default(), Seen::default());

    // A poll is answered when something happens.
    let mut http = proxy.http().await;
    let polled = http.get("/v1/changes?table=notes", &headers).await.json["cursor"].clone();
    let path = format!("/v1/changes?table=notes&wait=20&since={}", polled.as_str().unwrap());
    let mut poll = pin!(http.get(&path, &headers));
    assert!(timeout(Duration::from_millis(200), &mut poll).await.is_err());
    let ((), answer) = tokio::join!(insert(1), poll);
    assert_eq!(answer.json["frames"][0]["new"]["id"], 1, "{}", answer.json);
    let polled = answer.json["cursor"].as_str().unwrap().to_owned();

    // Rows come when they are committed, and a silence longer than the proxy's patience is none.
    tokio::join!(
        pushed.websocket(&mut client, |seen| seen.ids == [1] && seen.heartbeats >= 4),
        streamed.events(&mut stream, |seen| seen.ids == [1] && seen.heartbeats >= 4),
        http_2(&proxy, &token),
        the_log_has_no_token(&proxy, &token),
    );
    for seen in [&pushed, &streamed] {
        assert_eq!(seen.ids, [1]);
        assert!(seen.heartbeats >= 4, "cut after {} heartbeats", seen.heartbeats);
    }

    // The old process ends; what happened meanwhile comes after the return.
    proxy.reload();
    insert(2).await;
    tokio::join!(pushed.websocket(&mut client, |_| false), streamed.events(&mut stream, |_| false),);
    insert(3).await;
    let mut client = proxy.client(&token).await;
    client.subscribed(json!({"id": "n", "table": "notes", "since": pushed.cursor})).await;
    let again = [("authorization", bearer.as_str()), ("last-event-id", streamed.cursor.as_str())];
    let mut stream = proxy.http().await.events("/v1/events?table=notes", &again).await;
    let mut http = proxy.http().await;
    tokio::join!(
        pushed.websocket(&mut client, |seen| seen.ids.last() == Some(&3)),
        streamed.events(&mut stream, |seen| seen.ids.last() == Some(&3)),
    );
    assert_eq!((pushed.ids, streamed.ids), (vec![1, 2, 3], vec![1, 2, 3]));
    let path = format!("/v1/changes?table=notes&since={polled}");
    let answer = http.get(&path, &headers).await;
    assert_eq!(answer.json["frames"][1]["new"]["id"], 3, "{}", answer.json);
}

/// An event stream over HTTP/2, as a browser that may would ask for it.
async fn http_2(proxy: &Proxy, token: &str) {
    let mut curl = tokio::process::Command::new("curl")
        .args(["-sNi", "--http2", "--cacert", &fixture("ca.pem")])
        .args(["-H", &format!("authorization: Bearer {token}")])
        .arg(format!("https://localhost:{}/v1/events?table=notes&snapshot=true", proxy.port))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    let first = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.trim(), "HTTP/2 200");
    loop {
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
        if line.contains(r#""type":"synced""#) {
            return;
        }
    }
}

/// What nginx logs of a request with a token in its address.
async fn the_log_has_no_token(proxy: &Proxy, token: &str) {
    let path = format!("/v1/rows?table=notes&token={token}");
    assert_eq!(proxy.http().await.get(&path, &[]).await.status, 200);
    if proxy.kind == Kind::Haproxy {
        return;
    }
    let began = Instant::now();
    loop {
        let log = std::fs::read_to_string(proxy.folder.path("access.log")).unwrap();
        assert!(!log.contains(token), "{log}");
        if log.contains("\"GET /v1/rows\" 200") {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{log}");
        sleep(Duration::from_millis(5)).await;
    }
}

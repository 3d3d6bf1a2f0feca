//! `/v1/events`.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Events;
use crate::transports::http;
use crate::transports::open;

const PATH: &str = "/v1/events?table=notes";

async fn events(deployment: &Deployment, path: &str, headers: &[(&str, &str)]) -> Events {
    http(deployment).await.events(path, headers).await
}

#[tokio::test]
async fn a_stream_has_the_frames_of_a_websocket_with_their_cursors_as_ids() {
    let deployment = open(&[]).await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "main", "table": "notes", "where": "id < 3"})).await;
    let mut stream = events(&deployment, &format!("{PATH}&where=id+%3C+3"), &[]).await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["cache-control"], "no-cache, no-transform");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    let subscribed = stream.expect("subscribed").await;
    assert_eq!(subscribed["id"], "main");
    assert_eq!(subscribed["cursor"], stream.last_id);
    assert!(stream.retry_ms.is_some_and(|retry| (1000..6000).contains(&retry)));
    deployment
        .execute(&[
            "INSERT INTO notes VALUES (1, E'a\n\ndata: b\r', '{\n\"a\":\r\n1}'), (3, 'no', null)",
            "UPDATE notes SET body = 'c' WHERE id = 1",
        ])
        .await;
    for op in ["insert", "update"] {
        let frame = stream.expect("row").await;
        assert_eq!(frame, client.row().await);
        assert_eq!(frame["op"], op);
        assert_eq!(frame["cursor"], stream.last_id);
    }
}

#[tokio::test]
async fn json_that_is_copied_with_its_line_ends_stays_in_its_event() {
    let deployment = open(&[]).await;
    let mut stream = events(&deployment, PATH, &[]).await;
    stream.expect("subscribed").await;
    let deep = format!("{}\n{}", "[".repeat(300), "]".repeat(300));
    deployment.execute(&[&format!("INSERT INTO notes VALUES (1, null, '{deep}')")]).await;
    let frame = stream.data().await.unwrap();
    assert!(frame.contains(&deep.replace('\n', " ")), "{frame}");
}

#[tokio::test]
async fn a_browser_that_comes_back_gets_what_it_missed_once() {
    let deployment = open(&["limits.ping_seconds=1", "limits.silence_seconds=30"]).await;
    let mut stream = events(&deployment, PATH, &[]).await;
    let subscribed = stream.expect("subscribed").await;
    deployment.execute(&["INSERT INTO notes VALUES (1), (2)"]).await;
    assert_eq!(stream.expect("row").await["new"]["id"], 1);
    let last_id = stream.last_id.clone();
    drop(stream);
    let mut other = deployment.client().await;
    other.subscribed(json!({"id": "n", "table": "notes"})).await;
    deployment.execute(&["INSERT INTO notes VALUES (3)"]).await;
    // Or it might come after `synced`.
    assert_eq!(other.row().await["new"]["id"], 3);
    // The address still has the cursor of the beginning.
    let path = format!("{PATH}&since={}", subscribed["cursor"].as_str().unwrap());
    let mut stream = events(&deployment, &path, &[("last-event-id", &last_id)]).await;
    assert!(stream.expect("subscribed").await["cursor"].is_null());
    let (mut ids, mut synced) = (Vec::new(), false);
    while ids.len() < 2 || !synced {
        let frame = stream.frame().await;
        assert_eq!(frame["cursor"], stream.last_id, "{frame}");
        match frame["new"]["id"].as_u64() {
            Some(id) => ids.push(id),
            // What was not routed yet when it came back follows it.
            None => synced = frame["type"] == "synced",
        }
    }
    assert_eq!(ids, [2, 3]);
    // On a quiet table the id advances by heartbeats.
    deployment.execute(&["CREATE TABLE other (id int)", "INSERT INTO other VALUES (1)"]).await;
    let before = stream.last_id.clone();
    while stream.last_id == before {
        assert_eq!(stream.any_frame().await.unwrap()["type"], "heartbeat");
    }
}

#[tokio::test]
async fn what_can_t_be_resumed_is_told() {
    let deployment = open(&[]).await;
    let mut stream = events(&deployment, &format!("{PATH}&since=7.1.2a.0"), &[]).await;
    stream.expect("subscribed").await;
    let resync = stream.expect("resync").await;
    assert_eq!(resync["reason"], "other_history");
    assert_eq!(resync["cursor"], stream.last_id);
    deployment.execute(&["INSERT INTO notes VALUES (1)"]).await;
    assert_eq!(stream.expect("row").await["new"]["id"], 1);
}

#[tokio::test]
async fn what_is_refused_is_refused_in_the_head_of_the_answer() {
    let deployment = Deployment::start(Plan {
        schema: "CREATE TABLE notes (id int PRIMARY KEY); CREATE TABLE shut (id int)",
        tables: "[[table]]\nname = 'public.notes'\nopen = true\n",
        anonymous: false,
        ..Plan::default()
    })
    .await;
    let token = format!("Bearer {}", deployment.token(json!({})));
    let headers = [("authorization", token.as_str())];
    let mut http = http(&deployment).await;
    let mut check = async |path: &str, headers: &[(&str, &str)], status: u16, code: &str| {
        let answer = http.get(path, headers).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.json);
        assert_eq!(answer.json["code"], code, "{path}: {}", answer.json);
        assert!(answer.json["message"].is_string(), "{path}: {}", answer.json);
    };
    check(PATH, &[], 401, "unauthenticated").await;
    check(&format!("{PATH}&token=x.y.z"), &[], 401, "bad_token").await;
    check("/v1/events", &headers, 400, "bad_request").await;
    check(&format!("{PATH}&wher=x"), &headers, 400, "bad_request").await;
    check(&format!("{PATH}&where=id+%3D"), &headers, 400, "bad_filter").await;
    check(&format!("{PATH}&since=x"), &headers, 400, "bad_request").await;
    check("/v1/events?table=nothing", &headers, 404, "unknown_table").await;
    check("/v1/events?table=shut", &headers, 403, "table_closed").await;
    check(&format!("{PATH}&columns=secret"), &headers, 403, "column_forbidden").await;
    let hostile = ["%", "%zz", "%ff", "a=b=c", "table=notes&table=notes", "&&=&"];
    for query in hostile {
        check(&format!("/v1/events?{query}"), &headers, 400, "bad_request").await;
    }
    let long = format!("{PATH}&where={}", "a".repeat(60_000));
    check(&long, &headers, 400, "bad_filter").await;
    // The connection is still good for a stream.
    http.events(PATH, &headers).await.expect("subscribed").await;
}

#[tokio::test]
async fn a_stream_can_be_asked_for_in_a_body() {
    let deployment = open(&["limits.request_bytes_max=1024"]).await;
    let mut http = http(&deployment).await;
    let answer = http.send("POST", "/v1/events", &[], "[1]").await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (400, &json!("bad_request")));
    let answer = http.send("POST", "/v1/events", &[], &"x".repeat(5000)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (413, &json!("bad_request")));
    let answer = http.send("DELETE", "/v1/events", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, POST"));
    let body = json!({"id": 7, "table": "notes", "columns": ["id"], "where": "id = 2"});
    let mut stream = http.events_of("/v1/events", &body.to_string()).await;
    assert_eq!(stream.expect("subscribed").await["id"], "7");
    deployment.execute(&["INSERT INTO notes VALUES (1), (2)"]).await;
    assert_eq!(stream.expect("row").await["new"], json!({"id": 2}));
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_its_subscription() {
    let deployment = open(&["auth.leeway_seconds=0"]).await;
    let token = deployment.token(json!({"exp": super::now() + 2}));
    let path = format!("{PATH}&token={token}");
    let mut stream = events(&deployment, &path, &[]).await;
    stream.expect("subscribed").await;
    let closed = stream.expect("closed").await;
    assert_eq!(closed, json!({"type": "closed", "code": 4401, "reason": "token_expired"}));
    assert_eq!(stream.any_frame().await, None);
    let answer = http(&deployment).await.get(&path, &[]).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (401, &json!("bad_token")));

    let mut stream = events(&deployment, PATH, &[]).await;
    stream.expect("subscribed").await;
    let revoke = format!("REVOKE SELECT ON notes FROM {}", deployment.role);
    deployment.execute(&[&revoke]).await;
    assert_eq!(stream.expect("error").await["code"], "table_forbidden");
    assert_eq!(stream.any_frame().await, None);
    let answer = http(&deployment).await.get(PATH, &[]).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (403, &json!("table_forbidden")));
}

/// Writes 30 MB in transactions of a hundred rows.
async fn write(deployment: &Deployment, rows: usize) {
    for first in (0..rows).step_by(100) {
        let insert = format!(
            "INSERT INTO notes SELECT n, repeat('x', 1000) FROM generate_series({first}, {}) n",
            first + 99
        );
        deployment.sql.batch_execute(&insert).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_read_falls_behind_and_catches_up_without_a_gap() {
    const ROWS: usize = 30_000;
    let deployment = open(&["ring.bytes_max=268435456", "limits.outbox_bytes_max=262144"]).await;
    let mut slow = events(&deployment, PATH, &[]).await;
    slow.expect("subscribed").await;
    write(&deployment, ROWS).await;
    for id in 0..ROWS {
        assert_eq!(slow.expect("row").await["new"]["id"], id);
    }
    let counted = deployment.daemon.metrics().read();
    let fell_behind = counted.iter().find(|(name, _)| name == "fell_behind");
    assert!(fell_behind.is_some_and(|(_, times)| *times > 0), "{counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_gone_after_the_silence() {
    let set = ["limits.ping_seconds=1", "limits.silence_seconds=3", "listen.shards=1"];
    let deployment = open(&set).await;
    let mut socket = TcpStream::connect(deployment.daemon.address()).await.unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    timeout(DEADLINE, socket.read_exact(&mut first)).await.unwrap().unwrap();
    write(&deployment, 20_000).await;
    let began = Instant::now();
    // Reading would be a sign of life; whether the peer has gone is seen by writing to it.
    while socket.write_all(b"\r\n").await.is_ok() {
        assert!(began.elapsed() < DEADLINE, "the connection is still there");
        timeout(Duration::from_millis(50), std::future::pending::<()>()).await.unwrap_err();
    }
    println!("gone after {:?}", began.elapsed());
}

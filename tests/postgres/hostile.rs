//! Frames that no honest client sends: each costs its sender the session, and the others nothing.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tungstenite::Message;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;

async fn open() -> Deployment {
    let schema = "CREATE TABLE t (id int PRIMARY KEY)";
    let tables = "[[table]]\nname = 'public.t'\nopen = true\n";
    Deployment::start(Plan {
        schema,
        tables,
        set: &["limits.handshake_seconds=2"],
        ..Plan::default()
    })
    .await
}

/// A raw connection after a handshake made by hand.
async fn upgraded(deployment: &Deployment) -> TcpStream {
    let mut socket = TcpStream::connect(deployment.daemon.address()).await.unwrap();
    let request = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(DEADLINE, socket.read_u8()).await.unwrap().unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket
}

/// A masked frame with a mask of zeros, which leaves the payload as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short if short < 126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        medium if medium < 65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend(u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The close code with which the server answers what is sent; `None` where it just hangs up.
async fn close_code(deployment: &Deployment, bytes: &[u8]) -> Option<u16> {
    let mut socket = upgraded(deployment).await;
    socket.write_all(bytes).await.unwrap();
    loop {
        let mut head = [0; 2];
        match timeout(DEADLINE, socket.read_exact(&mut head)).await.unwrap() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("{error}"),
        }
        let length = match head[1] {
            126 => usize::from(socket.read_u16().await.unwrap()),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        timeout(DEADLINE, socket.read_exact(&mut payload)).await.unwrap().unwrap();
        if head[0] == 0x88 {
            return Some(u16::from_be_bytes([payload[0], payload[1]]));
        }
    }
}

#[tokio::test]
async fn hostile_frames_end_their_own_session_with_the_right_code() {
    let deployment = open().await;
    let mut honest = deployment.client().await;
    honest.subscribed(json!({"id": "t", "table": "t"})).await;
    let unmasked = b"\x81\x02{}".to_vec();
    let reserved_bits = frame(0xF1, b"{}");
    let reserved_opcode = frame(0x83, b"{}");
    let long_ping = frame(0x89, &[b'x'; 126]);
    let fragmented_ping = frame(0x09, b"x");
    let lone_continuation = frame(0x80, b"x");
    let not_utf8 = frame(0x81, b"\xff\xfe");
    let oversized = frame(0x81, &vec![b' '; 70_000]);
    let mut endless = vec![0x81, 0x80 | 127];
    endless.extend(u64::MAX.to_be_bytes());
    endless.extend([0; 4]);
    let mut fragments = frame(0x01, &[b' '; 60_000]);
    fragments.extend(frame(0x80, &[b' '; 60_000]));
    for (what, bytes, code) in [
        ("unmasked", unmasked, 1002),
        ("reserved bits", reserved_bits, 1002),
        ("reserved opcode", reserved_opcode, 1002),
        ("long ping", long_ping, 1002),
        ("fragmented ping", fragmented_ping, 1002),
        ("lone continuation", lone_continuation, 1002),
        ("not UTF-8", not_utf8, 1007),
        ("oversized", oversized, 1009),
        ("endless", endless, 1009),
        ("too many fragments", fragments, 1009),
        ("binary", frame(0x82, b"{}"), 1003),
    ] {
        assert_eq!(close_code(&deployment, &bytes).await, Some(code), "{what}");
    }
    deployment.execute(&["INSERT INTO t VALUES (1)"]).await;
    assert_eq!(honest.rows(1, "id").await, ["insert 1"]);
}

#[tokio::test]
async fn malformed_requests_are_answered_and_the_session_goes_on() {
    let deployment = open().await;
    let mut client = deployment.client().await;
    let deep = "[".repeat(60_000);
    let many = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let list: Vec<String> = (0..9_000).map(|id| id.to_string()).collect();
    for (text, code) in [
        (String::new(), "bad_request"),
        ("null".to_owned(), "bad_request"),
        (deep, "bad_request"),
        (r#"{"type":"subscribe","id":"\u0000","table":"t\u0000"}"#.to_owned(), "unknown_table"),
        (r#"{"type":"subscribe","id":"","table":"t"}"#.to_owned(), "bad_request"),
        (json!({"type":"subscribe","id":"x".repeat(65),"table":"t"}).to_string(), "bad_request"),
        (json!({"type":"subscribe","id":"a","table":"t","where":many}).to_string(), "bad_filter"),
        (
            json!({"type":"subscribe","id":"a","table":"t",
                "where":format!("id in ({})", list.join(","))})
            .to_string(),
            "bad_filter",
        ),
        (
            r#"{"type":"subscribe","id":"a","table":"t","where":"1; drop table t"}"#.to_owned(),
            "bad_filter",
        ),
        (r#"{"type":"drop"}"#.to_owned(), "unknown_request"),
    ] {
        use futures_util::SinkExt;
        client.socket.send(Message::text(text.clone())).await.unwrap();
        let answer = client.expect("error").await;
        assert_eq!(answer["code"], code, "{text:.80}: {answer}");
    }
    client.subscribed(json!({"id": "t", "table": "t"})).await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off_and_a_wrong_one_is_answered() {
    let deployment = open().await;
    let mut slow = TcpStream::connect(deployment.daemon.address()).await.unwrap();
    slow.write_all(b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n", "426"),
        ("POST /v1/ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let mut socket = TcpStream::connect(deployment.daemon.address()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(DEADLINE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&answer[9..]).unwrap(), status, "{request:?}");
    }
    let mut rest = Vec::new();
    let read = timeout(DEADLINE, slow.read_to_end(&mut rest)).await.unwrap();
    assert!(read.is_ok() || read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_without_reading_the_answers_has_to_wait() {
    let deployment = Deployment::start(Plan::default()).await;
    let client = deployment.client().await;
    let (mut requests, mut answers) = client.socket.split();
    // Answered with the name of the field that is wrong.
    let request = format!(r#"{{"type":"ping","{}":1}}"#, "x".repeat(32_000));
    let mut sent = 0;
    while timeout(Duration::from_secs(1), requests.send(Message::text(&*request))).await.is_ok() {
        sent += 1;
        // 64 MB, where an outbox holds one and the kernel some.
        assert!(sent < 2000, "the daemon takes every request");
    }
    let read = async {
        // The one that did not go through in time goes through now.
        for _ in 0..=sent {
            loop {
                if let Message::Text(text) = answers.next().await.unwrap().unwrap() {
                    assert!(text.as_str().contains("bad_request"));
                    break;
                }
            }
        }
    };
    let (flushed, ()) =
        timeout(DEADLINE, async { tokio::join!(requests.flush(), read) }).await.unwrap();
    flushed.unwrap();
}

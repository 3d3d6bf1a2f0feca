//! Requests that never end, hundreds of them: each is cut off in time, and nobody else waits.

use std::io::ErrorKind;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::deployment::DEADLINE;
use crate::http::Http;
use crate::limits::dial;
use crate::limits::open;

const HALF_HEAD: &str = "GET /v1/ws HTTP/1.1\r\nHost: walcast\r\nX-Slow: ";
const HALF_BODY: &str =
    "POST /v1/changes HTTP/1.1\r\nHost: walcast\r\nContent-Length: 1000\r\n\r\n{\"table\":";
const UPGRADE: &str = "GET /v1/ws HTTP/1.1\r\nHost: walcast\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Everything that comes until the daemon hangs up.
async fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match timeout(DEADLINE, socket.read_to_end(&mut all)).await.unwrap() {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => all,
    }
}

#[tokio::test]
async fn hundreds_of_requests_that_do_not_end_are_cut_off_while_others_are_served() {
    let deployment = open(&["limits.handshake_seconds=2"]).await;
    let mut honest = deployment.client().await;
    honest.subscribed(json!({"id": "t", "table": "t"})).await;
    let mut slow = Vec::new();
    for at in 0..300 {
        let mut socket = dial(2, deployment.daemon.address()).await;
        let begun = ["", HALF_HEAD, HALF_BODY][at % 3];
        socket.write_all(begun.as_bytes()).await.unwrap();
        slow.push(socket);
    }
    // They are there, and neither a session nor a new client waits for them.
    for id in 0..20 {
        deployment.execute(&[&format!("INSERT INTO t VALUES ({id})")]).await;
        assert_eq!(honest.rows(1, "id").await, [format!("insert {id}")]);
        let mut http = Http::connect(deployment.daemon.address()).await;
        let rows = http.get("/v1/rows?table=t", &[]).await;
        assert_eq!(rows.status.as_u16(), 200);
    }
    for (at, answer) in join_all(slow.into_iter().map(rest)).await.into_iter().enumerate() {
        let answer = String::from_utf8(answer).unwrap();
        let expected = ["", "", "HTTP/1.1 408"][at % 3];
        assert!(answer.starts_with(expected), "{answer:?}");
    }
}

#[tokio::test]
async fn a_message_that_does_not_end_is_cut_off_however_alive_its_sender_is() {
    let deployment = open(&["limits.handshake_seconds=1"]).await;
    let mut honest = deployment.client().await;
    honest.subscribed(json!({"id": "t", "table": "t"})).await;
    // Half a frame; a fragment, with pings after it; fragments without end.
    let half = [0x81, 0x85, 0, 0, 0, 0, b'{'];
    let fragment = [0x01, 0x81, 0, 0, 0, 0, b'{'];
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let empty = [0x00, 0x80, 0, 0, 0, 0];
    for (begun, more) in
        [(half, Vec::new()), (fragment, ping.repeat(100)), (fragment, empty.repeat(100))]
    {
        let mut socket = dial(2, deployment.daemon.address()).await;
        socket.write_all(UPGRADE.as_bytes()).await.unwrap();
        socket.write_all(&begun).await.unwrap();
        let (reader, mut writer) = socket.into_split();
        let write = async {
            while !more.is_empty() && writer.write_all(&more).await.is_ok() {
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        let code = async {
            let mut reader = reader;
            let mut all = Vec::new();
            // A close frame ends what the server sends; it is the only one with this head.
            while !ends_with_close(&all) {
                let mut bytes = [0; 4096];
                let count = reader.read(&mut bytes).await.unwrap();
                assert!(count > 0, "closed without a code");
                all.extend_from_slice(&bytes[..count]);
            }
            let end = all.len();
            String::from_utf8_lossy(&all[end - 36..]).into_owned()
        };
        let reason = tokio::select! {
            () = write => unreachable!("it waits for ever"),
            reason = timeout(DEADLINE, code) => reason.unwrap(),
        };
        assert!(
            reason.ends_with("did not end in time") || reason.ends_with("requests"),
            "{reason}"
        );
        deployment.execute(&["INSERT INTO t VALUES (1)", "DELETE FROM t"]).await;
        assert_eq!(honest.rows(2, "id").await, ["insert 1", "delete 1"]);
    }
}

/// Whether the last bytes are those of a close frame with one of the codes.
fn ends_with_close(all: &[u8]) -> bool {
    let ends = |code: u16, reason: &str| {
        let mut frame = vec![0x88, u8::try_from(reason.len() + 2).unwrap()];
        frame.extend(code.to_be_bytes());
        frame.extend(reason.as_bytes());
        all.ends_with(&frame)
    };
    ends(4408, "the request did not end in time") || ends(4429, "too_many_requests")
}

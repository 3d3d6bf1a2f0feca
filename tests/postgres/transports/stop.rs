//! The daemon's stop, with HTTP connections of every kind.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::deployment::DEADLINE;
use crate::transports::http;
use crate::transports::open;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_told_to_streams_and_waits_for_no_idle_connection() {
    let deployment = open(&[]).await;
    let mut idle = http(&deployment).await;
    assert_eq!(idle.get("/nothing", &[]).await.status, 404);
    let silent = TcpStream::connect(deployment.daemon.address()).await.unwrap();
    let mut half = TcpStream::connect(deployment.daemon.address()).await.unwrap();
    half.write_all(b"GET /v1/events?table=notes HTTP/1.1\r\nhost").await.unwrap();
    let mut stream = http(&deployment).await.events("/v1/events?table=notes", &[]).await;
    stream.expect("subscribed").await;
    deployment.execute(&["INSERT INTO notes VALUES (1)"]).await;
    assert_eq!(stream.expect("row").await["new"]["id"], 1);

    let began = Instant::now();
    deployment.daemon.stop().await;
    let took = began.elapsed();
    println!("stopped after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    let restart = stream.expect("restart").await;
    assert_eq!(restart["retry_ms"].as_u64(), stream.retry_ms, "{restart}");
    assert_eq!(restart["cursor"], stream.last_id);
    let closed = stream.expect("closed").await;
    assert_eq!((&closed["code"], &closed["reason"]), (&1012.into(), &"restart".into()));
    assert_eq!(stream.any_frame().await, None);
    for mut socket in [silent, half] {
        let end = timeout(DEADLINE, socket.read(&mut [0; 9])).await.unwrap();
        assert!(!matches!(end, Ok(1..)), "{end:?}");
    }
}

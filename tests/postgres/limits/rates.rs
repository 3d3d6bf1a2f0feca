//! How often somebody may connect, ask, and be wrong about a token.

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;
use tungstenite::Message;

use crate::deployment::DEADLINE;
use crate::http::Http;
use crate::limits::knock;
use crate::limits::open;
use crate::limits::refused;

#[tokio::test]
async fn an_address_that_connects_too_often_is_refused_and_no_other() {
    let deployment = open(&["limits.handshakes_per_second_per_address=1"]).await;
    let mut mine = Vec::new();
    let refusal = loop {
        match knock(&deployment, 2, &[]).await {
            Ok(client) => mine.push(client),
            Err(refusal) => break refusal,
        }
        // One a second is allowed, and five at once.
        assert!(mine.len() < 60, "nobody is refused");
    };
    assert_eq!((refusal.status, refusal.code.as_str()), (429, "too_many_handshakes"));
    assert!(refusal.seconds > 0);
    assert!(refused(&deployment, "too_many_handshakes") > 0);
    let mut other = knock(&deployment, 3, &[]).await.unwrap();
    other.subscribed(json!({"id": "t", "table": "t"})).await;
    deployment.execute(&["INSERT INTO t VALUES (1)"]).await;
    assert_eq!(other.rows(1, "id").await, ["insert 1"]);
}

#[tokio::test]
async fn requests_on_one_connection_count_as_handshakes_do() {
    let deployment = open(&["limits.handshakes_per_second_per_address=1"]).await;
    let mut http = Http::connect(deployment.daemon.address()).await;
    for asked in 0.. {
        let answer = http.get("/v1/changes?table=t", &[]).await;
        if answer.status.as_u16() == 429 {
            assert_eq!(answer.json["code"], "too_many_handshakes");
            break;
        }
        assert!(asked < 60, "nobody is refused");
    }
}

#[tokio::test]
async fn after_too_many_bad_tokens_an_address_shows_none_for_a_while() {
    let deployment = open(&["limits.rejected_tokens_per_minute=3"]).await;
    // One that is merely old is honest.
    let old = deployment.token(json!({"exp": 1_000_000_000}));
    let old = format!("Bearer {old}");
    for _ in 0..10 {
        let refusal = knock(&deployment, 2, &[("authorization", &old)]).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code.as_str()), (401, "bad_token"));
    }
    let bad = [("authorization", "Bearer a.b.c")];
    let mut wrong = 0;
    let refusal = loop {
        let refusal = knock(&deployment, 2, &bad).await.unwrap_err();
        if refusal.status == 429 {
            break refusal;
        }
        assert_eq!((refusal.status, refusal.code.as_str()), (401, "bad_token"));
        wrong += 1;
        assert!(wrong < 30, "every token is looked at");
    };
    assert!(wrong >= 3, "{wrong}");
    assert_eq!(refusal.code, "too_many_bad_tokens");
    assert!(refusal.seconds > 0);
    // Nor is a good one looked at; somebody else's is.
    let good = format!("Bearer {}", deployment.token(json!({"sub": "ada"})));
    let good = [("authorization", good.as_str())];
    let barred = knock(&deployment, 2, &good).await.unwrap_err();
    assert_eq!((barred.status, barred.code.as_str()), (429, "too_many_bad_tokens"));
    knock(&deployment, 3, &good).await.unwrap();
    // In a request on a session it is the same.
    let mut late = knock(&deployment, 2, &[]).await.unwrap();
    late.send(json!({"type": "auth", "token": "a.b.c"})).await;
    assert_eq!(late.expect("error").await["code"], "too_many_bad_tokens");
    late.subscribed(json!({"id": "t", "table": "t"})).await;
    assert!(refused(&deployment, "too_many_bad_tokens") >= 3);
}

#[tokio::test]
async fn a_session_that_asks_too_often_is_refused_and_then_closed() {
    let deployment = open(&["limits.requests_per_second=1", "limits.requests_burst=100"]).await;
    let mut honest = deployment.client().await;
    honest.subscribed(json!({"id": "t", "table": "t"})).await;
    let mut flood = deployment.client().await;
    flood.subscribed(json!({"id": "t", "table": "t"})).await;
    let (mut requests, mut answers) = flood.socket.split();
    // Until the daemon hangs up; what is refused after the first hundred names its subscription.
    let ask = async {
        let request = json!({"type": "pause", "id": "t"}).to_string();
        while requests.send(Message::text(&*request)).await.is_ok() {}
    };
    let listen = async {
        let mut told = Vec::new();
        loop {
            match answers.next().await.unwrap() {
                Ok(Message::Text(text)) => {
                    told.push(serde_json::from_str::<Value>(text.as_str()).unwrap());
                }
                Ok(Message::Close(frame)) => return (told, frame.unwrap()),
                Ok(_) => {}
                Err(error) => panic!("closed without a code: {error}"),
            }
        }
    };
    let both = async { tokio::join!(ask, listen).1 };
    let (told, close) = timeout(DEADLINE, both).await.unwrap();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4429, "too_many_requests"));
    let errors: Vec<_> = told.iter().filter(|frame| frame["type"] == "error").collect();
    assert!(errors.len() >= 100, "{}", errors.len());
    assert!(errors.iter().all(|it| it["code"] == "too_many_requests" && it["id"] == "t"));
    assert!(told.iter().filter(|frame| frame["type"] == "paused").count() >= 99);
    assert!(refused(&deployment, "too_many_requests") > 100);
    deployment.execute(&["INSERT INTO t VALUES (1)"]).await;
    assert_eq!(honest.rows(1, "id").await, ["insert 1"]);
}

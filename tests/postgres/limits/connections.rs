//! How many connections there may be: of all, of one address, of one subject.

use serde_json::json;

use crate::deployment::Client;
use crate::http::Http;
use crate::limits::Refused;
use crate::limits::knock;
use crate::limits::knock_until_in;
use crate::limits::open;
use crate::limits::refused;

#[tokio::test]
async fn the_total_is_kept_and_room_is_given_back() {
    let deployment = open(&["limits.connections=3", "listen.shards=2"]).await;
    let mut first = knock(&deployment, 2, &[]).await.unwrap();
    let second = knock(&deployment, 3, &[]).await.unwrap();
    let mut third = knock(&deployment, 4, &[]).await.unwrap();
    first.subscribed(json!({"id": "t", "table": "t"})).await;
    for host in 5..25 {
        let Refused { status, code, seconds } = knock(&deployment, host, &[]).await.unwrap_err();
        assert_eq!((status, code.as_str()), (503, "too_many_connections"));
        assert!((3..=11).contains(&seconds), "{seconds}");
    }
    assert_eq!(refused(&deployment, "too_many_connections"), 20);
    deployment.execute(&["INSERT INTO t VALUES (1)"]).await;
    assert_eq!(first.rows(1, "id").await, ["insert 1"]);
    drop(second);
    let mut next = knock_until_in(&deployment, 3).await;
    next.subscribed(json!({"id": "t", "table": "t"})).await;
    third.subscribed(json!({"id": "t", "table": "t"})).await;
    let over = knock(&deployment, 6, &[]).await.unwrap_err();
    assert_eq!(over.status, 503);
}

#[tokio::test]
async fn an_address_that_has_enough_takes_nobody_else_s_place() {
    let deployment = open(&["limits.connections_per_address=2", "listen.shards=2"]).await;
    let mut mine = vec![knock(&deployment, 2, &[]).await.unwrap()];
    mine.push(knock(&deployment, 2, &[]).await.unwrap());
    for _ in 0..10 {
        let Refused { status, code, seconds } = knock(&deployment, 2, &[]).await.unwrap_err();
        assert_eq!((status, code.as_str()), (429, "too_many_from_address"));
        assert!(seconds > 0);
    }
    assert_eq!(refused(&deployment, "too_many_from_address"), 10);
    let mut other = knock(&deployment, 3, &[]).await.unwrap();
    other.subscribed(json!({"id": "t", "table": "t"})).await;
    mine.pop();
    mine.push(knock_until_in(&deployment, 2).await);
    deployment.execute(&["INSERT INTO t VALUES (1)"]).await;
    assert_eq!(other.rows(1, "id").await, ["insert 1"]);
}

#[tokio::test]
async fn a_subject_has_so_many_sessions_on_every_transport() {
    let deployment = open(&["limits.connections_per_subject=1"]).await;
    let token = |subject: &str| deployment.token(json!({ "sub": subject }));
    let mut ada = deployment.client_with(json!({"sub": "ada"})).await;
    let bearer = format!("Bearer {}", token("ada"));
    let over = knock(&deployment, 2, &[("authorization", &bearer)]).await.unwrap_err();
    assert_eq!((over.status, over.code.as_str()), (429, "too_many_of_subject"));
    let mut http = Http::connect(deployment.daemon.address()).await;
    let path = format!("/v1/changes?table=t&token={}", token("ada"));
    let over = http.get(&path, &[]).await;
    assert_eq!((over.status.as_u16(), &over.json["code"]), (429, &json!("too_many_of_subject")));
    assert!(!over.header("retry-after").is_empty());

    // By a token in the first request, of somebody else and of the same.
    let mut late = deployment.client().await;
    late.send(json!({"type": "auth", "token": token("ada")})).await;
    assert_eq!(late.closed().await, 4429);
    let mut bob = deployment.client().await;
    bob.send(json!({"type": "auth", "token": token("bob")})).await;
    bob.expect("authenticated").await;
    // The one that is there may renew its token.
    ada.send(json!({"type": "auth", "token": token("ada")})).await;
    ada.expect("authenticated").await;
    assert_eq!(refused(&deployment, "too_many_of_subject"), 3);

    drop(bob);
    let path = format!("/v1/changes?table=t&token={}", token("bob"));
    loop {
        let answer = http.get(&path, &[]).await;
        if answer.status.as_u16() == 200 {
            break;
        }
        assert_eq!(answer.status.as_u16(), 429);
    }
    // An answer's seat is free when it is over.
    let mut bob = Client::connect(&format!("{}?token={}", deployment.url(), token("bob"))).await;
    bob.subscribed(json!({"id": "t", "table": "t"})).await;
}

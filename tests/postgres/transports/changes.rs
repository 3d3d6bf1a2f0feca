//! `/v1/changes`.

use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::deployment::Deployment;
use crate::http::Answer;
use crate::http::Http;
use crate::transports::http;
use crate::transports::open;

const PATH: &str = "/v1/changes?table=notes";

/// The ids of the rows in an answer's frames.
fn ids(answer: &Answer) -> Vec<u64> {
    let frames = answer.json["frames"].as_array().unwrap().iter();
    frames
        .map(|frame| {
            assert_eq!(frame["type"], "row", "{frame}");
            frame["new"]["id"].as_u64().unwrap()
        })
        .collect()
}

fn cursor(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.json);
    let cursor = answer.json["cursor"].as_str().unwrap();
    assert_eq!(answer.header("etag"), format!("\"{cursor}\""));
    cursor.to_owned()
}

async fn begin(http: &mut Http) -> String {
    let answer = http.get(PATH, &[]).await;
    assert_eq!(answer.json["frames"][0]["type"], "subscribed");
    assert_eq!(answer.json["frames"][0]["cursor"], answer.json["cursor"]);
    assert_eq!(answer.json["more"], false);
    cursor(&answer)
}

async fn insert(deployment: &Deployment, id: u64) {
    deployment.execute(&[&format!("INSERT INTO notes VALUES ({id})")]).await;
}

#[tokio::test]
async fn an_answer_has_what_came_and_waits_for_what_comes() {
    let deployment = open(&[]).await;
    let mut http = http(&deployment).await;
    let first = begin(&mut http).await;
    insert(&deployment, 1).await;
    insert(&deployment, 2).await;
    // Whether the second is routed yet is not known.
    let mut seen = Vec::new();
    let mut since = first.clone();
    while seen != [1, 2] {
        let answer = http.get(&format!("{PATH}&since={since}"), &[]).await;
        seen.extend(ids(&answer));
        since = cursor(&answer);
    }
    let again = http.get(&format!("{PATH}&since={first}&wait=0"), &[]).await;
    assert_eq!(ids(&again), [1, 2]);
    assert_eq!(cursor(&again), since);

    let began = Instant::now();
    let path = format!("{PATH}&since={since}&wait=20");
    let mut waits = pin!(http.get(&path, &[]));
    assert!(timeout(Duration::from_millis(300), &mut waits).await.is_err());
    let (answer, ()) = tokio::join!(waits, insert(&deployment, 3));
    assert_eq!(ids(&answer), [3]);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_new_is_304_with_a_newer_cursor_where_it_is_asked_for() {
    let deployment = open(&[]).await;
    let mut http = http(&deployment).await;
    let tag = format!("\"{}\"", begin(&mut http).await);
    let path = format!("{PATH}&wait=0");
    let answer = http.get(&path, &[("if-none-match", &tag)]).await;
    assert_eq!((answer.status.as_u16(), answer.json), (304, Value::Null));
    // What others write advances it.
    deployment.execute(&["CREATE TABLE other (id int)", "INSERT INTO other VALUES (1)"]).await;
    let newer = loop {
        let answer = http.get(&path, &[("if-none-match", &tag)]).await;
        assert_eq!(answer.status, 304);
        if answer.header("etag") != tag {
            break answer.header("etag").to_owned();
        }
    };
    // Without a tag the same is an empty answer; another cursor than the tag's wins.
    let since = newer.trim_matches('"');
    let answer = http.get(&format!("{path}&since={since}"), &[("if-none-match", &tag)]).await;
    assert_eq!(answer.json["frames"], json!([]));
    insert(&deployment, 1).await;
    let path = format!("{PATH}&wait=20");
    let answer = http.get(&path, &[("if-none-match", &format!("W/{newer}"))]).await;
    assert_eq!(ids(&answer), [1]);
}

#[tokio::test]
async fn what_can_t_be_resumed_is_told_and_the_next_answer_goes_on() {
    let deployment = open(&[]).await;
    let mut http = http(&deployment).await;
    let answer = http.get(&format!("{PATH}&since=7.1.2a.0"), &[]).await;
    let frames = answer.json["frames"].as_array().unwrap();
    assert_eq!((frames.len(), &frames[0]["type"]), (1, &json!("resync")), "{}", answer.json);
    assert_eq!(frames[0]["reason"], "other_history");
    let since = cursor(&answer);
    insert(&deployment, 1).await;
    let answer = http.get(&format!("{PATH}&since={since}"), &[]).await;
    assert_eq!(ids(&answer), [1]);
}

#[tokio::test]
async fn an_answer_is_bounded_and_says_that_there_is_more() {
    let deployment = open(&["limits.outbox_bytes_max=65536"]).await;
    let mut http = http(&deployment).await;
    let mut since = begin(&mut http).await;
    deployment
        .execute(&["INSERT INTO notes SELECT n, repeat('x', 1000) FROM generate_series(0, 4999) n"])
        .await;
    let (mut seen, mut full) = (Vec::new(), 0);
    while seen.len() < 5000 {
        let answer = http.get(&format!("{PATH}&since={since}"), &[]).await;
        let got = ids(&answer);
        assert!(got.len() < 2000, "{}", got.len());
        full += usize::from(answer.json["more"] == true);
        seen.extend(got);
        since = cursor(&answer);
    }
    assert!(seen.iter().copied().eq(0..5000));
    assert!(full >= 4, "{full}");
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_the_connection_stays() {
    let deployment = open(&["auth.leeway_seconds=0"]).await;
    let mut http = http(&deployment).await;
    for (path, status, code) in [
        ("/v1/changes", 400, "bad_request"),
        ("/v1/changes?table=nothing", 404, "unknown_table"),
        ("/v1/changes?table=notes&wait=56", 400, "bad_request"),
        ("/v1/changes?table=notes&wait=-1", 400, "bad_request"),
        ("/v1/changes?table=notes&since=x", 400, "bad_request"),
        ("/v1/changes?table=notes&token=x.y.z", 401, "bad_token"),
        ("/v1/other", 404, "not_found"),
    ] {
        let answer = http.get(path, &[]).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (status, &json!(code)));
    }
    let body = json!({"table": "notes", "wait": 0}).to_string();
    assert_eq!(http.send("POST", "/v1/changes", &[], &body).await.status, 200);
    let body = json!({"table": "notes", "wait": "0"}).to_string();
    assert_eq!(http.send("POST", "/v1/changes", &[], &body).await.status, 400);
}

#[tokio::test]
async fn who_waits_is_told_of_the_token_s_end_and_of_the_stop() {
    let deployment = open(&["auth.leeway_seconds=0"]).await;
    let mut http = http(&deployment).await;
    let mut other = super::http(&deployment).await;
    let since = begin(&mut http).await;
    let token = deployment.token(json!({"exp": super::now() + 2}));
    let answer = http.get(&format!("{PATH}&since={since}&token={token}"), &[]).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (401, &json!("bad_token")));

    let path = format!("{PATH}&since={since}");
    let mut waits = pin!(other.get(&path, &[]));
    assert!(timeout(Duration::from_millis(300), &mut waits).await.is_err());
    let began = Instant::now();
    let (answer, ()) = tokio::join!(waits, deployment.daemon.stop());
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &json!("restart")));
    assert_ne!(answer.header("retry-after"), "");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

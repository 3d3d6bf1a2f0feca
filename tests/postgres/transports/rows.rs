//! `/v1/rows`, and streams that begin with rows.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use crate::deployment::Deployment;
use crate::transports::http;
use crate::transports::open;

const PATH: &str = "/v1/rows?table=notes";

async fn insert(deployment: &Deployment, rows: std::ops::Range<usize>) {
    let (first, last) = (rows.start, rows.end - 1);
    let insert = format!(
        "INSERT INTO notes SELECT n, repeat('x', 100) FROM generate_series({first}, {last}) n"
    );
    deployment.execute(&[&insert]).await;
}

#[tokio::test]
async fn rows_come_with_the_cursor_from_which_the_changes_follow() {
    let deployment = open(&[]).await;
    insert(&deployment, 0..5).await;
    let mut http = http(&deployment).await;
    let path = format!("{PATH}&columns=id&where=id+%3E+0&order=id+desc&limit=2");
    let answer = http.get(&path, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    assert_eq!(answer.header("content-type"), "application/json");
    let expected = json!({
        "key": ["id"],
        "columns": [{"name": "id", "type": "int4"}],
        "rows": [{"id": 4}, {"id": 3}],
        "changes": [],
        "cursor": answer.json["cursor"],
    });
    assert_eq!(answer.json, expected);
    insert(&deployment, 5..6).await;
    let cursor = answer.json["cursor"].as_str().unwrap();
    let answer = http.get(&format!("/v1/changes?table=notes&since={cursor}"), &[]).await;
    assert_eq!(answer.json["frames"][0]["new"]["id"], 5, "{}", answer.json);

    let answer = http.get(&format!("{PATH}&where=id+%3C+0"), &[]).await;
    assert_eq!((&answer.json["rows"], &answer.json["changes"]), (&json!([]), &json!([])));
    let body = json!({"table": "notes", "columns": ["id"], "limit": 1, "order": ["id"]});
    let answer = http.send("POST", "/v1/rows", &[], &body.to_string()).await;
    assert_eq!(answer.json["rows"], json!([{"id": 0}]));
}

#[tokio::test]
async fn rows_that_can_t_be_had_are_refused_by_a_status() {
    let deployment = open(&["snapshot.rows_max=10"]).await;
    insert(&deployment, 0..11).await;
    let mut http = http(&deployment).await;
    for (path, status, code) in [
        ("/v1/rows?table=notes", 400, "snapshot_too_large"),
        ("/v1/events?table=notes&snapshot=true", 400, "snapshot_too_large"),
        ("/v1/rows?table=notes&since=7.1.2a.0", 400, "bad_request"),
        ("/v1/rows?table=notes&limit=x", 400, "bad_request"),
        ("/v1/rows?table=notes&wait=1", 400, "bad_request"),
        ("/v1/rows?table=notes&order=nothing", 403, "column_forbidden"),
        ("/v1/changes?table=notes&snapshot=true", 400, "bad_request"),
        ("/v1/events?table=notes&snapshot=yes", 400, "bad_request"),
    ] {
        let answer = http.get(path, &[]).await;
        let found = (answer.status.as_u16(), &answer.json["code"]);
        assert_eq!(found, (status, &json!(code)), "{path}: {}", answer.json);
    }
    assert_eq!(http.get(&format!("{PATH}&limit=10"), &[]).await.status, 200);
}

#[tokio::test]
async fn a_stream_that_begins_with_rows_can_be_resumed_after_them() {
    let deployment = open(&[]).await;
    insert(&deployment, 0..3).await;
    let path = "/v1/events?table=notes&snapshot=true&order=id&columns=id";
    let mut stream = http(&deployment).await.events(path, &[]).await;
    stream.expect("subscribed").await;
    for id in 0..3 {
        let row = stream.expect("row").await;
        assert_eq!((&row["op"], &row["new"]["id"]), (&json!("snapshot"), &json!(id)));
        assert_eq!(stream.last_id, "", "who is cut off here begins again");
    }
    assert_eq!(stream.expect("synced").await["cursor"], stream.last_id);
    let last_id = stream.last_id.clone();
    drop(stream);
    insert(&deployment, 3..4).await;
    let headers = [("last-event-id", last_id.as_str())];
    let mut stream = http(&deployment).await.events(path, &headers).await;
    stream.expect("subscribed").await;
    let mut row = stream.frame().await;
    if row["type"] == "synced" {
        // The row was not routed yet.
        row = stream.frame().await;
    }
    assert_eq!((&row["op"], &row["new"]["id"]), (&json!("insert"), &json!(3)));
    // What can't be resumed begins with the rows again.
    let headers = [("last-event-id", "7.1.2a.0")];
    let mut stream = http(&deployment).await.events(path, &headers).await;
    stream.expect("subscribed").await;
    stream.expect("resync").await;
    assert_eq!(stream.expect("row").await["op"], "snapshot");
}

/// What the rows become by an answer's changes.
fn applied(answer: &Value) -> BTreeMap<u64, u64> {
    let mut rows = BTreeMap::new();
    let mut put = |row: &Value| {
        rows.insert(row["id"].as_u64().unwrap(), row["n"].as_u64().unwrap());
    };
    answer["rows"].as_array().unwrap().iter().for_each(&mut put);
    for frame in answer["changes"].as_array().unwrap() {
        assert_eq!(frame["op"], "update", "{frame}");
        put(&frame["new"]);
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_changes_are_the_table_at_one_moment() {
    let deployment = open(&[]).await;
    deployment
        .execute(&[
            "CREATE TABLE accounts (id int PRIMARY KEY, n int)",
            "INSERT INTO accounts SELECT n, 100 FROM generate_series(0, 99) n",
        ])
        .await;
    let role = &deployment.role;
    deployment.execute(&[&format!("GRANT SELECT ON accounts TO {role}")]).await;
    let mut http = http(&deployment).await;
    let path = "/v1/rows?table=accounts";
    while http.get(path, &[]).await.status != 200 {}
    // What moves from row to row is never lost or doubled, whenever one looks.
    let moves = async {
        for step in 0..400 {
            let (from, to) = (step % 100, (step * 7 + 1) % 100);
            let update = format!(
                "UPDATE accounts SET n = n + CASE id WHEN {from} THEN -1 ELSE 1 END \
                 WHERE id IN ({from}, {to}) AND {from} <> {to}"
            );
            deployment.execute(&[&update]).await;
        }
    };
    let looks = async {
        let mut late = 0;
        for _ in 0..60 {
            let answer = http.get(path, &[]).await;
            assert_eq!(answer.status, 200, "{}", answer.json);
            let rows = applied(&answer.json);
            assert_eq!((rows.len(), rows.values().sum::<u64>()), (100, 10_000));
            late += usize::from(answer.json["changes"] != json!([]));
        }
        println!("{late} answers had changes");
    };
    tokio::join!(moves, looks);
}

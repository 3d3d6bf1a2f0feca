//! Old images, keys and partitions: what each kind of change tells of the row before it, by what
//! the table lets the database say.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Deployment;
use crate::deployment::Plan;

/// Three tables that differ in their replica identity only.
const IDENTITIES: &str = "CREATE TABLE by_key (id int PRIMARY KEY, code text NOT NULL UNIQUE, \
                          status text); \
                          CREATE TABLE by_index (LIKE by_key INCLUDING ALL); \
                          CREATE TABLE by_row (LIKE by_key INCLUDING ALL); \
                          ALTER TABLE by_row REPLICA IDENTITY FULL; \
                          ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key";

/// `[[table]]` sections that open tables.
fn open(tables: &[&str]) -> String {
    tables
        .iter()
        .map(|table| format!("[[table]]\nname = 'public.{table}'\nopen = true\n"))
        .collect()
}

async fn deployment(schema: &str, tables: &[&str]) -> Deployment {
    let tables = open(tables);
    Deployment::start(Plan { schema, tables: &tables, ..Plan::default() }).await
}

/// A row frame without what differs from run to run.
fn bare(mut row: Value) -> Value {
    let fields = row.as_object_mut().unwrap();
    for field in ["type", "cursor", "commit_ts"] {
        assert!(fields.remove(field).is_some(), "no {field}");
    }
    row
}

#[tokio::test]
async fn a_changed_key_is_told_with_the_one_before() {
    let tables = ["by_key", "by_index", "by_row"];
    let deployment = deployment(IDENTITIES, &tables).await;
    let mut client = deployment.client().await;
    for (table, key) in [("by_key", "id"), ("by_index", "code"), ("by_row", "id")] {
        let answer = client.subscribed(json!({"id": table, "table": table})).await;
        assert_eq!(answer["key"], json!([key]), "{table}");
    }
    let row = |id: u32, code: &str| json!({"id": id, "code": code, "status": "open"});
    for table in tables {
        let insert = format!("INSERT INTO {table} VALUES (1, 'a', 'open')");
        let change_id = format!("UPDATE {table} SET id = 2");
        let change_code = format!("UPDATE {table} SET code = 'b'");
        let delete = format!("DELETE FROM {table}");
        deployment.execute(&[&insert, &change_id, &change_code, &delete]).await;
        let (old_id, old_code, last) = match table {
            "by_key" => (json!({"id": 1}), Value::Null, json!({"id": 2})),
            "by_index" => (Value::Null, json!({"code": "a"}), json!({"code": "b"})),
            _ => (row(1, "a"), row(2, "a"), row(2, "b")),
        };
        let mut expected = vec![
            json!({"id": table, "op": "insert", "new": row(1, "a")}),
            json!({"id": table, "op": "update", "new": row(2, "a"), "old": old_id}),
            json!({"id": table, "op": "update", "new": row(2, "b"), "old": old_code}),
            json!({"id": table, "op": "delete", "old": last}),
        ];
        for frame in &mut expected {
            frame.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            assert_eq!(bare(client.row().await), *frame);
        }
    }
}

#[tokio::test]
async fn a_row_that_leaves_or_is_deleted_is_told_where_its_old_image_decides() {
    let tables = ["by_key", "by_index", "by_row"];
    let deployment = deployment(IDENTITIES, &tables).await;
    let mut client = deployment.client().await;
    let limits = |answer: &Value| answer["limits"] == json!(["no_old_image"]);
    for table in tables {
        let by_status = json!({"id": table, "table": table, "where": "status = 'open'"});
        let answer = client.subscribed(by_status).await;
        assert_eq!(limits(&answer), table != "by_row", "{answer}");
    }
    let by_code = json!({"id": "code", "table": "by_index", "where": "code = 'a'"});
    assert!(!limits(&client.subscribed(by_code).await));
    for table in tables {
        let insert = format!("INSERT INTO {table} VALUES (1, 'a', 'open'), (2, 'b', 'open')");
        let close = format!("UPDATE {table} SET status = 'done', code = code || '!' WHERE id = 1");
        let delete = format!("DELETE FROM {table} WHERE id = 2");
        deployment.execute(&[&insert, &close, &delete]).await;
    }
    deployment.execute(&["INSERT INTO by_row VALUES (3, 'c', 'open')"]).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&json!(["by_row", "insert", 3])) {
        let row = client.row().await;
        if row["op"] == "leave" {
            let key = if row["id"] == "code" { json!({"code": "a"}) } else { json!({"id": 1}) };
            assert_eq!(row["old"], key, "a leave tells the key alone");
        }
        let of = if row["new"].is_null() { &row["old"] } else { &row["new"] };
        seen.push(json!([row["id"], row["op"], of["id"]]));
    }
    seen.sort_by_key(|row| row[0].to_string());
    let expected = json!([
        ["by_index", "insert", 1],
        ["by_index", "insert", 2],
        ["by_key", "insert", 1],
        ["by_key", "insert", 2],
        ["by_row", "insert", 1],
        ["by_row", "insert", 2],
        ["by_row", "leave", 1],
        ["by_row", "delete", 2],
        ["by_row", "insert", 3],
        ["code", "insert", 1],
        ["code", "leave", null],
    ]);
    assert_eq!(Value::from(seen), expected);
}

#[tokio::test]
async fn the_hint_of_a_subscription_mends_it_while_it_goes_on() {
    let deployment = deployment(IDENTITIES, &["by_key"]).await;
    let mut client = deployment.client().await;
    let request = json!({"id": "o", "table": "by_key", "where": "status = 'open'"});
    let answer = client.subscribed(request).await;
    let hint = answer["hint"].as_str().unwrap();
    deployment
        .execute(&[
            "INSERT INTO by_key VALUES (1, 'a', 'open'), (2, 'b', 'open')",
            "UPDATE by_key SET status = 'done' WHERE id = 1",
            hint,
            "UPDATE by_key SET status = 'done' WHERE id = 2",
        ])
        .await;
    assert_eq!(client.rows(3, "id").await, ["insert 1", "insert 2", "leave 2"]);
}

#[tokio::test]
async fn a_large_value_outlives_a_change_of_the_key() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, n int, body text); \
                  ALTER TABLE notes ALTER body SET STORAGE external; \
                  CREATE TABLE full_notes (LIKE notes INCLUDING ALL); \
                  ALTER TABLE full_notes REPLICA IDENTITY FULL";
    let deployment = deployment(schema, &["notes", "full_notes"]).await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "notes", "table": "notes"})).await;
    client.subscribed(json!({"id": "full_notes", "table": "full_notes"})).await;
    // Reads what the update does not tell, so that the update can't be decided.
    client.subscribed(json!({"id": "f", "table": "notes", "where": "body <> 'y'"})).await;
    for table in ["notes", "full_notes"] {
        let insert = format!("INSERT INTO {table} VALUES (1, 1, repeat('x', 3000))");
        let update = format!("UPDATE {table} SET id = 2");
        deployment.execute(&[&insert, &update]).await;
    }
    let mut rows = Vec::new();
    for _ in 0..5 {
        rows.push(bare(client.row().await));
    }
    let filtered: Vec<Value> = rows.extract_if(.., |row| row["id"] == "f").collect();
    assert_eq!(filtered.len(), 1, "{filtered:?}");
    assert_eq!(filtered[0]["op"], "insert");
    assert_eq!(rows[1]["new"], json!({"id": 2, "n": 1}));
    assert_eq!(rows[1]["unchanged"], json!(["body"]));
    assert_eq!(rows[1]["old"], json!({"id": 1}));
    assert_eq!(rows[3]["new"]["body"].as_str().unwrap().len(), 3000);
    assert_eq!(rows[3]["unchanged"], Value::Null);
}

#[tokio::test]
async fn a_truncate_of_several_tables_is_a_frame_for_each_subscription() {
    let tables = ["by_key", "by_index", "by_row"];
    let deployment = deployment(IDENTITIES, &tables).await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "all", "table": "by_key"})).await;
    client.subscribed(json!({"id": "some", "table": "by_key", "where": "id > 100"})).await;
    client.subscribed(json!({"id": "other", "table": "by_row"})).await;
    let inserts = json!({"id": "inserts", "table": "by_key", "events": ["insert"]});
    client.subscribed(inserts).await;
    deployment
        .execute(&["TRUNCATE by_key, by_index, by_row", "INSERT INTO by_row VALUES (1, 'a', '')"])
        .await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let row = bare(client.row().await);
        seen.push(row.to_string());
    }
    let insert = seen.pop().unwrap();
    assert!(insert.contains("insert"), "{insert}");
    seen.sort();
    let truncate = |id: &str| json!({"id": id, "op": "truncate"}).to_string();
    assert_eq!(seen, [truncate("all"), truncate("other"), truncate("some")]);
}

const PARTITIONED: &str = "CREATE TABLE events (id int, day int, what text, PRIMARY KEY (id, day)) \
                           PARTITION BY LIST (day); \
                           CREATE TABLE monday PARTITION OF events FOR VALUES IN (1); \
                           CREATE TABLE tuesday PARTITION OF events FOR VALUES IN (2)";
const WORK: [&str; 6] = [
    "INSERT INTO events VALUES (1, 1, 'a'), (2, 2, 'b')",
    "UPDATE events SET what = 'c'",
    "UPDATE events SET day = 2 WHERE id = 1",
    "DELETE FROM events WHERE id = 2",
    "TRUNCATE events",
    "INSERT INTO events VALUES (3, 1, 'end')",
];

#[tokio::test]
async fn partitions_are_told_by_their_own_names() {
    let deployment = deployment(PARTITIONED, &["monday", "tuesday", "events"]).await;
    let mut client = deployment.client().await;
    for table in ["monday", "tuesday"] {
        client.subscribed(json!({"id": table, "table": table})).await;
    }
    deployment.execute(&WORK).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "monday insert 3") {
        let row = client.row().await;
        let of = if row["new"].is_null() { &row["old"] } else { &row["new"] };
        seen.push(format!("{} {} {}", text(&row["id"]), text(&row["op"]), of["id"]));
    }
    // What a row moves out of tells a delete, what it moves into an insert.
    let mut moved = seen.split_off(4);
    assert_eq!(
        seen,
        ["monday insert 1", "tuesday insert 2", "monday update 1", "tuesday update 2"]
    );
    let mut truncated: Vec<String> = moved.drain(3..5).collect();
    truncated.sort();
    assert_eq!(truncated, ["monday truncate null", "tuesday truncate null"]);
    let expected = ["monday delete 1", "tuesday insert 1", "tuesday delete 2", "monday insert 3"];
    assert_eq!(moved, expected);
}

#[tokio::test]
async fn partitions_are_told_by_the_name_of_their_root() {
    let deployment = deployment(PARTITIONED, &["monday", "tuesday", "events"]).await;
    let via_root = "ALTER PUBLICATION walcast SET (publish_via_partition_root = true)";
    deployment.execute(&[via_root]).await;
    let deployment = deployment.restart().await;
    let mut client = deployment.client().await;
    let answer = client.subscribed(json!({"id": "e", "table": "events"})).await;
    assert_eq!(answer["key"], json!(["id", "day"]));
    deployment.execute(&WORK[..4]).await;
    let expected =
        ["insert 1", "insert 2", "update 1", "update 2", "delete 1", "insert 1", "delete 2"];
    assert_eq!(client.rows(7, "id").await, expected);
    // Postgres publishes a TRUNCATE of the root, and none of a partition by its own name.
    deployment.execute(&["TRUNCATE monday", WORK[4], WORK[5]]).await;
    assert_eq!(bare(client.row().await), json!({"id": "e", "op": "truncate"}));
    assert_eq!(client.rows(1, "id").await, ["insert 3"]);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

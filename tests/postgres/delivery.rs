//! From a commit to a client's socket: who gets what, in which form, and in which order.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, customer text, status text, \
                      total numeric); ALTER TABLE orders REPLICA IDENTITY FULL";
const OPEN: &str = "[[table]]\nname = 'public.orders'\nopen = true\n";

async fn orders() -> Deployment {
    Deployment::start(Plan { schema: ORDERS, tables: OPEN, ..Plan::default() }).await
}

#[tokio::test]
async fn a_commit_reaches_the_client_as_to_jsonb_writes_it() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    let answer = client.subscribed(json!({"id": 1, "table": "orders"})).await;
    assert_eq!(answer["key"], json!(["id"]));
    assert_eq!(answer["columns"][3], json!({"name": "total", "type": "numeric"}));
    deployment.execute(&["INSERT INTO orders VALUES (1, 'ann', 'open', 12.340)"]).await;
    let row = client.row().await;
    assert_eq!(row["id"], "1");
    assert_eq!(row["op"], "insert");
    assert_eq!(
        row["new"].to_string(),
        r#"{"customer":"ann","id":1,"status":"open","total":12.340}"#
    );
    assert!(row["commit_ts"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn rows_enter_and_leave_a_filter() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    let request = json!({"id": "o", "table": "orders", "where": "status in ('open', 'assigned')"});
    client.subscribed(request).await;
    deployment
        .execute(&[
            "INSERT INTO orders VALUES (1, 'ann', 'new', 1)",
            "UPDATE orders SET status = 'open'",
            "UPDATE orders SET status = 'assigned'",
            "UPDATE orders SET status = 'done'",
            "UPDATE orders SET total = 2",
            "UPDATE orders SET status = 'open'",
            "DELETE FROM orders",
        ])
        .await;
    let expected = ["enter 1", "update 1", "leave 1", "enter 1", "delete 1"];
    assert_eq!(client.rows(5, "id").await, expected);
}

#[tokio::test]
async fn an_update_carries_the_old_row_and_a_leave_only_the_key() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "o", "table": "orders", "where": "status = 'open'"})).await;
    deployment
        .execute(&[
            "INSERT INTO orders VALUES (1, 'ann', 'open', 1)",
            "UPDATE orders SET total = 2",
            "UPDATE orders SET status = 'secret', customer = 'bob'",
        ])
        .await;
    client.row().await;
    let update = client.row().await;
    assert_eq!(update["old"]["total"], 1);
    assert_eq!(update["new"]["total"], 2);
    let leave = client.row().await;
    assert_eq!(leave["old"], json!({"id": 1}));
    assert_eq!(leave["new"], Value::Null);
}

#[tokio::test]
async fn the_two_forms_of_a_filter_and_equal_filters_of_many_clients_agree() {
    let deployment = orders().await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = deployment.client().await;
        let id = if number % 2 == 0 { "even" } else { "odd" };
        let request = if number % 4 < 2 {
            json!({"id": id, "table": "orders", "where": "customer = 'ann'"})
        } else {
            json!({"id": id, "table": "orders", "filter": "customer=eq.ann"})
        };
        client.subscribed(request).await;
        clients.push((id, client));
    }
    deployment
        .execute(&[
            "INSERT INTO orders VALUES (1, 'bob', 'open', 1), (2, 'ann', 'open', 1)",
            "UPDATE orders SET customer = 'ann' WHERE id = 1",
        ])
        .await;
    for (id, client) in &mut clients {
        let row = client.row().await;
        assert_eq!((row["id"].as_str(), &row["new"]["id"]), (Some(*id), &json!(2)));
        assert_eq!(client.rows(1, "id").await, ["enter 1"]);
    }
}

#[tokio::test]
async fn many_subscriptions_of_one_session_come_in_commit_order() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "all", "table": "orders"})).await;
    client.subscribed(json!({"id": "ann", "table": "orders", "where": "customer = 'ann'"})).await;
    let values: Vec<String> = (0..100)
        .map(|id| format!("({id}, '{}', 'open', 1)", if id % 3 == 0 { "ann" } else { "bob" }))
        .collect();
    deployment.execute(&[&format!("INSERT INTO orders VALUES {}", values.join(","))]).await;
    let mut last = -1;
    for _ in 0..134 {
        let id = client.row().await["new"]["id"].as_i64().unwrap();
        assert!(id >= last, "{id} after {last}");
        last = id;
    }
    client.send(json!({"type": "ping"})).await;
    client.expect("pong").await;
}

#[tokio::test]
async fn columns_and_events_are_chosen() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    let request = json!({"id": "o", "table": "orders", "columns": ["total", "id"],
        "events": ["delete"]});
    let answer = client.subscribed(request).await;
    assert_eq!(answer["columns"].as_array().unwrap().len(), 2);
    deployment
        .execute(&["INSERT INTO orders VALUES (1, 'ann', 'open', 1)", "DELETE FROM orders"])
        .await;
    let row = client.row().await;
    assert_eq!((&row["op"], &row["old"]), (&json!("delete"), &json!({"id": 1, "total": 1})));
}

#[tokio::test]
async fn a_truncate_is_one_frame() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "o", "table": "orders", "where": "customer = 'ann'"})).await;
    deployment.execute(&["TRUNCATE orders"]).await;
    let row = client.row().await;
    assert_eq!(
        (&row["op"], &row["new"], &row["old"]),
        (&json!("truncate"), &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn after_unsubscribe_nothing_comes() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "o", "table": "orders"})).await;
    client.send(json!({"type": "unsubscribe", "id": "o"})).await;
    client.expect("unsubscribed").await;
    client.subscribed(json!({"id": "p", "table": "orders"})).await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 'ann', 'open', 1)"]).await;
    assert_eq!(client.row().await["id"], "p");
    client.send(json!({"type": "unsubscribe", "id": "o"})).await;
    assert_eq!(client.expect("error").await["code"], "unknown_id");
}

#[tokio::test]
async fn ddl_in_mid_stream_moves_a_subscription_to_the_new_shape() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "o", "table": "orders", "where": "customer = 'ann'"})).await;
    deployment
        .execute(&[
            "INSERT INTO orders VALUES (1, 'ann', 'open', 1)",
            "BEGIN; INSERT INTO orders VALUES (2, 'ann', 'open', 1); \
             ALTER TABLE orders ADD COLUMN note text; \
             ALTER TABLE orders RENAME COLUMN total TO price; \
             INSERT INTO orders VALUES (3, 'ann', 'open', 1, 'n'); COMMIT",
        ])
        .await;
    assert_eq!(client.row().await["new"]["total"], 1);
    assert_eq!(client.row().await["new"]["total"], 1);
    let row = client.row().await;
    assert_eq!((&row["new"]["price"], &row["new"]["note"]), (&json!(1), &json!("n")));
    deployment
        .execute(&[
            "ALTER TABLE orders DROP COLUMN customer",
            "INSERT INTO orders VALUES (4, 'open', 1)",
        ])
        .await;
    let error = client.expect("error").await;
    assert_eq!((&error["id"], &error["code"]), (&json!("o"), &json!("column_forbidden")));
}

#[tokio::test]
async fn an_unchanged_large_value_is_filled_or_named() {
    let schema = "CREATE TABLE full_notes (id int PRIMARY KEY, n int, body text); \
                  ALTER TABLE full_notes REPLICA IDENTITY FULL; \
                  ALTER TABLE full_notes ALTER body SET STORAGE external; \
                  CREATE TABLE notes (id int PRIMARY KEY, n int, body text); \
                  ALTER TABLE notes ALTER body SET STORAGE external";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n\
                  [[table]]\nname = 'public.full_notes'\nopen = true\n";
    let deployment = Deployment::start(Plan { schema, tables, ..Plan::default() }).await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "full", "table": "full_notes"})).await;
    client.subscribed(json!({"id": "key", "table": "notes"})).await;
    for table in ["full_notes", "notes"] {
        let insert = format!("INSERT INTO {table} VALUES (1, 1, repeat('x', 3000))");
        let update = format!("UPDATE {table} SET n = 2");
        deployment.execute(&[&insert, &update]).await;
    }
    client.row().await;
    let full = client.row().await;
    assert_eq!(full["new"]["body"].as_str().unwrap().len(), 3000);
    assert_eq!(full["unchanged"], Value::Null);
    client.row().await;
    let key = client.row().await;
    assert_eq!(key["new"], json!({"id": 1, "n": 2}));
    assert_eq!(key["unchanged"], json!(["body"]));
}

#[tokio::test]
async fn without_old_images_what_cannot_be_decided_is_not_delivered_and_said_to_be() {
    let schema = "CREATE TABLE orders (id int PRIMARY KEY, customer text)";
    let deployment = Deployment::start(Plan { schema, tables: OPEN, ..Plan::default() }).await;
    let mut client = deployment.client().await;
    let answer =
        client.subscribed(json!({"id": "o", "table": "orders", "where": "customer = 'ann'"})).await;
    assert_eq!(answer["limits"], json!(["no_old_image"]));
    assert_eq!(answer["hint"], r#"alter table "public"."orders" replica identity full"#);
    let by_key = client.subscribed(json!({"id": "k", "table": "orders", "where": "id = 1"})).await;
    assert_eq!(by_key["limits"], Value::Null);
    deployment
        .execute(&[
            "INSERT INTO orders VALUES (1, 'ann')",
            "UPDATE orders SET customer = 'bob'",
            "UPDATE orders SET customer = 'ann'",
            "DELETE FROM orders",
        ])
        .await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        let row = client.row().await;
        seen.push(format!("{} {}", row["id"].as_str().unwrap(), row["op"].as_str().unwrap()));
    }
    seen.sort();
    let expected = ["k delete", "k insert", "k update", "k update", "o insert", "o update"];
    assert_eq!(seen, expected);
    assert!(deployment.daemon.metrics().read().contains(&("undecided".to_owned(), 3)));
}

#[tokio::test]
async fn a_client_that_comes_back_gets_exactly_what_it_missed() {
    let deployment = orders().await;
    let mut first = deployment.client().await;
    first.subscribed(json!({"id": "o", "table": "orders"})).await;
    let all: Vec<String> = (1..=9).map(|id| format!("({id}, 'ann', 'open', 1)")).collect();
    deployment.execute(&[&format!("INSERT INTO orders VALUES {}", all.join(","))]).await;
    let mut cursors = Vec::new();
    for _ in 0..9 {
        cursors.push(first.row().await["cursor"].clone());
    }
    deployment.execute(&["INSERT INTO orders VALUES (10, 'bob', 'open', 1)"]).await;
    first.row().await;
    first.socket.close(None).await.unwrap();
    for (seen, cursor) in cursors.iter().enumerate() {
        let mut client = deployment.client().await;
        client.subscribed(json!({"id": "o", "table": "orders", "since": cursor})).await;
        let expected: Vec<String> = (seen + 2..=10).map(|id| format!("insert {id}")).collect();
        assert_eq!(client.rows(expected.len(), "id").await, expected);
        client.expect("synced").await;
    }
}

#[tokio::test]
async fn a_cursor_survives_a_restart_of_the_daemon() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    let answer = client.subscribed(json!({"id": "o", "table": "orders"})).await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 'ann', 'open', 1)"]).await;
    let before = client.row().await;
    let deployment = deployment.restart().await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "live", "table": "orders"})).await;
    deployment.execute(&["INSERT INTO orders VALUES (2, 'ann', 'open', 1)"]).await;
    client.row().await;
    let since = json!({"id": "a", "table": "orders", "since": before["cursor"]});
    client.subscribed(since).await;
    assert_eq!(client.rows(1, "id").await, ["insert 2"]);
    client.expect("synced").await;
    let since = json!({"id": "b", "table": "orders", "since": answer["cursor"]});
    client.subscribed(since).await;
    let again = client.row().await;
    assert_eq!((&again["cursor"], &again["new"]), (&before["cursor"], &before["new"]));
}

#[tokio::test]
async fn a_cursor_that_cannot_be_served_is_answered_with_its_reason() {
    let deployment = orders().await;
    let mut client = deployment.client().await;
    let answer = client.subscribed(json!({"id": "here", "table": "orders"})).await;
    let here = answer["cursor"].as_str().unwrap();
    let (system, rest) = here.split_once('.').unwrap();
    let other = format!("{}.{rest}", if system == "1" { "2" } else { "1" });
    for (cursor, reason) in [
        (other, "other_history"),
        (format!("{system}.1.1.ffffffff"), "too_old"),
        (format!("{system}.1.ffffffffff.ffffffff"), "ahead"),
    ] {
        client.subscribed(json!({"id": reason, "table": "orders", "since": cursor})).await;
        let resync = client.expect("resync").await;
        assert_eq!((&resync["id"], &resync["reason"]), (&json!(reason), &json!(reason)));
        assert!(resync["cursor"].is_string());
    }
    let wrong = client.subscribe(json!({"id": "x", "table": "orders", "since": "yesterday"})).await;
    assert_eq!(wrong["code"], "bad_request");
}

#[tokio::test]
async fn what_commits_after_subscribed_is_delivered_to_every_shard() {
    let plan = Plan { schema: ORDERS, tables: OPEN, set: &["listen.shards=3"], ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..24 {
        let mut client = deployment.client().await;
        client.subscribed(json!({"id": "o", "table": "orders"})).await;
        clients.push(client);
    }
    deployment.execute(&["INSERT INTO orders VALUES (1, 'ann', 'open', 1)"]).await;
    let mut cursors = Vec::new();
    for client in &mut clients {
        cursors.push(client.row().await["cursor"].to_string());
    }
    cursors.dedup();
    assert_eq!(cursors.len(), 1, "every shard makes the same cursor");
}

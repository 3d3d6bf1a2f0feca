//! Who may see what: tokens, grants, policies, and what ends them.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;
use tungstenite::client::IntoClientRequest;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;

const SCHEMA: &str = "CREATE TABLE orders (id int PRIMARY KEY, customer text, secret text); \
                      ALTER TABLE orders REPLICA IDENTITY FULL; \
                      CREATE TABLE closed (id int PRIMARY KEY); \
                      CREATE TABLE guarded (id int PRIMARY KEY); \
                      ALTER TABLE guarded ENABLE ROW LEVEL SECURITY";
const POLICY: &str = "[[table]]\nname = 'public.orders'\n\
                      policy = \"customer = claims ->> 'sub' or claims ->> 'kind' = 'admin'\"\n\
                      [[table]]\nname = 'public.guarded'\nopen = true\n";

async fn guarded() -> Deployment {
    Deployment::start(Plan { schema: SCHEMA, tables: POLICY, ..Plan::default() }).await
}

#[tokio::test]
async fn a_policy_shows_each_claims_their_rows_and_judges_both_images() {
    let deployment = guarded().await;
    let mut ann = deployment.client_with(json!({"sub": "ann"})).await;
    let mut bob = deployment.client_with(json!({"sub": "bob"})).await;
    let mut admin = deployment.client_with(json!({"sub": "eve", "kind": "admin"})).await;
    for client in [&mut ann, &mut bob, &mut admin] {
        client.subscribed(json!({"id": "o", "table": "orders"})).await;
    }
    deployment
        .execute(&[
            "INSERT INTO orders VALUES (1, 'ann', 's'), (2, 'bob', 's')",
            "UPDATE orders SET customer = 'bob' WHERE id = 1",
            "DELETE FROM orders WHERE id = 2",
        ])
        .await;
    assert_eq!(ann.rows(2, "id").await, ["insert 1", "leave 1"]);
    assert_eq!(bob.rows(3, "id").await, ["insert 2", "enter 1", "delete 2"]);
    let expected = ["insert 1", "insert 2", "update 1", "delete 2"];
    assert_eq!(admin.rows(4, "id").await, expected);
}

#[tokio::test]
async fn a_client_s_filter_narrows_the_policy_and_never_widens_it() {
    let deployment = guarded().await;
    let mut ann = deployment.client_with(json!({"sub": "ann"})).await;
    ann.subscribed(json!({"id": "o", "table": "orders", "where": "true or customer = 'bob'"}))
        .await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 'bob', 's'), (2, 'ann', 's')"]).await;
    assert_eq!(ann.rows(1, "id").await, ["insert 2"]);
}

#[tokio::test]
async fn refusals_name_what_was_wrong() {
    let deployment = guarded().await;
    deployment.execute(&[&format!("REVOKE SELECT ON orders FROM {}", deployment.role)]).await;
    let grant = format!("GRANT SELECT (id, customer) ON orders TO {}", deployment.role);
    deployment.execute(&[&grant]).await;
    let deployment = deployment.restart().await;
    let mut client = deployment.client_with(json!({"sub": "ann"})).await;
    for (request, code) in [
        (json!({"id": 1, "table": "nothing"}), "unknown_table"),
        (json!({"id": 1, "table": "closed"}), "table_closed"),
        (json!({"id": 1, "table": "guarded"}), "no_policy"),
        (json!({"id": 1, "table": "orders", "columns": ["secret"]}), "column_forbidden"),
        (json!({"id": 1, "table": "orders", "where": "secret = 's'"}), "column_forbidden"),
        (json!({"id": 1, "table": "orders", "where": "id = 'x'"}), "bad_filter"),
        (json!({"id": 1, "table": "orders", "where": "id ="}), "bad_filter"),
        (json!({"id": 1, "table": "orders", "filter": "id=near.1"}), "bad_filter"),
        (json!({"id": 1, "table": "orders", "where": "pg_sleep(1) is null"}), "bad_filter"),
        (json!({"id": 1}), "bad_request"),
    ] {
        let answer = client.subscribe(request.clone()).await;
        assert_eq!(answer["code"], code, "{request}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    let answer = client.subscribed(json!({"id": 1, "table": "orders"})).await;
    assert_eq!(answer["columns"].as_array().unwrap().len(), 2, "{answer}");
    let twice = client.subscribe(json!({"id": 1, "table": "orders"})).await;
    assert_eq!(twice["code"], "duplicate_id");
    deployment.execute(&["INSERT INTO orders VALUES (1, 'ann', 's')"]).await;
    assert_eq!(client.row().await["new"], json!({"id": 1, "customer": "ann"}));
}

#[tokio::test]
async fn a_revoked_grant_ends_the_subscription() {
    let deployment = guarded().await;
    let mut client = deployment.client_with(json!({"sub": "ann"})).await;
    client.subscribed(json!({"id": "o", "table": "orders"})).await;
    deployment.execute(&[&format!("REVOKE SELECT ON orders FROM {}", deployment.role)]).await;
    let error = loop {
        // Rows may come until the catalogue was looked at again.
        deployment
            .execute(&[
                "INSERT INTO orders VALUES (1, 'ann', 's') ON CONFLICT DO NOTHING",
                "DELETE FROM orders",
            ])
            .await;
        let frame = client.frame().await;
        if frame["type"] == "error" {
            break frame;
        }
    };
    assert_eq!((&error["id"], &error["code"]), (&json!("o"), &json!("table_forbidden")));
}

#[tokio::test]
async fn a_token_is_taken_from_each_place_and_a_bad_one_is_refused() {
    let deployment = guarded().await;
    let token = deployment.token(json!({"sub": "ann"}));
    let connect = async |name: &'static str, value: String| {
        let mut request = deployment.url().into_client_request().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        tokio_tungstenite::connect_async(request).await
    };
    connect("authorization", format!("Bearer {token}")).await.unwrap();
    let offer = format!("walcast.v1, walcast.token.{token}");
    let (_, response) = connect("sec-websocket-protocol", offer).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "walcast.v1");
    let refused = connect("authorization", "Bearer a.b.c".to_owned()).await.unwrap_err();
    let tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
    assert_eq!(response.status(), 401);
    let expired = deployment.token(json!({"sub": "ann", "exp": 1}));
    let refused = connect("authorization", format!("Bearer {expired}")).await.unwrap_err();
    let tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
    let body: Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
    assert_eq!(body["code"], "bad_token");
    assert!(!body.to_string().contains(&expired));
}

#[tokio::test]
async fn a_session_without_a_token_must_say_who_it_is() {
    let set = ["limits.handshake_seconds=2"];
    let plan = Plan { schema: SCHEMA, tables: POLICY, set: &set, anonymous: false };
    let deployment = Deployment::start(plan).await;
    let mut client = deployment.client().await;
    assert_eq!(client.welcome["role"], Value::Null);
    let answer = client.subscribe(json!({"id": "o", "table": "orders"})).await;
    assert_eq!(answer["code"], "unauthenticated");
    client.send(json!({"type": "auth", "token": deployment.token(json!({"sub": "ann"}))})).await;
    client.expect("authenticated").await;
    client.subscribed(json!({"id": "o", "table": "orders"})).await;
    let mut silent = Client::connect(&deployment.url()).await;
    assert_eq!(silent.closed().await, 4401);
}

#[tokio::test]
async fn new_claims_take_effect_on_a_live_session_and_its_subject_stays() {
    let deployment = guarded().await;
    let mut client = deployment.client_with(json!({"sub": "eve", "kind": "admin"})).await;
    client.subscribed(json!({"id": "o", "table": "orders"})).await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 'ann', 's')"]).await;
    assert_eq!(client.rows(1, "id").await, ["insert 1"]);
    client.send(json!({"type": "auth", "token": deployment.token(json!({"sub": "ann"}))})).await;
    assert_eq!(client.expect("error").await["code"], "subject_changed");
    client.send(json!({"type": "auth", "token": deployment.token(json!({"sub": "eve"}))})).await;
    client.expect("authenticated").await;
    deployment
        .execute(&[
            "INSERT INTO orders VALUES (2, 'ann', 's')",
            "INSERT INTO orders VALUES (3, 'eve', 's')",
        ])
        .await;
    assert_eq!(client.rows(1, "id").await, ["insert 3"]);
    client.send(json!({"type": "auth", "token": "nonsense"})).await;
    assert_eq!(client.expect("error").await["code"], "bad_token");
}

#[tokio::test]
async fn expiry_ends_what_the_token_allowed() {
    let set = ["auth.leeway_seconds=0", "auth.grace_seconds=0"];
    let deployment =
        Deployment::start(Plan { schema: SCHEMA, tables: POLICY, set: &set, ..Plan::default() })
            .await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut client = deployment.client_with(json!({"sub": "ann", "exp": now + 3})).await;
    let mut fresh = deployment.client_with(json!({"sub": "ann", "exp": now + 3})).await;
    client.subscribed(json!({"id": "o", "table": "orders"})).await;
    fresh.subscribed(json!({"id": "o", "table": "orders"})).await;
    fresh.send(json!({"type": "auth", "token": deployment.token(json!({"sub": "ann"}))})).await;
    fresh.expect("authenticated").await;
    assert_eq!(client.closed().await, 4401);
    deployment.execute(&["INSERT INTO orders VALUES (1, 'ann', 's')"]).await;
    assert_eq!(fresh.rows(1, "id").await, ["insert 1"]);
}

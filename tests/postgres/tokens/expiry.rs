//! Sessions whose token is over: told before, nothing after, and on without a gap.

use std::fs;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::json;

use crate::tokens::caught_up;
use crate::tokens::notes;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_session_rests_at_its_token_s_expiry_and_goes_on_with_another() {
    let deployment = notes("", &["auth.leeway_seconds=0", "auth.grace_seconds=25"]).await;
    let mut ann = deployment.client_with(json!({"sub": "ann", "exp": now() + 3})).await;
    ann.subscribed(json!({"id": "n", "table": "notes"})).await;
    ann.subscribed(json!({"id": "rests", "table": "notes"})).await;
    ann.send(json!({"type": "pause", "id": "rests"})).await;
    let mut told = vec![ann.frame().await, ann.frame().await];
    told.sort_by_key(|frame| frame["type"].to_string());
    assert_eq!(told[0]["type"], "expiring");
    assert!(told[0]["seconds"].as_u64().unwrap() <= 3, "{told:?}");
    assert_eq!(told[1]["type"], "paused");
    let expired = ann.expect("expired").await;
    assert_eq!(expired, json!({"type": "expired", "reason": "token_expired", "grace_seconds": 25}));
    deployment.execute(&["INSERT INTO notes VALUES (1, 'ann'), (2, 'bob')"]).await;
    let refused = ann.subscribe(json!({"id": "x", "table": "notes"})).await;
    assert_eq!((&refused["id"], &refused["code"]), (&json!("x"), &json!("token_expired")));
    ann.send(json!({"type": "ping"})).await;
    ann.expect("pong").await;
    for (token, code) in [
        (json!({"sub": "bob"}), "subject_changed"),
        (json!({"sub": "ann", "exp": now() - 5}), "bad_token"),
    ] {
        ann.send(json!({"type": "auth", "token": deployment.token(token)})).await;
        assert_eq!(ann.expect("error").await["code"], code);
    }
    ann.send(json!({"type": "auth", "token": deployment.token(json!({"sub": "ann"}))})).await;
    ann.expect("authenticated").await;
    let (row, synced) = caught_up(&mut ann).await;
    assert_eq!(row["new"]["id"], 1);
    assert_eq!(synced["id"], "n", "what its client let rest still does");
    deployment.execute(&["DELETE FROM notes"]).await;
    assert_eq!(ann.rows(1, "id").await, ["delete 1"]);
}

#[tokio::test]
async fn a_session_that_brings_no_other_token_is_closed() {
    let deployment = notes("", &["auth.leeway_seconds=0", "auth.grace_seconds=1"]).await;
    let mut ann = deployment.client_with(json!({"sub": "ann", "exp": now() + 2})).await;
    ann.subscribed(json!({"id": "n", "table": "notes"})).await;
    ann.expect("expiring").await;
    ann.expect("expired").await;
    deployment.execute(&["INSERT INTO notes VALUES (1, 'ann')"]).await;
    assert_eq!(ann.closed().await, 4401);
}

#[tokio::test]
async fn narrower_claims_count_at_once_and_an_older_token_does_not_come_back() {
    let deployment = notes("", &[]).await;
    let wide = json!({"sub": "ann", "iat": now() - 20, "aud": ["a", "b"]});
    let narrow = json!({"sub": "ann", "iat": now() - 10});
    let mut ann = deployment.client_with(wide.clone()).await;
    ann.subscribed(json!({"id": "n", "table": "notes", "where": "claims ? 'aud'"})).await;
    deployment.execute(&["INSERT INTO notes VALUES (1, 'ann')"]).await;
    assert_eq!(ann.rows(1, "id").await, ["insert 1"]);
    ann.send(json!({"type": "auth", "token": deployment.token(narrow)})).await;
    ann.expect("authenticated").await;
    deployment.execute(&["INSERT INTO notes VALUES (2, 'ann')"]).await;
    ann.send(json!({"type": "auth", "token": deployment.token(wide)})).await;
    let error = ann.expect("error").await;
    assert_eq!(error["code"], "token_older", "and the row in between is not shown: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_a_role_that_a_reload_removes_ends_what_it_allowed() {
    let deployment = notes("", &["auth.grace_seconds=0"]).await;
    let mut ann = deployment.client_with(json!({"sub": "ann"})).await;
    ann.subscribed(json!({"id": "n", "table": "notes"})).await;
    let edit = |from: &str, to: &str| {
        let text = fs::read_to_string(&deployment.files.config).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&deployment.files.config, text.replace(from, to)).unwrap();
    };
    let roles = format!("roles = ['{}']", deployment.role);
    edit(&roles, "roles = ['another']");
    deployment.daemon.control().reload().await.unwrap();
    assert_eq!(ann.expect("error").await["code"], "table_forbidden");
    edit("algorithm = 'HS256'", "algorithm = 'HS512'");
    deployment.daemon.control().reload().await.unwrap();
    assert_eq!(ann.closed().await, 4401);
}

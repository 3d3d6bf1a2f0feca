//! Why it is delivered: what is explained is what is delivered, to everybody and for every change.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;
use walcast::auth::Verifier;
use walcast::change::cursor::Cursor;
use walcast::dialect::sql::explained::Explained;
use walcast::dialect::sql::explained::to_json;
use walcast::route::explain::Explanation;
use walcast::route::explain::Lookup;
use walcast::route::explain::LookupError;
use walcast::route::subscription::Filter;
use walcast::serve::inside::InsideError;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::policies::delivery::ANN;
use crate::policies::delivery::BOB;
use crate::policies::delivery::guarded;

async fn explained(
    deployment: &Deployment,
    claims: &Value,
    cursor: &str,
    filter: Option<&str>,
) -> Result<Explanation, InsideError> {
    let verifier = Verifier::new(deployment.config.auth.clone()).unwrap();
    let claims = verifier.assume(&claims.to_string()).unwrap();
    let cursor: Cursor = cursor.parse().unwrap();
    let filter = filter.map(|text| Filter::Where(text.into()));
    let lookup = Lookup { cursor, claims, filter };
    timeout(DEADLINE, deployment.daemon.inspector().explain(lookup)).await.unwrap()
}

/// Whoever sees everything, with the cursors of all changes up to a truncate.
async fn cursors(client: &mut Client) -> Vec<String> {
    let mut cursors = Vec::new();
    loop {
        let row = client.row().await;
        cursors.push(row["cursor"].as_str().unwrap().to_owned());
        if row["op"] == "truncate" {
            return cursors;
        }
    }
}

/// Every change explained for every role, next to what each was told.
async fn agrees(identity: &str) {
    let (deployment, name) = guarded(identity).await;
    let role = |role: &str| format!("{role}_{name}");
    let filters =
        [None, Some("status = 'open'"), Some("id > 1"), Some("secret like 's%' and id < 4")];
    let mut everybody = Vec::new();
    for (of, sub) in [
        ("shopper", ANN),
        ("shopper", BOB),
        ("clerk", BOB),
        ("staff", BOB),
        ("owner", BOB),
        ("bypass", ANN),
    ] {
        for filter in filters {
            let claims = json!({ "role": role(of), "sub": sub });
            let mut client = deployment.client_with(claims.clone()).await;
            let mut request = json!({ "id": "o", "table": "orders" });
            if let Some(filter) = filter {
                request["where"] = json!(filter);
            }
            client.subscribed(request).await;
            everybody.push((claims, filter, client));
        }
    }
    let owner = json!({ "role": role("bypass"), "sub": ANN });
    let mut all = deployment.client_with(owner).await;
    all.subscribed(json!({ "id": "all", "table": "orders" })).await;
    let insert = |id: i32, owner: &str, status: &str| {
        format!("INSERT INTO orders VALUES ({id}, '{owner}', {status}, 's')")
    };
    deployment
        .execute(&[
            &insert(1, ANN, "'open'"),
            &insert(2, BOB, "'closed'"),
            &insert(3, ANN, "NULL"),
            &format!("UPDATE orders SET owner = '{BOB}' WHERE id = 1"),
            "UPDATE orders SET status = 'open'",
            "UPDATE orders SET status = 'closed', id = id + 10 WHERE id > 1",
            "DELETE FROM orders WHERE id <> 12",
            "TRUNCATE orders",
        ])
        .await;
    let cursors = cursors(&mut all).await;
    assert_eq!(cursors.len(), 12);
    for (claims, filter, mut client) in everybody {
        let mut told = BTreeMap::new();
        while told.values().all(|op| op != "truncate") {
            let row = client.row().await;
            let op = row["op"].as_str().unwrap().to_owned();
            told.insert(row["cursor"].as_str().unwrap().to_owned(), op);
        }
        for cursor in &cursors {
            let of = explained(&deployment, &claims, cursor, filter).await.unwrap();
            let json = to_json(&of);
            let expected = told.get(cursor).map(String::as_str);
            assert_eq!(json["op"].as_str(), expected, "{identity} {claims} {filter:?} {json:#}");
            assert!(!of.because.is_empty() && !json.to_string().contains(ANN), "{json}");
        }
    }
}

#[tokio::test]
async fn it_says_what_is_delivered_by_whole_old_rows() {
    Box::pin(agrees("FULL")).await;
}

#[tokio::test]
async fn it_says_what_is_delivered_by_keys() {
    Box::pin(agrees("DEFAULT")).await;
}

#[tokio::test]
async fn it_names_the_clause_that_decided() {
    let (deployment, name) = guarded("DEFAULT").await;
    let role = |role: &str| format!("{role}_{name}");
    let mut all = deployment.client_with(json!({ "role": role("bypass") })).await;
    all.subscribed(json!({ "id": "all", "table": "orders" })).await;
    let insert = format!("INSERT INTO orders VALUES (1, '{ANN}', 'closed', 's')");
    deployment
        .execute(&[
            &insert,
            "UPDATE orders SET status = 'open'",
            "DELETE FROM orders",
            "TRUNCATE orders",
        ])
        .await;
    let cursors = cursors(&mut all).await;
    let of = async |role: String, sub: &str, at: usize, filter: Option<&str>| {
        let claims = json!({ "role": role, "sub": sub });
        explained(&deployment, &claims, &cursors[at], filter).await.unwrap()
    };
    let because = async |role: &str, sub, at, filter| {
        of(format!("{role}_{name}"), sub, at, filter).await.because
    };
    assert_eq!(because("shopper", ANN, 0, None).await, "policy \"own\" admits the row");
    assert_eq!(because("shopper", BOB, 0, None).await, "no permissive policy admits the row");
    assert_eq!(
        because("clerk", ANN, 0, Some("id = 1 and status = 'open'")).await,
        "the filter, in its part status = 'open' does not admit the row"
    );
    assert_eq!(
        because("guest", ANN, 0, None).await,
        "table public.orders has row-level security, and no policy of it lets this role see a row"
    );
    assert_eq!(
        because("shopper", ANN, 0, Some("nothing = 1")).await,
        "column nothing of public.orders does not exist or may not be selected"
    );
    assert_eq!(
        because("staff", ANN, 2, None).await,
        "policy \"open\" can't be decided of the row before: the value of status is not known"
    );
    assert_eq!(because("staff", ANN, 3, None).await, "everyone is told of a truncate");

    let text = Explained(&of(role("clerk"), ANN, 1, Some("id = 1")).await).to_string();
    let text = text.replace(&name, "NAME");
    insta::assert_snapshot!(text, @r#"
    delivered as update: policy "open" admits the row
    table: public.orders, replica identity default
    role: clerk_NAME
    change: update; the row before: key; after: whole
    columns granted: id, owner, status, secret
    rows are admitted by: the table's row-level security
      permissive policy "open": (status = 'open'::text); before: unknown (the value of status is not known); after: true
      permissive policy "own": (owner = ( SELECT auth.uid() AS uid)); before: unknown (the value of owner is not known); after: true
      filter: id = 1; before: true; after: true
    limit: the stream does not carry the old value of owner, status, so rows that leave and deletes are not told; ALTER TABLE public.orders REPLICA IDENTITY FULL
    "#);

    let claims = json!({ "role": role("shopper"), "sub": ANN });
    let between = cursors[0].rsplit_once('.').unwrap().0.to_owned() + ".7";
    let lost = explained(&deployment, &claims, &between, None).await.unwrap_err();
    assert_eq!(lost, InsideError::Lookup(LookupError::NoChange));
    let (_, position) = cursors[0].split_once('.').unwrap();
    let other = format!("7.{position}");
    let lost = explained(&deployment, &claims, &other, None).await.unwrap_err();
    assert!(matches!(lost, InsideError::Lookup(LookupError::Gap(_))), "{lost}");
}

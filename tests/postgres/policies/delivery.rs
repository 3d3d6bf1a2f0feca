//! Row-level security from the commit to the socket: six roles, each kind of change, each replica
//! identity, and policies that change while clients are connected.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::support;

pub(crate) const ANN: &str = "a0000000-0000-4000-8000-00000000000a";
pub(crate) const BOB: &str = "b0000000-0000-4000-8000-00000000000b";

/// A deployment without a word about its tables, on a database with row-level security.
pub(crate) async fn guarded(identity: &str) -> (Deployment, String) {
    let database = support::database().await;
    let name = database.name.clone();
    let schema = format!(
        "CREATE SCHEMA auth;
         CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
           $$ SELECT nullif(current_setting('request.jwt.claims', true)::json ->> 'sub', '')::uuid $$;
         CREATE ROLE staff_{name}; CREATE ROLE clerk_{name} IN ROLE staff_{name};
         CREATE ROLE owner_{name}; CREATE ROLE bypass_{name} BYPASSRLS; CREATE ROLE guest_{name};
         CREATE ROLE shopper_{name};
         CREATE TABLE orders (id int PRIMARY KEY, owner uuid NOT NULL, status text, secret text);
         CREATE UNIQUE INDEX by_owner ON orders (id, owner);
         ALTER TABLE orders OWNER TO owner_{name};
         GRANT SELECT ON orders TO staff_{name}, bypass_{name}, guest_{name}, shopper_{name};
         ALTER TABLE orders REPLICA IDENTITY {identity};
         ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON orders FOR SELECT TO shopper_{name}, clerk_{name}
           USING (owner = (SELECT auth.uid()));
         CREATE POLICY open ON orders TO staff_{name} USING (status = 'open');
         CREATE POLICY nobody ON orders FOR UPDATE USING (true)"
    );
    let roles = format!(
        "auth.roles=web_{name},shopper_{name},staff_{name},clerk_{name},owner_{name},bypass_{name},\
         guest_{name}"
    );
    let set = [roles.as_str(), "rls.undecided=refuse"];
    let plan = Plan { schema: &schema, set: &set, ..Plan::default() };
    (Deployment::on(database, plan).await, name)
}

async fn client(deployment: &Deployment, role: &str, sub: &str) -> Client {
    deployment.client_with(json!({"role": role, "sub": sub})).await
}

async fn subscribed(deployment: &Deployment, role: &str, sub: &str) -> Client {
    let mut client = client(deployment, role, sub).await;
    client.subscribed(json!({"id": "o", "table": "orders"})).await;
    client
}

/// What each role is told of the same changes.
async fn told(identity: &str, expected: [&[&str]; 6]) {
    let (deployment, name) = guarded(identity).await;
    let role = |role: &str| format!("{role}_{name}");
    let mut clients = [
        subscribed(&deployment, &format!("shopper_{name}"), ANN).await,
        subscribed(&deployment, &format!("shopper_{name}"), BOB).await,
        subscribed(&deployment, &role("clerk"), BOB).await,
        subscribed(&deployment, &role("staff"), BOB).await,
        subscribed(&deployment, &role("owner"), BOB).await,
        subscribed(&deployment, &role("bypass"), ANN).await,
    ];
    let mut guest = client(&deployment, &role("guest"), ANN).await;
    let refused = guest.subscribe(json!({"id": "o", "table": "orders"})).await;
    assert_eq!(refused["code"], "no_policy", "{refused}");
    deployment
        .execute(&[
            &format!("INSERT INTO orders VALUES (1, '{ANN}', 'open', 's')"),
            &format!("INSERT INTO orders VALUES (2, '{BOB}', 'closed', 's')"),
            &format!("UPDATE orders SET owner = '{BOB}' WHERE id = 1"),
            "DELETE FROM orders WHERE id = 2",
            // What everybody is told, so that nothing more can come before it.
            "TRUNCATE orders",
        ])
        .await;
    for (at, (client, expected)) in clients.iter_mut().zip(expected).enumerate() {
        let mut rows = Vec::new();
        loop {
            let row = client.row().await;
            if row["op"] == "truncate" {
                break;
            }
            let image = if row["new"].is_null() { &row["old"] } else { &row["new"] };
            rows.push(format!("{} {}", row["op"].as_str().unwrap(), image["id"]));
        }
        assert_eq!(rows, expected, "client {at}, {identity}");
    }
}

const ALL: &[&str] = &["insert 1", "insert 2", "update 1", "delete 2"];

#[tokio::test]
async fn each_role_is_told_what_it_may_see_by_the_whole_old_row() {
    Box::pin(told(
        "FULL",
        [
            &["insert 1", "leave 1"],
            &["insert 2", "enter 1", "delete 2"],
            ALL,
            &["insert 1", "update 1"],
            ALL,
            ALL,
        ],
    ))
    .await;
}

#[tokio::test]
async fn each_role_is_told_what_it_may_see_by_the_key() {
    Box::pin(told(
        "DEFAULT",
        [
            &["insert 1"],
            &["insert 2", "update 1"],
            &["insert 1", "insert 2", "update 1"],
            &["insert 1", "update 1"],
            ALL,
            ALL,
        ],
    ))
    .await;
}

#[tokio::test]
async fn each_role_is_told_what_it_may_see_by_an_index() {
    Box::pin(told(
        "USING INDEX by_owner",
        [
            &["insert 1", "leave 1"],
            &["insert 2", "enter 1", "delete 2"],
            ALL,
            &["insert 1", "update 1"],
            ALL,
            ALL,
        ],
    ))
    .await;
}

/// Writes a row of somebody and takes it back, until a client gets a frame that is wanted.
async fn until(
    deployment: &Deployment,
    client: &mut Client,
    owner: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    for number in 0..1000 {
        let insert = format!("INSERT INTO orders VALUES ({number}, '{owner}', 'x', 's')");
        // Seen by everybody, so that there is always a frame to wait for.
        deployment.execute(&[&insert, "TRUNCATE orders"]).await;
        loop {
            let frame = client.frame().await;
            if wanted(&frame) {
                return frame;
            }
            if frame["op"] == "truncate" || frame["type"] == "error" {
                break;
            }
        }
    }
    panic!("the change of the policies has not come through");
}

#[tokio::test]
async fn policies_that_change_are_followed_while_clients_are_connected() {
    let (deployment, name) = guarded("FULL").await;
    let mut ann = subscribed(&deployment, &format!("shopper_{name}"), ANN).await;
    let of_bob = |frame: &Value| frame["op"] == "insert" && frame["new"]["owner"] == BOB;
    deployment.execute(&["ALTER POLICY own ON orders USING (owner <> auth.uid())"]).await;
    until(&deployment, &mut ann, BOB, of_bob).await;

    let function = "CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
                    $$ SELECT '00000000-0000-4000-8000-000000000000'::uuid $$";
    deployment.execute(&[function]).await;
    let of_ann = |frame: &Value| frame["op"] == "insert" && frame["new"]["owner"] == ANN;
    until(&deployment, &mut ann, ANN, of_ann).await;

    deployment.execute(&["DROP POLICY own ON orders"]).await;
    let ended = until(&deployment, &mut ann, ANN, |frame| frame["type"] == "error").await;
    assert_eq!(ended["code"], "no_policy", "{ended}");

    let grant = format!("GRANT staff_{name} TO shopper_{name}");
    deployment.execute(&[&grant]).await;
    let answer = loop {
        let answer = ann.subscribe(json!({"id": "o", "table": "orders"})).await;
        if answer["type"] == "subscribed" {
            break answer;
        }
        assert_eq!(answer["code"], "no_policy");
    };
    assert_eq!(answer["id"], "o");

    deployment
        .execute(&["ALTER POLICY open ON orders USING (EXISTS (SELECT FROM pg_class))"])
        .await;
    let ended = until(&deployment, &mut ann, ANN, |frame| frame["type"] == "error").await;
    assert_eq!(ended["code"], "policy_unsupported", "{ended}");
}

#[tokio::test]
async fn without_row_level_security_a_table_that_nobody_mentions_is_closed() {
    let (deployment, name) = guarded("FULL").await;
    let mut ann = subscribed(&deployment, &format!("shopper_{name}"), ANN).await;
    deployment.execute(&["ALTER TABLE orders DISABLE ROW LEVEL SECURITY"]).await;
    let ended = until(&deployment, &mut ann, ANN, |frame| frame["type"] == "error").await;
    assert_eq!(ended["code"], "table_closed", "{ended}");
}

#[tokio::test]
async fn claims_that_postgres_would_choke_on_are_refused() {
    let (deployment, name) = guarded("FULL").await;
    let mut mallory = client(&deployment, &format!("shopper_{name}"), "not a uuid").await;
    let answer = mallory.subscribe(json!({"id": "o", "table": "orders"})).await;
    assert_eq!(answer["code"], "policy_undecidable", "{answer}");
    assert!(!answer.to_string().contains("not a uuid"), "{answer}");
}

#[tokio::test]
async fn a_snapshot_is_judged_by_the_same_policies() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, tenant text, author text);
         ALTER TABLE notes REPLICA IDENTITY FULL;
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY tenancy ON notes AS RESTRICTIVE
           USING (tenant = current_setting('app.tenant', true));
         CREATE POLICY author ON notes
           USING (author = current_setting('request.jwt.claim.sub', true) OR author IS NULL);
         INSERT INTO notes VALUES (1, 'acme', 'ann'), (2, 'acme', 'bob'), (3, 'beta', 'ann'),
           (4, 'acme', NULL), (5, NULL, NULL)";
    let set = ["auth.settings.0.name=app.tenant", "auth.settings.0.claim=org"];
    let deployment = Deployment::start(Plan { schema, set: &set, ..Plan::default() }).await;
    let mut ann = deployment.client_with(json!({"sub": "ann", "org": "acme"})).await;
    let request = json!({"id": "n", "table": "notes", "snapshot": true, "order": ["id"]});
    ann.subscribed(request.clone()).await;
    let mut ids = Vec::new();
    loop {
        let frame = ann.frame().await;
        match frame["type"].as_str() {
            Some("row") => ids.push(frame["new"]["id"].clone()),
            Some("synced") => break,
            _ => {}
        }
    }
    assert_eq!(ids, [json!(1), json!(4)]);
    deployment.execute(&["INSERT INTO notes VALUES (6, 'beta', 'ann'), (7, 'acme', 'ann')"]).await;
    assert_eq!(ann.rows(1, "id").await, ["insert 7"]);

    // Without a tenant nothing is visible, whichever session of Postgres one asks.
    let mut stranger = deployment.client_with(json!({"sub": "ann"})).await;
    stranger.subscribed(request).await;
    loop {
        let frame = stranger.frame().await;
        assert_ne!(frame["type"], "row", "{frame}");
        if frame["type"] == "synced" {
            break;
        }
    }
}

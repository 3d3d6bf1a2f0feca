//! Policies that read other tables, from the commit to the socket: what is decided by the
//! memberships of a change's own commit, and what subscribers are told when these change.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;

pub(crate) const ANN: &str = "a0000000-0000-4000-8000-00000000000a";
pub(crate) const BOB: &str = "b0000000-0000-4000-8000-00000000000b";

/// Whoever is a member of an order's organisation sees it; members see only themselves.
pub(crate) const SCHEMA: &str = "
    CREATE SCHEMA auth;
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
      $$ SELECT nullif(current_setting('request.jwt.claims', true)::json ->> 'sub', '')::uuid $$;
    CREATE TABLE members (org int, who uuid, PRIMARY KEY (org, who));
    CREATE TABLE orders (id int PRIMARY KEY, org int, total int, note text);
    ALTER TABLE orders REPLICA IDENTITY FULL;
    ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
    ALTER TABLE members ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON members USING (who = auth.uid());
    CREATE POLICY of_members ON orders USING (
      EXISTS (SELECT FROM members m WHERE m.org = orders.org AND m.who = auth.uid()))";

async fn deployment() -> Deployment {
    Deployment::start(Plan { schema: SCHEMA, ..Plan::default() }).await
}

pub(crate) async fn subscribed(deployment: &Deployment, who: &str, more: Value) -> Client {
    let mut client = deployment.client_with(json!({"sub": who})).await;
    let mut request = json!({"id": "o", "table": "orders"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.subscribed(request).await;
    client
}

/// What a frame says, in short.
pub(crate) fn short(frame: &Value) -> String {
    let of = frame["type"].as_str().unwrap();
    match of {
        "row" => {
            let image = if frame["new"].is_null() { &frame["old"] } else { &frame["new"] };
            format!("{} {}", frame["op"].as_str().unwrap(), image["id"])
        }
        "resync" => format!("resync {}", frame["reason"].as_str().unwrap()),
        _ => of.to_owned(),
    }
}

/// What a client is told until the table is truncated, which everybody is told.
pub(crate) async fn told(client: &mut Client) -> Vec<String> {
    let mut frames = Vec::new();
    loop {
        let frame = client.frame().await;
        if frame["op"] == "truncate" {
            return frames;
        }
        frames.push(short(&frame));
    }
}

/// A client that has heard of memberships which it was given when it was there.
pub(crate) async fn member(
    deployment: &Deployment,
    who: &str,
    orgs: &[i32],
    more: Value,
) -> Client {
    let mut client = subscribed(deployment, who, more).await;
    let rows: Vec<String> = orgs.iter().map(|org| format!("({org}, '{who}')")).collect();
    deployment.execute(&[&format!("INSERT INTO members VALUES {}", rows.join(", "))]).await;
    assert_eq!(short(&client.frame().await), "resync scope_entered");
    client
}

#[tokio::test]
async fn memberships_of_the_same_commit_decide() {
    let deployment = deployment().await;
    let mut ann = subscribed(&deployment, ANN, json!({})).await;
    let mut bob = subscribed(&deployment, BOB, json!({})).await;
    deployment
        .execute(&[
            "INSERT INTO orders VALUES (1, 1, 0)",
            &format!("INSERT INTO members VALUES (1, '{ANN}')"),
            "UPDATE orders SET total = 1",
            &format!("DELETE FROM members WHERE who = '{ANN}'"),
            "UPDATE orders SET total = 2",
            "DELETE FROM orders",
            // In one transaction, whatever comes first.
            &format!(
                "BEGIN; INSERT INTO orders VALUES (2, 1, 0); INSERT INTO members VALUES (1, '{ANN}');
                 INSERT INTO orders VALUES (3, 1, 0), (4, 2, 0); COMMIT"
            ),
            "UPDATE orders SET total = 3",
            "BEGIN; DELETE FROM members; UPDATE orders SET total = 4; COMMIT",
            // A row that comes and goes is in no snapshot.
            &format!(
                "BEGIN; INSERT INTO members VALUES (1, '{BOB}'); UPDATE orders SET total = 5;
                 DELETE FROM members; COMMIT"
            ),
            // Moves from one organisation to the other, and back.
            &format!("INSERT INTO members VALUES (2, '{BOB}')"),
            "UPDATE members SET org = 1",
            "UPDATE orders SET org = 1 WHERE id = 4",
            "TRUNCATE members",
            "UPDATE orders SET total = 6",
            "TRUNCATE orders",
        ])
        .await;
    assert_eq!(
        told(&mut ann).await,
        [
            "resync scope_entered",
            "update 1",
            "resync scope_left",
            "insert 2",
            "insert 3",
            "resync scope_entered",
            "update 2",
            "update 3",
            "leave 2",
            "leave 3",
            "resync scope_left",
        ]
    );
    assert_eq!(
        told(&mut bob).await,
        ["resync scope_entered", "resync scope_changed", "enter 4", "resync scope_left"]
    );
}

/// The same, asked in the ways in which functions are.
const BY_FUNCTIONS: &[&str] = &[
    "org IN (SELECT my_orgs())",
    "org = ANY (my_org_array())",
    "EXISTS (SELECT 1 FROM my_rows() AS mine WHERE mine.org = orders.org)",
];

const OF_FUNCTIONS: &str = "
    GRANT USAGE ON SCHEMA auth TO PUBLIC;
    CREATE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
      SET search_path = public AS 'SELECT org FROM members WHERE who = auth.uid()';
    CREATE FUNCTION my_org_array() RETURNS int[] LANGUAGE sql STABLE AS
      'SELECT array_agg(m.org) FROM members m WHERE m.who = auth.uid()';
    CREATE FUNCTION my_rows() RETURNS TABLE (org int, who uuid) LANGUAGE plpgsql STABLE AS
      'BEGIN RETURN QUERY SELECT m.* FROM public.members m WHERE m.who = auth.uid(); END'";

#[tokio::test]
async fn memberships_behind_functions_are_granted_and_revoked() {
    let (tables, _) = SCHEMA.split_once("CREATE POLICY of_members").unwrap();
    for condition in BY_FUNCTIONS {
        let schema = format!(
            "{tables}{OF_FUNCTIONS}; CREATE POLICY of_members ON orders USING ({condition})"
        );
        let deployment = Deployment::start(Plan { schema: &schema, ..Plan::default() }).await;
        let mut ann = subscribed(&deployment, ANN, json!({})).await;
        let mut bob = member(&deployment, BOB, &[2], json!({})).await;
        deployment
            .execute(&[
                "INSERT INTO orders VALUES (1, 1, 0), (2, 2, 0)",
                &format!("INSERT INTO members VALUES (1, '{ANN}')"),
                "UPDATE orders SET total = 1",
                "BEGIN; UPDATE orders SET total = 2; DELETE FROM members WHERE org = 1; COMMIT",
                "UPDATE orders SET total = 3",
                "TRUNCATE orders",
            ])
            .await;
        let of_ann =
            ["resync scope_entered", "update 1", "leave 1", "resync scope_left"].map(str::to_owned);
        assert_eq!(told(&mut ann).await, of_ann, "{condition}");
        let of_bob = ["insert 2", "update 2", "update 2", "update 2"].map(str::to_owned);
        assert_eq!(told(&mut bob).await, of_bob, "{condition}");
    }
}

#[tokio::test]
async fn who_comes_back_reads_by_the_memberships_of_then() {
    let deployment = deployment().await;
    let mut ann = member(&deployment, ANN, &[1, 2], json!({})).await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 1, 0)"]).await;
    let cursor = ann.row().await["cursor"].clone();
    drop(ann);
    deployment
        .execute(&[
            "UPDATE orders SET total = 1",
            "INSERT INTO orders VALUES (2, 3, 0)",
            "DELETE FROM members WHERE org = 1",
            "UPDATE orders SET total = 2",
        ])
        .await;
    let mut ann = subscribed(&deployment, ANN, json!({"since": cursor})).await;
    // Where the stream is behind the client, it hears first that it has everything.
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.push(short(&ann.frame().await));
        heard.retain(|frame| frame != "synced");
    }
    assert_eq!(heard, ["update 1", "resync scope_left"]);
    deployment
        .execute(&["INSERT INTO orders VALUES (5, 1, 0), (6, 2, 0)", "TRUNCATE orders"])
        .await;
    assert_eq!(told(&mut ann).await, ["insert 6"]);
}

#[tokio::test]
async fn after_a_restart_what_is_known_is_delivered() {
    let deployment = deployment().await;
    let mut ann = member(&deployment, ANN, &[1], json!({})).await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 1, 0)"]).await;
    let cursor = ann.row().await["cursor"].clone();
    deployment.execute(&["INSERT INTO orders VALUES (2, 1, 0)"]).await;
    ann.row().await;
    let deployment = deployment.restart().await;
    let mut ann = subscribed(&deployment, ANN, json!({"since": &cursor})).await;
    assert_eq!(short(&ann.frame().await), "insert 2");
    assert_eq!(short(&ann.frame().await), "synced");

    // What memberships were before one changed is not known any more after another start.
    deployment
        .execute(&[&format!("INSERT INTO members VALUES (2, '{ANN}')"), "DELETE FROM orders"])
        .await;
    let deployment = deployment.restart().await;
    let mut ann = subscribed(&deployment, ANN, json!({"since": &cursor})).await;
    assert_eq!(short(&ann.frame().await), "resync state_unknown");
    deployment.execute(&["INSERT INTO orders VALUES (3, 2, 0)"]).await;
    assert_eq!(short(&ann.frame().await), "insert 3");
}

#[tokio::test]
async fn a_snapshot_is_taken_anew_when_the_scope_changes() {
    let deployment = deployment().await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 1, 0), (2, 2, 0)"]).await;
    let mut ann = member(&deployment, ANN, &[1], json!({})).await;
    ann.send(json!({"type": "unsubscribe", "id": "o"})).await;
    assert_eq!(short(&ann.frame().await), "unsubscribed");
    ann.subscribed(json!({"id": "o", "table": "orders", "snapshot": true})).await;
    assert_eq!(short(&ann.frame().await), "snapshot 1");
    assert_eq!(short(&ann.frame().await), "synced");
    deployment.execute(&[&format!("INSERT INTO members VALUES (2, '{ANN}')")]).await;
    assert_eq!(short(&ann.frame().await), "resync scope_entered");
    assert_eq!(short(&ann.frame().await), "snapshot 1");
    assert_eq!(short(&ann.frame().await), "snapshot 2");
    assert_eq!(short(&ann.frame().await), "synced");
    deployment.execute(&["UPDATE orders SET total = 1"]).await;
    assert_eq!(short(&ann.frame().await), "update 1");
    assert_eq!(short(&ann.frame().await), "update 2");
}

/// More than what is handed on at once.
const LARGE: &str =
    "INSERT INTO orders SELECT n, 1, 0, repeat('x', 1000) FROM generate_series(1, 10000) n";

#[tokio::test]
async fn a_transaction_in_parts_is_decided_by_its_end() {
    let deployment = deployment().await;
    let mut ann = member(&deployment, ANN, &[1], json!({"columns": ["id"]})).await;
    let mut bob = subscribed(&deployment, BOB, json!({"columns": ["id"]})).await;
    deployment.execute(&[LARGE]).await;
    for number in 1..=10_000 {
        assert_eq!(short(&ann.frame().await), format!("insert {number}"));
    }
    deployment
        .execute(&[
            "DELETE FROM orders",
            &format!("BEGIN; {LARGE}; UPDATE members SET who = '{BOB}'; COMMIT"),
        ])
        .await;
    for number in 1..=10_000 {
        assert_eq!(short(&ann.frame().await), format!("delete {number}"));
    }
    // Who is told goes on where the shard is, which may be inside the same transaction.
    assert_eq!(short(&ann.frame().await), "resync scope_left");
    assert_eq!(short(&bob.frame().await), "resync scope_entered");
    deployment.execute(&["UPDATE orders SET total = 1 WHERE id = 1", "TRUNCATE orders"]).await;
    let of_ann = told(&mut ann).await;
    assert!(of_ann.iter().all(|it| it == "resync scope_left"), "{of_ann:?}");
    let mut of_bob = told(&mut bob).await;
    assert_eq!(of_bob.pop().unwrap(), "update 1");
    let inside = |it: &String| it.starts_with("insert ") || it == "resync scope_entered";
    assert!(of_bob.iter().all(inside), "{:?}", of_bob.last());
}

#[tokio::test]
async fn what_can_t_be_kept_in_memory_is_asked_of_postgres() {
    // Without a key nobody could tell which row a change is of.
    let schema = SCHEMA.replace(", PRIMARY KEY (org, who)", "");
    let schema = format!("{schema}; GRANT USAGE ON SCHEMA auth TO PUBLIC");
    let deployment = Deployment::start(Plan { schema: &schema, ..Plan::default() }).await;
    deployment.execute(&[&format!("INSERT INTO members VALUES (1, '{ANN}')")]).await;
    let mut ann = subscribed(&deployment, ANN, json!({})).await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 2, 0), (2, 1, 0)"]).await;
    let mut first = short(&ann.frame().await);
    if first == "resync undecided" {
        deployment.execute(&["UPDATE orders SET id = id + 10"]).await;
        first = short(&ann.frame().await);
    }
    assert!(first == "insert 2" || first == "update 12", "{first}");
}

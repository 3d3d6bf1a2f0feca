//! Settings that no claim sets: NULL in a new session of Postgres, empty in one that was used. Only what
//! is visible in both is shown, whatever happened on the asking connections before.

use serde_json::json;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::policies::delivery::ANN;

/// What a policy says of the rows but the first, which it always shows; and which of these a client sees
/// that has no `app.x`, and one that has.
const POLICIES: [(&str, &str, bool, bool); 6] = [
    ("opens_by_null", "RETURN current_setting('app.x', true) IS NULL", false, false),
    ("opens_by_empty", "RETURN current_setting('app.x', true) = ''", false, false),
    ("opens_by_either", "RETURN coalesce(current_setting('app.x', true), '') = ''", true, false),
    ("casts", "RETURN current_setting('app.x', true)::uuid IS NULL", false, false),
    ("own", "RETURN current_setting('app.x', true)::uuid IS NOT NULL", false, true),
    (
        "dynamic",
        "EXECUTE 'SELECT current_setting(''app.x'', true) IS NULL' INTO STRICT it; RETURN it",
        false,
        false,
    ),
];

async fn subscribed(deployment: &Deployment, claims: serde_json::Value) -> Client {
    let mut client = deployment.client_with(claims).await;
    for (name, ..) in POLICIES {
        client.subscribed(json!({"id": name, "table": name})).await;
    }
    client
}

async fn deployed() -> Deployment {
    let mut schema = String::new();
    for (name, body, ..) in POLICIES {
        schema.push_str(&format!(
            "CREATE FUNCTION f_{name}(id int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
               DECLARE it boolean; BEGIN PERFORM 1; IF id = 1 THEN RETURN true; END IF; {body}; END $$;
             CREATE TABLE {name} (id int PRIMARY KEY, n int);
             ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON {name} USING (f_{name}(id));
             GRANT SELECT ON {name} TO PUBLIC;"
        ));
    }
    // Without a memory, so that every round asks.
    let set = ["rls.memo_bytes_max=0"];
    let tables = "[[auth.settings]]\nname = 'app.x'\nclaim = ['x']\n";
    let plan = Plan { schema: &schema, tables, set: &set, ..Plan::default() };
    Deployment::start(plan).await
}

#[tokio::test]
async fn what_depends_on_whether_a_setting_was_ever_set_is_not_shown() {
    let deployment = deployed().await;
    let mut ann = subscribed(&deployment, json!({"sub": ANN})).await;
    let mut bob = subscribed(&deployment, json!({"sub": ANN, "x": ANN})).await;
    for round in 0..3 {
        for (name, _, ann_sees, bob_sees) in POLICIES {
            let change = match round {
                0 => format!("INSERT INTO {name} VALUES (2, 0); INSERT INTO {name} VALUES (1, 0)"),
                _ => format!(
                    "UPDATE {name} SET n = {round} WHERE id = 2;
                     UPDATE {name} SET n = {round} WHERE id = 1"
                ),
            };
            deployment.execute(&change.split(';').collect::<Vec<_>>()).await;
            for (who, client, sees) in [("ann", &mut ann, ann_sees), ("bob", &mut bob, bob_sees)] {
                let mut ids = Vec::new();
                while ids.last() != Some(&json!(1)) {
                    let row = client.row().await;
                    assert_eq!(row["id"], name, "{row}");
                    ids.push(row["new"]["id"].clone());
                }
                assert_eq!(ids.len() == 2, sees, "{who}, {name}, round {round}");
            }
        }
    }
}

#[tokio::test]
async fn nor_is_it_in_a_snapshot() {
    let deployment = deployed().await;
    for (name, ..) in POLICIES {
        deployment.execute(&[&format!("INSERT INTO {name} VALUES (1, 0), (2, 0)")]).await;
    }
    for round in 0..2 {
        for (who, claims) in [("bob", json!({"sub": ANN, "x": ANN})), ("ann", json!({"sub": ANN}))]
        {
            let mut client = deployment.client_with(claims).await;
            for (name, _, ann_sees, bob_sees) in POLICIES {
                // An error for one row is the whole query's.
                if who == "ann" && ["casts", "own"].contains(&name) {
                    continue;
                }
                let request = json!({"id": name, "table": name, "snapshot": true, "order": ["id"]});
                client.subscribed(request).await;
                let mut ids = Vec::new();
                loop {
                    let frame = client.frame().await;
                    if frame["type"] == "synced" {
                        break;
                    }
                    ids.push(frame["new"]["id"].clone());
                }
                let sees = if who == "ann" { ann_sees } else { bob_sees };
                let expected = if sees { vec![json!(1), json!(2)] } else { vec![json!(1)] };
                assert_eq!(ids, expected, "{who}, {name}, round {round}");
            }
        }
    }
}

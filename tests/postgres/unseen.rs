//! What somebody can't see must not show in another way: not in a batch with others who can, not in
//! what a refusal says, not in the numbers.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;
use tungstenite::client::IntoClientRequest;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Http;
use crate::support;

const PEOPLE: [&str; 3] = ["ann", "bob", "cid"];
const ROLES: [&str; 4] = ["own", "open", "all", "none"];

/// Two tables with the same policies, one of them through a function about which Postgres is asked.
async fn mixed() -> (Deployment, String) {
    let database = support::database().await;
    let of = database.name.clone();
    let mut schema = String::from(
        "CREATE SCHEMA auth;
         CREATE FUNCTION auth.sub() RETURNS text LANGUAGE sql STABLE AS
           $$ SELECT current_setting('request.jwt.claims', true)::json ->> 'sub' $$;
         CREATE FUNCTION auth.same(text) RETURNS boolean LANGUAGE plpgsql STABLE AS
           $$ BEGIN PERFORM 1; IF $1 IS NULL THEN RETURN NULL; END IF; RETURN $1 = auth.sub(); END $$;
         GRANT USAGE ON SCHEMA auth TO PUBLIC;",
    );
    for role in ROLES {
        schema.push_str(&format!("CREATE ROLE {role}_{of};"));
    }
    for (table, own) in [("notes", "owner = auth.sub()"), ("asks", "auth.same(owner)")] {
        schema.push_str(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, owner text, status text, secret text);
             ALTER TABLE {table} REPLICA IDENTITY FULL;
             ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
             GRANT SELECT (id, owner, status) ON {table} TO own_{of}, open_{of}, all_{of}, none_{of};
             CREATE POLICY own ON {table} TO own_{of} USING ({own});
             CREATE POLICY open ON {table} TO open_{of} USING (status = 'open' AND {own} IS NOT NULL);
             CREATE POLICY every ON {table} TO all_{of} USING ({own} OR true);
             CREATE POLICY nothing ON {table} TO none_{of} USING ({own} AND false);"
        ));
    }
    let roles: Vec<String> = ROLES.iter().map(|role| format!("{role}_{of}")).collect();
    let roles = format!("auth.roles=web_{of},{}", roles.join(","));
    let set = [roles.as_str()];
    let plan = Plan { schema: &schema, set: &set, ..Plan::default() };
    (Deployment::on(database, plan).await, of)
}

/// The rows that are written: id, owner, status.
fn rows() -> Vec<(i64, &'static str, &'static str)> {
    let statuses = ["open", "closed"];
    let pairs = PEOPLE.iter().flat_map(|owner| statuses.map(|status| (*owner, status)));
    (1..).zip(pairs).map(|(id, (owner, status))| (id, owner, status)).collect()
}

fn sees(role: &str, sub: &str, owner: &str, status: &str) -> bool {
    match role {
        "own" => owner == sub,
        "open" => status == "open",
        "all" => true,
        _ => false,
    }
}

/// Everybody of every role subscribes so many times; each subscription is told its own rows, and all
/// of them of the same transaction.
async fn each_gets_its_own(table: &str, times: usize) -> Deployment {
    let (deployment, of) = mixed().await;
    let mut clients = Vec::new();
    for role in ROLES {
        for sub in PEOPLE {
            let claims = json!({"role": format!("{role}_{of}"), "sub": sub});
            let mut client: Client = deployment.client_with(claims).await;
            for number in 0..times {
                client.subscribed(json!({"id": number, "table": table})).await;
            }
            clients.push((role, sub, client));
        }
    }
    let values: Vec<String> = rows()
        .iter()
        .map(|(id, owner, status)| format!("({id}, '{owner}', '{status}', 'hidden')"))
        .collect();
    let insert = format!("INSERT INTO {table} VALUES {}", values.join(", "));
    deployment.execute(&[&insert, &format!("TRUNCATE {table}")]).await;
    for (role, sub, mut client) in clients {
        let expected: Vec<i64> = rows()
            .into_iter()
            .filter(|(_, owner, status)| sees(role, sub, owner, status))
            .map(|(id, ..)| id)
            .collect();
        let mut told: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut ended = 0;
        while ended < times {
            let row = client.row().await;
            assert!(!row.to_string().contains("hidden"), "{row}");
            if row["op"] == "truncate" {
                ended += 1;
            } else {
                let id = row["new"]["id"].as_i64().unwrap();
                told.entry(row["id"].to_string()).or_default().push(id);
            }
        }
        assert_eq!(told.len(), if expected.is_empty() { 0 } else { times }, "{role} {sub}");
        assert!(told.values().all(|told| *told == expected), "{role} {sub}: {told:?}");
    }
    deployment
}

#[tokio::test]
async fn twelve_hundred_subscribers_of_mixed_roles_each_get_their_own() {
    each_gets_its_own("notes", 100).await;
}

#[tokio::test]
async fn a_batch_of_mixed_roles_is_asked_for_each_in_its_own_name() {
    let deployment = each_gets_its_own("asks", 4).await;
    assert!(deployment.daemon.metrics().verdicts.questions.get() > 0, "nobody was asked");
}

/// A refusal as a client sees it, without what the client itself has sent.
async fn refusal(client: &mut Client, request: Value, sent: &str) -> Value {
    let answer = client.subscribe(request).await;
    assert_eq!(answer["type"], "error", "{answer}");
    serde_json::from_str(&answer.to_string().replace(sent, "IT")).unwrap()
}

#[tokio::test]
async fn a_hidden_column_and_one_that_is_not_there_are_refused_alike() {
    let (deployment, of) = mixed().await;
    deployment.execute(&["INSERT INTO notes VALUES (1, 'bob', 'open', 'hidden')"]).await;
    let claims = json!({"role": format!("own_{of}"), "sub": "ann"});
    let mut client = deployment.client_with(claims).await;
    for form in ["where", "filter", "columns"] {
        let mut answers = Vec::new();
        for column in ["secret", "absent"] {
            let value = match form {
                "where" => json!(format!("{column} = 'hidden'")),
                "filter" => json!(format!("{column}=eq.hidden")),
                _ => json!([column]),
            };
            let mut request = json!({"id": 1, "table": "notes"});
            request[form] = value;
            answers.push(refusal(&mut client, request, column).await);
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0]["code"], "column_forbidden", "{form}");
    }
}

#[tokio::test]
async fn numbers_have_no_table_tenant_or_value_in_them() {
    let (deployment, of) = mixed().await;
    let role = format!("own_{of}");
    let claims = json!({"role": role, "sub": "sub-of-ann", "org": "org-of-ann"});
    let mut ann = deployment.client_with(claims).await;
    let request = json!({"id": "id-of-ann", "table": "notes", "where": "status <> 'whispered'"});
    ann.subscribed(request).await;
    deployment.execute(&["INSERT INTO notes VALUES (77, 'sub-of-ann', 'open', 'hidden')"]).await;
    assert_eq!(ann.rows(1, "id").await, ["insert 77"]);
    let mut http = Http::connect(deployment.daemon.admin_address().unwrap()).await;
    let (_, text) = http.text("/metrics").await;
    assert!(text.contains("walcast_route_changes_total"), "{text}");
    for word in ["notes", "of-ann", "hidden", "whispered", "77,", &role] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

#[tokio::test]
async fn what_is_secret_is_never_compressed_beside_what_somebody_else_wrote() {
    let (deployment, _) = mixed().await;
    let mut request = deployment.url().into_client_request().unwrap();
    let offer = "permessage-deflate; client_max_window_bits".parse().unwrap();
    request.headers_mut().insert("sec-websocket-extensions", offer);
    let (_, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers().get("sec-websocket-extensions"), None);
}

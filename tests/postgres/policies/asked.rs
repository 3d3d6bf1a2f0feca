//! Policies that are not decided in process: Postgres is asked about every image, from the commit to
//! the socket.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::policies::delivery::ANN;
use crate::policies::delivery::BOB;
use crate::support;

/// A table whose policies are not decided here: branches in plpgsql, a regular expression, the time,
/// an error for some rows.
async fn asked(identity: &str, set: &[&str]) -> (Deployment, String) {
    let database = support::database().await;
    let name = database.name.clone();
    let schema = format!(
        "CREATE TABLE members (docs int NOT NULL, member uuid NOT NULL, PRIMARY KEY (docs, member));
         ALTER TABLE members REPLICA IDENTITY FULL;
         CREATE TABLE docs (id int PRIMARY KEY, owner uuid, title text, big text);
         ALTER TABLE docs REPLICA IDENTITY {identity};
         CREATE FUNCTION subject() RETURNS uuid LANGUAGE plpgsql STABLE AS $$
           BEGIN RETURN nullif(current_setting('request.jwt.claims', true)::json ->> 'sub', '')::uuid; END $$;
         CREATE FUNCTION may(doc int, owner uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
           BEGIN
             IF owner = subject() THEN RETURN true; END IF;
             RETURN EXISTS (SELECT FROM members m WHERE m.docs = doc AND m.member = subject());
           END $$;
         CREATE ROLE member_{name}; CREATE ROLE reader_{name}; CREATE ROLE timed_{name};
         CREATE ROLE broken_{name}; CREATE ROLE barred_{name}; CREATE ROLE guest_{name};
         GRANT SELECT ON docs, members TO PUBLIC;
         ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
         CREATE POLICY members ON docs TO member_{name}, barred_{name} USING (may(id, owner));
         CREATE POLICY barred ON docs AS RESTRICTIVE TO barred_{name} USING (title ~ '^[a-m]');
         CREATE POLICY titles ON docs TO reader_{name} USING (title ~* '^\\w+ report$');
         CREATE POLICY now ON docs TO timed_{name} USING (now() > '2000-01-01' AND id % 2 = 0);
         CREATE POLICY broken ON docs TO broken_{name} USING (1 / (id - 2) IS NOT NULL)"
    );
    let roles = format!(
        "auth.roles=web_{name},member_{name},reader_{name},timed_{name},broken_{name},barred_{name},\
         guest_{name}"
    );
    let set: Vec<&str> = [roles.as_str()].into_iter().chain(set.iter().copied()).collect();
    let plan = Plan { schema: &schema, set: &set, ..Plan::default() };
    (Deployment::on(database, plan).await, name)
}

async fn subscribed(deployment: &Deployment, role: &str, sub: &str) -> Client {
    let mut client = deployment.client_with(json!({"role": role, "sub": sub})).await;
    client.subscribed(json!({"id": "d", "table": "docs"})).await;
    client
}

/// Rows up to the first truncate, each as `op` and `id`.
async fn until_truncate(client: &mut Client) -> Vec<String> {
    let mut rows = Vec::new();
    loop {
        let row = client.row().await;
        if row["op"] == "truncate" {
            return rows;
        }
        rows.push(shown(&row));
    }
}

fn shown(row: &Value) -> String {
    let image = if row["new"].is_null() { &row["old"] } else { &row["new"] };
    format!("{} {}", row["op"].as_str().unwrap(), image["id"])
}

#[tokio::test]
async fn each_role_is_told_what_postgres_says_that_it_sees() {
    let (deployment, name) = asked("FULL", &[]).await;
    let role = |role: &str| format!("{role}_{name}");
    let mut clients = [
        subscribed(&deployment, &role("member"), ANN).await,
        subscribed(&deployment, &role("member"), BOB).await,
        subscribed(&deployment, &role("reader"), BOB).await,
        subscribed(&deployment, &role("timed"), BOB).await,
        subscribed(&deployment, &role("broken"), BOB).await,
        subscribed(&deployment, &role("barred"), ANN).await,
    ];
    deployment
        .execute(&[
            &format!("INSERT INTO docs VALUES (1, '{ANN}', 'annual report'), (2, '{BOB}', 'x')"),
            &format!("UPDATE docs SET owner = '{BOB}', title = 'zoo' WHERE id = 1"),
            "DELETE FROM docs WHERE id = 2",
            "TRUNCATE docs",
        ])
        .await;
    let expected: [&[&str]; 6] = [
        &["insert 1", "leave 1"],
        &["insert 2", "enter 1", "delete 2"],
        &["insert 1", "leave 1"],
        &["insert 2", "delete 2"],
        &["insert 1", "update 1"],
        &["insert 1", "leave 1"],
    ];
    for (at, (client, expected)) in clients.iter_mut().zip(expected).enumerate() {
        assert_eq!(until_truncate(client).await, expected, "client {at}");
    }
}

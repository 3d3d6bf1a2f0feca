//! Tables that policies read, and what happens to them beside the stream: they grow too large, are
//! rewritten, leave the publication. What is not known is asked or told, and nothing is shown by it.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::membership::ANN;
use crate::membership::SCHEMA;
use crate::membership::member;
use crate::membership::short;
use crate::membership::subscribed;
use crate::sql::psql;
use crate::support;

/// Waits until so many tables are not held.
async fn until_unheld(deployment: &Deployment, count: u64) {
    let looked = async {
        while deployment.daemon.metrics().replicas.unheld.get() != count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, looked).await.expect("so many tables are not held");
}

/// Changes a row that the client sees until it is told, past everything else; what that was.
async fn until_told(deployment: &Deployment, client: &mut Client, id: i32) -> Vec<String> {
    let mut told = Vec::new();
    deployment.execute(&[&format!("INSERT INTO orders VALUES ({id}, 1, 0)")]).await;
    loop {
        let frame = short(&client.frame().await);
        if frame == format!("insert {id}") || frame == format!("update {id}") {
            return told;
        }
        // Where it began anew behind the change, that is seen by the next one.
        if frame.starts_with("resync") {
            let again = format!("UPDATE orders SET total = total + 1 WHERE id = {id}");
            deployment.execute(&[&again]).await;
        }
        told.push(frame);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_grows_too_large_is_asked_about_until_there_is_room() {
    let schema = format!("{SCHEMA}; GRANT USAGE ON SCHEMA auth TO PUBLIC");
    let tables = "[replicas]\nbytes_max = 1048576\n";
    let deployment = Deployment::start(Plan { schema: &schema, tables, ..Plan::default() }).await;
    let mut ann = member(&deployment, ANN, &[1], json!({})).await;
    assert_eq!(until_told(&deployment, &mut ann, 1).await, [""; 0]);
    deployment
        .execute(&[
            "INSERT INTO members SELECT n, gen_random_uuid() FROM generate_series(9, 30000) n",
        ])
        .await;
    until_unheld(&deployment, 1).await;
    // What she may see is asked of Postgres, and what she may not see is still not shown.
    deployment.execute(&["INSERT INTO orders VALUES (2, 9, 0)"]).await;
    let told = until_told(&deployment, &mut ann, 3).await;
    assert!(!told.iter().any(|frame| frame.ends_with(" 2")), "{told:?}");

    let text = fs::read_to_string(&deployment.files.config).unwrap();
    fs::write(&deployment.files.config, text.replace("1048576", "67108864")).unwrap();
    let reloaded = deployment.daemon.control().reload().await.unwrap();
    assert!(reloaded.changes.iter().all(|it| it.applied && it.name == "replicas.bytes_max"));
    assert_eq!(reloaded.changes.len(), 1);
    until_unheld(&deployment, 0).await;
    deployment.execute(&["INSERT INTO orders VALUES (4, 9, 0)"]).await;
    let told = until_told(&deployment, &mut ann, 5).await;
    assert!(!told.iter().any(|frame| frame.ends_with(" 4")), "{told:?}");
}

/// Memberships count where their level is above 0, by a function: what a policy itself names
/// Postgres does not let anybody rewrite.
fn levels() -> String {
    let schema = SCHEMA.replace("who uuid, PRIMARY", "who uuid, level int DEFAULT 1, PRIMARY");
    let (schema, _) = schema.split_once("CREATE POLICY of_members").unwrap();
    format!(
        "{schema} CREATE FUNCTION is_member(organisation int) RETURNS boolean LANGUAGE sql STABLE
           SECURITY DEFINER SET search_path = public AS $$ SELECT EXISTS (SELECT FROM members m
             WHERE m.org = organisation AND m.who = auth.uid() AND m.level > 0) $$;
         CREATE POLICY of_members ON orders USING (is_member(org))"
    )
}

/// How often what was held was found to be rewritten.
fn rewritten(deployment: &Deployment) -> u64 {
    let failures = deployment.daemon.metrics().replicas.failures.get();
    failures.get("rewritten").copied().unwrap_or(0)
}

/// What takes a membership away, and gives it back, without a change in the stream.
const REWRITES: [[&str; 2]; 3] = [
    [
        "ALTER TABLE members ALTER level TYPE int USING 0",
        "ALTER TABLE members ALTER level TYPE int USING 1",
    ],
    [
        "ALTER TABLE members DROP level, ADD level int DEFAULT 0",
        "ALTER TABLE members DROP level, ADD level int DEFAULT 1",
    ],
    [
        "ALTER PUBLICATION walcast SET (publish = 'insert'); UPDATE members SET level = 0;
         ALTER PUBLICATION walcast SET (publish = 'insert, update, delete, truncate')",
        "ALTER PUBLICATION walcast SET (publish = 'insert'); UPDATE members SET level = 1;
         ALTER PUBLICATION walcast SET (publish = 'insert, update, delete, truncate')",
    ],
];

#[tokio::test(flavor = "multi_thread")]
async fn memberships_that_are_rewritten_count_as_soon_as_that_is_known() {
    let schema = levels();
    let deployment = Deployment::start(Plan { schema: &schema, ..Plan::default() }).await;
    let mut ann = member(&deployment, ANN, &[1], json!({})).await;
    let mut id = 0;
    // Each is seen by a look, which is made every two seconds.
    for pair in REWRITES.into_iter().take(1) {
        for (takes, rewrite) in pair.into_iter().enumerate() {
            let before = rewritten(&deployment);
            for statement in rewrite.split(';') {
                deployment.execute(&[statement]).await;
            }
            let known = async {
                while rewritten(&deployment) == before
                    || deployment.daemon.metrics().replicas.unheld.get() > 0
                {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(DEADLINE, known).await.expect(rewrite);
            id += 1;
            if takes == 0 {
                deployment.execute(&[&format!("INSERT INTO orders VALUES ({id}, 1, 0)")]).await;
                continue;
            }
            let hidden = format!(" {id}");
            id += 1;
            let told = until_told(&deployment, &mut ann, id).await;
            assert!(!told.iter().any(|frame| frame.ends_with(&hidden)), "{rewrite}: {told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_event_trigger_a_rewrite_counts_from_the_next_change_on() {
    let database = support::database().await;
    let schema = levels();
    let plan = Plan { schema: &schema, ..Plan::default() };
    let deployment = Deployment::beside(&database, plan).await;
    psql(&database, "postgres", "06-fence.sql", &[]);
    let mut ann = member(&deployment, ANN, &[1], json!({})).await;
    let mut id = 0;
    for [takes, gives] in REWRITES {
        id += 2;
        let hidden = format!("INSERT INTO orders VALUES ({id}, 1, 0)");
        let statements = takes.split(';').chain([&*hidden, "SELECT 1"]).chain(gives.split(';'));
        for statement in statements {
            deployment.execute(&[statement]).await;
        }
        let told = until_told(&deployment, &mut ann, id + 1).await;
        let hidden = format!(" {id}");
        assert!(!told.iter().any(|frame| frame.ends_with(&hidden)), "{takes}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memberships_in_partitions_are_asked_of_postgres() {
    for root in ["false", "true"] {
        let schema = SCHEMA.replace(
            "PRIMARY KEY (org, who));",
            "PRIMARY KEY (org, who)) PARTITION BY LIST (org);
             CREATE TABLE first PARTITION OF members FOR VALUES IN (1);
             CREATE TABLE others PARTITION OF members DEFAULT;",
        );
        let schema = format!("{schema}; GRANT USAGE ON SCHEMA auth TO PUBLIC");
        let deployment = Deployment::start(Plan { schema: &schema, ..Plan::default() }).await;
        let publish =
            format!("ALTER PUBLICATION walcast SET (publish_via_partition_root = {root})");
        let row = format!("INSERT INTO members VALUES (1, '{ANN}')");
        deployment.execute(&[&publish, &row]).await;
        let mut ann = subscribed(&deployment, ANN, json!({})).await;
        until_told(&deployment, &mut ann, 1).await;
        // What the stream does not say: the partition is emptied, or is none any more.
        let takes = if root == "true" {
            "TRUNCATE first"
        } else {
            "ALTER TABLE members DETACH PARTITION first"
        };
        let hidden = "INSERT INTO orders VALUES (2, 1, 0)";
        deployment.execute(&[takes, hidden]).await;
        let again = format!("INSERT INTO members VALUES (3, '{ANN}')");
        deployment.execute(&[&again, "INSERT INTO orders VALUES (3, 3, 0)"]).await;
        loop {
            let frame = short(&ann.frame().await);
            assert!(!frame.ends_with(" 2"), "{root}: {frame}");
            if frame == "insert 3" || frame == "update 3" {
                break;
            }
            if frame.starts_with("resync") {
                deployment.execute(&["UPDATE orders SET total = total + 1 WHERE id = 3"]).await;
            }
        }
    }
}

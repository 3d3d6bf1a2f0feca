//! A slot that is not walcast's to make is gone while it runs, and a server whose walsender is
//! stopped.

use serde_json::json;
use tokio::time::timeout;
use walcast::ingest::State;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::support;

const SCHEMA: &str = "CREATE TABLE notes (id int PRIMARY KEY)";
const TABLES: &str = "[[table]]\nname = 'public.notes'\nopen = true\n";

/// Drops the slot under whoever reads it, and who tries again.
const DROP: &str = "DO $$ BEGIN LOOP \
    PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots \
        WHERE slot_name = current_database() AND active; \
    BEGIN PERFORM pg_drop_replication_slot(current_database()); EXIT; \
    EXCEPTION WHEN object_in_use THEN NULL; END; \
    END LOOP; END $$";

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_a_dba_made_and_somebody_dropped_ends_the_daemon_with_the_reason() {
    let database = support::database().await;
    let sql = database.connect().await;
    let make = "SELECT pg_create_logical_replication_slot(current_database(), 'pgoutput')";
    sql.execute(make, &[]).await.unwrap();
    let set = &["database.create_slot=false"];
    let plan = Plan { schema: SCHEMA, tables: TABLES, set, ..Plan::default() };
    let mut deployment = Deployment::on(database, plan).await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes"})).await;
    let mut standing = deployment.daemon.standing();

    sql.batch_execute(DROP).await.unwrap();
    let error = timeout(DEADLINE, deployment.daemon.ended()).await.unwrap();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(
        format!("{error}: {cause}").contains("does not exist, and create_slot is off"),
        "{error}: {cause}"
    );
    let stopped = standing.wait_for(|it| matches!(it.state, State::Stopped { .. }));
    let State::Stopped { why } = timeout(DEADLINE, stopped).await.unwrap().unwrap().state.clone()
    else {
        unreachable!("it was just looked at")
    };
    assert!(why.unwrap().contains("create_slot is off"));
    // Clients are asked to come back, with their cursors.
    let daemon = deployment.daemon;
    daemon.stop().await;
    assert_eq!(client.expect("restart").await["id"], json!(null));
}

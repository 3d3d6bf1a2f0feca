//! What the guides say of the database: their SQL runs, what they quote of Postgres is what it
//! says, and what walcast runs there is what they list.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;
use walcast::cli::demo::postgres::PrivateServer;

use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::support;
use crate::support::Database;

#[tokio::test]
async fn every_statement_of_the_guides_runs() {
    let server = support::server();
    let mut ran = 0;
    for guide in ["docs/database.md", "docs/troubleshooting.md", "docs/operate.md"] {
        for block in blocks(guide, "sql") {
            // Each on a database as it is when walcast has been used.
            let client = support::connect(&server.connection_string("postgres")).await;
            client.batch_execute(BEFORE).await.unwrap();
            client.batch_execute(SLOT).await.unwrap();
            for statement in block.split_inclusive(";\n") {
                let done = client.batch_execute(statement).await;
                done.unwrap_or_else(|error| panic!("{guide}: {statement}\n{error:?}"));
                ran += 1;
            }
            client.batch_execute(AFTER).await.unwrap();
        }
    }
    assert!(ran > 10, "{ran}");
}

const BEFORE: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, at date);
    CREATE TABLE events (id bigint NOT NULL);
    CREATE PUBLICATION walcast FOR TABLE orders, events;
    CREATE ROLE walcast_replication LOGIN REPLICATION;
    CREATE ROLE walcast_asking LOGIN NOINHERIT;
    GRANT CONNECT ON DATABASE postgres TO walcast_replication, walcast_asking;
";

const SLOT: &str = "
    SELECT pg_create_logical_replication_slot('walcast', 'pgoutput')
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots)
";

const AFTER: &str = "
    DROP PUBLICATION IF EXISTS walcast;
    DROP TABLE orders, events;
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'walcast_asking') THEN
            DROP OWNED BY walcast_replication, walcast_asking;
            DROP ROLE walcast_replication, walcast_asking;
        END IF;
    END $$;
";

#[tokio::test]
async fn a_table_without_an_identity_fails_as_the_guide_says() {
    let database = support::database().await;
    let client = database.connect().await;
    client
        .batch_execute("CREATE TABLE events (id int); INSERT INTO events VALUES (1)")
        .await
        .unwrap();
    client.batch_execute("CREATE PUBLICATION p FOR TABLE events").await.unwrap();
    let error = client.batch_execute("UPDATE events SET id = 2").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    let guide = read("docs/troubleshooting.md");
    for said in [error.message(), error.hint().unwrap()] {
        assert!(guide.contains(said), "{said}");
    }
}

#[tokio::test]
async fn walcast_runs_what_the_guide_lists_and_nothing_else() {
    let options = support::options()
        .parameter("log_statement", "all")
        .parameter("log_replication_commands", "on")
        .parameter("log_line_prefix", "<<%a>>");
    let server: &'static PrivateServer =
        Box::leak(Box::new(PrivateServer::start(options).unwrap()));
    let database = Database { server, name: "postgres".to_owned() };
    let deployment = Deployment::on(
        database,
        Plan {
            schema: "CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)",
            tables: "[[table]]\nname = 'public.notes'\nopen = true\n",
            ..Plan::default()
        },
    )
    .await;
    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes", "snapshot": true})).await;
    assert_eq!(client.rows(1, "id").await, ["snapshot 1"]);
    client.expect("synced").await;
    let deployment = deployment.restart().await;
    deployment.daemon.stop().await;

    let guide = read("docs/database.md");
    let (_, guide) = guide.split_once("## What walcast runs here").unwrap();
    let listed: Vec<&str> = guide
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .collect();
    let log = fs::read_to_string(server.log_path()).unwrap();
    let mut seen = BTreeSet::new();
    let entries = log.split("<<").filter_map(|entry| entry.split_once(">>LOG:  "));
    for (_, entry) in entries.filter(|(name, _)| name.starts_with("walcast")) {
        let (kind, statement) = entry.split_once(": ").unwrap_or_default();
        let is_run = kind == "statement"
            || kind.starts_with("execute ")
            || kind == "received replication command";
        if is_run {
            // Without the comment before it, and on one line.
            let lines = statement.lines().map(str::trim).skip_while(|line| line.starts_with("--"));
            let statement = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
            let known = listed.iter().find(|listed| statement.starts_with(**listed));
            let known =
                known.unwrap_or_else(|| panic!("docs/database.md does not list {statement}"));
            seen.insert(*known);
        }
    }
    println!("{seen:?}");
    for expected in
        ["START_REPLICATION SLOT", "WITH RECURSIVE published AS", "BEGIN ISOLATION LEVEL"]
    {
        assert!(seen.iter().any(|seen| seen.starts_with(expected)), "{seen:?}");
    }
}

/// A guide's code blocks of a language.
fn blocks(guide: &str, language: &str) -> Vec<String> {
    let (text, fence) = (read(guide), format!("```{language}\n"));
    let blocks = text.split(&fence).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

//! What an operator does, in psql.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;
use walcast::control::Stop;

use super::Desk;
use super::psql;
use super::text;
use crate::deployment::DEADLINE;
use crate::deployment::Plan;
use crate::program::walcast;

const SCHEMA: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, note text); \
                      CREATE TABLE hidden (id bigint)";

fn plan() -> Plan<'static> {
    Plan { schema: SCHEMA, tables: "[[table]]\nname = 'orders'\nopen = true\n", ..Plan::default() }
}

#[tokio::test]
async fn the_stream_rests_and_goes_on_as_ordered() {
    let desk = Desk::open(plan()).await;
    let mut client = desk.deployment.client().await;
    client.subscribed(json!({"id": "mine", "table": "orders"})).await;
    assert_eq!(desk.psql("PAUSE").await, "PAUSE\n");
    let mut standing = desk.deployment.daemon.standing();
    let rests = standing.wait_for(|it| it.state.name() == "paused");
    drop(timeout(DEADLINE, rests).await.unwrap().unwrap());
    desk.deployment.execute(&["INSERT INTO orders VALUES (1, 7, 'x')"]).await;
    let state = desk.psql("SHOW STATE").await;
    assert!(state.starts_with("paused|"), "{state}");
    assert_eq!(desk.psql("RESUME").await, "RESUME\n");
    assert_eq!(client.rows(1, "id").await, ["insert 1"]);
}

#[tokio::test]
async fn a_reload_says_what_differs_or_all_that_is_wrong() {
    let desk = Desk::open(plan()).await;
    let file = &desk.deployment.files.config;
    let before = fs::read_to_string(file).unwrap();
    fs::write(file, before.replace("[drain]\nseconds = 0", "[drain]\nseconds = 3")).unwrap();
    assert_eq!(desk.psql("RELOAD").await, "drain.seconds|0|3|t\n");
    fs::write(file, before.replace("[drain]\nseconds = 0", "[drain]\nsecond = 3")).unwrap();
    let output = psql(&desk.over_socket("root"), &["-c", "RELOAD"]).await;
    let said = text(&output.stderr);
    assert!(said.contains("did you mean drain.seconds?"), "{said}");
    fs::write(file, before).unwrap();
    assert_eq!(desk.psql("RELOAD").await, "drain.seconds|3|0|t\n");
}

#[tokio::test]
async fn the_daemon_is_told_to_stop_as_ordered() {
    let desk = Desk::open(plan()).await;
    let mut state = desk.deployment.daemon.control().state();
    for (order, stop) in [("DRAIN", Stop::Drain), ("SHUTDOWN", Stop::Now)] {
        assert_eq!(desk.psql(order).await, format!("{order}\n"));
        let told = state.wait_for(|state| state.stop == Some(stop));
        drop(timeout(DEADLINE, told).await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn check_finds_what_the_command_finds_by_the_configuration_that_holds() {
    let desk = Desk::open(plan()).await;
    let file = &desk.deployment.files.config;
    let before = fs::read_to_string(file).unwrap();
    let wrong = "[[table]]\nname = 'hidden'\npolicy = 'nothing = 1'\n";
    fs::write(file, format!("{before}{wrong}")).unwrap();
    desk.psql("RELOAD").await;

    let mut found = BTreeSet::new();
    for line in desk.psql("CHECK").await.lines() {
        let cells: Vec<&str> = line.split('|').collect();
        if let ["error" | "warning" | "notice", code, subject, ..] = *cells {
            found.insert((code.to_owned(), subject.to_owned()));
        }
    }
    for code in ["policy-undecidable", "configuration"] {
        assert!(found.iter().any(|(found, _)| found == code), "{code}: {found:?}");
    }

    let mut command = walcast(&["check", "--online", "--format", "json", "--config"]);
    command.arg(file);
    for flag in &desk.deployment.config.layers.flags {
        command.args(["--set", flag]);
    }
    let mut command = tokio::process::Command::from(command);
    let output = timeout(DEADLINE, command.kill_on_drop(true).output()).await.unwrap().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let expected = report["findings"].as_array().unwrap().iter();
    let expected: BTreeSet<_> = expected.map(|it| (of(it, "code"), of(it, "subject"))).collect();
    assert_eq!(found, expected);
}

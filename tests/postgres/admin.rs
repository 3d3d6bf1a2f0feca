//! What operators are told over HTTP, while the daemon works, is cut off from Postgres, and stops.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio::time::sleep;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::Stop;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Http;
use crate::support;
use crate::support::Database;

const SCHEMA: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
const TABLES: &str = "[[table]]\nname = 'public.notes'\nopen = true\n";

async fn operator(deployment: &Deployment) -> Http {
    Http::connect(deployment.daemon.admin_address().unwrap()).await
}

/// One value out of `/metrics`, by its name and labels as they are served.
async fn value(http: &mut Http, name: &str) -> Option<f64> {
    let (status, text) = http.text("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// Waits until a value is as it must become: some are told once a second.
async fn becomes(http: &mut Http, name: &str, expected: f64) {
    let began = Instant::now();
    loop {
        let found = value(http, name).await;
        if found == Some(expected) {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{name} is {found:?}, not {expected}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until `/readyz` gives this reason, or none.
async fn readiness(http: &mut Http, expected: Option<&str>) -> Value {
    let began = Instant::now();
    loop {
        let answer = http.get("/readyz", &[]).await;
        let reasons = answer.json["reasons"].as_array().unwrap();
        let ready = answer.status == StatusCode::OK;
        assert_eq!(answer.json["ready"], json!(ready));
        assert_eq!(ready, reasons.is_empty(), "{}", answer.json);
        let found = match expected {
            None => ready,
            Some(code) => reasons.iter().any(|reason| reason["code"] == code),
        };
        if found {
            return answer.json;
        }
        assert!(began.elapsed() < DEADLINE, "not {expected:?}: {}", answer.json);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_was_delivered_is_counted() {
    let plan = Plan { schema: SCHEMA, tables: TABLES, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let mut http = operator(&deployment).await;
    assert_eq!(http.text("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    readiness(&mut http, None).await;

    let mut client = deployment.client().await;
    client.subscribed(json!({"id": "n", "table": "notes"})).await;
    assert_eq!(client.subscribe(json!({"id": "x", "table": "nothing"})).await["type"], "error");
    for id in 0..5 {
        deployment.execute(&[&format!("INSERT INTO notes VALUES ({id}, 'text')")]).await;
        client.row().await;
    }
    // It is counted when the pass has ended, which the client does not wait for.
    becomes(&mut http, "walcast_delivery_commit_to_socket_seconds_count", 5.0).await;
    becomes(&mut http, "walcast_route_subscriptions", 1.0).await;
    becomes(&mut http, "walcast_sessions{dialect=\"native\"}", 1.0).await;
    for (name, expected) in [
        ("walcast_ingest_transactions_total", 5.0),
        ("walcast_ingest_changes_total", 5.0),
        ("walcast_ingest_state{state=\"streaming\"}", 1.0),
        ("walcast_route_shown_total", 5.0),
        ("walcast_refused_total{code=\"unknown_table\"}", 1.0),
        ("walcast_ready", 1.0),
    ] {
        assert_eq!(value(&mut http, name).await, Some(expected), "{name}");
    }
    let bytes = value(&mut http, "walcast_ingest_received_bytes_total").await.unwrap();
    assert!(bytes > 5.0 * 50.0, "{bytes}");
    assert!(value(&mut http, "process_resident_memory_bytes").await.unwrap() > 1e6);
    assert_eq!(http.text("/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_from_postgres_is_not_ready_until_it_is_back() {
    let server: &'static PrivateServer = Box::leak(Box::new(support::server()));
    let database = Database { server, name: "postgres".to_owned() };
    let plan = Plan { schema: SCHEMA, tables: TABLES, ..Plan::default() };
    let deployment = Deployment::on(database, plan).await;
    let mut http = operator(&deployment).await;
    readiness(&mut http, None).await;

    spawn_blocking(|| server.stop(Stop::Fast)).await.unwrap().unwrap();
    readiness(&mut http, Some("interrupted")).await;
    assert_eq!(value(&mut http, "walcast_ready").await, Some(0.0));
    assert_eq!(value(&mut http, "walcast_condition{code=\"interrupted\"}").await, Some(1.0));
    spawn_blocking(|| server.start_again()).await.unwrap().unwrap();
    readiness(&mut http, None).await;
    assert_eq!(value(&mut http, "walcast_ingest_connections_total").await, Some(2.0));
    assert!(value(&mut http, "walcast_ingest_interruptions_total").await >= Some(1.0));
}

#[tokio::test]
async fn who_drains_is_not_ready_and_still_answers() {
    let plan =
        Plan { schema: SCHEMA, tables: TABLES, set: &["drain.seconds=60"], ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let (mut http, client) = (operator(&deployment).await, deployment.client().await);
    let (hurry, hurried) = tokio::sync::oneshot::channel();
    let draining = deployment.daemon.drain(async {
        let _asked = hurried.await;
    });
    let asking = async {
        let json = readiness(&mut http, Some("draining")).await;
        // The stream may be catching up, too.
        let reasons = json["reasons"].as_array().unwrap();
        let drains = reasons.iter().find(|reason| reason["code"] == "draining").unwrap();
        assert_eq!(drains["message"], "the daemon was asked to stop");
        drop(client);
        hurry.send(()).unwrap();
    };
    tokio::join!(draining, asking);
}

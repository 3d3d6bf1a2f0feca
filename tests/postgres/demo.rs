//! The demo's database: it can be built, and its policies say what its configuration says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_postgres::Client;
use walcast::catalog;
use walcast::catalog::Catalog;
use walcast::change::relation::Relation;
use walcast::change::tuple::Cell;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::Stop;
use walcast::cli::demo::simulator;
use walcast::rule::Rule;
use walcast::rule::Verdict;
use walcast::rule::parse_where;
use walcast::tls::TlsMode;

use crate::support;
use crate::support::Database;

const CUSTOMER: &str = r#"{"sub":"c0000000-0000-4000-8000-000000000001","role":"customer"}"#;
const DRIVER: &str = r#"{"sub":"d0000000-0000-4000-8000-000000000001","role":"driver"}"#;
const OTHER: &str = r#"{"sub":"d0000000-0000-4000-8000-000000000002","role":"driver"}"#;
const MEMBER: &str = r#"{"sub":"b0000000-0000-4000-8000-000000000001","role":"merchant"}"#;
const ADMIN: &str = r#"{"sub":"a0000000-0000-4000-8000-000000000001","role":"admin"}"#;

async fn built() -> Client {
    let client = support::database().await.connect().await;
    build(&client).await;
    client
}

async fn build(client: &Client) {
    for sql in [
        include_str!("../../fixtures/demo/schema.sql"),
        include_str!("../../fixtures/demo/security.sql"),
        include_str!("../../fixtures/demo/data.sql"),
    ] {
        client.batch_execute(sql).await.unwrap();
    }
}

/// How many rows `query` gives to the holder of `claims`.
async fn seen(client: &Client, claims: &str, query: &str) -> usize {
    let role = serde_json::from_str::<Value>(claims).unwrap();
    let role = role.get("role").unwrap().as_str().unwrap();
    let begin = format!("BEGIN; SET LOCAL ROLE {role}; SET LOCAL request.jwt.claims = '{claims}'");
    client.batch_execute(&begin).await.unwrap();
    let rows = client.query(query, &[]).await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    rows.len()
}

#[tokio::test]
async fn an_order_is_seen_by_those_who_have_part_in_it() {
    let client = built().await;
    let insert = "INSERT INTO orders (customer_id, merchant_id, status, total, latitude,
                                       longitude)
                  SELECT customers.id, merchants.id, 'open', 12.50, 52.5, 13.4 FROM customers, merchants
                  WHERE customers.name = 'Ada' AND merchants.name = 'Bao House'";
    client.execute(insert, &[]).await.unwrap();
    let orders = "SELECT id FROM orders";
    for (claims, count) in [(CUSTOMER, 1), (DRIVER, 1), (OTHER, 1), (MEMBER, 1), (ADMIN, 1)] {
        assert_eq!(seen(&client, claims, orders).await, count, "open, {claims}");
    }
    let assign = "UPDATE orders SET status = 'assigned', driver_id = drivers.id
                  FROM drivers WHERE drivers.name = 'Ulf'";
    client.execute(assign, &[]).await.unwrap();
    for (claims, count) in [(CUSTOMER, 1), (DRIVER, 1), (OTHER, 0), (MEMBER, 1), (ADMIN, 1)] {
        assert_eq!(seen(&client, claims, orders).await, count, "assigned, {claims}");
    }
    assert_eq!(seen(&client, DRIVER, "SELECT name FROM customers").await, 1);
    assert_eq!(seen(&client, OTHER, "SELECT name FROM customers").await, 0);
}

#[tokio::test]
async fn what_is_private_is_not_granted() {
    let client = built().await;
    let columns = "SELECT table_name || '.' || column_name FROM information_schema.columns
                   WHERE table_schema = 'public' AND NOT has_column_privilege
                       ($1, table_name::regclass, column_name, 'SELECT') ORDER BY 1";
    let hidden = async |role: &str| -> Vec<String> {
        let rows = client.query(columns, &[&role]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let customer = hidden("customer").await;
    for column in ["drivers.licence", "drivers.phone", "merchants.tax_number"] {
        assert!(customer.iter().any(|hidden| hidden == column), "{column}: {customer:?}");
    }
    assert!(hidden("driver").await.contains(&"customers.phone".to_owned()));
    assert_eq!(hidden("admin").await, Vec::<String>::new());
}

#[tokio::test]
async fn menus_lie_in_toast() {
    let client = built().await;
    let toast = "SELECT min(pg_column_size(menu)), pg_relation_size(reltoastrelid) FROM merchants,
                 pg_class WHERE oid = 'merchants'::regclass GROUP BY reltoastrelid";
    let row = client.query_one(toast, &[]).await.unwrap();
    assert!(row.get::<_, i32>(0) > 8000);
    assert!(row.get::<_, i64>(1) > 0);
}

/// The traffic of a busy evening, then silence.
async fn populate(client: &Client, connection_string: String) {
    let settings = simulator::Settings { connection_string, seed: 2, rate: 4000 };
    let (stop, stopped) = oneshot::channel::<()>();
    let traffic = simulator::run(settings, async move { drop(stopped.await) });
    let watch = async {
        until(client, "SELECT count(*) > 150 FROM orders").await;
        stop.send(()).unwrap();
    };
    let (changes, ()) = tokio::join!(traffic, watch);
    changes.unwrap();
}

/// Every row of a table: its key, and its cells as the stream would carry them.
async fn rows(client: &Client, relation: &Relation) -> Vec<(String, Vec<Option<String>>)> {
    let names: Vec<&str> = relation.columns.iter().map(|column| &*column.name).collect();
    let cells: Vec<String> = names
        .iter()
        .map(|name| format!("CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END"))
        .collect();
    let sql =
        format!("SELECT {}, ARRAY[{}] FROM {}", key(relation), cells.join(", "), relation.name);
    client.query(&sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn key(relation: &Relation) -> String {
    let columns = relation.primary_key.iter().map(|position| &*relation.columns[*position].name);
    format!("concat_ws(' ', {})", columns.collect::<Vec<_>>().join(", "))
}

/// The keys that the holder of `claims` sees; none where the role may not read the table.
async fn visible(client: &Client, claims: &Value, relation: &Relation) -> Option<BTreeSet<String>> {
    let role = claims["role"].as_str().unwrap();
    let sql = format!("BEGIN; SET LOCAL ROLE {role}; SET LOCAL request.jwt.claims = '{claims}';");
    client.batch_execute(&sql).await.unwrap();
    let sql = format!("SELECT {} FROM {}", key(relation), relation.name);
    let rows = client.query(&sql, &[]).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    Some(rows.ok()?.iter().map(|row| row.get(0)).collect())
}

/// The rules of walcast.toml admit what Postgres shows; less where they say so, never more.
#[tokio::test]
async fn the_configured_policies_admit_what_the_database_shows() {
    let database = support::database().await;
    let client = database.connect().await;
    build(&client).await;
    client
        .batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES; SET TimeZone = 'UTC'")
        .await
        .unwrap();
    populate(&client, database.connection_string()).await;
    let catalog = Catalog::connect(catalog_settings(&database)).await.unwrap();
    let mut claims: Vec<Value> =
        [CUSTOMER, DRIVER, OTHER, ADMIN].map(|text| serde_json::from_str(text).unwrap()).into();
    let mut member: Value = serde_json::from_str(MEMBER).unwrap();
    member["merchant_id"] = json!("e0000000-0000-4000-8000-000000000002");
    claims.push(member);
    claims.push(json!({ "role": "anon" }));
    let config: toml::Table =
        toml::from_str(include_str!("../../fixtures/demo/walcast.toml")).unwrap();
    let (mut shown, mut compared) = (0, 0);
    for table in config["table"].as_array().unwrap() {
        let name = table["name"].as_str().unwrap().strip_prefix("public.").unwrap();
        let relation = Arc::clone(&catalog.current().table("public", name).unwrap().relation);
        let policy = parse_where(table["policy"].as_str().unwrap()).unwrap();
        let rows = rows(&client, &relation).await;
        for claims in &claims {
            let Some(seen) = visible(&client, claims, &relation).await else { continue };
            let rule = Rule::bind(&policy, &relation, claims).unwrap();
            for (key, cells) in &rows {
                let cells: Vec<Cell<'_>> = cells
                    .iter()
                    .map(|cell| cell.as_ref().map_or(Cell::Null, |t| Cell::Text(t.as_bytes())))
                    .collect();
                let admits = rule.evaluate(&cells) == Verdict::Admits;
                let less = name == "customers" && claims["role"] == "driver" && !admits;
                assert!(less || admits == seen.contains(key), "{name} {key} for {claims}");
                shown += usize::from(admits);
                compared += 1;
            }
        }
    }
    assert!(compared > 1000 && shown > 300, "{shown} of {compared}");
}

fn catalog_settings(database: &Database) -> catalog::Settings {
    catalog::Settings {
        connection: database.connection_string().parse().unwrap(),
        tls_mode: TlsMode::Prefer,
        tls_ca_file: None,
        publication: "walcast".into(),
        roles: Vec::new(),
        tables: Vec::new(),
    }
}

/// Waits until `query` gives true.
async fn until(client: &Client, query: &str) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !client.query_one(query, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "still not so: {query}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_traffic_goes_through_every_state() {
    let database = support::database().await;
    let client = database.connect().await;
    build(&client).await;
    let settings = simulator::Settings {
        connection_string: database.connection_string(),
        seed: 1,
        rate: 4000,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let traffic = simulator::run(settings, async move { drop(stopped.await) });
    let watch = async {
        let all = "SELECT (SELECT count(DISTINCT status) = 6 FROM orders)
                      AND (SELECT count(DISTINCT status) = 4 FROM sessions)
                      AND (SELECT bool_or(read_at IS NOT NULL) FROM messages)
                      AND (SELECT bool_or(order_id IS NOT NULL) FROM locations)
                      AND (SELECT bool_or(NOT is_open) FROM merchants)
                      AND (SELECT min(id) > 1 FROM orders)";
        until(&client, all).await;
        stop.send(()).unwrap();
    };
    let (changes, ()) = tokio::join!(traffic, watch);
    assert!(changes.unwrap() > 200);
}

#[tokio::test]
async fn the_traffic_outlives_a_restart_of_its_server() {
    let server = PrivateServer::start(support::options().parameter("fsync", "on")).unwrap();
    let connection_string = server.connection_string("postgres");
    let client = support::connect(&connection_string).await;
    build(&client).await;
    let settings = simulator::Settings { connection_string, seed: 1, rate: 500 };
    let (stop, stopped) = oneshot::channel::<()>();
    let traffic = simulator::run(settings, async move { drop(stopped.await) });
    let some = "SELECT count(*) > 5 FROM orders";
    let watch = async {
        until(&client, some).await;
        let server = tokio::task::spawn_blocking(|| {
            server.restart(Stop::Immediate).unwrap();
            server
        });
        let server = server.await.unwrap();
        let client = support::connect(&server.connection_string("postgres")).await;
        let row = client.query_one("SELECT max(id) FROM orders", &[]).await.unwrap();
        let more = format!("SELECT max(id) > {} FROM orders", row.get::<_, i64>(0));
        until(&client, &more).await;
        stop.send(()).unwrap();
        server
    };
    let (changes, _server) = tokio::join!(traffic, watch);
    changes.unwrap();
}

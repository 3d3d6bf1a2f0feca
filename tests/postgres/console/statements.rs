//! What the statements answer, in psql.

use serde_json::json;
use walcast::console::statement::STATEMENTS;
use walcast::console::statement::Spec;

use super::Desk;
use super::psql;
use super::text;
use crate::deployment::Plan;

const SCHEMA: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, note text); \
                      CREATE TABLE secrets (id bigint)";

fn plan() -> Plan<'static> {
    Plan { schema: SCHEMA, tables: "[[table]]\nname = 'orders'\nopen = true\n", ..Plan::default() }
}

#[tokio::test]
async fn psql_is_told_the_version() {
    let desk = Desk::open(plan()).await;
    assert_eq!(
        desk.psql("SHOW VERSION").await,
        concat!("walcast ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[tokio::test]
async fn every_table_has_the_columns_that_are_documented() {
    let desk = Desk::open(plan()).await;
    // Those in capitals alone can be said as they are written.
    let plain = |spec: &&Spec| !spec.form.contains('…') && !spec.columns.is_empty();
    for spec in STATEMENTS.iter().filter(plain) {
        let statement = spec.form.replace(" [LIMIT n]", "");
        let output = psql(
            &desk.over_socket("root"),
            &["-A", "-F", "|", "-P", "footer=off", "-c", &statement],
        )
        .await;
        assert!(output.status.success(), "{statement}: {}", text(&output.stderr));
        let printed = text(&output.stdout);
        let expected: Vec<&str> = spec.columns.iter().map(|column| column.name).collect();
        assert_eq!(printed.lines().next().unwrap(), expected.join("|"), "{statement}");
    }
}

#[tokio::test]
async fn an_operator_sees_clients_and_ends_one() {
    let desk = Desk::open(plan()).await;
    let mut client = desk.deployment.client_with(json!({"sub": "ann"})).await;
    client.subscribed(json!({"id": "mine", "table": "orders", "where": "customer_id = 7"})).await;
    desk.deployment.execute(&["INSERT INTO orders VALUES (1, 7, 'x')"]).await;
    client.row().await;

    let clients = desk.psql("SHOW CLIENTS").await;
    let columns: Vec<&str> = clients.trim().split('|').collect();
    assert_eq!((columns[1], columns[3], columns[4]), ("websocket", "ann", &*desk.deployment.role));
    assert_eq!((columns[7], columns[8], columns[12]), ("1", "live", "1"), "{clients}");
    assert!(columns[2].starts_with("127.0.0.1:"), "{clients}");
    let subscriptions = desk.psql("SHOW SUBSCRIPTIONS").await;
    assert!(
        subscriptions.contains("|mine|public.orders|customer_id = 7||||live|open|0-"),
        "{subscriptions}"
    );
    let groups = desk.psql("SHOW GROUPS").await;
    assert!(
        groups.contains(
            "|public.orders|customer_id = 7|customer_id = '7'|customer_id|3||native|1|1|1"
        ),
        "{groups}"
    );
    let tables = desk.psql("SHOW TABLES").await;
    assert!(tables.contains("public.orders|t|default|id|3||open|"), "{tables}");
    assert!(tables.contains("public.secrets|t|default||1||closed|"), "{tables}");
    let slots = desk.psql("SHOW SLOTS").await;
    assert!(slots.contains("|t|pgoutput|t|"), "{slots}");

    let killed = desk.psql(&format!("KILL {}", columns[0])).await;
    assert_eq!(killed, "KILL\n");
    assert_eq!(client.closed().await, 4410);
    let mut again = desk.deployment.client_with(json!({"sub": "ann"})).await;
    assert_eq!(desk.psql("KILL USER 'ann'").await, "KILL\n");
    assert_eq!(again.closed().await, 4410);
}

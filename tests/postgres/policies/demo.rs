//! The policies of the demo's domain, read from its database and compared with what it shows.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use walcast::catalog::Catalog;
use walcast::catalog::snapshot::Snapshot;
use walcast::catalog::snapshot::Table;
use walcast::change::tuple::Cell;
use walcast::rule::Rule;
use walcast::rule::Session;
use walcast::rule::Settings;
use walcast::rule::Verdict;
use walcast::rule::policy::tables::Guarded;
use walcast::rule::policy::visible;
use walcast::tls::TlsMode;

use crate::policies::oracle::Rows;
use crate::support;

const ROLES: [&str; 5] = ["anon", "customer", "driver", "merchant", "admin"];

/// Rows in every state, beside those that the demo begins with.
const ROWS: &str = "
    INSERT INTO orders (customer_id, merchant_id, driver_id, status, total, latitude, longitude)
    SELECT c.id, m.id, d.id, s.status::order_status, 12.50, 52.5, 13.4
    FROM (SELECT id FROM customers ORDER BY id LIMIT 3) c,
         (SELECT id FROM merchants ORDER BY id LIMIT 2) m,
         (SELECT id FROM drivers ORDER BY id LIMIT 2) d,
         (VALUES ('assigned'), ('picked_up')) s (status);
    INSERT INTO orders (customer_id, merchant_id, status, total, latitude, longitude)
    SELECT c.id, m.id, 'open', 12.50, 52.5, 13.4
    FROM (SELECT id FROM customers ORDER BY id LIMIT 3) c,
         (SELECT id FROM merchants ORDER BY id LIMIT 2) m;
";

/// The rule of the database's policies.
fn rule(catalog: &Snapshot, table: &Table, claims: &Value, role: &str) -> Rule {
    let Some(guards) = Guarded::guards(table, role) else { return Rule::always() };
    let settings = Settings::default();
    let session = Session::new(claims, role, &settings);
    visible(&guards, &table.relation, &session, catalog).unwrap()
}

async fn rows(client: &Client, table: &Table) -> Vec<Vec<Option<String>>> {
    let columns = table.relation.columns.iter().map(|column| format!("{:?}", column.name));
    let columns: Vec<String> = columns.collect();
    let query = format!("SELECT {} FROM {}", columns.join(", "), table.relation.name);
    let messages = client.simple_query(&query).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    });
    rows.collect()
}

/// The keys that PostgreSQL shows; absent where the role may not read the table.
async fn seen(
    client: &Client,
    table: &Table,
    claims: &Value,
    role: &str,
) -> Option<BTreeSet<String>> {
    let key = &table.relation.columns[table.relation.primary_key[0]].name;
    let begin = format!("BEGIN; SET LOCAL ROLE {role}; SET LOCAL request.jwt.claims = '{claims}'");
    client.batch_execute(&begin).await.unwrap();
    let query = format!("SELECT {key}::text FROM {}", table.relation.name);
    let answer = client.query(&query, &[]).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    Some(answer.ok()?.iter().map(|row| row.get(0)).collect())
}

#[tokio::test]
async fn the_demo_s_own_policies_are_decided_as_postgres_does() {
    let database = support::database().await;
    let client = database.connect().await;
    for sql in [
        include_str!("../../../fixtures/demo/schema.sql"),
        include_str!("../../../fixtures/demo/security.sql"),
        include_str!("../../../fixtures/demo/data.sql"),
        ROWS,
        "CREATE PUBLICATION walcast FOR ALL TABLES; SET TimeZone = 'UTC'",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let catalog = Catalog::connect(walcast::catalog::Settings {
        connection: database.connection_string().parse().unwrap(),
        tls_mode: TlsMode::Disable,
        tls_ca_file: None,
        publication: "walcast".into(),
        roles: ROLES.map(Box::from).into(),
        tables: Vec::new(),
    });
    let snapshot = catalog.await.unwrap().current();
    let mut people = vec![Value::Null];
    for table in ["customers", "drivers"] {
        let query = format!("SELECT id::text FROM {table} ORDER BY id LIMIT 3");
        let ids = client.query(&query, &[]).await.unwrap();
        people.extend(ids.iter().map(|row| json!(row.get::<_, String>(0))));
    }
    let others = Rows::of(&client, &snapshot).await;
    let (mut compared, mut shown) = (0, 0);
    for table in snapshot.tables() {
        let name = &*table.relation.name;
        let rows = rows(&client, table).await;
        for role in ROLES {
            for person in &people {
                let claims = json!({"sub": person, "role": role});
                let Some(seen) = seen(&client, table, &claims, role).await else { continue };
                let rule = rule(&snapshot, table, &claims, role);
                for row in &rows {
                    let cells = row.iter().map(Option::as_ref);
                    let cells: Vec<Cell<'_>> = cells
                        .map(|cell| cell.map_or(Cell::Null, |text| Cell::Text(text.as_bytes())))
                        .collect();
                    let key = row[table.relation.primary_key[0]].as_ref().unwrap();
                    let admits = rule.evaluate_among(&cells, &others) == Verdict::Admits;
                    assert_eq!(admits, seen.contains(key), "{name} {key}: {claims}");
                    (compared, shown) = (compared + 1, shown + usize::from(admits));
                }
            }
        }
    }
    assert!(compared > 500 && shown > 100, "{shown} of {compared}");
}

//! Rules that change between two changes: what commits after is judged by the new ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::sql::psql;
use crate::support;
use crate::support::Database;

const SCHEMA: &str = "\
    CREATE TABLE notes (id int PRIMARY KEY, owner text, secret text);\
    ALTER TABLE notes REPLICA IDENTITY FULL;\
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;\
    CREATE FUNCTION reader() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'ann'::text $$;\
    CREATE POLICY p ON notes FOR SELECT USING (owner = 'ann');\
    CREATE TABLE plain (id int PRIMARY KEY, owner text);\
    CREATE TABLE marks (id int PRIMARY KEY)";
const TABLES: &str = "[[table]]\nname = 'public.plain'\nopen = true\n\
                      [[table]]\nname = 'public.marks'\nopen = true\n";

struct Scene {
    deployment: Deployment,
    database: Arc<Database>,
    next: AtomicU32,
    marks: Mutex<Client>,
}

impl Scene {
    async fn new() -> Scene {
        let database = Arc::new(support::database().await);
        let plan = Plan { schema: SCHEMA, tables: TABLES, ..Plan::default() };
        let deployment = Deployment::beside(&database, plan).await;
        let mut marks = deployment.client().await;
        marks.subscribed(json!({"id": "m", "table": "marks"})).await;
        Scene { deployment, database, next: AtomicU32::new(1), marks: Mutex::new(marks) }
    }

    async fn subscribed(&self, table: &str) -> Client {
        let mut client = self.deployment.client().await;
        client.subscribed(json!({"id": "s", "table": table})).await;
        client
    }

    /// Changes the rules, and writes a row of each owner right after. Returns when those were judged:
    /// rules that change after that may let through what these hid.
    async fn change_and_write(&self, table: &str, ddl: &str) -> [u32; 2] {
        let ddl = ddl.replace("WEB", &self.deployment.role);
        self.deployment.sql.batch_execute(&ddl).await.unwrap();
        let first = self.next.fetch_add(2, Ordering::Relaxed);
        let columns = if table == "notes" { "(id, owner, secret)" } else { "(id, owner)" };
        let more = if table == "notes" { ", 's'" } else { "" };
        let insert = format!(
            "INSERT INTO {table} {columns} VALUES ({first}, 'ann'{more}), ({}, 'bob'{more})",
            first + 1
        );
        let mark = format!("INSERT INTO marks VALUES ({first})");
        self.deployment.execute(&[&insert, &mark]).await;
        self.marks.lock().await.row().await;
        [first, first + 1]
    }
}

fn id(frame: &Value) -> &Value {
    &frame["new"]["id"]
}

#[tokio::test]
async fn a_policy_counts_from_the_next_change_on() {
    let scene = Scene::new().await;
    let mut client = scene.subscribed("notes").await;
    let [ann, _] = scene.change_and_write("notes", "SELECT 1").await;
    assert_eq!(*id(&client.row().await), ann);
    let alter = "ALTER POLICY p ON notes USING (owner = 'bob')";
    let [_, bob] = scene.change_and_write("notes", alter).await;
    assert_eq!(*id(&client.row().await), bob, "the other policy");
    let restrict = "CREATE POLICY r ON notes AS RESTRICTIVE FOR SELECT USING (id < 0)";
    scene.change_and_write("notes", restrict).await;
    let replace = "DROP POLICY r ON notes; ALTER POLICY p ON notes USING (owner = 'ann')";
    let [ann, _] = scene.change_and_write("notes", replace).await;
    assert_eq!(*id(&client.row().await), ann, "nothing while it was restricted");
    scene.change_and_write("notes", "DROP POLICY p ON notes").await;
    assert_eq!(client.expect("error").await["code"], "no_policy");
}

#[tokio::test]
async fn a_grant_counts_from_the_next_change_on() {
    let scene = Scene::new().await;
    let mut client = scene.subscribed("notes").await;
    let columns = "REVOKE SELECT ON notes FROM WEB; GRANT SELECT (id, owner) ON notes TO WEB";
    let [ann, _] = scene.change_and_write("notes", columns).await;
    assert_eq!(client.row().await["new"], json!({"id": ann, "owner": "ann"}), "no secret");
    let revoke = "REVOKE SELECT (id, owner) ON notes FROM WEB";
    scene.change_and_write("notes", revoke).await;
    assert_eq!(client.expect("error").await["code"], "table_forbidden");
}

#[tokio::test]
async fn row_level_security_counts_from_the_next_change_on() {
    let scene = Scene::new().await;
    let mut client = scene.subscribed("plain").await;
    let [ann, bob] = scene.change_and_write("plain", "SELECT 1").await;
    assert_eq!(*id(&client.row().await), ann);
    assert_eq!(*id(&client.row().await), bob);
    let enable = "ALTER TABLE plain ENABLE ROW LEVEL SECURITY";
    scene.change_and_write("plain", enable).await;
    assert_eq!(client.expect("error").await["code"], "no_policy");
}

#[tokio::test]
async fn a_transaction_that_changes_the_rules_is_judged_by_them_itself() {
    let scene = Scene::new().await;
    let mut client = scene.subscribed("notes").await;
    scene
        .deployment
        .execute(&["BEGIN; INSERT INTO notes VALUES (1000, 'ann'); \
                    ALTER POLICY p ON notes USING (owner = 'bob'); \
                    INSERT INTO notes VALUES (1001, 'ann'), (1002, 'bob'); COMMIT"])
        .await;
    assert_eq!(*id(&client.row().await), 1002);
}

#[tokio::test]
async fn with_the_event_trigger_a_function_counts_from_the_next_change_on() {
    let scene = Scene::new().await;
    for variables in [&[][..], &[("remove", "1")], &[], &[]] {
        psql(&scene.database, "postgres", "06-fence.sql", variables);
    }
    let follow = "ALTER POLICY p ON notes USING (owner = reader())";
    scene.change_and_write("notes", follow).await;
    let mut client = scene.subscribed("notes").await;
    for owner in ["bob", "ann", "bob", "ann"] {
        let replace = format!(
            "CREATE OR REPLACE FUNCTION reader() RETURNS text LANGUAGE sql STABLE \
             AS $$ SELECT '{owner}'::text $$"
        );
        let [ann, bob] = scene.change_and_write("notes", &replace).await;
        let expected = if owner == "ann" { ann } else { bob };
        assert_eq!(*id(&client.row().await), expected, "by the body that has {owner}");
    }
    let revoke = "REVOKE USAGE ON SCHEMA public FROM PUBLIC";
    let insert = "INSERT INTO notes VALUES (1000, 'ann')";
    scene.deployment.execute(&[revoke, insert]).await;
    assert_eq!(client.expect("error").await["code"], "table_forbidden");
}

#[tokio::test]
async fn a_membership_that_is_revoked_counts_soon() {
    let scene = Scene::new().await;
    let group = format!("{}_group", scene.deployment.role);
    let role = &scene.deployment.role;
    scene
        .deployment
        .execute(&[&format!(
            "CREATE ROLE {group}; GRANT {group} TO {role}; \
             ALTER POLICY p ON notes TO {group} USING (true)"
        )])
        .await;
    let mut client = scene.subscribed("notes").await;
    scene.deployment.execute(&[&format!("REVOKE {group} FROM {role}")]).await;
    assert_eq!(client.expect("error").await["code"], "no_policy");
    scene.deployment.execute(&[&format!("DROP POLICY p ON notes; DROP ROLE {group}")]).await;
}

#[tokio::test]
async fn a_look_is_made_for_a_change_of_a_table_and_for_no_other() {
    let scene = Scene::new().await;
    let mut client = scene.subscribed("plain").await;
    let fences = || scene.deployment.daemon.metrics().catalog.fences.get();
    for _ in 0..20 {
        scene.change_and_write("plain", "SELECT 1").await;
        client.rows(2, "id").await;
    }
    let before = fences();
    assert!(before <= 2, "{before} looks for two tables that nobody changed");
    scene.change_and_write("plain", "ANALYZE plain").await;
    client.rows(2, "id").await;
    assert_eq!(fences(), before + 1, "as Postgres announces it again");
}

/// Writers write rows of two kinds, one of which the policy hides from some moment on, while it is
/// altered; each knows whether that was done before it began.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_is_delivered_by_the_policy_of_before() {
    const WRITERS: u32 = 4;
    const ROUNDS: u32 = 6;
    let scene = Arc::new(Scene::new().await);
    let mut client = scene.subscribed("notes").await;
    let (mut hidden, mut shown) = (BTreeSet::new(), BTreeSet::new());
    let mut delivered = BTreeSet::new();
    for round in 0..ROUNDS {
        let (old, new) = if round % 2 == 0 { ("ann", "bob") } else { ("bob", "ann") };
        let (altered, enough) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (scene, altered) = (Arc::clone(&scene), Arc::clone(&altered));
            let enough = Arc::clone(&enough);
            let sql = scene.database.connect().await;
            writers.spawn(async move {
                let mut after = Vec::new();
                while after.len() < 10 {
                    let is_after = altered.load(Ordering::SeqCst);
                    let first = scene.next.fetch_add(2, Ordering::Relaxed);
                    let insert = format!(
                        "INSERT INTO notes VALUES ({first}, '{old}'); \
                         INSERT INTO notes VALUES ({}, '{new}')",
                        first + 1
                    );
                    sql.batch_execute(&insert).await.unwrap();
                    enough.fetch_add(1, Ordering::Relaxed);
                    after.extend(is_after.then_some(first));
                }
                after
            });
        }
        while enough.load(Ordering::Relaxed) < 3 * WRITERS {
            tokio::task::yield_now().await;
        }
        let alter = format!("ALTER POLICY p ON notes USING (owner = '{new}')");
        scene.deployment.execute(&[&alter]).await;
        altered.store(true, Ordering::SeqCst);
        while let Some(after) = writers.join_next().await {
            for first in after.unwrap() {
                hidden.insert(first);
                shown.insert(first + 1);
            }
        }
        let last = scene.next.fetch_add(1, Ordering::Relaxed);
        let insert = format!("INSERT INTO notes VALUES ({last}, '{new}')");
        scene.deployment.execute(&[&insert]).await;
        loop {
            let row = client.row().await;
            let id = u32::try_from(id(&row).as_u64().unwrap()).unwrap();
            delivered.insert(id);
            if id == last {
                break;
            }
        }
    }
    let leaked: Vec<_> = hidden.intersection(&delivered).collect();
    assert!(leaked.is_empty(), "by the policy of before: {leaked:?}");
    let missed: Vec<_> = shown.difference(&delivered).collect();
    assert!(missed.is_empty(), "by the policy that holds: {missed:?}");
}

//! Roles that are taken away while their clients are connected: dropped, renamed, no members any more,
//! not to be acted under any more. Whoever loses by it is told, and gets nothing of what comes after.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::support;

/// A deployment with an asking role of its own, and names of roles of this test's own.
struct Scene {
    deployment: Deployment,
    asking: String,
    member: String,
    group: String,
    bypass: String,
    next: u32,
}

impl Scene {
    async fn new() -> Scene {
        let database = support::database().await;
        let name = |role: &str| format!("{role}_{}", database.name);
        let (asking, member, group) = (name("asking"), name("member"), name("group"));
        let bypass = name("bypass");
        let schema = format!(
            "CREATE ROLE {group}; CREATE ROLE {member} IN ROLE {group};
             CREATE ROLE {bypass} BYPASSRLS;
             CREATE ROLE {asking} LOGIN NOINHERIT; GRANT {member} TO {asking};
             CREATE TABLE notes (id int PRIMARY KEY, secret text);
             ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
             ALTER TABLE notes REPLICA IDENTITY FULL;
             CREATE POLICY p ON notes TO {group} USING (true);
             CREATE TABLE asks (id int PRIMARY KEY, secret text);
             ALTER TABLE asks ENABLE ROW LEVEL SECURITY;
             ALTER TABLE asks REPLICA IDENTITY FULL;
             CREATE POLICY p ON asks USING (now() > '2000-01-01' AND id > 0);
             CREATE TABLE plain (id int PRIMARY KEY);
             GRANT SELECT ON notes, asks TO {group}, {bypass}"
        );
        let url = database.server.connection_string_as(&asking, &database.name);
        let ask_url = format!("database.ask_url={url}");
        let roles = format!("auth.roles=web_{},{member},{bypass}", database.name);
        let set = [ask_url.as_str(), roles.as_str()];
        let tables = "[[table]]\nname = 'public.plain'\nopen = true\n";
        let plan = Plan { schema: &schema, tables, set: &set, ..Plan::default() };
        let deployment = Deployment::on(database, plan).await;
        Scene { deployment, asking, member, group, bypass, next: 1 }
    }

    async fn client(&self, role: &str, table: &str) -> Client {
        let mut client = self.deployment.client_with(json!({"role": role, "sub": "ann"})).await;
        client.subscribed(json!({"id": "s", "table": table})).await;
        client
    }

    /// Takes something away, and writes rows until the client is told so.
    async fn until_error(&mut self, client: &mut Client, table: &str, statement: &str) -> Value {
        self.deployment.execute(&[statement]).await;
        loop {
            let frame = self.written(client, table).await;
            if frame["type"] == "error" {
                return frame;
            }
            assert_eq!(frame["type"], "row", "{frame}");
        }
    }

    /// Writes a row; gives what a client hears next, where that may be nothing of it.
    async fn written(&mut self, client: &mut Client, table: &str) -> Value {
        let insert = format!("INSERT INTO {table} VALUES ({}, 's')", self.next);
        self.deployment.execute(&[&insert]).await;
        self.next += 1;
        client.frame().await
    }

    /// Nothing of a table comes any more: a subscription to another one, of the same session, is told
    /// of what was written later, and nothing comes before.
    async fn hears_no_more(&mut self, client: &mut Client, table: &str) {
        let [hidden, mark] = [self.next, self.next + 1];
        self.next += 2;
        client.send(json!({"type": "unsubscribe", "id": "m"})).await;
        assert_eq!(client.frame().await["code"], "unknown_id");
        let mut marks = self.deployment.client().await;
        marks.subscribed(json!({"id": "m", "table": "plain"})).await;
        let insert = format!("INSERT INTO {table} VALUES ({hidden}, 's')");
        let after = format!("INSERT INTO plain VALUES ({mark})");
        self.deployment.execute(&[&insert, &after]).await;
        assert_eq!(marks.rows(1, "id").await, [format!("insert {mark}")]);
        // What the shard had for it lies before the answer to a request.
        client.send(json!({"type": "unsubscribe", "id": "m"})).await;
        let frame = client.frame().await;
        assert_eq!(frame["code"], "unknown_id", "{frame}");
    }

    /// Takes something away from a role whose client sees notes: it is told so, and hears no more.
    async fn ends(&mut self, role: &str, statement: &str, code: &str) {
        let mut notes = self.client(role, "notes").await;
        assert_eq!(self.written(&mut notes, "notes").await["op"], "insert");
        let error = self.until_error(&mut notes, "notes", statement).await;
        assert_eq!(error["code"], code, "{error}");
        self.hears_no_more(&mut notes, "notes").await;
    }
}

#[tokio::test]
async fn a_role_that_is_dropped_ends_what_its_clients_see() {
    let mut scene = Scene::new().await;
    let member = scene.member.clone();
    let mut asks = scene.client(&member, "asks").await;
    scene.ends(&member, &format!("DROP ROLE {member}"), "table_forbidden").await;
    let error = asks.expect("error").await;
    assert_eq!(error["code"], "table_forbidden", "{error}");
    // Who comes later with such a token finds the same.
    let mut late = scene.deployment.client_with(json!({"role": member})).await;
    let answer = late.subscribe(json!({"id": "s", "table": "notes"})).await;
    assert_eq!(answer["code"], "table_forbidden", "{answer}");
    // Another role of the same name is another role.
    let create = format!("CREATE ROLE {member}");
    scene.deployment.execute(&[&create]).await;
    let answer = late.subscribe(json!({"id": "t", "table": "notes"})).await;
    assert_eq!(answer["code"], "table_forbidden", "{answer}");
}

#[tokio::test]
async fn a_role_that_inherits_no_more_ends_what_its_clients_see() {
    let mut scene = Scene::new().await;
    let (member, group) = (scene.member.clone(), scene.group.clone());
    // The grant came by the same way as the policy.
    scene.ends(&member, &format!("REVOKE {group} FROM {member}"), "table_forbidden").await;
}

#[tokio::test]
async fn a_role_that_is_renamed_is_gone() {
    let mut scene = Scene::new().await;
    let (member, group) = (scene.member.clone(), scene.group.clone());
    let rename = format!("ALTER ROLE {member} RENAME TO {group}_renamed");
    scene.ends(&member, &rename, "table_forbidden").await;
}

#[tokio::test]
async fn a_role_that_bypassed_policies_is_judged_by_them_when_it_may_not_any_more() {
    let mut scene = Scene::new().await;
    let bypass = scene.bypass.clone();
    scene.ends(&bypass, &format!("ALTER ROLE {bypass} NOBYPASSRLS"), "no_policy").await;
}

#[tokio::test]
async fn a_role_that_the_asking_one_may_not_act_under_any_more_is_not_served() {
    let mut scene = Scene::new().await;
    let (member, asking) = (scene.member.clone(), scene.asking.clone());
    let mut notes = scene.client(&member, "notes").await;
    let mut asks = scene.client(&member, "asks").await;
    assert_eq!(scene.written(&mut asks, "asks").await["op"], "insert");
    assert_eq!(scene.written(&mut notes, "notes").await["op"], "insert");
    let revoke = format!("REVOKE {member} FROM {asking}");
    let error = scene.until_error(&mut asks, "asks", &revoke).await;
    assert_eq!(error["code"], "role_forbidden", "{error}");
    scene.hears_no_more(&mut asks, "asks").await;
    let mut late = scene.deployment.client_with(json!({"role": member})).await;
    late.subscribed(json!({"id": "l", "table": "notes", "snapshot": true})).await;
    assert_eq!(late.expect("error").await["code"], "snapshot_failed");
    // What is decided in process is a matter of the role's own grants, which are as they were.
    assert_eq!(scene.written(&mut notes, "notes").await["op"], "insert");

    let grant = format!("GRANT {member} TO {asking}");
    scene.deployment.execute(&[&grant]).await;
    let mut asks = scene.client(&member, "asks").await;
    assert_eq!(scene.written(&mut asks, "asks").await["op"], "insert");
}

//! Six roles, tables with row-level security off, on and forced, each replica identity, each kind of
//! change: what every role is told is what Postgres shows it before and after, as far as the log
//! carries the row of before.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio_postgres::Client as Sql;
use tokio_postgres::SimpleQueryMessage;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::policies::delivery::ANN;
use crate::policies::delivery::BOB;
use crate::support;

const ROLES: [&str; 6] = ["shopper", "clerk", "staff", "owner", "bypass", "guest"];
/// Row-level security of a table, and the statements that make it so.
const SECURITY: [(&str, &str); 3] =
    [("off", ""), ("enabled", "ENABLE ROW LEVEL SECURITY"), ("forced", "FORCE ROW LEVEL SECURITY")];
/// Replica identities, and the columns of the row of before that the log carries.
const IDENTITIES: [(&str, &str, &[&str]); 4] = [
    ("full", "FULL", &["id", "owner", "status", "secret"]),
    ("key", "DEFAULT", &["id"]),
    ("index", "USING INDEX INDEX_OF", &["id", "owner"]),
    ("nothing", "NOTHING", &[]),
];

/// Rows by their ids, as one role sees them.
type Rows = BTreeMap<i64, Map<String, Value>>;

/// One change: the row's id before it and after it.
struct Step {
    before: Option<i64>,
    after: Option<i64>,
    sql: String,
}

/// What is done to each table. Without a replica identity only the first three can be.
fn steps(table: &str) -> Vec<Step> {
    let insert = |id: i64, values: String| Step {
        before: None,
        after: Some(id),
        sql: format!("INSERT INTO {table} VALUES ({id}, {values})"),
    };
    let update = |id: i64, after: i64, set: String| Step {
        before: Some(id),
        after: Some(after),
        sql: format!("UPDATE {table} SET {set} WHERE id = {id}"),
    };
    let delete = |id: i64| Step {
        before: Some(id),
        after: None,
        sql: format!("DELETE FROM {table} WHERE id = {id}"),
    };
    vec![
        insert(1, format!("'{ANN}', 'open', 's1'")),
        insert(2, format!("'{BOB}', 'closed', 's2'")),
        insert(3, format!("'{ANN}', NULL, 's3'")),
        update(1, 1, format!("owner = '{BOB}'")),
        update(2, 2, "status = 'open'".to_owned()),
        update(3, 4, "id = 4".to_owned()),
        update(2, 2, "secret = 't2'".to_owned()),
        update(1, 1, "status = 'closed', secret = 'u1'".to_owned()),
        update(4, 4, format!("owner = '{BOB}', status = 'open'")),
        delete(1),
        delete(4),
        delete(2),
    ]
}

/// A table with its policies. Beside those for each identity there is one of each kind of security
/// that holds every combination of what policies read, which tells what an image can be decided by.
fn table(name: &str, security: &str, identity: &str, of: &str) -> String {
    let mut sql = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, owner uuid NOT NULL, status text, secret text);
         CREATE UNIQUE INDEX {name}_of ON {name} (id, owner);
         ALTER TABLE {name} OWNER TO owner_{of};
         GRANT SELECT ON {name} TO staff_{of}, bypass_{of}, guest_{of};
         GRANT SELECT (id, owner, status) ON {name} TO shopper_{of};
         ALTER TABLE {name} REPLICA IDENTITY {};
         CREATE POLICY own ON {name} FOR SELECT TO shopper_{of}, clerk_{of}
           USING (owner = (SELECT auth.uid()));
         CREATE POLICY open ON {name} TO staff_{of} USING (status = 'open');
         CREATE POLICY nobody ON {name} FOR UPDATE USING (true);",
        identity.replace("INDEX_OF", &format!("{name}_of"))
    );
    if !security.is_empty() {
        sql.push_str(&format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, {security};"));
    }
    sql
}

fn combinations(security: &str) -> String {
    let mut values = Vec::new();
    for owner in [ANN, BOB] {
        for status in ["'open'", "'closed'", "NULL"] {
            values.push(format!("({}, '{owner}', {status}, 'x')", values.len()));
        }
    }
    format!("INSERT INTO all_{security} VALUES {};", values.join(", "))
}

async fn deployment() -> (Deployment, String) {
    let database = support::database().await;
    let of = database.name.clone();
    let mut schema = format!(
        "CREATE SCHEMA auth;
         CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
           $$ SELECT nullif(current_setting('request.jwt.claims', true)::json ->> 'sub', '')::uuid $$;
         CREATE ROLE staff_{of}; CREATE ROLE clerk_{of} IN ROLE staff_{of}; CREATE ROLE owner_{of};
         CREATE ROLE bypass_{of} BYPASSRLS; CREATE ROLE guest_{of}; CREATE ROLE shopper_{of};
         GRANT USAGE ON SCHEMA auth TO PUBLIC;"
    );
    let mut open = String::new();
    for (security, statement) in SECURITY {
        schema.push_str(&table(&format!("all_{security}"), statement, "FULL", &of));
        schema.push_str(&combinations(security));
        for (name, identity, _) in IDENTITIES {
            let name = format!("{security}_{name}");
            schema.push_str(&table(&name, statement, identity, &of));
            // Where there is row-level security it says nothing.
            open.push_str(&format!("[[table]]\nname = 'public.{name}'\nopen = true\n"));
        }
    }
    let roles: Vec<String> = ROLES.iter().map(|role| format!("{role}_{of}")).collect();
    let roles = format!("auth.roles=web_{of},{}", roles.join(","));
    let set = [roles.as_str(), "rls.undecided=refuse"];
    let plan = Plan { schema: &schema, tables: &open, set: &set, ..Plan::default() };
    (Deployment::on(database, plan).await, of)
}

/// What Postgres shows each of these roles, in the columns that it may select.
async fn shown(sql: &Sql, roles: &[&str], table: &str) -> Vec<Rows> {
    let claims = json!({"sub": ANN});
    let mut question = format!("BEGIN; SET LOCAL request.jwt.claims = '{claims}';");
    for (at, role) in roles.iter().enumerate() {
        let columns = if role.starts_with("shopper") { "id, owner, status" } else { "*" };
        question.push_str(&format!(
            "SET LOCAL ROLE {role}; \
             SELECT {at}, id, row_to_json(t) FROM (SELECT {columns} FROM {table}) t;"
        ));
    }
    question.push_str("ROLLBACK");
    let mut shown = vec![Rows::new(); roles.len()];
    for message in sql.simple_query(&question).await.unwrap() {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let cell = |at: usize| row.get(at).unwrap();
        let at: usize = cell(0).parse().unwrap();
        shown[at].insert(cell(1).parse().unwrap(), serde_json::from_str(cell(2)).unwrap());
    }
    shown
}

/// The rows of a table that hold these values in these columns.
fn like<'a>(
    all: &'a Rows,
    image: &'a Map<String, Value>,
    columns: &'a [&str],
) -> impl Iterator<Item = i64> {
    let known = columns.iter().filter(|column| ["owner", "status"].contains(column));
    let known: Vec<&&str> = known.collect();
    let fits = move |row: &Map<String, Value>| known.iter().all(|it| row[**it] == image[**it]);
    all.iter().filter(move |(_, row)| fits(row)).map(|(id, _)| *id)
}

/// One role's view of one table, through all steps.
struct Oracle {
    /// Every combination of what policies read, and those of them that the role sees.
    combinations: Rows,
    seen: Rows,
    columns: &'static [&'static str],
    /// What the role sees, and what there is, before the first step and after each.
    shown: Vec<Rows>,
    there: Vec<Rows>,
}

impl Oracle {
    /// Whether the row of before may be seen, as far as that can be known from the log.
    fn before(&self, at: usize, id: i64) -> Option<bool> {
        let image = &self.there[at][&id];
        let mut alike = like(&self.combinations, image, self.columns);
        let first = alike.next().map(|id| self.seen.contains_key(&id))?;
        let decided = alike.all(|id| self.seen.contains_key(&id) == first);
        let decided = decided.then_some(first);
        let truly = self.shown[at].contains_key(&id);
        assert!(decided.is_none_or(|decided| decided == truly), "{id}: {decided:?} {truly}");
        decided
    }

    /// What the role has to be told of a step, as a frame without what is not about rows.
    fn told(&self, at: usize, step: &Step) -> Option<Value> {
        let new = step.after.and_then(|id| self.shown[at + 1].get(&id));
        let before = step.before.map(|id| self.before(at, id));
        let of_before = |columns: &[&str]| {
            let mut old = self.shown[at][&step.before.unwrap()].clone();
            old.retain(|name, _| columns.contains(&name.as_str()));
            old
        };
        // The old row is in the log where all of it is, or the key has changed.
        let is_whole = self.columns.len() == 4;
        let moved = || {
            let keys = self.columns.iter().filter(|it| **it != "status" && **it != "secret");
            let (old, new) = (of_before(self.columns), new.unwrap());
            keys.into_iter().any(|key| old.get(*key) != new.get(*key))
        };
        match (before, step.after, new) {
            (None, _, Some(new)) => Some(json!({"op": "insert", "new": new})),
            (Some(Some(true)), Some(_), Some(new)) if is_whole || moved() => {
                Some(json!({"op": "update", "new": new, "old": of_before(self.columns)}))
            }
            (Some(Some(true) | None), Some(_), Some(new)) => {
                Some(json!({"op": "update", "new": new}))
            }
            (Some(Some(false)), Some(_), Some(new)) => Some(json!({"op": "enter", "new": new})),
            (Some(Some(true)), Some(_), None) => {
                let key = if is_whole { &["id"] } else { self.columns };
                Some(json!({"op": "leave", "old": of_before(key)}))
            }
            (Some(Some(true)), None, _) => {
                Some(json!({"op": "delete", "old": of_before(self.columns)}))
            }
            _ => None,
        }
    }
}

/// Rows that a client is told, by subscription, until all of these tables were truncated.
async fn told(client: &mut Client, tables: usize) -> BTreeMap<String, Vec<Value>> {
    let (mut told, mut truncated) = (BTreeMap::<String, Vec<Value>>::new(), 0);
    while truncated < tables {
        let mut frame = client.row().await;
        if frame["op"] == "truncate" {
            truncated += 1;
            continue;
        }
        let object = frame.as_object_mut().unwrap();
        object.retain(|name, _| ["id", "op", "new", "old"].contains(&name.as_str()));
        let id = object.remove("id").unwrap().as_str().unwrap().to_owned();
        told.entry(id).or_default().push(frame);
    }
    told
}

/// Everybody subscribes to everything; gives who may, and who is refused.
async fn subscribe(deployment: &Deployment, of: &str) -> Vec<(String, Client, Vec<String>)> {
    let mut clients = Vec::new();
    for role in ROLES {
        let role = format!("{role}_{of}");
        let mut client = deployment.client_with(json!({"role": role, "sub": ANN})).await;
        let mut tables = Vec::new();
        for (security, _) in SECURITY {
            for (identity, ..) in IDENTITIES {
                let table = format!("{security}_{identity}");
                let answer = client.subscribe(json!({"id": table, "table": table})).await;
                if answer["type"] == "subscribed" {
                    tables.push(table);
                } else {
                    assert_eq!(answer["code"], "no_policy", "{role} {table}: {answer}");
                }
            }
        }
        clients.push((role, client, tables));
    }
    clients
}

#[tokio::test]
async fn six_roles_are_told_what_postgres_shows_with_security_off_on_and_forced() {
    let (deployment, of) = deployment().await;
    let mut clients = subscribe(&deployment, &of).await;
    let mut expected: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    let names: Vec<&str> = clients.iter().map(|(role, ..)| role.as_str()).collect();
    // What there is, at the end.
    let names: Vec<&str> = names.into_iter().chain(["postgres"]).collect();
    let (sql, mut compared) = (&deployment.sql, 0);
    for (security, _) in SECURITY {
        let mut all = shown(sql, &names, &format!("all_{security}")).await;
        let combinations = all.pop().unwrap();
        for (identity, _, columns) in IDENTITIES {
            let table = format!("{security}_{identity}");
            let mut steps = steps(&table);
            steps.truncate(if columns.is_empty() { 3 } else { steps.len() });
            let nothing = || vec![Rows::new()];
            let oracle = |seen: &Rows| Oracle {
                combinations: combinations.clone(),
                seen: seen.clone(),
                columns,
                shown: nothing(),
                there: nothing(),
            };
            let mut oracles: Vec<Oracle> = all.iter().map(oracle).collect();
            for step in &steps {
                deployment.execute(&[&step.sql]).await;
                let mut shown = shown(sql, &names, &table).await;
                let there = shown.pop().unwrap();
                for (oracle, shown) in oracles.iter_mut().zip(shown) {
                    oracle.shown.push(shown);
                    oracle.there.push(there.clone());
                }
            }
            if columns.is_empty() {
                let update = format!("UPDATE {table} SET status = 'x'");
                let refused = sql.batch_execute(&update).await.unwrap_err();
                assert_eq!(refused.code().unwrap().code(), "55000", "{refused}");
            }
            deployment.execute(&[&format!("TRUNCATE {table}")]).await;
            for ((role, _, tables), oracle) in clients.iter().zip(oracles) {
                let told = steps.iter().enumerate().filter_map(|(at, step)| oracle.told(at, step));
                let told: Vec<Value> = told.collect();
                compared += steps.len();
                if tables.contains(&table) {
                    expected.insert((role.clone(), table.clone()), told);
                } else {
                    assert!(oracle.shown.iter().all(Rows::is_empty), "{role} {table}");
                }
            }
        }
    }
    for (role, client, tables) in &mut clients {
        let mut told = told(client, tables.len()).await;
        for table in tables {
            let expected = &expected[&(role.clone(), table.clone())];
            let told = told.remove(table).unwrap_or_default();
            assert_eq!(told, *expected, "{role} {table}");
        }
        assert!(told.is_empty(), "{role} {told:?}");
    }
    let refused: usize = clients.iter().map(|(_, _, tables)| 12 - tables.len()).sum();
    // A guest where there is row-level security, and the owner where it is forced.
    assert_eq!(refused, 12);
    println!("{compared} changes told to six roles, {refused} subscriptions refused");
}

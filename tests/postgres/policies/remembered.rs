//! What Postgres has said is not asked again before something changes that it hangs on.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::policies::delivery::ANN;
use crate::policies::delivery::BOB;
use crate::random::Random;
use crate::sql::psql;
use crate::support;
use crate::support::Database;

/// Documents whose policy is not decided here, because of its PERFORM. Number 0 is everybody's.
const SCHEMA: &str = "\
    CREATE TABLE members (docs int NOT NULL, member uuid NOT NULL, PRIMARY KEY (docs, member));
    ALTER TABLE members REPLICA IDENTITY FULL;
    CREATE TABLE docs (id int PRIMARY KEY, n int);
    ALTER TABLE docs REPLICA IDENTITY FULL;
    CREATE FUNCTION subject() RETURNS uuid LANGUAGE plpgsql STABLE AS $$
      BEGIN RETURN nullif(current_setting('request.jwt.claims', true)::json ->> 'sub', '')::uuid; END $$;
    CREATE FUNCTION may(doc int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
      BEGIN
        PERFORM 1;
        IF doc = 0 THEN RETURN true; END IF;
        RETURN EXISTS (SELECT FROM members m WHERE m.docs = doc AND m.member = subject());
      END $$;
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY members ON docs USING (may(id));
    GRANT SELECT ON docs, members TO PUBLIC;
    INSERT INTO docs SELECT id, 0 FROM generate_series(0, 5) AS id";

const OPEN: &str = "[[table]]\nname = 'members'\nopen = true";

async fn deployed(database: &Database, set: &[&str]) -> Deployment {
    Deployment::beside(database, Plan { schema: SCHEMA, tables: OPEN, set, ..Plan::default() })
        .await
}

async fn subscribed(deployment: &Deployment, sub: &str) -> Client {
    let mut client = deployment.client_with(json!({"sub": sub})).await;
    client.subscribed(json!({"id": "d", "table": "docs"})).await;
    client
}

/// Changes a document, and then the one that everybody sees.
async fn change(deployment: &Deployment, doc: u32, n: u32) {
    let change = format!("UPDATE docs SET n = {n} WHERE id = {doc}");
    let last = format!("UPDATE docs SET n = {n} WHERE id = 0");
    deployment.execute(&[&change, &last]).await;
}

/// What is told up to the change of the document that everybody sees.
async fn told(client: &mut Client) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let row = client.rows(1, "id").await.remove(0);
        if row == "update 0" {
            return told;
        }
        told.push(row);
    }
}

#[tokio::test]
async fn an_answer_holds_until_the_members_are_others() {
    let database = support::database().await;
    let deployment = deployed(&database, &[]).await;
    let sql = &deployment.sql;
    let joins = format!("INSERT INTO members VALUES (1, '{ANN}')");
    let leaves = "DELETE FROM members";
    sql.batch_execute(&joins).await.unwrap();
    let mut ann = subscribed(&deployment, ANN).await;
    let mut bob = subscribed(&deployment, BOB).await;
    let verdicts = &deployment.daemon.metrics().verdicts;

    change(&deployment, 1, 1).await;
    assert_eq!(told(&mut ann).await, ["update 1"]);
    assert_eq!(told(&mut bob).await, [""; 0]);
    let asked = verdicts.questions.get();
    for n in 2..20 {
        change(&deployment, 1, n).await;
        assert_eq!(told(&mut ann).await, ["update 1"]);
        assert_eq!(told(&mut bob).await, [""; 0]);
    }
    assert_eq!(verdicts.questions.get(), asked, "what is known was asked again");
    // The row before and the row after are one to the policy.
    assert!(verdicts.memo_hits.get() >= 18 * 2 * 2, "{verdicts:?}");

    // A revocation, and a grant, before a change.
    for _ in 0..3 {
        sql.batch_execute(leaves).await.unwrap();
        change(&deployment, 1, 20).await;
        assert_eq!(told(&mut ann).await, [""; 0]);
        assert_eq!(told(&mut bob).await, [""; 0]);
        sql.batch_execute(&joins).await.unwrap();
        change(&deployment, 1, 21).await;
        assert_eq!(told(&mut ann).await, ["update 1"]);
        assert_eq!(told(&mut bob).await, [""; 0]);
    }
    // In the transaction of the change: the row before it is of a time that no answer tells.
    sql.batch_execute(&format!("BEGIN; {leaves}; UPDATE docs SET n = 22 WHERE id = 1; COMMIT"))
        .await
        .unwrap();
    assert_eq!(ann.expect("resync").await["reason"], "undecided");
    change(&deployment, 1, 23).await;
    assert_eq!(told(&mut ann).await, [""; 0]);
}

#[tokio::test]
async fn an_answer_holds_until_the_catalogue_is_another() {
    let database = support::database().await;
    psql(&database, "postgres", "06-fence.sql", &[]);
    let deployment = deployed(&database, &[]).await;
    let sql = &deployment.sql;
    let body = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION may(doc int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
             BEGIN PERFORM 1; IF doc = 0 THEN RETURN true; END IF; RETURN {body}; END $$"
        )
    };
    let member = "EXISTS (SELECT FROM members m WHERE m.docs = doc AND m.member = subject())";
    sql.batch_execute(&format!("INSERT INTO members VALUES (1, '{ANN}')")).await.unwrap();
    let mut ann = subscribed(&deployment, ANN).await;
    change(&deployment, 1, 1).await;
    assert_eq!(told(&mut ann).await, ["update 1"]);
    let changes = [
        (body("false"), body("true")),
        ("ALTER POLICY members ON docs USING (may(id) AND id = 0)".to_owned(), body(member)),
        ("ALTER POLICY members ON docs USING (may(id))".to_owned(), String::new()),
        ("REVOKE SELECT ON members FROM PUBLIC".to_owned(), String::new()),
        (
            "ALTER TABLE members ALTER member TYPE uuid USING gen_random_uuid()".to_owned(),
            String::new(),
        ),
    ];
    let expected: [&[&str]; 5] = [&[], &[], &["update 1"], &["update 1"], &[]];
    let verdicts = &deployment.daemon.metrics().verdicts;
    for (at, ((first, then), expected)) in changes.iter().zip(expected).enumerate() {
        sql.batch_execute(first).await.unwrap();
        change(&deployment, 1, 2).await;
        assert_eq!(told(&mut ann).await, expected, "{at}: {first}");
        sql.batch_execute(then).await.unwrap();
        change(&deployment, 2, 2).await;
        told(&mut ann).await;
    }
    assert!(verdicts.memo_hits.get() > 0);

    // Without the grant the function raises an error, which is every row's.
    let role = &deployment.role;
    let revoke = format!("REVOKE SELECT ON members FROM {role}");
    deployment.execute(&[&revoke, "UPDATE docs SET n = 3 WHERE id = 1"]).await;
    let raised = async {
        while verdicts.errors.get() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, raised).await.expect("it was not asked again");
    deployment.execute(&[&format!("GRANT SELECT ON members TO {role}")]).await;
    change(&deployment, 2, 4).await;
    assert_eq!(told(&mut ann).await, [""; 0]);
}

#[tokio::test]
async fn what_may_change_by_itself_is_asked_each_time() {
    let parts = [
        ("steady", "STABLE", "RETURN doc < 2 OR subject() IS NULL"),
        ("volatile", "VOLATILE", "RETURN doc < 2 OR subject() IS NULL"),
        ("clock", "STABLE", "RETURN doc < 2 AND now() > '2000-01-01'"),
        ("today", "STABLE", "RETURN doc < 2 AND current_date IS NOT NULL"),
        ("spelled", "STABLE", "RETURN doc < 2 AND 'now'::text::timestamptz IS NOT NULL"),
        ("dynamic", "STABLE", "EXECUTE 'SELECT true' INTO STRICT it; RETURN it"),
        ("unlogged", "STABLE", "RETURN EXISTS (SELECT FROM loose l WHERE l.docs = doc)"),
        ("view", "STABLE", "RETURN EXISTS (SELECT FROM seen s WHERE s.docs = doc)"),
        ("catalogue", "STABLE", "RETURN EXISTS (SELECT FROM pg_roles)"),
        ("sequence", "STABLE", "RETURN (SELECT c.last_value = 1 FROM counted c)"),
        ("deep", "STABLE", "RETURN d_volatile(doc)"),
    ];
    let mut schema = "CREATE TABLE members (docs int PRIMARY KEY);
        CREATE UNLOGGED TABLE loose (docs int); CREATE VIEW seen AS SELECT * FROM members;
        CREATE SEQUENCE counted; GRANT SELECT ON loose, seen, counted TO PUBLIC;
        INSERT INTO loose VALUES (1); INSERT INTO members VALUES (1);
        CREATE FUNCTION subject() RETURNS text LANGUAGE sql STABLE AS $$
          SELECT current_setting('request.jwt.claims', true)::json ->> 'sub' $$;"
        .to_owned();
    for (name, volatility, body) in parts {
        schema.push_str(&format!(
            "CREATE FUNCTION d_{name}(doc int) RETURNS boolean LANGUAGE plpgsql {volatility} AS $$
               DECLARE it boolean; BEGIN PERFORM 1; IF doc IS NULL THEN RETURN false; END IF; {body}; END $$;
             CREATE TABLE t_{name} (id int PRIMARY KEY, n int);
             ALTER TABLE t_{name} ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON t_{name} USING (d_{name}(id));
             GRANT SELECT ON t_{name} TO PUBLIC;"
        ));
    }
    // A member would make its own policies: the table is read as it is.
    let plan = Plan { schema: &schema, tables: OPEN, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let mut client = deployment.client().await;
    let verdicts = &deployment.daemon.metrics().verdicts;
    for (name, ..) in parts {
        client.subscribed(json!({"id": name, "table": format!("t_{name}")})).await;
        let insert = format!("INSERT INTO t_{name} VALUES (1, 1)");
        let before = (verdicts.memo_hits.get(), verdicts.memo_misses.get());
        deployment.execute(&[&insert]).await;
        assert_eq!(client.rows(1, "id").await, ["insert 1"], "{name}");
        deployment.execute(&[&format!("UPDATE t_{name} SET n = 2")]).await;
        assert_eq!(client.rows(1, "id").await, ["update 1"], "{name}");
        let after = (verdicts.memo_hits.get(), verdicts.memo_misses.get());
        let counted = (after.0 - before.0, after.1 - before.1);
        let expected = if name == "steady" { (1, 1) } else { (0, 0) };
        assert_eq!(counted, expected, "{name}");
    }
}

#[tokio::test]
async fn memory_is_bounded_and_nothing_is_kept_where_it_is_none() {
    let database = support::database().await;
    let deployment = deployed(&database, &["rls.memo_bytes_max=20000"]).await;
    let mut ann = subscribed(&deployment, ANN).await;
    for n in 1..4 {
        let from = n * 1000;
        let rows = format!(
            "INSERT INTO docs SELECT id, 0 FROM generate_series({from}, {}) AS id",
            from + 199
        );
        deployment.execute(&[&rows]).await;
        change(&deployment, 1, n).await;
        assert_eq!(told(&mut ann).await, [""; 0]);
    }
    assert!(deployment.daemon.metrics().verdicts.memo_evictions.get() > 0);

    let database = support::database().await;
    let deployment = deployed(&database, &["rls.memo_bytes_max=0"]).await;
    let mut ann = subscribed(&deployment, ANN).await;
    change(&deployment, 1, 1).await;
    change(&deployment, 1, 2).await;
    assert_eq!(told(&mut ann).await, [""; 0]);
    assert_eq!(told(&mut ann).await, [""; 0]);
    let verdicts = &deployment.daemon.metrics().verdicts;
    assert_eq!((verdicts.memo_hits.get(), verdicts.memo_misses.get()), (0, 0));
}

/// Who is a member of what, and what each is told of a transaction.
#[derive(Clone, Default)]
struct Model {
    members: [[bool; 6]; 2],
    n: u32,
}

/// One transaction: its statements, and what each of the two is told, by the number of the change.
fn transaction(model: &mut Model, random: &mut Random) -> (String, [Vec<(u32, &'static str)>; 2]) {
    let mut statements = vec!["BEGIN".to_owned()];
    let (before, mut changed) = (model.members, Vec::new());
    for _ in 0..=random.below(2) {
        let (who, doc) = (random.below(2), 1 + random.below(5));
        match random.below(4) {
            0 => {
                let is = !model.members[who][doc];
                model.members[who][doc] = is;
                let name = [ANN, BOB][who];
                statements.push(if is {
                    format!("INSERT INTO members VALUES ({doc}, '{name}')")
                } else {
                    format!("DELETE FROM members WHERE docs = {doc} AND member = '{name}'")
                });
            }
            _ => changed.push(doc),
        }
        if let Some(doc) = changed.last() {
            model.n += 1;
            statements.push(format!("UPDATE docs SET n = {} WHERE id = {doc}", model.n));
        }
    }
    statements.push("COMMIT".to_owned());
    let first = model.n + 1
        - u32::try_from(statements.iter().filter(|it| it.contains("SET n")).count()).unwrap();
    let docs =
        statements.iter().filter_map(|it| it.rsplit_once("WHERE id = ")?.1.parse::<usize>().ok());
    let docs: Vec<usize> = docs.collect();
    let told = [0, 1].map(|who| {
        let op = |doc: &usize| match (before[who][*doc], model.members[who][*doc]) {
            (true, true) => Some("update"),
            (true, false) => Some("leave"),
            (false, true) => Some("enter"),
            (false, false) => None,
        };
        (first..).zip(&docs).filter_map(|(n, doc)| Some((n, op(doc)?))).collect()
    });
    (statements.join("; "), told)
}

#[tokio::test]
async fn random_memberships_and_changes_are_told_as_they_are() {
    let database = support::database().await;
    let deployment = deployed(&database, &[]).await;
    let mut random = Random::seeded();
    let mut clients = [subscribed(&deployment, ANN).await, subscribed(&deployment, BOB).await];
    let mut model = Model::default();
    let mut expected: [Vec<(u32, &str)>; 2] = Default::default();
    let mut shown = 0;
    for _ in 0..60 {
        for _ in 0..=random.below(3) {
            let (sql, told) = transaction(&mut model, &mut random);
            deployment.execute(&[&sql]).await;
            for (all, told) in expected.iter_mut().zip(told) {
                all.extend(told);
            }
        }
        model.n += 1;
        deployment.execute(&[&format!("UPDATE docs SET n = {} WHERE id = 0", model.n)]).await;
        for (client, expected) in clients.iter_mut().zip(&mut expected) {
            shown += compare(&deployment, client, (&mut model, expected)).await;
        }
    }
    assert!(shown > 20, "only {shown} changes were shown");
    assert!(deployment.daemon.metrics().verdicts.memo_hits.get() > 0);
}

/// Compares what a client is told up to a change that it sees. What it misses it is told to miss; what
/// it is not to see it never sees.
async fn compare(
    deployment: &Deployment,
    client: &mut Client,
    (model, expected): (&mut Model, &mut Vec<(u32, &str)>),
) -> usize {
    let (mut missed, mut shown) = (false, 0);
    let mut left = std::mem::take(expected).into_iter();
    loop {
        let frame = client.frame().await;
        if frame["type"] == "resync" {
            assert_eq!(frame["reason"], "undecided", "{frame}");
            missed = true;
            // The last change may be among those that it misses.
            model.n += 1;
            let last = format!("UPDATE docs SET n = {} WHERE id = 0", model.n);
            deployment.execute(&[&last]).await;
            continue;
        }
        assert_eq!(frame["type"], "row", "{frame}");
        if frame["new"]["n"] == json!(model.n) {
            assert!(missed || left.next().is_none(), "changes are missing before {frame}");
            return shown;
        }
        if frame["new"]["id"] == json!(0) {
            continue;
        }
        let op = frame["op"].as_str().unwrap();
        // Who leaves is not told of the row as it is now.
        let is_it = |(n, of): &(u32, &str)| {
            *of == op && (frame["new"] == Value::Null || frame["new"]["n"] == json!(n))
        };
        let found = if missed { left.find(is_it) } else { left.next().filter(is_it) };
        assert!(found.is_some(), "{frame} is not to be seen");
        shown += 1;
    }
}

//! Policies that are not decided in process: Postgres is asked about every image, from the commit to
//! the socket.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::policies::delivery::ANN;
use crate::policies::delivery::BOB;
use crate::support;

/// A table whose policies are not decided here: a PERFORM in plpgsql, a regular expression, the time,
/// an error for some rows.
async fn asked(identity: &str, set: &[&str]) -> (Deployment, String) {
    let database = support::database().await;
    let name = database.name.clone();
    let schema = format!(
        "CREATE TABLE members (docs int NOT NULL, member uuid NOT NULL, PRIMARY KEY (docs, member));
         ALTER TABLE members REPLICA IDENTITY FULL;
         CREATE TABLE docs (id int PRIMARY KEY, owner uuid, title text, big text);
         ALTER TABLE docs REPLICA IDENTITY {identity};
         CREATE FUNCTION subject() RETURNS uuid LANGUAGE plpgsql STABLE AS $$
           BEGIN RETURN nullif(current_setting('request.jwt.claims', true)::json ->> 'sub', '')::uuid; END $$;
         CREATE FUNCTION may(doc int, owner uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
           BEGIN
             PERFORM 1;
             IF owner = subject() THEN RETURN true; END IF;
             RETURN EXISTS (SELECT FROM members m WHERE m.docs = doc AND m.member = subject());
           END $$;
         CREATE ROLE member_{name}; CREATE ROLE reader_{name}; CREATE ROLE timed_{name};
         CREATE ROLE broken_{name}; CREATE ROLE barred_{name}; CREATE ROLE guest_{name};
         GRANT SELECT ON docs, members TO PUBLIC;
         ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
         CREATE POLICY members ON docs TO member_{name}, barred_{name} USING (may(id, owner));
         CREATE POLICY barred ON docs AS RESTRICTIVE TO barred_{name} USING (title ~ '^[a-m]');
         CREATE POLICY titles ON docs TO reader_{name} USING (title ~* '^\\w+ report$');
         CREATE POLICY now ON docs TO timed_{name} USING (now() > '2000-01-01' AND id % 2 = 0);
         CREATE POLICY broken ON docs TO broken_{name} USING (1 / (id - 2) IS NOT NULL)"
    );
    let roles = format!(
        "auth.roles=web_{name},member_{name},reader_{name},timed_{name},broken_{name},barred_{name},\
         guest_{name}"
    );
    let set: Vec<&str> = [roles.as_str()].into_iter().chain(set.iter().copied()).collect();
    let tables = "[[table]]\nname = 'members'\nopen = true";
    let plan = Plan { schema: &schema, set: &set, tables, ..Plan::default() };
    (Deployment::on(database, plan).await, name)
}

async fn subscribed(deployment: &Deployment, role: &str, sub: &str) -> Client {
    let mut client = deployment.client_with(json!({"role": role, "sub": sub})).await;
    client.subscribed(json!({"id": "d", "table": "docs"})).await;
    client
}

/// Rows up to the first truncate, each as `op` and `id`.
async fn until_truncate(client: &mut Client) -> Vec<String> {
    let mut rows = Vec::new();
    loop {
        let row = client.row().await;
        if row["op"] == "truncate" {
            return rows;
        }
        rows.push(shown(&row));
    }
}

fn shown(row: &Value) -> String {
    let image = if row["new"].is_null() { &row["old"] } else { &row["new"] };
    format!("{} {}", row["op"].as_str().unwrap(), image["id"])
}

/// What each role is told of the same changes.
async fn told(identity: &str, expected: [&[&str]; 6]) {
    let (deployment, name) = asked(identity, &[]).await;
    let role = |role: &str| format!("{role}_{name}");
    let mut clients = [
        subscribed(&deployment, &role("member"), ANN).await,
        subscribed(&deployment, &role("member"), BOB).await,
        subscribed(&deployment, &role("reader"), BOB).await,
        subscribed(&deployment, &role("timed"), BOB).await,
        subscribed(&deployment, &role("broken"), BOB).await,
        subscribed(&deployment, &role("barred"), ANN).await,
    ];
    deployment
        .execute(&[
            &format!("INSERT INTO docs VALUES (1, '{ANN}', 'annual report'), (2, '{BOB}', 'x')"),
            &format!("UPDATE docs SET owner = '{BOB}', title = 'zoo' WHERE id = 1"),
            "DELETE FROM docs WHERE id = 2",
            "TRUNCATE docs",
        ])
        .await;
    for (at, (client, expected)) in clients.iter_mut().zip(expected).enumerate() {
        assert_eq!(until_truncate(client).await, expected, "client {at}");
    }
}

#[tokio::test]
async fn each_role_is_told_what_postgres_says_by_the_whole_old_row() {
    Box::pin(told(
        "FULL",
        [
            &["insert 1", "leave 1"],
            &["insert 2", "enter 1", "delete 2"],
            &["insert 1", "leave 1"],
            &["insert 2", "delete 2"],
            &["insert 1", "update 1"],
            &["insert 1", "leave 1"],
        ],
    ))
    .await;
}

#[tokio::test]
async fn each_role_is_told_what_postgres_says_by_the_key() {
    Box::pin(told(
        "DEFAULT",
        [
            &["insert 1"],
            &["insert 2", "update 1"],
            &["insert 1"],
            &["insert 2", "delete 2"],
            &["insert 1", "update 1"],
            &["insert 1"],
        ],
    ))
    .await;
}

/// Waits until a session of the database waits for the tests' lock.
async fn until_blocked(sql: &tokio_postgres::Client) {
    let waits = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database())";
    let blocked = async {
        while !sql.query_one(waits, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, blocked).await.expect("nobody waits for the lock");
}

/// What is told of a change where the members change between it and the answer.
async fn overtaken(before: &str, after: &str) {
    let set = ["rls.connections=1", "rls.timeout_seconds=60"];
    let (deployment, name) = asked("FULL", &set).await;
    let (sql, role) = (&deployment.sql, format!("member_{name}"));
    let slow = format!(
        "CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$
           BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN true; END $$;
         CREATE TABLE slow (id int PRIMARY KEY);
         ALTER TABLE slow ENABLE ROW LEVEL SECURITY;
         CREATE POLICY slow ON slow TO {role} USING (slow());
         GRANT SELECT ON slow TO {role};
         {before}"
    );
    deployment.execute(&[&slow, "SELECT pg_advisory_lock(1)"]).await;
    let mut ann = subscribed(&deployment, &role, ANN).await;
    let mut other = deployment.client_with(json!({"role": role, "sub": BOB})).await;
    while other.subscribe(json!({"id": "s", "table": "slow"})).await["type"] != "subscribed" {}

    // The only connection waits; meanwhile something happens, and then the members are others.
    deployment.execute(&["INSERT INTO slow VALUES (1)"]).await;
    until_blocked(sql).await;
    deployment.execute(&["INSERT INTO docs VALUES (1, NULL, 'a')", after]).await;
    deployment.execute(&["SELECT pg_advisory_unlock(1)"]).await;

    let missed = ann.expect("resync").await;
    assert_eq!(missed["reason"], "undecided", "{missed}");
    let own = format!("INSERT INTO docs VALUES (3, '{ANN}', 'b')");
    deployment.execute(&[&own]).await;
    assert_eq!(ann.rows(1, "id").await, ["insert 3"]);
    assert_eq!(other.rows(1, "id").await, ["insert 1"]);
}

#[tokio::test]
async fn a_row_is_not_shown_by_members_that_came_after_it() {
    let joins = format!("INSERT INTO members VALUES (1, '{ANN}')");
    Box::pin(overtaken("", &joins)).await;
}

#[tokio::test]
async fn a_row_is_not_withheld_in_silence_where_a_member_left_after_it() {
    let joins = format!("INSERT INTO members VALUES (1, '{ANN}')");
    Box::pin(overtaken(&joins, "DELETE FROM members")).await;
}

/// A TRUNCATE takes rows away from snapshots that are older than it, too.
#[tokio::test]
async fn what_was_truncated_meanwhile_does_not_count_as_empty_before() {
    let (deployment, name) = asked("FULL", &["rls.timeout_seconds=60"]).await;
    let (sql, role) = (&deployment.sql, format!("member_{name}"));
    let banned = format!(
        "CREATE TABLE banned (member uuid PRIMARY KEY); GRANT SELECT ON banned TO {role};
         INSERT INTO banned VALUES ('{ANN}');
         CREATE FUNCTION welcome() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
           BEGIN
             PERFORM pg_advisory_xact_lock_shared(1);
             RETURN NOT EXISTS (SELECT FROM public.banned b WHERE b.member = public.subject());
           END $$;
         CREATE TABLE rooms (id int PRIMARY KEY); GRANT SELECT ON rooms TO {role};
         ALTER TABLE rooms ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON rooms TO {role} USING (welcome())"
    );
    deployment.execute(&[&banned, "SELECT pg_advisory_lock(1)"]).await;
    let mut ann = deployment.client_with(json!({"role": role, "sub": ANN})).await;
    while ann.subscribe(json!({"id": "r", "table": "rooms"})).await["type"] != "subscribed" {}

    deployment.execute(&["INSERT INTO rooms VALUES (1)"]).await;
    until_blocked(sql).await;
    // The question has its snapshot, and has not looked at the table.
    deployment.execute(&["TRUNCATE banned", "SELECT pg_advisory_unlock(1)"]).await;
    let missed = ann.expect("resync").await;
    assert_eq!(missed["reason"], "undecided", "the row was not to be seen: {missed}");
    deployment.execute(&["INSERT INTO rooms VALUES (2)"]).await;
    assert_eq!(ann.rows(1, "id").await, ["insert 2"]);
}

#[tokio::test]
async fn members_count_as_they_are_at_the_change() {
    let (deployment, name) = asked("FULL", &[]).await;
    let mut ann = subscribed(&deployment, &format!("member_{name}"), ANN).await;
    let join = format!("INSERT INTO members VALUES (1, '{ANN}')");
    deployment
        .execute(&[&format!("BEGIN; {join}; INSERT INTO docs VALUES (1, NULL, 'a'); COMMIT")])
        .await;
    assert_eq!(ann.rows(1, "id").await, ["insert 1"]);
    deployment
        .execute(&[
            "BEGIN; DELETE FROM members; INSERT INTO docs VALUES (2, NULL, 'a'); COMMIT",
            &format!("INSERT INTO docs VALUES (3, '{ANN}', 'a')"),
        ])
        .await;
    assert_eq!(ann.rows(1, "id").await, ["insert 3"]);
}

#[tokio::test]
async fn everything_comes_once_and_in_order_under_a_bounded_rate_and_after_a_restart() {
    let (deployment, name) = asked("FULL", &["rls.questions_per_second=20"]).await;
    let role = format!("member_{name}");
    let mut ann = subscribed(&deployment, &role, ANN).await;
    // Another subscription of the session that nobody is asked for.
    ann.subscribed(json!({"id": "m", "table": "members"})).await;
    let rows = format!(
        "DO $$ BEGIN FOR i IN 1..600 LOOP
           INSERT INTO docs VALUES (i, CASE WHEN i % 2 = 0 THEN '{ANN}'::uuid ELSE '{BOB}' END, 'x');
           COMMIT;
         END LOOP; END $$"
    );
    deployment.execute(&[&rows]).await;
    let mut cursor = Value::Null;
    for id in 1..=300 {
        let row = ann.row().await;
        assert_eq!((&row["id"], &row["new"]["id"]), (&json!("d"), &json!(2 * id)), "{row}");
        if id == 100 {
            cursor = row["cursor"].clone();
        }
    }
    let deployment = deployment.restart().await;
    let mut ann = deployment.client_with(json!({"role": role, "sub": ANN})).await;
    ann.subscribed(json!({"id": "d", "table": "docs", "since": cursor})).await;
    for id in 101..=300 {
        let row = ann.row().await;
        assert_eq!(row["new"]["id"], json!(2 * id), "{row}");
    }
    ann.expect("synced").await;
    deployment.execute(&["DELETE FROM docs WHERE id < 3"]).await;
    assert_eq!(ann.rows(1, "id").await, ["delete 2"]);
}

#[tokio::test]
async fn a_snapshot_goes_on_with_what_is_asked() {
    let (deployment, name) = asked("FULL", &[]).await;
    deployment
        .execute(&[
            &format!(
                "INSERT INTO docs VALUES (1, '{ANN}', 'x'), (2, '{BOB}', 'x'), (3, NULL, 'x')"
            ),
            &format!("INSERT INTO public.members VALUES (3, '{ANN}')"),
            "ALTER FUNCTION may SET search_path = public",
            "ALTER FUNCTION subject SET search_path = public",
        ])
        .await;
    let mut ann =
        deployment.client_with(json!({"role": format!("member_{name}"), "sub": ANN})).await;
    let request = json!({"id": "d", "table": "docs", "snapshot": true, "order": ["id"]});
    ann.subscribed(request).await;
    assert_eq!(ann.rows(2, "id").await, ["snapshot 1", "snapshot 3"]);
    ann.expect("synced").await;
    deployment.execute(&["UPDATE docs SET title = 'y'", "DELETE FROM docs WHERE id = 2"]).await;
    assert_eq!(ann.rows(2, "id").await, ["update 1", "update 3"]);
}

#[tokio::test]
async fn what_is_not_to_be_asked_is_refused() {
    let set = ["rls.undecided=refuse"];
    let (deployment, name) = asked("FULL", &set).await;
    let mut ann =
        deployment.client_with(json!({"role": format!("member_{name}"), "sub": ANN})).await;
    let refused = ann.subscribe(json!({"id": "d", "table": "docs"})).await;
    assert_eq!(refused["code"], "policy_unsupported", "{refused}");
}

/// Two roles in one question, of whom each sees what the other does not: by the policies of another table,
/// by who they are after a function ran as somebody else, and after an error.
#[tokio::test]
async fn a_role_is_not_answered_by_the_plan_or_under_the_name_of_another() {
    let database = support::database().await;
    let name = database.name.clone();
    let schema = format!(
        "CREATE TABLE rights (doc int PRIMARY KEY);
         INSERT INTO rights SELECT generate_series(1, 9);
         CREATE TABLE docs (id int PRIMARY KEY, n int);
         CREATE ROLE even_{name}; CREATE ROLE odd_{name};
         CREATE FUNCTION parity() RETURNS int LANGUAGE sql SECURITY DEFINER STABLE
           AS $$ SELECT 2 FROM rights LIMIT 1 $$;
         CREATE FUNCTION may(id int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
           DECLARE rest int := id % parity();
           BEGIN
             PERFORM 1;
             IF id = 8 AND current_user::text LIKE 'even%' THEN RETURN 1 / (id - 8) = 0; END IF;
             RETURN EXISTS (SELECT FROM (SELECT r.doc FROM rights r OFFSET 0) r WHERE r.doc = id)
               AND rest = CASE WHEN current_user::text LIKE 'odd%' THEN 1 ELSE 0 END;
           END $$;
         GRANT SELECT ON docs, rights TO PUBLIC;
         ALTER TABLE rights ENABLE ROW LEVEL SECURITY;
         CREATE POLICY even ON rights TO even_{name} USING (doc % 2 = 0);
         CREATE POLICY odd ON rights TO odd_{name} USING (doc % 2 = 1);
         ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
         CREATE POLICY may ON docs USING (may(id))"
    );
    let roles = format!("auth.roles=web_{name},even_{name},odd_{name}");
    let tables = "[[table]]\nname = 'rights'\nopen = true";
    // Nothing is kept, so that each round is asked.
    let set = [roles.as_str(), "rls.memo_bytes_max=0", "rls.connections=1"];
    let plan = Plan { schema: &schema, set: &set, tables, ..Plan::default() };
    let deployment = Deployment::on(database, plan).await;
    let mut clients = Vec::new();
    for at in 0..6 {
        let role = format!("{}_{name}", if at % 2 == 0 { "even" } else { "odd" });
        clients.push(subscribed(&deployment, &role, &format!("{ANN}{at}")).await);
    }
    for round in 0..4 {
        let write = match round {
            0 => "INSERT INTO docs SELECT id, 0 FROM generate_series(1, 10) AS id".to_owned(),
            _ => format!("UPDATE docs SET n = {round}"),
        };
        deployment.execute(&[&write]).await;
        let op = if round == 0 { "insert" } else { "update" };
        for (at, client) in clients.iter_mut().enumerate() {
            let seen: &[u32] = if at % 2 == 0 { &[2, 4, 6] } else { &[1, 3, 5, 7, 9] };
            let expected: Vec<String> = seen.iter().map(|id| format!("{op} {id}")).collect();
            assert_eq!(client.rows(seen.len(), "id").await, expected, "client {at}, round {round}");
        }
    }
    assert!(deployment.daemon.metrics().verdicts.errors.get() > 0);
}

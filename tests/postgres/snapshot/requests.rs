//! What may be asked for, what comes of it, and what else can happen meanwhile.

use serde_json::Value;
use serde_json::json;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::snapshot::ITEMS;
use crate::snapshot::OPEN;
use crate::snapshot::Rows;
use crate::snapshot::apply;
use crate::snapshot::items;
use crate::snapshot::until_synced;

const LOCK: &str = "BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE";

/// How often a counter of the daemon has counted.
fn counted(deployment: &Deployment, name: &str) -> u64 {
    let all = deployment.daemon.metrics().read();
    all.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

/// Another connection of the superuser.
async fn sql(deployment: &Deployment) -> tokio_postgres::Client {
    crate::support::connect(&deployment.config.database.url).await
}

fn ids(rows: &Rows) -> Vec<i64> {
    rows.keys().copied().collect()
}

/// A request for a snapshot of a table, and more.
fn request(id: &str, table: &str, more: &Value) -> Value {
    let mut request = json!({"id": id, "table": table, "snapshot": true});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The keys of a snapshot's rows, in the order in which they come.
async fn in_order(client: &mut Client, request: Value) -> Vec<i64> {
    client.subscribed(request).await;
    let mut keys = Vec::new();
    loop {
        let frame = client.frame().await;
        match frame["type"].as_str().unwrap() {
            "row" => keys.push(frame["new"]["id"].as_i64().unwrap()),
            "synced" => return keys,
            _ => panic!("{frame}"),
        }
    }
}

#[tokio::test]
async fn a_row_is_as_the_stream_brings_it() {
    let schema = "CREATE TABLE odd (id int PRIMARY KEY, at timestamptz, d date, f float8, \
                  n numeric, b bytea, i interval, a text[], j jsonb, t text, r real); \
                  ALTER TABLE odd REPLICA IDENTITY FULL";
    let tables = "[[table]]\nname = 'public.odd'\nopen = true\n";
    let deployment = Deployment::start(Plan { schema, tables, ..Plan::default() }).await;
    let mut live = deployment.client().await;
    live.subscribed(json!({"id": "o", "table": "odd"})).await;
    deployment
        .execute(&[
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET datestyle = \"SQL, DMY\"', \
             current_database()); EXECUTE format('ALTER DATABASE %I SET timezone = \"Asia/Tokyo\"', \
             current_database()); END $$",
            r#"INSERT INTO odd VALUES (1, '2026-11-21 04:00:00.123456+02', '2026-11-21', 0.1,
               12.3400, '\x00ff', '1 day 02:03', '{a,NULL,"b c"}', '{"k": [1, null]}',
               E'quote \'" \\ \n', 'NaN'),
               (2, NULL, 'infinity', 'Infinity', NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#,
        ])
        .await;
    let streamed = [live.row().await["new"].clone(), live.row().await["new"].clone()];
    let mut client = deployment.client().await;
    client.subscribed(request("o", "odd", &json!({}))).await;
    let (rows, _) = until_synced(&mut client).await;
    assert_eq!(rows.into_values().collect::<Vec<_>>(), streamed);
}

#[tokio::test]
async fn order_limit_and_latest_by_choose_rows() {
    let deployment = items().await;
    let fill = "INSERT INTO items SELECT id, id % 3, nullif(id * 7 % 10, 7), 'x' \
                FROM generate_series(1, 9) id";
    deployment.execute(&[fill]).await;
    let mut client = deployment.client().await;
    // n is NULL 4 1 8 5 2 9 6 3, kind is 1 2 0 1 2 0 1 2 0.
    for (id, more, expected) in [
        ("a", json!({"order": ["id desc"], "limit": 3}), vec![9, 8, 7]),
        ("b", json!({"order": ["kind", "n desc"], "where": "kind > 0"}), vec![1, 7, 4, 8, 5, 2]),
        ("c", json!({"latest_by": ["kind"], "order": ["n desc"]}), vec![1, 8, 9]),
        ("d", json!({"latest_by": ["kind"], "order": ["n"], "limit": 2}), vec![3, 2]),
        ("e", json!({"order": ["n DESC NULLS LAST"], "limit": 1, "columns": ["id"]}), vec![7]),
        ("f", json!({"order": ["n nulls first"], "limit": 2}), vec![1, 3]),
    ] {
        assert_eq!(in_order(&mut client, request(id, "items", &more)).await, expected, "{id}");
    }
    let more = json!({"where": "note::int = 1", "limit": 1});
    let error = client.subscribe(request("g", "items", &more)).await;
    assert_eq!(error["code"], "bad_filter");
    // Without a bound what the database can't be asked is judged here, and fails for no row.
    let more = json!({"where": "note::int = 1 or id = 4"});
    assert!(in_order(&mut client, request("h", "items", &more)).await.is_empty());
}

#[tokio::test]
async fn equal_snapshots_are_read_once_also_for_several_shards() {
    let set = ["listen.shards=2"];
    let plan = Plan { schema: ITEMS, tables: OPEN, set: &set, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    deployment.execute(&["INSERT INTO items VALUES (1, 1, 1, 'a'), (2, 0, 1, 'b')"]).await;
    let locker = sql(&deployment).await;
    locker.batch_execute(LOCK).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = deployment.client().await;
        client.subscribed(request("s", "items", &json!({"where": "kind = 1"}))).await;
        // The answer comes after the question was asked.
        client.send(json!({"type": "ping"})).await;
        client.expect("pong").await;
        clients.push(client);
    }
    // The query has begun, and does not see this.
    locker.batch_execute("INSERT INTO items VALUES (3, 1, 1, 'c'); COMMIT").await.unwrap();
    for client in &mut clients {
        let (rows, _) = until_synced(client).await;
        assert_eq!(ids(&rows), [1, 3]);
    }
    assert_eq!(counted(&deployment, "snapshots_asked"), 1);
    assert_eq!(counted(&deployment, "snapshots_shared"), 19);
}

#[tokio::test]
async fn claims_grants_and_row_security_hold_for_the_rows_that_are_there() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, owner text, body text, secret text); \
                  ALTER TABLE notes REPLICA IDENTITY FULL; \
                  ALTER TABLE notes ENABLE ROW LEVEL SECURITY; \
                  CREATE POLICY own ON notes USING \
                  (owner = current_setting('request.jwt.claims')::json ->> 'sub' AND id < 100)";
    let tables = "[[table]]\nname = 'public.notes'\npolicy = \"owner = claims ->> 'sub'\"\n";
    let plan = Plan { schema, tables, anonymous: false, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let role = &deployment.role;
    deployment
        .execute(&[
            &format!("REVOKE SELECT ON notes FROM {role}"),
            &format!("GRANT SELECT (id, owner, body) ON notes TO {role}"),
            "INSERT INTO notes VALUES (1, 'ann', 'a', 's'), (2, 'bob', 'b', 's'), \
             (3, 'ann', 'c', 's'), (200, 'ann', 'd', 's')",
        ])
        .await;
    let mut client = deployment.client_with(json!({"sub": "ann"})).await;
    // The revocation is seen within two seconds.
    loop {
        let answer = client.subscribed(json!({"id": "probe", "table": "notes"})).await;
        client.send(json!({"type": "unsubscribe", "id": "probe"})).await;
        // The inserted rows may come before the answer.
        while client.frame().await["type"] != "unsubscribed" {}
        if answer["columns"].as_array().unwrap().len() == 3 {
            break;
        }
    }
    client.subscribed(request("n", "notes", &json!({"order": ["id desc"]}))).await;
    let (rows, _) = until_synced(&mut client).await;
    assert_eq!(ids(&rows), [1, 3]);
    assert_eq!(rows[&3], json!({"id": 3, "owner": "ann", "body": "c"}));
    for (id, more) in [
        ("a", json!({"order": ["secret"]})),
        ("b", json!({"latest_by": ["secret"], "order": ["id"]})),
        ("c", json!({"where": "secret = 's'"})),
    ] {
        let error = client.subscribe(request(id, "notes", &more)).await;
        assert_eq!((&error["id"], &error["code"]), (&json!(id), &json!("column_forbidden")));
    }
    deployment.execute(&[&format!("REVOKE SELECT (owner) ON notes FROM {role}")]).await;
    // A policy may read what the role may not; a question in its name can't.
    loop {
        let mut client = deployment.client_with(json!({"sub": "ann"})).await;
        let answer = client.subscribe(request("o", "notes", &json!({}))).await;
        if answer["type"] == "error" {
            assert_eq!(answer["code"], "snapshot_forbidden");
            break;
        }
    }
}

#[tokio::test]
async fn an_asking_role_that_may_do_nothing_by_itself_is_enough() {
    let database = crate::support::database().await;
    let asking = format!("asking_{}", database.name);
    let superuser = database.connect().await;
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {asking} LOGIN NOINHERIT; \
             ALTER ROLE {asking} SET default_transaction_read_only = on"
        ))
        .await
        .unwrap();
    let url = database.server.connection_string_as(&asking, &database.name);
    // What makes a quiet server flush its log is allowed to everybody, and is no write.
    let flush = "SELECT pg_logical_emit_message(true, 'walcast', '')";
    crate::support::connect(&url).await.batch_execute(flush).await.unwrap();
    let set = format!("database.ask_url={url}");
    let plan = Plan { schema: ITEMS, tables: OPEN, set: &[&set], ..Plan::default() };
    let deployment = Deployment::on(database, plan).await;
    let mut client = deployment.client().await;
    // Before it is a member of the client's role it can't ask in its name.
    client.subscribed(request("before", "items", &json!({}))).await;
    assert_eq!(client.expect("error").await["code"], "snapshot_failed");
    let grant = format!("GRANT {} TO {asking}", deployment.role);
    deployment.execute(&[&grant, "INSERT INTO items VALUES (1, 1, 1, 'a')"]).await;
    assert_eq!(in_order(&mut client, request("after", "items", &json!({}))).await, [1]);
}

#[tokio::test]
async fn hostile_names_and_values_stay_names_and_values() {
    let schema = r#"CREATE TABLE "it""s '; DROP" (id int PRIMARY KEY, "a""b' --" text);
                    CREATE TABLE items (id int PRIMARY KEY)"#;
    let tables = "[[table]]\nname = '''\"it\"\"s '; DROP\"'''\nopen = true\n";
    let deployment = Deployment::start(Plan { schema, tables, ..Plan::default() }).await;
    let value = r"x'); DROP TABLE items; --\";
    let insert = format!(r#"INSERT INTO "it""s '; DROP" VALUES (1, $v${value}$v$), (2, 'y')"#);
    deployment.execute(&[&insert]).await;
    let mut client = deployment.client().await;
    let filter = format!(r#""a""b' --" = '{}'"#, value.replace('\'', "''"));
    let more = json!({"where": filter, "order": ["id"]});
    assert_eq!(in_order(&mut client, request("h", "it\"s '; DROP", &more)).await, [1]);
    deployment.execute(&["SELECT FROM items"]).await;
}

#[tokio::test]
async fn a_snapshot_that_is_too_large_is_refused() {
    let set = ["snapshot.rows_max=10", "snapshot.bytes_max=65536"];
    let plan = Plan { schema: ITEMS, tables: OPEN, set: &set, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    deployment
        .execute(&[
            "INSERT INTO items SELECT id, 0, 0, 'x' FROM generate_series(1, 11) id",
            "INSERT INTO items SELECT id, 1, 0, repeat('x', 20000) FROM generate_series(21, 25) id",
        ])
        .await;
    let mut client = deployment.client().await;
    for (id, more) in [
        ("a", json!({"where": "kind = 0"})),
        ("b", json!({"where": "kind = 1"})),
        ("c", json!({"limit": 11})),
    ] {
        let mut frame = client.subscribe(request(id, "items", &more)).await;
        if frame["type"] == "subscribed" {
            frame = client.frame().await;
        }
        assert_eq!((&frame["id"], &frame["code"]), (&json!(id), &json!("snapshot_too_large")));
        assert!(frame["hint"].as_str().unwrap().contains("limit"), "{frame}");
    }
    let few = request("d", "items", &json!({"limit": 3, "order": ["id"]}));
    assert_eq!(in_order(&mut client, few).await, [1, 2, 3]);
    deployment.execute(&["UPDATE items SET n = 9 WHERE id = 2"]).await;
    assert_eq!(client.rows(1, "id").await, ["update 2"]);
}

#[tokio::test]
async fn what_takes_too_long_and_what_is_too_many_is_refused() {
    let set = ["snapshot.connections=1", "snapshot.waiting_max=1", "snapshot.timeout_seconds=2"];
    let plan = Plan { schema: ITEMS, tables: OPEN, set: &set, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let locker = sql(&deployment).await;
    locker.batch_execute(LOCK).await.unwrap();
    let mut client = deployment.client().await;
    for (id, kind) in [("running", 1), ("waiting", 2), ("refused", 3)] {
        let more = json!({"where": format!("kind = {kind}")});
        client.subscribed(request(id, "items", &more)).await;
    }
    for (id, code) in [("refused", "snapshot_busy"), ("running", "snapshot_timeout")] {
        let error = client.expect("error").await;
        assert_eq!((&error["id"], &error["code"]), (&json!(id), &json!(code)));
    }
    // Its turn came too late, or it took too long, too.
    assert_eq!(client.expect("error").await["id"], "waiting");
    locker.batch_execute("COMMIT").await.unwrap();
    assert!(in_order(&mut client, request("after", "items", &json!({}))).await.is_empty());
}

#[tokio::test]
async fn who_can_not_resume_gets_a_resync_and_a_new_snapshot() {
    let set = ["ring.bytes_max=1048576"];
    let plan = Plan { schema: ITEMS, tables: OPEN, set: &set, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    deployment.execute(&["INSERT INTO items VALUES (1, 1, 1, 'a')"]).await;
    let mut client = deployment.client().await;
    client.subscribed(request("s", "items", &json!({}))).await;
    let (rows, cursor) = until_synced(&mut client).await;
    assert_eq!(ids(&rows), [1]);
    // What can be resumed is.
    deployment.execute(&["INSERT INTO items VALUES (2, 1, 1, 'b')"]).await;
    client.row().await;
    let since = request("s", "items", &json!({"since": cursor}));
    let mut again = deployment.client().await;
    again.subscribed(since.clone()).await;
    assert_eq!(again.rows(1, "id").await, ["insert 2"]);
    again.expect("synced").await;
    // More than the ring holds.
    for _ in 0..4 {
        let update = "UPDATE items SET note = repeat('x', 200000) || random()";
        deployment.execute(&[update]).await;
        client.rows(2, "id").await;
    }
    let mut again = deployment.client().await;
    again.subscribed(since).await;
    let resync = again.expect("resync").await;
    assert_eq!((&resync["reason"], &resync["cursor"]), (&json!("too_old"), &Value::Null));
    let (rows, _) = until_synced(&mut again).await;
    assert_eq!(ids(&rows), [1, 2]);
    deployment.execute(&["DELETE FROM items WHERE id = 1"]).await;
    assert_eq!(again.rows(1, "id").await, ["delete 1"]);
}

#[tokio::test]
async fn a_quiet_server_with_an_open_transaction_does_not_hold_it_up() {
    let deployment = items().await;
    deployment.execute(&["INSERT INTO items VALUES (1, 1, 1, 'a')"]).await;
    let open = sql(&deployment).await;
    let written = "BEGIN; INSERT INTO items SELECT id, 1, 1, 'open' FROM generate_series(2, 50) id";
    open.batch_execute(written).await.unwrap();
    let lazy = sql(&deployment).await;
    lazy.batch_execute("SET synchronous_commit = off").await.unwrap();
    for round in 0..20 {
        let insert = format!("INSERT INTO items VALUES ({}, 2, 2, 'lazy')", 100 + round);
        lazy.batch_execute(&insert).await.unwrap();
        let mut client = deployment.client().await;
        client.subscribed(request("s", "items", &json!({}))).await;
        let (rows, _) = until_synced(&mut client).await;
        assert_eq!(rows.len(), round + 2);
    }
    let mut client = deployment.client().await;
    client.subscribed(request("s", "items", &json!({}))).await;
    let (mut rows, _) = until_synced(&mut client).await;
    open.batch_execute("COMMIT").await.unwrap();
    while rows.len() < 70 {
        apply(&mut rows, &client.row().await);
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    let set = ["limits.outbox_bytes_max=65536"];
    let plan = Plan { schema: ITEMS, tables: OPEN, set: &set, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    let fill =
        "INSERT INTO items SELECT id, 0, 0, repeat('x', 1500) FROM generate_series(1, 8000) id";
    deployment.execute(&[fill]).await;
    let mut slow = deployment.client().await;
    slow.subscribed(request("s", "items", &json!({}))).await;
    let mut other = deployment.client().await;
    other.subscribed(json!({"id": "o", "table": "items", "where": "kind = 1"})).await;
    for id in 1..=20 {
        let update = format!("UPDATE items SET kind = 1, n = {id} WHERE id = {}", id * 100);
        deployment.execute(&[&update, &format!("DELETE FROM items WHERE id = {id}")]).await;
        assert_eq!(other.rows(1, "id").await, [format!("enter {}", id * 100)]);
    }
    let (mut rows, _) = until_synced(&mut slow).await;
    deployment.execute(&["DELETE FROM items WHERE id = 7999"]).await;
    while rows.contains_key(&7999) {
        apply(&mut rows, &slow.row().await);
    }
    assert_eq!(rows.len(), 7979);
    assert_eq!(rows.values().filter(|row| row["kind"] == 1).count(), 20);
}

#[tokio::test]
async fn who_leaves_or_changes_claims_meanwhile_is_not_told_what_was_asked_before() {
    let policy = "kind = (claims ->> 'kind')::int";
    let tables = format!("[[table]]\nname = 'public.items'\npolicy = \"{policy}\"\n");
    let plan = Plan { schema: ITEMS, tables: &tables, anonymous: false, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    deployment.execute(&["INSERT INTO items VALUES (1, 1, 1, 'a'), (2, 2, 1, 'b')"]).await;
    let locker = sql(&deployment).await;
    locker.batch_execute(LOCK).await.unwrap();
    let claims = |kind: i32| json!({"sub": "ann", "kind": kind});
    let all = request("s", "items", &json!({}));
    let mut leaves = deployment.client_with(claims(1)).await;
    leaves.subscribed(all.clone()).await;
    leaves.send(json!({"type": "unsubscribe", "id": "s"})).await;
    leaves.expect("unsubscribed").await;
    let mut changes = deployment.client_with(claims(1)).await;
    changes.subscribed(all.clone()).await;
    changes.send(json!({"type": "auth", "token": deployment.token(claims(2))})).await;
    changes.expect("authenticated").await;
    let mut goes = deployment.client_with(claims(1)).await;
    goes.subscribed(all.clone()).await;
    drop(goes);
    locker.batch_execute("COMMIT").await.unwrap();
    let (rows, _) = until_synced(&mut changes).await;
    assert_eq!(ids(&rows), [2]);
    leaves.send(json!({"type": "ping"})).await;
    leaves.expect("pong").await;
    leaves.subscribed(all).await;
    let (rows, _) = until_synced(&mut leaves).await;
    assert_eq!(ids(&rows), [1]);
}

#[tokio::test]
async fn ddl_and_truncate_meanwhile_make_it_ask_again() {
    let deployment = items().await;
    deployment.execute(&["INSERT INTO items VALUES (1, 1, 1, 'a')"]).await;
    let locker = sql(&deployment).await;
    for (id, change, expected) in [
        (
            "truncate",
            "TRUNCATE items; INSERT INTO items VALUES (2, 1, 1, 'b')",
            json!({"id": 2, "kind": 1, "n": 1, "note": "b"}),
        ),
        (
            "type",
            "ALTER TABLE items ALTER n TYPE bigint",
            json!({"id": 2, "kind": 1, "n": 1, "note": "b"}),
        ),
        (
            "name",
            "ALTER TABLE items RENAME n TO m",
            json!({"id": 2, "kind": 1, "m": 1, "note": "b"}),
        ),
        (
            "columns",
            "ALTER TABLE items DROP m; ALTER TABLE items ADD z int DEFAULT 5",
            json!({"id": 2, "kind": 1, "note": "b", "z": 5}),
        ),
    ] {
        locker.batch_execute(&format!("BEGIN; {change}")).await.unwrap();
        let mut client = deployment.client().await;
        client.subscribed(request(id, "items", &json!({}))).await;
        client.send(json!({"type": "ping"})).await;
        client.expect("pong").await;
        locker.batch_execute("COMMIT").await.unwrap();
        let mut rows = Rows::new();
        loop {
            let frame = client.frame().await;
            match frame["type"].as_str().unwrap() {
                "row" => apply(&mut rows, &frame),
                "resync" => rows.clear(),
                "synced" => break,
                _ => panic!("{frame}"),
            }
        }
        assert_eq!(rows.into_values().collect::<Vec<_>>(), [expected], "{change}");
    }
}

/// A slot that is made anew begins later than an answer that is under way: what was committed in
/// between would be in neither.
#[tokio::test]
async fn an_answer_from_before_another_history_is_not_shared() {
    let schema = "CREATE TABLE items (id int PRIMARY KEY, owner int, kind int, body text); \
                  CREATE FUNCTION gate() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN \
                  PERFORM pg_advisory_lock_shared(7); PERFORM pg_advisory_unlock_shared(7); \
                  RETURN true; END $$; \
                  ALTER TABLE items ENABLE ROW LEVEL SECURITY; \
                  CREATE POLICY waits ON items USING (gate())";
    let tables = "[[table]]\nname = 'public.items'\npolicy = 'id > 0'\n";
    let plan = Plan { schema, tables, ..Plan::default() };
    let deployment = Deployment::start(plan).await;
    deployment.execute(&["INSERT INTO items VALUES (1, 1, 1, 'a')"]).await;
    let keeper = sql(&deployment).await;
    keeper.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let mut client = deployment.client().await;
    client.subscribed(request("s", "items", &json!({}))).await;
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    while keeper.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::task::yield_now().await;
    }
    let slot = &deployment.config.database.slot;
    let replace = format!(
        "DO $$ BEGIN PERFORM pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots \
         WHERE active AND slot_name = '{slot}'; PERFORM pg_drop_replication_slot('{slot}'); \
         INSERT INTO items VALUES (2, 1, 1, 'b'); END $$"
    );
    deployment.execute(&[&replace]).await;
    let resync = client.expect("resync").await;
    assert_eq!(resync["reason"], "other_history");
    keeper.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    let (rows, _) = until_synced(&mut client).await;
    assert_eq!(ids(&rows), [1, 2]);
}

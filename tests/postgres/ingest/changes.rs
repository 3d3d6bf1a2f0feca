//! What a shard is fed for what a database does.

use tokio_postgres::Client;

use super::stage::Stage;
use super::stage::changes;
use super::stage::settings;
use crate::support;
use crate::support::Database;

/// A database made by `sql`, and a live stage on it.
async fn with(sql: &str) -> (Database, Client, Stage) {
    let database = support::database().await;
    let client = database.connect().await;
    client.batch_execute(sql).await.unwrap();
    let exists = "SELECT count(*) FROM pg_publication";
    if client.query_one(exists, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        client.batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES").await.unwrap();
    }
    let mut stage = Stage::start(settings(&database.connection_string(), &database.name)).await;
    stage.live().await;
    (database, client, stage)
}

const LARGE: &str = "repeat('x', 3000)";

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_that_an_update_leaves_alone_is_unchanged_and_not_null() {
    let (_database, client, mut stage) = with(
        "CREATE TABLE t (id int PRIMARY KEY, large text, n int); \
         ALTER TABLE t ALTER large SET STORAGE external",
    )
    .await;
    let insert = format!("INSERT INTO t VALUES (1, {LARGE}, 1)");
    client.batch_execute(&insert).await.unwrap();
    assert_eq!(stage.changes().await, ["insert t (1,3000 bytes,1)"]);
    client.batch_execute("UPDATE t SET n = 2").await.unwrap();
    assert_eq!(stage.changes().await, ["update t (1,unchanged,2)"]);
    client.batch_execute("UPDATE t SET id = 9").await.unwrap();
    assert_eq!(stage.changes().await, ["update t key (1,NULL,NULL) to (9,unchanged,2)"]);
    client.batch_execute("ALTER TABLE t REPLICA IDENTITY FULL").await.unwrap();
    client.batch_execute("UPDATE t SET n = 3").await.unwrap();
    let expected = "update t full (9,3000 bytes,2) to (9,unchanged,3)";
    assert_eq!(stage.changes().await, [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_images_are_what_the_replica_identity_says() {
    let (_database, client, mut stage) = with(
        "CREATE TABLE by_key (id int PRIMARY KEY, n int); \
         CREATE TABLE by_index (n int, code text NOT NULL); \
         CREATE UNIQUE INDEX code ON by_index (code); \
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX code; \
         CREATE TABLE whole (id int, n int); \
         ALTER TABLE whole REPLICA IDENTITY FULL; \
         CREATE TABLE without (n int)",
    )
    .await;
    client
        .batch_execute(
            "BEGIN; INSERT INTO by_key VALUES (1, 1); UPDATE by_key SET n = 2; DELETE FROM by_key; \
             INSERT INTO by_index VALUES (1, 'a'); DELETE FROM by_index; \
             INSERT INTO whole VALUES (1, NULL); DELETE FROM whole; \
             INSERT INTO without VALUES (5); COMMIT",
        )
        .await
        .unwrap();
    let expected = [
        "insert by_key (1,1)",
        "update by_key (1,2)",
        "delete by_key key (1,NULL)",
        "insert by_index (1,a)",
        "delete by_index key (NULL,a)",
        "insert whole (1,NULL)",
        "delete whole full (1,NULL)",
        "insert without (5)",
    ];
    assert_eq!(stage.changes().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_truncate_is_a_change_of_each_table() {
    let (_database, client, mut stage) =
        with("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a)").await;
    client.batch_execute("TRUNCATE a, b RESTART IDENTITY CASCADE").await.unwrap();
    assert_eq!(stage.changes().await, ["truncate a", "truncate b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_in_mid_transaction_changes_the_shape_from_there_on() {
    let (_database, client, mut stage) = with("CREATE TABLE t (id int PRIMARY KEY)").await;
    client
        .batch_execute(
            "BEGIN; INSERT INTO t VALUES (1); ALTER TABLE t ADD COLUMN n int DEFAULT 7; \
             INSERT INTO t VALUES (2); ALTER TABLE t RENAME COLUMN n TO m; \
             ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (3); COMMIT",
        )
        .await
        .unwrap();
    let transaction = stage.transaction().await;
    let expected = ["insert t (1)", "insert t (2,7)", "insert u (3,7)"];
    assert_eq!(changes(&transaction), expected);
    let last = transaction.changes().last().unwrap();
    assert_eq!(last.relation.column("m"), Some(1));
    client.batch_execute("UPDATE u SET id = 11 WHERE id = 1").await.unwrap();
    assert_eq!(stage.changes().await, ["update u key (1,NULL) to (11,7)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_between_partitions_is_deleted_and_inserted() {
    let tables = "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
                  CREATE TABLE low PARTITION OF p FOR VALUES FROM (0) TO (10); \
                  CREATE TABLE high PARTITION OF p FOR VALUES FROM (10) TO (20)";
    let (_database, client, mut stage) = with(tables).await;
    client.batch_execute("INSERT INTO p VALUES (1)").await.unwrap();
    assert_eq!(stage.changes().await, ["insert low (1)"]);
    client.batch_execute("UPDATE p SET id = 11").await.unwrap();
    assert_eq!(stage.changes().await, ["delete low key (1)", "insert high (11)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_published_by_their_root_are_the_root() {
    let (_database, client, mut stage) = with(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE low PARTITION OF p FOR VALUES FROM (0) TO (10); \
         CREATE PUBLICATION walcast FOR TABLE p WITH (publish_via_partition_root)",
    )
    .await;
    client.batch_execute("INSERT INTO p VALUES (1)").await.unwrap();
    assert_eq!(stage.changes().await, ["insert p (1)"]);
    let more = "CREATE TABLE high PARTITION OF p FOR VALUES FROM (10) TO (20)";
    client.batch_execute(more).await.unwrap();
    client.batch_execute("INSERT INTO p VALUES (12)").await.unwrap();
    assert_eq!(stage.changes().await, ["insert p (12)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_written_the_same_whatever_the_database_is_set_to() {
    let (database, client, mut stage) = with(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN small AS int CHECK (VALUE < 10); \
         CREATE TABLE t (at timestamptz, span interval, b bytea, f float8, m mood, d small, \
         a int[], n numeric)",
    )
    .await;
    drop(stage);
    let name = &database.name;
    until_free(&client, name).await;
    for setting in ["timezone = 'Asia/Tokyo'", "datestyle = 'SQL'", "bytea_output = 'escape'"] {
        let alter = format!("ALTER DATABASE {name} SET {setting}");
        client.batch_execute(&alter).await.unwrap();
    }
    stage = Stage::start(settings(&database.connection_string(), name)).await;
    stage.live().await;
    client
        .batch_execute(
            "INSERT INTO t VALUES ('2026-01-02 03:04:05+00', '1 day 2:00', '\\x00ff', \
             0.1::float8 + 0.2, 'ok', 5, '{1,NULL}', 'NaN')",
        )
        .await
        .unwrap();
    let expected = "insert t (2026-01-02 03:04:05+00,1 day 02:00:00,\\x00ff,\
                    0.30000000000000004,ok,5,{1,NULL},NaN)";
    assert_eq!(stage.changes().await, [expected]);
}

async fn until_free(client: &Client, slot: &str) {
    let query = format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    super::stage::until(client, &query).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_as_they_are() {
    let (_database, client, mut stage) = with(
        "CREATE SCHEMA \"We Ird\"; \
         CREATE TABLE \"We Ird\".\"Ünï \"\"q\"\" Tab\" (\"Mixed Case\" int PRIMARY KEY)",
    )
    .await;
    let insert = "INSERT INTO \"We Ird\".\"Ünï \"\"q\"\" Tab\" VALUES (1)";
    client.batch_execute(insert).await.unwrap();
    let transaction = stage.transaction().await;
    let relation = &transaction.relations()[0];
    assert_eq!((&*relation.schema, &*relation.name), ("We Ird", "Ünï \"q\" Tab"));
    assert_eq!(relation.column("Mixed Case"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_back_never_comes() {
    let (_database, client, mut stage) = with("CREATE TABLE t (id int)").await;
    client
        .batch_execute(
            "BEGIN; INSERT INTO t VALUES (99); ROLLBACK; \
             BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s; INSERT INTO t VALUES (2); \
             ROLLBACK TO s; INSERT INTO t VALUES (3); COMMIT",
        )
        .await
        .unwrap();
    assert_eq!(stage.changes().await, ["insert t (1)", "insert t (3)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_come_in_the_order_of_their_commits() {
    let (database, client, mut stage) = with("CREATE TABLE t (id int)").await;
    let other = database.connect().await;
    client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    other.batch_execute("BEGIN; INSERT INTO t VALUES (2); COMMIT").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (3); COMMIT").await.unwrap();
    let (first, second) = (stage.transaction().await, stage.transaction().await);
    assert_eq!(changes(&first), ["insert t (2)"]);
    assert_eq!(changes(&second), ["insert t (1)", "insert t (3)"]);
    assert!(first.end_lsn <= Some(second.commit_lsn));
    assert!(Some(second.commit_lsn) < second.end_lsn);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_applications_disturb_nothing() {
    let (_database, client, mut stage) = with("CREATE TABLE t (id int)").await;
    client
        .batch_execute(
            "BEGIN; INSERT INTO t VALUES (9); SELECT pg_logical_emit_message(false, 'p', 'x'); \
             ROLLBACK; SELECT pg_logical_emit_message(true, 'p', 'alone'); \
             BEGIN; SELECT pg_logical_emit_message(true, 'p', 'x'); INSERT INTO t VALUES (1); \
             COMMIT",
        )
        .await
        .unwrap();
    assert_eq!(stage.changes().await, ["insert t (1)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_and_a_column_list_decide_what_is_fed() {
    let table = "CREATE TABLE t (id int PRIMARY KEY, n int, secret text); \
                 CREATE PUBLICATION walcast FOR TABLE t";
    let other = support::database().await;
    if support::version(&other.connect().await).await < 150_000 {
        // 14 has neither: it must say so, and nothing here is wrong.
        let sql = format!("{table} (id, n) WHERE (id > 10)");
        assert!(other.connect().await.batch_execute(&sql).await.is_err());
        return;
    }
    let (_database, client, mut stage) = with(&format!("{table} (id, n) WHERE (id > 10)")).await;
    client
        .batch_execute(
            "INSERT INTO t VALUES (1, 1, 's'); UPDATE t SET id = 12 WHERE id = 1; \
             UPDATE t SET n = 2; UPDATE t SET id = 2",
        )
        .await
        .unwrap();
    // One statement text is one transaction.
    let expected = ["insert t (12,1)", "update t (12,2)", "delete t key (12,NULL)"];
    assert_eq!(stage.changes().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_many_megabytes_passes() {
    let (_database, client, mut stage) = with("CREATE TABLE t (id int, large text)").await;
    client.batch_execute("INSERT INTO t VALUES (1, repeat('x', 30000000))").await.unwrap();
    assert_eq!(stage.changes().await, ["insert t (1,30000000 bytes omitted)"]);
    client.batch_execute("INSERT INTO t VALUES (2, repeat('x', 1000000))").await.unwrap();
    assert_eq!(stage.changes().await, ["insert t (2,1000000 bytes)"]);
}

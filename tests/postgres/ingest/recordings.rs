//! What the server of this ring sends, decoded; and written to `fixtures/pgoutput/<version>` when
//! `RECORD_FIXTURES` is set. `tests/golden.rs` reads them.

use std::fmt::Write;
use std::path::PathBuf;

use walcast::ingest::pgoutput;

use crate::support;

/// What is recorded: a name, what is prepared before the slot is made, and what is streamed.
const SCENARIOS: [(&str, &str, &str); 7] = [
    (
        "every_operation",
        "CREATE TABLE t (id int PRIMARY KEY, n text)",
        "INSERT INTO t VALUES (1, 'a'), (2, NULL); UPDATE t SET n = 'b' WHERE id = 1; \
         UPDATE t SET id = 3 WHERE id = 2; DELETE FROM t WHERE id = 3; TRUNCATE t",
    ),
    (
        "whole_old_rows",
        "CREATE TABLE t (id int, n text); ALTER TABLE t REPLICA IDENTITY FULL",
        "INSERT INTO t VALUES (1, 'a'); UPDATE t SET n = 'b'; DELETE FROM t",
    ),
    (
        "large_value_unchanged",
        "CREATE TABLE t (id int PRIMARY KEY, large text, n int); \
         ALTER TABLE t ALTER large SET STORAGE external",
        "INSERT INTO t VALUES (1, repeat('x', 2500), 1); UPDATE t SET n = 2",
    ),
    (
        "types_of_the_users_own",
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN small AS int; \
         CREATE TABLE t (m mood, ms mood[], s small)",
        "INSERT INTO t VALUES ('ok', '{sad,ok}', 5)",
    ),
    (
        "truncate_of_two",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a)",
        "TRUNCATE a, b RESTART IDENTITY CASCADE",
    ),
    (
        "shape_changes_in_mid_transaction",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1); ALTER TABLE t ADD COLUMN n int DEFAULT 7; \
         INSERT INTO t VALUES (2)",
    ),
    (
        "messages",
        "CREATE TABLE t (id int)",
        "SELECT pg_logical_emit_message(false, 'p', 'outside'); \
         SELECT pg_logical_emit_message(true, 'p', 'inside'); INSERT INTO t VALUES (1)",
    ),
];

#[tokio::test]
async fn everything_that_is_recorded_is_decoded() {
    for (name, before, streamed) in SCENARIOS {
        let database = support::database().await;
        let client = database.connect().await;
        client.batch_execute(before).await.unwrap();
        client.batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES").await.unwrap();
        let create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
        client.execute(create, &[&database.name]).await.unwrap();
        client.batch_execute(streamed).await.unwrap();
        let read = "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, \
                    'proto_version', '1', 'publication_names', 'walcast', 'messages', 'true')";
        let rows = client.query(read, &[&database.name]).await.unwrap();
        let payloads: Vec<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
        for payload in &payloads {
            pgoutput::decode(payload).unwrap();
        }
        assert!(payloads.len() > 2, "{name}");
        if std::env::var_os("RECORD_FIXTURES").is_some() {
            let row = client.query_one("SHOW server_version_num", &[]).await.unwrap();
            let version: u32 = row.get::<_, String>(0).parse().unwrap();
            record(version / 10_000, name, &payloads);
        }
        client.execute("SELECT pg_drop_replication_slot($1)", &[&database.name]).await.unwrap();
    }
}

/// One line of hexadecimal digits for each payload.
fn record(version: u32, name: &str, payloads: &[Vec<u8>]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join(format!("fixtures/pgoutput/{version}"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut text = String::new();
    for payload in payloads {
        for byte in payload {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    std::fs::write(folder.join(format!("{name}.hex")), text).unwrap();
}

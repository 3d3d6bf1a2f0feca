//! What only a person can mend, and how it is said.

use walcast::cli::demo::postgres::PrivateServer;
use walcast::ingest::Settings;
use walcast::ingest::error::IngestError;
use walcast::ingest::slot::SlotError;

use super::stage;
use super::stage::Stage;
use super::stage::settings;
use super::stage::until;
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn without_the_publication_no_slot_is_made() {
    let database = support::database().await;
    let client = database.connect().await;
    let mut stage = Stage::start(settings(&database.connection_string(), &database.name)).await;
    let error = stage.ended().await.unwrap_err();
    assert!(matches!(error, IngestError::Slot(SlotError::NoPublication { .. })), "{error}");
    let slots = format!(
        "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{}')",
        database.name
    );
    until(&client, &slots).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_database_is_told_apart() {
    let database = support::database().await;
    let other = support::database().await;
    let client = other.connect().await;
    let create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    client.execute(create, &[&database.name]).await.unwrap();
    let client = database.connect().await;
    client.batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES").await.unwrap();
    let mut stage = Stage::start(settings(&database.connection_string(), &database.name)).await;
    let error = stage.ended().await.unwrap_err();
    assert!(
        matches!(&error, IngestError::Slot(SlotError::OtherDatabase { found, .. }) if *found == other.name),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_slot_is_not_made_where_that_is_not_wanted() {
    let database = support::database().await;
    let client = database.connect().await;
    client.batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES").await.unwrap();
    let mut settings = settings(&database.connection_string(), &database.name);
    settings.slot.create = false;
    let error = Stage::start(settings).await.ended().await.unwrap_err();
    assert!(matches!(error, IngestError::Slot(SlotError::Missing { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_replication_is_refused_with_the_servers_words() {
    let database = support::database().await;
    let client = database.connect().await;
    client.batch_execute("CREATE ROLE only_login LOGIN").await.unwrap();
    let string = database.server.connection_string_as("only_login", &database.name);
    let error = Stage::start(settings(&string, &database.name)).await.ended().await.unwrap_err();
    assert!(error.chain().contains("42501"), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_write_logical_log_is_told() {
    let options = support::options().parameter("wal_level", "replica");
    let server = PrivateServer::start(options).unwrap();
    let string = server.connection_string("postgres");
    let client = support::connect(&string).await;
    client.batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES").await.unwrap();
    let error = Stage::start(settings(&string, "walcast")).await.ended().await.unwrap_err();
    assert!(matches!(error, IngestError::Slot(SlotError::WalLevel { .. })), "{error}");
}

/// Why a stage ends whose catalogue is asked by somebody who may.
async fn ended_at_once(refused: Settings, allowed: &str) -> String {
    let catalog = stage::catalog(allowed.parse().unwrap()).await;
    Stage::start_with(refused, 1000, &catalog).ended().await.unwrap_err().chain()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_proven_by_scram_and_by_md5() {
    let server = support::server();
    let string = server.connection_string("postgres");
    let client = support::connect(&string).await;
    client
        .batch_execute(
            "CREATE PUBLICATION walcast FOR ALL TABLES; CREATE TABLE t (id int); \
             CREATE ROLE by_scram SUPERUSER LOGIN PASSWORD 'säcret'; \
             SET password_encryption = 'md5'; \
             CREATE ROLE by_md5 SUPERUSER LOGIN PASSWORD 'other'; \
             CREATE ROLE by_text SUPERUSER LOGIN PASSWORD 'third'",
        )
        .await
        .unwrap();
    let rules = "local all by_scram scram-sha-256\nlocal all by_md5 md5\nlocal all by_text password\n\
                 local all all trust\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(server.data_folder().join("pg_hba.conf"), rules).unwrap();
    client
        .batch_execute("CREATE TABLE before AS SELECT pg_conf_load_time() AS loaded")
        .await
        .unwrap();
    server.reload().unwrap();
    until(&client, "SELECT pg_conf_load_time() > loaded FROM before").await;
    let wrong = format!("{} password=wrong", server.connection_string_as("by_scram", "postgres"));
    let wrong = settings(&wrong, "wrong");
    let error = ended_at_once(wrong, &string).await;
    assert!(error.contains("28P01"), "{error}");
    for (role, password) in [("by_scram", "säcret"), ("by_md5", "other"), ("by_text", "third")] {
        let string =
            format!("{} password={password}", server.connection_string_as(role, "postgres"));
        let mut stage = Stage::start(settings(&string, role)).await;
        stage.live().await;
        stage.stop().await.unwrap();
    }
}

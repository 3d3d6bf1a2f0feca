//! The private server itself: starts, stops, crashes, and never stays behind.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::SystemTime;

use walcast::cli::demo::postgres::Listen;
use walcast::cli::demo::postgres::Options;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::ServerError;
use walcast::cli::demo::postgres::Stop;

use crate::support;

#[tokio::test]
async fn a_database_is_ready_for_logical_decoding() {
    let database = support::database().await;
    let client = database.connect().await;
    let row = client.query_one("SHOW wal_level", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "logical");
    let row = client.query_one("SELECT current_database()::text", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), database.name);
}

#[tokio::test]
async fn what_was_committed_survives_every_way_to_stop() {
    let server = PrivateServer::start(support::options().parameter("fsync", "on")).unwrap();
    let client = support::connect(&server.connection_string("postgres")).await;
    client.batch_execute("CREATE TABLE stops (count int)").await.unwrap();
    let port = server.port();
    for (count, how) in (1..).zip([Stop::Fast, Stop::Immediate, Stop::Kill]) {
        let client = support::connect(&server.connection_string("postgres")).await;
        client.execute("INSERT INTO stops VALUES (1)", &[]).await.unwrap();
        server.stop(how).unwrap();
        assert_eq!(server.pid(), None);
        server.start_again().unwrap();
        let client = support::connect(&server.url("postgres", "postgres")).await;
        let row = client.query_one("SELECT count(*) FROM stops", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), count, "after {how:?}");
    }
    assert_eq!(server.port(), port);
}

#[tokio::test]
async fn a_server_by_socket_only_listens_on_no_port() {
    let server =
        PrivateServer::start(Options { listen: Listen::Socket, ..support::options() }).unwrap();
    let client = support::connect(&server.connection_string("postgres")).await;
    let row = client.query_one("SHOW listen_addresses", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "");
}

#[test]
fn a_dropped_server_leaves_nothing_behind() {
    let server = support::server();
    let pid = server.pid().unwrap();
    let folder = server.socket_folder().to_owned();
    drop(server);
    assert!(!folder.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// The victim of [`a_server_does_not_outlive_its_process`]; alone it only starts and stops one.
#[test]
fn a_process_with_a_server() {
    let server = support::server();
    if std::env::var_os("WALCAST_TEST_WAIT_TO_BE_KILLED").is_some() {
        println!("SERVER {}", server.socket_folder().display());
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
}

#[test]
fn a_server_does_not_outlive_its_process() {
    use std::io::BufRead;

    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server::a_process_with_a_server", "--nocapture"])
        .env("WALCAST_TEST_WAIT_TO_BE_KILLED", "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(victim.stdout.take().unwrap()).lines();
    let folder = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("SERVER ").map(|(_, folder)| folder.to_owned()))
        .unwrap();
    assert!(Path::new(&folder).join("data/postmaster.pid").exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let deadline = SystemTime::now() + Duration::from_secs(30);
    while Path::new(&folder).exists() {
        assert!(SystemTime::now() < deadline, "{folder} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_folder_without_a_server_is_named() {
    let binaries = Some("/nonexistent".into());
    let error = PrivateServer::start(Options { binaries, ..support::options() }).unwrap_err();
    assert!(matches!(error, ServerError::NotThere { .. }), "{error}");
}

#[test]
fn a_bad_setting_fails_with_what_the_server_said() {
    let options = support::options().parameter("wal_level", "no such level");
    let error = PrivateServer::start(options).unwrap_err();
    assert!(error.to_string().contains("no such level"), "{error}");
}

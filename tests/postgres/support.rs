//! What the tests of this ring share: servers and databases.
//!
//! Most tests take [`database`]: a fresh database on a server that the whole process shares (under
//! nextest, that is a server per test, started from a template in a fifth of a second). A test that
//! stops its server, or gives it settings, takes [`server`].

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use tokio_postgres::Client;
use tokio_postgres::NoTls;
use walcast::cli::demo::postgres::Options;
use walcast::cli::demo::postgres::PrivateServer;

/// A database of a test's own. Goes with its server.
pub(crate) struct Database {
    /// The server, which other tests use, too.
    pub(crate) server: &'static PrivateServer,
    /// The name of the database.
    pub(crate) name: String,
}

/// What a server of a test is started with; change what the test is about.
pub(crate) fn options() -> Options {
    let templates = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("postgres-templates");
    let binaries = std::env::var_os("WALCAST_TEST_PG_BIN").map(PathBuf::from);
    // Under `cargo test` all tests of the process share one server, and each slot stays.
    Options { binaries, ..Options::for_tests(&templates) }
        .parameter("max_replication_slots", "200")
        .parameter("max_wal_senders", "200")
}

/// A server of the test's own.
pub(crate) fn server() -> PrivateServer {
    PrivateServer::start(options()).unwrap()
}

/// The server that the tests of this process share. Never dropped: its guard ends it.
pub(crate) fn shared_server() -> &'static PrivateServer {
    static SHARED: OnceLock<PrivateServer> = OnceLock::new();
    SHARED.get_or_init(server)
}

/// An empty database on the shared server.
pub(crate) async fn database() -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = shared_server();
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let client = connect(&server.connection_string("postgres")).await;
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    Database { server, name }
}

impl Database {
    /// How the superuser reaches it.
    pub(crate) fn connection_string(&self) -> String {
        self.server.connection_string(&self.name)
    }

    /// A connection of the superuser.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.connection_string()).await
    }
}

/// Connects; the connection is driven by a task that ends with the client.
pub(crate) async fn connect(connection_string: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(connection_string, NoTls).await.unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the task ends with the client that a test owns"
    )]
    tokio::spawn(connection);
    client
}

/// The server's version as a number: 150018 is 15.18.
pub(crate) async fn version(client: &Client) -> u32 {
    let row = client.query_one("SHOW server_version_num", &[]).await.unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

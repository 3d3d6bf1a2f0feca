//! TLS to Postgres: whom each `sslmode` believes, tried on a server with a certificate.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use walcast::catalog::Catalog;
use walcast::catalog::CatalogError;
use walcast::catalog::Settings;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::Stop;
use walcast::tls::TlsMode;

use crate::support::connect;
use crate::support::server;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls")).join(name)
}

/// A server that has the fixtures' certificate, and takes TCP connections only with TLS.
async fn server_with_certificate() -> PrivateServer {
    let server = server();
    let data = server.data_folder();
    let owner = fs::metadata(&data).unwrap();
    for (from, to) in [("server.pem", "server.crt"), ("server.key", "server.key")] {
        let to = data.join(to);
        fs::copy(fixture(from), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    fs::write(
        data.join("pg_hba.conf"),
        "local all all trust\nhostssl all all 127.0.0.1/32 trust\n",
    )
    .unwrap();
    let client = connect(&server.connection_string("postgres")).await;
    client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    drop(client);
    server.restart(Stop::Fast).unwrap();
    server
}

async fn try_to_connect(
    server: &PrivateServer,
    host: &str,
    mode: TlsMode,
    ca_file: Option<&str>,
) -> Result<Catalog, CatalogError> {
    let port = server.port();
    let connection = format!("host={host} hostaddr=127.0.0.1 port={port} user=postgres");
    Catalog::connect(Settings {
        connection: connection.parse().unwrap(),
        tls_mode: mode,
        tls_ca_file: ca_file.map(fixture),
        publication: "none".into(),
        roles: Vec::new(),
        tables: Vec::new(),
    })
    .await
}

#[tokio::test]
async fn each_mode_believes_whom_it_should() {
    let server = server_with_certificate().await;
    let (ours, other) = (Some("ca.pem"), Some("other_ca.pem"));
    let cases = [
        ("localhost", TlsMode::Disable, None, false),
        ("localhost", TlsMode::Prefer, None, true),
        ("localhost", TlsMode::Require, None, true),
        ("elsewhere", TlsMode::Require, None, true),
        ("elsewhere", TlsMode::Require, ours, true),
        ("localhost", TlsMode::Require, other, false),
        ("elsewhere", TlsMode::VerifyCa, ours, true),
        ("localhost", TlsMode::VerifyCa, other, false),
        ("localhost", TlsMode::VerifyFull, ours, true),
        ("elsewhere", TlsMode::VerifyFull, ours, false),
        ("localhost", TlsMode::VerifyFull, other, false),
    ];
    for (host, mode, ca_file, believed) in cases {
        let result = try_to_connect(&server, host, mode, ca_file).await;
        assert_eq!(result.is_ok(), believed, "{host} {mode:?} {ca_file:?}: {result:?}");
    }
    let missing = try_to_connect(&server, "localhost", TlsMode::VerifyFull, Some("none.pem")).await;
    assert!(matches!(missing, Err(CatalogError::Tls(_))), "{missing:?}");
}

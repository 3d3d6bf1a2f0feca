//! The demo's database: schema, security, people, and what walcast needs in it.

use tokio_postgres::Client;
use tokio_postgres::Error;
use tokio_postgres::NoTls;

use super::postgres::PrivateServer;

/// Its name.
pub const NAME: &str = "demo";

/// What it is built from, in order; what each file is for, as a person reads it while it runs.
pub const SCRIPTS: &[(&str, &str)] = &[
    ("tables of a delivery company", include_str!("../../../fixtures/demo/schema.sql")),
    ("roles, grants and row-level security", include_str!("../../../fixtures/demo/security.sql")),
    ("people and merchants", include_str!("../../../fixtures/demo/data.sql")),
    ("publication and walcast's roles", include_str!("../../../fixtures/demo/walcast.sql")),
];

/// Creates the database on an empty server, calling `progress` before each step.
///
/// # Errors
///
/// What Postgres says; the server is of no use then.
pub async fn build(server: &PrivateServer, progress: impl Fn(&str)) -> Result<(), Error> {
    let create = format!("CREATE DATABASE {NAME}");
    on(&server.connection_string("postgres"), async |client| client.batch_execute(&create).await)
        .await?;
    on(&server.connection_string(NAME), async |client| {
        for (what, script) in SCRIPTS {
            progress(what);
            client.batch_execute(script).await?;
        }
        Ok(())
    })
    .await
}

/// Connects, works, and hangs up.
async fn on(
    connection_string: &str,
    work: impl AsyncFnOnce(&Client) -> Result<(), Error>,
) -> Result<(), Error> {
    let (client, connection) = tokio_postgres::connect(connection_string, NoTls).await?;
    tokio::select! {
        biased;
        done = work(&client) => done,
        // It ends before the work only when it is lost.
        lost = connection => lost,
    }
}

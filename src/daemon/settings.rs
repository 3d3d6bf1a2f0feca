//! From the configuration to what each component wants to be told.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use crate::ask;
use crate::auth::Secret;
use crate::catalog;
use crate::catalog::TableName;
use crate::catalog::audit::Access as ExpectedAccess;
use crate::catalog::audit::Expectations;
use crate::catalog::audit::ExpectedTable;
use crate::config::Access;
use crate::config::Config;
use crate::config::TablePolicy;
use crate::config::Window;
use crate::daemon::descriptors;
use crate::daemon::edge::Edge;
use crate::gate;
use crate::ingest;
use crate::ingest::assemble::PART_BYTES;
use crate::ingest::frames::Reading;
use crate::ingest::orders::Held;
use crate::ingest::progress;
use crate::ingest::slot::NameError;
use crate::ring;
use crate::route;
use crate::route::policy::Policies;
use crate::route::policy::Policy;
use crate::serve;
use crate::tls::TlsError;
use crate::tls::TlsMode;

/// What in the configuration turned out to be of no use.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A connection string that Postgres's own clients would not take either. It is not repeated:
    /// there may be a password in it.
    #[error("{key} is not a connection string")]
    Connection {
        /// The key.
        key: &'static str,
        /// The reason.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The `sslmode` of a connection string.
    #[error("{key}")]
    Tls {
        /// The key.
        key: &'static str,
        /// The reason.
        #[source]
        source: TlsError,
    },
    /// The slot's or the publication's name.
    #[error("section database")]
    Name(#[source] NameError),
}

/// Who may see what.
pub(crate) fn policies(config: &Config) -> Policies {
    let entry = |table: &TablePolicy| {
        let policy = match &table.access {
            Access::Open => Policy::Open,
            Access::Policy(rule) => Policy::Rule(rule.clone()),
        };
        (table_name(&table.schema, &table.name), policy)
    };
    let undecided =
        |table: &TablePolicy| Some((table_name(&table.schema, &table.name), table.undecided?));
    let row_security = &config.row_security;
    Policies::new(config.tables.iter().map(entry))
        .with_settings(config.settings.clone())
        .with_undecided(
            row_security.undecided,
            config.tables.iter().filter_map(undecided),
            &row_security.search_path,
        )
}

/// What the stream is read with.
pub(crate) fn ingest(config: &Config) -> Result<ingest::Settings, SettingsError> {
    let (database, held) = (&config.database, held(config));
    let (connection, tls_mode) =
        connection("database.url", &database.url, database.password.as_ref())?;
    let slot = ingest::slot::Settings {
        name: database.slot.parse().map_err(SettingsError::Name)?,
        publication: database.publication.parse().map_err(SettingsError::Name)?,
        create: database.create_slot,
    };
    Ok(ingest::Settings {
        tls_mode,
        tls_ca_file: database.tls_ca_file.clone(),
        slot,
        window: held.window,
        reading: Reading { cell_bytes_max: config.limits.frame_bytes_max, ..Reading::default() },
        part_bytes: held.part_bytes,
        ..ingest::Settings::new(connection)
    })
}

/// What of it a reload changes.
pub(super) fn held(config: &Config) -> Held {
    let Window { bytes, age } = config.window;
    let bytes = config.wal.budget_bytes.map_or(bytes, |budget| bytes.min(budget / 4));
    Held {
        window: progress::Window { bytes, age },
        part_bytes: PART_BYTES.min(config.ring.bytes_max / 16),
    }
}

/// Whom the catalogue asks.
pub(crate) fn catalog(config: &Config) -> Result<catalog::Settings, SettingsError> {
    let database = &config.database;
    let (mut connection, tls_mode) =
        connection("database.ask_url", &database.ask_url, database.ask_password.as_ref())?;
    connection.application_name("walcast");
    let mut roles: Vec<Box<str>> = config.auth.roles.iter().map(|it| it.as_str().into()).collect();
    let more = config.auth.anonymous_role.iter().chain(&config.auth.default_role);
    roles.extend(more.map(|role| role.as_str().into()));
    roles.sort_unstable();
    roles.dedup();
    let tables = config.tables.iter().map(|table| table_name(&table.schema, &table.name));
    Ok(catalog::Settings {
        connection,
        tls_mode,
        tls_ca_file: database.tls_ca_file.clone(),
        publication: database.publication.as_str().into(),
        roles,
        tables: tables.collect(),
    })
}

/// The same over another connection.
pub(crate) fn catalog_over(config: &Config, url: &str) -> Result<catalog::Settings, SettingsError> {
    let (connection, tls_mode) = connection("--reading-url", url, None)?;
    Ok(catalog::Settings { connection, tls_mode, ..catalog(config)? })
}

/// What the database should be like.
pub(crate) fn expectations(
    config: &Config,
    ingest: &ingest::Settings,
    roles: &[Box<str>],
) -> Expectations {
    let table = |table: &TablePolicy| ExpectedTable {
        name: table_name(&table.schema, &table.name),
        access: match table.access {
            Access::Open => ExpectedAccess::Open,
            Access::Policy(_) => ExpectedAccess::Policy,
        },
    };
    Expectations {
        slot: config.database.slot.as_str().into(),
        creates_slot: config.database.create_slot,
        publication: config.database.publication.as_str().into(),
        replication_role: ingest.connection.get_user().map(Into::into),
        window_bytes: config.window.bytes,
        warn_bytes: config.wal.warn_bytes,
        budget_bytes: config.wal.budget_bytes,
        roles: roles.to_vec(),
        tables: config.tables.iter().map(table).collect(),
    }
}

fn connection(
    key: &'static str,
    url: &str,
    password: Option<&Secret>,
) -> Result<(tokio_postgres::Config, TlsMode), SettingsError> {
    let (rest, tls_mode) =
        TlsMode::take_from(url).map_err(|source| SettingsError::Tls { key, source })?;
    let mut connection: tokio_postgres::Config =
        rest.parse().map_err(|source| SettingsError::Connection { key, source })?;
    if let Some(password) = password {
        connection.password(password.expose());
    }
    Ok((connection, tls_mode))
}

/// What may be asked for snapshots.
pub(super) fn ask(config: &Config) -> ask::Settings {
    ask::Settings { cell_bytes_max: config.limits.frame_bytes_max, ..config.snapshot }
}

/// How many shards: as many as were asked for, else one for each processor. On a machine with two,
/// one: the other is Postgres's and ingest's.
pub(super) fn shards(config: &Config) -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let automatic = if processors <= 2 { 1 } else { processors };
    config.listen.shards.unwrap_or(automatic).max(1)
}

/// What bounds a shard.
pub(super) fn shard(config: &Config) -> route::shard::Settings {
    let limits = &config.limits;
    route::shard::Settings {
        subscriptions_max: limits.subscriptions_per_session,
        outbox_bytes_max: limits.outbox_bytes_max,
        frame_bytes_max: limits.frame_bytes_max,
        outbox_total_bytes_max: limits.outbox_total_bytes_max,
        handshake_seconds: whole_seconds(limits.handshake),
        ping_seconds: whole_seconds(limits.ping),
        silence_seconds: whole_seconds(limits.silence),
        grace_seconds: whole_seconds(config.auth.grace),
        memo_bytes_max: config.row_security.memo_bytes_max / shards(config),
        ring: ring::Settings { bytes_max: config.ring.bytes_max, age_max: config.ring.age_max },
        steps: route::shard::Steps::default(),
    }
}

/// How many clients there may be, and how often they may ask.
pub(super) fn gate(config: &Config) -> gate::Limits {
    let mut limits = config.gate.clone();
    // The limit is raised also where it does not say how many there may be.
    let possible = descriptors::connections();
    limits.connections = limits.connections.or(possible);
    limits
}

/// What bounds a connection.
pub(super) fn serve(
    config: &Config,
    address: std::net::SocketAddr,
    edge: &Edge,
) -> serve::Settings {
    serve::Settings {
        address,
        request_bytes_max: config.limits.request_bytes_max,
        handshake: config.limits.handshake,
        silence: config.limits.silence,
        subscriptions_max: config.limits.subscriptions_per_session,
        ping_seconds: whole_seconds(config.limits.ping),
        origins: config.listen.origins.iter().map(|origin| origin.as_str().into()).collect(),
        drain: config.drain,
        gate: Arc::clone(&edge.gate),
        tls: edge.tls.clone(),
    }
}

pub(crate) fn table_name(schema: &str, name: &str) -> TableName {
    TableName { schema: schema.into(), name: name.into() }
}

fn whole_seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}

//! The file, the environment and the command line in; [`Config`] out, or every mistake at once.
//!
//! ```text
//! walcast.toml ─▶ source ─▶ read ─▶ build ─▶ Config ─▶ daemon gives each component its own
//! conf.d/*.toml ─▶ │
//! WALCAST__… ───▶  (flat     (typed,           │
//! --set … ──────▶   table)    by keys)         └▶ or ConfigError: all mistakes, with their places
//! ```
//!
//! Later layers win: the command line over the environment over the files in `conf.d`
//! over the file over the defaults. A key
//! that does not exist is a mistake, wherever it is given. Nothing is opened but the files that the
//! configuration itself names.
//!
//! # Invariants
//!
//! - Secrets are never in the configuration itself: a file or a systemd credential holds them, and
//!   a password in a connection string is a mistake. (Tests here.)
//! - `docs/configuration.md` and the example in `systemd/` name every key. (`tests/config.rs`.)

pub mod keys;
pub mod mistake;

mod build;
mod tokens;
mod gate;
mod operate;
mod read;
mod rls;
mod source;
mod values;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::ask;
use crate::auth;
use crate::auth::Secret;
use crate::config::read::Reader;
use crate::config::source::Entries;
use crate::console::settings as console;
use crate::control::Change;
use crate::gate::Limits as GateLimits;
use crate::ingest::budget;
use crate::replica;
use crate::route::policy::Undecided;
use crate::rule::Expression;
use crate::rule::Settings;
use crate::tls::server::Files;
use crate::trace::Endpoint;

pub use mistake::{ConfigError, Mistake, Origin};
pub use rls::RowSecurity;
pub use values::Values;

/// The folder beside the file, of files that are read over it.
const DROP_INS: &str = "conf.d";

/// A configuration without a mistake.
#[derive(Clone, Debug)]
pub struct Config {
    /// Section `database`.
    pub database: Database,
    /// Section `window`.
    pub window: Window,
    /// Section `wal`: how much log the slot may keep.
    pub wal: budget::Settings,
    /// Section `ring`.
    pub ring: Ring,
    /// Section `listen`.
    pub listen: Listen,
    /// Section `admin`.
    pub admin: Admin,
    /// Section `auth`: every key in it has been checked.
    pub auth: auth::Settings,
    /// Section `limits`.
    pub limits: Limits,
    /// Sections `limits` and `listen`: how many clients, how often, and by which address. Without
    /// `connections` it is the daemon's to say how many there may be.
    pub gate: GateLimits,
    /// Sections `snapshot` and `rls`: what may be asked, and how often.
    pub snapshot: ask::Settings,
    /// Section `rls`.
    pub row_security: RowSecurity,
    /// Section `replicas`.
    pub replicas: replica::Settings,
    /// Section `console`.
    pub console: console::Settings,
    /// Over how long clients are asked to come back when the daemon stops.
    pub drain: Duration,
    /// Whether a change of the configuration's files is a reason to read them again.
    pub watch: bool,
    /// What is logged, as `--log` has it.
    pub log: String,
    /// Where traces are sent.
    pub otlp: Option<Endpoint>,
    /// Settings that the database's own policies read, made of claims.
    pub settings: Settings,
    /// The sections `table`, in their order; no name twice.
    pub tables: Vec<TablePolicy>,
    /// What works and still should be looked at, a sentence each.
    pub warnings: Vec<String>,
    /// Every key with its value and source.
    pub values: Values,
    /// Where all of this was read, and can be read again.
    pub layers: Layers,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Connection string of the role that reads the log; without a password.
    pub url: String,
    /// Connection string of the role that asks; without a password.
    pub ask_url: String,
    /// The password for `url`.
    pub password: Option<Secret>,
    /// The password for `ask_url`.
    pub ask_password: Option<Secret>,
    /// A file of certificates in PEM that the server's must descend from. Absent: the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// The replication slot's name, as Postgres allows it.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// Whether a slot that does not exist is created.
    pub create_slot: bool,
}

/// How far the confirmed position is held back: whichever is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// In bytes of log.
    pub bytes: u64,
    /// In time.
    pub age: Duration,
}

/// How much of what happened is kept in memory: whichever is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// In bytes, of all shards together.
    pub bytes_max: usize,
    /// In time.
    pub age_max: Duration,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address and port.
    pub address: SocketAddr,
    /// How many shards; `None` leaves it to the daemon, by the machine's processors.
    pub shards: Option<usize>,
    /// The origins whose pages may connect, in lower case; `*` is all of them.
    pub origins: Vec<String>,
    /// The certificate that clients are shown, which has been read once; absent for plain text.
    pub tls: Option<Files>,
}

/// What operators ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where they ask; `None`: nowhere.
    pub address: Option<SocketAddr>,
    /// Whether deliveries are counted and timed.
    pub metrics: bool,
}

/// What one client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Subscriptions on one connection.
    pub subscriptions_per_session: usize,
    /// Bytes of one request.
    pub request_bytes_max: usize,
    /// Bytes queued for one client.
    pub outbox_bytes_max: usize,
    /// Bytes of the frame of one row.
    pub frame_bytes_max: usize,
    /// Bytes queued for all clients together; at least those for one.
    pub outbox_total_bytes_max: usize,
    /// Time to connect and to show a token.
    pub handshake: Duration,
    /// Quiet time after which a client is asked whether it is there.
    pub ping: Duration,
    /// Quiet time after which it is taken for gone; longer than `ping`.
    pub silence: Duration,
}

/// What the configuration says of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePolicy {
    /// The table's schema, as the catalogue has it.
    pub schema: String,
    /// The table's name, as the catalogue has it.
    pub name: String,
    /// Who sees which of its rows.
    pub access: Access,
    /// What becomes of its own policies where they are not decided here.
    pub undecided: Option<Undecided>,
}

/// Who sees which rows of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Access {
    /// Everybody who may read its columns sees all rows.
    Open,
    /// Whoever this condition over row and `claims` holds for. It is not bound yet: that takes the
    /// table's columns.
    Policy(Expression),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment's variables; those that do not begin with `WALCAST__` are passed over.
    pub environment: Vec<(String, String)>,
    /// What was given as `--set`, each `section.key=value`.
    pub flags: Vec<String>,
    /// Where systemd has put the credentials.
    pub credentials: Option<PathBuf>,
    /// Whether a key that does not exist is a warning only.
    pub allow_unknown: bool,
}

impl Layers {
    /// The given file and flags, with this process's environment.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<String>) -> Layers {
        let variables = std::env::vars_os();
        let texts = variables.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let environment = texts.collect();
        Layers { file, environment, flags, credentials, allow_unknown: false }
    }

    /// The folder of the files that are read over the file.
    #[must_use]
    pub fn drop_ins(&self) -> Option<PathBuf> {
        Some(self.file.as_ref()?.parent()?.join(DROP_INS))
    }

    /// The files, in the order in which they are read.
    fn files(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let mut files: Vec<PathBuf> = Vec::new();
        if let Some(folder) = self.drop_ins().filter(|folder| folder.is_dir()) {
            let listed = fs::read_dir(&folder)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|source| ConfigError::Unreadable { path: folder.clone(), source })?;
            files.extend(listed.iter().map(fs::DirEntry::path));
            files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
            files.sort_unstable();
        }
        Ok(self.file.iter().cloned().chain(files).collect())
    }
}

impl Config {
    /// Reads the layers, and the files that they name.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every mistake there is, or when the file itself cannot be read.
    pub fn load(layers: &Layers) -> Result<Config, ConfigError> {
        let entries = entries(layers)?;
        build(Reader::new(entries, layers.credentials.clone()), layers)
    }

    /// Reads the same layers again. What a running daemon can't change stays as it is here.
    ///
    /// # Errors
    ///
    /// As [`load`](Config::load): what was read must be a good configuration as a whole, and so
    /// must what comes of it.
    pub fn reload(&self) -> Result<(Config, Vec<Change>), ConfigError> {
        let wanted = Config::load(&self.layers)?;
        let changes = self.values.changes(&wanted.values);
        if changes.iter().all(|change| change.applied) {
            return Ok((wanted, changes));
        }
        let reader = self.values.keep_fixed(wanted.values, self.layers.credentials.clone());
        Ok((build(reader, &self.layers)?, changes))
    }
}

/// Everything that the layers say.
fn entries(layers: &Layers) -> Result<Entries, ConfigError> {
    let mut entries = Entries { allow_unknown: layers.allow_unknown, ..Entries::default() };
    for path in layers.files()? {
        let text = fs::read_to_string(&path)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        entries.add_file(&path, &text);
    }
    // What a file that is not TOML does not say would be reported as missing.
    if entries.mistakes.iter().any(|mistake| mistake.key.is_empty()) {
        return Err(ConfigError::Mistakes(entries.mistakes));
    }
    entries.add_environment(&layers.environment);
    entries.add_flags(&layers.flags);
    Ok(entries)
}

fn build(mut reader: Reader, layers: &Layers) -> Result<Config, ConfigError> {
    let mut config = build::config(&mut reader);
    if reader.entries.mistakes.is_empty() {
        config.warnings = reader.warnings;
        config.warnings.extend(reader.entries.unknown.iter().cloned());
        config.values = Values::of(reader.entries, reader.contents);
        config.layers = layers.clone();
        Ok(config)
    } else {
        let mut mistakes = reader.entries.mistakes;
        mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
        Err(ConfigError::Mistakes(mistakes))
    }
}

#[cfg(test)]
mod tests;

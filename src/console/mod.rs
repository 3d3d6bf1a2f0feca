//! The operator's console: `psql` to walcast.
//!
//! ```text
//! listener ──▶ connection ──▶ login (SCRAM, or who owns the socket) ──▶ split ──▶ statement
//!                                                                                   │
//!           frames ◀── wire ◀── answer (a table, or a tag) ◀── show, order, polite ◀┤
//!                  ◀── lines of a shard's session ◀── follow ◀──────────────────────┘
//! ```
//!
//! It speaks the protocol of Postgres (`pgwire`), so that what a DBA has can be used: psql with its
//! `\watch` and `\gx`, drivers, health checks, Grafana. What can be asked is the table
//! [`STATEMENTS`](statement::STATEMENTS); `docs/console.md` is written from it. Nothing here is in the data's way: the
//! console has a runtime of its own, and asks the shards between their passes.
//!
//! # Invariants
//!
//! - Who has not logged in learns nothing but that a login is needed: an unknown user, a wrong
//!   password and a user without a level are one answer.
//! - Whoever has the level `stats` changes nothing.
//! - No verifier and no secret is shown; subjects, addresses and filters are. Rows are shown only by
//!   `follow`, which is a session of a shard in the name of claims, as every client's is.

pub mod settings;
pub mod users;
pub mod statement;
pub mod listener;
mod connection;
mod negotiate;
mod login;
mod handler;
mod wire;
mod answer;
mod split;
mod parse;
mod parameter;
mod polite;
mod show;
mod order;
mod follow;
mod explain;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pgwire::api::ConnectionManager;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::auth::Verifier;
use crate::catalog::Catalog;
use crate::catalog::audit::Finding;
use crate::catalog::dial::Dial;
use crate::console::login::Passwords;
use crate::console::settings::Settings;
use crate::control::Control;
use crate::ingest::Standing;
use crate::metrics::Metrics;
use crate::replica::Store;
use crate::route::policy::Policies;
use crate::serve::inspect::Inspector;

/// What the console looks at, and whom it gives orders.
#[derive(Clone)]
pub struct View {
    /// Who asks the shards.
    pub inspector: Inspector,
    /// Who gives orders.
    pub control: Control,
    /// What the database says of its tables.
    pub catalog: Arc<Catalog>,
    /// The tables that policies read.
    pub replicas: Arc<Store>,
    /// Whom and what the configuration admits, as it stands now.
    pub judging: Judging,
    /// The publication's name.
    pub publication: Box<str>,
    /// The slot's name.
    pub slot: Box<str>,
    /// The client roles.
    pub roles: Vec<Box<str>>,
    /// Counters of delivery.
    pub metrics: Arc<Metrics>,
    /// What the stream from Postgres is doing.
    pub standing: watch::Receiver<Standing>,
    /// Looks for what is wrong with the database.
    pub check: Check,
    /// How the asking role is reached.
    pub asking: Dial,
    /// After what time of silence a client that follows changes is sent a sign of life.
    pub heartbeat: Duration,
}

/// Looks for what is wrong with the configuration that holds, and with the database.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Vec<Finding>> + Send + Sync>;

/// Whom and what the configuration admits. A reload makes another one.
#[derive(Clone, Debug)]
pub struct Judge {
    /// What is said of tables.
    pub policies: Arc<Policies>,
    /// Who believes tokens.
    pub verifier: Arc<Verifier>,
}

/// Tells who judges now.
pub type Judging = Arc<dyn Fn() -> Judge + Send + Sync>;

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// The console. Shared by its connections.
#[derive(Debug)]
pub struct Console {
    settings: Settings,
    view: View,
    passwords: Passwords,
    /// Which connection a cancel request is for.
    cancels: Arc<ConnectionManager>,
    began: Instant,
}

impl Console {
    /// A console over what there is to see.
    ///
    /// # Errors
    ///
    /// Where the certificate can't be used for channel binding.
    pub fn new(settings: Settings, view: View) -> io::Result<Console> {
        let passwords = Passwords::new(&settings)?;
        let cancels = Arc::new(ConnectionManager::new());
        Ok(Console { settings, view, passwords, cancels, began: Instant::now() })
    }
}

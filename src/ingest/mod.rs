//! From Postgres: the slot's stream in, transactions out to every shard, positions back.
//!
//! ```text
//!  Postgres ──frames──▶ walsender ──▶ pgoutput ──▶ assemble ──▶ downstream ──Feed──▶ shards
//!     ▲                                  │ shape of a table         │                  │
//!     │                                  └──▶ catalogue             ▼                  │
//!     └────────── status, confirmed position held back ──────── progress ◀───Routed────┘
//! ```
//!
//! A large transaction goes through in parts, so that memory has a bound whatever is committed.
//!
//! `run` is the stage: it connects, streams, and connects again. It wants a thread and a
//! current-thread runtime of its own, because it sleeps between reads of a busy stream
//! (`frames`).
//!
//! # Invariants
//!
//! - Every change of a transaction that ended after the `tail` of the last [`Feed::Start`] is fed
//!   once, in commit order, or a new `Start` says that history was lost.
//! - No frame is read while a shard has no room or too much is in flight, and the server still
//!   hears from us in time.
//! - A position is confirmed only after every shard has routed it, and held back by the window.
//!   What is let go by order is a new `Start`, never a gap.
//!
//! [`Feed::Start`]: crate::ring::feed::Feed::Start

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::ingest::assemble::PART_BYTES;
use crate::ingest::error::IngestError;
use crate::ingest::frames::Reading;
use crate::ingest::orders::Orders;
use crate::ingest::progress::Window;
use crate::ingest::state::Board;
use crate::metrics::Metrics;
use crate::replica;
use crate::ring::feed::Feed;
use crate::ring::feed::Routed;
use crate::tls::TlsMode;

pub mod run;
mod stream;
pub mod state;
pub mod orders;
pub mod error;
pub mod connect;
mod end_point;
mod startup;
pub mod frames;
pub mod condense;
pub mod walsender;
pub mod slot;
pub mod pgoutput;
pub mod assemble;
pub mod progress;
pub mod budget;
pub mod downstream;

pub use state::Standing;
pub use state::State;

/// What the stage is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server, the database in it, and the role that has REPLICATION.
    pub connection: tokio_postgres::Config,
    /// Whether the connection is encrypted, and whom it believes. (The `ssl_mode` of
    /// [`connection`](Settings::connection) is not looked at.)
    pub tls_mode: TlsMode,
    /// The authorities to believe; absent: the operating system's.
    pub tls_ca_file: Option<PathBuf>,
    /// The slot and its publication.
    pub slot: slot::Settings,
    /// How far the confirmed position is held back.
    pub window: Window,
    /// How the stream is read.
    pub reading: Reading,
    /// How much may be received and not yet routed, in bytes of memory. Default 64 MiB: a burst of a
    /// second, and what a restart reads again.
    pub in_flight_bytes_max: usize,
    /// How large a part of a large transaction becomes, in bytes of memory. Default 8 MiB.
    pub part_bytes: usize,
    /// How long connecting may take, and how long the end of the stream is waited for. Default
    /// 10 s.
    pub patience: Duration,
    /// How long a server may be silent although it was asked. Default 2 minutes: decoding a large
    /// transaction can keep it busy.
    pub silence_max: Duration,
}

impl Settings {
    /// The defaults, for a server.
    #[must_use]
    pub fn new(connection: tokio_postgres::Config) -> Settings {
        Settings {
            connection,
            tls_mode: TlsMode::default(),
            tls_ca_file: None,
            slot: slot::Settings::default(),
            window: Window::default(),
            reading: Reading::default(),
            in_flight_bytes_max: 64 << 20,
            part_bytes: PART_BYTES,
            patience: Duration::from_secs(10),
            silence_max: Duration::from_mins(2),
        }
    }
}

/// Everything that [`run_thread`] works with.
#[derive(Debug)]
pub struct Stage {
    /// What it is told.
    pub settings: Settings,
    /// Who knows what a table's types are.
    pub catalog: Arc<Catalog>,
    /// The tables that follow the stream, ahead of the shards.
    pub replicas: Arc<replica::Store>,
    /// The shards' channels. Nobody else may send into them.
    pub feeds: Vec<mpsc::Sender<Feed>>,
    /// How far the shards are, in the same order.
    pub routed: Vec<Routed>,
    /// Where the stage stands, for operators.
    pub board: Board,
    /// What it is asked to do while it runs.
    pub orders: Orders,
    /// What it counts, and whether it does its work.
    pub metrics: Arc<Metrics>,
    /// Asks it to end: what may be confirmed is confirmed, and the stream ended in good order, so
    /// that the slot is free at once.
    pub stop: CancellationToken,
}

/// Streams until it is stopped, on the calling thread, which must serve nobody else.
///
/// # Errors
///
/// [`IngestError`] where only a person can help ([`error::NextStep::Stop`]), or where the thread
/// can't have a runtime. Clients keep what the rings hold; nothing new comes.
pub fn run_thread(stage: Stage) -> Result<(), IngestError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(IngestError::Runtime)?;
    runtime.block_on(run::run(stage))
}

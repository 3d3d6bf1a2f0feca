//! Rows, asked of Postgres in the name of a client's role.
//!
//! ```text
//! route ──Question──▶ Asker ──bounded──▶ Pool ──a few connections──▶ Postgres
//!   ▲                                     │ equal questions are asked once
//!   └──────────── Told ◀── Arc<Answer> ───┘
//! ```
//!
//! An answer is a whole result at one moment, with what tells the moment: which transactions it saw,
//! and where the log stood after it. The stream goes on from there; `route` knows how. Rows come in
//! the form in which the stream sends them, so that the same rule and the same encoder take them.
//!
//! # Invariants
//!
//! - Nothing of a client's text is in a question: a [`Select`] is written from parsed trees and
//!   names of the catalogue. (`select`, `rule::sql`.)
//! - A question runs under the role and the claims that it names, and reads only.
//! - Whether a change may be seen is asked by connections of its own: `verdict`.
//! - Connections, questions that wait, rows and bytes of an answer, and bytes of all answers that
//!   somebody holds are bounded.

pub mod select;
mod pool;
mod query;
pub mod row;
pub mod verdict;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::ask::verdict::Inquirer;
use crate::change::lsn::Lsn;
use crate::change::transaction::Transaction;
use crate::change::visibility::Visibility;

pub use pool::Pool;
pub use select::Select;

/// What may be asked at once, and how much may come of it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections, each for one question at a time.
    pub connections: usize,
    /// Questions that wait for a connection.
    pub waiting_max: usize,
    /// Rows of one answer.
    pub rows_max: usize,
    /// Bytes of one answer.
    pub bytes_max: usize,
    /// Bytes of one value; a larger one is left out of its row, as the stream leaves it out.
    pub cell_bytes_max: usize,
    /// Bytes of all answers that were not yet read by everybody who asked.
    pub held_bytes_max: usize,
    /// How long Postgres may take for an answer, and a question wait for its turn.
    pub timeout: Duration,
    /// What may be asked of policies that are not decided here.
    pub verdicts: verdict::Settings,
}

impl Default for Settings {
    /// Four connections are much for a server that has a hundred; an answer of 16 MiB is as much
    /// as a page can use, and eight of them are what the ring takes, too.
    fn default() -> Settings {
        Settings {
            connections: 4,
            waiting_max: 1000,
            rows_max: 10_000,
            bytes_max: 16 << 20,
            cell_bytes_max: 1 << 20,
            held_bytes_max: 128 << 20,
            timeout: Duration::from_secs(10),
            verdicts: verdict::Settings::default(),
        }
    }
}

/// What is asked. Equal questions that wait or run at the same time are asked once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Rows of a table.
    Rows(Box<Select>),
    /// Only which transactions are visible now.
    Visible,
    /// That the log is flushed up to a position, if need be by a commit: on a quiet server its end
    /// may wait in memory for one, and the stream carries only what is flushed.
    Flush(Lsn),
}

/// What Postgres said.
#[derive(Debug)]
pub struct Answer {
    /// Its own, in this process.
    pub number: u64,
    /// Which transactions it saw.
    pub visibility: Arc<Visibility>,
    /// Where the log's end was after that: whatever it saw ended at or before it.
    pub insert_lsn: Lsn,
    /// The rows, in order, as inserts.
    pub rows: Transaction,
    /// Gives the memory back when the last one who has asked has read it.
    _held: Option<OwnedSemaphorePermit>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It has too many rows, or bytes.
    #[error("the snapshot has more than {limit} {unit}")]
    TooLarge {
        /// How many it may have.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// Too many ask at once.
    #[error("too many snapshots are asked for at once")]
    Busy,
    /// It takes too long.
    #[error("the snapshot took longer than {seconds} s")]
    Late {
        /// How long it may take.
        seconds: u64,
    },
    /// The table has another shape than the question is for, or was rewritten while it was read.
    #[error("the table was changed at the same time")]
    Changed,
    /// The asking role may not act under the client's role (any more), or there is no such role.
    #[error("the database lets nobody ask in the name of this role")]
    Forbidden,
    /// Postgres refused, or can't be reached. The reason is the operator's.
    #[error("the database did not answer")]
    Failed,
}

impl AskError {
    /// The word for it in metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            AskError::TooLarge { .. } => "too_large",
            AskError::Busy => "busy",
            AskError::Late { .. } => "timeout",
            AskError::Changed => "changed",
            AskError::Forbidden => "forbidden",
            AskError::Failed => "failed",
        }
    }
}

/// What becomes of a question.
#[derive(Debug)]
pub struct Told {
    /// The number that the asker gave it.
    pub ticket: u64,
    /// The answer.
    pub answer: Result<Arc<Answer>, AskError>,
}

/// Someone who waits for an answer.
#[derive(Clone, Debug)]
pub struct Listener {
    ticket: u64,
    tell: mpsc::Sender<Told>,
}

impl Listener {
    /// Tells them. There is room in the channel for as many as they have asked, or they are gone.
    pub fn tell(&self, answer: Result<Arc<Answer>, AskError>) {
        let _gone = self.tell.try_send(Told { ticket: self.ticket, answer });
    }
}

/// A question on its way.
#[derive(Debug)]
pub struct Job {
    /// What is asked.
    pub question: Question,
    /// Who asks.
    pub listener: Listener,
}

impl Answer {
    /// An answer whose memory nobody counts.
    #[must_use]
    pub fn new(visibility: Arc<Visibility>, insert_lsn: Lsn, rows: Transaction) -> Answer {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Answer { number, visibility, insert_lsn, rows, _held: None }
    }
}

/// Asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Asker {
    jobs: mpsc::Sender<Job>,
    inquirer: Inquirer,
    settings: watch::Sender<Settings>,
}

impl Asker {
    /// An asker, and the end where somebody takes up to `jobs_max` questions that wait.
    #[must_use]
    pub fn new(settings: Settings, jobs_max: usize) -> (Asker, mpsc::Receiver<Job>) {
        Asker::with(settings, jobs_max, Inquirer::new().0)
    }

    fn with(
        settings: Settings,
        jobs_max: usize,
        inquirer: Inquirer,
    ) -> (Asker, mpsc::Receiver<Job>) {
        let (jobs, taken) = mpsc::channel(jobs_max);
        (Asker { jobs, inquirer, settings: watch::Sender::new(settings) }, taken)
    }

    /// Whom to ask for verdicts.
    #[must_use]
    pub const fn inquirer(&self) -> &Inquirer {
        &self.inquirer
    }

    /// An asker whom nobody answers: every question is refused.
    #[must_use]
    pub fn unanswered() -> Asker {
        Asker::new(Settings { rows_max: 0, ..Settings::default() }, 1).0
    }

    /// How many rows an answer may have.
    #[must_use]
    pub fn rows_max(&self) -> usize {
        self.settings.borrow().rows_max
    }

    /// Lets the pool go on by other settings. What one answer and all of them may take in memory
    /// stays what it was: it is reserved by that.
    pub fn reconfigure(&self, settings: Settings) {
        self.settings.send_modify(|old| {
            let Settings { bytes_max, held_bytes_max, cell_bytes_max, .. } = *old;
            *old = Settings { bytes_max, held_bytes_max, cell_bytes_max, ..settings };
        });
    }

    /// The settings, as they change.
    #[must_use]
    pub fn settings(&self) -> watch::Receiver<Settings> {
        self.settings.subscribe()
    }

    /// Asks. The answer comes through `tell`, which must have room for it.
    ///
    /// # Errors
    ///
    /// [`AskError::Busy`] where too many ask at once, [`AskError::Failed`] where nobody answers.
    pub fn ask(
        &self,
        question: Question,
        ticket: u64,
        tell: &mpsc::Sender<Told>,
    ) -> Result<(), AskError> {
        let listener = Listener { ticket, tell: tell.clone() };
        self.jobs.try_send(Job { question, listener }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::Failed,
        })
    }
}

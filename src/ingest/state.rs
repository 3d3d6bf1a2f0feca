//! Where the stage stands: one state at a time, since when and why, for whoever looks.
//!
//! ```text
//!  waiting_for_database ─▶ connecting ─▶ catching_up ─▶ streaming ◀─▶ paused
//!                              ▲  ▲                         │
//!                              │  └── interrupted, busy ◀───┤
//!                              └── recreated ◀── lost ◀─────┘
//! ```
//!
//! The [`Board`] is written by the stage, and before it begins by whoever waits for the database.
//! Everybody else reads a `watch` of it. Each change is logged once: an outage of an hour is two
//! lines, not one for each attempt.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::logging::notice;
use crate::metrics::Metrics;
use crate::metrics::ingest::STATES;

/// What the stage is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The database does not answer, and was never asked anything since the start.
    WaitingForDatabase {
        /// Why, for a person.
        why: Arc<str>,
    },
    /// Connecting to the server, or waiting for the slot to be made.
    #[default]
    Connecting,
    /// Reading what was committed before the start; clients may not come yet.
    CatchingUp,
    /// Reading what is being committed.
    Streaming,
    /// Told to read nothing: Postgres keeps the log.
    Paused,
    /// The stream is interrupted and tried again.
    Interrupted {
        /// Why, for a person.
        why: Arc<str>,
    },
    /// Somebody else reads the slot. Tried again.
    Busy {
        /// The process of the server that does; `unknown` where it does not say.
        pid: Arc<str>,
    },
    /// The slot can't be read any more, or is given up. Another is made where that is allowed.
    Lost {
        /// Why, for a person.
        why: Arc<str>,
    },
    /// The slot was made anew, and its stream is about to begin: a new history.
    Recreated {
        /// What had become of the one before, for a person.
        why: Arc<str>,
    },
    /// The stage has ended.
    Stopped {
        /// Why, for a person; absent where it was told to.
        why: Option<Arc<str>>,
    },
}

impl State {
    /// All names, in the order of the variants.
    pub const NAMES: [&str; 10] = STATES;

    /// A word for programs, stable between versions.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            State::WaitingForDatabase { .. } => "waiting_for_database",
            State::Connecting => "connecting",
            State::CatchingUp => "catching_up",
            State::Streaming => "streaming",
            State::Paused => "paused",
            State::Interrupted { .. } => "interrupted",
            State::Busy { .. } => "busy",
            State::Lost { .. } => "lost",
            State::Recreated { .. } => "recreated",
            State::Stopped { .. } => "stopped",
        }
    }

    /// Why, where there is something to say; of [`State::Busy`] the process.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            State::WaitingForDatabase { why }
            | State::Interrupted { why }
            | State::Lost { why }
            | State::Recreated { why } => Some(why),
            State::Busy { pid } => Some(pid),
            State::Stopped { why } => why.as_deref(),
            State::Connecting | State::CatchingUp | State::Streaming | State::Paused => None,
        }
    }

    /// Whether what is committed now comes through now.
    #[must_use]
    pub const fn is_streaming(&self) -> bool {
        matches!(self, State::Streaming)
    }
}

impl fmt::Display for State {
    /// For people: `interrupted: connection lost`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::WaitingForDatabase { why } => write!(f, "waiting for the database: {why}"),
            State::CatchingUp => f.write_str("catching up"),
            State::Busy { pid } => {
                write!(f, "waiting for the slot, which process {pid} of the server reads")
            }
            State::Lost { why } => write!(f, "slot lost: {why}"),
            State::Recreated { why } => write!(f, "slot made anew: {why}"),
            State::Interrupted { why } | State::Stopped { why: Some(why) } => {
                write!(f, "{}: {why}", self.name())
            }
            State::Connecting | State::Streaming | State::Paused | State::Stopped { why: None } => {
                f.write_str(self.name())
            }
        }
    }
}

/// The state, and what an operator wants to know beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the stage is doing.
    pub state: State,
    /// Since when it is in a state of this name, whatever the reasons meanwhile.
    pub since: SystemTime,
    /// How often a new history began after the first, so that every client had to start again.
    pub renewals: u64,
    /// The last time; absent where it never did.
    pub renewed: Option<Renewal>,
}

/// A new history that began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// When.
    pub at: SystemTime,
    /// Why, for a person.
    pub why: Arc<str>,
}

impl Default for Standing {
    fn default() -> Standing {
        let (state, since) = (State::default(), SystemTime::now());
        Standing { state, since, renewals: 0, renewed: None }
    }
}

/// Where the standing is written. Clones write on the same.
#[derive(Clone, Debug)]
pub struct Board {
    standing: Arc<watch::Sender<Standing>>,
    metrics: Arc<Metrics>,
}

impl Board {
    /// A board that says [`State::Connecting`], and tells `metrics` what is written on it.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Board {
        tell(&metrics, &State::default());
        Board { standing: Arc::default(), metrics }
    }

    /// What is written on it, now and later.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Writes and logs a state, where it is another one, or has another reason.
    pub fn enter(&self, state: State) {
        self.standing.send_if_modified(|standing| {
            if standing.state == state {
                return false;
            }
            log(&state, &standing.state);
            tell(&self.metrics, &state);
            if standing.state.name() != state.name() {
                standing.since = SystemTime::now();
            }
            standing.state = state;
            true
        });
    }

    /// Writes and logs that a new history begins: what clients have is void.
    pub fn renew(&self, why: Arc<str>) {
        let code = notice::RESYNC_ALL;
        tracing::error!(
            code,
            why = &*why,
            "a new history begins: every client is told to start again"
        );
        self.standing.send_modify(|standing| {
            standing.renewals += 1;
            standing.renewed = Some(Renewal { at: SystemTime::now(), why });
        });
    }
}

/// Tells a state to whoever asks whether clients may come: each but streaming is a reason why not,
/// but that somebody told it to rest.
fn tell(metrics: &Metrics, state: &State) {
    metrics.ingest.enter(state.name());
    for name in State::NAMES.into_iter().filter(|name| *name != state.name()) {
        metrics.health.clear(name);
    }
    match state {
        State::Streaming => {}
        State::Paused => metrics.health.warn(state.name(), state.to_string()),
        _ => metrics.health.unready(state.name(), state.to_string()),
    }
}

/// What an operator finds a state in the log by.
const fn code(state: &State) -> Option<&'static str> {
    match state {
        State::WaitingForDatabase { .. } => Some(notice::WAITING),
        State::Streaming => Some(notice::STREAMING),
        State::Interrupted { .. } => Some(notice::INTERRUPTED),
        State::Busy { .. } => Some(notice::SLOT_BUSY),
        State::Lost { .. } => Some(notice::SLOT_LOST),
        State::Connecting
        | State::CatchingUp
        | State::Paused
        | State::Recreated { .. }
        | State::Stopped { .. } => None,
    }
}

fn log(state: &State, before: &State) {
    let (code, name, before) = (code(state), state.name(), before.name());
    match state {
        State::Lost { .. } => tracing::error!(code, state = name, before, "slot: {state}"),
        State::WaitingForDatabase { .. }
        | State::Interrupted { .. }
        | State::Busy { .. }
        | State::Recreated { .. }
        | State::Stopped { why: Some(_) } => {
            tracing::warn!(code, state = name, before, "stream: {state}");
        }
        State::Connecting
        | State::CatchingUp
        | State::Streaming
        | State::Paused
        | State::Stopped { why: None } => {
            tracing::info!(code, state = name, before, "stream: {state}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupted(why: &str) -> State {
        State::Interrupted { why: why.into() }
    }

    #[test]
    fn another_reason_is_news_but_does_not_begin_the_state_anew() {
        let board = Board::new(Arc::default());
        let mut watch = board.watch();
        board.enter(interrupted("no route"));
        let began = watch.borrow_and_update().since;
        board.enter(interrupted("no route"));
        assert!(!watch.has_changed().unwrap(), "the same is no news");
        board.enter(interrupted("refused"));
        assert!(watch.has_changed().unwrap());
        let standing = watch.borrow_and_update().clone();
        assert_eq!((standing.state.why(), standing.since), (Some("refused"), began));
    }

    #[test]
    fn what_every_client_had_to_start_again_for_is_kept() {
        let board = Board::new(Arc::default());
        let watch = board.watch();
        board.renew("the slot was lost".into());
        board.enter(State::Streaming);
        let standing = watch.borrow();
        assert_eq!(standing.renewals, 1);
        assert_eq!(&*standing.renewed.as_ref().unwrap().why, "the slot was lost");
    }

    #[test]
    fn every_state_has_its_name() {
        let why: Arc<str> = "x".into();
        let all = [
            State::WaitingForDatabase { why: Arc::clone(&why) },
            State::Connecting,
            State::CatchingUp,
            State::Streaming,
            State::Paused,
            State::Interrupted { why: Arc::clone(&why) },
            State::Busy { pid: Arc::clone(&why) },
            State::Lost { why: Arc::clone(&why) },
            State::Recreated { why: Arc::clone(&why) },
            State::Stopped { why: Some(why) },
        ];
        assert_eq!(all.each_ref().map(State::name), State::NAMES);
    }
}

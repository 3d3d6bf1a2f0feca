//! What can go wrong with the stream, and what is done then.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::CatalogError;
use crate::ingest::assemble::AssembleError;
use crate::ingest::connect::ConnectError;
use crate::ingest::slot::SlotError;
use crate::ingest::walsender::ServerError;
use crate::ingest::walsender::WalsenderError;

/// Why the stream is interrupted or can't begin.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The slot can't be read.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The connection does not work, or no longer.
    #[error(transparent)]
    Walsender(#[from] WalsenderError),
    /// What came is not a stream of transactions.
    #[error("unintelligible stream")]
    Assemble(#[from] AssembleError),
    /// The catalogue could not say what a table's types are.
    #[error("types of {relation} unknown")]
    Resolve {
        /// The table, as schema and name.
        relation: String,
        /// Why.
        #[source]
        source: CatalogError,
    },
    /// The catalogue could not say by which rules changes are judged from here on.
    #[error("the rules of the tables could not be read again")]
    Rules {
        /// Why.
        #[source]
        source: CatalogError,
    },
    /// The publication did not exist at the time of a change that the slot still holds. Creating
    /// it now does not help: changes are decoded with the catalogue of their time.
    #[error("the publication did not exist when a change was made that the slot still holds")]
    PublicationYounger,
    /// A row's values as text are more than the server can put into one message (1 GB; a `bytea`
    /// doubles). It fails at the same place each time, so that nothing after it comes either, and
    /// the slot keeps the log. Only somebody who gives the row up can help.
    #[error(
        "the server can't send a row that is larger than 1 GB as text, and nothing after it; to go \
         on without what is in the log, and have clients start again, run `SELECT \
         pg_replication_slot_advance('{slot}', pg_current_wal_insert_lsn())` while the slot is free"
    )]
    Unsendable {
        /// The slot that stands before it.
        slot: String,
        /// What the server says.
        #[source]
        source: ServerError,
    },
    /// The log is to be let go, by order: what the slot holds is given up, whoever made it.
    #[error("the log is let go: {why}")]
    LetGo {
        /// Why, for a person.
        why: Arc<str>,
    },
    /// The database answers nobody else, and a stream that is not read could not know.
    #[error("the database does not answer, and the stream is not being read")]
    Unanswered,
    /// The stage's thread can't have a runtime.
    #[error("no runtime for the stream")]
    Runtime(#[source] std::io::Error),
    /// A shard has ended.
    #[error("a shard has ended")]
    ShardGone,
}

impl IngestError {
    /// The error and its sources as one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let more = error.to_string();
            if !text.ends_with(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            source = error.source();
        }
        text
    }
}

impl IngestError {
    /// Whether what the slot holds is given up by order.
    #[must_use]
    pub const fn is_let_go(&self) -> bool {
        matches!(self, IngestError::LetGo { .. })
    }

    /// Whether the server could be reached, but not be believed: TLS that it does not offer, or a
    /// certificate that is not good for it. Waiting does not mend that, though while a stream is
    /// only interrupted somebody else may.
    #[must_use]
    pub fn is_distrust(&self) -> bool {
        match self {
            IngestError::Walsender(WalsenderError::Connect(error))
            | IngestError::Slot(SlotError::Walsender(WalsenderError::Connect(error))) => {
                match error {
                    ConnectError::Io { source, .. } => source.kind() == ErrorKind::InvalidData,
                    ConnectError::Tls(_)
                    | ConnectError::TlsNotOffered
                    | ConnectError::HostName { .. } => true,
                }
            }
            _ => false,
        }
    }
}

/// What is done about an [`IngestError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Connect again and go on.
    Reconnect {
        /// After this long.
        after: Duration,
    },
    /// Give the slot up and make a new one; clients must resync. Only where slots are ours to make.
    Replace {
        /// After this long.
        after: Duration,
    },
    /// A person must change something first.
    Stop,
}

/// The wait before the first, second, … attempt: nothing is gained by waiting long, and little is
/// lost by asking every five seconds.
const BACK_OFF_MS: [u64; 6] = [100, 200, 500, 1000, 2000, 5000];
/// The wait where every attempt costs the server seconds, and whoever is to mend it has to find the
/// slot free.
const LONG: Duration = Duration::from_secs(30);

/// How long to wait before the next attempt, after so many that failed.
#[must_use]
pub fn back_off(attempts: usize) -> Duration {
    let wait = BACK_OFF_MS.get(attempts).or(BACK_OFF_MS.last()).copied().unwrap_or(5000);
    Duration::from_millis(wait)
}

/// What to do about `error`, after `attempts` that failed since the stream last ran.
///
/// Everything that heals by itself, or that an operator of the *database* heals, is tried again;
/// what only a change of the configuration, of a role or of the publication heals is not.
#[must_use]
pub fn next_step(error: &IngestError, attempts: usize) -> NextStep {
    let after = back_off(attempts);
    match error {
        IngestError::Slot(SlotError::Lost { .. }) | IngestError::PublicationYounger => {
            NextStep::Replace { after }
        }
        IngestError::Slot(
            SlotError::WalLevel { .. }
            | SlotError::NoPublication { .. }
            | SlotError::Missing { .. }
            | SlotError::OtherDatabase { .. }
            | SlotError::OtherPlugin { .. },
        )
        | IngestError::Runtime(_)
        | IngestError::ShardGone => NextStep::Stop,
        IngestError::LetGo { .. } => NextStep::Replace { after: Duration::ZERO },
        IngestError::Unsendable { .. } => NextStep::Reconnect { after: LONG },
        // The same bytes would come again; but a broken connection can look like this, too.
        IngestError::Assemble(_) if attempts > 2 => NextStep::Stop,
        IngestError::Assemble(_)
        | IngestError::Unanswered
        | IngestError::Resolve { .. }
        | IngestError::Rules { .. }
        | IngestError::Slot(SlotError::Busy { .. } | SlotError::Standby | SlotError::TooMany) => {
            NextStep::Reconnect { after }
        }
        IngestError::Slot(SlotError::Walsender(error)) | IngestError::Walsender(error) => {
            if heals(error) { NextStep::Reconnect { after } } else { NextStep::Stop }
        }
    }
}

/// Whether the connection may work another time with nothing changed here.
fn heals(error: &WalsenderError) -> bool {
    match error {
        WalsenderError::Connect(_)
        | WalsenderError::Frames(_)
        | WalsenderError::Late { .. }
        | WalsenderError::Stream(_)
        | WalsenderError::Ended
        | WalsenderError::Silent { .. } => true,
        WalsenderError::NoPassword
        | WalsenderError::UnknownAuthentication
        | WalsenderError::Scram(_)
        | WalsenderError::NotBound
        | WalsenderError::Answer { .. } => false,
        WalsenderError::Refused(error) | WalsenderError::Command { error, .. } => {
            // Connections, resources, operator's intervention, system errors; the slot in use, or
            // just dropped (looked at again), or just lost (the same).
            let classes = ["08", "53", "57", "58"];
            let codes = ["55006", "55000", "42704", "42710"];
            classes.iter().any(|class| error.code.starts_with(class))
                || codes.contains(&error.code.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::frames::FrameError;
    use crate::ingest::walsender::ServerError;

    fn refused(code: &str) -> IngestError {
        let (message, detail) = ("no".to_owned(), None);
        WalsenderError::Refused(ServerError { code: code.to_owned(), message, detail }).into()
    }

    #[test]
    fn what_heals_is_tried_again_and_what_does_not_is_not() {
        let milliseconds = |count| NextStep::Reconnect { after: Duration::from_millis(count) };
        for code in ["57P01", "57P03", "53300", "08006", "55006"] {
            assert_eq!(next_step(&refused(code), 0), milliseconds(100), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501"] {
            assert_eq!(next_step(&refused(code), 0), NextStep::Stop, "{code}");
        }
        let closed = IngestError::Walsender(FrameError::Closed.into());
        assert_eq!(next_step(&closed, 2), milliseconds(500));
        assert_eq!(next_step(&closed, 1000), milliseconds(5000));
        let lost = SlotError::Lost { name: "walcast".into(), reason: "wal_removed".into() };
        assert!(matches!(next_step(&lost.into(), 0), NextStep::Replace { .. }));
        let missing = SlotError::Missing { name: "walcast".into() };
        assert_eq!(next_step(&missing.into(), 0), NextStep::Stop);
    }
}

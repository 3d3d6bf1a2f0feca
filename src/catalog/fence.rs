//! Reading the catalogue in the stream's order, so that no change is judged by what was true before a
//! change of a table's rules that committed before it.
//!
//! The stream says where that may be: Postgres announces a table again (a `Relation` message) before
//! the next change of it whenever anything about it was changed by a transaction that committed
//! before, `CREATE POLICY` and `REVOKE` as much as `ALTER TABLE`; and a transaction may say so itself
//! (a message `walcast`, by the event trigger of `sql/06-fence.sql`). Whoever reads the stream holds
//! the transaction back until [`Catalog::settle`] returns.
//!
//! A look is good up to a position of the log: what had committed before it is in what was read. So
//! one look serves all transactions before that position, however many announcements they have.
//!
//! # Invariants
//!
//! - The position is asked for before anything else of a look, and forgotten where the stream begins
//!   anew: it may be another server's then.
//! - What committed before the position may be unseen only where its session has not yet returned
//!   from its `COMMIT`, which takes long only where it waits for a standby. That is why a look is
//!   followed by another soon ([`Catalog::wanted_again`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;

use crate::catalog::Catalog;
use crate::catalog::CatalogError;
use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::change::relation::RelationDescription;

/// How long a standby that is asked may be behind the stream.
const BEHIND_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it has caught up.
const BEHIND_EVERY: Duration = Duration::from_millis(20);

/// Up to where what was read is known to be true.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What had committed before is in it.
    lsn: Lsn,
    /// How often the stream has begun.
    streams: u64,
}

impl Catalog {
    /// Reads everything again, unless it was read when `commit_lsn` lay behind; tells whether it was.
    ///
    /// # Errors
    ///
    /// [`CatalogError`]; what comes after the position must not be judged.
    pub async fn settle(&self, commit_lsn: Lsn) -> Result<bool, CatalogError> {
        if self.is_settled(commit_lsn) {
            return Ok(false);
        }
        let mut known = self.known.lock().await;
        let began_at = Instant::now();
        while !self.is_settled(commit_lsn) {
            self.read(&mut known).await?;
            if self.is_settled(commit_lsn) {
                break;
            }
            if began_at.elapsed() >= BEHIND_MAX {
                return Err(CatalogError::Behind { seconds: BEHIND_MAX.as_secs() });
            }
            sleep(BEHIND_EVERY).await;
        }
        self.again.notify_one();
        Ok(true)
    }

    /// [`Catalog::resolve`] and [`Catalog::settle`] in one; tells whether everything was read again
    /// for the second.
    ///
    /// # Errors
    ///
    /// [`CatalogError`], as theirs.
    pub async fn announced(
        &self,
        description: &RelationDescription,
        commit_lsn: Lsn,
    ) -> Result<(Arc<Relation>, bool), CatalogError> {
        let relation = self.resolve(description).await?;
        if !self.settle(commit_lsn).await? {
            return Ok((relation, false));
        }
        // What the stream does not say of it may be another now.
        Ok((self.resolve(description).await?, true))
    }

    /// Says that a stream begins: its positions may be of another history.
    pub fn stream_begins(&self) {
        let mut looked = self.looked();
        looked.streams += 1;
        looked.lsn = Lsn::ZERO;
    }

    /// Returns when something was read that should be read once more soon.
    pub async fn wanted_again(&self) {
        self.again.notified().await;
    }

    /// The number of the stream that a look which begins now is made for.
    pub(super) fn stream(&self) -> u64 {
        self.looked().streams
    }

    /// Notes up to where a look is good.
    pub(super) fn note_looked(&self, stream: u64, lsn: Lsn) {
        let mut looked = self.looked();
        if looked.streams == stream {
            looked.lsn = lsn;
        }
    }

    fn is_settled(&self, commit_lsn: Lsn) -> bool {
        self.looked().lsn > commit_lsn
    }
}

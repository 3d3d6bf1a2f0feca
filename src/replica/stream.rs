//! How far the stream is, and which of its transactions a query may not have seen yet.

use std::collections::VecDeque;

use crate::change::id::Xid;
use crate::change::lsn::Lsn;
use crate::change::visibility::Visibility;

/// Numbers of transactions that came and that a query need not have seen yet.
const DELIVERED_MAX: usize = 1 << 18;
/// How far the stream is.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Whether it has begun: before that nothing is read.
    pub(super) begun: bool,
    /// The newest that are not known to be seen by every query from now on.
    pub(super) delivered: VecDeque<Xid>,
    /// How many ever came.
    pub(super) count: u64,
    /// The highest number of those that were dropped from there.
    pub(super) dropped: Option<Xid>,
    /// Readings that were ever begun.
    pub(super) readings: u64,
    /// Where the transaction commits that is being applied, or of which more is to come.
    pub(super) open: Option<Lsn>,
}

impl Stream {
    pub(super) fn deliver(&mut self, xid: Xid) {
        if self.delivered.back() == Some(&xid) {
            return;
        }
        if self.delivered.len() >= DELIVERED_MAX
            && let Some(oldest) = self.delivered.pop_front()
        {
            self.dropped = Some(self.dropped.map_or(oldest, |highest| highest.later(oldest)));
        }
        self.delivered.push_back(xid);
        self.count += 1;
    }

    /// Whether a query saw everything but what came after the first `count`.
    pub(super) fn is_seen(&self, saw: &Visibility, count: u64) -> bool {
        let later = usize::try_from(self.count.saturating_sub(count)).unwrap_or(usize::MAX);
        let first = self.delivered.len().saturating_sub(later);
        self.dropped.is_none_or(|xid| saw.sees_all_up_to(xid))
            && self.delivered.iter().take(first).all(|xid| saw.sees(*xid))
    }
}

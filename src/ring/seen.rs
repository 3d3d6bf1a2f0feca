//! Which transactions of the ring a query has seen, evicted ones included.
//!
//! A query may have seen less than what was already delivered, so the ring is looked back through
//! for what it did not see. What one query has seen every later one sees, too, so that each
//! transaction is looked at about once, however many queries there are. That is what marks are for:
//! everything before a mark is seen by its query, and by whatever query is later.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::change::id::Xid;
use crate::change::visibility::Visibility;

/// Numbers of evicted transactions that are kept, in a mebibyte. The shard asks what is visible
/// long before that, so unsettled ones are dropped only while Postgres does not answer.
const EVICTED_MAX: usize = 1 << 18;
/// Answers may come in another order than the queries were begun in. So there is a mark for every
/// second, for longer than a query takes.
const MARKS_MAX: usize = 64;
const MARK_AGE: Duration = Duration::from_secs(1);

/// What is known of who has seen what.
#[derive(Debug)]
pub(super) struct Seen {
    /// The earliest first.
    marks: VecDeque<Mark>,
    /// The newest evicted transactions, up to where the ring begins.
    evicted: VecDeque<Xid>,
    /// The highest of those that were evicted before these.
    dropped: Option<Xid>,
}

#[derive(Debug)]
struct Mark {
    made_at: Instant,
    visibility: Arc<Visibility>,
    /// Everything before this number is seen.
    settled: u64,
}

impl Seen {
    pub(super) const fn new() -> Seen {
        Seen { marks: VecDeque::new(), evicted: VecDeque::new(), dropped: None }
    }

    /// How many evicted transactions nobody is known to have seen, where the ring begins at
    /// `first`.
    pub(super) fn unsettled(&self, first: u64) -> u64 {
        first.saturating_sub(self.marks.back().map_or(0, |mark| mark.settled))
    }

    /// Notes that the ring's oldest transaction is evicted.
    pub(super) fn evict(&mut self, xid: Xid) {
        if self.evicted.len() >= EVICTED_MAX
            && let Some(oldest) = self.evicted.pop_front()
        {
            self.dropped = Some(self.dropped.map_or(oldest, |highest| highest.later(oldest)));
        }
        self.evicted.push_back(xid);
    }

    /// The number of the first transaction that the query did not see, among those that are `held`;
    /// `None` where an evicted one was not seen, or it is no longer known.
    pub(super) fn first_unseen(
        &mut self,
        visibility: &Arc<Visibility>,
        held: Range<u64>,
        xid_at: impl Fn(u64) -> Option<Xid>,
    ) -> Option<u64> {
        let mark = self.marks.iter().rposition(|mark| visibility.includes(&mark.visibility));
        let latest = mark.is_none_or(|mark| mark + 1 == self.marks.len());
        let mark = mark.and_then(|mark| self.marks.get(mark));
        let settled = mark.map_or(0, |mark| mark.settled);
        let known_from = held.start - u64::try_from(self.evicted.len()).unwrap_or(held.start);
        if settled < known_from && !self.dropped.is_none_or(|xid| visibility.sees_all_up_to(xid)) {
            return None;
        }
        let begin = settled.max(known_from);
        let evicted_at = |number: u64| {
            let offset = usize::try_from(number.checked_sub(known_from)?).ok()?;
            self.evicted.get(offset).copied()
        };
        let sees = |number: u64| {
            let xid = if number < held.start { evicted_at(number) } else { xid_at(number) };
            xid.is_some_and(|xid| visibility.sees(xid))
        };
        let first = (begin..held.end).find(|number| !sees(*number)).unwrap_or(held.end);
        // Without a mark it need not be the latest, but then there is none that it could replace.
        if latest && (mark.is_some() || self.marks.is_empty()) {
            self.mark(visibility, first);
        }
        (first >= held.start).then_some(first)
    }

    fn mark(&mut self, visibility: &Arc<Visibility>, settled: u64) {
        let now = Instant::now();
        let visibility = Arc::clone(visibility);
        match self.marks.back_mut() {
            Some(last) if now.duration_since(last.made_at) < MARK_AGE => {
                (last.visibility, last.settled) = (visibility, settled);
            }
            _ => self.marks.push_back(Mark { made_at: now, visibility, settled }),
        }
        if self.marks.len() > MARKS_MAX {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visibility(text: &str) -> Arc<Visibility> {
        Arc::new(text.parse().unwrap())
    }

    /// Transaction number n has the xid n + 100; the first `evicted` of 20 are evicted.
    fn seen(evicted: u64) -> (Seen, impl FnMut(&mut Seen, &str) -> Option<u64>) {
        let xid = |number: u64| Xid(u32::try_from(number + 100).unwrap());
        let mut seen = Seen::new();
        (0..evicted).for_each(|number| seen.evict(xid(number)));
        let ask = move |seen: &mut Seen, text: &str| {
            seen.first_unseen(&visibility(text), evicted..20, |number| Some(xid(number)))
        };
        (seen, ask)
    }

    #[test]
    fn the_ring_is_looked_back_through_for_what_was_not_seen() {
        let (mut seen, mut ask) = seen(5);
        assert_eq!(ask(&mut seen, "107:111:107"), Some(7));
        assert_eq!(ask(&mut seen, "111:111:"), Some(11));
        // Earlier than the one before, so what that one has seen says nothing.
        assert_eq!(ask(&mut seen, "106:111:106,109"), Some(6));
        assert_eq!(ask(&mut seen, "130:130:"), Some(20));
        assert_eq!(seen.unsettled(5), 0);
    }

    #[test]
    fn an_evicted_one_that_was_not_seen_is_told() {
        let (mut seen, mut ask) = seen(5);
        assert_eq!(ask(&mut seen, "103:130:103"), None);
        assert_eq!(seen.unsettled(5), 2);
        assert_eq!(ask(&mut seen, "130:130:"), Some(20));
    }

    #[test]
    fn what_is_no_longer_known_is_not_taken_for_seen() {
        let (mut seen, mut ask) = seen(5);
        seen.dropped = seen.evicted.pop_front();
        assert_eq!(ask(&mut seen, "100:130:100"), None);
        assert_eq!(ask(&mut seen, "101:130:101"), None);
        assert_eq!(ask(&mut seen, "107:130:107"), Some(7));
    }
}

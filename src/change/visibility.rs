//! Which transactions a query saw.
//!
//! Positions in the log can't tell: a commit record lies in the log before the transaction becomes
//! visible to others, so a query may miss what the stream has already delivered. Only the numbers
//! of the transactions tell, by the rule that PostgreSQL itself goes by.

use std::str::FromStr;

use crate::change::id::Xid;

/// What `pg_current_snapshot()` says: which transactions' effects a query could see.
///
/// Numbers are 64 bits wide here; those of the stream are 32, and are taken for the nearest number
/// that ends in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visibility {
    xmin: u64,
    xmax: u64,
    /// Between the two and not visible all the same; sorted.
    running: Box<[u64]>,
}

/// The text is not of the form `xmin:xmax:xip,…`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot (expected numbers, as in 10:20:10,14,15)")]
pub struct ParseVisibilityError;

impl Visibility {
    /// Whether the query saw what the transaction did.
    #[must_use]
    pub fn sees(&self, xid: Xid) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Whether the query saw what the transaction did, and what all with lower numbers did.
    #[must_use]
    pub fn sees_all_up_to(&self, xid: Xid) -> bool {
        self.widen(xid) < self.xmin
    }

    /// Whether this is as late as `other`, or later, so that it sees whatever that one sees. Both
    /// must be of one server.
    #[must_use]
    pub fn includes(&self, other: &Visibility) -> bool {
        let known = |xid: &u64| other.running.binary_search(xid).is_ok();
        // The bound is one more than the newest number that has ended, so it grows with time; while
        // it stands, running ones can only end.
        self.xmax > other.xmax || (self.xmax == other.xmax && self.running.iter().all(known))
    }

    /// The number that ends in these 32 bits and is nearest to the snapshot.
    fn widen(&self, xid: Xid) -> u64 {
        const ROUND: u64 = 1 << 32;
        let near = (self.xmax & !(ROUND - 1)) | u64::from(xid.0);
        if near > self.xmax.saturating_add(ROUND / 2) {
            near.saturating_sub(ROUND)
        } else if near.saturating_add(ROUND / 2) < self.xmax {
            near.saturating_add(ROUND)
        } else {
            near
        }
    }
}

impl FromStr for Visibility {
    type Err = ParseVisibilityError;

    fn from_str(text: &str) -> Result<Visibility, ParseVisibilityError> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| ParseVisibilityError);
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(ParseVisibilityError);
        let (xmin, xmax) = (number(next()?)?, number(next()?)?);
        let running = next()?.split(',').filter(|part| !part.is_empty());
        let mut running = running.map(number).collect::<Result<Vec<u64>, _>>()?;
        running.sort_unstable();
        match parts.next() {
            None => Ok(Visibility { xmin, xmax, running: running.into() }),
            Some(_) => Err(ParseVisibilityError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visibility(text: &str) -> Visibility {
        text.parse().unwrap()
    }

    #[test]
    fn running_and_later_transactions_are_not_seen() {
        let seen = visibility("10:20:10,14,15");
        for (xid, expected) in
            [(9, true), (10, false), (11, true), (14, false), (19, true), (20, false), (21, false)]
        {
            assert_eq!(seen.sees(Xid(xid)), expected, "{xid}");
        }
        assert!(visibility("20:20:").sees(Xid(19)));
        for wrong in ["", "1", "1:2", "1:2:3:4", "1:2:a", "x:2:"] {
            assert_eq!(wrong.parse::<Visibility>(), Err(ParseVisibilityError), "{wrong}");
        }
    }

    #[test]
    fn numbers_that_have_wrapped_are_taken_for_the_nearest() {
        let round = 1_u64 << 32;
        let seen = visibility(&format!("{}:{}:{}", round - 2, round + 3, round + 1));
        for (xid, expected) in
            [(u32::MAX - 5, true), (u32::MAX, true), (0, true), (1, false), (2, true), (3, false)]
        {
            assert_eq!(seen.sees(Xid(xid)), expected, "{xid}");
        }
        let early = visibility("5:5:");
        assert!(early.sees(Xid(4)) && !early.sees(Xid(7)));
    }

    #[test]
    fn a_later_one_includes_an_earlier_one() {
        let earlier = visibility("10:20:10,14");
        for (other, expected) in
            [("10:20:10,14", true), ("14:20:14", true), ("10:21:10,14,20", true), ("9:19:9", false)]
        {
            assert_eq!(visibility(other).includes(&earlier), expected, "{other}");
        }
        assert!(!earlier.includes(&visibility("14:20:14")));
    }
}

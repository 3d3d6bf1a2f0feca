//! What a subscription sees changes without a change of the rows, because memberships do. It must be
//! told, and soon: until then what it holds may be too much or too little.

use std::time::Duration;

use tokio::time::Instant;

use crate::due::Shift;
use crate::truth::Truth;

/// How long after a later row it may come: a pass tells at its end.
const SOON: Duration = Duration::from_secs(5);
/// How far the moments that are known of commits may be off.
const AROUND: Duration = Duration::from_secs(3);

/// The shifts of one subscription, and which of them it was told of.
#[derive(Debug)]
pub(crate) struct Shifts {
    all: Vec<Shift>,
    /// The first that no row came after.
    next: usize,
    /// One that was not told though a later row came, and when that was.
    owed: Option<(usize, Instant)>,
    /// How often it was told of one.
    told: usize,
}

impl Shifts {
    pub(crate) fn new(all: Vec<Shift>) -> Shifts {
        Shifts { all, next: 0, owed: None, told: 0 }
    }

    /// How many there are.
    pub(crate) fn count_all(&self) -> u64 {
        u64::try_from(self.all.len()).unwrap()
    }

    /// A row of a transaction came; `false` where a shift before it was not told for too long.
    pub(crate) fn pass(&mut self, transaction: usize, at: Instant) -> bool {
        while let Some(shift) = self.all.get(self.next).filter(|it| it.transaction < transaction) {
            if shift.concerns && self.owed.is_none() {
                self.owed = Some((shift.transaction, at));
            }
            self.next += 1;
        }
        let is_late = self.owed.is_some_and(|(_, since)| at > since + SOON);
        if is_late {
            self.owed = None;
        }
        !is_late
    }

    /// The subscription begins anew: it was told of everything that was committed by now.
    pub(crate) fn tell(&mut self, truth: &Truth, at: Instant) {
        self.owed = None;
        let is_past = |it: &&Shift| truth.sent_at(it.transaction).is_none_or(|sent| sent <= at);
        while self.all.get(self.next).as_ref().is_some_and(is_past) {
            self.next += 1;
        }
    }

    /// It is told of a shift; `false` where there can't be one that it was not told of.
    pub(crate) fn count(&mut self, truth: &Truth, at: Instant) -> bool {
        self.told += 1;
        let sent = |it: &Shift| truth.sent_at(it.transaction).is_none_or(|sent| sent <= at);
        self.told <= self.all.iter().filter(|it| sent(it)).count()
    }

    /// Everything is over: one that was not told, if there is one.
    pub(crate) fn left(&self, truth: &Truth, at: Instant) -> Option<usize> {
        let owed = self.owed.filter(|(_, since)| at > *since + AROUND);
        let is_past = |it: &&Shift| {
            let sent_at = truth.sent_at(it.transaction);
            it.concerns && sent_at.is_some_and(|sent| sent + 2 * SOON < at)
        };
        let missed = || self.all[self.next..].iter().find(is_past).map(|it| it.transaction);
        owed.map(|(transaction, _)| transaction).or_else(missed)
    }

    /// Whether there was one between two moments.
    pub(crate) fn was_between(&self, truth: &Truth, from: Instant, to: Instant) -> bool {
        let from = from.checked_sub(AROUND).unwrap_or(from);
        let mut all = self.all.iter().map(|it| truth.sent_at(it.transaction));
        all.any(|sent| sent.is_none_or(|sent| from <= sent && sent <= to))
    }
}

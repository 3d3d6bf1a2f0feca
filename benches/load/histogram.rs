//! Durations in microseconds, counted in buckets that are at most 1.6 % wide.

/// Buckets per power of two.
const STEPS: u64 = 64;

/// Counts of durations; keeps no sample, so its size does not depend on how many were added.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Histogram {
    /// A histogram with nothing in it.
    pub(crate) fn new() -> Histogram {
        let buckets = usize::try_from(bucket(u64::MAX)).expect("a few thousand") + 1;
        Histogram { counts: vec![0; buckets], total: 0, max_us: 0 }
    }

    /// Counts one duration.
    pub(crate) fn add(&mut self, us: u64) {
        let slot = usize::try_from(bucket(us)).ok().and_then(|at| self.counts.get_mut(at));
        *slot.expect("every duration has a bucket") += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds everything that `other` counted.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The duration below or at which `share` (0 to 1) of them lie; 0 when nothing was counted.
    pub(crate) fn quantile_us(&self, share: f64) -> u64 {
        let wanted = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        for (at, count) in (0_u64..).zip(&self.counts) {
            below += count;
            if below >= wanted {
                return upper_edge(at).min(self.max_us);
            }
        }
        self.max_us
    }

    /// The longest duration that was counted.
    pub(crate) fn max_us(&self) -> u64 {
        self.max_us
    }
}

/// Exact below 128, then 64 buckets for each doubling.
fn bucket(us: u64) -> u64 {
    let shift = u64::from((us / (2 * STEPS)).checked_ilog2().map_or(0, |log| log + 1));
    shift * STEPS + (us >> shift)
}

/// The largest duration that falls into bucket `at`.
fn upper_edge(at: u64) -> u64 {
    let shift = (at / STEPS).saturating_sub(1);
    ((at - shift * STEPS + 1) << shift) - 1
}

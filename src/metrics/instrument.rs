//! What a number is kept in. All of it is relaxed: a reader sees each number as it is or just was, and
//! disturbs nobody.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A number that only grows, from the daemon's start on.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, whoever else does.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds, where one thread alone ever does: without a locked instruction, which is what the hot
    /// path can afford.
    pub fn add_alone(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// What it has come to.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is what it is now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Says what it is.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The same for a length.
    pub fn set_len(&self, len: usize) {
        self.set(u64::try_from(len).unwrap_or(u64::MAX));
    }

    /// Adds, whoever else does.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes away. It must not become less than nothing.
    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by a word of the code's own. Words are `'static`, so that nothing a client says can make
/// a new one.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    /// Counts one more.
    pub fn one(&self, word: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_default() += 1;
    }

    /// Says how many there are now, for what is not a count of events.
    pub fn set(&self, all: BTreeMap<&'static str, u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Every word that came, with its count.
    #[must_use]
    pub fn get(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Upper bounds of a histogram's buckets, in microseconds: half a millisecond, which is an idle
/// machine's best, to a minute. What took longer is in none of them, only in the count.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_US.len()],
    above: Counter,
    sum_us: Counter,
}

/// What a histogram, or several together, have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How many in each bucket, those above every bound last.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Notes that `weight` things took so long.
    pub fn observe(&self, took: Duration, weight: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.bucket(us).add(weight);
        self.sum_us.add(us.saturating_mul(weight));
    }

    /// The same where one thread alone ever does.
    pub fn observe_alone(&self, took: Duration, weight: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.bucket(us).add_alone(weight);
        self.sum_us.add_alone(us.saturating_mul(weight));
    }

    fn bucket(&self, us: u64) -> &Counter {
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets.get(at).unwrap_or(&self.above)
    }

    /// Adds what it has come to.
    pub fn read_into(&self, reading: &mut Reading) {
        let buckets = self.buckets.iter().chain([&self.above]);
        for (sum, bucket) in reading.buckets.iter_mut().zip(buckets) {
            *sum += bucket.get();
        }
        reading.sum_us = reading.sum_us.wrapping_add(self.sum_us.get());
    }

    /// What it has come to.
    #[must_use]
    pub fn read(&self) -> Reading {
        let mut reading = Reading::default();
        self.read_into(&mut reading);
        reading
    }
}

impl Reading {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::default();
        for (us, weight) in [(0, 1), (500, 1), (501, 10), (60_000_000, 100), (60_000_001, 1000)] {
            histogram.observe(Duration::from_micros(us), weight);
            histogram.observe_alone(Duration::from_micros(us), weight);
        }
        let reading = histogram.read();
        assert_eq!((reading.buckets[0], reading.buckets[1]), (4, 20));
        assert_eq!((reading.buckets[15], reading.buckets[16]), (200, 2000));
        assert_eq!(reading.count(), 2224);
        assert_eq!(reading.sum_us, 2 * (500 + 5010 + 6_000_000_000 + 60_000_001_000));
    }
}

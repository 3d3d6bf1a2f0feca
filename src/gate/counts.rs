//! How many of each there are now, over all threads.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::RandomState;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// How many maps share the keys, so that threads seldom meet.
const PARTS: usize = 16;

/// Counts by key. A key that nobody holds takes no memory.
#[derive(Debug)]
pub struct Counts<K>(Arc<Parts<K>>);

#[derive(Debug)]
struct Parts<K> {
    hasher: RandomState,
    parts: [Mutex<HashMap<K, u32>>; PARTS],
}

/// One of those that are counted, until this is dropped.
#[derive(Debug)]
pub struct Seat<K: Copy + Eq + Hash> {
    parts: Arc<Parts<K>>,
    key: K,
}

impl<K> Default for Counts<K> {
    fn default() -> Counts<K> {
        let parts = std::array::from_fn(|_| Mutex::default());
        Counts(Arc::new(Parts { hasher: RandomState::new(), parts }))
    }
}

impl<K: Copy + Eq + Hash> Counts<K> {
    /// Counts one more, unless there are `max` already.
    pub fn take(&self, key: K, max: Option<NonZeroU32>) -> Option<Seat<K>> {
        let mut part = self.0.part(key);
        let count = part.entry(key).or_default();
        if max.is_some_and(|max| *count >= max.get()) {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Seat { parts: Arc::clone(&self.0), key })
    }

    /// How many keys are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.parts.iter().map(|part| lock(part).len()).sum()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Copy + Eq + Hash> Parts<K> {
    fn part(&self, key: K) -> MutexGuard<'_, HashMap<K, u32>> {
        let parts = u64::try_from(PARTS).unwrap_or(1);
        let at = usize::try_from(self.hasher.hash_one(key) % parts).unwrap_or_default();
        lock(self.parts.get(at).expect("a remainder is less than the divisor"))
    }
}

impl<K: Copy + Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut part = self.parts.part(self.key);
        match part.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                part.remove(&self.key);
            }
        }
        // A storm leaves an empty map, not a large one.
        if part.capacity() > 64 && part.len() < part.capacity() / 4 {
            part.shrink_to_fit();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_seats_and_gets_them_back() {
        let (counts, two) = (Counts::default(), NonZeroU32::new(2));
        let first = counts.take(1, two).unwrap();
        let second = counts.take(1, two).unwrap();
        assert!(counts.take(1, two).is_none());
        let other = counts.take(2, two).unwrap();
        drop(first);
        let third = counts.take(1, two).unwrap();
        assert_eq!(counts.len(), 2);
        drop((second, third, other));
        assert!(counts.is_empty());
    }

    #[test]
    fn a_storm_leaves_no_memory_behind() {
        let counts = Counts::default();
        let seats: Vec<_> = (0..50_000).filter_map(|key| counts.take(key, None)).collect();
        assert_eq!(counts.len(), 50_000);
        drop(seats);
        assert!(counts.is_empty());
        let capacity: usize = counts.0.parts.iter().map(|part| lock(part).capacity()).sum();
        assert!(capacity < 50_000 / 8, "{capacity}");
    }
}

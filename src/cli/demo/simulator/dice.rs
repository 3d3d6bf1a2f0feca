//! Chance that comes out the same for the same seed.
//!
//! `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators"): a counter
//! and a mixing function. Good enough to spread a demo's traffic, and for nothing else.

use std::collections::VecDeque;

/// A source of chance.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    state: u64,
}

impl Dice {
    /// One of the sources of `seed`; different `part`s are independent of each other.
    pub(super) fn new(seed: u64, part: u64) -> Dice {
        let mut dice = Dice { state: seed ^ part.wrapping_mul(0xd134_2543_de82_ef95) };
        dice.state = dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `end`; 0 where that is 0.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        let number = self.next().checked_rem(u64::from(end)).unwrap_or(0);
        u32::try_from(number).unwrap_or(0)
    }

    /// True `percent` times in a hundred.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// A number from -1 to 1.
    pub(super) fn swing(&mut self) -> f64 {
        f64::from(self.below(2001)) / 1000.0 - 1.0
    }

    /// A place in the middle of the city or up to `latitude` and `longitude` degrees away from it,
    /// to a tenth of a metre.
    pub(super) fn place(&mut self, latitude: f64, longitude: f64) -> (f64, f64) {
        let rounded = |degrees: f64| (degrees * 1e6).round() / 1e6;
        let latitude = rounded(52.51 + latitude * self.swing());
        (latitude, rounded(13.40 + longitude * self.swing()))
    }

    /// One of `choices`; none where there are none.
    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let count = u32::try_from(choices.len()).ok()?;
        choices.get(usize::try_from(self.below(count)).ok()?)
    }

    /// Takes one of `choices` out.
    pub(super) fn take<T>(&mut self, choices: &mut VecDeque<T>) -> Option<T> {
        let count = u32::try_from(choices.len()).ok()?;
        choices.remove(usize::try_from(self.below(count)).ok()?)
    }

    /// A random (version 4) UUID.
    pub(super) fn uuid(&mut self) -> String {
        let high = (self.next() & 0xffff_ffff_ffff_0fff) | 0x4000;
        let low = (self.next() & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_throws_the_same() {
        let throws = |seed, part| {
            let mut dice = Dice::new(seed, part);
            (0..20).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(throws(7, 1), throws(7, 1));
        assert_ne!(throws(7, 1), throws(7, 2));
        assert_ne!(throws(7, 1), throws(8, 1));
    }

    #[test]
    fn throws_stay_within_bounds_and_reach_them() {
        let mut dice = Dice::new(1, 1);
        let thrown: BTreeSet<u32> = (0..200).map(|_| dice.below(6)).collect();
        assert_eq!(thrown, BTreeSet::from([0, 1, 2, 3, 4, 5]));
        assert!((0..200).all(|_| dice.swing().abs() <= 1.0));
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.pick::<u8>(&[]), None);
    }

    #[test]
    fn uuids_are_random_ones() {
        let uuid = Dice::new(1, 1).uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]));
    }
}

//! Which images of a batch: one bit for each.

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

const WIDTH: usize = 64;

impl Bits {
    pub(super) fn insert(&mut self, number: usize) {
        let word = number / WIDTH;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (number % WIDTH);
        }
    }

    pub(super) fn remove(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / WIDTH) {
            *word &= !(1 << (number % WIDTH));
        }
    }

    pub(super) fn extend(&mut self, others: &Bits) {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            *word |= other;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| usize::try_from(word.count_ones()).unwrap_or(WIDTH)).sum()
    }

    /// In ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let is_in = move |bit: &usize| word >> bit & 1 == 1;
            (0..WIDTH).filter(is_in).map(move |bit| at * WIDTH + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set() {
        let (mut bits, mut other) = (Bits::default(), Bits::default());
        assert!(bits.is_empty());
        for number in [3, 64, 64, 200, 0] {
            bits.insert(number);
        }
        other.insert(500);
        bits.extend(&other);
        bits.remove(64);
        bits.remove(9_999);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 3, 200, 500]);
        assert_eq!((bits.len(), bits.is_empty()), (4, false));
    }
}

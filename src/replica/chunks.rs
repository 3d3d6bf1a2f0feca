//! A column of memory that grows by pieces: nothing is ever copied to make room.

/// How many values a piece has.
const CHUNK: usize = 512;

/// Values by row number. What was never set is the default.
#[derive(Debug)]
pub(super) struct Chunks<T>(Vec<Box<[T]>>);

impl<T: Clone + Default> Chunks<T> {
    pub(super) const fn new() -> Chunks<T> {
        Chunks(Vec::new())
    }

    pub(super) fn get(&self, row: u32) -> Option<&T> {
        let (chunk, place) = split(row);
        self.0.get(chunk)?.get(place)
    }

    /// The place of a row's value, made where it is not there yet.
    pub(super) fn slot(&mut self, row: u32) -> &mut T {
        let (chunk, place) = split(row);
        while self.0.len() <= chunk {
            self.0.push(vec![T::default(); CHUNK].into_boxed_slice());
        }
        let slot = self.0.get_mut(chunk).and_then(|chunk| chunk.get_mut(place));
        slot.expect("it was made above")
    }

    /// The memory that it holds, without what its values hold.
    pub(super) const fn bytes(&self) -> usize {
        self.0.len() * CHUNK * size_of::<T>() + self.0.capacity() * size_of::<Box<[T]>>()
    }
}

impl<T: Copy + Default> Chunks<T> {
    /// A row's value.
    pub(super) fn value(&self, row: u32) -> T {
        self.get(row).copied().unwrap_or_default()
    }
}

fn split(row: u32) -> (usize, usize) {
    let row = usize::try_from(row).expect("usize has at least 32 bits");
    (row / CHUNK, row % CHUNK)
}

//! Descriptors that are kept for the operator.
//!
//! Where clients have taken all that the process may have, an accept fails. Some are held by files
//! that are good for nothing else: one is closed, and the accept is tried again.

use std::fs::File;
use std::io;

/// How many.
const SPARE: usize = 8;
/// The process, or the system, has no descriptor left.
const OUT_OF_FILES: [i32; 2] = [24, 23];

/// What is kept.
#[derive(Debug)]
pub(super) struct Spare(Vec<File>);

impl Spare {
    pub(super) fn new() -> Spare {
        let mut spare = Spare(Vec::with_capacity(SPARE));
        spare.refill();
        spare
    }

    /// Takes descriptors again, as far as there are any.
    pub(super) fn refill(&mut self) {
        while self.0.len() < SPARE
            && let Ok(file) = File::open("/dev/null")
        {
            self.0.push(file);
        }
    }

    /// Gives one up, where that mends what went wrong; `false` where it does not.
    pub(super) fn release(&mut self, error: &io::Error) -> bool {
        let is_out = error.raw_os_error().is_some_and(|code| OUT_OF_FILES.contains(&code));
        is_out && self.0.pop().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_given_up_for_each_accept_that_found_none() {
        let mut spare = Spare::new();
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(!spare.release(&reset));
        let out = io::Error::from_raw_os_error(24);
        let given: Vec<bool> = (0..=SPARE).map(|_| spare.release(&out)).collect();
        assert_eq!(given.iter().filter(|it| **it).count(), SPARE);
        spare.refill();
        assert!(spare.release(&out));
    }
}

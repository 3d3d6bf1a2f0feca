//! Descriptors that are kept for the operator.
//!
//! Where clients have taken all that the process may have, an accept fails. Some are held by files
//! that are good for nothing else: one is closed, and the accept is tried again. When the connection
//! that took its place has ended, its descriptor is kept in turn: without a moment in which a client
//! who waits could get it, or each question of an operator would cost one of them. Between the two
//! clients leave a single free descriptor alone (`serve::door`).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use futures_util::FutureExt;
use rustix::io::DupFlags;
use rustix::io::dup3;

use crate::admin::listener::Connection;
use crate::admin::listener::Listening;

/// How many.
const SPARE: usize = 8;
/// The process, or the system, has no descriptor left.
const OUT_OF_FILES: [i32; 2] = [24, 23];

/// What is kept.
#[derive(Debug)]
pub(super) struct Spare {
    kept: Vec<OwnedFd>,
    /// What the others are copies of; absent where not even this could be opened.
    nothing: Option<File>,
}

impl Spare {
    pub(super) fn new() -> Spare {
        let nothing = File::open("/dev/null").ok();
        let mut spare = Spare { kept: Vec::with_capacity(SPARE), nothing };
        spare.refill();
        spare
    }

    /// Takes descriptors again, as far as there are any.
    pub(super) fn refill(&mut self) {
        while self.kept.len() < SPARE
            && let Some(copy) = self.nothing.as_ref().and_then(|it| it.try_clone().ok())
        {
            self.kept.push(copy.into());
        }
    }

    /// Accepts in place of one that is kept, after `error`. The system says that it is out of
    /// descriptors before it looks whether somebody waits; where nobody does it is kept on.
    ///
    /// # Errors
    ///
    /// The system's, where none is left, or something else is wrong.
    pub(super) fn accept(
        &mut self,
        listening: &Listening,
        mut error: io::Error,
    ) -> io::Result<Option<Connection>> {
        while self.release(&error) {
            match listening.accept().now_or_never() {
                Some(Ok(connection)) => return Ok(Some(connection)),
                // Something else in the process was quicker.
                Some(Err(again)) => error = again,
                None => {
                    self.refill();
                    return Ok(None);
                }
            }
        }
        Err(error)
    }

    /// Gives one up, where that mends what went wrong; `false` where it does not.
    fn release(&mut self, error: &io::Error) -> bool {
        let is_out = error.raw_os_error().is_some_and(|code| OUT_OF_FILES.contains(&code));
        is_out && self.kept.pop().is_some()
    }

    /// Closes a connection, and keeps its descriptor where one is missing.
    pub(super) fn keep(&mut self, mut ended: OwnedFd) {
        if self.kept.len() < SPARE
            && let Some(nothing) = &self.nothing
            && dup3(nothing, &mut ended, DupFlags::CLOEXEC).is_ok()
        {
            self.kept.push(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

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

    #[test]
    fn the_descriptor_of_a_connection_is_kept_where_one_is_missing() {
        let mut spare = Spare::new();
        let out = io::Error::from_raw_os_error(24);
        assert!(spare.release(&out));
        for is_missing in [true, false] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let number = ours.as_raw_fd();
            spare.keep(ours.into());
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
            assert_eq!(spare.kept.last().unwrap().as_raw_fd() == number, is_missing);
            assert_eq!(spare.kept.len(), SPARE);
        }
    }
}

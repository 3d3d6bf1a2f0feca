//! A session's outbox: the one place where a slow client can be felt.
//!
//! The shard pushes and never waits: what the socket takes at once goes out with one write, the
//! rest is queued, as slices of the same bytes that every other subscriber got. A push that would
//! pass [`Outbox::bytes_max`] is refused as a whole: the session falls behind and goes on from its
//! place in the ring. Frames are never dropped from the middle and never cut.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::rc::Rc;

use bytes::Bytes;

use crate::route::budget::Budget;

/// How many slices one write takes at the most.
const SLICES_MAX: usize = 64;

/// What a session that is behind may read at once where the budget is used up.
const SLICE_LEAST: usize = 8 << 10;

/// The socket's side of an outbox.
pub trait Wire: std::fmt::Debug {
    /// Writes what the socket takes now; 0 where it takes nothing.
    ///
    /// # Errors
    ///
    /// The socket's, where it is of no more use.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Wakes the session's task: bytes are queued, or it shall close.
    fn wake(&self);

    /// Lets go of what it took and has yet to hand on: it shall not go out any more. A socket has
    /// nothing of the kind.
    fn withdraw(&self) {}
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is out, or queued.
    Taken,
    /// The outbox is full; nothing of it was taken.
    Full,
}

/// What waits for one socket.
#[derive(Debug)]
pub struct Outbox {
    wire: Rc<dyn Wire>,
    #[expect(clippy::box_collection, reason = "8 bytes instead of 32 while nothing waits")]
    queue: Option<Box<VecDeque<Bytes>>>,
    queued: usize,
    /// Bytes that the socket took.
    written: u64,
    bytes_max: usize,
    budget: Rc<Budget>,
    broken: bool,
    /// Whether the socket took the first of what waits only in part.
    is_inside: bool,
    /// Whether the last frame was pushed.
    ended: bool,
}

impl Outbox {
    /// An empty outbox that holds at most `bytes_max` bytes, or one push however large, and nothing
    /// that can wait where the budget is used up.
    #[must_use]
    pub fn new(wire: Rc<dyn Wire>, bytes_max: usize, budget: Rc<Budget>) -> Outbox {
        let (queue, queued, written, broken, ended) = (None, 0, 0, false, false);
        let is_inside = false;
        Outbox { wire, queue, queued, written, bytes_max, budget, broken, is_inside, ended }
    }

    /// How many bytes wait.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// How many bytes the socket took.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Whether so little waits that a session that is behind may read on.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queued == 0 || (self.queued <= self.bytes_max / 2 && !self.budget.is_used_up())
    }

    /// How many bytes a session that is behind may read at once, where there is room.
    #[must_use]
    pub fn slice_bytes(&self) -> usize {
        let half = self.bytes_max / 2;
        if self.budget.is_used_up() { half.min(SLICE_LEAST) } else { half }
    }

    /// Whether so much waits that the client's requests must wait, too. What is routed to a session
    /// never comes this far: these are answers that the client does not read. Where the budget is
    /// used up, anything that waits is too much.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.queued > self.bytes_max.saturating_mul(2)
            || (self.queued > 0 && self.budget.is_used_up())
    }

    /// Whether the socket failed; its task will find out and close the session.
    #[must_use]
    pub const fn broken(&self) -> bool {
        self.broken
    }

    /// Sends whole frames: at once as far as the socket takes them.
    pub fn push(&mut self, frames: &Bytes) -> Pushed {
        if self.broken || self.ended {
            return Pushed::Taken;
        }
        if self.queued > 0 {
            let full = self.queued.saturating_add(frames.len()) > self.bytes_max;
            if full || self.budget.is_used_up() {
                return Pushed::Full;
            }
            self.enqueue(frames.clone());
            return Pushed::Taken;
        }
        let written = self.wire.write(&[IoSlice::new(frames)]);
        self.budget.wrote(*written.as_ref().unwrap_or(&0));
        match written {
            Ok(0) if self.budget.is_used_up() => return Pushed::Full,
            Ok(written) => {
                self.count(written);
                if written < frames.len() {
                    self.is_inside = written > 0;
                    self.enqueue(frames.slice(written..));
                }
            }
            Err(_) => self.fail(),
        }
        Pushed::Taken
    }

    /// Sends a frame that must not be refused, such as an answer; these are small and bounded by
    /// what the client asked.
    pub fn push_always(&mut self, frame: &Bytes) {
        if self.push(frame) == Pushed::Full {
            self.enqueue(frame.clone());
        }
    }

    /// Sends what a session that is behind has read, with one write: like [`Outbox::push_always`].
    pub fn push_slice(&mut self, pieces: &[Bytes]) {
        if let [only] = pieces {
            return self.push_always(only);
        }
        if self.broken || self.ended || pieces.is_empty() {
            return;
        }
        let before = self.queued;
        for piece in pieces {
            self.queued += piece.len();
            self.queue.get_or_insert_default().push_back(piece.clone());
        }
        let drained = self.write_queue();
        self.budget.moved(before, self.queued);
        match drained {
            Ok(true) => {}
            Ok(false) => self.wire.wake(),
            Err(_) => self.fail(),
        }
    }

    /// Sends the last frame: whatever is pushed after it is dropped.
    pub fn push_last(&mut self, frame: &Bytes) {
        self.push_always(frame);
        self.ended = true;
    }

    /// Writes what waits; `true` when nothing waits any more.
    ///
    /// # Errors
    ///
    /// The socket's, where it is of no more use.
    pub fn drain(&mut self) -> io::Result<bool> {
        let before = self.queued;
        let drained = self.write_queue();
        self.budget.moved(before, self.queued);
        drained
    }

    fn write_queue(&mut self) -> io::Result<bool> {
        while let Some(queue) = self.queue.as_mut() {
            let slices: Vec<IoSlice<'_>> =
                queue.iter().take(SLICES_MAX).map(|bytes| IoSlice::new(bytes)).collect();
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let written = self.wire.write(&slices)?;
            self.budget.wrote(written);
            self.queued -= written;
            if written > 0 {
                self.is_inside = consume(queue, written);
            }
            if queue.is_empty() {
                self.queue = None;
            }
            self.count(written);
            if written < offered {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lets go of what waits: the session is over.
    pub fn fail(&mut self) {
        self.broken = true;
        self.queue = None;
        self.budget.moved(self.queued, 0);
        self.queued = 0;
        self.wire.wake();
    }

    /// Lets go of what waits, so that nothing of it goes out any more. Where the socket has taken a
    /// frame in part nothing can follow on it: the session is over.
    pub fn drop_waiting(&mut self) {
        if self.is_inside {
            return self.fail();
        }
        self.wire.withdraw();
        self.queue = None;
        self.budget.moved(self.queued, 0);
        self.queued = 0;
    }

    /// Wakes the session's task.
    pub fn wake(&self) {
        self.wire.wake();
    }

    fn count(&mut self, written: usize) {
        self.written += u64::try_from(written).unwrap_or(u64::MAX);
    }

    /// Queues bytes. The session's task sleeps where nothing waited, and must look at its socket.
    fn enqueue(&mut self, bytes: Bytes) {
        if self.queued == 0 {
            self.wire.wake();
        }
        self.budget.moved(self.queued, self.queued + bytes.len());
        self.queued += bytes.len();
        self.queue.get_or_insert_default().push_back(bytes);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.moved(self.queued, 0);
    }
}

/// Takes out what was written; `true` where the first of the rest was written in part.
fn consume(queue: &mut VecDeque<Bytes>, mut written: usize) -> bool {
    while let Some(front) = queue.front_mut() {
        if written < front.len() {
            let _sent = front.split_to(written);
            return written > 0;
        }
        written -= front.len();
        queue.pop_front();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cell::RefCell;
    use std::sync::Arc;

    use super::*;

    /// A socket that takes `room` bytes and then none.
    #[derive(Debug, Default)]
    struct Narrow {
        room: Cell<usize>,
        got: RefCell<Vec<u8>>,
        woken: Cell<usize>,
    }

    impl Wire for Narrow {
        fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let offered: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let taken = offered.len().min(self.room.get());
            self.room.set(self.room.get() - taken);
            self.got.borrow_mut().extend(&offered[..taken]);
            Ok(taken)
        }

        fn wake(&self) {
            self.woken.set(self.woken.get() + 1);
        }
    }

    fn outbox(room: usize, bytes_max: usize) -> (Rc<Narrow>, Outbox) {
        outbox_within(usize::MAX, room, bytes_max)
    }

    fn outbox_within(budget: usize, room: usize, bytes_max: usize) -> (Rc<Narrow>, Outbox) {
        let wire = Rc::new(Narrow::default());
        wire.room.set(room);
        let shared: Rc<dyn Wire> = Rc::<Narrow>::clone(&wire);
        let budget = Rc::new(Budget::new(Arc::default(), Arc::default(), budget));
        (wire, Outbox::new(shared, bytes_max, budget))
    }

    #[test]
    fn a_full_outbox_refuses_whole_pushes_and_keeps_what_it_holds() {
        let (wire, mut outbox) = outbox(2, 4);
        assert_eq!(outbox.push(&Bytes::from_static(b"abcd")), Pushed::Taken);
        assert_eq!(outbox.push(&Bytes::from_static(b"ef")), Pushed::Taken);
        assert_eq!(outbox.push(&Bytes::from_static(b"g")), Pushed::Full);
        assert_eq!(outbox.queued(), 4);

        wire.room.set(3);
        assert!(!outbox.drain().unwrap());
        wire.room.set(9);
        assert!(outbox.drain().unwrap());
        assert_eq!(*wire.got.borrow(), b"abcdef");
        assert_eq!(outbox.push(&Bytes::from_static(b"g")), Pushed::Taken);
    }

    #[test]
    fn what_must_wait_is_refused_where_the_budget_is_used_up() {
        let (wire, mut outbox) = outbox_within(3, 2, 100);
        // What was begun is ended.
        assert_eq!(outbox.push(&Bytes::from_static(b"abcdef")), Pushed::Taken);
        assert_eq!(outbox.push(&Bytes::from_static(b"g")), Pushed::Full);
        assert!(outbox.is_flooded() && !outbox.has_room());
        wire.room.set(9);
        assert!(outbox.drain().unwrap());
        assert!(!outbox.is_flooded() && outbox.has_room());
        assert_eq!(outbox.budget.metrics().outbox_bytes(), 0);

        wire.room.set(0);
        outbox.push_always(&Bytes::from_static(b"hij"));
        assert_eq!(outbox.budget.metrics().outbox_bytes(), 3);
        let pieces = [Bytes::from_static(b"k"), Bytes::from_static(b"l")];
        outbox.push_slice(&pieces);
        assert_eq!(outbox.budget.metrics().outbox_bytes(), 5);
        wire.room.set(4);
        assert!(!outbox.drain().unwrap());
        assert_eq!(outbox.budget.metrics().outbox_bytes(), 1);
        assert_eq!(*wire.got.borrow(), b"abcdefhijk");
        let budget = Rc::clone(&outbox.budget);
        drop(outbox);
        assert_eq!(budget.metrics().outbox_bytes(), 0);
    }

    #[test]
    fn whoever_begins_to_wait_is_woken_also_where_the_budget_is_used_up() {
        let (wire, mut outbox) = outbox_within(0, 0, 100);
        assert_eq!(outbox.push(&Bytes::from_static(b"a")), Pushed::Full);
        assert_eq!(wire.woken.get(), 0, "nothing waits");
        outbox.push_always(&Bytes::from_static(b"b"));
        outbox.push_always(&Bytes::from_static(b"c"));
        assert_eq!(wire.woken.get(), 1);
    }

    #[test]
    fn a_frame_larger_than_the_bound_goes_out_alone() {
        let (wire, mut outbox) = outbox(0, 4);
        assert_eq!(outbox.push(&Bytes::from_static(b"larger than four")), Pushed::Taken);
        assert_eq!(outbox.push(&Bytes::from_static(b"x")), Pushed::Full);
        assert_eq!(wire.woken.get(), 1);
    }

    #[test]
    fn nothing_goes_out_after_the_last_frame() {
        let (wire, mut outbox) = outbox(0, 4);
        outbox.push(&Bytes::from_static(b"one"));
        outbox.push_last(&Bytes::from_static(b"last"));
        assert_eq!(outbox.push(&Bytes::from_static(b"x")), Pushed::Taken);
        outbox.push_always(&Bytes::from_static(b"y"));
        wire.room.set(99);
        assert!(outbox.drain().unwrap());
        assert_eq!(*wire.got.borrow(), b"onelast");
    }
}

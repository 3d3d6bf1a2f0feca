//! What lies between a session's outbox and the answer that it is in.
//!
//! The session writes events, whatever the answer is, so it shares them with all of its group. What
//! an answer other than a stream of events needs of them it takes out again.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use serde::Deserialize;

use crate::route::outbox::Wire;
use crate::serve::visit::Line;

/// Bytes from which on no more are taken; what comes then waits in the outbox.
const ROOM: usize = 64 << 10;

/// A wire into memory.
#[derive(Debug)]
pub(crate) struct Buffer {
    events: RefCell<Vec<u8>>,
    /// Whether something happened since that was last waited for.
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    line: Rc<Line>,
}

impl Buffer {
    pub(crate) fn new(line: &Rc<Line>) -> Buffer {
        Buffer {
            events: RefCell::default(),
            woken: Cell::new(false),
            waker: RefCell::default(),
            line: Rc::clone(line),
        }
    }

    /// Takes what was written: whole events. The outbox is to be drained after it, as nobody wakes
    /// who has not waited for room.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.events.take()
    }

    /// Whether nothing is left to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.borrow().is_empty()
    }

    /// Looks at what was written and leaves it there.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.events.borrow())
    }

    /// Ready when something was written, or the session is to be looked at, since the last time.
    pub(crate) fn poll_woken(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.woken.take() {
            return Poll::Ready(());
        }
        self.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }

    /// The same as a future, which may be dropped.
    pub(crate) async fn woken(&self) {
        poll_fn(|context| self.poll_woken(context)).await;
    }

    fn notify(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Wire for Buffer {
    /// A slice is taken as a whole or not at all, and each ends where an event ends, so events are
    /// never cut.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        let mut events = self.events.borrow_mut();
        for slice in slices {
            if events.len() >= ROOM {
                break;
            }
            events.extend_from_slice(slice);
            taken += slice.len();
        }
        if taken > 0 {
            self.notify();
        }
        Ok(taken)
    }

    fn wake(&self) {
        self.notify();
        self.line.woken.notify_one();
    }

    fn withdraw(&self) {
        self.events.take();
    }
}

/// The type of a frame.
pub(crate) fn type_of(json: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        of: String,
    }
    // All but a few are rows, and a row says so at its beginning.
    if json.starts_with(br#"{"type":"row""#) {
        return "row".to_owned();
    }
    serde_json::from_slice(json).map(|typed: Typed| typed.of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_taken_whole_while_there_is_room() {
        let buffer = Buffer::new(&Rc::default());
        let large = vec![b'x'; ROOM - 1];
        let slices = [IoSlice::new(&large), IoSlice::new(b"yz"), IoSlice::new(b"z")];
        assert_eq!(buffer.write(&slices).unwrap(), ROOM + 1);
        assert_eq!(buffer.write(&slices).unwrap(), 0);
        assert_eq!(buffer.take().len(), ROOM + 1);
        assert_eq!(buffer.write(&[IoSlice::new(b"z")]).unwrap(), 1);
        buffer.withdraw();
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_s_type_is_found_wherever_it_stands() {
        assert_eq!(type_of(br#"{"type":"row","id":"a"}"#), "row");
        assert_eq!(type_of(br#"{"cursor":"1","type":"synced"}"#), "synced");
    }
}

//! What a session sends, gathered for one answer.
//!
//! The session writes events, as it would into a stream, so it shares them with the streams of its
//! group; here they are taken apart again.

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::rc::Rc;

use serde::Deserialize;
use tokio::sync::Notify;

use crate::dialect::native::events;
use crate::route::outbox::Wire;
use crate::serve::visit::Line;

/// Bytes after which an answer is full. It is passed by one write at the most.
const ROOM: usize = 1 << 20;

/// What takes a session's frames: whole ones, until there are enough.
#[derive(Debug)]
pub(crate) struct GatheringWire {
    stream: RefCell<Vec<u8>>,
    /// How much it still takes.
    room: Cell<usize>,
    /// Wakes who waits for frames.
    pub(crate) woken: Notify,
    line: Rc<Line>,
}

impl GatheringWire {
    pub(crate) fn new(line: &Rc<Line>) -> GatheringWire {
        GatheringWire {
            stream: RefCell::default(),
            room: Cell::new(ROOM),
            woken: Notify::new(),
            line: Rc::clone(line),
        }
    }

    /// What was written since the last time.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.stream.take()
    }

    /// Whether it takes nothing more.
    pub(crate) const fn is_full(&self) -> bool {
        self.room.get() == 0
    }
}

impl Wire for GatheringWire {
    /// A slice is taken as a whole or not at all, and each ends where a frame ends, so frames are
    /// never cut.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for slice in slices {
            if self.is_full() {
                break;
            }
            self.stream.borrow_mut().extend_from_slice(slice);
            self.room.set(self.room.get().saturating_sub(slice.len()));
            taken += slice.len();
        }
        if taken > 0 {
            self.woken.notify_one();
        }
        Ok(taken)
    }

    fn wake(&self) {
        self.woken.notify_one();
        self.line.woken.notify_one();
    }
}

/// Frames for one answer.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The frames, joined by commas.
    pub(crate) frames: Vec<u8>,
    /// The newest cursor among them, and among those that were left out.
    pub(crate) cursor: Option<String>,
}

/// As much of a frame as is read to see whether it belongs into an answer.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    of: String,
}

impl Gathered {
    /// Takes the frames of a stream for which `wanted` is true of their type.
    pub(crate) fn read(&mut self, stream: &[u8], wanted: impl Fn(&str) -> bool) {
        for event in events::events(stream) {
            if let Some(cursor) = event.cursor {
                self.cursor = Some(cursor.to_owned());
            }
            if !is_wanted(event.json, &wanted) {
                continue;
            }
            if !self.frames.is_empty() {
                self.frames.push(b',');
            }
            self.frames.extend_from_slice(event.json);
        }
    }

    /// Whether there are no frames.
    pub(crate) const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

fn is_wanted(json: &[u8], wanted: impl Fn(&str) -> bool) -> bool {
    // All but a few are rows, and a row says so at its beginning.
    if json.starts_with(br#"{"type":"row""#) {
        return wanted("row");
    }
    serde_json::from_slice(json).is_ok_and(|kind: Kind| wanted(&kind.of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_until_there_are_enough() {
        let wire = GatheringWire::new(&Rc::default());
        let large = vec![b'x'; ROOM - 1];
        let slices = [IoSlice::new(&large), IoSlice::new(b"yz"), IoSlice::new(b"z")];
        assert_eq!(wire.write(&slices).unwrap(), ROOM + 1);
        assert!(wire.is_full());
        assert_eq!(wire.write(&slices).unwrap(), 0);
        assert_eq!(wire.take().len(), ROOM + 1);
        assert_eq!(wire.write(&slices).unwrap(), 0);
    }

    #[test]
    fn frames_that_are_not_wanted_leave_their_cursor() {
        let stream = b"id: 1\ndata: {\"type\":\"row\",\"a\":1}\n\n:\n\n\
                       data: {\"a\":2,\"type\":\"error\"}\n\n\
                       id: 2\ndata: {\"cursor\":\"2\",\"type\":\"heartbeat\"}\n\n";
        let mut gathered = Gathered::default();
        gathered.read(stream, |of| of != "heartbeat");
        let frames = std::str::from_utf8(&gathered.frames).unwrap();
        assert_eq!(frames, r#"{"type":"row","a":1},{"a":2,"type":"error"}"#);
        assert_eq!(gathered.cursor.as_deref(), Some("2"));
    }
}

//! The native dialect as an event stream, as `EventSource` reads it (WHATWG HTML, section 9.2): one
//! event for each frame, with the cursor as the event's id, so that a browser that lost its
//! connection comes back with it by itself.
//!
//! ```text
//! id: 1f.1.2a3b4c.2
//! data: {"type":"row", … ,"cursor":"1f.1.2a3b4c.2"}
//! (an empty line)
//! ```
//!
//! No event has a name: a named one would not reach `onmessage`, and `type` in the JSON tells as
//! much. A frame without a cursor has no id; what the client saw last stays what it resumes from.

use std::io::Write;

use crate::change::cursor::Cursor;
use crate::dialect::native::write;
use crate::dialect::native::write::Tail;
use crate::route::encode::Encode;
use crate::route::encode::Notice;
use crate::route::encode::RowFrame;

/// The native dialect as an event stream.
#[derive(Clone, Copy, Debug)]
pub struct Events;

/// The one instance of it.
pub static EVENTS: Events = Events;

const ID: &[u8] = b"id: ";
const DATA: &[u8] = b"data: ";
const END: &[u8] = b"\n\n";

impl Encode for Events {
    fn name(&self) -> &'static str {
        "events"
    }

    fn head(&self, id: &str, out: &mut Vec<u8>) {
        write::head(id, out);
    }

    fn body(&self, row: &RowFrame<'_>, out: &mut Vec<u8>) {
        write::body_on_one_line(row, out);
    }

    fn frame(&self, head: &[u8], body: &[u8], cursor: Option<Cursor>, out: &mut Vec<u8>) {
        let tail = Tail::of(cursor);
        if let Some(cursor) = cursor {
            writeln!(out, "id: {cursor}").expect("memory can be written to");
        }
        for part in [DATA, head, body, tail.bytes(), END] {
            out.extend_from_slice(part);
        }
    }

    fn notice(&self, notice: &Notice<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&event(&write::notice(notice)));
    }

    fn ping(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b":\n\n");
    }
}

/// A whole event.
#[must_use]
pub fn event(json: &serde_json::Value) -> Vec<u8> {
    let cursor = json.get("cursor").and_then(serde_json::Value::as_str);
    let id = cursor.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
    // What a `restart` asks for, a browser does by itself.
    let retry = json.get("retry_ms").map(|retry| format!("retry: {retry}\n")).unwrap_or_default();
    format!("{id}{retry}data: {json}\n\n").into_bytes()
}

/// What a stream begins with: a comment, so that something is sent before the first change, and
/// after how many milliseconds a browser comes back when the stream has ended.
#[must_use]
pub fn opening(retry_ms: u32) -> Vec<u8> {
    format!(": walcast {}\nretry: {retry_ms}\n\n", env!("CARGO_PKG_VERSION")).into_bytes()
}

/// One event of a stream, taken apart again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its id.
    pub cursor: Option<&'a str>,
    /// Its data.
    pub json: &'a [u8],
}

/// The events that this module wrote into `stream`, without comments.
pub fn events(stream: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let mut cursor = None;
    stream.split(|byte| *byte == b'\n').filter_map(move |line| {
        if let Some(id) = line.strip_prefix(ID) {
            cursor = std::str::from_utf8(id).ok();
        }
        let json = line.strip_prefix(DATA)?;
        Some(Event { cursor: cursor.take(), json })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::cursor::Source;
    use crate::change::lsn::Lsn;

    #[test]
    fn a_restart_tells_a_browser_when_to_come_back() {
        let json = serde_json::json!({ "type": "restart", "retry_ms": 1234, "cursor": "1.2.3.0" });
        let event = String::from_utf8(event(&json)).unwrap();
        assert!(event.starts_with("id: 1.2.3.0\nretry: 1234\ndata: {"), "{event}");
    }

    #[test]
    fn a_frame_is_an_event_with_its_cursor() {
        let source = Source { system: 1, timeline: 2 };
        let cursor = Cursor::after(source, Lsn::new(3));
        let mut stream = opening(5);
        EVENTS.frame(br#"{"a":"#, b"1", Some(cursor), &mut stream);
        EVENTS.ping(&mut stream);
        EVENTS.frame(br#"{"a":"#, b"2", None, &mut stream);
        stream.extend(event(&write::closed(1012, "restart")));
        let text = std::str::from_utf8(&stream).unwrap();
        let expected = "retry: 5\n\nid: 1.2.3.0\ndata: {\"a\":1,\"cursor\":\"1.2.3.0\"}\n\n:\n\n\
                        data: {\"a\":2}\n\n";
        assert!(text.contains(expected), "{text}");
        let read: Vec<Event<'_>> = events(&stream).collect();
        assert_eq!(read.len(), 3, "{text}");
        assert_eq!(read[0].cursor, Some("1.2.3.0"));
        assert_eq!(read[1], Event { cursor: None, json: br#"{"a":2}"# });
    }
}

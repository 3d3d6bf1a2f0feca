//! The native dialect as lines: one line of JSON for each frame, as `COPY … TO STDOUT` prints them.

use crate::change::cursor::Cursor;
use crate::dialect::native::write;
use crate::dialect::native::write::Tail;
use crate::route::encode::Encode;
use crate::route::encode::Notice;
use crate::route::encode::RowFrame;

/// The native dialect as lines.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

/// The one instance of it.
pub static LINES: Lines = Lines;

impl Encode for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn head(&self, id: &str, out: &mut Vec<u8>) {
        write::head(id, out);
    }

    fn body(&self, row: &RowFrame<'_>, out: &mut Vec<u8>) {
        write::body_on_one_line(row, out);
    }

    fn frame(&self, head: &[u8], body: &[u8], cursor: Option<Cursor>, out: &mut Vec<u8>) {
        for part in [head, body, Tail::of(cursor).bytes(), b"\n"] {
            out.extend_from_slice(part);
        }
    }

    fn notice(&self, notice: &Notice<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&line(&write::notice(notice)));
    }

    /// Nothing: the connection has its own ways, and a heartbeat came before.
    fn ping(&self, _: &mut Vec<u8>) {}
}

/// A whole line.
#[must_use]
pub fn line(json: &serde_json::Value) -> Vec<u8> {
    format!("{json}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::cursor::Source;
    use crate::change::lsn::Lsn;

    #[test]
    fn a_frame_is_a_line() {
        let source = Source { system: 1, timeline: 2 };
        let mut out = Vec::new();
        LINES.frame(br#"{"a":"#, b"1", Some(Cursor::after(source, Lsn::new(3))), &mut out);
        LINES.ping(&mut out);
        LINES.frame(br#"{"a":"#, b"2", None, &mut out);
        assert_eq!(out, b"{\"a\":1,\"cursor\":\"1.2.3.0\"}\n{\"a\":2}\n");
    }
}

//! The native dialect over WebSocket: one text message for each frame.

use crate::change::cursor::Cursor;
use crate::dialect::frame;
use crate::dialect::frame::Opcode;
use crate::dialect::native::write;
use crate::dialect::native::write::Tail;
use crate::route::encode::Encode;
use crate::route::encode::Notice;
use crate::route::encode::RowFrame;

/// The native dialect over WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct WebSocket;

/// The one instance of it.
pub static WEBSOCKET: WebSocket = WebSocket;

impl Encode for WebSocket {
    fn name(&self) -> &'static str {
        "native"
    }

    fn head(&self, id: &str, out: &mut Vec<u8>) {
        write::head(id, out);
    }

    fn body(&self, row: &RowFrame<'_>, out: &mut Vec<u8>) {
        write::body(row, out);
    }

    fn frame(&self, head: &[u8], body: &[u8], cursor: Option<Cursor>, out: &mut Vec<u8>) {
        let tail = Tail::of(cursor);
        let length = head.len() + body.len() + tail.bytes().len();
        out.reserve(frame::HEADER_MAX + length);
        frame::header(Opcode::Text, length, out);
        out.extend_from_slice(head);
        out.extend_from_slice(body);
        out.extend_from_slice(tail.bytes());
    }

    fn notice(&self, notice: &Notice<'_>, out: &mut Vec<u8>) {
        text(&write::notice(notice), out);
    }

    fn ping(&self, out: &mut Vec<u8>) {
        frame::header(Opcode::Ping, 0, out);
    }
}

/// A whole frame, as it goes to the socket.
#[must_use]
pub fn framed(json: &serde_json::Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(json, &mut out);
    out
}

fn text(json: &serde_json::Value, out: &mut Vec<u8>) {
    let json = json.to_string();
    frame::header(Opcode::Text, json.len(), out);
    out.extend_from_slice(json.as_bytes());
}

//! The little of WebSocket that a load client needs, and the search for a row's numbers.
//!
//! Client frames are masked with a zero key, which leaves the payload as it is and is allowed.

use memchr::memmem::Finder;

/// A frame's payload is text.
pub(crate) const TEXT: u8 = 1;
/// The peer is about to close.
pub(crate) const CLOSE: u8 = 8;
/// Asks for a pong with the same payload.
pub(crate) const PING: u8 = 9;
/// Answers a ping.
pub(crate) const PONG: u8 = 10;

/// One whole frame at the beginning of a buffer.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
    /// What follows the frame.
    pub(crate) rest: &'a [u8],
}

/// Splits the first frame off `bytes`; nothing when it is not complete yet.
pub(crate) fn split(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (u64::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*length), rest)
        }
        short => (u64::from(short), rest),
    };
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some(Frame { opcode: first & 0x0f, payload, rest })
}

/// Appends a frame as a client sends it.
pub(crate) fn write_masked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    write_head(opcode, payload.len(), 0x80, out);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Appends a text frame as a server sends it.
pub(crate) fn write_plain(payload: &[u8], out: &mut Vec<u8>) {
    write_head(TEXT, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

fn write_head(opcode: u8, length: usize, mask: u8, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(mask | short),
        (_, Ok(middle)) => {
            out.push(mask | 126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend_from_slice(&u64::try_from(length).expect("64 bits").to_be_bytes());
        }
    }
}

/// Finds the numbers that the writer put into each row, whatever JSON surrounds them.
#[derive(Debug)]
pub(crate) struct RowFinder {
    seq: Finder<'static>,
    sent: Finder<'static>,
}

/// What the writer said of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    /// The writer's clock just before the transaction.
    pub(crate) sent_at_us: u64,
}

impl RowFinder {
    pub(crate) fn new() -> RowFinder {
        RowFinder { seq: Finder::new("\"seq\":"), sent: Finder::new("\"sent_at_us\":") }
    }

    /// The first row in `payload` and what follows it. Columns stand in the table's order, so
    /// `sent_at_us` comes after `seq`.
    pub(crate) fn next<'a>(&self, payload: &'a [u8]) -> Option<(Row, &'a [u8])> {
        let (seq, rest) = number_after(&self.seq, payload)?;
        let (sent_at_us, rest) = number_after(&self.sent, rest)?;
        Some((Row { seq, sent_at_us }, rest))
    }
}

fn number_after<'a>(name: &Finder<'_>, text: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let after = text.get(name.find(text)? + name.needle().len()..)?;
    // `to_jsonb` writes a blank after the colon; big numbers may be quoted.
    let digits = after.trim_ascii_start();
    let mut rest = digits.strip_prefix(b"\"").unwrap_or(digits);
    let mut number = 0_u64;
    while let Some((digit @ b'0'..=b'9', tail)) = rest.split_first() {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        rest = tail;
    }
    Some((number, rest))
}

//! Where one message of a client ends and the next begins, as its bytes go by.
//!
//! The WebSocket state machine tells of whole messages only. A client that begins one and never ends
//! it, in fragments that never end or with a ping now and then, would hold its memory for as long as
//! it likes; so the frames' heads are followed here, too (RFC 6455, section 5.2). What is wrong with
//! a frame is the state machine's to say.

/// The longest head: two bytes, eight of length, four of mask.
const HEAD: usize = 14;

/// A place in the stream of a client's frames.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    head: [u8; HEAD],
    /// Bytes of a head that is not whole.
    have: u8,
    /// Bytes of the payload that are to come.
    left: u64,
    /// Whether a message was begun of which more frames are to come.
    fragmented: bool,
}

impl Framing {
    /// Whether everything that was begun has come.
    pub(crate) const fn is_whole(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.fragmented
    }

    /// Follows the next bytes.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u64::try_from(skipped).unwrap_or(self.left);
                bytes = bytes.get(skipped..).unwrap_or_default();
            } else if let Some((byte, rest)) = bytes.split_first() {
                self.take_head(*byte);
                bytes = rest;
            }
        }
    }

    fn take_head(&mut self, byte: u8) {
        let have = usize::from(self.have);
        if let Some(place) = self.head.get_mut(have) {
            *place = byte;
        }
        self.have += 1;
        let [first, second, rest @ ..] = self.head;
        let short = second & 0x7f;
        let of_length = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let of_mask = if second & 0x80 == 0 { 0 } else { 4 };
        if have + 1 < 2 || have + 1 < 2 + of_length + of_mask {
            return;
        }
        self.left = match of_length {
            0 => u64::from(short),
            long => rest.iter().take(long).fold(0, |all, byte| all << 8 | u64::from(*byte)),
        };
        self.have = 0;
        // Control frames stand between those of a message.
        if first & 0x08 == 0 {
            self.fragmented = first & 0x80 == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            short if short < 126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            medium if medium < 65_536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(medium).unwrap().to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend(u64::try_from(long).unwrap().to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(vec![0xff; length]);
        frame
    }

    #[test]
    fn a_message_is_whole_at_its_last_byte_however_it_is_cut() {
        for length in [0, 1, 125, 126, 300, 65_535, 70_000] {
            let message = frame(0x81, length);
            for step in [1, 7, 4096] {
                let mut framing = Framing::default();
                for (at, bytes) in message.chunks(step).enumerate() {
                    framing.take(bytes);
                    let end = (at * step + bytes.len()) == message.len();
                    assert_eq!(framing.is_whole(), end, "{length} in steps of {step}");
                }
            }
        }
    }

    #[test]
    fn a_fragmented_message_is_not_whole_before_its_last_frame() {
        let mut framing = Framing::default();
        for (first, length, whole) in [
            (0x01, 3, false),
            (0x89, 4, false),
            (0x00, 0, false),
            (0x8a, 0, false),
            (0x80, 200, true),
            (0x89, 0, true),
            (0x82, 5, true),
        ] {
            framing.take(&frame(first, length));
            assert_eq!(framing.is_whole(), whole, "{first:#x}");
        }
    }
}

//! WebSocket frames from the server (RFC 6455, section 5.2): not masked, so one frame is the same
//! bytes for every client.

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8 text.
    Text,
    /// A ping; the peer must answer.
    Ping,
}

/// The longest header, in bytes.
pub const HEADER_MAX: usize = 10;

/// Appends the header of an unfragmented frame with `length` bytes of payload.
pub fn header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    out.push(match opcode {
        Opcode::Text => 0x81,
        Opcode::Ping => 0x89,
    });
    if let Ok(short) = u8::try_from(length)
        && short < 126
    {
        out.push(short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: usize, expected: &[u8]) {
        let mut out = Vec::new();
        header(Opcode::Text, length, &mut out);
        assert_eq!(out, expected, "{length}");
    }

    #[test]
    fn the_shortest_length_is_chosen() {
        check(0, &[0x81, 0]);
        check(125, &[0x81, 125]);
        check(126, &[0x81, 126, 0, 126]);
        check(65_535, &[0x81, 126, 255, 255]);
        check(65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}

//! Frames of the Postgres protocol: a byte and a length, then as many bytes.
//!
//! Waiting and reading are two calls. [`Frames::fill`] waits until a whole frame is in the buffer
//! and can be dropped at any time; [`Frames::take`] gives it out, borrowed, without waiting. One
//! read brings hundreds of frames, so a busy stream costs hundreds of calls of `take` for each of
//! `fill`.
//!
//! # Coalescing
//!
//! The server sends every row with a system call of its own. A reader that takes each as it comes
//! wakes up for each and fights with the sender for the socket. So after a short read on a busy
//! stream the thread sleeps for [`Reading::pause`] before it reads again. A stream that was quiet
//! is read at once. Drains a backlog about 1.3 times as fast, at a third of the CPU.

use std::io;
use std::time::Duration;

use bytes::Buf;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

/// How the stream is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The largest frame taken, in bytes. Default 1 GiB: Postgres has no larger ones.
    pub frame_bytes_max: usize,
    /// How long the thread sleeps between two short reads of a busy stream; zero: never. Default
    /// 50 µs, which is enough for a few hundred rows. The thread must serve nobody else.
    pub pause: Duration,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading { frame_bytes_max: 1 << 30, pause: Duration::from_micros(50) }
    }
}

/// A byte stream in both directions.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// One frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawFrame<'a> {
    /// What kind it is.
    pub(crate) tag: u8,
    /// What it says.
    pub(crate) body: &'a [u8],
}

/// Why there are no more frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Reading or writing did not work.
    #[error("connection to the server broken")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("connection closed by the server")]
    Closed,
    /// A frame's length is impossible.
    #[error("frame 0x{tag:02x} claims a length of {length}")]
    Length {
        /// The frame's kind.
        tag: u8,
        /// The length.
        length: u32,
    },
    /// A frame is larger than is allowed.
    #[error("frame 0x{tag:02x} has {length} bytes, of which at most {max} are taken")]
    TooLarge {
        /// The frame's kind.
        tag: u8,
        /// How many bytes it has.
        length: usize,
        /// How many are taken.
        max: usize,
    },
}

const CHUNK: usize = 256 << 10;
const SHORT_READ: usize = 64 << 10;
const BUSY: Duration = Duration::from_millis(1);
const HEADER: usize = 5;

/// A connection as frames.
pub(crate) struct Frames {
    transport: Box<dyn Transport>,
    buffer: BytesMut,
    /// How much of the buffer was given out.
    taken: usize,
    reading: Reading,
    last_read: Option<(Instant, usize)>,
}

impl Frames {
    pub(crate) fn new(transport: Box<dyn Transport>, reading: Reading) -> Frames {
        let buffer = BytesMut::with_capacity(CHUNK);
        Frames { transport, buffer, taken: 0, reading, last_read: None }
    }

    /// Waits until a whole frame is there.
    ///
    /// Cancel safe: bytes that were read stay.
    pub(crate) async fn fill(&mut self) -> Result<(), FrameError> {
        self.forget_taken();
        loop {
            let missing = match self.length()? {
                Some(length) if length <= self.buffer.len() => return Ok(()),
                Some(length) => length - self.buffer.len(),
                None => HEADER,
            };
            // A large frame gets its room once.
            self.buffer.reserve(missing.max(CHUNK / 2));
            self.pause();
            let count = self.transport.read_buf(&mut self.buffer).await?;
            if count == 0 {
                return Err(FrameError::Closed);
            }
            self.last_read = Some((Instant::now(), count));
        }
    }

    /// The next frame, if a whole one is there.
    pub(crate) fn take(&mut self) -> Result<Option<RawFrame<'_>>, FrameError> {
        let Some(length) = self.length()? else { return Ok(None) };
        let start = self.taken;
        let Some(frame) = self.buffer.get(start..start.saturating_add(length)) else {
            return Ok(None);
        };
        self.taken += length;
        Ok(frame
            .split_first_chunk::<HEADER>()
            .map(|([tag, ..], body)| RawFrame { tag: *tag, body }))
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.transport.write_all(bytes).await?;
        self.transport.flush().await?;
        Ok(())
    }

    /// The length of the next frame with its header, once the header is there.
    fn length(&self) -> Result<Option<usize>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some([tag, a, b, c, d]) = rest.first_chunk::<HEADER>() else { return Ok(None) };
        let (tag, length) = (*tag, u32::from_be_bytes([*a, *b, *c, *d]));
        if length < 4 {
            return Err(FrameError::Length { tag, length });
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
        let max = self.reading.frame_bytes_max;
        if length > max {
            return Err(FrameError::TooLarge { tag, length, max });
        }
        Ok(Some(length))
    }

    fn forget_taken(&mut self) {
        self.buffer.advance(self.taken);
        self.taken = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 8 * CHUNK {
            // A large row's room is given back.
            self.buffer = BytesMut::with_capacity(CHUNK);
        }
    }

    fn pause(&self) {
        let Some((at, count)) = self.last_read else { return };
        if !self.reading.pause.is_zero() && count < SHORT_READ && at.elapsed() < BUSY {
            std::thread::sleep(self.reading.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(max: usize) -> (Frames, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let reading = Reading { frame_bytes_max: max, pause: Duration::ZERO };
        (Frames::new(Box::new(ours), reading), theirs)
    }

    #[tokio::test]
    async fn frames_come_whole_however_they_are_cut() {
        let (mut frames, mut server) = frames(1000);
        server.write_all(b"d\0\0\0\x06abd\0\0").await.unwrap();
        frames.fill().await.unwrap();
        assert_eq!(frames.take().unwrap(), Some(RawFrame { tag: b'd', body: b"ab" }));
        assert_eq!(frames.take().unwrap(), None);
        server.write_all(b"\0\x05c").await.unwrap();
        frames.fill().await.unwrap();
        assert_eq!(frames.take().unwrap(), Some(RawFrame { tag: b'd', body: b"c" }));
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_buffer_is_taken() {
        let (mut frames, mut server) = frames(1 << 20);
        let length = 700_000u32;
        let mut bytes = vec![b'd'];
        bytes.extend((length + 4).to_be_bytes());
        bytes.resize(bytes.len() + 700_000, 7);
        server.write_all(&bytes).await.unwrap();
        frames.fill().await.unwrap();
        assert_eq!(frames.take().unwrap().unwrap().body.len(), 700_000);
    }

    #[tokio::test]
    async fn impossible_lengths_are_refused() {
        for (bytes, too_large) in [(b"d\0\0\0\x03", false), (b"d\x7f\0\0\0", true)] {
            let (mut frames, mut server) = frames(1000);
            server.write_all(bytes).await.unwrap();
            let error = frames.fill().await.unwrap_err();
            assert_eq!(matches!(error, FrameError::TooLarge { .. }), too_large, "{error}");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_told() {
        let (mut frames, server) = frames(1000);
        drop(server);
        assert!(matches!(frames.fill().await, Err(FrameError::Closed)));
    }
}

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
//!
//! # Large frames
//!
//! While rows are streamed, a frame that is larger than a value may be is not held: its bytes go
//! into a [`Condenser`] as they come, and what that leaves is given out in its place.

use std::io;
use std::time::Duration;

use bytes::Buf;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::ingest::condense::Condenser;

/// How the stream is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The largest frame taken, in bytes. Default a little over 1 GiB: Postgres has no larger ones.
    pub frame_bytes_max: usize,
    /// The largest value that is kept of a row, in bytes. Default 1 MiB.
    pub cell_bytes_max: usize,
    /// How long the thread sleeps between two short reads of a busy stream; zero: never. Default
    /// 50 µs, which is enough for a few hundred rows. The thread must serve nobody else.
    pub pause: Duration,
}

impl Default for Reading {
    fn default() -> Reading {
        let pause = Duration::from_micros(50);
        Reading { frame_bytes_max: (1 << 30) + (1 << 10), cell_bytes_max: 1 << 20, pause }
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
/// The kind of the frames that carry rows.
const COPY_DATA: u8 = b'd';

/// A frame that is too large to be held.
struct Large {
    /// How many bytes of it are still to come.
    left: usize,
    condenser: Condenser,
    /// Whether it was given out.
    given: bool,
}

/// What is there of the next frame.
enum Front {
    /// All of it, which is so many bytes.
    Whole(usize),
    /// All of it, and it was condensed.
    Condensed,
    /// So many bytes are to come, at least.
    Missing(usize),
}

/// A connection as frames.
pub(crate) struct Frames {
    transport: Box<dyn Transport>,
    buffer: BytesMut,
    /// How much of the buffer was given out.
    taken: usize,
    /// Frames above this size are condensed.
    held_bytes_max: usize,
    /// A frame that is being condensed, or was given out last.
    large: Option<Large>,
    reading: Reading,
    last_read: Option<(Instant, usize)>,
}

impl Frames {
    pub(crate) fn new(transport: Box<dyn Transport>, reading: Reading) -> Frames {
        let buffer = BytesMut::with_capacity(CHUNK);
        let held_bytes_max = reading.frame_bytes_max;
        Frames {
            transport,
            buffer,
            taken: 0,
            held_bytes_max,
            large: None,
            reading,
            last_read: None,
        }
    }

    /// From here on rows come: large ones are condensed.
    pub(crate) const fn expect_rows(&mut self) {
        self.held_bytes_max = self.reading.cell_bytes_max;
    }

    /// When bytes came last.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        self.last_read.map(|(at, _)| at)
    }

    /// Waits until a whole frame is there.
    ///
    /// Cancel safe: bytes that were read stay.
    pub(crate) async fn fill(&mut self) -> Result<(), FrameError> {
        self.forget_given();
        loop {
            self.forget_taken();
            let missing = match self.front()? {
                Front::Whole(_) | Front::Condensed => return Ok(()),
                Front::Missing(missing) => missing,
            };
            // A frame gets its room once.
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
        self.forget_given();
        let frame = match self.front()? {
            Front::Missing(_) => None,
            Front::Condensed => self.large.as_mut().map(|large| {
                large.given = true;
                RawFrame { tag: COPY_DATA, body: large.condenser.condensed() }
            }),
            Front::Whole(length) => {
                let start = self.taken;
                self.taken += length;
                let frame = self.buffer.get(start..self.taken);
                let frame = frame.and_then(<[u8]>::split_first_chunk::<HEADER>);
                frame.map(|([tag, ..], body)| RawFrame { tag: *tag, body })
            }
        };
        Ok(frame)
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.transport.write_all(bytes).await?;
        self.transport.flush().await?;
        Ok(())
    }

    /// Looks at the next frame. One that is large is condensed as far as it has come.
    fn front(&mut self) -> Result<Front, FrameError> {
        if self.large.is_some() {
            return Ok(self.condense());
        }
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some([tag, a, b, c, d]) = rest.first_chunk::<HEADER>() else {
            return Ok(Front::Missing(HEADER));
        };
        let (tag, length) = (*tag, u32::from_be_bytes([*a, *b, *c, *d]));
        let come = rest.len();
        if length < 4 {
            return Err(FrameError::Length { tag, length });
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
        if length > self.held_bytes_max && self.begin_large(tag, length)? {
            return Ok(self.condense());
        }
        Ok(match length.checked_sub(come) {
            None | Some(0) => Front::Whole(length),
            Some(missing) => Front::Missing(missing),
        })
    }

    /// Begins to condense a frame; `false` where it is of a kind that is held however large.
    #[cold]
    fn begin_large(&mut self, tag: u8, length: usize) -> Result<bool, FrameError> {
        let max = self.reading.frame_bytes_max;
        if length > max {
            return Err(FrameError::TooLarge { tag, length, max });
        }
        if tag != COPY_DATA {
            return Ok(false);
        }
        self.taken += HEADER;
        let condenser = Condenser::new(self.reading.cell_bytes_max);
        self.large = Some(Large { left: length - HEADER, condenser, given: false });
        Ok(true)
    }

    /// Condenses what has come of the large frame.
    #[cold]
    fn condense(&mut self) -> Front {
        let Some(large) = &mut self.large else { return Front::Missing(HEADER) };
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let come = rest.get(..large.left).unwrap_or(rest);
        large.condenser.push(come);
        large.left -= come.len();
        self.taken += come.len();
        if large.left == 0 { Front::Condensed } else { Front::Missing(CHUNK) }
    }

    fn forget_given(&mut self) {
        if self.large.as_ref().is_some_and(|large| large.given) {
            self.large = None;
        }
    }

    fn forget_taken(&mut self) {
        self.buffer.advance(self.taken);
        self.taken = 0;
        if self.buffer.len() < CHUNK / 4 && self.buffer.capacity() > 8 * CHUNK {
            // A large frame's room is given back.
            let mut buffer = BytesMut::with_capacity(CHUNK);
            buffer.extend_from_slice(&self.buffer);
            self.buffer = buffer;
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
        let pause = Duration::ZERO;
        let reading = Reading { frame_bytes_max: max, pause, ..Reading::default() };
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
    async fn a_large_row_is_condensed_as_it_comes_and_what_follows_is_whole() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let reading = Reading { cell_bytes_max: 8000, ..Reading::default() };
        let mut frames = Frames::new(Box::new(ours), reading);
        frames.expect_rows();
        let large = || async move {
            let mut body = vec![b'w'; 25];
            body.extend(b"I\0\0\0\x01N\0\x02t\0\0\0\x017t");
            body.extend(50_000_000u32.to_be_bytes());
            let length = u32::try_from(body.len() + 4).unwrap() + 50_000_000;
            theirs.write_all(b"d").await.unwrap();
            theirs.write_all(&length.to_be_bytes()).await.unwrap();
            theirs.write_all(&body).await.unwrap();
            for _ in 0..500 {
                theirs.write_all(&[b'x'; 100_000]).await.unwrap();
            }
            theirs.write_all(b"d\0\0\0\x06ab").await.unwrap();
        };
        let read = async {
            frames.fill().await.unwrap();
            // Whoever waits again before it took the frame loses nothing.
            frames.fill().await.unwrap();
            let frame = frames.take().unwrap().unwrap();
            let expected = b"I\0\0\0\x01N\0\x02t\0\0\0\x017o\x02\xfa\xf0\x80";
            assert_eq!(frame.body.get(25..), Some(expected.as_slice()));
            while frames.take().unwrap().is_none_or(|frame| frame.body != b"ab") {
                frames.fill().await.unwrap();
            }
            assert!(frames.buffer.capacity() <= 2 * CHUNK, "{}", frames.buffer.capacity());
        };
        tokio::join!(large(), read);
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

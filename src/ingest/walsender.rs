//! The walsender: a connection that takes commands, and then is a stream of the log.
//!
//! ```text
//! connect ──▶ Commands ──start──▶ Walsender ──end──▶ closed
//! ```
//!
//! Hand-written, because neither `tokio-postgres` nor `postgres-protocol` knows the messages of
//! `CopyBoth`; start-up and passwords are `postgres-protocol`'s. Format: PostgreSQL documentation,
//! chapter "Frontend/Backend Protocol", section "Streaming Replication Protocol".

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::BufMut;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::change::cursor::Source;
use crate::change::lsn::Lsn;
use crate::ingest::Settings;
use crate::ingest::connect;
use crate::ingest::connect::ConnectError;
use crate::ingest::frames::FrameError;
use crate::ingest::frames::Frames;
use crate::ingest::startup;

/// What the server says about an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {code}){}", detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
pub struct ServerError {
    /// The SQLSTATE.
    pub code: String,
    /// What happened, in the server's language.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
}

/// Why a walsender connection does not work, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum WalsenderError {
    /// The server can't be reached.
    #[error("server not reached")]
    Connect(#[from] ConnectError),
    /// The connection broke, or what comes over it makes no sense.
    #[error("connection lost")]
    Frames(#[from] FrameError),
    /// The server refused the connection.
    #[error("connection refused by the server")]
    Refused(#[source] ServerError),
    /// The server asks for a password and there is none.
    #[error("the server asks for a password and none is configured")]
    NoPassword,
    /// The server asks for a proof that is not known here.
    #[error("the server asks for an authentication that is not supported")]
    UnknownAuthentication,
    /// The password exchange failed: the server does not know the password either, or is another.
    #[error("SCRAM exchange failed")]
    Scram(#[source] io::Error),
    /// Channel binding is demanded and the server does not offer it.
    #[error("channel_binding=require, but the exchange can't be bound to the TLS connection")]
    NotBound,
    /// The server did not become ready in time.
    #[error("the server did not answer within {} s", patience.as_secs())]
    Late {
        /// How long it was waited for.
        patience: Duration,
    },
    /// A command failed.
    #[error("{command} failed")]
    Command {
        /// The command's name.
        command: &'static str,
        /// What the server says.
        #[source]
        error: ServerError,
    },
    /// A command's answer has not the form that it must have.
    #[error("unexpected answer to {command}")]
    Answer {
        /// The command's name.
        command: &'static str,
    },
    /// The stream ended with an error.
    #[error("stream ended by the server")]
    Stream(#[source] ServerError),
    /// The server ended the stream in good order, as it does when it shuts down.
    #[error("stream ended by the server, which is shutting down")]
    Ended,
    /// Nothing came for longer than the server ever stays silent.
    #[error("nothing came from the server for {} s", silence.as_secs())]
    Silent {
        /// How long.
        silence: Duration,
    },
}

/// A connection in command mode.
pub struct Commands {
    frames: Frames,
    parameters: HashMap<String, String>,
}

/// A row of a command's answer; absent: NULL.
pub(crate) type AnswerRow = HashMap<String, Option<String>>;

/// What the server is, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Its history.
    pub source: Source,
    /// Up to where its log is flushed.
    pub flushed_lsn: Lsn,
}

/// Connects to the server of `settings`; the whole start-up may take their `patience`.
pub(crate) async fn connect(settings: &Settings) -> Result<Commands, WalsenderError> {
    let patience = settings.patience;
    let opened = connect::open(settings).await?;
    let started = async {
        let Settings { connection, reading, .. } = settings;
        startup::greet(opened, connection, *reading).await?.authenticate().await?.ready().await
    };
    timeout(patience, started).await.unwrap_or(Err(WalsenderError::Late { patience }))
}

impl Commands {
    pub(crate) const fn new(frames: Frames, parameters: HashMap<String, String>) -> Commands {
        Commands { frames, parameters }
    }

    /// A parameter that the server reported at start-up, such as `server_version`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Runs one command and gives back its rows, each by column name. `name` goes into errors.
    pub(crate) async fn query(
        &mut self,
        name: &'static str,
        text: &str,
    ) -> Result<Vec<AnswerRow>, WalsenderError> {
        let mut bytes = BytesMut::new();
        frontend::query(text, &mut bytes).map_err(FrameError::Io)?;
        self.frames.send(&bytes).await?;
        let malformed = WalsenderError::Answer { command: name };
        let (mut columns, mut rows, mut failed) = (Vec::new(), Vec::new(), None);
        loop {
            self.frames.fill().await?;
            let Some(frame) = self.frames.take()? else { continue };
            match frame.tag {
                b'T' => match column_names(frame.body) {
                    Some(names) => columns = names,
                    None => return Err(malformed),
                },
                b'D' => match cells(frame.body) {
                    Some(cells) => rows.push(columns.iter().cloned().zip(cells).collect()),
                    None => return Err(malformed),
                },
                b'E' => failed = Some(ServerError::decode(frame.body)),
                b'Z' => {
                    return match failed {
                        Some(error) => Err(WalsenderError::Command { command: name, error }),
                        None => Ok(rows),
                    };
                }
                _ => {}
            }
        }
    }

    /// Asks whose log this is.
    pub(crate) async fn identify(&mut self) -> Result<System, WalsenderError> {
        const NAME: &str = "IDENTIFY_SYSTEM";
        let rows = self.query(NAME, NAME).await?;
        let cell = |name: &str| rows.first()?.get(name)?.as_deref();
        let system = || {
            Some(System {
                source: Source {
                    system: cell("systemid")?.parse().ok()?,
                    timeline: cell("timeline")?.parse().ok()?,
                },
                flushed_lsn: cell("xlogpos")?.parse().ok()?,
            })
        };
        system().ok_or(WalsenderError::Answer { command: NAME })
    }

    /// Begins the stream of `slot` (an identifier in quotes) at `start_lsn`.
    pub(crate) async fn start(
        mut self,
        slot: &str,
        start_lsn: Lsn,
        options: &str,
    ) -> Result<Walsender, WalsenderError> {
        const NAME: &str = "START_REPLICATION";
        let text = format!("{NAME} SLOT {slot} LOGICAL {start_lsn} ({options})");
        let mut bytes = BytesMut::new();
        frontend::query(&text, &mut bytes).map_err(FrameError::Io)?;
        self.frames.send(&bytes).await?;
        loop {
            self.frames.fill().await?;
            let Some(frame) = self.frames.take()? else { continue };
            match frame.tag {
                b'W' => {
                    self.frames.expect_rows();
                    return Ok(Walsender { frames: self.frames });
                }
                b'E' => {
                    let error = ServerError::decode(frame.body);
                    return Err(WalsenderError::Command { command: NAME, error });
                }
                b'N' | b'S' => {}
                _ => return Err(WalsenderError::Answer { command: NAME }),
            }
        }
    }
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands").finish_non_exhaustive()
    }
}

/// A connection that is a stream of the log.
pub struct Walsender {
    frames: Frames,
}

/// What comes over the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// One message of the output plugin. Large values of its rows are left out.
    Data {
        /// The message.
        payload: &'a [u8],
    },
    /// How far the server is.
    Keepalive {
        /// Everything before this position was sent.
        wal_end: Lsn,
        /// Whether the server wants a status at once.
        reply: bool,
    },
    /// A notice, or a parameter that changed: nothing to do.
    Notice,
}

/// What the server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Up to where the log was received.
    pub write: Lsn,
    /// Up to where it need not be kept; zero: no change.
    pub flush: Lsn,
    /// Whether the server is to send a keepalive at once.
    pub reply: bool,
}

impl Walsender {
    /// Waits until [`Walsender::take`] has something to give. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`WalsenderError::Frames`] when the connection is lost.
    pub async fn fill(&mut self) -> Result<(), WalsenderError> {
        Ok(self.frames.fill().await?)
    }

    /// The next thing that has come, without waiting.
    ///
    /// # Errors
    ///
    /// [`WalsenderError`] when the stream has ended, or is none.
    pub fn take(&mut self) -> Result<Option<Frame<'_>>, WalsenderError> {
        match self.frames.take()? {
            None => Ok(None),
            Some(frame) => match frame.tag {
                b'd' => copy_data(frame.body).map(Some),
                b'E' => Err(WalsenderError::Stream(ServerError::decode(frame.body))),
                b'c' | b'C' | b'Z' => Err(WalsenderError::Ended),
                b'N' | b'S' => Ok(Some(Frame::Notice)),
                _ => Err(WalsenderError::Answer { command: "START_REPLICATION" }),
            },
        }
    }

    /// When something came last, be it a piece of a large row; absent before anything has.
    #[must_use]
    pub fn heard_at(&self) -> Option<Instant> {
        self.frames.heard_at()
    }

    /// Tells the server where we are: all of `statuses`, in one write.
    ///
    /// # Errors
    ///
    /// [`WalsenderError::Frames`] when the connection is lost.
    pub async fn send(&mut self, statuses: &[Status]) -> Result<(), WalsenderError> {
        let mut bytes = BytesMut::with_capacity(39 * statuses.len());
        for status in statuses {
            status.encode(&mut bytes);
        }
        Ok(self.frames.send(&bytes).await?)
    }

    /// Ends the stream and closes the connection; what the server still sends is dropped.
    ///
    /// # Errors
    ///
    /// [`WalsenderError`] when the connection is lost before its end.
    pub async fn end(mut self) -> Result<(), WalsenderError> {
        let mut bytes = BytesMut::new();
        frontend::copy_done(&mut bytes);
        self.frames.send(&bytes).await?;
        loop {
            self.frames.fill().await?;
            while let Some(frame) = self.frames.take()? {
                match frame.tag {
                    b'E' => return Err(WalsenderError::Stream(ServerError::decode(frame.body))),
                    b'Z' => {
                        bytes.clear();
                        frontend::terminate(&mut bytes);
                        return Ok(self.frames.send(&bytes).await?);
                    }
                    _ => {}
                }
            }
        }
    }
}

impl std::fmt::Debug for Walsender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walsender").finish_non_exhaustive()
    }
}

impl Status {
    /// Its frame. The time is left at 0: the server only shows it.
    fn encode(self, out: &mut BytesMut) {
        out.put_u8(b'd');
        out.put_u32(38);
        out.put_u8(b'r');
        out.put_u64(self.write.bytes());
        out.put_u64(self.flush.bytes());
        out.put_u64(self.flush.bytes());
        out.put_i64(0);
        out.put_u8(u8::from(self.reply));
    }
}

impl ServerError {
    /// Whether the server was asked for more than the gigabyte that one value or message may have.
    pub(crate) fn is_too_large(&self) -> bool {
        // An internal error, which is not translated; and a string buffer's limit.
        let internal =
            self.code == "XX000" && self.message.contains("invalid memory alloc request");
        internal || self.code == "54000"
    }

    /// Reads an `ErrorResponse`; what is malformed in it is left out.
    pub(crate) fn decode(body: &[u8]) -> ServerError {
        let (mut code, mut message, mut detail) = (String::new(), String::new(), None);
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                b'C' => code = text,
                b'M' => message = text,
                b'D' => detail = Some(text),
                _ => {}
            }
        }
        ServerError { code, message, detail }
    }
}

fn copy_data(body: &[u8]) -> Result<Frame<'_>, WalsenderError> {
    let malformed = WalsenderError::Answer { command: "START_REPLICATION" };
    match body.split_first() {
        Some((b'w', rest)) => match rest.split_at_checked(24) {
            Some((_, payload)) => Ok(Frame::Data { payload }),
            None => Err(malformed),
        },
        Some((b'k', rest)) => match rest.split_first_chunk::<8>() {
            Some((wal_end, rest)) if rest.len() == 9 => Ok(Frame::Keepalive {
                wal_end: Lsn::new(u64::from_be_bytes(*wal_end)),
                reply: rest.last() == Some(&1),
            }),
            _ => Err(malformed),
        },
        _ => Err(malformed),
    }
}

/// The names in a `RowDescription`.
fn column_names(body: &[u8]) -> Option<Vec<String>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut names = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (name, after) = rest.split_at_checked(end)?;
        names.push(String::from_utf8_lossy(name).into_owned());
        rest = after.get(19..)?;
    }
    Some(names)
}

/// The cells of a `DataRow`.
fn cells(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut cells = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            cells.push(None);
            rest = after;
            continue;
        };
        let (cell, after) = after.split_at_checked(length)?;
        cells.push(Some(String::from_utf8_lossy(cell).into_owned()));
        rest = after;
    }
    Some(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_no_server_can_send_is_told_from_other_errors() {
        let error = |code: &str, message: &str| ServerError {
            code: code.to_owned(),
            message: message.to_owned(),
            detail: None,
        };
        assert!(error("XX000", "invalid memory alloc request size 1080000003").is_too_large());
        assert!(error("54000", "out of memory").is_too_large());
        assert!(!error("53200", "out of memory").is_too_large());
        assert!(!error("XX000", "could not open relation").is_too_large());
    }
    use crate::ingest::frames::Reading;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::io::DuplexStream;

    fn walsender() -> (Walsender, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let reading = Reading { pause: Duration::ZERO, ..Reading::default() };
        (Walsender { frames: Frames::new(Box::new(ours), reading) }, theirs)
    }

    fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn data_and_keepalives_are_told_apart() {
        let (mut walsender, mut server) = walsender();
        let mut data = b"w".to_vec();
        data.extend([0; 24]);
        data.extend(b"B...");
        server.write_all(&framed(b'd', &data)).await.unwrap();
        let keepalive = b"k\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x01";
        server.write_all(&framed(b'd', keepalive)).await.unwrap();
        walsender.fill().await.unwrap();
        assert_eq!(walsender.take().unwrap(), Some(Frame::Data { payload: b"B..." }));
        let expected = Frame::Keepalive { wal_end: Lsn::new(16), reply: true };
        assert_eq!(walsender.take().unwrap(), Some(expected));
        assert_eq!(walsender.take().unwrap(), None);
    }

    #[tokio::test]
    async fn an_error_in_the_stream_ends_it() {
        let (mut walsender, mut server) = walsender();
        let error = framed(b'E', b"SERROR\0C42704\0Mpublication \"x\" does not exist\0\0");
        server.write_all(&error).await.unwrap();
        walsender.fill().await.unwrap();
        let Err(WalsenderError::Stream(error)) = walsender.take() else { panic!() };
        assert_eq!(error.code, "42704");
        let expected = "publication \"x\" does not exist (SQLSTATE 42704)";
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn a_status_is_what_the_documentation_says() {
        let (mut walsender, mut server) = walsender();
        let status = Status { write: Lsn::new(5), flush: Lsn::new(3), reply: true };
        walsender.send(&[status]).await.unwrap();
        let mut bytes = [0; 39];
        server.read_exact(&mut bytes).await.unwrap();
        let expected = b"d\0\0\0\x26r\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x03\
                         \0\0\0\0\0\0\0\0\x01";
        assert_eq!(&bytes, expected);
    }

    #[tokio::test]
    async fn the_end_waits_for_the_servers_end() {
        let (walsender, mut server) = walsender();
        let mut answer = framed(b'd', b"k");
        answer.extend(framed(b'c', b""));
        answer.extend(framed(b'C', b"COPY 0\0"));
        answer.extend(framed(b'Z', b"I"));
        server.write_all(&answer).await.unwrap();
        walsender.end().await.unwrap();
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"c\0\0\0\x04X\0\0\0\x04");
    }

    #[test]
    fn a_row_is_read_by_its_names() {
        let description = b"\0\x02a\0aaaabbccccddeeeefgb\0aaaabbccccddeeeefg";
        assert_eq!(column_names(description), Some(vec!["a".into(), "b".into()]));
        assert_eq!(column_names(&description[..30]), None, "a cut description is not taken");
        assert_eq!(cells(b"\0\x02\0\0\0\x01x\xff\xff\xff\xff"), Some(vec![Some("x".into()), None]));
    }
}

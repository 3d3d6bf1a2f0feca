//! A blocking Postgres client for simple queries, so that the writer costs the machine little.

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::Fallible;

/// A query that takes longer than this has hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// One connection over a unix socket, without a password.
#[derive(Debug)]
pub(crate) struct Sql {
    stream: UnixStream,
    output: BytesMut,
    input: BytesMut,
    chunk: Vec<u8>,
}

impl Sql {
    /// Connects to the server whose socket is `socket` (the file).
    pub(crate) fn connect(socket: &Path, user: &str, database: &str) -> Fallible<Sql> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut sql = Sql {
            stream,
            output: BytesMut::new(),
            input: BytesMut::new(),
            chunk: vec![0; 16 * 1024],
        };
        let parameters = [("user", user), ("database", database), ("client_min_messages", "error")];
        frontend::startup_message(parameters, &mut sql.output)?;
        sql.flush()?;
        sql.rows_until_ready()?;
        Ok(sql)
    }

    /// Runs `query` and waits for its end.
    pub(crate) fn run(&mut self, query: &str) -> Fallible<()> {
        self.first_column(query).map(drop)
    }

    /// Runs `query`; the text of the first column of each of its rows.
    pub(crate) fn first_column(&mut self, query: &str) -> Fallible<Vec<String>> {
        frontend::query(query, &mut self.output)?;
        self.flush()?;
        self.rows_until_ready()
    }

    fn flush(&mut self) -> Fallible<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    fn rows_until_ready(&mut self) -> Fallible<Vec<String>> {
        let mut rows = Vec::new();
        let mut failed: Option<String> = None;
        loop {
            while let Some((tag, body)) = take_message(&mut self.input) {
                match tag {
                    b'Z' => return failed.map_or(Ok(rows), |text| Err(text.into())),
                    b'E' => failed = Some(message_of(&body)),
                    b'D' => rows.push(first_of(&body)),
                    _ => {}
                }
            }
            let read = self.stream.read(&mut self.chunk)?;
            if read == 0 {
                return Err(failed.unwrap_or_else(|| "the server hung up".to_owned()).into());
            }
            self.input.extend_from_slice(self.chunk.get(..read).unwrap_or_default());
        }
    }
}

/// The first whole message: its tag and what follows its length.
fn take_message(input: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let (&[tag, length @ ..], _) = input.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    if input.len() < length + 1 {
        return None;
    }
    let mut message = input.split_to(length + 1);
    Some((tag, message.split_off(5)))
}

/// The text of an error: the field `M`.
fn message_of(body: &[u8]) -> String {
    let mut fields = body.split(|byte| *byte == 0);
    let text = fields.find_map(|field| field.strip_prefix(b"M"));
    String::from_utf8_lossy(text.unwrap_or(b"an error without a message")).into_owned()
}

/// The text of a row's first column; empty when it is null.
fn first_of(body: &[u8]) -> String {
    let text = body.get(2..).and_then(|columns| columns.split_first_chunk::<4>());
    let text = text
        .and_then(|(length, rest)| rest.get(..usize::try_from(i32::from_be_bytes(*length)).ok()?));
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

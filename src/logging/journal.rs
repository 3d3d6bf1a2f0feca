//! The log as entries of journald, with their fields.
//!
//! ```text
//! MESSAGE=stream interrupted error="…"   PRIORITY=4   MESSAGE_ID=…   ERROR=…   LSN=…   CODE=…
//! ```
//!
//! The message has the fields in it, too: `journalctl` shows nothing else. Format:
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>, one datagram for each entry.
//!
//! # Invariants
//!
//! - A journald that does not read holds a thread up for [`PATIENCE`] at an entry and no longer.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::Layer;

use crate::logging::fields::Fields;
use crate::logging::notice;

/// Where journald reads.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// How long an entry may wait for journald; then it is lost.
const PATIENCE: Duration = Duration::from_millis(50);
/// Bytes of one value. An entry has to fit a datagram (some 200 KB).
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// Writes entries.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// Finds out whether journald reads at a path.
    pub(super) fn open(path: &Path) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        // It discards an entry without fields.
        socket.send_to(&[], path)?;
        Ok(Journal { socket, path: path.to_owned() })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        // There is nobody to be told that the log can't be written.
        let _lost = self.socket.send_to(&entry(event), &self.path);
    }
}

/// An event as journald wants it.
fn entry(event: &Event<'_>) -> Vec<u8> {
    let (fields, metadata) = (Fields::of(event), event.metadata());
    let id = fields.code().and_then(notice::id_of);
    // From syslog(3). What an operator looks for is more than information.
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO if id.is_some() => "5",
        Level::INFO => "6",
        _ => "7",
    };
    let mut entry = Vec::with_capacity(512);
    put(&mut entry, "MESSAGE", &fields.line());
    put(&mut entry, "PRIORITY", priority);
    put(&mut entry, "SYSLOG_IDENTIFIER", "walcast");
    put(&mut entry, "TARGET", metadata.target());
    if let Some(id) = id {
        put(&mut entry, "MESSAGE_ID", id);
    }
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        put(&mut entry, "CODE_FILE", file);
        put(&mut entry, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &fields.others {
        let name = name.replace('.', "_").to_ascii_uppercase();
        match value {
            Value::String(text) => put(&mut entry, &name, text),
            other => put(&mut entry, &name, &other.to_string()),
        }
    }
    entry
}

/// Adds a field. A value of several lines is written with its length.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let end = value.floor_char_boundary(VALUE_BYTES_MAX);
    let value = value.get(..end).unwrap_or_default();
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        // A usize fits into it on every machine there is.
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        entry.extend_from_slice(&length.to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What journald would have read.
    fn entries(log: impl FnOnce()) -> Vec<String> {
        let folder = std::env::temp_dir().join(format!("walcast-journal-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{:?}", std::thread::current().id()));
        let journald = UnixDatagram::bind(&path).unwrap();
        let layer = Journal::open(&path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        journald.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 256 * 1024];
        let mut entries = Vec::new();
        while let Ok(length) = journald.recv(&mut buffer) {
            entries.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        std::fs::remove_file(path).unwrap();
        assert_eq!(entries.remove(0), "", "the entry that asks whether somebody is there");
        entries
    }

    fn has(entry: &str, line: &str) {
        assert!(entry.lines().any(|it| it == line), "no {line} in\n{entry}");
    }

    #[test]
    fn an_entry_has_its_fields_and_shows_them_in_its_message() {
        let entries = entries(|| {
            tracing::info!(code = notice::SLOT_CREATED, slot = "walcast", lsn = %"0/16", "made");
            tracing::warn!(clients = 3, "some");
        });
        let [made, some] = &*entries else { panic!("{entries:?}") };
        has(made, "MESSAGE=made code=\"slot_created\" slot=\"walcast\" lsn=\"0/16\"");
        has(made, &format!("MESSAGE_ID={}", notice::id_of("slot_created").unwrap()));
        for line in ["PRIORITY=5", "CODE=slot_created", "SLOT=walcast", "LSN=0/16"] {
            has(made, line);
        }
        has(some, "CLIENTS=3");
        has(some, "PRIORITY=4");
        assert!(!some.contains("MESSAGE_ID"), "{some}");
    }

    #[test]
    fn a_value_of_several_lines_comes_with_its_length_and_a_long_one_is_cut() {
        let entries = entries(|| {
            tracing::info!(text = "a\nb", long = "ä".repeat(20_000), "x");
        });
        let [entry] = &*entries else { panic!("{entries:?}") };
        assert!(entry.contains("TEXT\n\u{3}\0\0\0\0\0\0\0a\nb\n"), "{entry}");
        has(entry, &format!("LONG={}", "ä".repeat(VALUE_BYTES_MAX / 2)));
    }

    #[test]
    fn a_journald_that_is_not_there_is_an_error() {
        let error = Journal::open(Path::new("/nowhere/socket")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

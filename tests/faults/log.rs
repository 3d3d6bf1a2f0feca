//! What a client saw, in its order: written by the clients, read by the checker.

use std::sync::Mutex;

use tokio::time::Instant;

/// One thing that a client did or saw.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    pub(crate) seen: Seen,
}

#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// A connection was made, over a transport.
    Connected(&'static str),
    /// A subscription was asked for, from a cursor or anew.
    Asked { watch: usize, since: Option<String> },
    /// A frame came.
    Frame(Box<str>),
    /// The connection ended; why, as far as the client can know.
    Lost(String),
}

/// One client's log.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<Entry>>);

impl Log {
    /// Notes something that happened now.
    pub(crate) fn note(&self, seen: Seen) {
        self.0.lock().unwrap().push(Entry { at: Instant::now(), seen });
    }

    /// Everything.
    pub(crate) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The log as a person reads it: what happened when, in seconds since the beginning.
pub(crate) fn shown(entries: &[Entry], beginning: Instant) -> String {
    let mut text = String::new();
    for Entry { at, seen } in entries {
        let at = at.duration_since(beginning).as_secs_f64();
        let line = match seen {
            Seen::Connected(transport) => format!("connected: {transport}"),
            Seen::Asked { watch, since } => format!("asked for {watch} since {since:?}"),
            Seen::Frame(text) => text.to_string(),
            Seen::Lost(why) => format!("lost: {why}"),
        };
        text.push_str(&format!("{at:10.4} {line}\n"));
    }
    text
}

//! What a throttled subscription may see: of each row the newest, not all of them. So its frames
//! are no run of what was due. Each must be one that was due, those of a row must come in order on a
//! connection, and the last of each row must come.

use std::collections::HashMap;

use crate::due::Due;
use crate::due::key_of;
use crate::truth;
use crate::truth::Truth;

/// One throttled subscription.
#[derive(Debug, Default)]
pub(crate) struct Throttled {
    /// What was due, by the time of its commit.
    by_time: HashMap<String, Vec<usize>>,
    /// The newest of each row that came on this connection.
    newest: HashMap<String, usize>,
    /// The newest of each row that came at all.
    last: HashMap<String, usize>,
    /// Whether the client polls.
    polls: bool,
}

impl Throttled {
    pub(crate) fn new(truth: &Truth, due: &[Due]) -> Throttled {
        let mut by_time: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, due) in due.iter().enumerate() {
            let at = &truth.transactions[due.transaction].committed_at;
            by_time.entry(at.clone()).or_default().push(place);
        }
        Throttled { by_time, ..Throttled::default() }
    }

    /// Where a frame of a commit's time may be due.
    pub(crate) fn places(&self, committed_at: &str) -> &[usize] {
        self.by_time.get(committed_at).map_or(&[], Vec::as_slice)
    }

    /// Another connection, over a transport.
    pub(crate) fn connect(&mut self, transport: &str) {
        self.polls = transport == "changes";
    }

    /// The client goes on, or begins anew: what had come may come once more.
    pub(crate) fn ask(&mut self) {
        self.newest.clear();
    }

    /// Takes what was due at a place; `false` where it, or something newer of the row, had come.
    pub(crate) fn take(&mut self, truth: &Truth, due: &[Due], place: usize) -> bool {
        let Some(key) = key(truth, due[place]) else {
            self.newest.clear();
            return true;
        };
        let last = self.last.entry(key.clone()).or_default();
        *last = place.max(*last);
        let newest = self.newest.insert(key, place);
        newest.is_none_or(|newest| newest < place || self.polls)
    }

    /// The rows whose last change did not come, of those that changed from a place on.
    pub(crate) fn missing(&self, truth: &Truth, due: &[Due], from: usize) -> Vec<usize> {
        let mut wanted: HashMap<String, usize> = HashMap::new();
        for (place, it) in due.iter().enumerate().skip(from) {
            match key(truth, *it) {
                // Whether a last row came is asked elsewhere.
                Some(key) if key.starts_with('-') => {}
                Some(key) => _ = wanted.insert(key, place),
                // What was held back is void.
                None => wanted.clear(),
            }
        }
        let came = |key: &String| self.last.get(key).copied();
        let missing = wanted.into_iter().filter(|(key, place)| came(key) != Some(*place));
        missing.map(|(_, place)| place).collect()
    }
}

/// The row that a change is about; none for all of them.
fn key(truth: &Truth, due: Due) -> Option<String> {
    let change = &truth.transactions[due.transaction].changes[due.change];
    let row = change.new.as_ref().or(change.old.as_ref())?;
    truth::text(row, key_of(&change.table))
}

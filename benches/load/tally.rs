//! What arrived in one stage, and whether it was what should have arrived.

use crate::frame::Row;
use crate::histogram::Histogram;

/// Which rows a connection should get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Every row.
    Everything,
    /// Each connection those whose `seq` leaves its own key when divided by `keys`.
    Own { keys: u64 },
}

impl Wanted {
    /// The key of connection `number`.
    pub(crate) fn key(self, number: usize) -> u64 {
        let number = u64::try_from(number).expect("64 bits");
        match self {
            Wanted::Everything => number,
            Wanted::Own { keys } => number % keys,
        }
    }

    /// How many of the `rows` rows from `first_seq` on belong to the connection with `key`.
    pub(crate) fn rows_of(self, key: u64, first_seq: u64, rows: u64) -> u64 {
        match self {
            Wanted::Everything => rows,
            Wanted::Own { keys } => {
                let below = |end: u64| (end + keys - 1 - key) / keys;
                below(first_seq + rows) - below(first_seq)
            }
        }
    }

    fn belongs(self, key: u64, seq: u64) -> bool {
        match self {
            Wanted::Everything => true,
            Wanted::Own { keys } => seq % keys == key,
        }
    }

    /// The distance between two neighbouring rows of one connection.
    fn stride(self) -> u64 {
        match self {
            Wanted::Everything => 1,
            Wanted::Own { keys } => keys,
        }
    }
}

/// The rows one connection has had in this stage: the latest, and which of the 64 before it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    latest: u64,
    window: u64,
    distinct: u64,
}

/// The sums over the connections of one client thread.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) latency: Histogram,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    /// Rows of another connection's key.
    pub(crate) foreign: u64,
    /// Rows that connections which were told to read slowly got; they are not in `latency`.
    pub(crate) slow_rows: u64,
    /// Key and distinct rows of every connection; filled in when the stage ends.
    pub(crate) connections: Vec<(u64, u64)>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            latency: Histogram::new(),
            rows: 0,
            bytes: 0,
            duplicates: 0,
            out_of_order: 0,
            foreign: 0,
            slow_rows: 0,
            connections: Vec::new(),
        }
    }

    /// Counts one row that came in on a connection at `now_us`.
    pub(crate) fn count(&mut self, wanted: Wanted, reader: &mut Reader, row: Row, now_us: u64) {
        if row.seq < reader.first_seq {
            return; // of a stage that was given up
        }
        self.rows += 1;
        if reader.slow {
            self.slow_rows += 1;
        } else {
            self.latency.add(now_us.saturating_sub(row.sent_at_us));
        }
        if !wanted.belongs(reader.key, row.seq) {
            self.foreign += 1;
            return;
        }
        let seen = &mut reader.seen;
        if row.seq > seen.latest {
            let passed = (row.seq - seen.latest) / wanted.stride();
            seen.window =
                u32::try_from(passed).ok().and_then(|by| seen.window.checked_shl(by)).unwrap_or(0)
                    | 1;
            seen.latest = row.seq;
            seen.distinct += 1;
            return;
        }
        let back = u32::try_from((seen.latest - row.seq) / wanted.stride()).unwrap_or(u32::MAX);
        let bit = 1_u64.checked_shl(back).unwrap_or(0);
        if seen.window & bit == 0 && bit != 0 {
            seen.window |= bit;
            seen.distinct += 1;
            self.out_of_order += 1;
        } else {
            self.duplicates += 1;
        }
    }

    /// Adds another thread's sums.
    pub(crate) fn merge(&mut self, other: Tally) {
        self.latency.merge(&other.latency);
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.foreign += other.foreign;
        self.slow_rows += other.slow_rows;
        self.connections.extend(other.connections);
    }
}

/// The part of a connection that the tally knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) key: u64,
    pub(crate) slow: bool,
    /// The first row of this stage.
    pub(crate) first_seq: u64,
    seen: Seen,
}

impl Reader {
    pub(crate) fn new(key: u64, slow: bool) -> Reader {
        Reader { key, slow, first_seq: 1, seen: Seen::default() }
    }

    /// Forgets what was seen; rows before `first_seq` no longer count.
    pub(crate) fn begin(&mut self, first_seq: u64) {
        self.first_seq = first_seq;
        self.seen = Seen::default();
    }

    /// How many different rows came in this stage.
    pub(crate) fn distinct(&self) -> u64 {
        self.seen.distinct
    }
}

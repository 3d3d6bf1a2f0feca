//! What may be confirmed to Postgres, in one place.
//!
//! The slot's confirmed position decides what Postgres keeps: confirmed too early, and a crash
//! loses changes; never confirmed, and the log fills the disk. It is held back on purpose: what was
//! routed in the last moments stays in the log, so that after a restart the ring is read again from
//! there and clients' cursors still work.
//!
//! ```text
//!   confirmed            routed       head    received
//!  ─────┼──────── window ───┼──────────┼─────────┼───▶ log
//!       H                    in flight
//! ```
//!
//! # Invariants
//!
//! - A position is confirmed only when every shard has routed everything up to it.
//!   (Test `what_is_not_routed_is_not_confirmed`.)
//! - Nothing is confirmed beyond a transaction of which only parts were handed over.
//! - A keepalive's position counts only when no transaction is open.
//! - The confirmed position never goes back.
//!
//! # Why two status messages
//!
//! A server that shuts down waits until the client has flushed everything. A flushed position that
//! is held back would make it wait for ever. A status with a flushed position of 0 means "not
//! known", and the server then goes by the written position. So the held-back position is sent, and
//! at once after it a status without one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::change::lsn::Lsn;

/// How far the confirmed position is held back: a transaction leaves the window when it is older
/// than `age` or further back than `bytes`, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes of log.
    pub bytes: u64,
    /// Time since arrival.
    pub age: Duration,
}

impl Default for Window {
    /// 64 MiB or 60 s: read again in about a second after a restart, and longer than a restart
    /// takes.
    fn default() -> Window {
        Window { bytes: 64 << 20, age: Duration::from_mins(1) }
    }
}

/// Positions closer than this in time and in bytes share a mark, so that marks are few.
const MARK_AGE: Duration = Duration::from_millis(50);
const MARK_BYTES: u64 = 256 << 10;

/// The positions of one source.
#[derive(Debug)]
pub struct Progress {
    window: Window,
    received: Lsn,
    head: Lsn,
    confirmed: Lsn,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// How many were handed over, of this source and of those before it.
    handed_over: u64,
    routed: Lsn,
    marks: VecDeque<Mark>,
}

/// A transaction, or a part of one, that not every shard has routed.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    end_lsn: Option<Lsn>,
    bytes: usize,
}

/// An end of a transaction, or of several that came close together.
#[derive(Clone, Copy, Debug)]
struct Mark {
    first_at: Instant,
    first_lsn: Lsn,
    at: Instant,
    end_lsn: Lsn,
}

impl Progress {
    /// Begins where the slot was confirmed.
    #[must_use]
    pub const fn new(window: Window, confirmed: Lsn) -> Progress {
        Progress {
            window,
            received: confirmed,
            head: confirmed,
            confirmed,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            handed_over: 0,
            routed: confirmed,
            marks: VecDeque::new(),
        }
    }

    /// Holds back so much from now on. What was confirmed stays so.
    pub const fn set_window(&mut self, window: Window) {
        self.window = window;
    }

    /// Begins anew with another source. What is still in flight counts no more.
    pub fn begin(&mut self, confirmed: Lsn) {
        let handed_over = self.handed_over;
        *self = Progress { handed_over, ..Progress::new(self.window, confirmed) };
    }

    /// Up to where the log was received: what a status reports as written.
    #[must_use]
    pub const fn received(&self) -> Lsn {
        self.received
    }

    /// Up to where everything was handed to the shards: where a new connection begins.
    #[must_use]
    pub const fn head(&self) -> Lsn {
        self.head
    }

    /// The position last given to be confirmed.
    #[must_use]
    pub const fn confirmed(&self) -> Lsn {
        self.confirmed
    }

    /// Up to where every shard has routed everything.
    #[must_use]
    pub const fn routed(&self) -> Lsn {
        self.routed
    }

    /// The memory of the transactions that were handed over and are not yet routed by every shard,
    /// in bytes.
    #[must_use]
    pub const fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Notes that the stream has come to `lsn`, in a transaction or between two.
    pub fn receive(&mut self, lsn: Lsn) {
        self.received = self.received.max(lsn);
    }

    /// Notes that the transaction ending at `end_lsn`, which holds `bytes`, was handed over; or a
    /// part of one, which has no end.
    pub fn hand_over(&mut self, end_lsn: Option<Lsn>, bytes: usize, now: Instant) {
        self.in_flight.push_back(InFlight { end_lsn, bytes });
        self.in_flight_bytes += bytes;
        self.handed_over += 1;
        if let Some(end_lsn) = end_lsn {
            self.reach(end_lsn, now);
        }
    }

    /// Notes that nothing more ended up to `lsn`. Only to be called while no transaction is open.
    pub fn idle(&mut self, lsn: Lsn, now: Instant) {
        if lsn > self.head {
            self.reach(lsn, now);
        }
        self.settle();
    }

    /// Notes how many of what was handed over every shard has routed; absent: all of it.
    pub fn route(&mut self, least: Option<u64>) {
        let behind = self.handed_over.saturating_sub(least.unwrap_or(self.handed_over));
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        while self.in_flight.len() > behind
            && let Some(InFlight { end_lsn, bytes }) = self.in_flight.pop_front()
        {
            self.in_flight_bytes -= bytes;
            self.routed = self.routed.max(end_lsn.unwrap_or(Lsn::ZERO));
        }
        self.settle();
    }

    /// The position to confirm now, where it is further than the last one.
    pub fn confirm(&mut self, now: Instant) -> Option<Lsn> {
        let before = self.confirmed;
        while let Some(mark) = self.marks.front() {
            let aged = now.saturating_duration_since(mark.at) >= self.window.age;
            let passed = self.head.bytes_since(mark.end_lsn) > self.window.bytes;
            if mark.end_lsn > self.routed || !(aged || passed) {
                break;
            }
            self.confirmed = self.confirmed.max(mark.end_lsn);
            self.marks.pop_front();
        }
        (self.confirmed > before).then_some(self.confirmed)
    }

    fn reach(&mut self, lsn: Lsn, now: Instant) {
        self.receive(lsn);
        self.head = self.head.max(lsn);
        if let Some(mark) = self.marks.back_mut()
            && now.saturating_duration_since(mark.first_at) < MARK_AGE
            && lsn.bytes_since(mark.first_lsn) < MARK_BYTES
        {
            mark.at = now;
            mark.end_lsn = lsn;
            return;
        }
        self.marks.push_back(Mark { first_at: now, first_lsn: lsn, at: now, end_lsn: lsn });
    }

    /// With nothing in flight, everything up to the head is routed.
    fn settle(&mut self) {
        if self.in_flight.is_empty() {
            self.routed = self.head;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: u64 = 1 << 10;
    const WINDOW: Window = Window { bytes: 1024 * KB, age: Duration::from_secs(60) };

    fn at(kilobytes: u64) -> Lsn {
        Lsn::new(kilobytes * KB)
    }

    fn seconds(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_not_routed_is_not_confirmed() {
        let start = Instant::now();
        let mut progress = Progress::new(WINDOW, at(100));
        progress.hand_over(Some(at(200)), 10, start);
        assert_eq!(progress.confirm(seconds(start, 100)), None);
        assert_eq!(progress.in_flight_bytes(), 10);
        progress.route(Some(0));
        assert_eq!(progress.confirm(seconds(start, 100)), None);
        progress.route(Some(1));
        assert_eq!(progress.confirm(seconds(start, 100)), Some(at(200)));
        assert_eq!(progress.in_flight_bytes(), 0);
    }

    #[test]
    fn a_transaction_leaves_the_window_by_age() {
        let start = Instant::now();
        let mut progress = Progress::new(WINDOW, at(100));
        progress.hand_over(Some(at(200)), 10, start);
        progress.hand_over(Some(at(300)), 10, seconds(start, 30));
        progress.route(Some(2));
        assert_eq!(progress.confirm(seconds(start, 59)), None);
        assert_eq!(progress.confirm(seconds(start, 60)), Some(at(200)));
        assert_eq!(progress.confirm(seconds(start, 60)), None);
        assert_eq!(progress.confirm(seconds(start, 90)), Some(at(300)));
    }

    #[test]
    fn a_transaction_leaves_the_window_by_bytes() {
        let start = Instant::now();
        let mut progress = Progress::new(WINDOW, at(100));
        progress.hand_over(Some(at(200)), 10, start);
        progress.hand_over(Some(at(1224)), 10, start);
        progress.route(Some(2));
        assert_eq!(progress.confirm(start), None);
        progress.hand_over(Some(at(1225)), 10, start);
        progress.route(Some(3));
        assert_eq!(progress.confirm(start), Some(at(200)));
    }

    #[test]
    fn a_quiet_database_is_confirmed_by_its_keepalives() {
        let start = Instant::now();
        let mut progress = Progress::new(WINDOW, at(100));
        progress.idle(at(5000), start);
        assert_eq!(progress.head(), at(5000));
        assert_eq!(progress.confirm(seconds(start, 60)), Some(at(5000)));
    }

    #[test]
    fn a_keepalive_does_not_overtake_what_is_in_flight() {
        let start = Instant::now();
        let mut progress = Progress::new(WINDOW, at(100));
        progress.hand_over(Some(at(200)), 10, start);
        progress.idle(at(5000), start);
        assert_eq!(progress.routed(), at(100));
        assert_eq!(progress.confirm(seconds(start, 60)), None);
        progress.route(Some(1));
        assert_eq!(progress.confirm(seconds(start, 60)), Some(at(5000)));
    }

    #[test]
    fn nothing_is_confirmed_beyond_a_transaction_that_has_not_ended() {
        let start = Instant::now();
        let mut progress = Progress::new(WINDOW, at(100));
        progress.hand_over(Some(at(200)), 10, start);
        progress.hand_over(None, 10, start);
        progress.route(Some(2));
        assert_eq!((progress.in_flight_bytes(), progress.head()), (0, at(200)));
        assert_eq!(progress.confirm(seconds(start, 100)), Some(at(200)));
        progress.hand_over(Some(at(300)), 10, start);
        assert_eq!(progress.confirm(seconds(start, 200)), None);
        progress.route(Some(3));
        assert_eq!(progress.confirm(seconds(start, 200)), Some(at(300)));
    }

    #[test]
    fn what_was_in_flight_before_another_source_is_not_counted() {
        let start = Instant::now();
        let mut progress = Progress::new(WINDOW, at(100));
        progress.hand_over(Some(at(200)), 10, start);
        progress.begin(at(50));
        progress.hand_over(Some(at(60)), 10, start);
        progress.route(Some(1));
        assert_eq!((progress.in_flight_bytes(), progress.routed()), (10, at(50)));
        progress.route(Some(2));
        assert_eq!((progress.in_flight_bytes(), progress.routed()), (0, at(60)));
    }

    #[test]
    fn marks_stay_few() {
        let start = Instant::now();
        let mut progress = Progress::new(WINDOW, at(100));
        for kilobytes in 0..100_000 {
            progress.hand_over(Some(at(200 + kilobytes)), 10, start);
        }
        assert!(progress.marks.len() < 500, "{}", progress.marks.len());
        progress.route(None);
        let confirmed = progress.confirm(start).unwrap();
        let held_back = progress.head().bytes_since(confirmed);
        assert!((WINDOW.bytes..WINDOW.bytes + 2 * MARK_BYTES).contains(&held_back), "{held_back}");
    }
}

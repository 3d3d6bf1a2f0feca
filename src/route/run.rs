//! The loop that drives a shard.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::sleep_until;

use crate::change::cursor::Cursor;
use crate::metrics::health::BEAT_EVERY;
use crate::ring::feed::Feed;
use crate::route::encode::Encode;
use crate::route::encode::Notice;
use crate::route::session::Close;
use crate::route::session::Session;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;

/// How many feeds are taken at once. What came while the last pass ran is the next one, so writes
/// are coalesced exactly as far as the machine is busy, and never by a timer.
const FEEDS_MAX: usize = 4096;
/// Drives a shard until whoever feeds it is gone and everything that came is routed.
///
/// The shard is shared with its sessions' tasks, which run on the same thread, and is never
/// borrowed across an await.
/// `clock` tells when tokens expire.
pub async fn run(
    shard: Rc<RefCell<Shard>>,
    mut feeds: mpsc::Receiver<Feed>,
    clock: impl Fn() -> SystemTime,
) {
    let beat = shard.borrow().stage("shard");
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let wake = Rc::clone(&shard.borrow().wake);
    let Some(mut told) = shard.borrow_mut().told.take() else { return };
    let Some(mut ruled) = shard.borrow_mut().policing.ruled.take() else { return };
    let mut batch = Vec::new();
    let mut fed = true;
    loop {
        let (busy, hungry, matched, alarm) = {
            let shard = shard.borrow();
            let (busy, hungry) = (shard.has_work(), shard.incoming.is_empty());
            (busy, hungry, shard.has_matched_all(), shard.next_alarm())
        };
        if !fed && matched {
            return;
        }
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                beat.tick();
                shard.borrow_mut().tick(clock());
            }
            Some(answer) = told.recv() => shard.borrow_mut().take_answer(answer),
            Some(answer) = ruled.recv() => {
                let mut shard = shard.borrow_mut();
                shard.expire(&clock);
                shard.take_ruled(answer);
            }
            count = feeds.recv_many(&mut batch, FEEDS_MAX), if fed && hungry => {
                fed = count > 0;
                shard.borrow_mut().incoming.extend(batch.drain(..));
            }
            () = wake.notified(), if !busy => {}
            () = reach(alarm), if alarm.is_some() && !busy => {}
            () = yield_now(), if busy => {}
        }
        shard.borrow_mut().expire(&clock);
        work(&shard, &clock).await;
    }
}

/// Waits until an alarm goes off.
async fn reach(alarm: Option<Instant>) {
    match alarm {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// One pass, and some slices for those who are behind.
async fn work(shard: &RefCell<Shard>, clock: impl Fn() -> SystemTime) {
    let steps = shard.borrow().settings.steps;
    shard.borrow_mut().match_pass();
    while !shard.borrow_mut().flush_some() {
        yield_now().await;
    }
    shard.borrow_mut().count_pass(clock);
    for _ in 0..steps.behind_slices {
        if !shard.borrow_mut().read_behind() {
            break;
        }
    }
    for _ in 0..steps.behind_slices {
        if !shard.borrow_mut().ask_some() {
            return;
        }
    }
    shard.borrow().wake.notify_one();
}

impl Shard {
    /// A second has passed: pings and heartbeats for a part of the sessions, an end for those that
    /// are dead, expired or never said who they are.
    pub(crate) fn tick(&mut self, now: SystemTime) {
        self.seconds = self.seconds.saturating_add(1);
        self.settle_parked();
        self.tick_unheld();
        self.tick_snapshots();
        self.tick_asked();
        self.give_up_parked();
        if let Some(ring) = &self.ring {
            self.tail.set(ring.tail().lsn);
        }
        if self.ready.is_empty() {
            self.slices.clear();
        }
        let mut beats = Beats::default();
        for key in self.keys() {
            self.check(key);
            self.look_at_token(key, now);
            let seconds = self.seconds;
            let is_due = |it: &Session| key.place % it.ping_seconds == seconds % it.ping_seconds;
            if self.session(key).is_some_and(is_due) {
                self.beat(key, &mut beats);
            }
        }
        self.find_first_expiry();
        self.count_all();
    }

    fn check(&mut self, key: SessionKey) {
        let (seconds, handshake) = (self.seconds, self.settings.handshake_seconds);
        let Some(session) = self.session_mut(key) else { return };
        if session.close.is_some() {
            return;
        }
        let has_claims = session.claims.is_some();
        session.close = if seconds.saturating_sub(session.heard_at) >= session.silence_seconds {
            Some(Close::Silent)
        } else if !has_claims && seconds.saturating_sub(session.opened_at) >= handshake {
            Some(Close::Unauthenticated)
        } else {
            return;
        };
        self.end_all(key);
        if let Some(session) = self.session_mut(key) {
            session.outbox.wake();
        }
    }

    fn beat(&mut self, key: SessionKey, beats: &mut Beats) {
        let Some(session) = self.session(key) else { return };
        let dialect = session.dialect;
        // Of a subscription that holds nothing back it would be an older cursor than it had.
        let cursor = self.delivered_to(key).filter(|_| !Shard::holds_back(session));
        let frame = beats.frame(dialect, cursor);
        if let Some(session) = self.session_mut(key) {
            session.outbox.push(&frame);
        }
    }
}

/// The frames of one tick, by dialect and by whether they carry the cursor.
#[derive(Default)]
struct Beats {
    made: Vec<(&'static str, bool, Bytes)>,
}

impl Beats {
    fn frame(&mut self, dialect: &'static dyn Encode, cursor: Option<Cursor>) -> Bytes {
        let name = dialect.name();
        let known = self.made.iter().find(|(of, with, _)| *of == name && *with == cursor.is_some());
        if let Some((_, _, frame)) = known {
            return frame.clone();
        }
        let mut frame = Vec::new();
        if let Some(cursor) = cursor {
            dialect.notice(&Notice::Heartbeat { cursor }, &mut frame);
        }
        dialect.ping(&mut frame);
        let frame = Bytes::from(frame);
        self.made.push((name, cursor.is_some(), frame.clone()));
        frame
    }
}

//! One shard: its sessions, their groups, its ring. All of it is owned by one thread, so nothing
//! here is locked and nothing waits.
//!
//! This file holds what it is made of and how sessions come and go. Subscriptions begin and end in `subscribe`, and are
//! judged in `replan`; what a transaction does is in `pass`, what a session that is behind does in
//! `behind`, and the loop that drives both in `run`.
//!
//! # Invariants
//!
//! - A subscription is either a member of its variant (live) or in exactly one reader, parked,
//!   asking or waiting (behind), or paused.
//! - A session has no pending payload while one of its requests is served: what was matched before
//!   a request goes out before its answer.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ask::Asker;
use crate::ask::Told;
use crate::auth::Claims;
use crate::catalog::Catalog;
use crate::change::cursor::Cursor;
use crate::change::cursor::Position;
use crate::change::lsn::Lsn;
use crate::metrics::Metrics;
use crate::metrics::shard::ShardMeter;
use crate::replica;
use crate::ring;
use crate::ring::Ring;
use crate::ring::feed::Feed;
use crate::ring::feed::Routed;
use crate::route::asked::Policing;
use crate::route::budget::Budget;
use crate::route::encode::Encode;
use crate::route::encode::Notice;
use crate::route::groups::Groups;
use crate::route::handover::ASKED_MAX;
use crate::route::handover::Asking;
use crate::route::handover::Waiting;
use crate::route::outbox::Outbox;
use crate::route::outbox::Wire;
use crate::route::parked::Parked;
use crate::route::pass::Pass;
use crate::route::pass::Routing;
use crate::route::plan::Refusal;
use crate::route::policy::Policies;
use crate::route::reduce::AROUND_BODY;
use crate::route::reduce::Writing;
use crate::route::session::Close;
use crate::route::session::Peer;
use crate::route::session::Session;
use crate::route::session::SessionKey;
use crate::route::slices::Slices;

/// What bounds a shard's sessions.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Subscriptions that one session may have at once.
    pub subscriptions_max: usize,
    /// Bytes that may wait for one socket before its session falls behind.
    pub outbox_bytes_max: usize,
    /// Bytes that the frame of one row may have. A larger row is told as a reference.
    pub frame_bytes_max: usize,
    /// Bytes that may wait for the sockets of all shards before nothing more is queued that can wait.
    pub outbox_total_bytes_max: usize,
    /// Seconds that a connection may stay without a valid token.
    pub handshake_seconds: u32,
    /// Seconds between two pings (and heartbeats) to a session.
    pub ping_seconds: u32,
    /// Seconds of silence after which a peer is taken for dead.
    pub silence_seconds: u32,
    /// Seconds that a session whose token is over may take to bring another.
    pub grace_seconds: u32,
    /// Bytes of what Postgres has said of policies that are not decided here; 0: nothing is kept.
    pub memo_bytes_max: usize,
    /// How much of what happened is kept.
    pub ring: ring::Settings,
    /// How much is done at once.
    pub steps: Steps,
}

/// How much is done before somebody else gets a turn.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Bytes of frames after which a pass ends, so that it fits an outbox.
    pub pass_bytes: usize,
    /// Changes after which a pass ends although few or none matched.
    pub pass_changes: usize,
    /// Sessions written to at once.
    pub flush_sessions: usize,
    /// Bytes of frames after which no further session is written to at once.
    pub flush_bytes: usize,
    /// Slices read for sessions that are behind before live ones get their turn again.
    pub behind_slices: usize,
    /// Bytes of frames in one slice.
    pub slice_bytes: usize,
    /// Changes looked at in one slice although few or none matched.
    pub slice_changes: usize,
}

impl Default for Steps {
    /// About a millisecond each; a slice is a quarter of a default outbox, and takes less.
    fn default() -> Steps {
        Steps {
            pass_bytes: 512 << 10,
            pass_changes: 8192,
            flush_sessions: 256,
            flush_bytes: 2 << 20,
            behind_slices: 4,
            slice_bytes: 256 << 10,
            slice_changes: 4096,
        }
    }
}

impl Default for Settings {
    /// A mebibyte covers a second of 3,000 changes of 300 bytes; a dead peer is gone within 45 s,
    /// after it left one ping unanswered.
    fn default() -> Settings {
        Settings {
            subscriptions_max: 100,
            outbox_bytes_max: 1 << 20,
            frame_bytes_max: 1 << 20,
            outbox_total_bytes_max: 256 << 20,
            handshake_seconds: 10,
            ping_seconds: 25,
            silence_seconds: 45,
            grace_seconds: 10,
            memo_bytes_max: 64 << 20,
            ring: ring::Settings::default(),
            steps: Steps::default(),
        }
    }
}

/// What a shard shares with the rest of the daemon.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What the database says of its tables.
    pub catalog: Arc<Catalog>,
    /// What the configuration says of them.
    pub policies: Arc<Policies>,
    /// The tables that policies read.
    pub replicas: Arc<replica::Store>,
    /// Who asks Postgres for rows.
    pub asker: Asker,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where the shard notes what it has routed.
    pub routed: Routed,
}

/// One shard.
#[derive(Debug)]
pub struct Shard {
    pub(crate) settings: Settings,
    pub(crate) shared: Shared,
    /// What this shard counts.
    pub(crate) meter: Arc<ShardMeter>,
    pub(crate) budget: Rc<Budget>,
    pub(crate) sessions: Slab<Session>,
    pub(crate) groups: Groups,
    pub(crate) ring: Option<Ring>,
    /// Where it notes how far it may look back at the tables that policies read.
    pub(crate) tail: replica::Tail,
    pub(crate) incoming: VecDeque<Feed>,
    pub(crate) routing: Option<Routing>,
    pub(crate) pass: Pass,
    /// Up to where everything was matched, but for what was matched of `routing`.
    pub(crate) matched: Position,
    /// Sessions that are behind and whose outbox has room.
    pub(crate) ready: VecDeque<SessionKey>,
    /// Sessions that are behind and wait until rows of other tables are known.
    pub(crate) unheld: Vec<SessionKey>,
    /// Which tables were known when it was last looked.
    pub(crate) replica_epoch: u64,
    /// Subscriptions that wait for the rows that they begin with.
    pub(crate) asking: Vec<Asking>,
    /// Subscriptions that have their rows and wait for the stream.
    pub(crate) waiting: Vec<Waiting>,
    /// Subscriptions whose policies are not decided here.
    pub(crate) policing: Policing,
    /// Questions that were not yet answered, and the number of the last one.
    pub(crate) outstanding: usize,
    pub(crate) tickets: u64,
    /// Where answers come from; taken by the loop.
    pub(crate) told: Option<mpsc::Receiver<Told>>,
    pub(crate) tell: mpsc::Sender<Told>,
    pub(crate) parked: Parked,
    /// What sessions that are behind have in common.
    pub(crate) slices: Slices,
    /// Subscriptions that rest, with the cursors from which they will go on, or none where they will
    /// begin again with a snapshot.
    pub(crate) paused: HashMap<(SessionKey, Rc<str>), Option<Cursor>>,
    /// When throttled subscriptions have something to send, one alarm for each at the most.
    pub(crate) alarms: BTreeSet<(Instant, SessionKey, Rc<str>)>,
    /// Wakes the loop when a session becomes ready.
    pub(crate) wake: Rc<Notify>,
    /// Seconds since the shard began.
    pub(crate) seconds: u32,
    pub(crate) catalog_generation: u64,
    /// Whether the configuration's policies are others than those that subscriptions were judged by.
    pub(crate) judge_again: bool,
    /// When the next token will be over, or earlier.
    pub(crate) first_expiry: Option<SystemTime>,
    generation: u32,
    live: watch::Sender<bool>,
}

impl Shard {
    /// A shard without sessions.
    #[must_use]
    pub fn new(settings: Settings, shared: Shared) -> Shard {
        let catalog_generation = shared.catalog.current().generation;
        let (tell, told) = mpsc::channel(ASKED_MAX);
        let (meter, tail) = (shared.metrics.shard(), shared.replicas.tail());
        let total_max = settings.outbox_total_bytes_max;
        shared.metrics.outbox_budget_bytes.set_len(total_max);
        let budget = Budget::new(Arc::clone(&shared.metrics), Arc::clone(&meter), total_max);
        Shard {
            settings,
            shared,
            meter,
            budget: Rc::new(budget),
            sessions: Slab::new(),
            groups: Groups::default(),
            ring: None,
            tail,
            incoming: VecDeque::new(),
            routing: None,
            pass: Pass::default(),
            matched: Position::after(Lsn::ZERO),
            ready: VecDeque::new(),
            unheld: Vec::new(),
            replica_epoch: 0,
            asking: Vec::new(),
            waiting: Vec::new(),
            policing: Policing::default(),
            outstanding: 0,
            tickets: 0,
            told: Some(told),
            tell,
            parked: Parked::default(),
            slices: Slices::default(),
            paused: HashMap::new(),
            alarms: BTreeSet::new(),
            wake: Rc::new(Notify::new()),
            seconds: 0,
            catalog_generation,
            judge_again: false,
            first_expiry: None,
            generation: 0,
            live: watch::Sender::new(false),
        }
    }

    /// Becomes true when the ring has caught up, so that clients may come.
    #[must_use]
    pub fn live(&self) -> watch::Receiver<bool> {
        self.live.subscribe()
    }

    pub(crate) fn set_live(&mut self) {
        self.live.send_replace(true);
    }

    /// Counts a subscription that was refused.
    pub fn count_refusal(&self, refusal: &Refusal) {
        self.shared.metrics.refused(refusal.code());
    }

    /// Takes a new connection.
    ///
    /// # Panics
    ///
    /// At 2^32 sessions.
    pub fn open(
        &mut self,
        wire: Rc<dyn Wire>,
        claims: Option<Claims>,
        dialect: &'static dyn Encode,
    ) -> SessionKey {
        self.shared.metrics.session_opened();
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.note_expiry(claims.as_ref().and_then(Claims::expires_at));
        let place = self.sessions.insert(Session {
            generation,
            outbox: Outbox::new(wire, self.settings.outbox_bytes_max, Rc::clone(&self.budget)),
            claims,
            dialect,
            subscriptions: Vec::new(),
            readers: Vec::new(),
            pending: smallvec::SmallVec::new(),
            heard_at: self.seconds,
            opened_at: self.seconds,
            ping_seconds: self.settings.ping_seconds.max(1),
            silence_seconds: self.settings.silence_seconds,
            scheduled: false,
            stalled: false,
            answered: false,
            close: None,
            expired: None,
            warned: false,
            delivered: 0,
            peer: Peer::default(),
        });
        let place = u32::try_from(place).expect("a shard has fewer than 2^32 sessions");
        SessionKey { place, generation }
    }

    /// Ends a session and all that it asked for.
    pub fn close(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        let ids: Vec<Rc<str>> =
            session.subscriptions.iter().map(|subscription| Rc::clone(&subscription.id)).collect();
        for id in ids {
            self.end_subscription(key, &id);
        }
        self.sessions.remove(widen(key.place));
        self.shared.metrics.session_closed();
    }

    /// The claims that the session acts under.
    #[must_use]
    pub fn claims(&self, key: SessionKey) -> Option<&Claims> {
        self.session(key)?.claims.as_ref()
    }

    /// Whether the shard wants the session closed, and why.
    #[must_use]
    pub fn closing(&self, key: SessionKey) -> Option<Close> {
        self.session(key)?.close
    }

    /// Whether the session has a subscription.
    #[must_use]
    pub fn is_subscribed(&self, key: SessionKey) -> bool {
        self.session(key).is_some_and(|session| !session.subscriptions.is_empty())
    }

    /// Notes that the peer lives.
    pub fn heard(&mut self, key: SessionKey) {
        let seconds = self.seconds;
        if let Some(session) = self.session_mut(key) {
            session.heard_at = seconds;
        }
    }

    /// Sends an answer of the session's own, after everything that was matched before it.
    pub fn send(&mut self, key: SessionKey, frame: &Bytes) {
        self.flush_session(key);
        if let Some(session) = self.session_mut(key) {
            session.outbox.push_always(frame);
        }
    }

    /// Writes what waits for the session's socket; `true` when nothing waits any more.
    ///
    /// # Errors
    ///
    /// The socket's, where it is of no more use.
    pub fn drain(&mut self, key: SessionKey) -> std::io::Result<bool> {
        let Some(session) = self.session_mut(key) else { return Ok(true) };
        if session.outbox.broken() {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let before = session.outbox.queued();
        let drained = session.outbox.drain()?;
        // A peer that takes what it is sent lives, also while its requests wait.
        if session.outbox.queued() < before {
            self.heard(key);
        }
        self.schedule(key);
        Ok(drained)
    }

    /// Whether the session's requests must wait until it has read the answers to those before.
    #[must_use]
    pub fn is_flooded(&self, key: SessionKey) -> bool {
        self.session(key).is_some_and(|session| session.outbox.is_flooded())
    }

    /// Sends the last frame of a session, after everything that was matched before it.
    pub fn send_last(&mut self, key: SessionKey, frame: &Bytes) {
        self.flush_session(key);
        if let Some(session) = self.session_mut(key) {
            session.outbox.push_last(frame);
        }
    }

    /// The place up to which everything was matched, as a cursor.
    pub(crate) fn here(&self) -> Option<Cursor> {
        let source = self.ring.as_ref()?.source();
        let inside = self.routing.as_ref().and_then(Routing::position);
        Some(Cursor { source, position: inside.unwrap_or(self.matched) })
    }

    pub(crate) fn notify(&mut self, key: SessionKey, notice: &Notice<'_>) {
        if let Some(session) = self.session_mut(key) {
            let mut frame = Vec::new();
            session.dialect.notice(notice, &mut frame);
            session.outbox.push_always(&frame.into());
        }
    }

    pub(crate) fn schedule(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        let waits = !session.readers.is_empty() || session.stalled || session.answered;
        if waits && !session.scheduled && session.outbox.has_room() {
            session.scheduled = true;
            self.ready.push_back(key);
            self.wake.notify_one();
        }
    }

    pub(crate) fn key_of(&self, place: u32) -> Option<SessionKey> {
        let generation = self.sessions.get(widen(place))?.generation;
        Some(SessionKey { place, generation })
    }

    pub(crate) fn session(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(widen(key.place)).filter(|it| it.generation == key.generation)
    }

    pub(crate) fn session_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(widen(key.place)).filter(|it| it.generation == key.generation)
    }
}

/// What encoding a change needs beside it.
pub(crate) fn writing<'a>(settings: &Settings, meter: &'a ShardMeter) -> Writing<'a> {
    let body_bytes_max = settings.frame_bytes_max.saturating_sub(AROUND_BODY);
    Writing { meter, body_bytes_max }
}

pub(crate) fn widen(place: u32) -> usize {
    usize::try_from(place).expect("usize has at least 32 bits")
}

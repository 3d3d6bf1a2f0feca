//! Throttled subscriptions: what they are offered, when it goes out, and up to where they have been
//! delivered.
//!
//! A change is decided and encoded once for the whole group; what is held back is the body, shared
//! by everyone who holds it. Each throttled subscription has a [`Conflation`] of its own. It is
//! offered every frame, by the pass or by the slice that it reads, and releases what is ripe when
//! the pass is over or the alarm that it set goes off. An outbox without room delays the release:
//! meanwhile newer frames take the place of older ones, so a slow reader costs no more than the
//! bound on what is held, and falls behind when that is passed.
//!
//! # Invariants
//!
//! - A frame's cursor lies before everything that its subscription still holds, so a client that
//!   resumes from it misses nothing.
//! - What was decided by a rule or for a shape that is no longer in force is not delivered: it is
//!   dropped, and its changes are read again.
//! - Who reads on from a cursor hears nothing before it has caught up (but for what [`shed`] lets
//!   go), so the newest that is known of a key never comes before something older.
//!
//! [`shed`]: Conflation::shed

use std::rc::Rc;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::change::cursor::Cursor;
use crate::ring::Ring;
use crate::route::conflation::Conflation;
use crate::route::conflation::Offer;
use crate::route::conflation::Tempo;
use crate::route::groups::Attachment;
use crate::route::session::Session;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::shard::widen;
use crate::route::subscription::Throttle;

/// What a throttled subscription has beside the others.
#[derive(Debug)]
pub(crate) struct Paced {
    pub(crate) conflation: Conflation,
    /// The alarm that stands for it in the shard.
    alarm: Option<Instant>,
    /// Whether it was offered something in this pass.
    touched: bool,
    /// Whether it reads on from a cursor, or after a snapshot, and has not caught up.
    pub(crate) catching_up: bool,
    /// Whether it has not been told yet that it has its snapshot: until then no frame has a cursor.
    pub(crate) in_snapshot: bool,
}

impl Paced {
    pub(crate) fn new(throttle: &Throttle) -> Box<Paced> {
        let metres = throttle.movement.as_ref().map(|movement| f64::from(movement.metres));
        let (interval, linger) = (throttle.interval, throttle.linger());
        let conflation = Conflation::new(Tempo { interval, metres, linger });
        Box::new(Paced {
            conflation,
            alarm: None,
            touched: false,
            catching_up: false,
            in_snapshot: false,
        })
    }

    /// Notes that it has read all that there is.
    pub(crate) fn caught_up(&mut self) {
        self.catching_up = false;
        self.conflation.end_rewind();
    }
}

impl Shard {
    /// Offers a frame of this pass to the throttled members of a variant; returns how many frames
    /// it took the place of.
    pub(crate) fn offer_paced(
        sessions: &mut Slab<Session>,
        released: &mut Vec<SessionKey>,
        (attachment, members): (Attachment, &[u32]),
        offer: &Offer,
    ) -> usize {
        let mut replaced = 0;
        for place in members {
            let Some(session) = sessions.get_mut(widen(*place)) else { continue };
            let generation = session.generation;
            let of = session.subscriptions.iter_mut().find(|it| it.attachment == attachment);
            let Some(paced) = of.and_then(|it| it.paced.as_deref_mut()) else { continue };
            replaced += paced.conflation.offer(offer);
            if !std::mem::replace(&mut paced.touched, true) {
                released.push(SessionKey { place: *place, generation });
            }
        }
        replaced
    }

    /// Offers what a session that is behind has read to its throttled subscriptions, and sends what
    /// may go out of it.
    pub(crate) fn offer_read(&mut self, key: SessionKey, offers: &[(Rc<str>, Offer)]) {
        for (id, offer) in offers {
            if let Some(paced) = self.paced_mut(key, id) {
                let replaced = paced.conflation.offer(offer);
                self.meter.conflated(replaced);
            }
        }
        if !offers.is_empty() {
            self.release_held(key);
        }
    }

    /// Notes whose alarm has gone off, so that they are released with this pass.
    pub(crate) fn take_alarms(&mut self) {
        if self.alarms.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some((at, ..)) = self.alarms.first() {
            if *at > now {
                return;
            }
            let Some((_, key, id)) = self.alarms.pop_first() else { return };
            if let Some(paced) = self.paced_mut(key, &id) {
                paced.alarm = None;
                self.pass.released.push(key);
            }
        }
    }

    /// When the next alarm goes off.
    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, ..)| *at)
    }

    /// Sends what is ripe of all throttled subscriptions of a session, as far as there is room.
    pub(crate) fn release_held(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        session.stalled = false;
        let paced = session.subscriptions.iter().filter(|it| it.paced.is_some());
        let ids: SmallVec<[Rc<str>; 2]> = paced.map(|it| Rc::clone(&it.id)).collect();
        let bytes_max = self.settings.outbox_bytes_max / ids.len().max(1);
        let mut full = false;
        for id in &ids {
            full |= self.release_one(key, id, bytes_max);
        }
        if full {
            // It reads on as far as it has matched and written, when there is room again.
            if let Some(place) = self.place() {
                self.fall_behind(key, place);
            }
        }
    }

    /// The same for one of them; `true` where it holds more than `bytes_max` and there is no room.
    fn release_one(&mut self, key: SessionKey, id: &Rc<str>, bytes_max: usize) -> bool {
        let now = Instant::now();
        let Some(source) = self.ring.as_ref().map(Ring::source) else { return false };
        let Some(session) =
            self.sessions.get_mut(widen(key.place)).filter(|it| it.generation == key.generation)
        else {
            return false;
        };
        let of = session.subscriptions.iter_mut().find(|it| it.id == *id);
        let Some((attachment, paced)) =
            of.and_then(|it| Some((it.attachment, it.paced.as_deref_mut()?)))
        else {
            return false;
        };
        let group = self.groups.get(attachment.group);
        let Some(variant) = group.and_then(|it| it.variants.get(attachment.variant)) else {
            return false;
        };
        paced.touched = false;
        let conflation = &mut paced.conflation;
        if !paced.catching_up {
            conflation.ripen(now);
        }
        self.meter.hurried(conflation.shed(bytes_max, now));
        let mut sent = 0;
        while conflation.has_ripe() && session.outbox.has_room() {
            let mut frames = Vec::new();
            while frames.len() < session.outbox.slice_bytes() {
                let Some(body) = conflation.take(now) else { break };
                let cursor = Cursor { source, position: conflation.position() };
                let cursor = Some(cursor).filter(|_| !paced.in_snapshot);
                session.dialect.frame(&variant.head, &body, cursor, &mut frames);
                sent += 1;
            }
            // There is room for a slice, and a frame that is larger goes out alone.
            session.outbox.push_always(&Bytes::from(frames));
        }
        self.meter.delivered(sent);
        let stalled = conflation.has_ripe();
        session.stalled |= stalled;
        let waits = !stalled && !paced.catching_up;
        let alarm = conflation.next_timer().filter(|_| waits);
        let full = stalled && conflation.bytes() > bytes_max;
        session.count_delivered(sent);
        self.set_alarm(key, id, alarm);
        full
    }

    /// Everything that waits of a session's throttled subscriptions goes out, room or not: the
    /// daemon stops.
    pub(crate) fn release_all(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        for subscription in &mut session.subscriptions {
            if let Some(paced) = subscription.paced.as_deref_mut() {
                paced.conflation.hurry();
            }
        }
        self.release_held(key);
    }

    /// Whether a throttled subscription of the session holds something back.
    pub(crate) fn holds_back(session: &Session) -> bool {
        let mut paced = session.subscriptions.iter().filter_map(|it| it.paced.as_deref());
        paced.any(|paced| paced.conflation.holds())
    }

    /// The cursor before everything that a throttled subscription holds back; `None` where it holds
    /// nothing.
    pub(crate) fn held_from(&self, key: SessionKey, id: &str) -> Option<Cursor> {
        let source = self.ring.as_ref()?.source();
        let paced = self.session(key)?.subscription(id)?.paced.as_deref()?;
        let position = paced.conflation.position();
        paced.conflation.holds().then_some(Cursor { source, position })
    }

    /// Drops what a subscription holds back because it may not be delivered any more, and reads
    /// its changes again; `false` where it holds nothing.
    pub(crate) fn read_again(&mut self, key: SessionKey, id: &Rc<str>) -> bool {
        let Some(cursor) = self.held_from(key, id) else { return false };
        let Some(ring) = &self.ring else { return false };
        let found = ring.place_after(cursor);
        let Some(session) = self.session_mut(key) else { return false };
        let reader = session.readers.iter().find(|reader| reader.ids.contains(id));
        let announce = reader.is_some_and(|reader| reader.announce);
        session.forget_reader_of(id);
        self.go_behind(key, id);
        if let Some(paced) = self.paced_mut(key, id) {
            paced.conflation.rewind();
        }
        match found {
            Ok(place) => self.read_from(key, id, place, announce),
            Err(gap) => self.resync(key, id, gap),
        }
        true
    }

    /// Forgets what a throttled subscription knows and holds.
    pub(crate) fn forget_held(&mut self, key: SessionKey, id: &str) {
        let Some(session) = self.session_mut(key) else { return };
        let Some(subscription) = session.subscription_mut(id) else { return };
        let id = Rc::clone(&subscription.id);
        if let Some(paced) = subscription.paced.as_deref_mut() {
            paced.conflation.clear();
            self.set_alarm(key, &id, None);
        }
    }

    pub(crate) fn paced_mut(&mut self, key: SessionKey, id: &str) -> Option<&mut Paced> {
        self.session_mut(key)?.subscription_mut(id)?.paced.as_deref_mut()
    }

    fn set_alarm(&mut self, key: SessionKey, id: &Rc<str>, at: Option<Instant>) {
        let Some(paced) = self.paced_mut(key, id) else { return };
        let before = std::mem::replace(&mut paced.alarm, at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.alarms.remove(&(before, key, Rc::clone(id)));
        }
        if let Some(at) = at {
            self.alarms.insert((at, key, Rc::clone(id)));
        }
    }
}

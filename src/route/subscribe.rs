//! How a subscription begins, becomes live, falls behind and ends.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::auth::Claims;
use crate::change::cursor::Cursor;
use crate::ring::Gap;
use crate::ring::Place;
use crate::route::encode::Notice;
use crate::route::paced::Paced;
use crate::route::plan;
use crate::route::plan::Refusal;
use crate::route::session::Reader;
use crate::route::session::SessionKey;
use crate::route::session::Subscription;
use crate::route::shard::Shard;
use crate::route::shard::widen;
use crate::route::subscription::Subscribe;

/// How long a cursor may be ahead of the shard: another shard may be faster by a moment, a
/// database that lost it never catches up.
const AHEAD_SECONDS: u32 = 3;

impl Shard {
    /// Begins a subscription and answers it.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing was begun then. The caller tells the client.
    pub fn subscribe(&mut self, key: SessionKey, subscribe: Subscribe) -> Result<(), Refusal> {
        self.flush_session(key);
        let limit = self.settings.subscriptions_max;
        let Some(session) = self.session(key) else { return Ok(()) };
        if session.subscription(&subscribe.id).is_some() {
            return Err(Refusal::DuplicateId);
        }
        if session.subscriptions.len() >= limit {
            return Err(Refusal::TooMany { limit });
        }
        let claims = session.claims.clone().ok_or(Refusal::Unauthenticated)?;
        let dialect = session.dialect;
        let mut plan = self.plan(&claims, &subscribe.request)?;
        let keying = plan.keying.take();
        let no_old_image = plan::lacks_old_image(&plan.rule, &plan.projection.relation);
        if let Some(snapshot) = &subscribe.snapshot {
            self.may_ask(&claims, &subscribe.request, snapshot, &plan)?;
        }
        let shape = self.shape(plan, &subscribe.request, dialect);
        let projection = Rc::clone(&shape.projection);
        let id = self.groups.intern(&subscribe.id);
        let attachment = self.attach(shape, &id, keying);
        let request = Box::new(subscribe.request);
        let begins = subscribe.snapshot.is_some();
        let paced = request.throttle.as_deref().map(Paced::new);
        if let Some(session) = self.session_mut(key) {
            let (id, snapshot) = (Rc::clone(&id), subscribe.snapshot);
            let subscription =
                Subscription { id, request, snapshot, attachment, member_at: None, paced };
            // Most sessions have one; a vector that grows by itself begins with four.
            session.subscriptions.reserve_exact(1);
            session.subscriptions.push(subscription);
        }
        let cursor = if subscribe.since.is_none() && !begins { self.here() } else { None };
        let subscribed =
            Notice::Subscribed { id: &id, cursor, projection: &projection, no_old_image };
        self.notify(key, &subscribed);
        match subscribe.since {
            None if begins => self.begin_snapshot(key, &id),
            None => self.go_live(key, &id),
            Some(cursor) => self.resume(key, &id, cursor),
        }
        Ok(())
    }

    /// Ends a subscription and says so.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownId`].
    pub fn unsubscribe(&mut self, key: SessionKey, id: &str) -> Result<(), Refusal> {
        self.flush_session(key);
        if !self.end_subscription(key, id) {
            return Err(Refusal::UnknownId);
        }
        self.notify(key, &Notice::Unsubscribed { id });
        Ok(())
    }

    /// Lets the session act under new claims: every subscription is judged again.
    pub fn authenticate(&mut self, key: SessionKey, claims: Claims) {
        self.flush_session(key);
        let Some(session) = self.session_mut(key) else { return };
        let expires_at = claims.expires_at();
        session.claims = Some(claims);
        self.note_expiry(expires_at);
        self.replan_session(key, None);
        self.restart_asking(key);
        self.revive(key);
    }

    /// Reads on from a cursor, or says why that can't be.
    pub(crate) fn resume(&mut self, key: SessionKey, id: &Rc<str>, cursor: Cursor) {
        let Some(ring) = &self.ring else { return };
        let found = ring.place_after(cursor);
        let here = self.place();
        match found {
            Ok(place) if here.is_some_and(|here| place <= here) => {
                if let Some(paced) = self.paced_mut(key, id) {
                    paced.catching_up = true;
                }
                self.read_from(key, id, place, true);
            }
            // Ahead, or inside the transaction that is being matched: another shard was faster.
            Ok(_) | Err(Gap::Ahead) => {
                let until = self.seconds.saturating_add(AHEAD_SECONDS);
                self.parked.insert(key, id, cursor, until);
            }
            Err(gap) => self.resync(key, id, gap),
        }
    }

    /// Lets parked subscriptions go on whose cursor was reached.
    pub(crate) fn settle_parked(&mut self) {
        let reached: Vec<_> = std::iter::from_fn(|| self.parked.reached(self.matched)).collect();
        for (key, id, cursor) in reached {
            self.resume(key, &id, cursor);
        }
    }

    /// Gives up on the parked subscriptions whose time is over.
    pub(crate) fn give_up_parked(&mut self) {
        for (key, id) in self.parked.expired(self.seconds) {
            self.resync(key, &id, Gap::Ahead);
        }
    }

    pub(crate) fn read_from(
        &mut self,
        key: SessionKey,
        id: &Rc<str>,
        place: Place,
        announce: bool,
    ) {
        let ids = smallvec::smallvec![Rc::clone(id)];
        if let Some(session) = self.session_mut(key) {
            session.readers.push(Reader { place, ids, announce, handover: None });
        }
        self.schedule(key);
    }

    /// Tells the client that it missed changes, and goes on live, or from a snapshot.
    pub(crate) fn resync(&mut self, key: SessionKey, id: &Rc<str>, reason: Gap) {
        self.shared.metrics.resynced(reason.code());
        self.forget_held(key, id);
        let subscription = self.session(key).and_then(|session| session.subscription(id));
        if subscription.is_none_or(|subscription| subscription.snapshot.is_none()) {
            let cursor = self.here();
            self.notify(key, &Notice::Resync { id, reason, cursor });
            self.go_live(key, id);
            return;
        }
        self.notify(key, &Notice::Resync { id, reason, cursor: None });
        self.go_behind(key, id);
        self.renew_snapshot(key, id, reason);
    }

    /// Makes a subscription live, from the next change on that is matched.
    pub(crate) fn go_live(&mut self, key: SessionKey, id: &str) {
        let subscription = self.session(key).and_then(|session| session.subscription(id));
        let Some((group, is_live)) =
            subscription.map(|it| (it.attachment.group, it.member_at.is_some()))
        else {
            return;
        };
        if is_live || self.begin_asked(key, id) {
            return;
        }
        if !self.is_ready(key, id) {
            return self.await_others(key, id);
        }
        self.refresh_reach(group);
        let Some(session) = self.session(key) else { return };
        let Some(subscription) = session.subscription(id) else { return };
        let member_at = self.groups.join(subscription.attachment, key.place);
        if let Some(session) = self.session_mut(key) {
            session.forget_reader_of(id);
            if let Some(subscription) = session.subscription_mut(id) {
                subscription.member_at = Some(member_at);
                if let Some(paced) = &mut subscription.paced {
                    paced.caught_up();
                }
            }
        }
    }

    /// Ends a subscription's being live, if it was.
    pub(crate) fn go_behind(&mut self, key: SessionKey, id: &str) {
        self.forget_asked(key, id);
        let Some(session) = self.session_mut(key) else { return };
        let Some(subscription) = session.subscription_mut(id) else { return };
        let Some(member_at) = subscription.member_at.take() else { return };
        let attachment = subscription.attachment;
        let Some(moved) = self.groups.leave(attachment, member_at) else { return };
        let moved = self.sessions.get_mut(widen(moved));
        let moved = moved.and_then(|session| {
            session.subscriptions.iter_mut().find(|other| other.attachment == attachment)
        });
        if let Some(moved) = moved {
            moved.member_at = Some(member_at);
        }
    }

    /// All live subscriptions of the session go on by reading the ring from a place up to which all
    /// of them have been delivered or offered everything.
    pub(crate) fn fall_behind(&mut self, key: SessionKey, place: Place) {
        let Some(session) = self.session(key) else { return };
        let live = session.subscriptions.iter().filter(|it| it.member_at.is_some());
        let ids: SmallVec<[Rc<str>; 1]> = live.map(|it| Rc::clone(&it.id)).collect();
        if ids.is_empty() {
            return;
        }
        self.shared.metrics.fell_behind();
        for id in &ids {
            self.go_behind(key, id);
        }
        if let Some(session) = self.session_mut(key) {
            session.readers.push(Reader { place, ids, announce: false, handover: None });
        }
        self.schedule(key);
    }

    /// Ends a subscription; `false` where there was none of that name.
    pub(crate) fn end_subscription(&mut self, key: SessionKey, id: &str) -> bool {
        self.go_behind(key, id);
        self.forget_held(key, id);
        let Some(session) = self.session_mut(key) else { return false };
        let known = session.subscriptions.iter().position(|known| &*known.id == id);
        let Some(known) = known else { return false };
        let subscription = session.subscriptions.remove(known);
        session.forget_reader_of(id);
        self.forget_snapshot(key, id);
        self.parked.remove(key, &subscription.id);
        if !self.paused.is_empty() {
            self.paused.remove(&(key, subscription.id));
        }
        self.groups.detach(subscription.attachment);
        true
    }
}

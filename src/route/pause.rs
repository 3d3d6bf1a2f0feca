//! Subscriptions that rest at their client's wish.
//!
//! One that rests is a cursor and nothing else: it is matched for nothing, holds nothing and reads
//! nothing. When it goes on it reads the ring from its cursor, as a client that resumes does, and
//! what it missed comes, or a `resync`.

use std::rc::Rc;

use crate::change::cursor::Cursor;
use crate::change::cursor::Position;
use crate::change::lsn::Lsn;
use crate::ring::Gap;
use crate::ring::Place;
use crate::route::encode::Notice;
use crate::route::plan::Refusal;
use crate::route::session::Session;
use crate::route::session::SessionKey;
use crate::route::session::Subscription;
use crate::route::shard::Shard;

impl Shard {
    /// Lets a subscription rest, and says from where it will go on. One that rests already is only
    /// told so again.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownId`].
    pub fn pause(&mut self, key: SessionKey, id: &str) -> Result<(), Refusal> {
        self.flush_session(key);
        let known = self.session(key).and_then(|session| session.subscription(id));
        let id = known.map(|it| Rc::clone(&it.id)).ok_or(Refusal::UnknownId)?;
        let name = (key, id);
        let resting = self.paused.get(&name).copied();
        let cursor = match resting {
            Some(cursor) => cursor,
            None => {
                self.shared.metrics.paused();
                self.rest(key, &name.1)
            }
        };
        self.notify(key, &Notice::Paused { id: &name.1, cursor });
        self.paused.insert(name, cursor);
        Ok(())
    }

    /// Takes a subscription out of wherever it stands; gives the place from which it will go on.
    pub(crate) fn rest(&mut self, key: SessionKey, id: &Rc<str>) -> Option<Cursor> {
        let cursor = self.delivered_up_to(key, id);
        self.go_behind(key, id);
        if let Some(session) = self.session_mut(key) {
            session.forget_reader_of(id);
        }
        self.parked.remove(key, id);
        self.forget_snapshot(key, id);
        self.forget_held(key, id);
        cursor
    }

    /// Lets a subscription go on that rested. One that did not is only told so.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownId`].
    pub fn unpause(&mut self, key: SessionKey, id: &str) -> Result<(), Refusal> {
        self.flush_session(key);
        let known = self.session(key).and_then(|session| session.subscription(id));
        let id = known.map(|it| Rc::clone(&it.id)).ok_or(Refusal::UnknownId)?;
        self.notify(key, &Notice::Resumed { id: &id });
        match self.paused.remove(&(key, Rc::clone(&id))) {
            Some(Some(cursor)) => self.resume(key, &id, cursor),
            // It was in the middle of its snapshot.
            Some(None) => self.resync(key, &id, Gap::Restarted),
            None => {}
        }
        Ok(())
    }

    /// Whether a subscription rests.
    pub(crate) fn rests(&self, key: SessionKey, id: &Rc<str>) -> bool {
        !self.paused.is_empty() && self.paused.contains_key(&(key, Rc::clone(id)))
    }

    /// Whether everything that was matched for a session is in its outbox or held back by a throttle,
    /// but for what rests.
    pub(crate) fn is_up_to_date(&self, key: SessionKey, session: &Session) -> bool {
        let up_to_date = |it: &Subscription| {
            it.member_at.is_some()
                || self.rests(key, &it.id)
                || self.is_asked_up_to_date(key, &it.id)
        };
        session.pending.is_empty() && session.subscriptions.iter().all(up_to_date)
    }

    /// The place up to which a subscription has been delivered, wherever it stands; `None` where it
    /// has not had its snapshot whole.
    fn delivered_up_to(&self, key: SessionKey, id: &Rc<str>) -> Option<Cursor> {
        if self.is_in_snapshot(key, id) {
            return None;
        }
        if let Some(held) = self.held_from(key, id) {
            return Some(held);
        }
        if let Some(parked) = self.parked.cursor_of(key, id) {
            return Some(parked);
        }
        if let Some(place) = self.asked_place(key, id) {
            return self.cursor_before(place);
        }
        let mut readers = self.session(key)?.readers.iter();
        let reader = readers.find(|reader| reader.ids.contains(id));
        reader.map_or_else(|| self.here(), |reader| self.cursor_before(reader.place))
    }

    /// The cursor of a reader that is at `place`. Where that was evicted, one that is too old, too.
    pub(crate) fn cursor_before(&self, place: Place) -> Option<Cursor> {
        let ring = self.ring.as_ref()?;
        let position = match ring.get(place.transaction) {
            Some(transaction) => transaction.position_after(place.change),
            None if ring.evicted(place) => Position::after(Lsn::ZERO),
            None => return self.here(),
        };
        Some(Cursor { source: ring.source(), position })
    }
}

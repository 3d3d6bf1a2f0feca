//! What sessions are told when the daemon stops. When each is told is `serve`'s to say.

use std::rc::Rc;
use std::time::Duration;

use crate::change::cursor::Cursor;
use crate::route::encode::Notice;
use crate::route::session::Close;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;

impl Shard {
    /// How many sessions there are.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Every session that was not asked to go yet.
    #[must_use]
    pub fn staying(&self) -> Vec<SessionKey> {
        let stays = |key: &SessionKey| self.session(*key).is_some_and(|it| it.close.is_none());
        self.keys().into_iter().filter(stays).collect()
    }

    /// Asks a session to come back after `retry`, unless it has yet to be sent something; `false`
    /// then, and it was told nothing.
    pub fn release(&mut self, key: SessionKey, retry: Duration) -> bool {
        self.flush_session(key);
        self.release_all(key);
        let Some(session) = self.session(key) else { return true };
        let waits = session.outbox.queued() > 0 || !self.is_up_to_date(key, session);
        if waits && session.close.is_none() {
            return false;
        }
        self.dismiss(key, retry);
        true
    }

    /// Asks a session to come back after `retry`, with what it has by now.
    pub fn dismiss(&mut self, key: SessionKey, retry: Duration) {
        self.flush_session(key);
        let Some(session) = self.session(key) else { return };
        if session.close.is_some() {
            return;
        }
        // Where something is still held back it would not count for every subscription.
        let cursor = self.delivered_to(key).filter(|_| !Shard::holds_back(session));
        self.notify(key, &Notice::Restart { cursor, retry });
        // What would follow now would be newer than the cursor.
        self.end_all(key);
        if let Some(session) = self.session_mut(key) {
            session.close = Some(Close::Restart);
            session.outbox.wake();
        }
    }

    /// The place up to which everything that the session asked for was delivered, but for what
    /// rests; none where some of it is yet to come, or waits for a token, or nothing was asked for.
    /// What is held back by a throttle lies after it.
    #[must_use]
    pub fn delivered_to(&self, key: SessionKey) -> Option<Cursor> {
        let session = self.session(key)?;
        let waits = session.expired.is_some();
        if waits || session.subscriptions.is_empty() || !self.is_up_to_date(key, session) {
            return None;
        }
        let held = session.subscriptions.iter().filter_map(|it| self.held_from(key, &it.id));
        held.min_by_key(|cursor| cursor.position).or_else(|| self.here())
    }

    /// Ends every subscription of a session that is to be closed: nothing is delivered any more.
    pub(crate) fn end_all(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        session.pending.clear();
        let ids: Vec<_> = session.subscriptions.iter().map(|it| Rc::clone(&it.id)).collect();
        for id in ids {
            self.end_subscription(key, &id);
        }
    }
}

//! What becomes of a session whose token is over, because it expired or its key was withdrawn.
//!
//! A client over WebSocket is told before. When the token is over nothing is delivered any more, and
//! nothing that waits goes out; the session's subscriptions rest at their places. With a new token
//! they are judged by it and go on from there, without a gap; without one the session is closed when
//! [`Settings::grace_seconds`](crate::route::shard::Settings::grace_seconds) are over. Other
//! transports can't bring a token to a session that is there, and are closed at once, and so is a
//! session for whose socket something waits: it comes back with its cursors.
//!
//! # Invariants
//!
//! - No pass begins with a token that is over: [`Shard::expire`] comes before each. (Simulation, and
//!   the tests of `tests/postgres/tokens`.)

use std::rc::Rc;
use std::time::Duration;
use std::time::SystemTime;

use crate::ring::Gap;
use crate::route::encode::Notice;
use crate::route::session::Close;
use crate::route::session::Session;
use crate::route::session::SessionKey;
use crate::route::session::Transport;
use crate::route::shard::Shard;

/// How long before its token is over a client is told.
const TOLD_BEFORE: Duration = Duration::from_mins(1);

/// A session that waits for a new token.
#[derive(Debug)]
pub(crate) struct Expired {
    /// On the shard's clock of seconds, when it is closed.
    until: u32,
    /// The subscriptions that rested at their client's wish, and still will.
    rested: Vec<Rc<str>>,
}

/// Why a token is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Its time.
    Expired,
    /// The key that has signed it does not count any more.
    KeyWithdrawn,
}

impl Over {
    /// The word for it in frames.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Over::Expired => "token_expired",
            Over::KeyWithdrawn => "key_withdrawn",
        }
    }
}

fn over(session: &Session, now: SystemTime) -> Option<Over> {
    let claims = session.claims.as_ref()?;
    if claims.expires_at().is_some_and(|at| at <= now) {
        return Some(Over::Expired);
    }
    claims.is_withdrawn().then_some(Over::KeyWithdrawn)
}

impl Shard {
    /// Whether the session waits for a new token.
    #[must_use]
    pub fn is_expired(&self, key: SessionKey) -> bool {
        self.session(key).is_some_and(|session| session.expired.is_some())
    }

    /// Lets sessions rest whose token is over by now. It is a comparison where none can be.
    pub(crate) fn expire(&mut self, now: impl Fn() -> SystemTime) {
        let Some(first) = self.first_expiry else { return };
        let now = now();
        if first > now {
            return;
        }
        for key in self.keys() {
            self.look_at_token(key, now);
        }
        self.find_first_expiry();
    }

    /// Notes when the next token will be over.
    pub(crate) fn find_first_expiry(&mut self) {
        let sessions = self.sessions.iter().map(|(_, session)| session);
        let waiting = sessions.filter(|it| it.expired.is_none() && it.close.is_none());
        let ends = waiting.filter_map(|session| session.claims.as_ref()?.expires_at());
        self.first_expiry = ends.min();
    }

    /// Notes when the token of a session will be over that has just got it.
    pub(crate) fn note_expiry(&mut self, expires_at: Option<SystemTime>) {
        if let Some(at) = expires_at {
            self.first_expiry = Some(self.first_expiry.map_or(at, |first| first.min(at)));
        }
    }

    /// Tells a client that its token is nearly over, or that it is; closes its session where that
    /// has lasted long enough.
    pub(crate) fn look_at_token(&mut self, key: SessionKey, now: SystemTime) {
        let seconds = self.seconds;
        let Some(session) = self.session(key) else { return };
        if session.close.is_some() {
            return;
        }
        match (&session.expired, over(session, now)) {
            (Some(expired), _) if seconds >= expired.until => self.end(key, Close::Expired),
            (Some(_), _) => {}
            (None, Some(why)) => self.rest_all(key, why),
            (None, None) => self.warn(key, now),
        }
    }

    fn warn(&mut self, key: SessionKey, now: SystemTime) {
        let Some(session) = self.session_mut(key) else { return };
        let ends = session.claims.as_ref().and_then(crate::auth::Claims::expires_at);
        let left = ends.and_then(|at| at.duration_since(now).ok());
        let Some(left) = left.filter(|left| *left <= TOLD_BEFORE && !session.warned) else {
            return;
        };
        session.warned = true;
        if session.peer.transport == Transport::WebSocket {
            self.notify(key, &Notice::Expiring { left });
        }
    }

    /// Nothing is delivered to the session any more.
    fn rest_all(&mut self, key: SessionKey, why: Over) {
        let grace = self.settings.grace_seconds;
        let Some(session) = self.session_mut(key) else { return };
        let can_renew = session.peer.transport == Transport::WebSocket && grace > 0;
        if !can_renew || session.outbox.queued() > 0 {
            session.outbox.drop_waiting();
            return self.end(key, Close::Expired);
        }
        session.pending.clear();
        let ids: Vec<_> = session.subscriptions.iter().map(|it| Rc::clone(&it.id)).collect();
        let (rested, resting): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| self.rests(key, id));
        for id in resting {
            let cursor = self.rest(key, &id);
            self.paused.insert((key, id), cursor);
        }
        let until = self.seconds.saturating_add(grace);
        if let Some(session) = self.session_mut(key) {
            session.expired = Some(Box::new(Expired { until, rested }));
        }
        let grace = Duration::from_secs(grace.into());
        self.notify(key, &Notice::Expired { why, grace });
    }

    /// Lets what rested for want of a token go on; the session has a new one.
    pub(crate) fn revive(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        session.warned = false;
        let Some(expired) = session.expired.take() else { return };
        let ids = session.subscriptions.iter().map(|it| Rc::clone(&it.id));
        let resting: Vec<_> = ids.filter(|id| !expired.rested.contains(id)).collect();
        for id in resting {
            match self.paused.remove(&(key, Rc::clone(&id))) {
                Some(Some(cursor)) => self.resume(key, &id, cursor),
                // It was in the middle of its snapshot.
                Some(None) => self.resync(key, &id, Gap::Restarted),
                None => {}
            }
        }
    }

    fn end(&mut self, key: SessionKey, close: Close) {
        let Some(session) = self.session_mut(key) else { return };
        session.close = Some(close);
        session.expired = None;
        self.end_all(key);
        if let Some(session) = self.session_mut(key) {
            session.outbox.wake();
        }
    }
}

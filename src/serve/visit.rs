//! A session that lives in the answer to one HTTP request.
//!
//! It is a session like that of a WebSocket: the shard pushes into its outbox, it falls behind when
//! its client is slow, and it resumes from a cursor. It has one subscription, which is begun before
//! the answer, so that a refusal is an HTTP status.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use hyper::HeaderMap;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::auth::Claims;
use crate::dialect::native::events;
use crate::dialect::native::events::EVENTS;
use crate::gate::Caller;
use crate::gate::Entry;
use crate::gate::Gate;
use crate::gate::Refused;
use crate::route::outbox::Wire;
use crate::route::session::Close;
use crate::route::session::SessionKey;
use crate::route::session::Transport;
use crate::route::subscription::Subscribe;
use crate::serve::Front;
use crate::serve::answer;
use crate::serve::answer::Answer;
use crate::serve::buffer::Buffer;
use crate::serve::buffer::type_of;
use crate::serve::guest::Guest;

/// An HTTP connection, as the session in its answer knows it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Absent only in tests of what a line is needed for.
    entry: Option<Rc<Entry>>,
    /// Who sent the request that is being answered.
    caller: Cell<Option<Caller>>,
    session: Cell<Option<SessionKey>>,
    /// Wakes the connection's task, so that it looks whether the session is to be closed. A client
    /// that reads nothing keeps the answer's body from ever being asked for more.
    pub(crate) woken: Notify,
}

impl Line {
    pub(crate) fn new(entry: Entry) -> Line {
        Line { entry: Some(Rc::new(entry)), ..Line::default() }
    }

    /// Notes who sends a request.
    ///
    /// # Errors
    ///
    /// [`Refused`] where it asks too often. The first request came with the connection, and was
    /// counted with it.
    pub(crate) fn ask(&self, gate: &Gate, headers: &HeaderMap) -> Result<(), Refused> {
        let Some(entry) = &self.entry else { return Ok(()) };
        let values = headers.get_all(entry.forwarded().header()).iter();
        // What is no text is no address either, and hides what stands before it.
        let texts = values.map(|value| value.to_str().unwrap_or_default());
        let caller = entry.caller(texts.collect::<SmallVec<[&str; 2]>>().into_iter());
        let first = self.caller.replace(Some(caller)).is_none();
        if first && !entry.is_proxied() { Ok(()) } else { gate.handshake(caller) }
    }

    /// Who sent the request that is being answered.
    pub(crate) const fn caller(&self) -> Option<Caller> {
        self.caller.get()
    }

    /// What the session of this request holds on to.
    pub(crate) fn guest(
        &self,
        gate: &Gate,
        claims: Option<&Claims>,
        transport: Transport,
    ) -> Result<Guest, Refused> {
        match (&self.entry, self.caller.get()) {
            (Some(entry), Some(caller)) => Guest::new(gate, (entry, caller), claims, transport),
            _ => Ok(Guest::of_nobody(transport)),
        }
    }

    /// Whether the connection's session is to be closed, and why.
    pub(crate) fn closing(&self, front: &Front) -> Option<Close> {
        front.shard.borrow().closing(self.session.get()?)
    }

    /// Whether an answer is under way that has a session.
    pub(crate) const fn has_session(&self) -> bool {
        self.session.get().is_some()
    }
}

/// A session that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    front: Rc<Front>,
    line: Rc<Line>,
    key: SessionKey,
    _guest: Guest,
}

impl Visit {
    /// Opens a session that writes to `wire`.
    pub(crate) fn open(
        front: &Rc<Front>,
        line: &Rc<Line>,
        wire: Rc<dyn Wire>,
        (claims, transport): (Claims, Transport),
    ) -> Result<Visit, Box<Answer>> {
        // What begins now would not be told of the stop any more.
        if front.closing.is_cancelled() {
            return Err(Box::new(answer::refuse_restart()));
        }
        let guest = line.guest(&front.settings().gate, Some(&claims), transport);
        let guest = guest.map_err(|refused| Box::new(answer::refuse_limit(refused)))?;
        let key = front.open(wire, Some(claims), &EVENTS, &guest);
        line.session.set(Some(key));
        Ok(Visit { front: Rc::clone(front), line: Rc::clone(line), key, _guest: guest })
    }

    /// Begins the one subscription.
    pub(crate) fn subscribe(&self, subscribe: Subscribe) -> Result<(), Box<Answer>> {
        let mut shard = self.front.shard.borrow_mut();
        shard.subscribe(self.key, subscribe).map_err(|refusal| {
            shard.count_refusal(&refusal);
            Box::new(answer::refuse_subscription(&refusal))
        })
    }

    /// Waits until the snapshot that the subscription begins with comes, and leaves it in `buffer`;
    /// so a snapshot that can't be had is refused by a status, too.
    pub(crate) async fn begun(&self, buffer: &Buffer) -> Result<(), Box<Answer>> {
        loop {
            let _broken = self.drain();
            if let Some(close) = self.closing() {
                return Err(Box::new(answer::refuse_closed(close, None)));
            }
            let last =
                buffer.peek(|events| events::events(events).last().map(|it| it.json.to_vec()));
            let last = last.unwrap_or_default();
            if !self.is_subscribed() {
                return Err(Box::new(answer::refuse_ended(&last)));
            }
            if !matches!(type_of(&last).as_str(), "" | "subscribed") {
                return Ok(());
            }
            buffer.woken().await;
            self.heard();
        }
    }

    /// A number that differs from that of the sessions opened before and after it.
    pub(crate) const fn number(&self) -> u32 {
        self.key.generation
    }

    /// Sends something beside what is routed to it.
    pub(crate) fn send(&self, bytes: Vec<u8>) {
        self.front.shard.borrow_mut().send(self.key, &Bytes::from(bytes));
    }

    /// Sends the last thing.
    pub(crate) fn send_last(&self, bytes: Vec<u8>) {
        self.front.shard.borrow_mut().send_last(self.key, &Bytes::from(bytes));
    }

    /// Whether the shard wants the session closed, and why.
    pub(crate) fn closing(&self) -> Option<Close> {
        self.front.shard.borrow().closing(self.key)
    }

    /// Whether the subscription has not ended.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.front.shard.borrow().is_subscribed(self.key)
    }

    /// The cursor of the place up to which everything that the session asked for was delivered.
    pub(crate) fn delivered_to(&self) -> Option<String> {
        let cursor = self.front.shard.borrow().delivered_to(self.key);
        cursor.map(|cursor| cursor.to_string())
    }

    /// Writes what waits to the wire; `true` when nothing waits any more.
    pub(crate) fn drain(&self) -> io::Result<bool> {
        self.front.shard.borrow_mut().drain(self.key)
    }

    /// Notes that the client lives.
    pub(crate) fn heard(&self) {
        self.front.shard.borrow_mut().heard(self.key);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.front.shard.borrow_mut().close(self.key);
        self.line.session.set(None);
    }
}

//! A client that holds the daemon to its word: each frame must be the next that is due.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use walcast::change::cursor::Cursor;

use crate::history::Placed;
use crate::pipe::ClientEnd;
use crate::pipe::Message;
use crate::sight::Person;
use crate::sight::Wish;
use crate::world::SILENCE_SECONDS;
use crate::world::Side;
use crate::world::World;

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Fast,
    Slow,
    Stopped,
}

/// A token: whose, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) person: Person,
    pub(crate) expires_at: u64,
}

/// An answer that is due. They come in the order of the requests.
#[derive(Debug)]
pub(crate) enum Due {
    Subscribed(String),
    Unsubscribed(String),
    Authenticated(Token),
    Error(&'static str),
    Pong,
}

/// One subscription, and where it is.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) wish: Wish,
    /// Everything before it was delivered; unknown before the answer where none was asked for.
    pub(crate) cursor: Option<Cursor>,
    answered: bool,
    pub(crate) ending: bool,
    /// Whether `synced` must come.
    announced: bool,
    /// The least generation of the catalogue that it may still be judged by.
    generation: u64,
    /// How many beginnings of other histories it may not know of.
    starts_known: usize,
    asked_at: Instant,
    ahead: bool,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    pub(crate) end: ClientEnd,
    pub(crate) side: Rc<Side>,
    pub(crate) token: Option<Token>,
    pub(crate) due: VecDeque<Due>,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    /// When it last read everything that was there.
    pub(crate) read_at: Instant,
    /// Whether its client has ever read slowly.
    pub(crate) was_slow: bool,
    welcomed: bool,
    /// Whether its token is over, so that nothing may come before another.
    expired: bool,
    closed: bool,
}

/// What was seen in a run, by kind.
pub(crate) type Seen = BTreeMap<String, usize>;

impl Link {
    pub(crate) fn new(name: String, end: ClientEnd, side: Rc<Side>, token: Option<Token>) -> Link {
        let now = Instant::now();
        Link {
            name,
            end,
            side,
            token,
            due: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            read_at: now,
            was_slow: false,
            welcomed: false,
            expired: false,
            closed: false,
        }
    }

    pub(crate) fn subscribe(
        &mut self,
        id: &str,
        wish: Wish,
        since: Option<Cursor>,
        world: &mut World,
    ) {
        let mut request = wish.json(&mut world.random);
        request["id"] = id.into();
        if let Some(since) = since {
            request["since"] = since.to_string().into();
        }
        world.tell(|| format!("{} asks {request}", self.name));
        self.end.send(&request.to_string());
        self.due.push_back(Due::Subscribed(id.to_owned()));
        let told = self.side.told.borrow();
        let reached =
            |since: Cursor| told.source == Some(since.source) && since.position <= told.head;
        let subscription = Subscription {
            wish,
            cursor: since,
            answered: false,
            ending: false,
            announced: since.is_some(),
            generation: world.generation(),
            starts_known: *self.side.starts_settled.borrow(),
            asked_at: Instant::now(),
            ahead: since.is_some_and(|since| !reached(since)),
        };
        self.subscriptions.insert(id.to_owned(), subscription);
    }

    pub(crate) fn unsubscribe(&mut self, id: &str) {
        self.end.send(&json!({ "type": "unsubscribe", "id": id }).to_string());
        self.due.push_back(Due::Unsubscribed(id.to_owned()));
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.ending = true;
        }
    }

    pub(crate) fn authenticate(&mut self, token: &str, due: Due) {
        self.end.send(&json!({ "type": "auth", "token": token }).to_string());
        self.due.push_back(due);
    }

    /// Reads up to so many bytes, and tells how many there were; `None` where the connection is
    /// over.
    pub(crate) fn read(
        &mut self,
        bytes_max: usize,
        world: &World,
        seen: &mut Seen,
    ) -> Option<usize> {
        let count = self.end.receive(bytes_max);
        if count < bytes_max {
            self.read_at = Instant::now();
        }
        while let Some(message) = self.end.next() {
            assert!(!self.closed, "{message:?} after the close frame");
            match message {
                Message::Text(frame) => {
                    world.tell(|| format!("  {}: {frame}", self.name));
                    self.take(&frame, world, seen);
                }
                Message::Ping => self.end.pong(),
                Message::Close { code, reason } => {
                    *seen.entry(format!("close {code} {reason}")).or_default() += 1;
                    self.close(code, &reason, world);
                    self.closed = true;
                }
            }
        }
        if self.closed {
            return None;
        }
        if self.end.ended() {
            assert!(self.was_slow || self.is_over(world), "cut off without a word");
            return None;
        }
        Some(count)
    }

    /// Whether one of the tokens that it may have is over.
    fn is_over(&self, world: &World) -> bool {
        let coming = self.due.iter().filter_map(|due| match due {
            Due::Authenticated(token) => Some(*token),
            _ => None,
        });
        self.token.into_iter().chain(coming).any(|token| token.expires_at <= world.seconds())
    }

    fn close(&self, code: u16, reason: &str, world: &World) {
        let silent = self.read_at.elapsed() + Duration::from_secs(2);
        let right = match (code, reason) {
            (4401, "token_expired") => self.is_over(world),
            (4401, "token_required") => self.token.is_none(),
            (1001, "silent") => {
                self.was_slow || silent >= Duration::from_secs(SILENCE_SECONDS.into())
            }
            (1012, "restart") => *self.side.stopping.borrow(),
            _ => false,
        };
        assert!(right, "closed for no reason: {code} {reason}");
    }

    fn take(&mut self, frame: &Value, world: &World, seen: &mut Seen) {
        let of = frame["type"].as_str().unwrap();
        let detail = ["op", "reason", "code"].map(|key| frame[key].as_str().unwrap_or_default());
        *seen.entry(format!("{of} {}", detail.concat())).or_default() += 1;
        assert_eq!(self.welcomed, of != "welcome", "{frame}");
        let id = frame["id"].as_str();
        let may_come = ["pong", "authenticated", "error", "restart"].contains(&of);
        assert!(!self.expired || may_come, "delivered without a token: {frame}");
        match (of, id) {
            ("expiring", None) => assert!(frame["seconds"].as_u64().unwrap() <= 60, "{frame}"),
            ("expired", None) => {
                assert!(self.is_over(world), "the token is good: {frame}");
                self.expired = true;
            }
            ("welcome", None) => self.welcomed = true,
            ("pong", None) => assert!(matches!(self.due.pop_front(), Some(Due::Pong)), "{frame}"),
            ("authenticated", None) => {
                let Some(Due::Authenticated(token)) = self.due.pop_front() else {
                    panic!("nobody asked: {frame}")
                };
                assert_eq!(frame["role"], token.person.role);
                self.token = Some(token);
                if std::mem::take(&mut self.expired) {
                    for subscription in self.subscriptions.values_mut().filter(|it| it.answered) {
                        subscription.announced = true;
                    }
                }
            }
            ("error", None) => {
                let Some(Due::Error(code)) = self.due.pop_front() else {
                    panic!("nothing was wrong: {frame}")
                };
                assert_eq!(frame["code"], code);
            }
            ("heartbeat" | "restart", None) => {
                assert!(of == "heartbeat" || *self.side.stopping.borrow(), "{frame}");
                if frame.get("cursor").is_none() {
                    assert_eq!(of, "restart");
                    return;
                }
                for id in self.subscriptions.keys().cloned().collect::<Vec<_>>() {
                    if self.subscriptions[&id].answered {
                        self.reach(&id, frame, world);
                    }
                }
            }
            ("subscribed", Some(id)) => self.subscribed(id, frame, world),
            ("error", Some(id)) => self.error(id, frame, world),
            ("unsubscribed", Some(id)) => {
                let due = self.due.pop_front();
                assert!(matches!(due, Some(Due::Unsubscribed(of)) if of == id), "{frame}");
                assert!(self.subscriptions.remove(id).is_some_and(|it| it.ending), "{frame}");
            }
            ("row", Some(id)) => self.row(id, frame, world),
            ("synced", Some(id)) => {
                self.reach(id, frame, world);
                let subscription = self.subscriptions.get_mut(id).unwrap();
                assert!(std::mem::take(&mut subscription.announced), "{frame}");
            }
            ("resync", Some(id)) => self.resync(id, frame, world),
            _ => panic!("what is this? {frame}"),
        }
    }

    fn person(&self) -> Person {
        self.token.expect("nothing is delivered before a token").person
    }

    fn subscribed(&mut self, id: &str, frame: &Value, world: &World) {
        let due = self.due.pop_front();
        assert!(matches!(due, Some(Due::Subscribed(of)) if of == id), "{frame}");
        let role = self.person().role;
        let told = self.side.told.borrow();
        let subscription = self.subscriptions.get_mut(id).unwrap();
        subscription.answered = true;
        if subscription.announced {
            assert!(frame.get("cursor").is_none(), "{frame}");
        } else {
            let cursor = cursor(frame);
            assert!(cursor.position <= told.head || told.starts > 0, "{frame}");
            subscription.cursor = Some(cursor);
        }
        let names = |columns: &Value| -> Vec<String> {
            let columns = columns.as_array().unwrap().iter();
            columns.map(|column| column["name"].as_str().unwrap().to_owned()).collect()
        };
        let (wish, columns) = (&subscription.wish, names(&frame["columns"]));
        let fits = |shape, generation| {
            let plan = world.plan(wish, shape, role, generation);
            let lacks = frame.get("limits") == Some(&json!(["no_old_image"]));
            let has_key = columns.contains(&"id".to_owned());
            plan.is_ok_and(|plan| plan == columns)
                && lacks == wish.lacks_old_image(shape)
                && frame["key"] == if has_key { json!(["id"]) } else { json!([]) }
        };
        let shapes = world.shapes(wish.table);
        let mut generations = subscription.generation..=world.generation();
        let right = generations.any(|generation| shapes.iter().any(|it| fits(*it, generation)));
        assert!(right, "wrong columns, key or limits for {wish:?}: {frame}");
    }

    fn error(&mut self, id: &str, frame: &Value, world: &World) {
        let code = frame["code"].as_str().unwrap();
        let answers = match self.due.front() {
            Some(Due::Unsubscribed(of)) => {
                of == id && ["unknown_id", "token_expired"].contains(&code)
            }
            Some(Due::Subscribed(of)) => of == id,
            _ => false,
        };
        let due = if answers { self.due.pop_front() } else { None };
        if code == "token_expired" {
            assert!(answers && self.expired, "{frame}");
            if let Some(Due::Subscribed(_)) = due {
                self.subscriptions.remove(id);
            } else if let Some(subscription) = self.subscriptions.get_mut(id) {
                subscription.ending = false;
            }
            return;
        }
        if code == "unknown_id" {
            assert!(answers && !self.subscriptions.contains_key(id), "{frame}");
            return;
        }
        let Some(subscription) = self.subscriptions.remove(id) else {
            panic!("of no subscription: {frame}")
        };
        if self.token.is_none() {
            assert_eq!(code, "unauthenticated");
            return;
        }
        let (wish, role) = (&subscription.wish, self.person().role);
        let shapes = world.shapes(wish.table);
        let fits = |shape: &_, generation| {
            world.plan(wish, *shape, role, generation).is_err_and(|refusal| refusal == code)
        };
        let mut generations = subscription.generation..=world.generation();
        let right = generations.any(|generation| shapes.iter().any(|it| fits(it, generation)));
        assert!(right, "no reason to refuse {wish:?} to {role}: {frame}");
    }

    /// Says that everything up to the frame's cursor was delivered.
    fn reach(&mut self, id: &str, frame: &Value, world: &World) {
        let person = self.person();
        let subscription = self.subscriptions.get_mut(id).unwrap();
        let (before, now) = (subscription.cursor.unwrap(), cursor(frame));
        assert_eq!(before.source, now.source, "another history without a resync: {frame}");
        assert!(before.position <= now.position, "{id} went back from {before}: {frame}");
        if let Some(missed) = subscription.next(person, world)
            && !missed.is_after(now.position)
        {
            panic!("{id} missed {:?} at {:?}: {frame}", missed.change, missed.position);
        }
        subscription.cursor = Some(now);
    }

    fn row(&mut self, id: &str, frame: &Value, world: &World) {
        let person = self.person();
        let Some(subscription) = self.subscriptions.get_mut(id) else {
            panic!("of no subscription: {frame}")
        };
        assert!(subscription.answered, "before it was subscribed: {frame}");
        let now = cursor(frame);
        let before = subscription.cursor.unwrap();
        assert_eq!(before.source, now.source, "another history without a resync: {frame}");
        let Some(due) = subscription.next(person, world) else {
            panic!("nothing is due after {before}: {frame}")
        };
        let what = || format!("{:?} to {person:?} by {:?}", due.change, subscription.wish);
        assert_eq!(due.position, now.position, "after {before} is due {}: {frame}", what());
        let sight = subscription.wish.sight(due.change, person.subject).unwrap();
        let mut last = None;
        let least = subscription.generation.max(due.transaction.generation);
        let fits = (least..=world.generation()).find(|generation| {
            let plan = world.plan(&subscription.wish, due.change.shape, person.role, *generation);
            let Ok(columns) = plan else { return false };
            let mut expected = sight.frame(&columns);
            expected["id"] = id.into();
            expected["cursor"] = now.to_string().into();
            let micros = due.transaction.parts[0].committed_at.0;
            expected["commit_ts"] = format!("2000-01-01T00:00:00.{micros:06}Z").into();
            let fits = expected == *frame;
            last = Some(expected);
            fits
        });
        let Some(generation) = fits else {
            panic!("due is {}, that is {last:?}: {frame}", what());
        };
        subscription.generation = generation;
        subscription.cursor = Some(now);
    }

    fn resync(&mut self, id: &str, frame: &Value, world: &World) {
        let role = self.person().role;
        let told = self.side.told.borrow();
        let subscription = self.subscriptions.get_mut(id).unwrap();
        let before = subscription.cursor.unwrap();
        let reason = frame["reason"].as_str().unwrap();
        let started = told.starts > subscription.starts_known;
        let right = match reason {
            "too_old" => before.position < told.tail() || started,
            "other_history" => started || told.source != Some(before.source),
            "ahead" => {
                subscription.ahead
                    && subscription.announced
                    && subscription.asked_at.elapsed() >= Duration::from_secs(2)
            }
            "schema_changed" => {
                let wish = &subscription.wish;
                let shapes = world.shapes(wish.table);
                let mut generations = subscription.generation..=world.generation();
                generations.any(|generation| {
                    let plan = |shape: &_| world.plan(wish, *shape, role, generation);
                    shapes.iter().any(|shape| plan(shape).is_err())
                })
            }
            _ => false,
        };
        assert!(right, "no reason to resync {id} at {before} ({subscription:?}): {frame}");
        if reason == "other_history" && started && !subscription.announced {
            subscription.starts_known += 1;
        }
        subscription.announced = false;
        subscription.cursor = Some(cursor(frame));
    }

    /// Nothing more will come: everything must have been delivered.
    pub(crate) fn must_have_everything(&self, world: &World) {
        assert!(self.welcomed && self.due.is_empty(), "unanswered: {:?}", self.due);
        if self.expired {
            return;
        }
        for (id, subscription) in &self.subscriptions {
            assert!(!subscription.announced, "{id} was never synced: {subscription:?}");
            let cursor = subscription.cursor.unwrap();
            let source = self.side.told.borrow().source;
            assert_eq!(Some(cursor.source), source, "{id} was not told of another history");
            if let Some(missed) = subscription.next(self.person(), world) {
                panic!("{id} missed {:?} at {:?}", missed.change, missed.position);
            }
        }
    }
}

impl Subscription {
    /// The next change that the client must be told of.
    fn next<'a>(&self, person: Person, world: &'a World) -> Option<Placed<'a>> {
        let cursor = self.cursor.unwrap();
        let mut after = world.history(cursor.source)?.after(cursor.position);
        after.find(|placed| self.wish.sight(placed.change, person.subject).is_some())
    }
}

fn cursor(frame: &Value) -> Cursor {
    frame["cursor"].as_str().unwrap().parse().unwrap()
}

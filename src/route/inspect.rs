//! What operators are told of a shard: its sessions, their subscriptions, its groups, its ring; and
//! what they may do to a session.
//!
//! Lists come in parts, so that a shard with ten thousand sessions never stops for a list of them.
//! A part is what is there between two passes; a session that comes or goes between two parts may
//! be in the list or not.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::auth::Claims;
use crate::change::cursor::Cursor;
use crate::change::cursor::Position;
use crate::change::relation::Relation;
use crate::route::group::Group;
use crate::route::policy::Tier;
use crate::route::session::Close;
use crate::route::session::Peer;
use crate::route::session::Session;
use crate::route::session::SessionKey;
use crate::route::session::Subscription;
use crate::route::session::Transport;
use crate::route::shard::Shard;
use crate::route::subscription::Events;
use crate::route::subscription::Filter;
use crate::route::subscription::Op;
use crate::route::subscription::Throttle;

/// Rows in one part of a list. About a quarter of a millisecond.
const PART: usize = 256;

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Part<T> {
    /// What is there.
    pub rows: Vec<T>,
    /// Where the next part begins; absent after the last one.
    pub next: Option<usize>,
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Its number in the shard, which no other session of the shard had or gets soon.
    pub number: u32,
    /// By what it is connected.
    pub transport: Transport,
    /// From where, if that is known.
    pub address: Option<SocketAddr>,
    /// The database role that it acts under; absent before it has said who it is.
    pub role: Option<Box<str>>,
    /// The claim `sub`.
    pub subject: Option<Box<str>>,
    /// Seconds since it came.
    pub seconds: u32,
    /// Seconds since the peer last showed that it lives.
    pub silent_seconds: u32,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// Bytes that wait for its socket.
    pub outbox_bytes: usize,
    /// Whether some of its subscriptions read the ring at their own pace.
    pub behind: bool,
    /// The place up to which everything was delivered that it asked for; absent where that can't
    /// be said.
    pub cursor: Option<Cursor>,
    /// Bytes of log between that place and what the shard has routed.
    pub lag_bytes: u64,
    /// Row frames that it was sent.
    pub frames: u64,
    /// Bytes that its socket took.
    pub bytes: u64,
    /// Whether it is being closed.
    pub closing: bool,
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct SubscriptionRow {
    /// The session's number.
    pub session: u32,
    /// The client's name for it.
    pub id: Box<str>,
    /// The table.
    pub table: String,
    /// The client's filter, as it came.
    pub filter: Option<Box<str>>,
    /// The columns that it asked for.
    pub columns: Option<String>,
    /// The kinds of change, where it does not want all.
    pub events: Option<String>,
    /// How often a row may be told of.
    pub throttle: Option<String>,
    /// `live`, `behind`, `snapshot`, `parked` or `paused`.
    pub state: &'static str,
    /// Who decides what it sees.
    pub tier: Tier,
    /// Its group's place in the shard.
    pub group: usize,
}

/// One group.
#[derive(Clone, Debug)]
pub struct GroupRow {
    /// Its place in the shard.
    pub number: usize,
    /// The table.
    pub table: String,
    /// The column that it stands under in the index and the values there, as `column = value`; absent
    /// where every change of the table is tried.
    pub indexed_by: Option<String>,
    /// Its rule, filter and policy, with the claims put in.
    pub rule: String,
    /// The columns that its rule reads.
    pub reads: String,
    /// How many columns are delivered.
    pub columns: usize,
    /// The kinds of change, where not all are wanted.
    pub events: Option<String>,
    /// The dialect that it is encoded in.
    pub dialect: &'static str,
    /// Subscriptions that get what it gets at once.
    pub members: usize,
    /// All that belong to it, also those that are behind.
    pub attached: u32,
    /// Names among them: each is a head of its own.
    pub names: usize,
}

/// The ring, and how far the shard is.
#[derive(Clone, Debug)]
pub struct RingRow {
    /// Where a client may come back from at the earliest.
    pub tail: Position,
    /// The newest position.
    pub head: Position,
    /// Up to where everything was matched.
    pub matched: Position,
    /// Transactions, or parts of large ones.
    pub transactions: usize,
    /// Their memory.
    pub bytes: usize,
    /// How much memory they may take.
    pub bytes_max: usize,
    /// Since when the oldest is here, in seconds.
    pub oldest_seconds: Option<u64>,
    /// Since when the newest is here, in seconds.
    pub newest_seconds: Option<u64>,
    /// How old one may become, in seconds.
    pub seconds_max: u64,
    /// What came and was not matched yet.
    pub waiting: usize,
    /// Sessions of the shard.
    pub sessions: usize,
}

impl Shard {
    /// Notes where a session comes from.
    pub fn introduce(&mut self, key: SessionKey, peer: Peer) {
        if let Some(session) = self.session_mut(key) {
            session.peer = peer;
        }
    }

    /// Sessions from a place on.
    #[must_use]
    pub fn list_sessions(&self, from: usize) -> Part<SessionRow> {
        let rest = self.sessions.iter().skip_while(|(place, _)| *place < from);
        part(rest, |(place, session)| Some(self.session_row(self.key_at(place)?, session)))
    }

    /// The subscriptions of the sessions from a place on. A part has those of whole sessions.
    #[must_use]
    pub fn list_subscriptions(&self, from: usize) -> Part<SubscriptionRow> {
        let mut rows = Vec::new();
        for (place, session) in self.sessions.iter().skip_while(|(place, _)| *place < from) {
            if rows.len() >= PART {
                return Part { rows, next: Some(place) };
            }
            let Some(key) = self.key_at(place) else { continue };
            rows.extend(session.subscriptions.iter().map(|it| self.subscription_row(key, it)));
        }
        Part { rows, next: None }
    }

    /// Groups from a place on.
    #[must_use]
    pub fn list_groups(&self, from: usize) -> Part<GroupRow> {
        part(self.groups.from(from), |(place, group)| Some(group_row(place, group)))
    }

    /// The ring; none before the stream began.
    #[must_use]
    pub fn show_ring(&self) -> Option<RingRow> {
        let ring = self.ring.as_ref()?;
        let ages = ring.ages();
        Some(RingRow {
            tail: ring.tail(),
            head: ring.head(),
            matched: self.matched,
            transactions: ring.transactions(),
            bytes: ring.bytes(),
            bytes_max: ring.settings().bytes_max,
            oldest_seconds: ages.map(|(oldest, _)| oldest.as_secs()),
            newest_seconds: ages.map(|(_, newest)| newest.as_secs()),
            seconds_max: ring.settings().age_max.as_secs(),
            waiting: self.incoming.len(),
            sessions: self.sessions.len(),
        })
    }

    /// Ends the session of a number; `false` where there is none that is not ending already.
    pub fn kill(&mut self, number: u32) -> bool {
        let numbered = |key: &SessionKey| key.generation == number;
        self.keys().into_iter().find(numbered).is_some_and(|key| self.kill_session(key))
    }

    /// Ends all sessions whose claims have this subject; returns how many.
    pub fn kill_subject(&mut self, subject: &str) -> usize {
        let of = |key: &SessionKey| self.claims(*key).and_then(Claims::subject) == Some(subject);
        let keys: Vec<SessionKey> = self.keys().into_iter().filter(of).collect();
        keys.into_iter().filter(|key| self.kill_session(*key)).count()
    }

    fn kill_session(&mut self, key: SessionKey) -> bool {
        self.flush_session(key);
        let Some(session) = self.session_mut(key) else { return false };
        if session.close.is_some() {
            return false;
        }
        session.close = Some(Close::Killed);
        self.end_all(key);
        if let Some(session) = self.session(key) {
            session.outbox.wake();
        }
        true
    }

    fn key_at(&self, place: usize) -> Option<SessionKey> {
        self.key_of(u32::try_from(place).ok()?)
    }

    fn session_row(&self, key: SessionKey, session: &Session) -> SessionRow {
        let asked = session.subscriptions.iter().filter_map(|it| {
            let waits = !self.is_asked_up_to_date(key, &it.id);
            self.asked_place(key, &it.id).filter(|_| waits)
        });
        let behind = session.readers.iter().map(|reader| reader.place).chain(asked).min();
        let cursor = match behind {
            Some(place) => self.cursor_before(place),
            None => self.delivered_to(key),
        };
        let delivered = cursor.map(|cursor| cursor.position.lsn);
        let claims = session.claims.as_ref();
        SessionRow {
            number: session.generation,
            transport: session.peer.transport,
            address: session.peer.address,
            role: claims.map(|claims| claims.role().into()),
            subject: claims.and_then(Claims::subject).map(Into::into),
            seconds: self.seconds.saturating_sub(session.opened_at),
            silent_seconds: self.seconds.saturating_sub(session.heard_at),
            subscriptions: session.subscriptions.len(),
            outbox_bytes: session.outbox.queued(),
            behind: behind.is_some(),
            cursor,
            lag_bytes: delivered.map_or(0, |delivered| self.matched.lsn.bytes_since(delivered)),
            frames: session.delivered,
            bytes: session.outbox.written(),
            closing: session.close.is_some(),
        }
    }

    fn subscription_row(&self, key: SessionKey, subscription: &Subscription) -> SubscriptionRow {
        let request = &*subscription.request;
        let catalog = self.shared.catalog.current();
        let table = catalog.table(&request.table.schema, &request.table.name);
        SubscriptionRow {
            session: key.generation,
            id: (&*subscription.id).into(),
            table: request.table.to_string(),
            filter: request.filter.as_ref().map(|filter| match filter {
                Filter::Where(text) | Filter::Text(text) => text.clone(),
            }),
            columns: request.columns.as_ref().map(|columns| columns.join(", ")),
            events: events(request.events),
            throttle: request.throttle.as_deref().map(throttle),
            state: self.state_of(key, subscription),
            tier: match table {
                _ if self.asked(key, &subscription.id).is_some() => Tier::Asked,
                Some(table) => self.shared.policies.tier(table),
                None => Tier::Closed,
            },
            group: subscription.attachment.group,
        }
    }

    fn state_of(&self, key: SessionKey, subscription: &Subscription) -> &'static str {
        let id: &Rc<str> = &subscription.id;
        if subscription.member_at.is_some() || self.is_asked_up_to_date(key, id) {
            "live"
        } else if self.rests(key, id) {
            "paused"
        } else if self.is_in_snapshot(key, id) {
            "snapshot"
        } else if self.parked.cursor_of(key, id).is_some() {
            "parked"
        } else {
            "behind"
        }
    }
}

/// The first rows of what is left, and where the others begin.
fn part<A, T>(
    rest: impl Iterator<Item = (usize, A)>,
    row: impl Fn((usize, A)) -> Option<T>,
) -> Part<T> {
    let mut rows = Vec::new();
    for (place, item) in rest {
        if rows.len() >= PART {
            return Part { rows, next: Some(place) };
        }
        rows.extend(row((place, item)));
    }
    Part { rows, next: None }
}

fn group_row(number: usize, group: &Group) -> GroupRow {
    let shape = &group.shape;
    let relation = &shape.projection.relation;
    let reads = shape.rule.columns().iter().map(|position| column(relation, *position));
    let indexed_by = shape.rule.equality().map(|equality| {
        let value = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let column = column(relation, equality.column);
        match &*equality.texts {
            [only] => format!("{column} = {}", value(only)),
            texts => format!("{column} in {} values", texts.len()),
        }
    });
    GroupRow {
        number,
        table: format!("{}.{}", relation.schema, relation.name),
        indexed_by,
        rule: shape.rule.text(relation),
        reads: reads.collect::<Vec<_>>().join(", "),
        columns: shape.projection.columns.len(),
        events: events(shape.events),
        dialect: shape.dialect.name(),
        members: group.variants.iter().map(|variant| variant.members.len()).sum(),
        attached: group.attached,
        names: group.variants.iter().filter(|variant| variant.attached > 0).count(),
    }
}

fn column(relation: &Relation, position: usize) -> &str {
    relation.columns.get(position).map_or("", |column| &column.name)
}

fn events(events: Events) -> Option<String> {
    let wanted: Vec<&str> =
        Op::ALL.iter().filter(|op| events.contains(**op)).map(|op| op.name()).collect();
    (wanted.len() < Op::ALL.len()).then(|| wanted.join(", "))
}

fn throttle(throttle: &Throttle) -> String {
    let mut text = format!("{} ms", throttle.interval.as_millis());
    if let Some(key) = &throttle.key {
        let _infallible = write!(text, " by {}", key.join(", "));
    }
    if let Some(movement) = &throttle.movement {
        let _infallible = write!(text, " or {} m", movement.metres);
    }
    text
}

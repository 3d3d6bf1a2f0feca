//! Subscriptions whose policies are not decided here: Postgres is asked, and they read on when it has
//! answered.
//!
//! ```text
//! stand: idle ones at a place ──batch, needs──▶ Inquiry ──▶ Judge (ask::verdict)
//!    ▲                                                        │ Ruled
//!    └── deliver: decide with what Postgres said ◀── settle ◀─┘
//! ```
//!
//! Such a subscription is never live. It reads the ring from its place, as one that is behind does, so
//! that order is kept whatever an answer takes; while it waits, changes gather, and the next question
//! is about all of them. Nobody else waits for it, and who does not keep up with the ring gets a
//! `resync`, as every slow reader.
//!
//! What the rule of the subscription (filter, policies that are decided here) rejects is not asked.
//! Idle subscriptions at the same place whose policies read the same stand together: the images are
//! written once for all of them, and asked about for as many names as one round trip takes. What Postgres
//! has said before, and still would, is not asked again (`memo`).
//!
//! # Invariants
//!
//! - Nothing is delivered without a word of Postgres for exactly the image that is shown, under the
//!   role and the claims of the subscription as they are now.
//! - A word is of a moment after the change. It counts only where that moment saw everything up to the
//!   change, and, as far as the stream tells, none of the tables that the policies look into changed
//!   in between; else the subscription gets a `resync`. (`settle`)
//! - A subscription is in one stand, or in one round, or has its answer, or waits for the next second.

mod batch;
mod bits;
mod deliver;
mod memo;
mod plan;
mod recall;
mod round;
mod settle;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;
use tokio::sync::mpsc;

use crate::ask::verdict::Matter;
use crate::ask::verdict::Name;
use crate::ask::verdict::Ruled;
use crate::change::id::RelationId;
use crate::change::lsn::Lsn;
use crate::change::visibility::Visibility;
use crate::ring::Place;
use crate::route::asked::batch::Batch;
use crate::route::asked::deliver::Answered;
use crate::route::asked::memo::Memo;
use crate::route::asked::round::Round;
use crate::route::asked::settle::Settling;
use crate::route::handover::Handover;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;

pub(super) use plan::each;
pub(super) use plan::plan;

/// Inquiries that a shard waits for at once: two for each connection of the default, so that none
/// waits for the shard.
const ROUNDS_MAX: usize = 4;

/// The number of no inquiry.
const NO_TICKET: u64 = 0;

/// What is asked for a subscription, and what the answer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// In whose name.
    pub name: Arc<Name>,
    /// What is asked of every image.
    pub matter: Arc<Matter>,
    /// The tables that the policies look into, as far as the stream brings their changes; sorted.
    pub watched: Arc<[RelationId]>,
    /// Whether an answer holds until one of these tables changes, or the catalogue.
    pub steady: bool,
}

/// A subscription by its session and name.
type Member = (SessionKey, Rc<str>);

/// All subscriptions of a shard that are asked for.
#[derive(Debug)]
pub(crate) struct Policing {
    readers: HashMap<Member, Reader>,
    stands: Slab<Stand>,
    rounds: HashMap<u64, Round>,
    settling: Vec<Settling>,
    /// Those that ask again at the next second.
    later: Vec<Member>,
    /// Those that have read everything after their snapshot, and wait until the stream is where the
    /// log ended then.
    ahead: Vec<Member>,
    /// What is asked, each once, with how many readers want it.
    matters: Slab<(Arc<Matter>, usize)>,
    /// The images that were written last, for others at the same place.
    last: Option<Rc<Batch>>,
    /// What need not be asked again.
    memo: Memo,
    tickets: u64,
    /// Where answers come from; taken by the loop.
    pub(crate) ruled: Option<mpsc::Receiver<Ruled>>,
    tell: mpsc::Sender<Ruled>,
}

/// One of them.
#[derive(Debug)]
struct Reader {
    asked: Arc<Asked>,
    matter: usize,
    /// The next change that it was not told of; of an idle one, its stand's counts.
    place: Place,
    announce: bool,
    /// What the rows of its snapshot hold already, and where the log stood then.
    seen: Option<(Arc<Visibility>, Lsn)>,
    /// How often it asked in vain for what comes next.
    tries: u8,
    state: State,
}

/// What a reader waits for.
#[derive(Debug)]
enum State {
    /// More changes, or its turn: in a stand.
    Idle(usize),
    /// The answer to the inquiry of this number, or, for a moment, to be asked for.
    Round(u64),
    /// Room in its session's outbox.
    Answered(Answered),
    /// The next second.
    Later,
}

/// Idle readers at one place that want the same to be asked.
#[derive(Debug)]
struct Stand {
    place: Place,
    matter: usize,
    members: Vec<Member>,
}

impl Default for Policing {
    fn default() -> Policing {
        let (tell, ruled) = mpsc::channel(ROUNDS_MAX);
        Policing {
            readers: HashMap::new(),
            stands: Slab::new(),
            rounds: HashMap::new(),
            settling: Vec::new(),
            later: Vec::new(),
            ahead: Vec::new(),
            matters: Slab::new(),
            last: None,
            memo: Memo::default(),
            tickets: 0,
            ruled: Some(ruled),
            tell,
        }
    }
}

impl Policing {
    /// Lets an idle reader stand at a place.
    fn stand(&mut self, member: &Member, place: Place) {
        let Some(reader) = self.readers.get_mut(member) else { return };
        let matter = reader.matter;
        let same =
            |(_, stand): &(usize, &mut Stand)| stand.place == place && stand.matter == matter;
        let found = self.stands.iter_mut().find(same).map(|(at, _)| at);
        let at = found
            .unwrap_or_else(|| self.stands.insert(Stand { place, matter, members: Vec::new() }));
        if let Some(stand) = self.stands.get_mut(at) {
            stand.members.push(member.clone());
        }
        (reader.place, reader.state) = (place, State::Idle(at));
    }

    /// Begins again with everything, in another history.
    pub(crate) fn clear(&mut self) {
        self.readers.clear();
        self.stands.clear();
        self.rounds.clear();
        self.settling.clear();
        self.later.clear();
        self.ahead.clear();
        self.matters.clear();
        self.last = None;
        self.memo.clear();
    }

    fn forget(&mut self, member: &Member) -> Option<(Place, bool)> {
        let reader = self.readers.remove(member)?;
        let mut place = reader.place;
        match reader.state {
            State::Idle(at) => {
                if let Some(stand) = self.stands.get_mut(at) {
                    place = stand.place;
                    stand.members.retain(|known| known != member);
                    if stand.members.is_empty() {
                        self.stands.remove(at);
                    }
                }
            }
            State::Later => self.later.retain(|known| known != member),
            // The answer finds nobody.
            State::Round(_) | State::Answered(_) => {}
        }
        if let Some((_, readers)) = self.matters.get_mut(reader.matter) {
            *readers -= 1;
            if *readers == 0 {
                self.matters.remove(reader.matter);
                self.memo.forget(reader.matter);
                self.last = None;
            }
        }
        Some((place, reader.announce))
    }

    fn place_of(&self, member: &Member) -> Option<Place> {
        let reader = self.readers.get(member)?;
        match reader.state {
            State::Idle(at) => self.stands.get(at).map(|stand| stand.place),
            _ => Some(reader.place),
        }
    }
}

impl Shard {
    /// What is asked for a subscription, where Postgres is.
    pub(crate) fn asked(&self, key: SessionKey, id: &str) -> Option<Arc<Asked>> {
        let attachment = self.session(key)?.subscription(id)?.attachment;
        self.groups.get(attachment.group)?.shape.asked.clone()
    }

    /// Lets a subscription read on from now; `false` where Postgres is not asked for it.
    pub(crate) fn begin_asked(&mut self, key: SessionKey, id: &str) -> bool {
        if self.asked(key, id).is_none() {
            return false;
        }
        let place = self.place().unwrap_or_default();
        let Some(session) = self.session_mut(key) else { return true };
        session.forget_reader_of(id);
        let Some(subscription) = session.subscription_mut(id) else { return true };
        if let Some(paced) = &mut subscription.paced {
            paced.caught_up();
        }
        let member = (key, Rc::clone(&subscription.id));
        self.enlist(&member, (place, false), None);
        true
    }

    /// Takes those over from the session's first reader, which has read its rows, that Postgres is
    /// asked for; `false` where there is none.
    pub(crate) fn adopt_asked(&mut self, key: SessionKey) -> bool {
        let Some(reader) = self.session(key).and_then(|it| it.readers.first()) else {
            return false;
        };
        let (place, announce) = (reader.place, reader.announce);
        let handover = reader.handover.as_deref();
        if handover.is_some_and(|handover| handover.rows.is_some()) {
            return false;
        }
        let seen = handover.map(Handover::seen);
        let ids = reader.ids.iter().filter(|id| self.asked(key, id).is_some());
        let ids: Vec<Rc<str>> = ids.cloned().collect();
        for id in &ids {
            if let Some(session) = self.session_mut(key) {
                session.forget_reader_of(id);
            }
            self.enlist(&(key, Rc::clone(id)), (place, announce), seen.clone());
        }
        !ids.is_empty()
    }

    fn enlist(
        &mut self,
        member: &Member,
        (place, announce): (Place, bool),
        seen: Option<(Arc<Visibility>, Lsn)>,
    ) {
        self.policing.forget(member);
        let Some(asked) = self.asked(member.0, &member.1) else { return };
        let policing = &mut self.policing;
        let known = policing.matters.iter().find(|(_, (matter, _))| *matter == asked.matter);
        let matter = match known.map(|(at, _)| at) {
            Some(at) => at,
            None => policing.matters.insert((Arc::clone(&asked.matter), 0)),
        };
        if let Some((_, readers)) = policing.matters.get_mut(matter) {
            *readers += 1;
        }
        let state = State::Round(NO_TICKET);
        let reader = Reader { asked, matter, place, announce, seen, tries: 0, state };
        policing.readers.insert(member.clone(), reader);
        self.reach(member, place);
    }

    /// Ends a subscription's being asked for; tells where it was, and whether it is to be told when it
    /// has what it missed.
    pub(crate) fn forget_asked(&mut self, key: SessionKey, id: &str) -> Option<(Place, bool)> {
        if self.policing.readers.is_empty() {
            return None;
        }
        self.policing.forget(&(key, id.into()))
    }

    /// The next change that a subscription which is asked for was not told of.
    pub(crate) fn asked_place(&self, key: SessionKey, id: &Rc<str>) -> Option<Place> {
        if self.policing.readers.is_empty() {
            return None;
        }
        self.policing.place_of(&(key, Rc::clone(id)))
    }

    /// Whether a subscription that is asked for was told of everything that was matched.
    pub(crate) fn is_asked_up_to_date(&self, key: SessionKey, id: &Rc<str>) -> bool {
        let place = self.asked_place(key, id);
        place.is_some_and(|place| self.place().is_none_or(|end| place >= end))
            && !self.is_asked_in_snapshot(key, id)
    }

    /// Whether a subscription that is asked for has not had its snapshot whole.
    pub(crate) fn is_asked_in_snapshot(&self, key: SessionKey, id: &Rc<str>) -> bool {
        let readers = &self.policing.readers;
        !readers.is_empty()
            && readers.get(&(key, Rc::clone(id))).is_some_and(|reader| reader.seen.is_some())
    }
}

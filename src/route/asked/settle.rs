//! Whether an answer counts.
//!
//! It is of a moment after the changes that it is about. It must have seen all of them, and what came
//! before: a commit stands in the log before others see it. And where one of the tables that the
//! policies look into was changed between a change and that moment, image and answer would be of two
//! moments; such a pair may never have existed, so it is not shown. Which of these transactions the
//! answer saw is known when the stream has come to where the log ended then.

use std::collections::HashSet;
use std::rc::Rc;

use crate::ask::AskError;
use crate::ask::Question;
use crate::ask::verdict::Ruled;
use crate::ask::verdict::Ruling;
use crate::change::cursor::Position;
use crate::change::id::Xid;
use crate::change::lsn::Lsn;
use crate::ring::Gap;
use crate::route::asked::Member;
use crate::route::asked::State;
use crate::route::asked::batch::Batch;
use crate::route::asked::batch::Part;
use crate::route::asked::deliver::Answered;
use crate::route::asked::round::Round;
use crate::route::plan::Refusal;
use crate::route::shard::Shard;

/// How often a reader asks again at once, before it waits for the next second.
const HASTY_TRIES: u8 = 3;
/// How often it asks at all until it gets an answer.
const TRIES_MAX: u8 = 10;

/// An answer that waits until the stream is where the log ended when it was given.
#[derive(Debug)]
pub(super) struct Settling {
    round: Round,
    ruling: Ruling,
}

/// What happened to the tables that the policies look into.
#[derive(Debug, Default)]
struct Touches {
    /// The last transaction that changed one of them.
    last: Option<u64>,
    xids: HashSet<Xid>,
    /// The batch's transactions that did so themselves.
    own: HashSet<u64>,
}

impl Touches {
    /// Whether something that was asked about is of a time before the last of them. The row before a
    /// change is of a time before the change's own transaction.
    fn spoil(&self, batch: &Batch, images: Option<&[usize]>) -> bool {
        let Some(last) = self.last else { return false };
        let needs = |part: Part| match (part, images) {
            (Part::At(_), None) => true,
            (Part::At(at), Some(images)) => images.binary_search(&at).is_ok(),
            _ => false,
        };
        batch.entries.iter().any(|entry| {
            let at = entry.place.transaction;
            (at < last && (needs(entry.new) || needs(entry.old)))
                || (self.own.contains(&at) && needs(entry.old))
        })
    }
}

impl Shard {
    /// Takes an answer.
    pub(crate) fn take_ruled(&mut self, ruled: Ruled) {
        let Some(round) = self.policing.rounds.remove(&ruled.ticket) else { return };
        let ruling = match ruled.ruling {
            Ok(ruling) => ruling,
            Err(error) => {
                for (member, _) in round.members {
                    self.ask_again_or_give_up(&member, round.ticket, &error);
                }
                return;
            }
        };
        if !round.watched.is_empty() && Position::after(ruling.insert_lsn) > self.matched {
            // On a quiet server nobody else makes the stream go on.
            let _later = self.ask(Question::Flush(ruling.insert_lsn));
            self.policing.settling.push(Settling { round, ruling });
            return;
        }
        self.settle(round, ruling);
    }

    /// Takes the answers that were waited with.
    pub(crate) fn settle_ruled(&mut self) {
        if !self.policing.ahead.is_empty() {
            self.announce_ahead();
        }
        if self.policing.settling.is_empty() {
            return;
        }
        let matched = self.matched;
        let reached = |it: &mut Settling| Position::after(it.ruling.insert_lsn) <= matched;
        let reached: Vec<Settling> = self.policing.settling.extract_if(.., reached).collect();
        for Settling { round, ruling } in reached {
            self.settle(round, ruling);
        }
    }

    fn settle(&mut self, round: Round, ruling: Ruling) {
        let Some(ring) = self.ring.as_mut() else { return };
        let batch = Rc::clone(&round.batch);
        let unseen = ring.first_unseen(&ruling.visibility);
        let has_seen = unseen.is_ok_and(|unseen| unseen.transaction > batch.last());
        let touches = self.touches(&round, &ruling);
        if let Ok(unseen) = unseen {
            self.learn(&round, &ruling, unseen.transaction);
        }
        let ruling = Rc::new(ruling);
        let Round { ticket, members, cases, .. } = round;
        for (member, case) in members {
            if !has_seen {
                self.ask_again_or_give_up(&member, ticket, &AskError::Busy);
                continue;
            }
            if let Err(error) = ruling.words.get(case).unwrap_or(&Err(AskError::Failed)) {
                let error = error.clone();
                self.ask_again_or_give_up(&member, ticket, &error);
                continue;
            }
            let Some(about) = cases.get(case) else { continue };
            if self.is_of(&member, ticket) && touches.spoil(&batch, about.images.as_deref()) {
                self.resync(member.0, &member.1, Gap::Undecided);
                continue;
            }
            let answered = Answered::new(&batch, &ruling, (case, about));
            self.take_words(&member, ticket, answered);
        }
    }

    fn is_of(&self, member: &Member, ticket: u64) -> bool {
        let reader = self.policing.readers.get(member);
        reader.is_some_and(|it| matches!(it.state, State::Round(known) if known == ticket))
    }

    /// The transactions that the answer saw, from the batch's first on, and that changed a table which
    /// the policies look into.
    fn touches(&self, round: &Round, ruling: &Ruling) -> Touches {
        let watched = &round.watched;
        let (Some(ring), Some(entry)) = (self.ring.as_ref(), round.batch.entries.first()) else {
            return Touches::default();
        };
        if watched.is_empty() {
            return Touches::default();
        }
        let xid = |number: u64| ring.get(number).map(|transaction| transaction.xid);
        // Another part of the same transaction may lie before it.
        let mut first = entry.place.transaction;
        while first > 0 && xid(first - 1).is_some_and(|before| Some(before) == xid(first)) {
            first -= 1;
        }
        let mut touches = Touches::default();
        for number in first..ring.end().transaction {
            let Some(transaction) = ring.get(number) else { continue };
            let mut relations = transaction.relations().iter();
            if relations.any(|it| watched.binary_search(&it.id).is_ok())
                && ruling.visibility.sees(transaction.xid)
            {
                touches.last = Some(number);
                touches.xids.insert(transaction.xid);
            }
        }
        let places = round.batch.entries.iter().map(|entry| entry.place.transaction);
        touches.own =
            places.filter(|at| xid(*at).is_some_and(|it| touches.xids.contains(&it))).collect();
        touches
    }

    /// There is no answer for a reader: it asks again, or misses what it asked about.
    fn ask_again_or_give_up(&mut self, member: &Member, ticket: u64, error: &AskError) {
        if !self.is_of(member, ticket) {
            return;
        }
        let Some(reader) = self.policing.readers.get_mut(member) else { return };
        reader.tries = reader.tries.saturating_add(1);
        let (tries, place) = (reader.tries, reader.place);
        match error {
            AskError::Late { .. } => self.resync(member.0, &member.1, Gap::Undecided),
            AskError::Forbidden => {
                let refusal = Refusal::Snapshot(AskError::Forbidden);
                self.refuse(member.0, &member.1, &refusal);
            }
            _ if tries >= TRIES_MAX => {
                let gap = match error {
                    AskError::Changed => Gap::SchemaChanged,
                    _ => Gap::Undecided,
                };
                self.resync(member.0, &member.1, gap);
            }
            AskError::Busy if tries <= HASTY_TRIES => self.policing.stand(member, place),
            _ => self.ask_later(member),
        }
    }

    /// Lets a reader ask again at the next second.
    pub(super) fn ask_later(&mut self, member: &Member) {
        let policing = &mut self.policing;
        if let Some(reader) = policing.readers.get_mut(member) {
            reader.state = State::Later;
            policing.later.push(member.clone());
        }
    }

    /// A second has passed.
    pub(crate) fn tick_asked(&mut self) {
        let policing = &mut self.policing;
        for member in std::mem::take(&mut policing.later) {
            let place = policing.readers.get(&member).map(|reader| reader.place);
            if let Some(place) = place {
                policing.stand(&member, place);
            }
        }
        let waits = !self.policing.settling.is_empty() || !self.policing.ahead.is_empty();
        if waits {
            let _later = self.ask(Question::Flush(Lsn::new(u64::MAX)));
        }
    }
}

//! Asking: what stands together is asked about together.

use std::collections::HashMap;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use crate::ask::AskError;
use crate::ask::verdict::Case;
use crate::ask::verdict::Inquiry;
use crate::ask::verdict::Matter;
use crate::ask::verdict::NAMES_MAX;
use crate::ask::verdict::Name;
use crate::change::id::RelationId;
use crate::change::transaction::ChangeKind;
use crate::change::visibility::Visibility;
use crate::ring::Gap;
use crate::ring::Place;
use crate::route::asked::Member;
use crate::route::asked::NO_TICKET;
use crate::route::asked::ROUNDS_MAX;
use crate::route::asked::State;
use crate::route::asked::batch::Batch;
use crate::route::asked::batch::Part;
use crate::route::asked::bits::Bits;
use crate::route::asked::deliver::Answered;
use crate::route::asked::deliver::Known;
use crate::route::image::ImageKind;
use crate::route::image::Images;
use crate::route::shard::Shard;
use crate::rule::Rule;
use crate::rule::Verdict;

/// Subscriptions that are asked for at once.
const MEMBERS_MAX: usize = 256;

/// An inquiry on its way, and whom it is for.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) ticket: u64,
    pub(super) batch: Rc<Batch>,
    /// Each with the place of its name's case, and which images it needs.
    pub(super) members: Vec<(Member, usize)>,
    /// What each case is about, as it was asked.
    pub(super) cases: Vec<About>,
    pub(super) matter: Arc<Matter>,
    /// The tables that the policies look into.
    pub(super) watched: Arc<[RelationId]>,
    /// What the catalogue was when it was asked, where the answer is to be remembered.
    pub(super) memorable: Option<u64>,
}

/// What a case is about.
#[derive(Debug)]
pub(super) struct About {
    pub(super) name: Arc<Name>,
    /// The images that are asked about; absent: all.
    pub(super) images: Option<Box<[usize]>>,
    /// What is known of the others.
    pub(super) known: Known,
}

/// One reader that is about to ask.
struct Wish {
    member: Member,
    name: Arc<Name>,
    rule: Rule,
    needs: Bits,
}

/// What is wanted under one name.
pub(super) struct Want {
    pub(super) name: Arc<Name>,
    members: Vec<Member>,
    /// The images that are to be asked about.
    pub(super) needs: Bits,
    pub(super) known: Known,
}

impl Shard {
    /// Asks for some subscriptions that have something to ask; `false` where there are none, or as
    /// much is asked as may be.
    pub(crate) fn ask_some(&mut self) -> bool {
        let Some(end) = self.place() else { return false };
        let policing = &mut self.policing;
        if policing.readers.is_empty()
            || policing.rounds.len() + policing.settling.len() >= ROUNDS_MAX
        {
            return false;
        }
        let behind = policing.stands.iter().filter(|(_, stand)| stand.place < end);
        let Some((at, stand)) = behind.min_by_key(|(_, stand)| stand.place) else { return false };
        let (place, matter) = (stand.place, stand.matter);
        let evicted = self.ring.as_ref().is_none_or(|ring| ring.evicted(place));
        let batch = if evicted { Err(Gap::TooOld) } else { self.gather(matter, place, end) };
        let batch = match batch {
            Ok(batch) => batch,
            Err(gap) => {
                self.give_up_stand(at, gap);
                return true;
            }
        };
        if batch.entries.is_empty() {
            self.advance_stand(at, batch.end, end);
            return true;
        }
        let members = self.take_members(at);
        self.ask_for(members, &batch)
    }

    fn gather(&mut self, matter: usize, place: Place, end: Place) -> Result<Rc<Batch>, Gap> {
        let policing = &mut self.policing;
        let same = |last: &&Rc<Batch>| last.matter == matter && last.begin == place;
        if let Some(last) = policing.last.as_ref().filter(same) {
            return Ok(Rc::clone(last));
        }
        let (Some(ring), Some((of, _))) = (self.ring.as_ref(), policing.matters.get(matter)) else {
            return Err(Gap::TooOld);
        };
        let (batch, shared) = Batch::gather(ring, (of, matter), place, end)?;
        self.shared.metrics.verdicts.shared.add(shared);
        let batch = Rc::new(batch);
        policing.last = Some(Rc::clone(&batch));
        Ok(batch)
    }

    /// Whoever stands there missed changes.
    fn give_up_stand(&mut self, at: usize, gap: Gap) {
        let Some(stand) = self.policing.stands.get(at) else { return };
        for (key, id) in stand.members.clone() {
            self.resync(key, &id, gap);
        }
    }

    /// Nothing concerns those who stand there: they go on as one.
    fn advance_stand(&mut self, at: usize, to: Place, end: Place) {
        let policing = &mut self.policing;
        let Some(stand) = policing.stands.get_mut(at) else { return };
        let matter = stand.matter;
        stand.place = to;
        let same = |known: usize, other: &super::Stand| {
            known != at && other.place == to && other.matter == matter
        };
        let other = policing.stands.iter().find(|(known, stand)| same(*known, stand));
        let mut at = at;
        if let Some((other, _)) = other {
            let moved = policing.stands.remove(at).members;
            for member in &moved {
                if let Some(reader) = policing.readers.get_mut(member) {
                    reader.state = State::Idle(other);
                }
            }
            if let Some(stand) = policing.stands.get_mut(other) {
                stand.members.extend(moved);
            }
            at = other;
        }
        if to >= end {
            self.announce_stand(at);
        }
    }

    /// Takes from a stand as many as can be asked for at once.
    fn take_members(&mut self, at: usize) -> Vec<Member> {
        let policing = &mut self.policing;
        let Some(stand) = policing.stands.get_mut(at) else { return Vec::new() };
        let mut names: HashSet<Arc<Name>> = HashSet::new();
        let mut members = Vec::new();
        while let Some(member) = stand.members.pop() {
            let Some(reader) = policing.readers.get_mut(&member) else { continue };
            names.insert(Arc::clone(&reader.asked.name));
            (reader.state, reader.place) = (State::Round(NO_TICKET), stand.place);
            members.push(member);
            if names.len() >= NAMES_MAX || members.len() >= MEMBERS_MAX {
                break;
            }
        }
        if stand.members.is_empty() {
            policing.stands.remove(at);
        }
        members
    }

    fn ask_for(&mut self, members: Vec<Member>, batch: &Rc<Batch>) -> bool {
        let mut wishes: Vec<Wish> =
            members.into_iter().filter_map(|member| self.wish(member)).collect();
        self.note_needs(&mut wishes, batch);
        let truncates = batch.entries.iter().any(|entry| entry.kind == ImageKind::Truncate);
        let (asks, rest): (Vec<Wish>, Vec<Wish>) =
            wishes.into_iter().partition(|wish| !wish.needs.is_empty());
        for wish in rest {
            if truncates || batch.entries.iter().any(|it| it.new == Part::Missing) {
                self.take_words(
                    &wish.member,
                    NO_TICKET,
                    Answered::without(batch, Known::default()),
                );
            } else {
                self.reach(&wish.member, batch.end);
            }
        }
        if asks.is_empty() {
            return true;
        }
        let Some((asked, _)) = self.policing.matters.get(batch.matter) else { return true };
        let matter = Arc::clone(asked);
        let (watched, steady) = self.watched(&asks);
        let mut wants = wants(asks);
        let memorable = if steady { self.recall(batch, &watched, &mut wants) } else { None };
        let (wants, known): (Vec<Want>, Vec<Want>) =
            wants.into_iter().partition(|want| !want.needs.is_empty());
        for want in known {
            for member in &want.members {
                let answered = Answered::without(batch, Rc::clone(&want.known));
                self.take_words(member, NO_TICKET, answered);
            }
        }
        if wants.is_empty() {
            return true;
        }
        let all = batch.images.len();
        let mut members = Vec::new();
        let mut cases = Vec::with_capacity(wants.len());
        for Want { name, members: of, needs, known } in wants {
            members.extend(of.into_iter().map(|member| (member, cases.len())));
            let images = (needs.len() < all).then(|| needs.iter().collect());
            cases.push(About { name, images, known });
        }
        let (batch, ticket) = (Rc::clone(batch), NO_TICKET);
        self.inquire(Round { ticket, batch, members, cases, matter, watched, memorable })
    }

    /// Sends a round on its way; `false` where as much is asked as may be.
    fn inquire(&mut self, round: Round) -> bool {
        let case =
            |about: &About| Case { name: Arc::clone(&about.name), images: about.images.clone() };
        let inquiry = Inquiry {
            matter: Arc::clone(&round.matter),
            images: Arc::clone(&round.batch.images),
            cases: round.cases.iter().map(case).collect(),
        };
        let policing = &mut self.policing;
        policing.tickets += 1;
        let (ticket, tell) = (policing.tickets, policing.tell.clone());
        match self.shared.asker.inquirer().ask(inquiry, ticket, &tell) {
            Ok(()) => {
                for (member, _) in &round.members {
                    if let Some(reader) = self.policing.readers.get_mut(member) {
                        reader.state = State::Round(ticket);
                    }
                }
                let changes = round.members.len() * round.batch.entries.len();
                self.shared
                    .metrics
                    .verdicts
                    .changes
                    .add(u64::try_from(changes).unwrap_or(u64::MAX));
                self.policing.rounds.insert(ticket, Round { ticket, ..round });
                true
            }
            Err(error) => {
                tracing::debug!(%error, "too much is asked at once");
                for (member, _) in round.members {
                    self.ask_later(&member);
                }
                error != AskError::Busy
            }
        }
    }

    /// The tables that the policies look into, and whether an answer holds while they stay.
    fn watched(&self, wishes: &[Wish]) -> (Arc<[RelationId]>, bool) {
        let readers = &self.policing.readers;
        let mut asked = wishes.iter().filter_map(|it| readers.get(&it.member)).map(|it| &it.asked);
        let Some(first) = asked.next() else { return (Arc::default(), false) };
        // Those that were planned by another catalogue are about to be planned again.
        let steady = first.steady && asked.all(|it| it.steady && it.watched == first.watched);
        (Arc::clone(&first.watched), steady)
    }

    fn wish(&self, member: Member) -> Option<Wish> {
        let reader = self.policing.readers.get(&member)?;
        let attachment = self.session(member.0)?.subscription(&member.1)?.attachment;
        let rule = self.groups.get(attachment.group)?.shape.rule.clone();
        let name = Arc::clone(&reader.asked.name);
        Some(Wish { member, name, rule, needs: Bits::default() })
    }

    /// Notes for each reader which images its own rule does not reject.
    fn note_needs(&self, wishes: &mut [Wish], batch: &Batch) {
        let Some(ring) = &self.ring else { return };
        let seen = wishes.iter().map(|wish| {
            let reader = self.policing.readers.get(&wish.member)?;
            reader.seen.as_ref().map(|(seen, _)| Arc::clone(seen))
        });
        let seen: Vec<Option<Arc<Visibility>>> = seen.collect();
        for entry in &batch.entries {
            let Some(transaction) = ring.get(entry.place.transaction) else { continue };
            let Some(change) = transaction.changes_from(entry.place.change).next() else {
                continue;
            };
            if matches!(change.kind, ChangeKind::Truncate) {
                continue;
            }
            let images = Images::of(change.relation, &change.kind);
            for (wish, seen) in wishes.iter_mut().zip(&seen) {
                if seen.as_ref().is_some_and(|seen| seen.sees(transaction.xid)) {
                    continue;
                }
                for (part, row) in [(entry.old, &images.old), (entry.new, &images.new)] {
                    let (Part::At(at), Some(row)) = (part, row) else { continue };
                    if wish.rule.evaluate(row) != Verdict::Rejects {
                        wish.needs.insert(at);
                    }
                }
            }
        }
    }
}

/// What is wanted under each name. Plans are discarded where the role changes, so those of one role stand
/// together.
fn wants(mut wishes: Vec<Wish>) -> Vec<Want> {
    wishes.sort_by(|one, other| one.name.role.cmp(&other.name.role));
    let mut wants: Vec<Want> = Vec::new();
    let mut places: HashMap<Arc<Name>, usize> = HashMap::new();
    for Wish { member, name, needs, .. } in wishes {
        let at = *places.entry(Arc::clone(&name)).or_insert_with(|| {
            let (members, needs) = (Vec::new(), Bits::default());
            wants.push(Want { name, members, needs, known: Known::default() });
            wants.len() - 1
        });
        if let Some(want) = wants.get_mut(at) {
            want.members.push(member);
            want.needs.extend(&needs);
        }
    }
    wants
}

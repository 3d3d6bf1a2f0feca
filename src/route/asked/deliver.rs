//! Telling: changes whose words are there, in their order.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::ask::verdict::Ruling;
use crate::ask::verdict::Word;
use crate::change::cursor::Position;
use crate::change::visibility::Visibility;
use crate::ring::Gap;
use crate::ring::Place;
use crate::route::asked::Member;
use crate::route::asked::NO_TICKET;
use crate::route::asked::State;
use crate::route::asked::batch::Batch;
use crate::route::asked::batch::Entry;
use crate::route::asked::batch::Part;
use crate::route::asked::round::About;
use crate::route::conflation::Offer;
use crate::route::decide::Said;
use crate::route::encode::Notice;
use crate::route::group::Shape;
use crate::route::group::Standing;
use crate::route::image::ImageKind;
use crate::route::image::Images;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::shard::writing;
use crate::route::throttle::Keying;
use crate::rule::Undecided;
use crate::rule::Verdict;

/// A batch with the words that one name got for it.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    batch: Rc<Batch>,
    /// The next entry.
    next: usize,
    /// Absent where nothing had to be asked.
    words: Option<(Rc<Ruling>, usize)>,
    /// Which images the words are about; absent: all.
    images: Option<Box<[usize]>>,
    /// What was known before, by the images' places.
    known: Known,
}

/// Words that need not be asked for, by the images' places.
pub(super) type Known = Rc<[(usize, Word)]>;

/// What a piece of a batch is written for.
struct Target {
    id: Rc<str>,
    shape: Shape,
    head: Rc<[u8]>,
    keying: Option<Rc<Keying>>,
    /// What the rows of its snapshot hold already.
    seen: Option<Arc<Visibility>>,
}

/// What was written of it.
#[derive(Default)]
struct Written {
    frames: Vec<u8>,
    count: usize,
    offers: Vec<(Rc<str>, Offer)>,
    offered: usize,
}

impl Answered {
    pub(super) fn new(
        batch: &Rc<Batch>,
        ruling: &Rc<Ruling>,
        (case, about): (usize, &About),
    ) -> Answered {
        let words = Some((Rc::clone(ruling), case));
        let (images, known) = (about.images.clone(), Rc::clone(&about.known));
        Answered { batch: Rc::clone(batch), next: 0, words, images, known }
    }

    /// A batch of which nothing had to be asked.
    pub(super) fn without(batch: &Rc<Batch>, known: Known) -> Answered {
        Answered { batch: Rc::clone(batch), next: 0, words: None, images: None, known }
    }

    fn said(&self, part: Part) -> Verdict {
        match part {
            Part::Absent => Verdict::Rejects,
            Part::Missing => Verdict::Undecided(Undecided::MissingOperand),
            Part::At(image) => match self.word(image) {
                Some(Word::Seen) => Verdict::Admits,
                // Nothing was asked where the subscription's own rule rejects.
                Some(Word::Hidden | Word::Fails) | None => Verdict::Rejects,
            },
        }
    }

    /// Whether nobody is told of a change, whatever else it is: the row was not seen before, and is not.
    fn is_unseen(&self, entry: Entry) -> bool {
        let hides = |part| matches!(part, Part::At(_)) && self.said(part) == Verdict::Rejects;
        match entry.kind {
            ImageKind::Insert => hides(entry.new),
            ImageKind::Update => hides(entry.old) && hides(entry.new),
            ImageKind::Delete => hides(entry.old),
            ImageKind::Snapshot | ImageKind::Truncate => false,
        }
    }

    fn word(&self, image: usize) -> Option<Word> {
        if let Ok(at) = self.known.binary_search_by_key(&image, |(at, _)| *at) {
            return self.known.get(at).map(|(_, word)| *word);
        }
        let (ruling, case) = self.words.as_ref()?;
        let words = ruling.words.get(*case)?.as_ref().ok()?;
        let at = match &self.images {
            Some(images) => images.binary_search(&image).ok()?,
            None => image,
        };
        words.get(at).copied()
    }
}

impl Shard {
    /// Takes the words that an inquiry brought for a reader, and tells it what fits. One that was
    /// judged anew meanwhile waits for another inquiry.
    pub(super) fn take_words(&mut self, member: &Member, ticket: u64, answered: Answered) {
        let Some(reader) = self.policing.readers.get_mut(member) else { return };
        if !matches!(reader.state, State::Round(known) if known == ticket) {
            return;
        }
        (reader.state, reader.tries) = (State::Answered(answered), 0);
        self.tell_answered(member);
    }

    /// Tells a session what waits for room in its outbox; `false` where nothing does.
    pub(crate) fn read_answered(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.session_mut(key) else { return false };
        if !std::mem::take(&mut session.answered) {
            return false;
        }
        let ids: Vec<Rc<str>> = session.subscriptions.iter().map(|it| Rc::clone(&it.id)).collect();
        for id in ids {
            self.tell_answered(&(key, id));
        }
        true
    }

    /// Tells a reader what it has words for, as far as there is room; then it is idle again.
    fn tell_answered(&mut self, member: &Member) {
        let (key, id) = (member.0, Rc::clone(&member.1));
        let Some(reader) = self.policing.readers.get_mut(member) else { return };
        if !matches!(reader.state, State::Answered(_)) {
            return;
        }
        let State::Answered(mut answered) =
            std::mem::replace(&mut reader.state, State::Round(NO_TICKET))
        else {
            return;
        };
        let seen = reader.seen.as_ref().map(|(seen, _)| Arc::clone(seen));
        let Some(target) = self.target(member, seen) else { return };
        while answered.next < answered.batch.entries.len() {
            let room = self.session(key).filter(|it| it.outbox.has_room() && !it.stalled);
            let Some(room) = room.map(|session| session.outbox.slice_bytes()) else { break };
            let bytes_max = self.settings.steps.slice_bytes.min(room);
            let Some(written) = self.write_piece(&target, &mut answered, bytes_max) else {
                self.resync(key, &id, Gap::TooOld);
                return;
            };
            self.send_written(key, written);
        }
        let Some(entry) = answered.batch.entries.get(answered.next) else {
            let end = answered.batch.end;
            return self.reach(member, end);
        };
        if let Some(reader) = self.policing.readers.get_mut(member) {
            reader.place = entry.place;
            reader.state = State::Answered(answered);
        }
        if let Some(session) = self.session_mut(key) {
            session.answered = true;
        }
        self.schedule(key);
    }

    fn target(&self, member: &Member, seen: Option<Arc<Visibility>>) -> Option<Target> {
        let attachment = self.session(member.0)?.subscription(&member.1)?.attachment;
        let group = self.groups.get(attachment.group)?;
        let variant = group.variants.get(attachment.variant)?;
        Some(Target {
            id: Rc::clone(&member.1),
            shape: group.shape.clone(),
            head: Rc::clone(&variant.head),
            keying: variant.keying.clone(),
            seen,
        })
    }

    /// Decides and encodes entries until as much is written as may be; `None` where one was evicted.
    fn write_piece(
        &self,
        target: &Target,
        answered: &mut Answered,
        bytes_max: usize,
    ) -> Option<Written> {
        let ring = self.ring.as_ref()?;
        let (mut written, mut body) = (Written::default(), Vec::new());
        while written.frames.len() + written.offered < bytes_max {
            let Some(entry) = answered.batch.entries.get(answered.next).copied() else { break };
            if answered.is_unseen(entry) {
                answered.next += 1;
                continue;
            }
            let transaction = ring.get(entry.place.transaction)?;
            let change = transaction.changes_from(entry.place.change).next()?;
            answered.next += 1;
            if target.seen.as_ref().is_some_and(|seen| seen.sees(transaction.xid)) {
                continue;
            }
            let said = Said { old: answered.said(entry.old), new: answered.said(entry.new) };
            let images = Images::of(change.relation, &change.kind);
            let standing = Standing::of(ring.source(), transaction, &change);
            body.clear();
            let writing = writing(&self.settings, &self.meter);
            let shape = &target.shape;
            let Some(op) = shape.encode_said(&images, said, (standing, writing), &mut body) else {
                continue;
            };
            if let Some(keying) = &target.keying {
                let subject = keying.subject(op, &images, &shape.projection);
                written.offered += body.len();
                let offer = Offer::of(subject, standing.cursor, &body);
                written.offers.push((Rc::clone(&target.id), offer));
                continue;
            }
            // Before the snapshot is whole nothing can be resumed from.
            let cursor = Some(standing.cursor).filter(|_| target.seen.is_none());
            shape.dialect.frame(&target.head, &body, cursor, &mut written.frames);
            written.count += 1;
        }
        Some(written)
    }

    fn send_written(&mut self, key: SessionKey, written: Written) {
        let Written { frames, count, offers, .. } = written;
        let Some(session) = self.session_mut(key) else { return };
        if !frames.is_empty() {
            session.outbox.push_slice(&[Bytes::from(frames)]);
        }
        session.count_delivered(count);
        self.meter.delivered(count);
        self.offer_read(key, &offers);
    }

    /// A reader has been told everything before a place: it is idle there, and where that is the end
    /// it has caught up.
    pub(super) fn reach(&mut self, member: &Member, place: Place) {
        self.policing.stand(member, place);
        if self.place().is_some_and(|end| place >= end) {
            self.announce(member);
        }
        self.wake.notify_one();
    }

    /// Tells those of a stand that have caught up.
    pub(super) fn announce_stand(&mut self, at: usize) {
        let policing = &self.policing;
        let Some(stand) = policing.stands.get(at) else { return };
        let waits = |member: &&Member| {
            policing.readers.get(*member).is_some_and(|it| it.announce || it.seen.is_some())
        };
        for member in stand.members.iter().filter(waits).cloned().collect::<Vec<_>>() {
            self.announce(&member);
        }
    }

    /// Looks again at those that wait for the stream.
    pub(super) fn announce_ahead(&mut self) {
        for member in std::mem::take(&mut self.policing.ahead) {
            // One that has more to read is told when it has.
            let place = self.asked_place(member.0, &member.1);
            if place.is_some_and(|place| self.place().is_some_and(|end| place >= end)) {
                self.announce(&member);
            }
        }
    }

    /// Tells a reader that it has what it missed, if it wants to know. One that follows a snapshot
    /// must have passed what the log held then.
    fn announce(&mut self, member: &Member) {
        let (key, id) = (member.0, Rc::clone(&member.1));
        let matched = self.matched;
        let Some(reader) = self.policing.readers.get_mut(member) else { return };
        if reader.seen.as_ref().is_some_and(|(_, lsn)| Position::after(*lsn) > matched) {
            if !self.policing.ahead.contains(member) {
                self.policing.ahead.push(member.clone());
            }
            return;
        }
        reader.seen = None;
        if !std::mem::take(&mut reader.announce) {
            return;
        }
        if let Some(paced) = self.paced_mut(key, &id) {
            paced.caught_up();
            self.release_held(key);
        }
        let cursor = self.held_from(key, &id).or_else(|| self.here());
        if let Some(cursor) = cursor {
            self.notify(key, &Notice::Synced { id: &id, cursor });
        }
        if let Some(paced) = self.paced_mut(key, &id) {
            paced.in_snapshot = false;
        }
    }
}

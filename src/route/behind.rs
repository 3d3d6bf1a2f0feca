//! Sessions that are behind: they read the ring from their place, in slices, as fast as their
//! socket takes it, and cost nothing while it takes nothing.
//!
//! A slice is a few pieces. A piece that one session of a variant got is there for the others, too
//! (`slices`), so a storm of reconnects is decided and encoded once for each variant.
//!
//! What is read is judged by the rules of now. Where a table had another shape then, the
//! subscription is planned once more for that shape; where that can't be done, what it may have
//! missed can't be told, and it gets a `resync`.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::change::relation::Relation;
use crate::change::transaction::Change;
use crate::change::transaction::Transaction;
use crate::replica::Moment;
use crate::replica::Outlook;
use crate::ring::Gap;
use crate::ring::Place;
use crate::ring::Ring;
use crate::route::conflation::Offer;
use crate::route::decide::Unheld;
use crate::route::encode::Notice;
use crate::route::group::Standing;
use crate::route::image::Images;
use crate::route::image::Moments;
use crate::route::member::Member;
use crate::route::member::Planned;
use crate::route::member::may_match;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::shard::writing;
use crate::route::slices;
use crate::route::slices::Piece;

/// What a piece that is there already costs, in changes looked at.
pub(crate) const PIECE_CHANGES: usize = 16;

/// What a session that is behind is sent at once.
#[derive(Default)]
pub(crate) struct Slice {
    pieces: Vec<Bytes>,
    pub(crate) bytes: usize,
    count: usize,
    pub(crate) looked_at: usize,
}

/// A subscription that can't go on.
pub(crate) struct Stuck {
    pub(crate) id: Rc<str>,
    /// Absent where it can later, when rows of other tables are known.
    pub(crate) reason: Option<Gap>,
}

/// A stretch of the ring, encoded for some subscriptions of one session.
struct Run {
    frames: Vec<u8>,
    count: usize,
    /// What throttled subscriptions are offered instead of sent, and how many bytes that is.
    offers: Vec<(Rc<str>, Offer)>,
    offered: usize,
    looked_at: usize,
    next: Place,
    /// Whether it was decided by the shapes of now alone, which all of a variant have in common.
    is_current: bool,
}

/// Where a run ends.
#[derive(Clone, Copy)]
struct Limits {
    end: Place,
    bytes_max: usize,
    changes_max: usize,
    /// Also at the places where pieces are cut.
    cut: bool,
}

impl Shard {
    /// Reads a slice for the next session that is behind and has room; `false` where there is none.
    pub(crate) fn read_behind(&mut self) -> bool {
        let Some(key) = self.ready.pop_front() else { return false };
        let Some(session) = self.session_mut(key) else { return true };
        session.scheduled = false;
        // What was queued since it was scheduled goes out first; then it comes here again.
        if !session.outbox.has_room() {
            return true;
        }
        if session.stalled {
            self.release_held(key);
        }
        if self.session(key).is_none_or(|it| !it.outbox.has_room()) {
            return true;
        }
        if self.read_answered(key) || self.adopt_asked(key) {
            self.schedule(key);
            return true;
        }
        let Some(session) = self.session(key) else { return true };
        let Some(reader) = session.readers.first() else { return true };
        let (place, ids) = (reader.place, reader.ids.clone());
        let Some(end) = self.place() else { return true };
        if self.ring.as_ref().is_some_and(|ring| ring.evicted(place)) {
            for id in &ids {
                self.resync(key, id, Gap::TooOld);
            }
        } else if self.has_rows(key) {
            if let Err(stuck) = self.read_rows(key) {
                return self.end_or_wait(key, &stuck);
            }
        } else if place >= end {
            if !self.wait_for_stream(key) {
                if !ids.iter().all(|id| self.is_ready(key, id)) {
                    self.unheld.push(key);
                    return true;
                }
                self.catch_up(key);
            }
        } else if let Err(stuck) = self.read_slice(key, place, &ids, end) {
            return self.end_or_wait(key, &stuck);
        }
        self.schedule(key);
        true
    }

    /// A subscription can't be read on: it is told so and begins anew, or it waits.
    fn end_or_wait(&mut self, key: SessionKey, stuck: &Stuck) -> bool {
        match stuck.reason {
            Some(reason) => {
                self.resync(key, &stuck.id, reason);
                self.schedule(key);
            }
            None => self.unheld.push(key),
        }
        true
    }

    /// The session's first reader has read everything: its subscriptions are live.
    fn catch_up(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        let Some(reader) = session.readers.first() else { return };
        let (ids, announce) = (reader.ids.clone(), reader.announce);
        for id in &ids {
            self.go_live(key, id);
            if self.paced_mut(key, id).is_some() {
                self.release_held(key);
            }
            let cursor = self.held_from(key, id).or_else(|| self.here());
            if let Some(cursor) = cursor.filter(|_| announce) {
                self.notify(key, &Notice::Synced { id, cursor });
            }
            if let Some(paced) = self.paced_mut(key, id) {
                paced.in_snapshot = false;
            }
        }
    }

    /// Reads a slice for the session's first reader and sends it.
    fn read_slice(
        &mut self,
        key: SessionKey,
        place: Place,
        ids: &[Rc<str>],
        end: Place,
    ) -> Result<(), Stuck> {
        let mut members: Vec<Member> = ids.iter().filter_map(|id| self.member(key, id)).collect();
        let room = self.session(key).map_or(0, |session| session.outbox.slice_bytes());
        let steps = self.settings.steps;
        let bytes_max = steps.slice_bytes.min(room);
        let changes_max = steps.slice_changes;
        let (mut slice, mut offers) = (Slice::default(), Vec::new());
        let next = match members.as_mut_slice() {
            [only] if only.as_now.keying.is_none() => {
                let piece_max = bytes_max / 4;
                let mut next = place;
                while next < end
                    && slice.looked_at < changes_max
                    && (slice.bytes == 0 || slice.bytes + piece_max <= bytes_max)
                {
                    let limits = Limits { end, bytes_max: piece_max, changes_max, cut: true };
                    let after = match self.read_piece(only, next, limits, &mut slice) {
                        // What stands before something that can't be read goes out first.
                        Err(_) if next > place => break,
                        read => read?,
                    };
                    if after == next {
                        break;
                    }
                    next = after;
                }
                next
            }
            several => {
                let limits = Limits { end, bytes_max, changes_max, cut: false };
                let run = self.read_run(several, place, limits)?;
                slice.push(run.frames.into(), run.count);
                offers = run.offers;
                run.next
            }
        };
        self.deliver(key, &slice, next);
        self.offer_read(key, &offers);
        Ok(())
    }

    pub(crate) fn deliver(&mut self, key: SessionKey, slice: &Slice, next: Place) {
        let Some(session) = self.session_mut(key) else { return };
        // There is room for a slice, and a frame that is larger goes out alone. A refusal would only
        // have it encoded once more.
        session.outbox.push_slice(&slice.pieces);
        if let Some(reader) = session.readers.first_mut() {
            reader.place = next;
        }
        session.count_delivered(slice.count);
        self.meter.delivered(slice.count);
    }

    /// Adds the piece at `place` to a slice, as it is kept or newly encoded; returns the place
    /// after it.
    fn read_piece(
        &mut self,
        member: &mut Member,
        place: Place,
        limits: Limits,
        slice: &mut Slice,
    ) -> Result<Place, Stuck> {
        let fits = |piece: &&Piece| member.is_shared && piece.frames.len() <= limits.bytes_max * 4;
        if let Some(known) = self.slices.get(&member.head, place).filter(fits) {
            slice.looked_at += PIECE_CHANGES;
            slice.push(known.frames.clone(), known.count);
            return Ok(known.next);
        }
        let run = self.read_run(std::slice::from_mut(member), place, limits)?;
        let piece = Piece { frames: run.frames.into(), count: run.count, next: run.next };
        slice.looked_at += run.looked_at;
        slice.push(piece.frames.clone(), piece.count);
        if member.is_shared && run.is_current {
            self.slices.insert(&member.head, place, piece);
        }
        Ok(run.next)
    }

    /// Decides and encodes what comes after a place.
    fn read_run(&self, members: &mut [Member], place: Place, limits: Limits) -> Result<Run, Stuck> {
        let mut run = Run {
            frames: Vec::new(),
            count: 0,
            offers: Vec::new(),
            offered: 0,
            looked_at: 0,
            next: place,
            is_current: true,
        };
        let mut body = Vec::new();
        while !run.is_over(place, limits) {
            let ring = self.ring.as_ref();
            let Some(transaction) = ring.and_then(|ring| ring.get(run.next.transaction)) else {
                break;
            };
            let wanted = |relation: &Arc<Relation>| {
                members.iter().any(|member| member.relation == relation.id)
            };
            let in_rows = |member: &Member| {
                member.seen.as_ref().is_some_and(|seen| seen.sees(transaction.xid))
            };
            run.looked_at += 1;
            if !members.iter().any(in_rows) {
                if let Some(stuck) = self.turned(members, transaction) {
                    return run.cut_short(place, stuck);
                }
                if transaction.relations().iter().any(wanted) {
                    for change in transaction.changes_from(run.next.change) {
                        if run.is_over(place, limits) {
                            return Ok(run);
                        }
                        run.looked_at += 1;
                        let before = run.mark();
                        let read =
                            self.read_change(members, (transaction, &change), &mut body, &mut run);
                        if let Err(stuck) = read {
                            run.go_back_to(before);
                            return run.cut_short(place, stuck);
                        }
                        run.next.change += 1;
                    }
                }
            }
            run.next = Place { transaction: run.next.transaction + 1, change: 0 };
        }
        run.next = run.next.min(limits.end);
        Ok(run)
    }

    /// The first subscription that sees other rows after a transaction than before, without a change of
    /// these.
    fn turned(&self, members: &[Member], transaction: &Transaction) -> Option<Stuck> {
        members.iter().filter(|member| member.is_watching).find_map(|member| {
            let reason = self.shift_of(&member.as_now.shape.rule, transaction)?;
            Some(Stuck { id: Rc::clone(&member.id), reason })
        })
    }

    /// Decides and encodes one change for each subscription.
    fn read_change(
        &self,
        members: &mut [Member],
        (transaction, change): (&Transaction, &Change<'_>),
        body: &mut Vec<u8>,
        run: &mut Run,
    ) -> Result<(), Stuck> {
        let Some(source) = self.ring.as_ref().map(Ring::source) else { return Ok(()) };
        let at = |moment| self.shared.replicas.view(transaction.commit_lsn, moment);
        let (before, after) = (at(Moment::Before), at(Moment::After));
        let others = Moments { before: &before, after: &after };
        let mut images = None;
        for member in members {
            if member.relation != change.relation.id {
                continue;
            }
            let is_current = member.is_of(change.relation);
            let equality = member.equality.as_ref().filter(|_| is_current);
            if equality.is_some_and(|equality| !may_match(equality, &change.kind)) {
                continue;
            }
            run.is_current &= is_current;
            let in_handover = member.seen.is_some();
            let id = Rc::clone(&member.id);
            let head = Rc::clone(&member.head);
            let Some(Planned { shape, keying }) = self.planned_for(member, change.relation) else {
                return Err(Stuck { id, reason: Some(Gap::SchemaChanged) });
            };
            let images = images
                .get_or_insert_with(|| Images::of(change.relation, &change.kind).among(others));
            let standing = Standing::of(source, transaction, change);
            body.clear();
            let writing = writing(&self.settings, &self.meter);
            let op = match shape.encode(images, standing, writing, body) {
                Ok(Some(op)) => op,
                Ok(None) => continue,
                Err(Unheld) => {
                    let outlook = self.outlook_at(&shape.rule, transaction.commit_lsn);
                    let reason = (outlook != Outlook::Awaited).then_some(Gap::StateUnknown);
                    return Err(Stuck { id, reason });
                }
            };
            if let Some(keying) = keying {
                let subject = keying.subject(op, images, &shape.projection);
                run.offered += body.len();
                run.offers.push((id, Offer::of(subject, standing.cursor, body)));
                continue;
            }
            // Before the snapshot is whole nothing can be resumed from.
            let cursor = Some(standing.cursor).filter(|_| !in_handover);
            shape.dialect.frame(&head, body, cursor, &mut run.frames);
            run.count += 1;
        }
        Ok(())
    }
}

impl Slice {
    pub(crate) fn push(&mut self, frames: Bytes, count: usize) {
        self.bytes += frames.len();
        self.count += count;
        if !frames.is_empty() {
            self.pieces.push(frames);
        }
    }
}

impl Run {
    /// What stands before something that can't be read goes out first; then it is come to again.
    fn cut_short(self, begin: Place, stuck: Stuck) -> Result<Run, Stuck> {
        if self.next > begin { Ok(self) } else { Err(stuck) }
    }

    fn mark(&self) -> (usize, usize, usize, usize) {
        (self.frames.len(), self.count, self.offers.len(), self.offered)
    }

    /// Forgets what was encoded since the mark.
    fn go_back_to(&mut self, (frames, count, offers, offered): (usize, usize, usize, usize)) {
        self.frames.truncate(frames);
        self.offers.truncate(offers);
        (self.count, self.offered) = (count, offered);
    }

    /// Whether it must end where it is; it makes a step in any case.
    fn is_over(&self, begin: Place, limits: Limits) -> bool {
        self.next >= limits.end
            || self.frames.len() + self.offered >= limits.bytes_max
            || self.looked_at >= limits.changes_max
            || (limits.cut && self.next > begin && slices::is_cut(self.next))
    }
}

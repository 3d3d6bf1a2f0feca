//! Sessions that are behind: they read the ring from their place, in slices, as fast as their
//! socket takes it, and cost nothing while it takes nothing.
//!
//! A slice is a few pieces. A piece that one session of a variant got is there for the others, too
//! (`slices`), so a storm of reconnects is decided and encoded once for each variant.
//!
//! What is read is judged by the rules of now. Where a table had another shape then, the
//! subscription is planned once more for that shape; where that can't be done, what it may have
//! missed can't be told, and it gets a `resync`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::change::transaction::Change;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::OldTuple;
use crate::change::transaction::Transaction;
use crate::change::tuple::Cell;
use crate::change::tuple::Tuple;
use crate::change::visibility::Visibility;
use crate::ring::Gap;
use crate::ring::Place;
use crate::ring::Ring;
use crate::route::conflation::Offer;
use crate::route::encode::Notice;
use crate::route::group::Shape;
use crate::route::group::Standing;
use crate::route::image::Images;
use crate::route::plan;
use crate::route::plan::Context;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::shard::writing;
use crate::route::slices;
use crate::route::slices::Piece;
use crate::route::throttle::Keying;
use crate::rule::Equality;

/// What a piece that is there already costs, in changes looked at.
pub(crate) const PIECE_CHANGES: usize = 16;

/// One subscription of a reader, with the shapes that it was planned for.
pub(crate) struct Member {
    session: SessionKey,
    pub(crate) id: Rc<str>,
    relation: RelationId,
    pub(crate) head: Rc<[u8]>,
    as_now: Planned,
    /// The value that the shape demands of a column: most changes are told from it by a look.
    equality: Option<Equality>,
    /// What the rows of its snapshot hold already.
    seen: Option<Arc<Visibility>>,
    /// Whether others of its variant may want the same pieces of the ring.
    is_shared: bool,
    /// Whether there are others of its variant.
    pub(crate) has_peers: bool,
    /// Plans for other shapes of the table; `None` where it can't be planned.
    earlier: HashMap<u64, Option<Planned>>,
}

/// A subscription as planned for one shape of its table.
struct Planned {
    shape: Shape,
    keying: Option<Rc<Keying>>,
}

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
    pub(crate) reason: Gap,
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
            if let Err(Stuck { id, reason }) = self.read_rows(key) {
                self.resync(key, &id, reason);
            }
        } else if place >= end {
            if !self.wait_for_stream(key) {
                self.catch_up(key);
            }
        } else if let Err(Stuck { id, reason }) = self.read_slice(key, place, &ids, end) {
            self.resync(key, &id, reason);
        }
        self.schedule(key);
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
                    let after = self.read_piece(only, next, limits, &mut slice)?;
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
            if !members.iter().any(in_rows) && transaction.relations().iter().any(wanted) {
                for change in transaction.changes_from(run.next.change) {
                    if run.is_over(place, limits) {
                        return Ok(run);
                    }
                    run.looked_at += 1;
                    self.read_change(members, (transaction, &change), &mut body, &mut run)?;
                    run.next.change += 1;
                }
            }
            run.next = Place { transaction: run.next.transaction + 1, change: 0 };
        }
        run.next = run.next.min(limits.end);
        Ok(run)
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
                return Err(Stuck { id, reason: Gap::SchemaChanged });
            };
            let images = images.get_or_insert_with(|| Images::of(change.relation, &change.kind));
            let standing = Standing::of(source, transaction, change);
            body.clear();
            let writing = writing(&self.settings, &self.meter);
            let Some(op) = shape.encode(images, standing, writing, body) else { continue };
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

    pub(crate) fn member(&self, key: SessionKey, id: &Rc<str>) -> Option<Member> {
        let attachment = self.session(key)?.subscription(id)?.attachment;
        let group = self.groups.get(attachment.group)?;
        let variant = group.variants.get(attachment.variant)?;
        let reader = self.session(key)?.readers.first();
        let handover = reader.and_then(|reader| reader.handover.as_ref());
        let seen = handover.map(|handover| Arc::clone(&handover.visibility));
        Some(Member {
            session: key,
            id: Rc::clone(id),
            relation: group.shape.projection.relation.id,
            head: Rc::clone(&variant.head),
            equality: group.shape.rule.equality(),
            as_now: Planned { shape: group.shape.clone(), keying: variant.keying.clone() },
            is_shared: variant.attached > 1 && seen.is_none(),
            has_peers: variant.attached > 1,
            seen,
            earlier: HashMap::new(),
        })
    }

    /// The member's shape for a table as it was at a change.
    pub(crate) fn shape_for<'a>(
        &self,
        member: &'a mut Member,
        relation: &Arc<Relation>,
    ) -> Option<&'a Shape> {
        self.planned_for(member, relation).map(|planned| &planned.shape)
    }

    fn planned_for<'a>(
        &self,
        member: &'a mut Member,
        relation: &Arc<Relation>,
    ) -> Option<&'a Planned> {
        if member.is_of(relation) {
            return Some(&member.as_now);
        }
        let plan = || {
            let session = self.session(member.session)?;
            let claims = session.claims.as_ref()?;
            let request = &session.subscription(&member.id)?.request;
            let catalog = self.shared.catalog.current();
            let context = Context { catalog: &catalog, policies: &self.shared.policies };
            let plan = plan::plan_for(context, claims, request, relation).ok()?;
            let projection = Rc::new(plan.projection);
            let (rule, asked) = (plan.rule, plan.asked);
            let shape = Shape { rule, asked, projection, ..member.as_now.shape.clone() };
            Some(Planned { shape, keying: plan.keying.map(Rc::new) })
        };
        match member.earlier.entry(relation.version) {
            Entry::Occupied(known) => known.into_mut().as_ref(),
            Entry::Vacant(place) => place.insert(plan()).as_ref(),
        }
    }
}

impl Member {
    /// Whether its own shape is the one for this shape of the table.
    pub(crate) fn is_of(&self, relation: &Relation) -> bool {
        self.as_now.shape.projection.relation.version == relation.version
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
    /// Whether it must end where it is; it makes a step in any case.
    fn is_over(&self, begin: Place, limits: Limits) -> bool {
        self.next >= limits.end
            || self.frames.len() + self.offered >= limits.bytes_max
            || self.looked_at >= limits.changes_max
            || (limits.cut && self.next > begin && slices::is_cut(self.next))
    }
}

/// Whether a change can have a row that a shape with this demand sees, by a look at the one column.
fn may_match(equality: &Equality, change: &ChangeKind<'_>) -> bool {
    let hit = |tuple: Tuple<'_>| {
        tuple.cell(equality.column).is_some_and(|cell| match cell {
            Cell::Text(value) => {
                equality.texts.binary_search_by(|text| (**text).cmp(value)).is_ok()
            }
            other => other.is_missing(),
        })
    };
    let old_hit = |old: OldTuple<'_>| match old {
        OldTuple::Full(tuple) | OldTuple::Key(tuple) => hit(tuple),
    };
    match *change {
        ChangeKind::Insert { new } => hit(new),
        ChangeKind::Update { old, new } => hit(new) || old.is_some_and(old_hit),
        ChangeKind::Delete { old } => old_hit(old),
        ChangeKind::Truncate => true,
    }
}

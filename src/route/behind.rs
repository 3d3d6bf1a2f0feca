//! Sessions that are behind: they read the ring from their place, in slices, as fast as their
//! socket takes it, and cost nothing while it takes nothing.
//!
//! What is read is judged by the rules of now. Where a table had another shape then, the
//! subscription is planned once more for that shape; where that can't be done, what it may have
//! missed can't be told, and it gets a `resync`.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::change::cursor::Cursor;
use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::change::transaction::Change;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::Transaction;
use crate::ring::Gap;
use crate::ring::Place;
use crate::ring::Ring;
use crate::route::encode::Notice;
use crate::route::group::Shape;
use crate::route::group::Standing;
use crate::route::image::Images;
use crate::route::plan;
use crate::route::plan::Context;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::shard::writing;

/// One subscription of a reader, with the shapes that it was planned for.
struct Member {
    id: Rc<str>,
    relation: RelationId,
    head: Rc<[u8]>,
    shape: Shape,
    /// Plans for other shapes of the table; `None` where it can't be planned.
    earlier: HashMap<u64, Option<Shape>>,
}

/// What came of reading a slice.
enum Slice {
    /// Frames to send, and where to read on.
    Read { frames: Vec<u8>, count: usize, next: Place },
    /// A subscription can't go on.
    Gap { id: Rc<str>, reason: Gap },
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
        let Some(reader) = session.readers.first() else { return true };
        let (place, ids) = (reader.place, reader.ids.clone());
        let Some(end) = self.place() else { return true };
        if self.ring.as_ref().is_some_and(|ring| ring.evicted(place)) {
            for id in &ids {
                self.resync(key, id, Gap::TooOld);
            }
        } else if self.has_rows(key) {
            match self.read_rows(key) {
                Slice::Read { frames, count, next } => self.deliver(key, frames, count, next),
                Slice::Gap { id, reason } => self.resync(key, &id, reason),
            }
        } else if place >= end {
            if !self.wait_for_stream(key) {
                self.catch_up(key);
            }
        } else {
            match self.read_slice(key, place, &ids, end) {
                Slice::Read { frames, count, next } => self.deliver(key, frames, count, next),
                Slice::Gap { id, reason } => self.resync(key, &id, reason),
            }
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
            if let Some(cursor) = self.here().filter(|_| announce) {
                self.notify(key, &Notice::Synced { id, cursor });
            }
        }
    }

    fn deliver(&mut self, key: SessionKey, frames: Vec<u8>, count: usize, next: Place) {
        let Some(session) = self.session_mut(key) else { return };
        // There is room for a slice, and a frame that is larger goes out alone. A refusal would only
        // have it encoded once more.
        if !frames.is_empty() {
            session.outbox.push_always(&frames.into());
        }
        if let Some(reader) = session.readers.first_mut() {
            reader.place = next;
        }
        self.shared.metrics.delivered(count);
    }

    /// Whether the session's first reader has rows of a snapshot to deliver.
    fn has_rows(&self, key: SessionKey) -> bool {
        let reader = self.session(key).and_then(|session| session.readers.first());
        reader.and_then(|it| it.handover.as_ref()).is_some_and(|it| it.rows.is_some())
    }

    /// Encodes some rows of the first reader's snapshot. Filter and policy are asked of each.
    fn read_rows(&mut self, key: SessionKey) -> Slice {
        let (mut frames, mut count) = (Vec::new(), 0);
        let nothing = Slice::Read { frames: Vec::new(), count, next: Place::default() };
        let Some(session) = self.session(key) else { return nothing };
        let steps = self.settings.steps;
        let bytes_max = steps.slice_bytes.min(session.outbox.slice_bytes());
        let Some(reader) = session.readers.first() else { return nothing };
        let (place, rows) =
            (reader.place, reader.handover.as_ref().and_then(|it| it.rows.as_ref()));
        let (Some((answer, begin)), Some(id)) = (rows, reader.ids.first()) else { return nothing };
        let (answer, begin) = (Arc::clone(answer), *begin);
        let Some(mut member) = self.member(key, id) else { return nothing };
        let mut next = begin;
        let mut body = Vec::new();
        for row in answer.rows.changes_from(begin) {
            if frames.len() >= bytes_max || next - begin >= steps.slice_changes {
                break;
            }
            next += 1;
            let ChangeKind::Insert { new } = row.kind else { continue };
            let Some(shape) = self.shape_for(key, &mut member, row.relation) else {
                return Slice::Gap { id: member.id, reason: Gap::SchemaChanged };
            };
            body.clear();
            let writing = writing(&self.settings, &self.shared);
            if shape.encode_row(&Images::present(new), writing, &mut body) {
                shape.dialect.frame(&member.head, &body, None, &mut frames);
                count += 1;
            }
        }
        let rest = (next < answer.rows.len()).then_some((answer, next));
        let reader = self.session_mut(key).and_then(|session| session.readers.first_mut());
        if let Some(handover) = reader.and_then(|reader| reader.handover.as_mut()) {
            handover.rows = rest;
        }
        Slice::Read { frames, count, next: place }
    }

    fn read_slice(&mut self, key: SessionKey, place: Place, ids: &[Rc<str>], end: Place) -> Slice {
        let mut members: Vec<Member> = ids.iter().filter_map(|id| self.member(key, id)).collect();
        let (mut frames, mut count, mut looked_at) = (Vec::new(), 0, 0);
        let room = self.session(key).map_or(0, |session| session.outbox.slice_bytes());
        let steps = self.settings.steps;
        let bytes_max = steps.slice_bytes.min(room);
        let reader = self.session(key).and_then(|session| session.readers.first());
        let handover = reader.and_then(|reader| reader.handover.as_ref());
        let seen = handover.map(|handover| Arc::clone(&handover.visibility));
        let mut next = place;
        let mut body = Vec::new();
        while next < end && frames.len() < bytes_max && looked_at < steps.slice_changes {
            let ring = self.ring.as_ref();
            let Some(transaction) = ring.and_then(|ring| ring.get(next.transaction)) else { break };
            let transaction = Arc::clone(transaction);
            let wanted = |relation: &Arc<Relation>| {
                members.iter().any(|member| member.relation == relation.id)
            };
            looked_at += 1;
            let in_rows = seen.as_ref().is_some_and(|seen| seen.sees(transaction.xid));
            if in_rows || !transaction.relations().iter().any(wanted) {
                next = Place { transaction: next.transaction + 1, change: 0 };
                continue;
            }
            let mut whole = true;
            for change in transaction.changes_from(next.change) {
                let here = Place { transaction: next.transaction, change: next.change };
                if here >= end || frames.len() >= bytes_max || looked_at >= steps.slice_changes {
                    whole = false;
                    break;
                }
                looked_at += 1;
                for member in &mut members {
                    if member.relation != change.relation.id {
                        continue;
                    }
                    let Some(shape) = self.shape_for(key, member, change.relation) else {
                        let (id, reason) = (Rc::clone(&member.id), Gap::SchemaChanged);
                        return Slice::Gap { id, reason };
                    };
                    body.clear();
                    let cursor = self.encode_for(&shape, &transaction, &change, &mut body);
                    if cursor.is_some() {
                        let cursor = cursor.filter(|_| seen.is_none());
                        shape.dialect.frame(&member.head, &body, cursor, &mut frames);
                        count += 1;
                    }
                }
                next.change += 1;
            }
            if whole {
                next = Place { transaction: next.transaction + 1, change: 0 };
            }
        }
        Slice::Read { frames, count, next: next.min(end) }
    }

    fn member(&self, key: SessionKey, id: &Rc<str>) -> Option<Member> {
        let attachment = self.session(key)?.subscription(id)?.attachment;
        let group = self.groups.get(attachment.group)?;
        let variant = group.variants.get(attachment.variant)?;
        Some(Member {
            id: Rc::clone(id),
            relation: group.shape.projection.relation.id,
            head: Rc::clone(&variant.head),
            shape: group.shape.clone(),
            earlier: HashMap::new(),
        })
    }

    /// The member's shape for a table as it was at a change.
    fn shape_for(
        &self,
        key: SessionKey,
        member: &mut Member,
        relation: &Arc<Relation>,
    ) -> Option<Shape> {
        if member.shape.projection.relation.version == relation.version {
            return Some(member.shape.clone());
        }
        let plan = || {
            let session = self.session(key)?;
            let claims = session.claims.as_ref()?;
            let request = &session.subscription(&member.id)?.request;
            let catalog = self.shared.catalog.current();
            let context = Context { catalog: &catalog, policies: &self.shared.policies };
            let plan = plan::plan_for(context, claims, request, relation).ok()?;
            let projection = Rc::new(plan.projection);
            Some(Shape { rule: plan.rule, projection, ..member.shape.clone() })
        };
        member.earlier.entry(relation.version).or_insert_with(plan).clone()
    }

    /// Appends the body of a change's frame and returns its cursor; `None` where the shape does not
    /// see it.
    fn encode_for(
        &self,
        shape: &Shape,
        transaction: &Transaction,
        change: &Change<'_>,
        body: &mut Vec<u8>,
    ) -> Option<Cursor> {
        let source = self.ring.as_ref().map(Ring::source)?;
        let images = Images::of(change.relation, &change.kind);
        let standing = Standing::of(source, transaction, change);
        let writing = writing(&self.settings, &self.shared);
        shape.encode(&images, standing, writing, body).then_some(standing.cursor)
    }
}

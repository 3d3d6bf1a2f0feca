//! What a transaction does to a shard: match and encode a slice of changes, then write to every
//! session that got something, once.
//!
//! A pass is matched as a whole and flushed in steps, between which other sessions are served. It
//! is bounded in bytes and changes, so a transaction of any size is many passes.

use std::rc::Rc;
use std::sync::Arc;

use crate::change::cursor::Position;
use crate::change::cursor::Source;
use crate::change::lsn::Lsn;
use crate::change::transaction::Change;
use crate::change::transaction::Timestamp;
use crate::change::transaction::Transaction;
use crate::change::tuple::Cell;
use crate::change::tuple::Row;
use crate::replica::Moment;
use crate::ring::Gap;
use crate::ring::Place;
use crate::ring::Ring;
use crate::ring::feed::Feed;
use crate::route::body::Body;
use crate::route::conflation::Offer;
use crate::route::decide::Unheld;
use crate::route::group::GroupId;
use crate::route::group::PendingFrame;
use crate::route::group::Standing;
use crate::route::groups::Attachment;
use crate::route::groups::TableGroups;
use crate::route::image::ImageKind;
use crate::route::image::Images;
use crate::route::image::Moments;
use crate::route::metered::PassCount;
use crate::route::metered::wide;
use crate::route::outbox::Pushed;
use crate::route::payload::Payload;
use crate::route::payload::gather;
use crate::route::scope::Turned;
use crate::route::scope::Turning;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::shard::Steps;
use crate::route::shard::widen;
use crate::route::shard::writing;

/// The transaction, or part of one, that is being matched.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) transaction: Arc<Transaction>,
    /// Its number in the ring.
    number: u64,
    /// The next change to match.
    next: usize,
    /// Whether it was looked at what it does to other tables' rows, and to which groups that matters.
    pub(crate) is_open: bool,
    pub(crate) turning: Vec<Turning>,
}

impl Routing {
    const fn begin(transaction: Arc<Transaction>, number: u64) -> Routing {
        Routing { transaction, number, next: 0, is_open: false, turning: Vec::new() }
    }

    /// The position after everything matched so far; `None` before the first change.
    pub(crate) fn position(&self) -> Option<Position> {
        (self.next > 0).then(|| self.transaction.position_after(self.next))
    }

    /// When it was committed.
    pub(crate) fn committed_at(&self) -> Timestamp {
        self.transaction.committed_at
    }
}

/// What one pass has matched and not yet written.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Where matching began: a session that can't take its payloads reads on from here.
    start: Option<Place>,
    touched: Vec<(GroupId, usize)>,
    frames: u32,
    bytes: usize,
    changes: usize,
    /// Transactions (and parts) of which nothing is left to match.
    transactions: u64,
    payloads: Vec<Payload>,
    dirty: Vec<SessionKey>,
    /// Sessions with throttled subscriptions that were offered something, or whose alarm went off.
    pub(crate) released: Vec<SessionKey>,
    /// Groups whose subscribers see other rows than before, without a change of these.
    pub(crate) turned: Vec<Turned>,
    /// What it is counted as.
    pub(crate) count: PassCount,
    body: Body,
    candidates: Vec<GroupId>,
}

impl Pass {
    /// Whether something waits to be sent.
    pub(crate) fn has_frames(&self) -> bool {
        !self.touched.is_empty()
    }

    fn is_full(&self, steps: &Steps) -> bool {
        self.bytes >= steps.pass_bytes || self.changes >= steps.pass_changes
    }
}

impl Shard {
    /// Whether there is something to match or to read for a session that is behind.
    pub(crate) fn has_work(&self) -> bool {
        !self.has_matched_all() || !self.ready.is_empty()
    }

    /// Whether everything that came was matched.
    pub(crate) fn has_matched_all(&self) -> bool {
        self.incoming.is_empty() && self.routing.is_none()
    }

    /// The place of the next change to match.
    pub(crate) fn place(&self) -> Option<Place> {
        match &self.routing {
            Some(routing) => Some(Place { transaction: routing.number, change: routing.next }),
            None => self.ring.as_ref().map(Ring::end),
        }
    }

    /// Matches and encodes until the pass is full or there is nothing more.
    pub(crate) fn match_pass(&mut self) {
        self.follow_catalog();
        self.follow_replicas();
        self.pass.start = self.place();
        while !self.pass.is_full(&self.settings.steps) {
            let has_more = self.routing.is_some() || self.next_transaction();
            if !has_more || !self.match_transaction() {
                break;
            }
            // Nobody is told more before they are told that they see other rows now.
            if !self.pass.turned.is_empty() {
                break;
            }
        }
        self.take_alarms();
        self.freeze();
    }

    /// Takes the next transaction from what came in; `false` where there is none, or where what
    /// came in must wait for the end of the pass.
    fn next_transaction(&mut self) -> bool {
        while let Some(feed) = self.incoming.pop_front() {
            match feed {
                Feed::Transaction(transaction) => {
                    let number = self.ring.as_ref().map_or(0, |ring| ring.end().transaction);
                    let ring = self.ring.as_mut();
                    if ring.is_some_and(|ring| ring.append(Arc::clone(&transaction))) {
                        self.routing = Some(Routing::begin(transaction, number));
                        return true;
                    }
                    self.pass.transactions += 1;
                }
                Feed::Advance(lsn) => {
                    if let Some(ring) = self.ring.as_mut() {
                        ring.advance(lsn);
                    }
                    self.matched = self.matched.max(Position::after(lsn));
                }
                Feed::Start { source, tail } => {
                    if !self.pass.touched.is_empty() {
                        self.incoming.push_front(Feed::Start { source, tail });
                        return false;
                    }
                    self.start(source, tail);
                }
                Feed::Live => self.set_live(),
                Feed::Interrupted | Feed::Resumed => {}
            }
        }
        false
    }

    /// Begins a history. What was there before is void, and whoever was subscribed is told.
    fn start(&mut self, source: Source, tail: Lsn) {
        let first = self.ring.is_none();
        self.ring = Some(Ring::new(self.settings.ring, source, tail));
        self.matched = Position::after(tail);
        self.pass.start = self.place();
        if first {
            return;
        }
        self.parked.clear();
        self.asking.clear();
        self.waiting.clear();
        self.slices.clear();
        self.policing.clear();
        for key in self.keys() {
            let Some(session) = self.session_mut(key) else { continue };
            session.readers.clear();
            let ids: Vec<_> = session.subscriptions.iter().map(|it| Rc::clone(&it.id)).collect();
            for id in ids {
                // One that rests is told when it goes on.
                if !self.rests(key, &id) {
                    self.resync(key, &id, Gap::OtherHistory);
                }
            }
        }
    }

    /// Matches changes of the transaction at hand; `false` where the pass must end before the next
    /// change, because the table has a new shape and sessions still wait for frames in the old.
    fn match_transaction(&mut self) -> bool {
        if !self.open_scope() {
            return false;
        }
        let Some(mut routing) = self.routing.take() else { return true };
        let transaction = Arc::clone(&routing.transaction);
        if transaction.relations().iter().all(|it| self.groups.table(it.id).is_none()) {
            self.pass.changes += 1;
            self.end_transaction(routing);
            return true;
        }
        for change in transaction.changes_from(routing.next) {
            if self.pass.is_full(&self.settings.steps) {
                self.routing = Some(routing);
                return true;
            }
            let table = self.groups.table(change.relation.id);
            let stale = |table: &TableGroups| table.relation.version != change.relation.version;
            if table.is_some_and(stale) {
                if !self.pass.touched.is_empty() {
                    self.routing = Some(routing);
                    return false;
                }
                self.reshape(&change);
            }
            self.match_change(&transaction, &change);
            self.pass.changes += 1;
            routing.next += 1;
        }
        self.end_transaction(routing);
        true
    }

    fn end_transaction(&mut self, Routing { transaction, turning, .. }: Routing) {
        self.close_scope(turning);
        self.matched = transaction.ends_at();
        self.pass.transactions += 1;
        self.pass.count.end_transaction(transaction.committed_at);
    }

    /// A table's changes come in a new shape: every subscription to it is judged again.
    fn reshape(&mut self, change: &Change<'_>) {
        self.groups.reshape(change.relation);
        for key in self.keys() {
            self.replan_session(key, Some(change.relation.id));
        }
    }

    fn match_change(&mut self, transaction: &Transaction, change: &Change<'_>) {
        let Some(table) = self.groups.table(change.relation.id) else { return };
        self.pass.count.matched.changes += 1;
        if table.index.probes_only() && !table.may_match(change) {
            return;
        }
        let replicas = (table.watching > 0).then(|| Arc::clone(&self.shared.replicas));
        let at = |moment| replicas.as_ref().map(|it| it.view(transaction.commit_lsn, moment));
        let (before, after) = (at(Moment::Before), at(Moment::After));
        let mut images = Images::of(change.relation, &change.kind);
        if let (Some(before), Some(after)) = (&before, &after) {
            images = images.among(Moments { before, after });
        }
        let mut candidates = std::mem::take(&mut self.pass.candidates);
        candidates.clear();
        if images.kind == ImageKind::Truncate {
            table.index.all(&mut candidates);
        } else {
            table.index.candidates(&images, &mut candidates);
        }
        // Groups under a value that the old image does not tell can't even be found.
        let missing = |image: &Option<Row<'_>>, column| {
            image.as_ref().and_then(|it| it.get(column)).copied().is_some_and(Cell::is_missing)
        };
        let unknown = |column| {
            missing(&images.old, column) || (images.condensed && missing(&images.new, column))
        };
        if table.index.columns().any(unknown) {
            self.meter.undecided();
        }
        self.pass.count.matched.candidates += wide(candidates.len());
        for group in &candidates {
            self.offer(*group, transaction, change, &images);
        }
        self.pass.body.forget();
        self.pass.candidates = candidates;
    }

    /// Decides a change for one group, and where it is visible encodes it for each variant.
    fn offer(
        &mut self,
        id: GroupId,
        transaction: &Transaction,
        change: &Change<'_>,
        images: &Images<'_>,
    ) {
        let Some(source) = self.ring.as_ref().map(Ring::source) else { return };
        let writing = writing(&self.settings, &self.meter);
        let Some(group) = self.groups.get_mut(id).filter(|group| group.has_members()) else {
            return;
        };
        let pass = &mut self.pass;
        let standing = Standing::of(source, transaction, change);
        let shape = &group.shape;
        let op = match shape.encode_once(images, standing, writing, &mut pass.body) {
            Ok(Some(op)) => op,
            Ok(None) => return,
            Err(Unheld) => return self.note_unheld(id),
        };
        pass.count.matched.shown += 1;
        let (dialect, body) = (shape.dialect, pass.body.bytes());
        for (at, variant) in group.variants.iter_mut().enumerate() {
            if variant.members.is_empty() {
                continue;
            }
            if let Some(keying) = &variant.keying {
                let subject = keying.subject(op, images, &shape.projection);
                let offer = Offer::of(subject, standing.cursor, body);
                let members = (Attachment { group: id, variant: at }, variant.members.as_slice());
                let (sessions, released) = (&mut self.sessions, &mut pass.released);
                let replaced = Shard::offer_paced(sessions, released, members, &offer);
                self.meter.conflated(replaced);
                pass.bytes += body.len();
                continue;
            }
            if variant.pending.is_none() {
                pass.touched.push((id, at));
            }
            pass.count.frames += wide(variant.members.len());
            let pending = variant.pending.get_or_insert_default();
            let begin = pending.bytes.len();
            let cursor = Some(standing.cursor);
            dialect.frame(&variant.head, body, cursor, &mut pending.bytes);
            let end = pending.bytes.len();
            pending.frames.push(PendingFrame { number: pass.frames, end });
            pass.bytes += end - begin;
            pass.frames = pass.frames.wrapping_add(1);
        }
    }

    /// Turns what was encoded into shared payloads and notes who gets which.
    fn freeze(&mut self) {
        for (group, variant) in std::mem::take(&mut self.pass.touched) {
            let group = self.groups.get_mut(group);
            let Some(variant) = group.and_then(|group| group.variants.get_mut(variant)) else {
                continue;
            };
            let Some(pending) = variant.pending.take() else { continue };
            let payload = u32::try_from(self.pass.payloads.len())
                .expect("a pass has fewer payloads than bytes");
            self.pass
                .payloads
                .push(Payload { bytes: pending.bytes.into(), frames: pending.frames });
            for place in &variant.members {
                let Some(session) = self.sessions.get_mut(widen(*place)) else { continue };
                if session.pending.is_empty() {
                    let generation = session.generation;
                    self.pass.dirty.push(SessionKey { place: *place, generation });
                }
                session.pending.push(payload);
            }
        }
    }

    /// Writes to some of the sessions that got something, until as many were written to or as many
    /// bytes offered as are enough for one step; `true` when the pass is over.
    pub(crate) fn flush_some(&mut self) -> bool {
        let Steps { flush_sessions, flush_bytes, .. } = self.settings.steps;
        let mut bytes = 0;
        for _ in 0..flush_sessions {
            if bytes >= flush_bytes {
                break;
            }
            if let Some(key) = self.pass.dirty.pop() {
                bytes += self.flush_session(key);
            } else if let Some(key) = self.pass.released.pop() {
                self.release_held(key);
            } else {
                break;
            }
        }
        if !self.pass.dirty.is_empty() || !self.pass.released.is_empty() {
            return false;
        }
        self.pass.payloads.clear();
        (self.pass.frames, self.pass.bytes, self.pass.changes) = (0, 0, 0);
        self.shared.routed.add(std::mem::take(&mut self.pass.transactions));
        self.settle_shifts();
        self.settle_parked();
        self.settle_waiting();
        self.settle_ruled();
        true
    }

    /// Writes what this pass has for one session, if anything; returns how many bytes that is.
    pub(crate) fn flush_session(&mut self, key: SessionKey) -> usize {
        let Some(session) =
            self.sessions.get_mut(widen(key.place)).filter(|it| it.generation == key.generation)
        else {
            return 0;
        };
        if session.pending.is_empty() {
            return 0;
        }
        let pending = std::mem::take(&mut session.pending);
        let (bytes, frames) = gather(&self.pass.payloads, &pending);
        match session.outbox.push(&bytes) {
            Pushed::Taken => {
                session.count_delivered(frames);
                self.meter.delivered(frames);
            }
            Pushed::Full => {
                if let Some(place) = self.pass.start {
                    self.fall_behind(key, place);
                }
            }
        }
        bytes.len()
    }

    /// Judges every subscription again where the catalogue or the configuration changed.
    fn follow_catalog(&mut self) {
        let catalog = self.shared.catalog.current();
        if catalog.generation == self.catalog_generation && !self.judge_again {
            return;
        }
        self.catalog_generation = catalog.generation;
        self.judge_again = false;
        // Who asks for a new column must not wait for a change; one of the old shape takes it back.
        self.groups.follow(&catalog);
        for key in self.keys() {
            self.replan_session(key, None);
        }
    }

    pub(crate) fn keys(&self) -> Vec<SessionKey> {
        let place = |(place, _)| u32::try_from(place).ok().and_then(|place| self.key_of(place));
        self.sessions.iter().filter_map(place).collect()
    }
}

//! Subscriptions that get the same bytes: decided once, encoded once.

use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::change::cursor::Cursor;
use crate::change::cursor::Position;
use crate::change::cursor::Source;
use crate::change::transaction::Change;
use crate::change::transaction::Timestamp;
use crate::change::transaction::Transaction;
use crate::route::asked::Asked;
use crate::route::body::Body;
use crate::route::decide::Decision;
use crate::route::decide::Said;
use crate::route::decide::Unheld;
use crate::route::decide::Visible;
use crate::route::decide::decide;
use crate::route::decide::decide_said;
use crate::route::encode::Detail;
use crate::route::encode::Encode;
use crate::route::encode::RowFrame;
use crate::route::image::Images;
use crate::route::projection::Projection;
use crate::route::reduce::Writing;
use crate::route::reduce::write_reduced;
use crate::route::subscription::Events;
use crate::route::subscription::Op;
use crate::route::throttle::Keying;
use crate::rule::Cover;
use crate::rule::Reach;
use crate::rule::Rule;

/// A group's place in its shard.
pub(crate) type GroupId = usize;

/// What subscriptions must have in common to share decisions and bodies.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) rule: Rule,
    /// What Postgres must be asked beside the rule.
    pub(crate) asked: Option<Arc<Asked>>,
    pub(crate) projection: Rc<Projection>,
    pub(crate) events: Events,
    pub(crate) dialect: &'static dyn Encode,
}

impl PartialEq for Shape {
    fn eq(&self, other: &Shape) -> bool {
        self.rule == other.rule
            && self.asked == other.asked
            && self.projection == other.projection
            && self.events == other.events
            && self.dialect.name() == other.dialect.name()
    }
}

/// Where a change stands in the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// After the change.
    pub(crate) cursor: Cursor,
    committed_at: Timestamp,
}

impl Standing {
    pub(crate) const fn of(
        source: Source,
        transaction: &Transaction,
        change: &Change<'_>,
    ) -> Standing {
        let position = Position::within(transaction.commit_lsn, change.index.saturating_add(1));
        let cursor = Cursor { source, position };
        Standing { cursor, committed_at: transaction.committed_at }
    }
}

impl Shape {
    /// Decides a change, writes the body of its frame into an empty `body` and tells what happened;
    /// `None`, and nothing, where the shape does not see it. For live sessions and for those that
    /// are behind alike.
    ///
    /// # Errors
    ///
    /// [`Unheld`] where the rule reads other tables and they are not known of the moment.
    pub(crate) fn encode(
        &self,
        images: &Images<'_>,
        standing: Standing,
        writing: Writing<'_>,
        body: &mut Vec<u8>,
    ) -> Result<Option<Op>, Unheld> {
        let Some(visible) = self.decide(images, writing)? else { return Ok(None) };
        self.write(visible, images, (standing.committed_at, writing), body);
        Ok(Some(visible.op()))
    }

    /// The same, where the body may be there already, because another shape was shown the same of
    /// the change.
    ///
    /// # Errors
    ///
    /// As [`Shape::encode`].
    pub(crate) fn encode_once(
        &self,
        images: &Images<'_>,
        standing: Standing,
        writing: Writing<'_>,
        body: &mut Body,
    ) -> Result<Option<Op>, Unheld> {
        let Some(visible) = self.decide(images, writing)? else { return Ok(None) };
        body.show(self, visible, |bytes| {
            self.write(visible, images, (standing.committed_at, writing), bytes);
        });
        Ok(Some(visible.op()))
    }

    /// The same with what Postgres says, for a shape that alone does not tell.
    pub(crate) fn encode_said(
        &self,
        images: &Images<'_>,
        said: Said,
        (standing, writing): (Standing, Writing<'_>),
        body: &mut Vec<u8>,
    ) -> Option<Op> {
        let decision = decide_said(&self.rule, images, said);
        let visible = self.wanted(decision, writing).unwrap_or(None)?;
        self.write(visible, images, (standing.committed_at, writing), body);
        Some(visible.op())
    }

    /// The same for a row that is there, which stands nowhere in the history. Where Postgres must be
    /// asked, it has judged the row when it was asked for it.
    pub(crate) fn encode_row(
        &self,
        images: &Images<'_>,
        writing: Writing<'_>,
        body: &mut Vec<u8>,
    ) -> Option<Op> {
        let visible = self.wanted(decide(&self.rule, images), writing).unwrap_or(None)?;
        self.write(visible, images, (Timestamp(0), writing), body);
        Some(visible.op())
    }

    /// What the shape is shown of a change, if anything.
    fn decide<'a>(
        &self,
        images: &'a Images<'_>,
        writing: Writing<'_>,
    ) -> Result<Option<Visible<'a>>, Unheld> {
        if self.asked.is_some() {
            writing.meter.undecided();
            return Ok(None);
        }
        self.wanted(decide(&self.rule, images), writing)
    }

    /// The same of a decision that was made.
    fn wanted<'a>(
        &self,
        decision: Decision<'a>,
        writing: Writing<'_>,
    ) -> Result<Option<Visible<'a>>, Unheld> {
        match decision {
            Decision::Shown(visible) => Ok(self.events.contains(visible.op()).then_some(visible)),
            Decision::Hidden => Ok(None),
            Decision::Undecided => {
                writing.meter.undecided();
                Ok(None)
            }
            Decision::Unheld => Err(Unheld),
        }
    }

    /// Writes the body of a frame, as whole as it can be.
    fn write(
        &self,
        visible: Visible<'_>,
        images: &Images<'_>,
        (committed_at, writing): (Timestamp, Writing<'_>),
        body: &mut Vec<u8>,
    ) {
        let (projection, detail) = (&*self.projection, Detail::Whole);
        let row = RowFrame { visible, projection, committed_at, detail };
        if !images.condensed {
            self.dialect.body(&row, body);
            if body.len() <= writing.body_bytes_max {
                return;
            }
        }
        write_reduced(self.dialect, row, writing, body);
    }
}

/// Where a group stands in the index whose rule reads other tables.
#[derive(Debug)]
pub(crate) struct Filed {
    /// What its rule reaches.
    pub(crate) reach: Reach,
    /// What it stands under: that, and during a transaction that changes it what it will reach.
    pub(crate) cover: Cover,
}

/// Subscriptions of one shape.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) shape: Shape,
    /// Where it stands in the index, where that depends on other tables.
    pub(crate) filed: Option<Box<Filed>>,
    /// Members by the name that they gave their subscription: the name is in every frame. Those that
    /// are throttled stand apart, by their keys.
    pub(crate) variants: SmallVec<[Variant; 1]>,
    /// How many subscriptions belong to it, also those that are behind.
    pub(crate) attached: u32,
}

/// The subscriptions of a group that have the same name, and the same key if they are throttled.
#[derive(Debug)]
pub(crate) struct Variant {
    /// What stands in their frames before the body.
    pub(crate) head: Rc<[u8]>,
    /// The name.
    pub(crate) id: Rc<str>,
    /// How the frames of throttled members are told apart; each holds back its own.
    pub(crate) keying: Option<Rc<Keying>>,
    /// The sessions of the live ones, by their places in the shard.
    pub(crate) members: SmallVec<[u32; 4]>,
    /// How many subscriptions belong to it, also those that are behind.
    pub(crate) attached: u32,
    /// What this pass has for them; none between passes.
    pub(crate) pending: Option<Box<Pending>>,
}

/// The frames of one pass for one variant.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) bytes: Vec<u8>,
    /// Where each frame ends, with its number in the pass: a session that is in several variants
    /// gets their frames in the order of the changes.
    pub(crate) frames: Vec<PendingFrame>,
}

/// One frame of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingFrame {
    pub(crate) number: u32,
    pub(crate) end: usize,
}

impl Group {
    pub(crate) fn new(shape: Shape, filed: Option<Box<Filed>>) -> Group {
        Group { shape, filed, variants: SmallVec::new(), attached: 0 }
    }

    /// Whether a live session is waiting for its frames.
    pub(crate) fn has_members(&self) -> bool {
        self.variants.iter().any(|variant| !variant.members.is_empty())
    }

    /// The variant of that name and key, made where it is missing.
    pub(crate) fn variant(&mut self, id: &Rc<str>, keying: Option<Keying>) -> usize {
        let same = |known: &Variant| known.id == *id && known.keying.as_deref() == keying.as_ref();
        if let Some(known) = self.variants.iter().position(same) {
            return known;
        }
        let mut head = Vec::new();
        self.shape.dialect.head(id, &mut head);
        let variant = Variant {
            head: head.into(),
            id: Rc::clone(id),
            keying: keying.map(Rc::new),
            members: SmallVec::new(),
            attached: 0,
            pending: None,
        };
        // The place of a variant that nobody belongs to any more is used again, so that clients
        // that invent a name for each subscription don't make the group grow.
        let free = self.variants.iter().position(|variant| variant.attached == 0);
        if let Some((at, place)) = free.and_then(|at| Some((at, self.variants.get_mut(at)?))) {
            *place = variant;
            return at;
        }
        self.variants.push(variant);
        self.variants.len() - 1
    }
}

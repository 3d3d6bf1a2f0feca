//! One subscription that reads the ring: what it is judged by, for each shape that its table had.

use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::OldTuple;
use crate::change::tuple::Cell;
use crate::change::tuple::Tuple;
use crate::change::visibility::Visibility;
use crate::route::group::Shape;
use crate::route::plan;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::throttle::Keying;
use crate::rule::Equality;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

/// One subscription of a reader, with the shapes that it was planned for.
pub(crate) struct Member {
    pub(crate) session: SessionKey,
    pub(crate) id: Rc<str>,
    pub(crate) relation: RelationId,
    pub(crate) head: Rc<[u8]>,
    pub(crate) as_now: Planned,
    /// The value that the shape demands of a column: most changes are told from it by a look.
    pub(crate) equality: Option<Equality>,
    /// Whether its rule reads other tables.
    pub(crate) is_watching: bool,
    /// What the rows of its snapshot hold already.
    pub(crate) seen: Option<Arc<Visibility>>,
    /// Whether others of its variant may want the same pieces of the ring.
    pub(crate) is_shared: bool,
    /// Whether there are others of its variant.
    pub(crate) has_peers: bool,
    /// Plans for other shapes of the table; `None` where it can't be planned.
    pub(crate) earlier: HashMap<u64, Option<Planned>>,
}

/// A subscription as planned for one shape of its table.
pub(crate) struct Planned {
    pub(crate) shape: Shape,
    pub(crate) keying: Option<Rc<Keying>>,
}

impl Shard {
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
            is_watching: group.filed.is_some(),
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

    pub(crate) fn planned_for<'a>(
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
            let context = self.shared.context(&catalog);
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

/// Whether a change can have a row that a shape with this demand sees, by a look at the one column.
pub(crate) fn may_match(equality: &Equality, change: &ChangeKind<'_>) -> bool {
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

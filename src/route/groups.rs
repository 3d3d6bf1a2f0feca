//! All groups of a shard: found by shape when a subscription comes, by index when a change comes.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::catalog::snapshot::Snapshot;
use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::change::transaction::Change;
use crate::change::transaction::ChangeKind;
use crate::change::tuple::Tuple;
use crate::route::group::Filed;
use crate::route::group::Group;
use crate::route::group::GroupId;
use crate::route::group::Shape;
use crate::route::index::Index;
use crate::route::projection::Projection;
use crate::route::throttle::Keying;
use crate::route::watch::Watches;
use crate::rule::Alone;
use crate::rule::Others;
use crate::rule::Reach;
use crate::rule::Shift;

/// Where a subscription belongs: a group, and in it the variant with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) group: GroupId,
    pub(crate) variant: usize,
}

/// The groups of one table.
#[derive(Debug)]
pub(crate) struct TableGroups {
    /// The shape of the table to which every group of it is bound.
    pub(crate) relation: Arc<Relation>,
    /// How many of its groups have a rule that reads other tables.
    pub(crate) watching: usize,
    pub(crate) index: Index,
    projections: Vec<Rc<Projection>>,
}

/// Every group of a shard.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Slab<Group>,
    by_shape: HashTable<u32>,
    hasher: RandomState,
    tables: HashMap<RelationId, TableGroups>,
    ids: HashMap<Rc<str>, u32>,
    /// The groups whose rules read other tables.
    pub(crate) watches: Watches,
}

impl Groups {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The groups of one table; none where nobody subscribed to it.
    pub(crate) fn table(&self, id: RelationId) -> Option<&TableGroups> {
        self.tables.get(&id)
    }

    /// One group.
    pub(crate) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// Groups from a place on, with their places.
    pub(crate) fn from(&self, place: GroupId) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().skip_while(move |(at, _)| *at < place)
    }

    /// One group, to be changed.
    pub(crate) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(id)
    }

    /// One copy of a name for all subscriptions that have it.
    pub(crate) fn intern(&mut self, id: &str) -> Rc<str> {
        if let Some((known, _)) = self.ids.get_key_value(id) {
            return Rc::clone(known);
        }
        let id: Rc<str> = id.into();
        self.ids.insert(Rc::clone(&id), 0);
        id
    }

    /// One copy of a projection for all groups that have it.
    pub(crate) fn share(&mut self, projection: Projection) -> Rc<Projection> {
        let table = self.table_mut(&projection.relation);
        if let Some(known) = table.projections.iter().find(|known| ***known == projection) {
            return Rc::clone(known);
        }
        let projection = Rc::new(projection);
        table.projections.push(Rc::clone(&projection));
        projection
    }

    /// Adds a subscription called `id`, not yet live, to the group of its shape; a throttled one
    /// with its key. Where its rule reads other tables, their rows are those of `others`.
    pub(crate) fn attach(
        &mut self,
        shape: Shape,
        id: &Rc<str>,
        keying: Option<Keying>,
        others: &dyn Others,
    ) -> Attachment {
        let hash = self.hash(&shape);
        let groups = &self.groups;
        let same = |known: &u32| groups.get(widen(*known)).is_some_and(|it| it.shape == shape);
        let group = match self.by_shape.find(hash, same) {
            Some(known) => widen(*known),
            None => self.insert(hash, shape, others),
        };
        if let Some(uses) = self.ids.get_mut(id) {
            *uses += 1;
        }
        let group_ref = self.groups.get_mut(group).expect("it was found or made just now");
        group_ref.attached += 1;
        let variant = group_ref.variant(id, keying);
        if let Some(variant) = group_ref.variants.get_mut(variant) {
            variant.attached += 1;
        }
        Attachment { group, variant }
    }

    /// Removes a subscription that is not live; the last one removes the group.
    pub(crate) fn detach(&mut self, attachment: Attachment) {
        let Some(group) = self.groups.get_mut(attachment.group) else { return };
        group.attached -= 1;
        let Some(variant) = group.variants.get_mut(attachment.variant) else { return };
        variant.attached -= 1;
        let id = Rc::clone(&variant.id);
        if group.attached == 0 {
            self.remove(attachment.group);
        }
        if let Some(uses) = self.ids.get_mut(&id) {
            *uses -= 1;
            if *uses == 0 {
                self.ids.remove(&id);
            }
        }
    }

    /// Makes a subscription of `session` live; returns its place among the members.
    pub(crate) fn join(&mut self, attachment: Attachment, session: u32) -> u32 {
        let group = self.groups.get_mut(attachment.group);
        let variant = group.and_then(|group| group.variants.get_mut(attachment.variant));
        let variant = variant.expect("a subscription's attachment is valid until it is detached");
        variant.members.push(session);
        u32::try_from(variant.members.len() - 1).expect("a shard has fewer than 2^32 sessions")
    }

    /// Ends a subscription's being live. Where another session's subscription took its place, that
    /// session is returned and must note it.
    pub(crate) fn leave(&mut self, attachment: Attachment, member_at: u32) -> Option<u32> {
        let group = self.groups.get_mut(attachment.group)?;
        let variant = group.variants.get_mut(attachment.variant)?;
        let at = widen(member_at);
        if at >= variant.members.len() {
            return None;
        }
        variant.members.swap_remove(at);
        if variant.members.capacity() > 64 && variant.members.len() * 4 < variant.members.capacity()
        {
            variant.members.shrink_to_fit();
        }
        variant.members.get(at).copied()
    }

    /// Notes that the table's changes now come in another shape; its groups are re-planned by the
    /// caller, one subscription after the other.
    pub(crate) fn reshape(&mut self, relation: &Arc<Relation>) {
        if let Some(table) = self.tables.get_mut(&relation.id) {
            table.relation = Arc::clone(relation);
        }
    }

    /// Takes every table to the shape that the catalogue knows; its groups are re-planned by the
    /// caller.
    pub(crate) fn follow(&mut self, catalog: &Snapshot) {
        for (id, groups) in &mut self.tables {
            if let Some(table) = catalog.by_id(*id) {
                groups.relation = Arc::clone(&table.relation);
            }
        }
    }

    /// Files a group under more than it reaches: under what it will reach, too.
    pub(crate) fn widen(&mut self, id: GroupId, later: &Reach) {
        self.refile(id, |filed| filed.cover = filed.cover.clone().or(later.cover().clone()));
    }

    /// Files a group under what it reaches from now on. Tells how that differs from before.
    pub(crate) fn settle(&mut self, id: GroupId, reach: Reach) -> Option<Shift> {
        let mut shift = None;
        self.refile(id, |filed| {
            shift = filed.reach.shift_to(&reach);
            *filed = Filed { cover: reach.cover().clone(), reach };
        });
        shift
    }

    fn refile(&mut self, id: GroupId, change: impl FnOnce(&mut Filed)) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(filed) = group.filed.as_deref_mut() else { return };
        let table = self.tables.get_mut(&group.shape.projection.relation.id);
        let before = filed.cover.clone();
        change(filed);
        if let Some(table) = table.filter(|_| before != filed.cover) {
            table.index.remove(id, &before);
            table.index.insert(id, &filed.cover);
        }
    }

    fn insert(&mut self, hash: u64, shape: Shape, others: &dyn Others) -> GroupId {
        let relation = Arc::clone(&shape.projection.relation);
        let rule = shape.rule.clone();
        // Nobody in a group that Postgres is asked for is ever live.
        let is_asked = shape.asked.is_some();
        let filed = (!is_asked && !rule.sources().is_empty()).then(|| {
            let reach = rule.reach(others);
            Box::new(Filed { cover: reach.cover().clone(), reach })
        });
        let group = self.groups.insert(Group::new(shape, filed));
        let (groups, hasher) = (&self.groups, &self.hasher);
        let rehash =
            |known: &u32| groups.get(widen(*known)).map_or(0, |it| hash_of(hasher, &it.shape));
        let narrow = u32::try_from(group).expect("a shard has fewer than 2^32 groups");
        self.by_shape.insert_unique(hash, narrow, rehash);
        let filed = self.groups.get(group).and_then(|group| group.filed.as_deref());
        let table = self.tables.entry(relation.id).or_insert_with(|| TableGroups::of(&relation));
        match filed {
            None if is_asked => {}
            None => table.index.insert(group, &rule.cover(&Alone)),
            Some(filed) => {
                table.index.insert(group, &filed.cover);
                table.watching += 1;
                self.watches.insert(group, &rule);
            }
        }
        group
    }

    fn remove(&mut self, id: GroupId) {
        let group = self.groups.remove(id);
        let hash = self.hash(&group.shape);
        if let Ok(entry) = self.by_shape.find_entry(hash, |known| widen(*known) == id) {
            entry.remove();
        }
        let rule = &group.shape.rule;
        let relation = group.shape.projection.relation.id;
        if let Some(table) = self.tables.get_mut(&relation) {
            match &group.filed {
                None if group.shape.asked.is_some() => {}
                None => table.index.remove(id, &rule.cover(&Alone)),
                Some(filed) => {
                    table.index.remove(id, &filed.cover);
                    table.watching -= 1;
                    self.watches.remove(id, rule);
                }
            }
            drop(group);
            table.projections.retain(|projection| Rc::strong_count(projection) > 1);
            if table.index.is_empty() && table.projections.is_empty() {
                self.tables.remove(&relation);
            }
        }
    }

    fn table_mut(&mut self, relation: &Arc<Relation>) -> &mut TableGroups {
        self.tables.entry(relation.id).or_insert_with(|| TableGroups::of(relation))
    }

    fn hash(&self, shape: &Shape) -> u64 {
        hash_of(&self.hasher, shape)
    }
}

impl TableGroups {
    /// Whether any group can want the change, by a look at the indexed columns alone.
    pub(crate) fn may_match(&self, change: &Change<'_>) -> bool {
        let hit = |tuple: Tuple<'_>| {
            self.index
                .columns()
                .any(|column| tuple.cell(column).is_some_and(|cell| self.index.hits(column, cell)))
        };
        match change.kind {
            ChangeKind::Insert { new } => hit(new),
            // Rare enough beside inserts of tables that nobody filters to be worth no shortcut.
            ChangeKind::Update { .. } | ChangeKind::Delete { .. } | ChangeKind::Truncate => true,
        }
    }

    fn of(relation: &Arc<Relation>) -> TableGroups {
        TableGroups {
            relation: Arc::clone(relation),
            watching: 0,
            index: Index::default(),
            projections: Vec::new(),
        }
    }
}

fn hash_of(hasher: &RandomState, shape: &Shape) -> u64 {
    let name = shape.asked.as_ref().map(|asked| &asked.name);
    hasher.hash_one((shape.projection.relation.version, &shape.rule, name, shape.events))
}

fn widen(id: u32) -> usize {
    usize::try_from(id).expect("usize has at least 32 bits")
}

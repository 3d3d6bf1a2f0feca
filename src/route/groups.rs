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
use crate::route::group::Group;
use crate::route::group::GroupId;
use crate::route::group::Shape;
use crate::route::index::Index;
use crate::route::projection::Projection;
use crate::route::throttle::Keying;
use crate::rule::Alone;

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
    /// with its key.
    pub(crate) fn attach(
        &mut self,
        shape: Shape,
        id: &Rc<str>,
        keying: Option<Keying>,
    ) -> Attachment {
        let hash = self.hash(&shape);
        let groups = &self.groups;
        let same = |known: &u32| groups.get(widen(*known)).is_some_and(|it| it.shape == shape);
        let group = match self.by_shape.find(hash, same) {
            Some(known) => widen(*known),
            None => self.insert(hash, shape),
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

    fn insert(&mut self, hash: u64, shape: Shape) -> GroupId {
        let relation = Arc::clone(&shape.projection.relation);
        // Nobody in a group that Postgres is asked for is ever live.
        let cover = shape.asked.is_none().then(|| shape.rule.cover(&Alone));
        let group = self.groups.insert(Group::new(shape));
        let (groups, hasher) = (&self.groups, &self.hasher);
        let rehash =
            |known: &u32| groups.get(widen(*known)).map_or(0, |it| hash_of(hasher, &it.shape));
        let narrow = u32::try_from(group).expect("a shard has fewer than 2^32 groups");
        self.by_shape.insert_unique(hash, narrow, rehash);
        let table = self.table_mut(&relation);
        if let Some(cover) = cover {
            table.index.insert(group, &cover);
        }
        group
    }

    fn remove(&mut self, id: GroupId) {
        let group = self.groups.remove(id);
        let hash = self.hash(&group.shape);
        if let Ok(entry) = self.by_shape.find_entry(hash, |known| widen(*known) == id) {
            entry.remove();
        }
        let relation = group.shape.projection.relation.id;
        if let Some(table) = self.tables.get_mut(&relation) {
            if group.shape.asked.is_none() {
                table.index.remove(id, &group.shape.rule.cover(&Alone));
            }
            drop(group);
            table.projections.retain(|projection| Rc::strong_count(projection) > 1);
            if table.index.is_empty() && table.projections.is_empty() {
                self.tables.remove(&relation);
            }
        }
    }

    fn table_mut(&mut self, relation: &Arc<Relation>) -> &mut TableGroups {
        self.tables.entry(relation.id).or_insert_with(|| TableGroups {
            relation: Arc::clone(relation),
            index: Index::default(),
            projections: Vec::new(),
        })
    }

    fn hash(&self, shape: &Shape) -> u64 {
        hash_of(&self.hasher, shape)
    }
}

fn hash_of(hasher: &RandomState, shape: &Shape) -> u64 {
    let name = shape.asked.as_ref().map(|asked| &asked.name);
    hasher.hash_one((shape.projection.relation.version, &shape.rule, name, shape.events))
}

fn widen(id: u32) -> usize {
    usize::try_from(id).expect("usize has at least 32 bits")
}

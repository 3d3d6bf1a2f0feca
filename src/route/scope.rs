//! What a transaction does to the groups whose rules read other tables: to what they reach, and
//! what their subscribers are told of it.
//!
//! ```text
//! open_scope:    memberships of the transaction ─▶ watches ─▶ groups ─▶ reach before and after
//!                                                  a group stands under both while it is matched
//! close_scope:   it stands under what it reaches now; how that differs is noted
//! settle_shifts: at the end of the pass its subscribers are told to fetch again
//! ```
//!
//! Rows that did not change are not in memory, so nobody can be sent the rows that a new membership
//! lets them see, nor told each that they may see no more: they get a `resync` that says which of
//! both it is.
//!
//! # Invariants
//!
//! - The rows of other tables are those of the transaction that is matched: those before it for old
//!   images, those after it for new ones. (`replica`)
//! - Of a moment that is not known nothing is delivered: who is live falls behind before it, reads it
//!   when it is known, or gets a `resync` where it never will be.

use std::rc::Rc;
use std::sync::Arc;

use crate::change::lsn::Lsn;
use crate::change::transaction::Transaction;
use crate::replica::Moment;
use crate::replica::Outlook;
use crate::ring::Gap;
use crate::route::group::Group;
use crate::route::group::GroupId;
use crate::route::session::Reader;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::rule::Reach;
use crate::rule::Rule;
use crate::rule::Shift;
use crate::rule::Source;

/// What a group will reach when the transaction is matched.
#[derive(Debug)]
pub(crate) struct Turning {
    group: GroupId,
    /// A place may be another group's by then.
    rule: Rule,
    reach: Reach,
}

/// A group whose subscribers have to be told.
#[derive(Debug)]
pub(crate) struct Turned {
    group: GroupId,
    rule: Rule,
    reason: Gap,
}

impl From<Shift> for Gap {
    fn from(shift: Shift) -> Gap {
        match shift {
            Shift::Entered => Gap::ScopeEntered,
            Shift::Left => Gap::ScopeLeft,
            Shift::Changed => Gap::ScopeChanged,
        }
    }
}

impl Shard {
    /// When it is for the shard's live subscriptions, as to other tables. Between transactions it is
    /// before whatever commits next.
    pub(crate) fn moment(&self) -> (Lsn, Moment) {
        match self.routing.as_ref().filter(|routing| routing.is_open) {
            Some(routing) => (routing.transaction.commit_lsn, Moment::After),
            None => (self.matched.lsn, Moment::Before),
        }
    }

    /// Whether what a rule reads of other tables is known now; where it is not, whether it will be.
    pub(crate) fn outlook(&self, rule: &Rule) -> Outlook {
        let (at, moment) = self.moment();
        Shard::worst(rule, |source| self.shared.replicas.outlook(source, at, Some(moment)))
    }

    /// The same before a commit and after it.
    pub(crate) fn outlook_at(&self, rule: &Rule, at: Lsn) -> Outlook {
        Shard::worst(rule, |source| self.shared.replicas.outlook(source, at, None))
    }

    fn worst(rule: &Rule, outlook: impl Fn(&Source) -> Outlook) -> Outlook {
        rule.sources().into_iter().map(outlook).fold(Outlook::Held, |worst, one| {
            match (worst, one) {
                (Outlook::Lost, _) | (_, Outlook::Lost) => Outlook::Lost,
                (Outlook::Awaited, _) | (_, Outlook::Awaited) => Outlook::Awaited,
                (Outlook::Held, Outlook::Held) => Outlook::Held,
            }
        })
    }

    /// Looks whether other tables became known, or unknown. Nothing may be pending.
    pub(crate) fn follow_replicas(&mut self) {
        let epoch = self.shared.replicas.epoch();
        if epoch == self.replica_epoch {
            return;
        }
        self.replica_epoch = epoch;
        self.retry_unheld();
        if self.groups.from(0).any(|(_, group)| group.shape.asked.is_some()) {
            self.judge_anew();
        }
        self.judge_lost();
        for group in self.watching() {
            let Some(rule) = self.groups.get(group).map(|group| group.shape.rule.clone()) else {
                continue;
            };
            self.reach_again(group, &rule);
            if self.outlook(&rule) != Outlook::Held {
                self.set_behind(group);
            }
        }
    }

    /// Has everything judged again where a table can't be held that somebody's rule reads: Postgres is
    /// asked then, or the subscription ends.
    fn judge_lost(&mut self) {
        let replicas = &self.shared.replicas;
        let can_hold = |group: &GroupId| {
            let group = self.groups.get(*group);
            group.is_none_or(|it| it.shape.rule.sources().iter().all(|it| replicas.can_hold(it)))
        };
        if !self.watching().iter().all(can_hold) {
            self.judge_anew();
        }
    }

    /// A second has passed.
    pub(crate) fn tick_unheld(&mut self) {
        if !self.unheld.is_empty() {
            self.judge_lost();
            self.retry_unheld();
        }
    }

    /// The groups whose rules read other tables.
    fn watching(&self) -> Vec<GroupId> {
        let mut groups = Vec::new();
        for watched in self.groups.watches.tables() {
            watched.all(&mut groups);
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Lets the sessions of a group read on from here, instead of being served as it comes.
    fn set_behind(&mut self, group: GroupId) {
        let Some(place) = self.place() else { return };
        for (key, _) in self.members(group) {
            self.fall_behind(key, place);
        }
    }

    fn members(&self, group: GroupId) -> Vec<(SessionKey, Rc<str>)> {
        let variants = self.groups.get(group).into_iter().flat_map(|group| &group.variants);
        let of_variant = variants.flat_map(|variant| {
            let member = |place: &u32| Some((self.key_of(*place)?, Rc::clone(&variant.id)));
            variant.members.iter().filter_map(member)
        });
        of_variant.collect()
    }

    /// Looks what the transaction at hand does to what groups reach, before its first change (or that
    /// of one of its parts) is matched; `false` where the pass must end before.
    pub(crate) fn open_scope(&mut self) -> bool {
        let Some(routing) = self.routing.as_ref().filter(|routing| !routing.is_open) else {
            return true;
        };
        if self.groups.watches.is_empty() {
            return true;
        }
        let transaction = Arc::clone(&routing.transaction);
        if transaction.is_part() && !self.set_behind_part() {
            return false;
        }
        let mut turning = Vec::new();
        // What a transaction does to other tables is known when its last part is there.
        if transaction.end_lsn.is_some() {
            for group in self.concerned(&transaction) {
                let Some(found) = self.groups.get(group) else { continue };
                let rule = found.shape.rule.clone();
                let after = self.shared.replicas.view(transaction.commit_lsn, Moment::After);
                let reach = rule.reach(&after);
                self.groups.widen(group, &reach);
                turning.push(Turning { group, rule, reach });
            }
            self.retry_unheld();
        }
        if let Some(routing) = &mut self.routing {
            routing.is_open = true;
            routing.turning = turning;
        }
        true
    }

    /// Lets everybody whose rule reads other tables wait for the end of a transaction that comes in
    /// parts; `false` where the pass must end before.
    fn set_behind_part(&mut self) -> bool {
        let is_live = |group: &GroupId| self.groups.get(*group).is_some_and(Group::has_members);
        let live: Vec<GroupId> = self.watching().into_iter().filter(is_live).collect();
        if !live.is_empty() && self.pass.has_frames() {
            return false;
        }
        for group in live {
            self.set_behind(group);
        }
        true
    }

    /// The groups that read rows which the transaction has changed.
    fn concerned(&self, transaction: &Transaction) -> Vec<GroupId> {
        let mut groups = Vec::new();
        let after = self.shared.replicas.view(transaction.commit_lsn, Moment::After);
        let may_touch = |table| transaction.is_part() || transaction.touches(table);
        for watched in self.groups.watches.tables().filter(|it| may_touch(it.table)) {
            let known = after.touched(&watched.source(), &mut |_, row| {
                watched.concerned(row, &mut groups);
            });
            if known.is_err() {
                watched.all(&mut groups);
            }
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The transaction is matched: groups stand under what they reach now.
    pub(crate) fn close_scope(&mut self, turning: Vec<Turning>) {
        for Turning { group, rule, reach } in turning {
            if !self.has_rule(group, &rule) {
                continue;
            }
            if let Some(shift) = self.groups.settle(group, reach) {
                self.pass.turned.push(Turned { group, rule, reason: shift.into() });
            }
        }
    }

    /// Whether the group at this place is still the one of this rule.
    fn has_rule(&self, group: GroupId, rule: &Rule) -> bool {
        self.groups.get(group).is_some_and(|known| known.shape.rule == *rule)
    }

    /// A group could not be decided, because other tables are not known (any more).
    pub(crate) fn note_unheld(&mut self, group: GroupId) {
        let Some(found) = self.groups.get(group) else { return };
        if self.pass.turned.last().is_some_and(|turned| turned.group == group) {
            return;
        }
        let rule = found.shape.rule.clone();
        self.pass.turned.push(Turned { group, rule, reason: Gap::StateUnknown });
    }

    /// Tells the subscribers of groups that see other rows than before. Nothing may be pending.
    pub(crate) fn settle_shifts(&mut self) {
        for Turned { group, rule, reason } in std::mem::take(&mut self.pass.turned) {
            if !self.has_rule(group, &rule) {
                continue;
            }
            for (key, id) in self.members(group) {
                self.resync(key, &id, reason);
            }
        }
    }

    /// Whether a session may be served as it comes with a subscription of this rule; else it is
    /// looked again when other tables become known.
    pub(crate) fn is_ready(&self, key: SessionKey, id: &str) -> bool {
        let group =
            self.session(key).and_then(|it| it.subscription(id)).map(|it| it.attachment.group);
        let group = group.and_then(|group| self.groups.get(group));
        group.is_none_or(|group| {
            group.filed.is_none() || self.outlook(&group.shape.rule) == Outlook::Held
        })
    }

    /// Looks again what a group reaches, where that was not known when it was made.
    pub(crate) fn refresh_reach(&mut self, group: GroupId) {
        let Some(found) = self.groups.get(group) else { return };
        if found.filed.as_ref().is_none_or(|filed| filed.reach.is_known()) {
            return;
        }
        let rule = found.shape.rule.clone();
        self.reach_again(group, &rule);
    }

    /// Files a group under what its rule reaches now. Nobody is told.
    fn reach_again(&mut self, group: GroupId, rule: &Rule) {
        let (at, moment) = self.moment();
        let reach = rule.reach(&self.shared.replicas.view(at, moment));
        self.groups.settle(group, reach);
    }

    /// Lets a subscription that would be live wait until other tables are known.
    pub(crate) fn await_others(&mut self, key: SessionKey, id: &str) {
        let Some(place) = self.place() else { return };
        if let Some(session) = self.session_mut(key) {
            let Some(id) = session.subscription(id).map(|it| Rc::clone(&it.id)) else { return };
            session.forget_reader_of(&id);
            let ids = smallvec::smallvec![id];
            session.readers.push(Reader { place, ids, announce: false, handover: None });
        }
        self.unheld.push(key);
    }

    /// Lets sessions that wait for other tables look again.
    pub(crate) fn retry_unheld(&mut self) {
        for key in std::mem::take(&mut self.unheld) {
            self.schedule(key);
        }
    }

    /// Whether a transaction lets a rule admit other rows than before, without a change of these:
    /// the reason to begin anew; absent within, where that can't be said yet.
    pub(crate) fn shift_of(&self, rule: &Rule, transaction: &Transaction) -> Option<Option<Gap>> {
        let touched = || rule.sources().iter().any(|source| transaction.touches(source.table));
        if !transaction.is_part() && !touched() {
            return None;
        }
        match self.outlook_at(rule, transaction.commit_lsn) {
            Outlook::Awaited => Some(None),
            Outlook::Lost => Some(Some(Gap::StateUnknown)),
            Outlook::Held => {
                let replicas = &self.shared.replicas;
                let at = |moment| rule.reach(&replicas.view(transaction.commit_lsn, moment));
                let shift = at(Moment::Before).shift_to(&at(Moment::After))?;
                Some(Some(shift.into()))
            }
        }
    }
}

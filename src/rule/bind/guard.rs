//! The policies of the tables that policies read: PostgreSQL puts them into every query.

use crate::change::id::RelationId;
use crate::rule::bind::Binder;
use crate::rule::bind::InPolicy;
use crate::rule::bind::logic::junction;
use crate::rule::bind::names::Named;
use crate::rule::bind::names::Names;
use crate::rule::error::RuleError;
use crate::rule::policy::Kind;
use crate::rule::policy::tables::Guard;
use crate::rule::policy::tables::Guarded;
use crate::rule::policy::tables::Tables;
use crate::rule::term::Term;

/// How deep policies may lead to others.
const DEPTH_MAX: usize = 16;

/// A table whose policies are being put in, and those around it.
#[derive(Debug)]
pub(in crate::rule) struct Inside<'a> {
    pub(in crate::rule) table: RelationId,
    pub(in crate::rule) role: &'a str,
    pub(in crate::rule) outer: Option<&'a Inside<'a>>,
}

impl Inside<'_> {
    fn around(&self) -> impl Iterator<Item = &Inside<'_>> {
        std::iter::successors(Some(self), |inside| inside.outer)
    }

    /// The error that PostgreSQL raises where a table's policies lead to the table.
    fn enter(&self, table: &dyn Guarded, role: &str) -> Result<(), RuleError> {
        let (id, name) = (table.relation().id, &table.relation().name);
        if self.around().any(|inside| inside.table == id && inside.role == role) {
            let reason = "infinite recursion: its policies lead back to it";
            return Err(RuleError::raises(&**name, reason));
        }
        if self.around().count() > DEPTH_MAX {
            let reason = "policies lead to others too deep";
            return Err(RuleError::unsupported(&**name, reason, ""));
        }
        Ok(())
    }
}

impl Binder<'_> {
    /// What is true of the rows of a source that the asking role sees.
    pub(in crate::rule::bind) fn guarded(
        &self,
        table: &dyn Guarded,
        named: Named<'_>,
    ) -> Result<Term, RuleError> {
        let Some(policy) = self.policy else { return Ok(Term::boolean(false)) };
        let Some(guards) = table.guards(policy.role) else { return Ok(Term::boolean(true)) };
        if !guards.iter().any(|guard| guard.kind == Kind::Permissive) {
            return Ok(Term::boolean(false));
        }
        policy.inside.enter(table, policy.role)?;
        let relation = table.relation();
        let inside = Inside { table: relation.id, role: policy.role, outer: Some(policy.inside) };
        let alias = &*relation.name;
        let names = Names {
            outer: None,
            tables: vec![Named { alias, granted: None, ..named }],
            called: Vec::new(),
            frame: None,
        };
        let policy = InPolicy { inside: &inside, ..policy };
        let binder =
            Binder { names: &names, claims: self.claims, policy: Some(policy), is_positive: true };
        let is_open = guards.iter().any(Guard::is_open);
        let (mut permissive, mut both) = (Vec::new(), Vec::new());
        for guard in guards {
            if guard.kind == Kind::Permissive && is_open {
                without_recursion(guard.reads, policy.tables, &inside)?;
                continue;
            }
            let read = guard.read.as_ref().map_err(Clone::clone)?;
            let term = binder.boolean(read.node(policy.reading))?;
            match guard.kind {
                Kind::Permissive => permissive.push(term),
                Kind::Restrictive => both.push(term),
            }
        }
        if !is_open {
            both.push(junction(permissive, true));
        }
        Ok(junction(both, false))
    }
}

/// Checks that the policies of the tables of these OIDs don't lead back. Of a policy that is not
/// needed, because another one admits everything, PostgreSQL still raises this error.
pub(in crate::rule) fn without_recursion(
    reads: &[u32],
    tables: &dyn Tables,
    inside: &Inside<'_>,
) -> Result<(), RuleError> {
    for id in reads {
        let table = tables.by_id(RelationId(*id)).ok_or_else(|| {
            let reason = "whether its own policies lead back is not known here";
            RuleError::unsupported("what a policy reads", reason, "")
        })?;
        let Some(guards) = table.guards(inside.role) else { continue };
        if !guards.iter().any(|guard| guard.kind == Kind::Permissive) {
            continue;
        }
        inside.enter(table, inside.role)?;
        let next = Inside { table: RelationId(*id), outer: Some(inside), ..*inside };
        for guard in guards {
            without_recursion(guard.reads, tables, &next)?;
        }
    }
    Ok(())
}

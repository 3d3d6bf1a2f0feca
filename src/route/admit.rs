//! Which rows of a table a client may see at all, whatever it asks for: the configuration's policy,
//! or the database's own.
//!
//! A policy of the configuration takes the place of the database's. Without one, a table with
//! row-level security is served by it: who enabled it has said who may see what, and a table without
//! it and without a word in the configuration stays closed. `open = true` opens what row-level
//! security does not guard.

use std::sync::Arc;

use crate::auth::Claims;
use crate::catalog::policies::TablePolicy;
use crate::catalog::snapshot::RowSecurity;
use crate::catalog::snapshot::Table;
use crate::change::relation::Relation;
use crate::route::asked;
use crate::route::asked::Asked;
use crate::route::plan::Context;
use crate::route::plan::Refusal;
use crate::route::policy::Policy;
use crate::route::policy::Undecided;
use crate::route::subscription::Request;
use crate::rule::Rule;
use crate::rule::RuleError;
use crate::rule::Session;
use crate::rule::Source;
use crate::rule::policy::Kind;
use crate::rule::policy::tables::Guard;
use crate::rule::policy::visible;

/// The rows that somebody may see.
#[derive(Debug)]
pub(super) struct Admitted {
    /// As far as it is decided here.
    pub(super) rule: Rule,
    /// What Postgres is asked of those that the rule admits.
    pub(super) asked: Option<Arc<Asked>>,
}

/// Whether the table is open to clients at all, as far as that does not depend on who asks.
pub(super) fn is_open(
    context: Context<'_>,
    table: &Table,
    request: &Request,
) -> Result<(), Refusal> {
    let closed = context.policies.of(&request.table).is_none();
    if closed && table.row_security == RowSecurity::Off {
        return Err(Refusal::TableClosed { table: request.table.to_string() });
    }
    Ok(())
}

/// The rows that these claims may see.
pub(super) fn admitted(
    context: Context<'_>,
    claims: &Claims,
    (table, relation): (&Table, &Arc<Relation>),
    request: &Request,
) -> Result<Admitted, Refusal> {
    let alone = |rule| Admitted { rule, asked: None };
    match context.policies.of(&request.table) {
        Some(Policy::Rule(rule)) => {
            let bound = Rule::bind(rule, relation, claims.json()).map_err(|error| {
                tracing::warn!(relation = %request.table, %error, "policy can't be decided");
                Refusal::Policy { table: request.table.to_string() }
            });
            bound.map(alone)
        }
        _ if table.row_security == RowSecurity::Off || table.policies.exempts(claims.role()) => {
            Ok(alone(Rule::always()))
        }
        _ => by_the_database(context, claims, (table, relation), request),
    }
}

/// The database's policies for these claims, each alone, or why it is not decided.
pub(super) fn one_by_one<'a>(
    context: Context<'_>,
    claims: &'a Claims,
    (table, relation): (&'a Table, &Relation),
) -> Vec<(&'a TablePolicy, Result<Rule, String>)> {
    let role = claims.role();
    let session = Session::new(claims.json(), role, context.policies.settings());
    let rule = |policy: &TablePolicy| {
        let guard = Guard { kind: Kind::Permissive, ..policy.guard() };
        let alone = visible(&[guard], relation, &session, context.catalog);
        alone.map_err(|(_, error)| error.to_string())
    };
    table.policies.of(role).map(|policy| (policy, rule(policy))).collect()
}

fn by_the_database(
    context: Context<'_>,
    claims: &Claims,
    (table, relation): (&Table, &Arc<Relation>),
    request: &Request,
) -> Result<Admitted, Refusal> {
    let (role, name) = (claims.role(), || request.table.to_string());
    let policies: Vec<&TablePolicy> = table.policies.of(role).collect();
    if !policies.iter().any(|policy| policy.kind == Kind::Permissive) {
        return Err(Refusal::NoPolicy { table: name() });
    }
    let guards: Vec<Guard<'_>> = policies.iter().map(|policy| policy.guard()).collect();
    let session = Session::new(claims.json(), role, context.policies.settings());
    let asks = context.policies.undecided(&request.table) == Undecided::Ask;
    let rule = match visible(&guards, relation, &session, context.catalog) {
        Ok(rule) => rule,
        Err((place, error)) => {
            let policy = policies.get(place);
            let is_read = policy.is_none_or(|policy| policy.read.is_ok());
            // What is wrong with the claims is an error in the database, too.
            let is_wrong = matches!(error, RuleError::Type { .. } | RuleError::Value { .. });
            if asks && error.can_be_asked() && !(is_read && is_wrong) {
                return by_asking(context, claims, (table, relation), request);
            }
            let (relation, policy) = (&request.table, policy.map(|policy| &policy.name));
            tracing::warn!(%relation, ?policy, role, %error, "row-level security is not decided here");
            // What does not depend on the claims is said to be so.
            return Err(if is_read && error.can_be_asked() {
                Refusal::Policy { table: name() }
            } else {
                Refusal::PolicyUnread { table: name() }
            });
        }
    };
    let is_held = |source: &&Source| context.replicas.is_none_or(|it| it.can_hold(source));
    if !rule.sources().iter().all(is_held) {
        if asks {
            return by_asking(context, claims, (table, relation), request);
        }
        let relation = &request.table;
        tracing::warn!(%relation, role, "a table that row-level security reads can't be kept in memory");
        return Err(Refusal::PolicyUnread { table: name() });
    }
    Ok(Admitted { rule, asked: None })
}

/// What Postgres is asked for these claims. Restrictive policies that are decided here are asked
/// first: what they reject nobody has to be asked about.
fn by_asking(
    context: Context<'_>,
    claims: &Claims,
    (table, relation): (&Table, &Arc<Relation>),
    request: &Request,
) -> Result<Admitted, Refusal> {
    let role = claims.role();
    let alone = one_by_one(context, claims, (table, relation));
    let mut rule = Rule::always();
    for (policy, read) in &alone {
        if let (Kind::Restrictive, Ok(read)) = (policy.kind, read)
            && read.sources().is_empty()
        {
            rule = rule.and(read.clone());
        }
    }
    let asked = asked::plan(context, claims, (table, relation)).map_err(|column| {
        let relation = &request.table;
        tracing::warn!(
            %relation, role, column,
            "Postgres can't be asked: the policies read a column that the stream does not carry"
        );
        Refusal::PolicyUnread { table: request.table.to_string() }
    })?;
    Ok(Admitted { rule, asked: Some(Arc::new(asked)) })
}

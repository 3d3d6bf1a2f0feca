//! Which rows of a table a client may see at all, whatever it asks for: the configuration's policy,
//! or the database's own.
//!
//! A policy of the configuration takes the place of the database's. Without one, a table with
//! row-level security is served by it: who enabled it has said who may see what, and a table without
//! it and without a word in the configuration stays closed. `open = true` opens what row-level
//! security does not guard.

use crate::auth::Claims;
use crate::catalog::policies::TablePolicy;
use crate::catalog::snapshot::RowSecurity;
use crate::catalog::snapshot::Table;
use crate::change::relation::Relation;
use crate::route::plan::Context;
use crate::route::plan::Refusal;
use crate::route::policy::Policy;
use crate::route::subscription::Request;
use crate::rule::Rule;
use crate::rule::RuleError;
use crate::rule::Session;
use crate::rule::policy::Kind;
use crate::rule::policy::Policy as ReadPolicy;
use crate::rule::policy::visible;

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
    (table, relation): (&Table, &Relation),
    request: &Request,
) -> Result<Rule, Refusal> {
    match context.policies.of(&request.table) {
        Some(Policy::Rule(rule)) => Rule::bind(rule, relation, claims.json()).map_err(|error| {
            tracing::warn!(relation = %request.table, %error, "policy can't be decided");
            Refusal::Policy { table: request.table.to_string() }
        }),
        _ if table.row_security == RowSecurity::Off || table.policies.exempts(claims.role()) => {
            Ok(Rule::always())
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
        let read = decidable(policy, role).map_err(|why| why.to_string())?;
        let alone = visible(&[(read, Kind::Permissive)], relation, &session);
        alone.map_err(|(_, error)| error.to_string())
    };
    table.policies.of(role).map(|policy| (policy, rule(policy))).collect()
}

/// The policy as it was read, where it is decided here for the role at all.
fn decidable<'a>(policy: &'a TablePolicy, role: &str) -> Result<&'a ReadPolicy, Obstacle<'a>> {
    let read = policy.read.as_ref().map_err(Obstacle::Unread)?;
    if read.may_be_asked_by(role) { Ok(read) } else { Err(Obstacle::Uncallable) }
}

/// Why a policy is not decided here.
#[derive(Debug, thiserror::Error)]
enum Obstacle<'a> {
    #[error("{0}")]
    Unread(&'a RuleError),
    #[error("the role may not call a function of it, so Postgres raises an error")]
    Uncallable,
}

fn by_the_database(
    context: Context<'_>,
    claims: &Claims,
    (table, relation): (&Table, &Relation),
    request: &Request,
) -> Result<Rule, Refusal> {
    let (role, name) = (claims.role(), || request.table.to_string());
    let mut policies = Vec::new();
    let mut names = Vec::new();
    for policy in table.policies.of(role) {
        let read = decidable(policy, role).map_err(|error| {
            let (relation, policy) = (&request.table, &policy.name);
            tracing::warn!(%relation, %policy, role, %error, "row-level security is not decided here");
            Refusal::PolicyUnread { table: name() }
        })?;
        policies.push((read, policy.kind));
        names.push(&policy.name);
    }
    if !policies.iter().any(|(_, kind)| *kind == Kind::Permissive) {
        return Err(Refusal::NoPolicy { table: name() });
    }
    let session = Session::new(claims.json(), role, context.policies.settings());
    visible(&policies, relation, &session).map_err(|(place, error)| {
        let (relation, policy) = (&request.table, names.get(place));
        tracing::warn!(%relation, ?policy, role, %error, "policy can't be decided");
        Refusal::Policy { table: name() }
    })
}

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
use crate::rule::Session;
use crate::rule::policy::Kind;
use crate::rule::policy::tables::Guard;
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
        let guard = Guard { kind: Kind::Permissive, ..policy.guard() };
        let alone = visible(&[guard], relation, &session, context.catalog);
        alone.map_err(|(_, error)| error.to_string())
    };
    table.policies.of(role).map(|policy| (policy, rule(policy))).collect()
}

fn by_the_database(
    context: Context<'_>,
    claims: &Claims,
    (table, relation): (&Table, &Relation),
    request: &Request,
) -> Result<Rule, Refusal> {
    let (role, name) = (claims.role(), || request.table.to_string());
    let policies: Vec<&TablePolicy> = table.policies.of(role).collect();
    if !policies.iter().any(|policy| policy.kind == Kind::Permissive) {
        return Err(Refusal::NoPolicy { table: name() });
    }
    let guards: Vec<Guard<'_>> = policies.iter().map(|policy| policy.guard()).collect();
    let session = Session::new(claims.json(), role, context.policies.settings());
    let rule = visible(&guards, relation, &session, context.catalog);
    let rule = rule.map_err(|(place, error)| {
        let (relation, policy) = (&request.table, policies.get(place));
        let policy_name = policy.map(|policy| &policy.name);
        tracing::warn!(%relation, policy = ?policy_name, role, %error, "row-level security is not decided here");
        // What does not depend on the claims is said to be so.
        let is_read = policy.is_none_or(|policy| policy.read.is_ok());
        if is_read && error.can_be_asked() {
            Refusal::Policy { table: name() }
        } else {
            Refusal::PolicyUnread { table: name() }
        }
    })?;
    // Their rows are not at hand yet.
    if !rule.sources().is_empty() {
        let relation = &request.table;
        tracing::warn!(%relation, role, "row-level security reads other tables");
        return Err(Refusal::PolicyUnread { table: name() });
    }
    Ok(rule)
}

//! From a subscription that begins with a snapshot to what Postgres is asked.

use crate::ask::AskError;
use crate::ask::Select;
use crate::ask::select::Order;
use crate::auth::Claims;
use crate::catalog::snapshot::RowSecurity;
use crate::change::relation::Relation;
use crate::route::plan;
use crate::route::plan::Context;
use crate::route::plan::Plan;
use crate::route::plan::Refusal;
use crate::route::policy::Policy;
use crate::route::subscription::Request;
use crate::route::subscription::SnapshotRequest;
use crate::rule::Condition;
use crate::rule::Expression;
use crate::rule::Session;

/// Writes the question for a subscription that was planned: in the name of the claims' role, for
/// the columns that are delivered and those that the rule reads. The rule is asked of every row
/// that comes, so what the database is told of it only spares it work; but where it counts rows, it
/// must be told all.
///
/// # Errors
///
/// [`Refusal`] where the role may not ask that.
pub(crate) fn question(
    context: Context<'_>,
    claims: &Claims,
    (request, snapshot): (&Request, &SnapshotRequest),
    plan: &Plan,
    rows_max: usize,
) -> Result<Select, Refusal> {
    let relation = &plan.projection.relation;
    let table = plan::table(context, request)?;
    let may_select = |column: &str| table.may_select(claims.role(), column);
    let named = |name: &str| {
        let position = relation.column(name).filter(|_| may_select(name));
        position.ok_or_else(|| Refusal::ColumnForbidden {
            column: name.to_owned(),
            table: request.table.to_string(),
        })
    };
    let latest_by = snapshot.latest_by.iter().map(|name| named(name)).collect::<Result<_, _>>()?;
    let order = snapshot.order.iter().map(|by| {
        let (descending, nulls_first) = (by.descending, by.nulls_first);
        Ok(Order { column: named(&by.column)?, descending, nulls_first })
    });
    let order = order.collect::<Result<Vec<_>, Refusal>>()?;
    let mut columns: Vec<usize> = plan.projection.columns.iter().map(|it| it.position).collect();
    columns.extend(plan.rule.columns());
    columns.sort_unstable();
    columns.dedup();
    let mut needed = columns.iter().filter_map(|position| relation.columns.get(*position));
    if !needed.all(|column| may_select(&column.name)) {
        let (role, table) = (claims.role().to_owned(), request.table.to_string());
        return Err(Refusal::SnapshotForbidden { role, table });
    }
    if snapshot.limit.is_some_and(|limit| limit > rows_max) {
        return Err(Refusal::Snapshot(AskError::TooLarge { limit: rows_max, unit: "rows" }));
    }
    let condition = condition(context, claims, request, relation)?;
    if !condition.whole && (snapshot.limit.is_some() || !snapshot.latest_by.is_empty()) {
        return Err(Refusal::SnapshotFilter);
    }
    let judged = table.row_security != RowSecurity::Off;
    let session = Session::new(claims.json(), claims.role(), context.policies.settings());
    Ok(Select {
        relation: std::sync::Arc::clone(relation),
        partitioned: table.partitioned,
        role: claims.role().into(),
        settings: if judged { session.to_settings() } else { Vec::new() },
        unset: plan.asked.as_ref().and_then(|asked| asked.name.unset.clone()),
        columns,
        condition: condition.sql.map(Into::into),
        latest_by,
        order,
        limit: snapshot.limit,
        stream: None,
    })
}

/// Filter and policy, as far as the database can be told of them.
fn condition(
    context: Context<'_>,
    claims: &Claims,
    request: &Request,
    relation: &Relation,
) -> Result<Condition, Refusal> {
    let write = |rule: &Expression| rule.to_sql(relation, claims.json());
    let filter = request.filter.as_ref().map(plan::parse).transpose().map_err(Refusal::Filter)?;
    let policy = match context.policies.of(&request.table) {
        Some(Policy::Rule(rule)) => Some(rule),
        Some(Policy::Open) | None => None,
    };
    let conditions: Vec<Condition> = policy.into_iter().chain(&filter).map(write).collect();
    let whole = conditions.iter().all(|condition| condition.whole);
    let written: Vec<String> = conditions.into_iter().filter_map(|it| it.sql).collect();
    Ok(Condition { sql: (!written.is_empty()).then(|| written.join(" AND ")), whole })
}

//! What Postgres is asked for some claims: the policies of a table as one condition.

use std::sync::Arc;

use crate::ask::verdict::Case;
use crate::ask::verdict::Image;
use crate::ask::verdict::Inquiry;
use crate::ask::verdict::Matter;
use crate::ask::verdict::Name;
use crate::ask::verdict::UnsetSettings;
use crate::auth::Claims;
use crate::catalog::policies::TablePolicy;
use crate::catalog::snapshot::Table;
use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::change::tuple::Cell;
use crate::route::asked::Asked;
use crate::route::plan::Context;
use crate::rule::Session;
use crate::rule::policy::Kind;

/// What is asked of every image of a row.
///
/// # Errors
///
/// The name of a column that the policies read and the stream does not carry.
pub(in crate::route) fn plan(
    context: Context<'_>,
    claims: &Claims,
    (table, relation): (&Table, &Arc<Relation>),
) -> Result<Asked, Box<str>> {
    let (role, reach) = (claims.role(), &table.policies.reach);
    let read = table.policies.of(role).flat_map(|policy| {
        reach.reads.get(&policy.name).and_then(Option::as_ref).unwrap_or(&reach.columns)
    });
    let reads = read.map(|name| relation.column(name).ok_or_else(|| name.clone()));
    let mut reads: Vec<usize> = reads.collect::<Result<_, _>>()?;
    reads.sort_unstable();
    reads.dedup();
    let session = Session::new(claims.json(), role, context.policies.settings());
    let watched = watched(context, table);
    let settings = session.to_settings();
    let unset = unset(context, &settings, table);
    let steady = reach.steady && is_brought_whole(context, table, &watched);
    let condition = condition(table, role);
    Ok(Asked {
        name: Arc::new(Name { role: role.into(), settings, unset }),
        matter: Arc::new(matter(context, (table, relation), reads, condition)),
        watched: watched.into(),
        steady,
    })
}

/// Each policy for these claims alone, with what Postgres is to be asked of a row; without those that read
/// what is not known of it.
pub(in crate::route) fn each(
    context: Context<'_>,
    claims: &Claims,
    (table, relation): (&Table, &Arc<Relation>),
    row: &[Cell<'_>],
) -> Vec<(Box<str>, Inquiry)> {
    let Ok(asked) = plan(context, claims, (table, relation)) else { return Vec::new() };
    let reach = &table.policies.reach;
    let inquiry = |policy: &TablePolicy| {
        let read = reach.reads.get(&policy.name).and_then(Option::as_ref);
        let reads = read.unwrap_or(&reach.columns).iter().map(|name| relation.column(name));
        let mut reads: Vec<usize> = reads.collect::<Option<_>>()?;
        reads.sort_unstable();
        let condition = format!("({})", policy.text);
        let matter = Arc::new(matter(context, (table, relation), reads, condition));
        let images = Arc::new([Image::write(&matter, row)?]);
        let cases = vec![Case { name: Arc::clone(&asked.name), images: None }];
        Some((policy.name.clone(), Inquiry { matter, images, cases }))
    };
    table.policies.of(claims.role()).filter_map(inquiry).collect()
}

fn matter(
    context: Context<'_>,
    (table, relation): (&Table, &Arc<Relation>),
    reads: Vec<usize>,
    condition: String,
) -> Matter {
    let columns = table.policies.reach.columns.iter();
    Matter {
        relation: Arc::clone(relation),
        columns: columns.map(|name| relation.column(name)).collect(),
        reads: reads.into(),
        condition: condition.into(),
        search_path: context.policies.search_path().into(),
        watched: watched(context, table).into(),
    }
}

/// The policies as PostgreSQL puts them together: any of the permissive ones, and all of the
/// restrictive ones.
fn condition(table: &Table, role: &str) -> String {
    let texts = |kind| {
        let of = table.policies.of(role).filter(move |policy| policy.kind == kind);
        of.map(|policy| format!("({})", policy.text)).collect::<Vec<String>>()
    };
    let mut all = texts(Kind::Restrictive);
    all.push(format!("({})", texts(Kind::Permissive).join(" OR ")));
    all.join(" AND ")
}

/// The tables that the policies look into and whose changes the stream brings; sorted.
fn watched(context: Context<'_>, table: &Table) -> Vec<RelationId> {
    let published = |id: &RelationId| context.catalog.by_id(*id).is_some_and(|it| it.published);
    let tables = table.policies.reach.tables.iter().flatten().copied();
    let mut watched: Vec<RelationId> = tables.filter(published).collect();
    watched.sort_unstable_by_key(|id| id.0);
    watched
}

/// Whether the stream brings all rows of all tables that the policies look into, and all changes.
fn is_brought_whole(context: Context<'_>, table: &Table, watched: &[RelationId]) -> bool {
    let whole = |id: &RelationId| {
        let table = context.catalog.by_id(*id);
        table.is_some_and(|table| table.unheld.is_none())
    };
    let all = table.policies.reach.tables.as_ref();
    all.is_some_and(|all| all.len() == watched.len()) && watched.iter().all(whole)
}

/// The settings that the policies look at, or may, and that these don't set.
fn unset(
    context: Context<'_>,
    settings: &[(Box<str>, Box<str>)],
    table: &Table,
) -> Option<UnsetSettings> {
    let is_set = |name: &str| settings.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let read = table.policies.reach.settings.as_ref();
    let names: Vec<Box<str>> = match read {
        // Only names with a point in them are nobody's but the session's.
        Some(read) => read.iter().filter(|name| name.contains('.')).cloned().collect(),
        None => context.policies.settings().names().map(Box::from).collect(),
    };
    let names: Box<[Box<str>]> = names.into_iter().filter(|name| !is_set(name)).collect();
    let others = read.is_none();
    (others || !names.is_empty()).then_some(UnsetSettings { names, others })
}

//! What the database says, and what the configuration makes of it.

use crate::catalog::TableName;
use crate::catalog::replicas::Tier as RoleTier;
use crate::catalog::replication::PublicationRow;
use crate::catalog::replication::SlotRow;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::snapshot::Table as Known;
use crate::change::relation::ReplicaIdentity;
use crate::console::View;
use crate::console::answer::Refused;
use crate::console::answer::Table;
use crate::console::answer::Value;
use crate::replica::Report;
use crate::route::policy::Tier;
use crate::route::policy::Undecided;

pub(super) async fn slots(view: &View) -> Result<Table, Refused> {
    let slots = view.catalog.slots().await?;
    let row = |slot: SlotRow| {
        let own = *slot.name == *view.slot;
        vec![
            slot.name.into(),
            own.into(),
            slot.plugin.into(),
            slot.active.into(),
            slot.pid.map(i64::from).into(),
            slot.wal_status.into(),
            slot.restart_lsn.into(),
            slot.confirmed_lsn.into(),
            slot.kept_bytes.into(),
            slot.safe_bytes.into(),
        ]
    };
    Ok(Table::of(slots.into_iter().map(row).collect()))
}

pub(super) async fn publications(view: &View) -> Result<Table, Refused> {
    let publications = view.catalog.publications().await?;
    let row = |publication: PublicationRow| {
        let own = *publication.name == *view.publication;
        let mut row = vec![publication.name.into(), own.into(), publication.all_tables.into()];
        row.extend(publication.publishes.map(Value::from));
        row.push(publication.tables.into());
        row
    };
    Ok(Table::of(publications.into_iter().map(row).collect()))
}

pub(super) fn tables(view: &View) -> Table {
    let catalog = view.catalog.current();
    let mut rows: Vec<(String, Vec<Value>)> =
        catalog.tables().map(|table| row(view, &catalog, table)).collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    Table::of(rows.into_iter().map(|(_, row)| row).collect())
}

pub(super) fn replicas(view: &View) -> Table {
    let row = |report: Report| {
        let state = match (report.rows, report.loading) {
            (Some(_), _) => "held",
            (None, true) => "loading",
            (None, false) => "unheld",
        };
        vec![
            report.table.into(),
            state.into(),
            joined(report.columns.iter().map(|column| &**column)),
            report.rows.map_or(Value::Null, Value::from),
            report.dead.into(),
            report.bytes.into(),
            report.since.map_or(Value::Null, |since| since.to_string().into()),
            report.unheld.map_or(Value::Null, |why| why.to_string().into()),
            report.remedy.map_or(Value::Null, Value::from),
        ]
    };
    Table::of(view.replicas.report(view.asking.user()).into_iter().map(row).collect())
}

fn row(view: &View, catalog: &Snapshot, table: &Known) -> (String, Vec<Value>) {
    let relation = &table.relation;
    let name = format!("{}.{}", relation.schema, relation.name);
    let identity = match relation.identity {
        ReplicaIdentity::Default => "default",
        ReplicaIdentity::Full => "full",
        ReplicaIdentity::Index => "index",
        ReplicaIdentity::Nothing => "nothing",
    };
    let key = relation.primary_key.iter().filter_map(|at| relation.columns.get(*at));
    let may = |role: &str| table.granted(role).is_some_and(|granted| granted.contains(&true));
    let unread = table.policies.policies.iter().filter(|policy| policy.read.is_err());
    let row = vec![
        name.as_str().into(),
        table.published.into(),
        identity.into(),
        joined(key.map(|column| &*column.name)),
        relation.columns.len().into(),
        joined(table.unpublished_columns.iter().map(|column| &**column)),
        (view.judging)().policies.tier(table).name().into(),
        joined(view.roles.iter().map(|role| &**role).filter(|role| may(role))),
        joined(unread.map(|policy| &*policy.name)),
        undecided(view, catalog, table),
    ];
    (name, row)
}

/// The roles of whom it is not decided in process what they see, with the reason.
fn undecided(view: &View, catalog: &Snapshot, table: &Known) -> Value {
    let policies = (view.judging)().policies;
    if policies.tier(table) != Tier::RowSecurity {
        return Value::Null;
    }
    let (schema, name) = (table.relation.schema.clone(), table.relation.name.clone());
    let asks = policies.undecided(&TableName { schema, name }) == Undecided::Ask;
    let of = |role: &str| match catalog.tier(table, role) {
        RoleTier::Elsewhere { policy, why } => {
            let what = if asks && why.can_be_asked() { "asked" } else { "refused" };
            Some(format!("{role}: {what}, \"{policy}\": {why}"))
        }
        _ => None,
    };
    let all: Vec<String> = view.roles.iter().filter_map(|role| of(role)).collect();
    if all.is_empty() { Value::Null } else { all.join("; ").into() }
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { Value::Null } else { names.join(", ").into() }
}

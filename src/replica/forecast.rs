//! What would come of tables that policies read, before anything is held: for `walcast check`.
//!
//! The planner is asked how many rows there are; none is read.

use tokio::runtime::Handle;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::CatalogError;
use crate::catalog::dial::Dial;
use crate::catalog::snapshot::Snapshot;
use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::change::relation::ReplicaIdentity;
use crate::replica::Settings;
use crate::replica::facts;
use crate::replica::facts::Extent;
use crate::replica::facts::Facts;
use crate::replica::shape::Kept;
use crate::replica::unheld::Reader;
use crate::replica::unheld::Unheld;
use crate::rule::Wanted;
use crate::rule::quoted_name;
use crate::rule::quoted_text;

/// A table that policies read, as it would be held.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// Its OID.
    pub id: RelationId,
    /// Schema and name.
    pub table: String,
    /// The columns that policies read.
    pub columns: Vec<Box<str>>,
    /// About how many rows it has; absent where that can't be told.
    pub rows: Option<usize>,
    /// About how many bytes they would take.
    pub bytes: Option<usize>,
    /// All that stands in the way, and the SQL that mends it.
    pub unheld: Vec<(Unheld, Option<String>)>,
}

/// Where the answers to the table's conditions begin.
const CONDITIONS: usize = 4;

/// Asks about each table. `snapshot` knows which of them are published.
///
/// # Errors
///
/// [`CatalogError`] where there is no connection. What is wrong with a table is in its forecast.
pub async fn forecast(
    dial: &Dial,
    settings: &Settings,
    (snapshot, publication): (&Snapshot, &str),
    wanted: &[Wanted],
) -> Result<Vec<Forecast>, CatalogError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (client, driver) = dial.open().await?;
    let _driver = AbortOnDropHandle::new(Handle::current().spawn(driver));
    let role = settings.role.as_deref();
    let asking = Asking { client: &client, role, publication };
    let reader = Reader { own: dial.user(), role };
    let mut forecasts = Vec::new();
    for wanted in wanted {
        let Some(table) = snapshot.by_id(wanted.table) else { continue };
        let mut found = asking.table(&table.relation, wanted).await;
        if !table.published {
            found.unheld.insert(0, Unheld::NotPublished);
        }
        let remedy = |why: Unheld| {
            let remedy = why.remedy(&table.relation, publication, reader);
            (why, remedy)
        };
        forecasts.push(Forecast {
            id: wanted.table,
            table: format!("{}.{}", table.relation.schema, table.relation.name),
            columns: wanted.columns.iter().cloned().collect(),
            rows: found.extent.map(|extent| extent.rows),
            bytes: found.bytes,
            unheld: found.unheld.into_iter().map(remedy).collect(),
        });
    }
    Ok(forecasts)
}

/// About how many bytes a table would take that was read before; `None` where that can't be told.
pub(super) async fn bytes(
    dial: &Dial,
    role: Option<&str>,
    kept: &Kept,
) -> Result<Option<usize>, CatalogError> {
    let (client, driver) = dial.open().await?;
    let _driver = AbortOnDropHandle::new(Handle::current().spawn(driver));
    // What stands in the way is found when it is read.
    let asking = Asking { client: &client, role, publication: "" };
    let mut found = Found::default();
    let looked = asking.look(kept, &mut found).await;
    Ok(found.bytes.filter(|_| looked.is_ok()))
}

/// Who asks.
#[derive(Clone, Copy)]
struct Asking<'a> {
    client: &'a Client,
    role: Option<&'a str>,
    publication: &'a str,
}

/// What was found of a table.
#[derive(Default)]
struct Found {
    unheld: Vec<Unheld>,
    extent: Option<Extent>,
    bytes: Option<usize>,
}

impl Asking<'_> {
    async fn table(self, relation: &Relation, wanted: &Wanted) -> Found {
        let mut found = Found::default();
        let kept = Kept::new(wanted, &relation.clone().into()).or_else(|why| {
            found.unheld.push(why);
            // How large it is does not depend on how its rows are told.
            let identity = ReplicaIdentity::Full;
            Kept::new(wanted, &Relation { identity, ..relation.clone() }.into())
        });
        let Ok(kept) = kept else { return found };
        if let Err(message) = self.look(&kept, &mut found).await {
            found.unheld.push(Unheld::Failed { message: message.into() });
        }
        // What it began is not wanted any more, whether it failed or not.
        let _is_over = self.client.simple_query("ROLLBACK").await;
        found
    }

    async fn look(self, kept: &Kept, found: &mut Found) -> Result<(), String> {
        let sql = self.sql(kept).ok_or("a name can't be written")?;
        let facts = self.ask(&sql).await?;
        found.unheld.extend(facts::obstacles(&facts, CONDITIONS));
        let may_read = facts::holds(&facts, 0) && facts::holds(&facts, 1);
        if !may_read {
            let (schema, name) = (&kept.relation.schema, &kept.relation.name);
            let message = format!("permission denied for table {schema}.{name}");
            found.unheld.push(Unheld::NoPrivilege { message: message.into() });
        }
        let hides = found.unheld.contains(&Unheld::RowSecurity);
        found.extent = if facts::holds(&facts, 3) {
            // The planner would expect some all the same.
            Some(Extent { rows: 0, width: 0 })
        } else if may_read && !hides {
            let plan = self.ask(&format!("EXPLAIN (FORMAT JSON) {}", facts::rows(kept))).await?;
            plan.first().and_then(Option::as_deref).and_then(Extent::read)
        } else {
            let rows = facts.get(2).and_then(Option::as_deref).and_then(|rows| rows.parse().ok());
            rows.map(|rows| Extent { rows, width: 16 * kept.columns().count() })
        };
        found.bytes = found.extent.map(|extent| kept.estimate(extent));
        Ok(())
    }

    /// May the role read it, how many rows were counted last, is it empty, and what the loader asks.
    fn sql(self, kept: &Kept) -> Option<String> {
        let id = kept.table();
        let columns: Option<Vec<String>> =
            kept.columns().map(|(name, _)| quoted_text(name)).collect();
        let role = self.role.map(|role| format!("SET LOCAL ROLE {};", quoted_name(role)));
        Some(format!(
            "BEGIN READ ONLY; {} SET LOCAL search_path = ''; SET LOCAL row_security = off; \
             SELECT has_schema_privilege(relnamespace, 'USAGE'), \
             (SELECT bool_and(has_column_privilege(c.oid, name, 'SELECT')) \
              FROM unnest(ARRAY[{}]::text[]) AS name), \
             nullif(reltuples, -1)::bigint, pg_relation_size(c.oid) = 0, {} \
             FROM pg_class c WHERE c.oid = {id}::oid",
            role.unwrap_or_default(),
            columns?.join(", "),
            facts::conditions(id, self.publication)?,
        ))
    }

    /// The last row that a script brings.
    async fn ask(self, sql: &str) -> Result<Facts, String> {
        let message = |error: tokio_postgres::Error| {
            error.as_db_error().map_or_else(|| error.to_string(), |it| it.message().to_owned())
        };
        let messages = self.client.simple_query(sql).await.map_err(message)?;
        let row = messages.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or("the table is gone")?;
        Ok((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
    }
}

//! What the audit knows of a database. Read by one statement, as one JSON document, so that what
//! only some server versions have can be absent.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::Deserialize;

use crate::catalog::Catalog;
use crate::catalog::CatalogError;
use crate::catalog::audit::Expectations;

/// The facts.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    pub(super) version: u32,
    pub(super) database: String,
    pub(super) encoding: String,
    pub(super) in_recovery: bool,
    /// By name, in the units of `pg_settings`.
    pub(super) settings: HashMap<String, String>,
    /// The server's clock, in seconds since 1970.
    clock: f64,
    /// How far the server's clock is ahead of ours, in seconds, as far as that can be told.
    #[serde(default)]
    pub(super) clock_ahead: f64,
    pub(super) slots_used: i64,
    pub(super) senders_used: i64,
    pub(super) slot: Option<Slot>,
    pub(super) idle_slots: Vec<IdleSlot>,
    pub(super) publication: Option<Publication>,
    /// Whether the publication has a partitioned table.
    pub(super) partitioned: bool,
    pub(super) row_filters: Vec<Named>,
    pub(super) asking_role: Role,
    pub(super) replication_role: Option<Role>,
    /// Client roles that do not exist.
    pub(super) unknown_roles: Vec<String>,
    /// Client roles that the asking role is no member of.
    pub(super) foreign_roles: Vec<String>,
    /// Client roles that no row-level security holds.
    pub(super) exempt_roles: Vec<String>,
    pub(super) identities: Vec<Identity>,
    /// Whether the event trigger of `sql/06-fence.sql` is there.
    pub(super) fence: bool,
    /// Published tables about whose policies something may change that the stream does not announce.
    pub(super) late: Vec<String>,
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Slot {
    pub(super) plugin: Option<String>,
    pub(super) database: Option<String>,
    pub(super) active: bool,
    pub(super) temporary: bool,
    pub(super) wal_status: Option<String>,
    #[serde(default)]
    pub(super) two_phase: bool,
    /// From version 17.
    #[serde(default)]
    pub(super) invalidation_reason: Option<String>,
    pub(super) lag_bytes: Option<i64>,
    /// The log that is kept because of it.
    pub(super) retained_bytes: Option<i64>,
    /// Who reads it, for a person.
    pub(super) reader: Option<String>,
}

/// Another slot, which nobody reads.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct IdleSlot {
    pub(super) name: String,
    pub(super) plugin: String,
    /// Whether it is of this database.
    pub(super) here: Option<bool>,
    pub(super) retained_bytes: Option<i64>,
}

/// A row of `pg_publication`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Publication {
    pub(super) pubinsert: bool,
    pub(super) pubupdate: bool,
    pub(super) pubdelete: bool,
    pub(super) pubtruncate: bool,
    pub(super) pubviaroot: bool,
    pub(super) puballtables: bool,
}

/// A row of `pg_roles`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Role {
    pub(super) rolname: String,
    pub(super) rolsuper: bool,
    pub(super) rolreplication: bool,
    pub(super) rolbypassrls: bool,
    pub(super) rolcanlogin: bool,
}

/// A table's name.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Named {
    pub(super) schema: String,
    pub(super) name: String,
}

/// What identifies the rows of a table in the stream.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Identity {
    pub(super) schema: String,
    pub(super) name: String,
    /// `pg_class.relreplident`.
    pub(super) kind: String,
    /// Whether it is published; else only the configuration names it.
    pub(super) published: bool,
    /// Whether an UPDATE and a DELETE can be published.
    pub(super) usable: bool,
    pub(super) has_key: bool,
}

impl Facts {
    /// Facts from the document that `audit.sql` makes.
    pub(super) fn parse(document: &str) -> Result<Facts, serde_json::Error> {
        serde_json::from_str(document)
    }

    /// Compares the clocks: the server's stood somewhere between two of ours.
    fn compare_clocks(&mut self, before: SystemTime, after: SystemTime) {
        let seconds = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
        };
        let (before, after) = (seconds(before), seconds(after));
        self.clock_ahead = self.clock - self.clock.clamp(before, after.max(before));
    }

    /// A setting that is a number, in the unit of `pg_settings`.
    pub(super) fn number(&self, setting: &str) -> Option<i64> {
        self.settings.get(setting)?.parse().ok()
    }
}

impl Catalog {
    /// Reads what the audit judges. Costs a few milliseconds; not for polling.
    ///
    /// # Errors
    ///
    /// [`CatalogError`]; there is nothing to judge then.
    pub async fn facts(&self, expected: &Expectations) -> Result<Facts, CatalogError> {
        let roles: Vec<&str> = expected.roles.iter().map(|role| &**role).collect();
        let replication = expected.replication_role.as_deref();
        let tables = || expected.tables.iter().map(|table| &table.name);
        let schemas: Vec<&str> = tables().map(|name| &*name.schema).collect();
        let names: Vec<&str> = tables().map(|name| &*name.name).collect();
        let asked_at = SystemTime::now();
        let rows = self
            .connection
            .ask_once(
                "the audit",
                include_str!("../audit.sql"),
                &[
                    &&*expected.publication,
                    &&*expected.slot,
                    &replication,
                    &roles,
                    &schemas,
                    &names,
                ],
            )
            .await?;
        let document = |source| CatalogError::Query { what: "the audit", source };
        let text: &str = match rows.first() {
            Some(row) => row.try_get(0).map_err(document)?,
            None => "",
        };
        let mut facts = Facts::parse(text).map_err(CatalogError::Facts)?;
        facts.compare_clocks(asked_at, SystemTime::now());
        Ok(facts)
    }
}

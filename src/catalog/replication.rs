//! What the database says of its slots and publications, for whoever looks. Asked each time.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::catalog::Catalog;
use crate::catalog::CatalogError;

/// A row of `pg_replication_slots`, of a logical slot of any database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRow {
    /// Its name.
    pub name: String,
    /// Its output plugin.
    pub plugin: Option<String>,
    /// Whether somebody reads it.
    pub active: bool,
    /// The server's process that reads it.
    pub pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// From where on the log is kept for it.
    pub restart_lsn: Option<String>,
    /// Up to where it was confirmed.
    pub confirmed_lsn: Option<String>,
    /// How much log that is.
    pub kept_bytes: Option<i64>,
    /// How much more may be written before it is in danger; absent without a limit.
    pub safe_bytes: Option<i64>,
}

/// A row of `pg_publication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationRow {
    /// Its name.
    pub name: String,
    /// Whether every table is in it.
    pub all_tables: bool,
    /// Whether it has inserts, updates, deletes and truncates.
    pub publishes: [bool; 4],
    /// How many tables it has.
    pub tables: i64,
}

const SLOTS: &str = "SELECT slot_name::text, plugin::text, active, active_pid, wal_status, \
     restart_lsn::text, confirmed_flush_lsn::text, \
     CASE WHEN NOT pg_is_in_recovery() \
          THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END, safe_wal_size \
     FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' ORDER BY slot_name";

const PUBLICATIONS: &str = "SELECT pubname::text, puballtables, pubinsert, pubupdate, pubdelete, \
     pubtruncate, (SELECT count(*) FROM pg_catalog.pg_publication_tables t \
                   WHERE t.pubname = p.pubname) \
     FROM pg_catalog.pg_publication p ORDER BY pubname";

impl Catalog {
    /// The logical slots. Costs a statement.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] where Postgres does not answer.
    pub async fn slots(&self) -> Result<Vec<SlotRow>, CatalogError> {
        let rows = self.connection.ask_once("the slots", SLOTS, &[]).await?;
        rows.iter().map(slot).collect()
    }

    /// The publications. Costs a statement.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] where Postgres does not answer.
    pub async fn publications(&self) -> Result<Vec<PublicationRow>, CatalogError> {
        let rows = self.connection.ask_once("the publications", PUBLICATIONS, &[]).await?;
        rows.iter().map(publication).collect()
    }
}

fn slot(row: &Row) -> Result<SlotRow, CatalogError> {
    let what = "the slots";
    Ok(SlotRow {
        name: get(row, 0, what)?,
        plugin: get(row, 1, what)?,
        active: get(row, 2, what)?,
        pid: get(row, 3, what)?,
        wal_status: get(row, 4, what)?,
        restart_lsn: get(row, 5, what)?,
        confirmed_lsn: get(row, 6, what)?,
        kept_bytes: get(row, 7, what)?,
        safe_bytes: get(row, 8, what)?,
    })
}

fn publication(row: &Row) -> Result<PublicationRow, CatalogError> {
    let what = "the publications";
    Ok(PublicationRow {
        name: get(row, 0, what)?,
        all_tables: get(row, 1, what)?,
        publishes: [get(row, 2, what)?, get(row, 3, what)?, get(row, 4, what)?, get(row, 5, what)?],
        tables: get(row, 6, what)?,
    })
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, at: usize, what: &'static str) -> Result<T, CatalogError> {
    row.try_get(at).map_err(|source| CatalogError::Query { what, source })
}

//! The slot as the server sees it: what is polled to know how much log it keeps.

use tokio_postgres::Row;

use crate::catalog::Catalog;
use crate::catalog::CatalogError;
use crate::change::lsn::Lsn;

/// A row of `pg_replication_slots`, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    /// Whether somebody reads it.
    pub active: bool,
    /// The process of the server that does.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`; absent where nothing is kept yet.
    pub wal_status: Option<Box<str>>,
    /// How much can still be written before the slot may be lost; absent where it never is.
    pub safe_wal_size: Option<i64>,
    /// From where on the log is kept; absent where none is.
    pub restart_lsn: Option<Lsn>,
    /// Everything that ended after it will be sent again.
    pub confirmed_lsn: Option<Lsn>,
    /// Where the log ends.
    pub current_lsn: Lsn,
    /// `max_slot_wal_keep_size`, in bytes; absent where it has no bound.
    pub keep_bytes: Option<u64>,
    /// The oldest open transaction that has written, for a person.
    pub oldest: Option<Box<str>>,
}

impl SlotFacts {
    /// How much log is kept because of the slot.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.restart_lsn.map_or(0, |restart| self.current_lsn.bytes_since(restart))
    }

    fn read(row: &Row) -> Result<SlotFacts, tokio_postgres::Error> {
        let lsn = |index: usize| {
            let text: Option<&str> = row.try_get(index)?;
            Ok(text.and_then(|text| text.parse::<Lsn>().ok()))
        };
        let keep: Option<i64> = row.try_get(7)?;
        Ok(SlotFacts {
            active: row.try_get(0)?,
            active_pid: row.try_get(1)?,
            wal_status: row.try_get::<_, Option<&str>>(2)?.map(Into::into),
            safe_wal_size: row.try_get(3)?,
            restart_lsn: lsn(4)?,
            confirmed_lsn: lsn(5)?,
            current_lsn: lsn(6)?.unwrap_or(Lsn::ZERO),
            keep_bytes: keep.and_then(|bytes| u64::try_from(bytes).ok()),
            oldest: row.try_get::<_, Option<&str>>(8)?.map(Into::into),
        })
    }
}

impl Catalog {
    /// Looks at the slot of that name; absent where there is none.
    ///
    /// # Errors
    ///
    /// [`CatalogError`]; nothing is known then.
    pub async fn slot(&self, name: &str) -> Result<Option<SlotFacts>, CatalogError> {
        let sql = include_str!("slot.sql");
        let rows = self.connection.ask_once("the slot", sql, &[&name]).await?;
        let facts = rows.first().map(SlotFacts::read).transpose();
        facts.map_err(|source| CatalogError::Query { what: "the slot", source })
    }
}

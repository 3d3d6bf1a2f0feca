//! Reads tables, one after the other, on a connection of its own.
//!
//! ```text
//! BEGIN REPEATABLE READ ─▶ what is visible, where the log ends, what can be held ─▶ the role
//!   ─▶ COPY (the columns) ─▶ row by row into a table ─▶ is it still the same table? ─▶ COMMIT
//! ```
//!
//! Row-level security is off in that transaction, so that it fails where it would hide a row. A
//! TRUNCATE or a rewrite takes rows away from older snapshots: it is looked for after the last row,
//! while the table can't be changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::CatalogError;
use crate::catalog::dial::Dial;
use crate::change::lsn::Lsn;
use crate::change::tuple::Cell;
use crate::change::value::SESSION;
use crate::logging::notice;
use crate::replica::Store;
use crate::replica::cells::Packing;
use crate::replica::copy;
use crate::replica::facts;
use crate::replica::facts::Facts;
use crate::replica::forecast;
use crate::replica::reading::Adopted;
use crate::replica::reading::Job;
use crate::replica::shape::Kept;
use crate::replica::slot::Loaded;
use crate::replica::table::Image;
use crate::replica::table::Table;
use crate::replica::unheld::Reader;
use crate::replica::unheld::Unheld;
use crate::rule::quoted_name;
use crate::rule::quoted_text;

/// How often what nobody can look at any more is given up.
const TICK: Duration = Duration::from_secs(1);
/// A query that has not seen what the stream has brought is asked again after this time.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How often it is asked before it is given up.
const AGAIN_MAX: usize = 100;
/// Rows after which it is looked whether they are too many.
const LOOK_EVERY: usize = 1024;

/// Who reads the tables of a store.
#[derive(Debug)]
pub struct Loader {
    store: Arc<Store>,
    dial: Dial,
}

/// Why there are no rows.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Unheld(#[from] Unheld),
    #[error("connecting")]
    Connect(#[from] CatalogError),
    #[error("asking")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("the answer is not of the form that was asked for")]
    Malformed,
}

impl Loader {
    /// Who reads the tables of `store` over connections of `dial`.
    #[must_use]
    pub const fn new(store: Arc<Store>, dial: Dial) -> Loader {
        Loader { store, dial }
    }

    /// Reads what is to be read, and gives up what is too much, for ever.
    pub async fn run(self) {
        let mut ticks = interval(TICK.min(self.store.settings().retry_every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retried_at = Instant::now();
        loop {
            tokio::select! {
                () = self.store.work.notified() => {}
                _ = ticks.tick() => self.store.collect(),
            }
            self.shed();
            self.store.count();
            if retried_at.elapsed() >= self.store.settings().retry_every {
                retried_at = Instant::now();
                self.store.retry();
                self.look_again().await;
            }
            while let Some(job) = self.store.next_job() {
                self.read(&job).await;
            }
        }
    }

    /// Gives up what does not fit.
    fn shed(&self) {
        for kept in self.store.shed() {
            let table = name_of(&kept);
            let (code, bytes_max) = (notice::TABLE_UNHELD, self.store.settings().bytes_max);
            tracing::warn!(
                code,
                table,
                bytes_max,
                "the tables that policies read have grown too large; this one is no longer held"
            );
        }
    }

    /// Looks whether what was too large may fit now.
    async fn look_again(&self) {
        for kept in self.store.too_large() {
            let settings = self.store.settings();
            match forecast::bytes(&self.dial, settings.role.as_deref(), &kept).await {
                Ok(Some(bytes)) if self.store.has_room(kept.table(), bytes) => {
                    self.store.read_smaller(kept.table());
                }
                Ok(_) => {}
                Err(error) => {
                    let (table, error) = (name_of(&kept), error.chain());
                    tracing::warn!(table, error, "it can't be told how large the table is");
                }
            }
        }
    }

    async fn read(&self, job: &Job) {
        let (relation, name) = (&job.kept.relation, name_of(&job.kept));
        let began = Instant::now();
        let why = match self.try_read(job).await {
            Ok(Adopted::Held { rows, bytes }) => {
                let milliseconds = began.elapsed().as_millis();
                tracing::info!(table = name, rows, bytes, milliseconds, "the table is held");
                return;
            }
            Ok(Adopted::InVain | Adopted::TooEarly) => return,
            Err(error) => self.why(error),
        };
        let settings = self.store.settings();
        let reader = Reader { own: self.dial.user(), role: settings.role.as_deref() };
        let publication = self.store.catalog.publication();
        let remedy = why.remedy(relation, publication, reader).unwrap_or_default();
        let code = notice::TABLE_UNHELD;
        tracing::warn!(code, table = name, reason = %why, remedy, "the table is not held");
        self.store.fail(job, why);
    }

    async fn try_read(&self, job: &Job) -> Result<Adopted, LoadError> {
        let (client, driver) = self.dial.open().await?;
        let _driver = AbortOnDropHandle::new(Handle::current().spawn(driver));
        client.batch_execute(&session()).await?;
        for _ in 0..AGAIN_MAX {
            let reading = Reading { client: &client, job, store: &self.store };
            match reading.table(self.store.catalog.publication()).await {
                Ok(loaded) => match self.store.adopt(job, loaded) {
                    Adopted::TooEarly => {}
                    adopted => return Ok(adopted),
                },
                Err(LoadError::Unheld(Unheld::Changed)) => {}
                Err(error) => return Err(error),
            }
            if !self.store.is_wanted(job) {
                return Ok(Adopted::InVain);
            }
            client.batch_execute("ROLLBACK").await?;
            sleep(AGAIN_AFTER).await;
        }
        Err(Unheld::Changed.into())
    }

    fn why(&self, error: LoadError) -> Unheld {
        let message = match error {
            LoadError::Unheld(why) => return why,
            LoadError::Connect(error) => error.chain(),
            LoadError::Postgres(error) => {
                let message = error
                    .as_db_error()
                    .map_or_else(|| error.to_string(), |error| error.message().to_owned());
                if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                    return Unheld::NoPrivilege { message: message.into() };
                }
                message
            }
            LoadError::Malformed => LoadError::Malformed.to_string(),
        };
        Unheld::Failed { message: message.into() }
    }
}

fn name_of(kept: &Kept) -> String {
    format!("{}.{}", kept.relation.schema, kept.relation.name)
}

/// What makes values come as the stream brings them, and keeps nobody waiting.
fn session() -> String {
    let mut prepare =
        "SET search_path = ''; SET default_transaction_read_only = on; SET jit = off; \
         SET standard_conforming_strings = on; SET lock_timeout = '5s'; SET statement_timeout = 0; \
         SET idle_in_transaction_session_timeout = '60s';"
            .to_owned();
    for (name, setting) in SESSION {
        prepare.push_str(&format!("SET {name} = '{setting}';"));
    }
    prepare
}

/// One query for one table.
struct Reading<'a> {
    client: &'a Client,
    job: &'a Job,
    store: &'a Store,
}

impl Reading<'_> {
    async fn table(&self, publication: &str) -> Result<Loaded, LoadError> {
        let begin = self.begin_sql(publication).ok_or(LoadError::Malformed)?;
        let facts = self.ask(&begin).await?;
        let fact = |at: usize| facts.get(at).and_then(Option::as_deref);
        if !facts::holds(&facts, 2) {
            return Err(Unheld::Changed.into());
        }
        if let Some(why) = facts::obstacles(&facts, 3).into_iter().next() {
            return Err(why.into());
        }
        let saw = fact(0).and_then(|text| text.parse().ok()).ok_or(LoadError::Malformed)?;
        let insert_lsn = fact(1).and_then(|text| text.parse().ok()).ok_or(LoadError::Malformed)?;
        // Where it was rewritten of late, only what commits after the rewrite is known by what is read.
        let since = if facts::holds(&facts, 8) { Lsn::ZERO } else { insert_lsn };
        let table = self.rows().await?;
        let intact = self.ask(&self.end_sql()).await?;
        if intact.first().and_then(Option::as_deref) != Some("t") {
            return Err(Unheld::Changed.into());
        }
        self.client.batch_execute("COMMIT").await?;
        // On a quiet server the log's end may wait in memory, and the stream brings what is flushed.
        let flush = format!(
            "SELECT CASE WHEN pg_current_wal_flush_lsn() < '{insert_lsn}' \
             THEN pg_logical_emit_message(true, 'walcast', '') END"
        );
        self.client.batch_execute(&flush).await?;
        Ok(Loaded { table, saw, insert_lsn, since })
    }

    /// Begins, and asks for the moment, for what the stream carries of the table, and whether the
    /// role sees all of it. The snapshot is taken before the log's end is looked at.
    fn begin_sql(&self, publication: &str) -> Option<String> {
        let kept = &self.job.kept;
        let id = kept.table();
        let columns = kept.relation.columns.iter();
        let columns: Option<Vec<String>> = columns
            .filter(|column| kept.columns().any(|(name, _)| name == &*column.name))
            .map(|column| {
                let name = quoted_text(&column.name)?;
                Some(format!("({name}, {}::oid, {})", column.of.id, column.modifier))
            })
            .collect();
        let columns = columns?;
        let settings = self.store.settings();
        let role = settings.role.as_deref();
        let role = role.map(|role| format!("SET LOCAL ROLE {};", quoted_name(role)));
        Some(format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             {} SET LOCAL row_security = off; \
             SELECT pg_current_snapshot(), pg_current_wal_insert_lsn(), \
             (SELECT count(*) = {} FROM pg_attribute WHERE attrelid = {id}::oid \
              AND NOT attisdropped AND (attname::text, atttypid, atttypmod) IN ({})), \
             {}, {}",
            role.unwrap_or_default(),
            columns.len(),
            columns.join(", "),
            facts::conditions(id, publication)?,
            facts::is_settled(id, publication, &settings.slot)?,
        ))
    }

    async fn rows(&self) -> Result<Table, LoadError> {
        let kept = &self.job.kept;
        let sql = format!("COPY ({}) TO STDOUT", facts::rows(kept));
        let mut table = Table::new(kept);
        let mut rows = std::pin::pin!(self.client.copy_out(&sql).await?);
        let mut text = Vec::new();
        let mut count = 0_usize;
        while let Some(row) = rows.next().await {
            self.take(&row?, &mut text, &mut table)?;
            count += 1;
            if count.is_multiple_of(LOOK_EVERY) {
                self.store.admits(kept.table(), table.bytes())?;
            }
        }
        self.store.admits(kept.table(), table.bytes())?;
        Ok(table)
    }

    fn take(&self, row: &Bytes, text: &mut Vec<u8>, table: &mut Table) -> Result<(), LoadError> {
        let row = row.strip_suffix(b"\n").ok_or(LoadError::Malformed)?;
        let cell_bytes_max = self.store.settings().cell_bytes_max;
        let cells = copy::cells(row, text);
        let mut image = Image::new();
        for (column, (_, of)) in self.job.kept.columns().enumerate() {
            let cell = match cells.get(column).ok_or(LoadError::Malformed)? {
                Cell::Text(text) if text.len() > cell_bytes_max => {
                    Cell::Omitted { bytes: u32::try_from(text.len()).unwrap_or(u32::MAX) }
                }
                cell => *cell,
            };
            image.push(Packing::of(&of.kind).pack(cell));
        }
        table.load(&image).map_err(|_| Unheld::Diverged.into())
    }

    /// Whether the rows that the snapshot can see are still where they were looked for.
    fn end_sql(&self) -> String {
        let id = self.job.kept.table();
        format!(
            "SELECT pg_relation_filenode({id}::oid) IS NOT DISTINCT FROM \
             (SELECT nullif(relfilenode, 0) FROM pg_class WHERE oid = {id}::oid)"
        )
    }

    /// The last row that a script brings.
    async fn ask(&self, sql: &str) -> Result<Facts, LoadError> {
        let messages = self.client.simple_query(sql).await?;
        let row = messages.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or(LoadError::Malformed)?;
        Ok((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
    }
}

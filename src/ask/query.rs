//! One question on one connection, in one round trip.
//!
//! The simple query protocol is used, so that every value comes as its type's output function
//! prints it, exactly as the stream brings it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::SimpleQueryRow;
use tokio_postgres::error::SqlState;
use tokio_util::task::AbortOnDropHandle;

use crate::ask::Answer;
use crate::ask::AskError;
use crate::ask::Question;
use crate::ask::Select;
use crate::ask::Settings;
use crate::catalog::CatalogError;
use crate::catalog::dial::Dial;
use crate::change::id::Xid;
use crate::change::lsn::Lsn;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::Timestamp;
use crate::change::transaction::TransactionBuilder;
use crate::change::tuple::Tuple;
use crate::change::value::SESSION;
use crate::change::visibility::Visibility;
use crate::rule::quoted_name;
use crate::rule::quoted_text;

/// What tells the moment of an answer. The snapshot is taken before the log's end is looked at.
const MOMENT: &str = "SELECT pg_current_snapshot(), pg_current_wal_insert_lsn(), ";
/// Ends the transaction in which the log grows by a commit, which is flushed.
const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'walcast', '')";

/// A connection whose session is prepared.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

/// Why there is no answer, before it is told to somebody.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    /// It is told as it is.
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("connecting")]
    Connect(#[from] CatalogError),
    #[error("asking")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("the answer is not of the form that was asked for")]
    Malformed,
}

impl QueryError {
    /// Whether the connection was of no use from the beginning.
    pub(super) fn was_closed(&self) -> bool {
        matches!(self, QueryError::Postgres(error) if error.is_closed())
    }

    /// Whether the database may be asked on the same connection again.
    pub(super) fn keeps_connection(&self) -> bool {
        match self {
            QueryError::Ask(error) => matches!(error, AskError::Changed | AskError::Busy),
            QueryError::Postgres(error) => error.as_db_error().is_some(),
            QueryError::Connect(_) | QueryError::Malformed => false,
        }
    }

    /// What is told to who has asked; the rest is for the log.
    pub(super) fn told(&self, settings: &Settings) -> AskError {
        match self {
            QueryError::Ask(error) => error.clone(),
            QueryError::Postgres(error) => match error.code() {
                Some(&SqlState::QUERY_CANCELED) => late(settings.timeout),
                // A column that is gone, or the table.
                Some(&(SqlState::UNDEFINED_COLUMN | SqlState::UNDEFINED_TABLE)) => {
                    AskError::Changed
                }
                _ => AskError::Failed,
            },
            QueryError::Connect(_) | QueryError::Malformed => AskError::Failed,
        }
    }
}

pub(super) const fn late(timeout: Duration) -> AskError {
    AskError::Late { seconds: timeout.as_secs() }
}

impl Connection {
    /// Connects and pins the session's settings.
    pub(super) async fn open(dial: &Dial, settings: &Settings) -> Result<Connection, QueryError> {
        let (client, driver) = dial.open().await?;
        let driver = AbortOnDropHandle::new(Handle::current().spawn(driver));
        let timeout = settings.timeout.as_millis();
        let mut prepare = format!(
            "SET search_path = ''; SET default_transaction_read_only = on; SET jit = off; \
             SET standard_conforming_strings = on; SET row_security = on; \
             SET idle_in_transaction_session_timeout = '60s'; SET statement_timeout = {timeout};"
        );
        for (name, setting) in SESSION {
            prepare.push_str(&format!("SET {name} = '{setting}';"));
        }
        client.batch_execute(&prepare).await?;
        Ok(Connection { client, _driver: driver })
    }

    /// The connection itself.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Asks, and leaves the session as it was.
    pub(super) async fn ask(
        &self,
        question: &Question,
        settings: &Settings,
    ) -> Result<Answer, QueryError> {
        let answer = match question {
            Question::Rows(select) => self.rows(select, settings).await,
            Question::Visible => self.visible(&format!("{MOMENT} true")).await,
            Question::Flush(lsn) if self.is_flushed(*lsn).await? => {
                self.visible(&format!("{MOMENT} true")).await
            }
            Question::Flush(_) => self.visible(&format!("{FLUSH}; {MOMENT} true")).await,
        };
        let failed = answer.as_ref().err().is_some_and(QueryError::keeps_connection);
        if failed {
            self.client.batch_execute("ROLLBACK").await?;
        }
        answer
    }

    /// Whether the log was flushed up to a position.
    async fn is_flushed(&self, lsn: Lsn) -> Result<bool, QueryError> {
        let sql = format!("SELECT pg_current_wal_flush_lsn() >= '{lsn}'");
        let messages = self.client.simple_query(&sql).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(row.and_then(|row| row.get(0)) == Some("t"))
    }

    async fn visible(&self, sql: &str) -> Result<Answer, QueryError> {
        let messages = self.client.simple_query(sql).await?;
        let row = messages.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let (visibility, insert_lsn) = moment(row.ok_or(QueryError::Malformed)?)?;
        let rows = TransactionBuilder::new(Xid(0), insert_lsn, Timestamp(0)).commit(insert_lsn);
        Ok(Answer::new(Arc::new(visibility), insert_lsn, rows))
    }

    async fn rows(&self, select: &Select, settings: &Settings) -> Result<Answer, QueryError> {
        let script = script(select, settings)?;
        let stream = self.client.simple_query_raw(&script).await?;
        let mut stream = std::pin::pin!(stream);
        let mut reading = Reading::new(select, settings);
        let places = Places::of(select);
        let mut builder = None;
        let mut answered = None;
        // Which statement of the script the rows are of.
        let mut statement = 0;
        while let Some(message) = stream.next().await {
            let row = match message? {
                SimpleQueryMessage::CommandComplete(_) => {
                    statement += 1;
                    continue;
                }
                SimpleQueryMessage::Row(row) => row,
                _ => continue,
            };
            match statement {
                at if Some(at) == places.first => reading.note(&row)?,
                at if at == places.moment => {
                    if row.get(2) != Some("t") {
                        return Err(AskError::Changed.into());
                    }
                    let (visibility, insert_lsn) = moment(&row)?;
                    builder = Some(TransactionBuilder::new(Xid(0), insert_lsn, Timestamp(0)));
                    answered = Some((visibility, insert_lsn));
                }
                at if at == places.rows => {
                    reading.take(&row, builder.as_mut().ok_or(QueryError::Malformed)?)?;
                }
                at if at == places.intact && row.get(0) != Some("t") => {
                    return Err(AskError::Changed.into());
                }
                _ => {}
            }
        }
        let ((visibility, insert_lsn), builder) =
            answered.zip(builder).ok_or(QueryError::Malformed)?;
        let rows = builder.commit(insert_lsn);
        Ok(Answer::new(Arc::new(visibility), insert_lsn, rows))
    }
}

/// The places of statements in the script.
#[derive(Clone, Copy)]
struct Places {
    moment: usize,
    /// What a new session shows, where that may be something else.
    first: Option<usize>,
    rows: usize,
    intact: usize,
}

impl Places {
    const fn of(select: &Select) -> Places {
        match select.unset {
            None => Places { moment: 1, first: None, rows: 4, intact: 5 },
            Some(_) => Places { moment: 1, first: Some(4), rows: 6, intact: 7 },
        }
    }
}

/// Everything at once: there is one round trip, and no more in which the transaction is open.
fn script(select: &Select, settings: &Settings) -> Result<String, QueryError> {
    let call = |(name, value): &(Box<str>, Box<str>)| {
        let (name, value) = (quoted_text(name)?, quoted_text(value)?);
        Some(format!("set_config({name}, {value}, true)"))
    };
    let calls: Option<Vec<String>> = select.settings.iter().map(call).collect();
    let calls = calls.ok_or(QueryError::Malformed)?.join(", ");
    let rows = select.sql(settings.rows_max);
    let first = match &select.unset {
        None => String::new(),
        Some(unset) => {
            let empty: Option<Vec<String>> = unset.names.iter().map(|name| emptied(name)).collect();
            let mut empty = empty.ok_or(QueryError::Malformed)?;
            empty.push("true".to_owned());
            format!("{rows};SELECT {};", empty.join(", "))
        }
    };
    Ok(format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\
         {MOMENT}{};\
         SET LOCAL ROLE {};\
         SELECT {calls};\
         {first}{rows};\
         {};\
         COMMIT",
        select.shape_sql(),
        quoted_name(&select.role),
        select.intact_sql(),
    ))
}

/// The call that makes a setting empty, as it is in a session that was used, or what the database sets it
/// to; `None` where the name can't be written.
pub(super) fn emptied(name: &str) -> Option<String> {
    let name = quoted_text(name)?;
    let as_it_is = format!("COALESCE(current_setting({name}, true), '')");
    Some(format!("set_config({name}, {as_it_is}, true) IS NULL"))
}

pub(super) fn moment(row: &SimpleQueryRow) -> Result<(Visibility, Lsn), QueryError> {
    let text = |column| row.get(column).ok_or(QueryError::Malformed);
    let visibility = text(0)?.parse().map_err(|_| QueryError::Malformed)?;
    let insert_lsn = text(1)?.parse().map_err(|_| QueryError::Malformed)?;
    Ok((visibility, insert_lsn))
}

/// Rows, as they come.
struct Reading<'a> {
    select: &'a Select,
    settings: &'a Settings,
    wire: Vec<u8>,
    bytes: usize,
    count: usize,
    /// The rows that a new session has shown, and how often, where that was asked.
    seen: Option<HashMap<Vec<Option<String>>, usize>>,
}

impl<'a> Reading<'a> {
    fn new(select: &'a Select, settings: &'a Settings) -> Reading<'a> {
        let seen = select.unset.as_ref().map(|_| HashMap::new());
        Reading { select, settings, wire: Vec::new(), bytes: 0, count: 0, seen }
    }

    /// Notes a row that a new session shows.
    fn note(&mut self, row: &SimpleQueryRow) -> Result<(), QueryError> {
        let texts = texts(row);
        self.bytes += texts.iter().flatten().map(String::len).sum::<usize>();
        if self.bytes > self.settings.bytes_max {
            return Err(self.too_large().into());
        }
        if let Some(seen) = &mut self.seen {
            *seen.entry(texts).or_default() += 1;
        }
        Ok(())
    }

    const fn too_large(&self) -> AskError {
        AskError::TooLarge { limit: self.settings.bytes_max, unit: "bytes" }
    }

    /// Adds a row in the stream's own form; columns that were not asked for are not in it.
    fn take(
        &mut self,
        row: &SimpleQueryRow,
        builder: &mut TransactionBuilder,
    ) -> Result<(), QueryError> {
        if let Some(seen) = &mut self.seen {
            match seen.get_mut(&texts(row)) {
                Some(left) if *left > 0 => *left -= 1,
                _ => return Ok(()),
            }
        }
        self.count += 1;
        if self.count > self.settings.rows_max {
            return Err(AskError::TooLarge { limit: self.settings.rows_max, unit: "rows" }.into());
        }
        let limit = self.settings.bytes_max;
        let too_large = || AskError::TooLarge { limit, unit: "bytes" };
        let columns = self.select.relation.columns.len();
        let narrow = u16::try_from(columns).map_err(|_| too_large())?;
        self.wire.clear();
        self.wire.extend_from_slice(&narrow.to_be_bytes());
        for position in 0..columns {
            let Some(at) = self.select.columns.iter().position(|known| *known == position) else {
                self.wire.push(b'u');
                continue;
            };
            match row.try_get(at)? {
                None => self.wire.push(b'n'),
                Some(text) => {
                    let length = u32::try_from(text.len()).map_err(|_| too_large())?;
                    let omitted = text.len() > self.settings.cell_bytes_max;
                    self.wire.push(if omitted { b'o' } else { b't' });
                    self.wire.extend_from_slice(&length.to_be_bytes());
                    if !omitted {
                        self.wire.extend_from_slice(text.as_bytes());
                    }
                }
            }
        }
        self.bytes += self.wire.len() + size_of::<[u64; 4]>();
        if self.bytes > self.settings.bytes_max {
            return Err(too_large().into());
        }
        let (new, _) = Tuple::take(&self.wire).map_err(|_| QueryError::Malformed)?;
        let change = ChangeKind::Insert { new };
        builder.push(&self.select.relation, change).map_err(|_| too_large())?;
        Ok(())
    }
}

/// A row's values.
fn texts(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()
}

//! One row by its key, for whoever wants to know why somebody sees it or not.
//!
//! A row can be read as the asking role itself, where that may read it, or in the name of a client's
//! role and claims, as a snapshot is: then Postgres's own answer comes with it.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::CatalogError;
use crate::catalog::dial::Dial;
use crate::change::relation::Relation;
use crate::change::value::SESSION;
use crate::rule::quoted_name;
use crate::rule::quoted_text;

/// How long the database may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which row of which table.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The table.
    pub relation: &'a Relation,
    /// Columns, and the texts that they have.
    pub values: &'a [(Box<str>, Box<str>)],
}

/// In whose name it is read.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// The role.
    pub role: &'a str,
    /// The settings that policies may look at.
    pub settings: &'a [(Box<str>, Box<str>)],
}

/// Why there is no row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The table has no such column.
    #[error("{table} has no column {column}")]
    UnknownColumn {
        /// The table.
        table: String,
        /// The column.
        column: Box<str>,
    },
    /// A text that no literal can hold.
    #[error("a value holds a NUL")]
    Nul,
    /// Several rows have these values.
    #[error("several rows have this key (expected the columns of a unique key)")]
    Several,
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] CatalogError),
    /// Postgres refused.
    #[error("reading the row")]
    Query(#[from] tokio_postgres::Error),
    /// No answer in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
}

/// The cells of one row in the relation's order, as the stream prints them; absent where a column
/// was not read.
pub type Cells = Vec<Option<Option<String>>>;

/// Reads the columns at these positions of a row; nothing where there is none.
///
/// # Errors
///
/// [`RowError`].
pub async fn read(
    dial: &Dial,
    key: Key<'_>,
    name: Option<Name<'_>>,
    columns: &[usize],
) -> Result<Option<Cells>, RowError> {
    let script = script(key, name, columns)?;
    let reading = async {
        let (client, driver) = dial.open().await?;
        let _driver = AbortOnDropHandle::new(Handle::current().spawn(driver));
        Ok::<_, RowError>(client.simple_query(&script).await?)
    };
    let messages = timeout(PATIENCE, Box::pin(reading)).await.map_err(|_| RowError::Late)??;
    // The last statement that has rows is the one that reads.
    let mut results = messages.split(|it| matches!(it, SimpleQueryMessage::CommandComplete(_)));
    let last = results.rfind(|result| {
        result.iter().any(|it| matches!(it, SimpleQueryMessage::RowDescription(_)))
    });
    let mut rows = last.unwrap_or_default().iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = rows.next() else { return Ok(None) };
    if rows.next().is_some() {
        return Err(RowError::Several);
    }
    let mut cells: Cells = vec![None; key.relation.columns.len()];
    for (at, position) in columns.iter().enumerate() {
        if let Some(cell) = cells.get_mut(*position) {
            *cell = Some(row.get(at).map(str::to_owned));
        }
    }
    Ok(Some(cells))
}

fn script(key: Key<'_>, name: Option<Name<'_>>, columns: &[usize]) -> Result<String, RowError> {
    let relation = key.relation;
    let mut script = "BEGIN READ ONLY; SET LOCAL search_path = ''; \
                      SET LOCAL standard_conforming_strings = on; SET LOCAL row_security = on;"
        .to_owned();
    for (name, setting) in SESSION {
        script.push_str(&format!("SET LOCAL {name} = '{setting}';"));
    }
    if let Some(name) = name {
        script.push_str(&format!("SET LOCAL ROLE {};", quoted_name(name.role)));
        for (setting, value) in name.settings {
            let setting = quoted_text(setting).ok_or(RowError::Nul)?;
            let value = quoted_text(value).ok_or(RowError::Nul)?;
            script.push_str(&format!("SELECT set_config({setting}, {value}, true);"));
        }
    }
    let condition = key.values.iter().map(|(column, text)| {
        if relation.column(column).is_none() {
            let table = format!("{}.{}", relation.schema, relation.name);
            return Err(RowError::UnknownColumn { table, column: column.clone() });
        }
        let text = quoted_text(text).ok_or(RowError::Nul)?;
        Ok(format!("{} = {text}", quoted_name(column)))
    });
    let condition: Vec<String> = condition.collect::<Result<_, _>>()?;
    let names = columns.iter().filter_map(|position| relation.columns.get(*position));
    let names: Vec<String> = names.map(|column| quoted_name(&column.name)).collect();
    script.push_str(&format!(
        "SELECT {} FROM {}.{} WHERE {} LIMIT 2; COMMIT",
        names.join(", "),
        quoted_name(&relation.schema),
        quoted_name(&relation.name),
        condition.join(" AND ")
    ));
    Ok(script)
}

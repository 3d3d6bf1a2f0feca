//! An explanation of a row that is in the database, found by its key.
//!
//! The row is read as the asking role, where that may read it, and in the name of the client's role
//! and claims, as a snapshot is: so Postgres's own answer stands beside walcast's. A row that neither
//! may see is explained as far as its key tells. Policies that read other tables, or are not decided in
//! process, are asked of Postgres for this row, as of now.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ask::row;
use crate::ask::row::Cells;
use crate::ask::row::Key;
use crate::ask::row::Name;
use crate::ask::row::RowError;
use crate::ask::verdict::once;
use crate::auth::Claims;
use crate::catalog::dial::Dial;
use crate::change::tuple::Cell;
use crate::route::asked;
use crate::route::explain::Admission;
use crate::route::explain::Explanation;
use crate::route::explain::Subject;
use crate::route::explain::explain;
use crate::route::plan;
use crate::route::plan::Context;
use crate::route::plan::Refusal;
use crate::route::subscription::Request;
use crate::rule::Session;

/// An explanation, and what Postgres says.
#[derive(Clone, Debug)]
pub struct Found {
    /// The explanation.
    pub explanation: Explanation,
    /// How much of the row was known.
    pub known: Known,
    /// Whether Postgres itself shows the row to the role; absent where it was not asked, did not
    /// answer, or is not the one who decides.
    pub shown: Option<bool>,
}

/// How much of a row was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// All of it.
    Whole,
    /// The columns that the client's role may select.
    Granted,
    /// Its key: it is not there, or nobody who was asked may see it.
    KeyOnly,
}

/// Why a row can't be explained.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The table is not there.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The key or the row is of no use.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The text is not a row.
    #[error("not a JSON object of the columns of {table}")]
    NotARow {
        /// The table.
        table: String,
    },
}

/// Who is asked for rows.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who may act in the name of a client's role.
    pub asking: &'a Dial,
    /// Who reads the row as it is, where that is somebody else.
    pub reading: Option<&'a Dial>,
}

/// Explains what becomes of the row of this key.
///
/// # Errors
///
/// [`FindError`] where there is no such table or column, or nobody answers.
pub async fn of_key(
    asked: Asked<'_>,
    context: Context<'_>,
    claims: &Claims,
    request: &Request,
    values: &[(Box<str>, Box<str>)],
) -> Result<Found, FindError> {
    let table = plan::table(context, request)?;
    let relation = &table.relation;
    let key = Key { relation, values };
    let positions = 0..relation.columns.len();
    let all: Vec<usize> = positions.collect();
    let (asking, reading) = (asked.asking, asked.reading.unwrap_or(asked.asking));
    let whole = forgiving(Box::pin(row::read(reading, key, None, &all)).await)?.flatten();
    let granted = table.granted(claims.role()).unwrap_or_default();
    let granted: Vec<usize> =
        all.into_iter().filter(|at| granted.get(*at) == Some(&true)).collect();
    let asked = if granted.is_empty() {
        None
    } else {
        let session = Session::new(claims.json(), claims.role(), context.policies.settings());
        let settings = session.to_settings();
        let name = Name { role: claims.role(), settings: &settings };
        forgiving(Box::pin(row::read(asked.asking, key, Some(name), &granted)).await)?
    };
    let shown = asked.as_ref().map(Option::is_some);
    let (cells, known) = match (whole, asked.flatten()) {
        (Some(cells), _) => (cells, Known::Whole),
        (None, Some(cells)) => (cells, Known::Granted),
        (None, None) => (key_only(key), Known::KeyOnly),
    };
    let explanation = explained(asking, context, claims, request, &cells).await?;
    let judges = matches!(explanation.admission, Admission::RowSecurity | Admission::Exempt);
    Ok(Found { explanation, known, shown: shown.filter(|_| judges) })
}

/// Explains what would become of a row that looks like this: a JSON object, in which a text is a
/// value as Postgres prints it.
///
/// # Errors
///
/// [`FindError`] where there is no such table, or the text is not a row of it.
pub async fn of_row(
    asking: &Dial,
    context: Context<'_>,
    claims: &Claims,
    request: &Request,
    row: &str,
) -> Result<Explanation, FindError> {
    let table = plan::table(context, request)?;
    let relation = Arc::clone(&table.relation);
    let wrong = || FindError::NotARow { table: request.table.to_string() };
    let row: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(row).map_err(|_| wrong())?;
    let mut cells: Cells = vec![None; relation.columns.len()];
    for (name, value) in row {
        let cell = relation.column(&name).and_then(|at| cells.get_mut(at)).ok_or_else(wrong)?;
        *cell = Some(match value {
            serde_json::Value::Null => None,
            serde_json::Value::Bool(value) => Some(if value { "t" } else { "f" }.to_owned()),
            serde_json::Value::String(text) => Some(text),
            other => Some(other.to_string()),
        });
    }
    explained(asking, context, claims, request, &cells).await
}

/// Explains a row. Policies that are not decided here, or by the rows of other tables, are asked of
/// Postgres, each alone, as of now.
async fn explained(
    asking: &Dial,
    context: Context<'_>,
    claims: &Claims,
    request: &Request,
    cells: &Cells,
) -> Result<Explanation, FindError> {
    let table = plan::table(context, request)?;
    let row = borrowed(cells);
    let relation = &table.relation;
    let explanation = explain(context, claims, request, relation, Subject::Row(&row));
    let open: Vec<&str> = explanation.open().collect();
    let mut words = HashMap::new();
    if !open.is_empty() {
        for (name, inquiry) in asked::each(context, claims, (table, relation), &row) {
            if !open.contains(&&*name) {
                continue;
            }
            // Without an answer it stays what it was: not known.
            let ruling = Box::pin(once(asking, &inquiry)).await.ok();
            let word = ruling.and_then(|it| it.words.into_iter().next()?.ok()?.first().copied());
            words.extend(word.map(|word| (name, word)));
        }
    }
    Ok(explanation.settled(&words, &row))
}

/// What Postgres refuses is not an error here: the row is not known then.
fn forgiving(read: Result<Option<Cells>, RowError>) -> Result<Option<Option<Cells>>, RowError> {
    match read {
        Ok(row) => Ok(Some(row)),
        Err(RowError::Query(error)) if error.as_db_error().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

fn key_only(key: Key<'_>) -> Cells {
    let value = |name: &str| key.values.iter().find(|(column, _)| **column == *name);
    let cell = |name: &str| Some(Some(value(name)?.1.to_string()));
    key.relation.columns.iter().map(|column| cell(&column.name)).collect()
}

fn borrowed(cells: &Cells) -> Vec<Cell<'_>> {
    let mut borrowed = Vec::with_capacity(cells.len());
    for cell in cells {
        borrowed.push(match cell {
            None => Cell::Unchanged,
            Some(None) => Cell::Null,
            Some(Some(text)) => Cell::Text(text.as_bytes()),
        });
    }
    borrowed
}

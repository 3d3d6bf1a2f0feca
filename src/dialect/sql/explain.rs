//! `EXPLAIN DELIVERY …`: text in, [`Explain`] out.
//!
//! ```text
//! EXPLAIN DELIVERY OF [schema.]table [(column, …)] { KEY (column = value, …) | ROW 'json' }
//!     [WHERE condition] [FOR 'token' | FOR CLAIMS 'json'] [FORMAT json]
//! EXPLAIN DELIVERY AT 'cursor' [WHERE condition] [FOR …] [FORMAT json]
//! ```

use crate::catalog::TableName;
use crate::change::cursor::Cursor;
use crate::dialect::sql::error::StatementError;
use crate::dialect::sql::lexer::Kind;
use crate::dialect::sql::statement::Format;
use crate::dialect::sql::statement::Identity;
use crate::dialect::sql::statement::Reader;

/// Which change or row, for whom.
#[derive(Clone, Debug)]
pub struct Explain {
    /// What is asked about.
    pub about: About,
    /// The columns that would be asked for; all where absent.
    pub columns: Option<Box<[Box<str>]>>,
    /// The condition that would be asked with.
    pub filter: Option<Box<str>>,
    /// For whom.
    pub identity: Identity,
    /// Whether the answer is one JSON object, and not lines to be read.
    pub json: bool,
}

/// What an explanation is about.
#[derive(Clone, Debug)]
pub enum About {
    /// The row of this key.
    Key {
        /// The table.
        table: TableName,
        /// Its key.
        key: Key,
    },
    /// A row that looks like this: a JSON object.
    Row {
        /// The table.
        table: TableName,
        /// The row.
        row: Box<str>,
    },
    /// The change that this is the cursor of.
    Change(Cursor),
}

/// Columns, and the texts that they have.
pub type Key = Vec<(Box<str>, Box<str>)>;

const FORMS: &str =
    "EXPLAIN DELIVERY OF orders KEY (id = 1) FOR CLAIMS '{…}', or AT 'cursor' FOR …";

/// What stands behind `EXPLAIN DELIVERY`.
pub(super) fn explain(reader: &mut Reader<'_>) -> Result<Explain, StatementError> {
    let (about, columns) = about(reader)?;
    let mut explain =
        Explain { about, columns, filter: None, identity: Identity::Nobody, json: false };
    loop {
        if explain.filter.is_none() && reader.take_word("where") {
            explain.filter = Some(reader.condition()?);
        } else if explain.identity == Identity::Nobody && reader.take_word("for") {
            let is_claims = reader.take_word("claims");
            if !is_claims {
                reader.take_word("token");
            }
            let text = reader.string("a token or CLAIMS and a JSON object")?.into();
            let of = if is_claims { Identity::Claims } else { Identity::Token };
            explain.identity = of(text);
        } else if !explain.json && reader.take_word("format") {
            let format = reader.format_word();
            if format != Some(Format::Json) {
                return Err(reader.expected("json"));
            }
            explain.json = true;
        } else {
            return Ok(explain);
        }
    }
}

type Columns = Option<Box<[Box<str>]>>;

fn about(reader: &mut Reader<'_>) -> Result<(About, Columns), StatementError> {
    if reader.take_word("at") {
        return Ok((About::Change(reader.cursor()?), None));
    }
    if !reader.take_word("of") {
        return Err(reader.expected("OF and a table, or AT and a cursor").hint(FORMS));
    }
    let (table, columns) = (reader.table()?, reader.columns()?);
    if reader.take_word("row") {
        let row = reader.string("a row as a JSON object")?.into();
        return Ok((About::Row { table, row }, columns));
    }
    if !reader.take_word("key") {
        return Err(reader.expected("KEY or ROW").hint(FORMS));
    }
    Ok((About::Key { table, key: key(reader)? }, columns))
}

/// Reads a key on its own, as in `id = 1, part = 'a'`.
///
/// # Errors
///
/// [`StatementError`] where it is none.
pub fn parse_key(text: &str) -> Result<Key, StatementError> {
    let mut reader = Reader::new(text)?;
    let key = pairs(&mut reader)?;
    reader.expect_end()?;
    Ok(key)
}

fn key(reader: &mut Reader<'_>) -> Result<Key, StatementError> {
    if !reader.take_symbol("(") {
        return Err(reader.expected("(").hint("as in KEY (id = 1)"));
    }
    let key = pairs(reader)?;
    if reader.take_symbol(")") { Ok(key) } else { Err(reader.expected(", or )")) }
}

fn pairs(reader: &mut Reader<'_>) -> Result<Key, StatementError> {
    let mut pairs = Vec::new();
    loop {
        let column = reader.name("a column's name")?;
        if !reader.take_symbol("=") {
            return Err(reader.expected("=").hint("as in id = 1"));
        }
        let sign = if reader.take_symbol("-") { "-" } else { "" };
        let token = reader.peek().clone();
        let value = match token.kind {
            Kind::Number => format!("{sign}{}", token.value),
            Kind::Text => token.value,
            _ => return Err(reader.expected("a number or a string")),
        };
        reader.step();
        pairs.push((column, value.into()));
        if !reader.take_symbol(",") && !reader.take_word("and") {
            return Ok(pairs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::sql::statement::Statement;
    use crate::dialect::sql::statement::parse;

    fn explained(text: &str) -> Explain {
        match parse(text) {
            Ok(Some(Statement::Explain(explain))) => explain,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_key_a_row_and_a_cursor_are_told_apart() {
        let of = explained(
            "EXPLAIN DELIVERY OF orders (id) KEY (id = -1, part = 'it''s') FOR CLAIMS '{}' \
             WHERE total > 5 FORMAT json",
        );
        let About::Key { table, key } = &of.about else { panic!("{of:?}") };
        assert_eq!(table.to_string(), "public.orders");
        assert_eq!(key[..], [("id".into(), "-1".into()), ("part".into(), "it's".into())]);
        assert_eq!(of.filter.as_deref(), Some("total > 5"));
        assert!(of.json && of.columns.is_some());
        let of = explained("explain delivery at '1.1.1.1' where a = 1 for 'x.y.z';");
        assert!(matches!(of.about, About::Change(_)));
        assert_eq!(of.filter.as_deref(), Some("a = 1"));
        assert_eq!(of.identity, Identity::Token("x.y.z".into()));
        let of = explained("explain delivery of t row '{\"a\":1}'");
        assert!(matches!(of.about, About::Row { .. }));
        assert_eq!(parse_key("a = 1 and b = 'x'").map(|key| key.len()), Ok(2));
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (text, position) in [
            ("EXPLAIN DELIVERY orders", 18),
            ("EXPLAIN DELIVERY OF orders", 27),
            ("EXPLAIN DELIVERY OF orders KEY id = 1", 32),
            ("EXPLAIN DELIVERY OF orders KEY (id > 1)", 36),
            ("EXPLAIN DELIVERY OF orders KEY (id = x)", 38),
            ("EXPLAIN DELIVERY OF orders KEY (id = 1) FOR 7", 45),
            ("EXPLAIN DELIVERY AT 'x'", 21),
        ] {
            assert_eq!(parse(text).unwrap_err().position, position, "{text}");
        }
    }
}

//! `SUBSCRIBE TO …` and `COPY (SUBSCRIBE TO …) TO STDOUT`: text in, [`Statement`] out.
//!
//! ```text
//! SUBSCRIBE TO [schema.]table [(column, …)]
//!     [WHERE condition] [AS 'token' | AS CLAIMS 'json'] [SINCE 'cursor'] [WITH SNAPSHOT]
//!     [FORMAT json | csv] [LIMIT rows]
//! COPY (SUBSCRIBE …) TO STDOUT [[WITH] (FORMAT json | csv [, HEADER])]
//! ```
//!
//! Clauses may come in any order. A condition ends where a clause begins, so a column called
//! `since`, `format` or `limit` is read as one: a clause's word is followed by its value.

use std::fmt;

use crate::catalog::TableName;
use crate::change::cursor::Cursor;
use crate::dialect::sql::error::StatementError;
use crate::dialect::sql::explain;
use crate::dialect::sql::explain::Explain;
use crate::dialect::sql::lexer::Kind;
use crate::dialect::sql::lexer::Token;
use crate::dialect::sql::lexer::tokens;
use crate::route::subscription::Filter;
use crate::route::subscription::Request;
use crate::route::subscription::SnapshotRequest;
use crate::route::subscription::Subscribe;

/// What a subscription that has no name of its own is called.
const NAME: &str = "main";
const EXAMPLE: &str = "as in SUBSCRIBE TO public.orders WHERE total > 5";

/// A statement of this dialect.
#[derive(Clone, Debug)]
pub enum Statement {
    /// The changes as rows.
    Subscribe(Subscription),
    /// The changes as the data of a COPY.
    Copy(Subscription),
    /// Why a change is delivered to somebody, or is not.
    Explain(Explain),
}

/// What is subscribed to, by whom, and how it is to be written.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The subscription.
    pub subscribe: Subscribe,
    /// In whose name.
    pub identity: Identity,
    /// How it is written; lines of JSON in a COPY where absent.
    pub format: Format,
    /// After how many rows it ends; never by itself where absent.
    pub limit: Option<u64>,
    /// Where the table stands in the text, as [`StatementError::position`] counts.
    pub table_at: usize,
    /// Where the filter stands.
    pub filter_at: Option<usize>,
}

/// In whose name something is asked.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody's: the anonymous role.
    Nobody,
    /// Whoever the token is of.
    Token(Box<str>),
    /// Whoever has these claims: a JSON object. Not everybody may say so.
    Claims(Box<str>),
}

/// How the data of a COPY is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One frame in a line.
    Json,
    /// Comma-separated values, as Postgres writes them.
    Csv {
        /// Whether the names of the columns come first.
        header: bool,
    },
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Identity::Nobody => "Nobody",
            Identity::Token(_) => "Token(..)",
            Identity::Claims(_) => "Claims(..)",
        })
    }
}

/// Reads one statement; nothing where it is none of this dialect's.
///
/// # Errors
///
/// [`StatementError`] where it begins as one and goes wrong.
pub fn parse(text: &str) -> Result<Option<Statement>, StatementError> {
    let begins = |words: &str| text.trim_start().get(..words.len()).map(str::to_ascii_lowercase);
    if !["subscribe", "copy", "explain"].iter().any(|it| begins(it).as_deref() == Some(*it)) {
        return Ok(None);
    }
    let mut reader = Reader::new(text)?;
    let statement = if reader.takes(&["explain", "delivery"]) {
        Statement::Explain(explain::explain(&mut reader)?)
    } else if reader.takes(&["subscribe"]) {
        Statement::Subscribe(subscription(&mut reader)?)
    } else if reader.begins_copy() {
        Statement::Copy(copy(&mut reader)?)
    } else {
        return Ok(None);
    };
    reader.take_symbol(";");
    reader.expect_end()?;
    Ok(Some(statement))
}

fn copy(reader: &mut Reader<'_>) -> Result<Subscription, StatementError> {
    reader.take_word("copy");
    reader.take_symbol("(");
    reader.take_word("subscribe");
    let mut of = subscription(reader)?;
    if !reader.take_symbol(")") {
        return Err(reader.expected(")"));
    }
    if !reader.takes(&["to", "stdout"]) {
        return Err(reader.expected("TO STDOUT").hint("`\\copy … TO 'file'` writes a file"));
    }
    let with = reader.take_word("with");
    if !reader.take_symbol("(") {
        match reader.format_word() {
            Some(format) => of.format = reader.with_header(format),
            None if with => return Err(reader.expected("( or a format")),
            None => {}
        }
        return Ok(of);
    }
    loop {
        if reader.take_word("format") {
            let header = of.format == (Format::Csv { header: true });
            of.format = match reader.format_word() {
                Some(Format::Csv { .. }) => Format::Csv { header },
                Some(Format::Json) => Format::Json,
                None => return Err(reader.expected("json or csv")),
            };
        } else if reader.peek().value == "header" {
            of.format = reader.with_header(Format::Csv { header: false });
            let _said_so = reader.take_word("true") || reader.take_word("on");
        } else {
            return Err(reader.expected("FORMAT or HEADER"));
        }
        if reader.take_symbol(")") {
            return Ok(of);
        }
        if !reader.take_symbol(",") {
            return Err(reader.expected(", or )"));
        }
    }
}

fn subscription(reader: &mut Reader<'_>) -> Result<Subscription, StatementError> {
    if !reader.take_word("to") {
        return Err(reader.expected("TO and a table").hint(EXAMPLE));
    }
    let table_at = reader.position();
    let (table, columns) = (reader.table()?, reader.columns()?);
    let mut request = Request { columns, ..Request::whole(&table.schema, &table.name, None) };
    let (mut identity, mut since, mut snapshot) = (None, None, None);
    let (mut format, mut limit, mut filter_at) = (None, None, None);
    loop {
        let clause = reader.peek().clone();
        let again = match clause.value.as_str() {
            "where" if reader.take_word("where") => {
                filter_at = Some(reader.position());
                let filter = Filter::Where(reader.condition()?);
                request.filter.replace(filter).is_some()
            }
            "as" if reader.take_word("as") => {
                let is_claims = reader.take_word("claims");
                let text = reader.string("a token or CLAIMS and a JSON object")?;
                let of = if is_claims { Identity::Claims } else { Identity::Token };
                identity.replace(of(text.into())).is_some()
            }
            "since" if reader.take_word("since") => since.replace(reader.cursor()?).is_some(),
            "with" if reader.takes(&["with", "snapshot"]) => snapshot.replace(()).is_some(),
            "format" if reader.take_word("format") => {
                let word = reader.format_word().ok_or_else(|| reader.expected("json or csv"))?;
                format.replace(word).is_some()
            }
            "limit" if reader.take_word("limit") => limit.replace(reader.number()?).is_some(),
            _ => break,
        };
        if again {
            let (at, word) = (clause.begin, clause.value.to_uppercase());
            return Err(StatementError::at(reader.text, at, format!("{word} stands twice")));
        }
    }
    let snapshot = snapshot.map(|()| Box::new(SnapshotRequest::default()));
    let subscribe = Subscribe { id: NAME.into(), request, since, snapshot };
    let (identity, format) = (identity.unwrap_or(Identity::Nobody), format.unwrap_or(Format::Json));
    Ok(Subscription { subscribe, identity, format, limit, table_at, filter_at })
}

/// Goes through a statement's tokens.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Result<Reader<'a>, StatementError> {
        Ok(Reader { text, tokens: tokens(text)?, at: 0 })
    }

    /// Which character of the text comes next.
    fn position(&self) -> usize {
        StatementError::at(self.text, self.peek().begin, "").position
    }

    /// Goes on to the next token.
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    pub(super) fn peek(&self) -> &Token {
        self.ahead(0)
    }

    fn ahead(&self, count: usize) -> &Token {
        let last = self.tokens.last().expect("there is an end");
        self.tokens.get(self.at + count).unwrap_or(last)
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        self.takes(&[word])
    }

    /// Takes these words, all or none.
    pub(super) fn takes(&mut self, words: &[&str]) -> bool {
        let is = |(at, word): (usize, &&str)| {
            self.ahead(at).kind == Kind::Word && self.ahead(at).value == **word
        };
        let all = words.iter().enumerate().all(is);
        self.at += if all { words.len() } else { 0 };
        all
    }

    pub(super) fn take_symbol(&mut self, symbol: &str) -> bool {
        let is = self.peek().kind == Kind::Symbol && self.peek().value == symbol;
        self.at += usize::from(is);
        is
    }

    fn begins_copy(&self) -> bool {
        self.peek().value == "copy"
            && self.ahead(1).value == "("
            && self.ahead(2).kind == Kind::Word
            && self.ahead(2).value == "subscribe"
    }

    pub(super) fn expect_end(&self) -> Result<(), StatementError> {
        if self.peek().kind == Kind::End { Ok(()) } else { Err(self.expected("the end")) }
    }

    /// That something else was expected than what stands here.
    pub(super) fn expected(&self, what: &str) -> StatementError {
        let token = self.peek();
        let found = match token.kind {
            Kind::End => "the end of the statement".to_owned(),
            _ => format!("\"{}\"", self.text.get(token.begin..token.end).unwrap_or_default()),
        };
        StatementError::at(self.text, token.begin, format!("expected {what}, found {found}"))
    }

    /// A name, folded as Postgres folds it.
    pub(super) fn name(&mut self, what: &str) -> Result<Box<str>, StatementError> {
        let token = self.peek();
        if !matches!(token.kind, Kind::Word | Kind::Quoted) {
            return Err(self.expected(what));
        }
        let name = token.value.as_str().into();
        self.at += 1;
        Ok(name)
    }

    pub(super) fn table(&mut self) -> Result<TableName, StatementError> {
        let name = self.name("a table's name").map_err(|error| error.hint(EXAMPLE))?;
        if !self.take_symbol(".") {
            return Ok(TableName { schema: "public".into(), name });
        }
        Ok(TableName { schema: name, name: self.name("a table's name")? })
    }

    pub(super) fn columns(&mut self) -> Result<Option<Box<[Box<str>]>>, StatementError> {
        if !self.take_symbol("(") {
            return Ok(None);
        }
        let mut columns = vec![self.name("a column's name")?];
        while self.take_symbol(",") {
            columns.push(self.name("a column's name")?);
        }
        if self.take_symbol(")") { Ok(Some(columns.into())) } else { Err(self.expected(", or )")) }
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String, StatementError> {
        let token = self.peek();
        match token.kind {
            Kind::Text => {
                let value = token.value.clone();
                self.at += 1;
                Ok(value)
            }
            Kind::Escaped => Err(self.expected(what).hint("write a plain string, '…' or $$…$$")),
            _ if token.value == "$" => {
                Err(self.expected(what).hint("parameters are not taken here; write the value"))
            }
            _ => Err(self.expected(&format!("{what}, in quotes"))),
        }
    }

    pub(super) fn cursor(&mut self) -> Result<Cursor, StatementError> {
        let begin = self.peek().begin;
        let text = self.string("a cursor")?;
        let wrong = |error| StatementError::at(self.text, begin, format!("{error}"));
        let cursor: Result<Cursor, _> = text.parse();
        cursor.map_err(|error| wrong(error).hint("the `cursor` of the last row that you have"))
    }

    fn number(&mut self) -> Result<u64, StatementError> {
        let number = self.peek().value.parse();
        let number = number.map_err(|_| self.expected("a whole number"))?;
        self.at += 1;
        Ok(number)
    }

    pub(super) fn format_word(&mut self) -> Option<Format> {
        let format = match self.peek().value.as_str() {
            "json" => Format::Json,
            "csv" => Format::Csv { header: false },
            _ => return None,
        };
        self.at += 1;
        Some(format)
    }

    fn with_header(&mut self, format: Format) -> Format {
        match format {
            Format::Csv { header } => Format::Csv { header: self.take_word("header") || header },
            Format::Json => Format::Json,
        }
    }

    /// What stands from here to where the next clause, a closing parenthesis or the end is.
    pub(super) fn condition(&mut self) -> Result<Box<str>, StatementError> {
        let begin = self.peek().begin;
        let (mut depth, mut end) = (0_usize, begin);
        while self.peek().kind != Kind::End {
            let token = self.peek();
            match token.value.as_str() {
                "(" if token.kind == Kind::Symbol => depth += 1,
                ")" if token.kind == Kind::Symbol && depth == 0 => break,
                ")" if token.kind == Kind::Symbol => depth -= 1,
                ";" if token.kind == Kind::Symbol => break,
                _ if depth == 0 && self.begins_clause() => break,
                _ => {}
            }
            end = token.end;
            self.at += 1;
        }
        if end == begin {
            return Err(self.expected("a condition").hint("as in WHERE status = 'open'"));
        }
        Ok(self.text.get(begin..end).unwrap_or_default().into())
    }

    /// Whether a clause stands here, and not a column that has its name.
    fn begins_clause(&self) -> bool {
        let (word, next) = (self.peek(), self.ahead(1));
        let is = |known: &str| next.kind == Kind::Word && next.value == known;
        word.kind == Kind::Word
            && match word.value.as_str() {
                "as" | "for" => is("claims") || is("token") || next.kind == Kind::Text,
                "since" => matches!(next.kind, Kind::Text | Kind::Escaped),
                "with" => is("snapshot"),
                "format" => next.kind == Kind::Word && !is("and") && !is("or") && !is("is"),
                "limit" => next.kind == Kind::Number,
                "where" => true,
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subscribed(text: &str) -> Subscription {
        match parse(text).unwrap_or_else(|error| panic!("{text}: {error}")) {
            Some(Statement::Subscribe(of) | Statement::Copy(of)) => of,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn error(text: &str) -> (usize, String) {
        let error = parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
        (error.position, error.message)
    }

    #[test]
    fn every_clause_is_read_in_any_order() {
        let of = subscribed(
            "Subscribe To Shop.\"Orders\" (id, \"Total\") LIMIT 5 where total > 5 and (a = ')') \
             AS CLAIMS '{\"sub\": \"it''s\"}' WITH Snapshot FORMAT csv SINCE '1.2.3.0' ;",
        );
        let request = &of.subscribe.request;
        assert_eq!(request.table.to_string(), "shop.Orders");
        assert_eq!(request.columns.as_deref(), Some(&["id".into(), "Total".into()][..]));
        let filter = Filter::Where("total > 5 and (a = ')')".into());
        assert_eq!(request.filter, Some(filter));
        assert!(matches!(&of.identity, Identity::Claims(it) if &**it == "{\"sub\": \"it's\"}"));
        assert_eq!(format!("{:?}", of.identity), "Claims(..)");
        assert_eq!(of.subscribe.since.map(|it| it.to_string()).as_deref(), Some("1.2.3.0"));
        assert!(of.subscribe.snapshot.is_some());
        assert_eq!((of.format, of.limit), (Format::Csv { header: false }, Some(5)));
        let of = subscribed("SUBSCRIBE TO orders");
        assert_eq!(of.subscribe.request.table.to_string(), "public.orders");
        assert_eq!((of.identity, of.format, of.limit), (Identity::Nobody, Format::Json, None));
    }

    #[test]
    fn a_copy_is_read_as_psql_spaces_it() {
        for (text, format) in [
            ("COPY (SUBSCRIBE TO t) TO STDOUT", Format::Json),
            ("COPY  ( SUBSCRIBE TO t WHERE f ( a ) = 'x)' AS 'a.b.c' ) TO STDOUT  ;", Format::Json),
            ("copy (subscribe to t) to stdout csv header", Format::Csv { header: true }),
            ("copy (subscribe to t format csv) to stdout", Format::Csv { header: false }),
            ("copy (subscribe to t) to stdout with (format csv)", Format::Csv { header: false }),
            ("copy (subscribe to t) to stdout (header, format csv)", Format::Csv { header: true }),
            (
                "copy (subscribe to t) to stdout (format csv, header on)",
                Format::Csv { header: true },
            ),
        ] {
            assert!(matches!(parse(text), Ok(Some(Statement::Copy(_)))), "{text}");
            assert_eq!(subscribed(text).format, format, "{text}");
        }
    }

    #[test]
    fn a_column_called_like_a_clause_is_one() {
        let filter = |text: &str| match subscribed(text).subscribe.request.filter {
            Some(Filter::Where(filter)) => filter.into_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            filter("SUBSCRIBE TO t WHERE since > 1 and limit_ < 5 SINCE '1.1.1.0'"),
            "since > 1 and limit_ < 5"
        );
        assert_eq!(
            filter("SUBSCRIBE TO t WHERE at < cast(x as timestamp with time zone) LIMIT 1"),
            "at < cast(x as timestamp with time zone)"
        );
        assert_eq!(filter("SUBSCRIBE TO t WHERE format = 'a' FORMAT json"), "format = 'a'");
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (text, position, message) in [
            ("SUBSCRIBE orders", 11, "expected TO and a table, found \"orders\""),
            ("SUBSCRIBE TO", 13, "expected a table's name, found the end of the statement"),
            ("SUBSCRIBE TO t WHERE", 21, "expected a condition, found the end of the statement"),
            ("SUBSCRIBE TO t WHERE LIMIT 5", 22, "expected a condition, found \"LIMIT\""),
            ("SUBSCRIBE TO t LIMIT 5 LIMIT 6", 24, "LIMIT stands twice"),
            ("SUBSCRIBE TO t LIMIT 1.5", 22, "expected a whole number, found \"1.5\""),
            ("SUBSCRIBE TO t ORDER BY id", 16, "expected the end, found \"ORDER\""),
            ("SUBSCRIBE TO t FORMAT xml", 23, "expected json or csv, found \"xml\""),
            ("SUBSCRIBE TO t AS 5", 19, "expected a token or CLAIMS and a JSON object, in quotes"),
            ("SUBSCRIBE TO t SINCE 'x'", 22, "not a cursor"),
            ("SUBSCRIBE TO t SINCE $1", 22, "expected a cursor, found \"$\""),
            ("COPY (SUBSCRIBE TO t TO STDOUT", 22, "expected ), found \"TO\""),
            ("COPY (SUBSCRIBE TO t) TO '/tmp/x'", 23, "expected TO STDOUT, found \"TO\""),
            ("COPY (SUBSCRIBE TO t) TO STDOUT (x)", 34, "expected FORMAT or HEADER, found \"x\""),
        ] {
            let (at, found) = error(text);
            assert_eq!(at, position, "{text}: {found}");
            assert!(found.starts_with(message), "{text}: {found}");
        }
    }

    #[test]
    fn other_statements_are_somebody_else_s() {
        for text in
            ["", "SHOW SLOTS", "COPY t TO STDOUT", "EXPLAIN SELECT 1", "COPY (SELECT 1) TO STDOUT"]
        {
            assert!(matches!(parse(text), Ok(None)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(words in prop::collection::vec(prop::sample::select(&[
            "subscribe", "to", "copy", "(", ")", "explain", "delivery", "of", "at", "key", "row", "for",
            "claims", "token", "where", "as", "since", "with", "snapshot", "format", "json", "limit", "'",
            "'x'", "\"", "t", ".", ",", "=", "1", "$", "$$", "--", "/*", "é", ";", "e'", "stdout", "\\",
        ][..]), 0..20), begin in prop::sample::select(&["subscribe to ", "copy (subscribe to ", "explain delivery "][..])) {
            let _ = parse(&format!("{begin}{}", words.join(" ")));
            let _ = parse(&format!("{begin}{}", words.concat()));
        }
    }
}

//! What a statement answers: a table or a word, before it is on the wire.

use std::borrow::Cow;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Number,
    /// True or false.
    Flag,
    /// JSON.
    Json,
    /// A moment.
    Time,
}

impl Of {
    /// The type's name in Postgres.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Of::Text => "text",
            Of::Number => "bigint",
            Of::Flag => "boolean",
            Of::Json => "json",
            Of::Time => "timestamptz",
        }
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Text(String),
    Number(i64),
    Flag(bool),
    /// In ISO 8601 with microseconds, in UTC.
    Time(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Cow<'static, str>,
    pub(crate) of: Of,
}

/// The rows of an answer, each as wide as there are fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Vec<Value>>,
    /// What is said beside them.
    pub(crate) notice: Option<String>,
}

impl Table {
    pub(crate) fn of(rows: Vec<Vec<Value>>) -> Table {
        Table { rows, notice: None }
    }

    pub(crate) fn one(row: Vec<Value>) -> Table {
        Table::of(vec![row])
    }

    pub(crate) fn with_notice(self, notice: Option<String>) -> Table {
        Table { notice, ..self }
    }
}

/// What a statement answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Rows.
    Rows(Table),
    /// A word, and perhaps something beside it.
    Done { tag: &'static str, notice: Option<String> },
    /// The answer to BEGIN.
    Began,
    /// The answer to COMMIT or ROLLBACK.
    Ended(&'static str),
}

/// Why a statement was not carried out. The text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// SQLSTATE.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// Which character of the statement it is about, the first being 1.
    pub(crate) position: Option<usize>,
}

impl Refused {
    /// With a code and a text.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into(), detail: None, hint: None, position: None }
    }

    /// The statement can't be read.
    pub(crate) fn syntax(message: impl Into<String>) -> Refused {
        Refused::new("42601", message)
    }

    /// With the place in the statement.
    pub(crate) fn at(self, position: usize) -> Refused {
        Refused { position: Some(position), ..self }
    }

    /// With what would be right.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Refused {
        Refused { hint: Some(hint.into()), ..self }
    }
}

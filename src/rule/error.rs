//! Why a rule was refused, in words a client may read.

/// Why a text is not a rule, or not one over this relation.
///
/// Messages name what the client wrote (a token of its own text, a column, a type) and never a
/// claim's value or anything from a row, so all of them may be sent and logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The text cannot be read.
    #[error("{reason}")]
    Syntax {
        /// What was expected and what was found.
        reason: Box<str>,
    },
    /// The text passes a bound.
    #[error("the rule is too large: {what} is more than {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The relation has no such column.
    #[error("invalid column for filter {column}")]
    UnknownColumn {
        /// The name as it was written, folded as PostgreSQL folds it.
        column: Box<str>,
    },
    /// PostgreSQL may know it, but it cannot be answered here exactly.
    #[error("{token} is not supported: {reason}")]
    Unsupported {
        /// The part of the text.
        token: Box<str>,
        /// Why not.
        reason: Box<str>,
        /// What to write in its place; empty where nothing is known.
        hint: &'static str,
    },
    /// PostgreSQL would refuse it too: the types don't go together.
    #[error("{token}: {reason}")]
    Type {
        /// The part of the text.
        token: Box<str>,
        /// What does not go together.
        reason: Box<str>,
        /// What to write in its place; empty where nothing is known.
        hint: &'static str,
    },
    /// A constant is not a value of the type it is compared with or cast to.
    #[error("{token} is not a valid {expected}")]
    Value {
        /// The constant as it was written; for a claim the expression that reads it.
        token: Box<str>,
        /// The type, in PostgreSQL's word.
        expected: Box<str>,
    },
    /// PostgreSQL raises an error in place of every row.
    #[error("PostgreSQL raises an error: {token}: {reason}")]
    Raises {
        /// The table or the function that it is about.
        token: Box<str>,
        /// Why.
        reason: Box<str>,
    },
}

impl RuleError {
    /// A word for programs; stable.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            RuleError::Syntax { .. } => "rule_syntax",
            RuleError::TooLarge { .. } => "rule_too_large",
            RuleError::UnknownColumn { .. } => "rule_unknown_column",
            RuleError::Unsupported { .. } => "rule_unsupported",
            RuleError::Type { .. } => "rule_type",
            RuleError::Value { .. } => "rule_value",
            RuleError::Raises { .. } => "rule_raises",
        }
    }

    /// What would be right, as a sentence; `None` where the message says it all.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            RuleError::Syntax { .. } | RuleError::TooLarge { .. } | RuleError::Raises { .. } => {
                None
            }
            RuleError::UnknownColumn { .. } => {
                Some("a column of the table, in lower case or in double quotes")
            }
            RuleError::Unsupported { hint, .. } | RuleError::Type { hint, .. } => {
                if hint.is_empty() { None } else { Some(hint) }
            }
            RuleError::Value { .. } => Some("write the value as PostgreSQL prints it"),
        }
    }

    /// Whether PostgreSQL has an answer, though there is none here.
    #[must_use]
    pub const fn can_be_asked(&self) -> bool {
        !matches!(self, RuleError::Raises { .. })
    }

    pub(in crate::rule) fn raises(
        token: &(impl ToString + ?Sized),
        reason: impl Into<Box<str>>,
    ) -> RuleError {
        RuleError::Raises { token: shorten(&token.to_string()), reason: reason.into() }
    }

    pub(in crate::rule) fn syntax(reason: impl Into<Box<str>>) -> RuleError {
        RuleError::Syntax { reason: reason.into() }
    }

    pub(in crate::rule) fn unsupported(
        token: &(impl ToString + ?Sized),
        reason: impl Into<Box<str>>,
        hint: &'static str,
    ) -> RuleError {
        RuleError::Unsupported { token: shorten(&token.to_string()), reason: reason.into(), hint }
    }

    pub(in crate::rule) fn types(
        token: &(impl ToString + ?Sized),
        reason: impl Into<Box<str>>,
        hint: &'static str,
    ) -> RuleError {
        RuleError::Type { token: shorten(&token.to_string()), reason: reason.into(), hint }
    }

    pub(in crate::rule) fn value(
        token: &(impl ToString + ?Sized),
        expected: impl Into<Box<str>>,
    ) -> RuleError {
        RuleError::Value { token: shorten(&token.to_string()), expected: expected.into() }
    }
}

/// Messages stay short whatever the client sent.
const TOKEN_CHARS_MAX: usize = 60;

fn shorten(token: &str) -> Box<str> {
    match token.char_indices().nth(TOKEN_CHARS_MAX) {
        None => token.into(),
        Some((end, _)) => format!("{}…", token.get(..end).unwrap_or_default()).into(),
    }
}

//! Why a text is no statement of this dialect.

/// What is wrong with a statement, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StatementError {
    /// Which character of the text it is about, the first being 1; as `psql` counts when it points.
    pub position: usize,
    /// What was expected and what was found.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl StatementError {
    /// An error about what stands at the byte `at` of `text`.
    #[must_use]
    pub fn at(text: &str, at: usize, message: impl Into<String>) -> StatementError {
        let before = text.char_indices().take_while(|(byte, _)| *byte < at).count();
        StatementError { position: before + 1, message: message.into(), hint: None }
    }

    /// The same with what would be right.
    pub(super) fn hint(self, hint: impl Into<String>) -> StatementError {
        StatementError { hint: Some(hint.into()), ..self }
    }
}

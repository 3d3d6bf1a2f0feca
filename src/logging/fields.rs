//! What an event of the log says: its message and its fields, for the formats that are ours.

use std::error::Error;
use std::fmt;

use serde_json::Value;
use tracing::Event;
use tracing::field::Field;
use tracing::field::Visit;

/// The message, and the fields in the order in which they were written.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Reads an event.
    pub(super) fn of(event: &Event<'_>) -> Fields {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields
    }

    /// The code, where there is one.
    pub(super) fn code(&self) -> Option<&str> {
        let code = self.others.iter().find(|(name, _)| *name == "code");
        code.and_then(|(_, value)| value.as_str())
    }

    /// The message with its fields behind it, as in `stream interrupted error="…"`.
    pub(super) fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.others {
            line.extend([" ", name, "="]);
            line.push_str(&value.to_string());
        }
        line
    }

    fn push(&mut self, field: &Field, value: Value) {
        self.others.push((field.name(), value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.push(field, text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, value.into());
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }

    /// An error with what caused it.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.push(field, text.into());
    }
}

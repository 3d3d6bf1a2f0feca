//! The policies of the configuration: for each table, whether clients may ask for it and which
//! rows they see.

use std::collections::HashMap;

use crate::catalog::TableName;
use crate::rule::Expression;

/// One table's entry in the settings, already parsed.
#[derive(Clone, Debug)]
pub enum Policy {
    /// Every row, to every role that may select the table. Not for tables with row-level security.
    Open,
    /// The rows for which the rule is true, over the row and the claims.
    Rule(Expression),
}

/// The policies of all tables. A table that is not among them is closed.
#[derive(Debug, Default)]
pub struct Policies {
    by_table: HashMap<TableName, Policy>,
}

impl Policies {
    /// Takes the settings' entries.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (TableName, Policy)>) -> Policies {
        Policies { by_table: entries.into_iter().collect() }
    }

    /// What the settings say of `table`.
    #[must_use]
    pub fn of(&self, table: &TableName) -> Option<&Policy> {
        self.by_table.get(table)
    }
}

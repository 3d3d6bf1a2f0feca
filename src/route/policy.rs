//! The policies of the configuration: for each table, whether clients may ask for it and which
//! rows they see.

use std::collections::HashMap;

use crate::catalog::TableName;
use crate::catalog::snapshot::RowSecurity;
use crate::catalog::snapshot::Table;
use crate::rule::Expression;
use crate::rule::Settings;

/// One table's entry in the settings, already parsed.
#[derive(Clone, Debug)]
pub enum Policy {
    /// Every row, to every role that may select the table; where it has row-level security, the rows
    /// that this lets the role see.
    Open,
    /// The rows for which the rule is true, over the row and the claims.
    Rule(Expression),
}

/// Who decides which rows of a table a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Nobody: clients are refused.
    Closed,
    /// A grant alone.
    Open,
    /// A policy of the configuration.
    Configuration,
    /// The database's own policies, read here.
    RowSecurity,
}

impl Tier {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Closed => "closed",
            Tier::Open => "open",
            Tier::Configuration => "configuration",
            Tier::RowSecurity => "row security",
        }
    }
}

/// The policies of all tables. A table that is not among them is closed, unless the database's own
/// row-level security says who may see it.
#[derive(Debug, Default)]
pub struct Policies {
    by_table: HashMap<TableName, Policy>,
    settings: Settings,
}

impl Policies {
    /// Takes the settings' entries.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (TableName, Policy)>) -> Policies {
        Policies { by_table: entries.into_iter().collect(), settings: Settings::default() }
    }

    /// With the settings that the database's own policies read, and the claims that they are made
    /// of.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Policies {
        Policies { settings, ..self }
    }

    /// What the database's own policies may ask the session for.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Who decides which rows of `table` a client may see.
    #[must_use]
    pub fn tier(&self, table: &Table) -> Tier {
        let (schema, name) = (table.relation.schema.clone(), table.relation.name.clone());
        match self.of(&TableName { schema, name }) {
            Some(Policy::Rule(_)) => Tier::Configuration,
            _ if table.row_security != RowSecurity::Off => Tier::RowSecurity,
            Some(Policy::Open) => Tier::Open,
            None => Tier::Closed,
        }
    }

    /// What the settings say of `table`.
    #[must_use]
    pub fn of(&self, table: &TableName) -> Option<&Policy> {
        self.by_table.get(table)
    }
}

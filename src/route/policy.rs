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

/// What becomes of policies of the database that are not decided here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecided {
    /// Postgres is asked.
    Ask,
    /// The subscription is refused.
    #[default]
    Refuse,
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
    /// The database's own policies, which are not decided here: Postgres is asked.
    Asked,
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
            Tier::Asked => "asked",
        }
    }
}

/// The policies of all tables. A table that is not among them is closed, unless the database's own
/// row-level security says who may see it.
#[derive(Debug, Default)]
pub struct Policies {
    by_table: HashMap<TableName, Policy>,
    settings: Settings,
    undecided: Undecided,
    undecided_by_table: HashMap<TableName, Undecided>,
    search_path: Box<str>,
}

impl Policies {
    /// Takes the settings' entries.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (TableName, Policy)>) -> Policies {
        Policies { by_table: entries.into_iter().collect(), ..Policies::default() }
    }

    /// With the settings that the database's own policies read, and the claims that they are made
    /// of.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Policies {
        Policies { settings, ..self }
    }

    /// With what becomes of policies of the database that are not decided here: of all tables, and of
    /// those that have a word of their own; and where functions of such policies find what they name.
    #[must_use]
    pub fn with_undecided(
        self,
        undecided: Undecided,
        by_table: impl IntoIterator<Item = (TableName, Undecided)>,
        search_path: &str,
    ) -> Policies {
        let undecided_by_table = by_table.into_iter().collect();
        Policies { undecided, undecided_by_table, search_path: search_path.into(), ..self }
    }

    /// What becomes of the policies of `table` that are not decided here.
    #[must_use]
    pub fn undecided(&self, table: &TableName) -> Undecided {
        self.undecided_by_table.get(table).copied().unwrap_or(self.undecided)
    }

    /// Where functions that policies call find what they name without a schema.
    #[must_use]
    pub const fn search_path(&self) -> &str {
        &self.search_path
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

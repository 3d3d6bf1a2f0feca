//! Why a table is not held, and what mends it.

use crate::change::relation::Relation;
use crate::rule::quoted_name;

/// As which role tables are read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The role of the connection.
    pub own: &'a str,
    /// The role that it takes on for this, where the settings name one.
    pub role: Option<&'a str>,
}

/// A role for reading tables, for whoever has none yet.
const READING_ROLE: &str = "walcast_tables";

/// Why the rows of a table are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheld {
    /// The publication does not have it, or the catalogue does not know it.
    #[error("the publication does not have the table")]
    NotPublished,
    /// A column that policies read does not come with the stream.
    #[error("the stream does not carry column {column}, which policies read")]
    ColumnNotPublished {
        /// The column.
        column: Box<str>,
    },
    /// The publication leaves some of what happens out.
    #[error("the publication does not publish inserts, updates, deletes and truncates")]
    NotAllPublished,
    /// The publication leaves rows out.
    #[error("the publication has only some of the table's rows (WHERE)")]
    RowFilter,
    /// Other tables inherit from it: their rows are its rows for a query, not for the stream.
    #[error(
        "other tables inherit from it: their rows are its rows for a query, not for the stream"
    )]
    Inherited,
    /// Its rows are in partitions, which come and go without the stream saying so.
    #[error(
        "the table is partitioned, and partitions are attached, detached and emptied without the \
         stream saying so: let policies read a table that is not"
    )]
    Partitioned,
    /// Old images don't tell which row they are of.
    #[error("the table has no replica identity")]
    NoIdentity,
    /// The role that reads may not.
    #[error("the reading role may not select the columns that policies read: {message}")]
    NoPrivilege {
        /// What Postgres says.
        message: Box<str>,
    },
    /// The role that reads does not see every row.
    #[error("row-level security hides rows from the reading role (replicas.role)")]
    RowSecurity,
    /// All tables together have more than may be kept.
    #[error("the tables that policies read take more than {bytes_max} bytes")]
    TooLarge {
        /// What may be kept.
        bytes_max: usize,
    },
    /// More changed while it was read than may wait.
    #[error("more changed than may wait while the table was read")]
    Overrun,
    /// It changed its shape while it was read.
    #[error("the table changed while it was read")]
    Changed,
    /// The stream brought what does not fit what is kept.
    #[error("a change does not fit the rows that are kept")]
    Diverged,
    /// Postgres did not answer, or not what was asked.
    #[error("reading the table: {message}")]
    Failed {
        /// What happened.
        message: Box<str>,
    },
}

impl Unheld {
    /// The word for it in metrics and tables.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Unheld::NotPublished => "not_published",
            Unheld::ColumnNotPublished { .. } => "column_not_published",
            Unheld::NotAllPublished => "not_all_published",
            Unheld::RowFilter => "row_filter",
            Unheld::Inherited => "inherited",
            Unheld::Partitioned => "partitioned",
            Unheld::NoIdentity => "no_identity",
            Unheld::NoPrivilege { .. } => "no_privilege",
            Unheld::RowSecurity => "row_security",
            Unheld::TooLarge { .. } => "too_large",
            Unheld::Overrun => "overrun",
            Unheld::Changed => "changed",
            Unheld::Diverged => "diverged",
            Unheld::Failed { .. } => "failed",
        }
    }

    /// The SQL that mends it, where there is one. `publication` is the stream's.
    #[must_use]
    pub fn remedy(
        &self,
        relation: &Relation,
        publication: &str,
        reader: Reader<'_>,
    ) -> Option<String> {
        let schema = quoted_name(&relation.schema);
        let table = format!("{schema}.{}", quoted_name(&relation.name));
        let publication = quoted_name(publication);
        let role = quoted_name(reader.role.unwrap_or(reader.own));
        match self {
            Unheld::NotPublished => {
                Some(format!("ALTER PUBLICATION {publication} ADD TABLE {table}"))
            }
            Unheld::NotAllPublished => Some(format!(
                "ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate')"
            )),
            Unheld::ColumnNotPublished { .. } | Unheld::RowFilter => Some(format!(
                "ALTER PUBLICATION {publication} DROP TABLE {table}; \
                 ALTER PUBLICATION {publication} ADD TABLE {table}"
            )),
            Unheld::NoIdentity => Some(format!("ALTER TABLE {table} REPLICA IDENTITY FULL")),
            Unheld::NoPrivilege { .. } => Some(format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {table} TO {role}"
            )),
            Unheld::RowSecurity if reader.role.is_some() => {
                Some(format!("ALTER ROLE {role} BYPASSRLS"))
            }
            // Whoever asks for clients must not see past row-level security.
            Unheld::RowSecurity => Some(format!(
                "DO $$ BEGIN CREATE ROLE {READING_ROLE} NOLOGIN BYPASSRLS; \
                 EXCEPTION WHEN duplicate_object THEN END $$; GRANT {READING_ROLE} TO {role}; \
                 GRANT USAGE ON SCHEMA {schema} TO {READING_ROLE}; \
                 GRANT SELECT ON {table} TO {READING_ROLE}; \
                 -- and in the configuration: replicas.role = \"{READING_ROLE}\""
            )),
            Unheld::Inherited
            | Unheld::Partitioned
            | Unheld::TooLarge { .. }
            | Unheld::Overrun
            | Unheld::Changed
            | Unheld::Diverged
            | Unheld::Failed { .. } => None,
        }
    }
}

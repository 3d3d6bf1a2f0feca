//! What the policies of a table reach: the columns that they read, and the tables that they look into.
//!
//! Whoever asks PostgreSQL about an image of a row must know which of its values matter, and which
//! changes of other tables would make the answer one of another moment.

use std::collections::HashMap;

use serde::Deserialize;

use crate::catalog::policies::TablePolicies;
use crate::change::id::RelationId;

/// What the policies of a table for SELECT reach.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// The table's columns, in the order of its row type.
    pub columns: Vec<Box<str>>,
    /// Those that each policy reads, by its name; absent: the row as a whole.
    pub reads: HashMap<Box<str>, Option<Vec<Box<str>>>>,
    /// The tables that all of them look into, or may; absent where that is not known.
    pub tables: Option<Vec<RelationId>>,
    /// Whether what they say of a row changes only where one of these tables does, or what the
    /// catalogue holds: no clock, nothing volatile, nothing that is not understood.
    pub steady: bool,
    /// The settings that they look at, in lower case; absent where that is not known.
    pub settings: Option<Vec<Box<str>>>,
}

#[derive(Deserialize)]
struct Row {
    id: u32,
    columns: Vec<Box<str>>,
    reads: HashMap<Box<str>, Option<Vec<Box<str>>>>,
    tables: Option<Vec<u32>>,
    steady: bool,
    settings: Option<Vec<Box<str>>>,
}

/// Reads the document that `reach.sql` makes, and notes for each table what it says.
pub(super) fn read(
    document: &str,
    policies: &mut HashMap<RelationId, TablePolicies>,
) -> Result<(), serde_json::Error> {
    let rows: Vec<Row> = serde_json::from_str(document)?;
    for Row { id, columns, reads, tables, steady, settings } in rows {
        let tables = tables.map(|tables| tables.into_iter().map(RelationId).collect());
        if let Some(of) = policies.get_mut(&RelationId(id)) {
            of.reach = Reach { columns, reads, tables, steady, settings };
        }
    }
    Ok(())
}

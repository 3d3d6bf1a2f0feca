//! Answers of the catalogue's statements, row by row, nothing interpreted yet.

use std::collections::BTreeSet;

use tokio_postgres::Row;

use crate::catalog::TableName;
use crate::catalog::snapshot::RowSecurity;
use crate::change::id::RelationId;
use crate::change::id::TypeId;
use crate::change::relation::ColumnDescription;
use crate::change::relation::RelationDescription;
use crate::change::relation::ReplicaIdentity;
use crate::change::types::Collation;

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) publication: &'a str,
    pub(super) roles: &'a [Box<str>],
    pub(super) tables: &'a [TableName],
    pub(super) relations: &'a BTreeSet<RelationId>,
}

/// All that one look reads. Compared as a whole with what the look before it read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) tables: Vec<TableRow>,
    pub(super) grants: Vec<GrantRow>,
    /// The types of the tables' columns that are not built in, and what they are made of.
    pub(super) types: Vec<TypeRow>,
    /// The document that `policies.sql` makes.
    pub(super) policies: Box<str>,
    /// The document that `reach.sql` makes.
    pub(super) reach: Box<str>,
}

/// A table, as the stream would describe it now, and what the stream does not say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableRow {
    pub(super) description: RelationDescription,
    /// One for each column of the description.
    pub(super) collations: Vec<Collation>,
    pub(super) primary_key: Vec<Box<str>>,
    pub(super) unpublished_columns: Vec<Box<str>>,
    pub(super) row_security: RowSecurity,
    pub(super) published: bool,
    pub(super) partitioned: bool,
    /// Whether the publication has all of its rows, and all changes to them.
    pub(super) whole: bool,
    /// Whether tables inherit from it.
    pub(super) inherited: bool,
    /// For each column of the description what is another where its values were rewritten.
    pub(super) stamps: Vec<Box<str>>,
    /// What is another where it was put into the publication anew.
    pub(super) published_as: Box<str>,
}

/// What a role may select of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GrantRow {
    pub(super) relation: RelationId,
    pub(super) role: Box<str>,
    /// Absent: every column.
    pub(super) columns: Option<Vec<Box<str>>>,
}

/// A row of `pg_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TypeRow {
    pub(super) id: TypeId,
    pub(super) name: Box<str>,
    /// `pg_type.typtype`.
    pub(super) class: u8,
    /// Of a domain; 0 otherwise.
    pub(super) base: TypeId,
    /// Of an array; 0 otherwise.
    pub(super) element: TypeId,
    pub(super) delimiter: u8,
    /// Of an enum, in its order.
    pub(super) labels: Vec<Box<str>>,
    /// Of a row type.
    pub(super) attributes: Vec<(Box<str>, TypeId)>,
    pub(super) has_json_cast: bool,
}

/// A column of the type `"char"`.
fn character(row: &Row, index: usize) -> Result<u8, tokio_postgres::Error> {
    row.try_get::<_, i8>(index).map(i8::cast_unsigned)
}

fn names(row: &Row, index: usize) -> Result<Vec<Box<str>>, tokio_postgres::Error> {
    let names: Vec<&str> = row.try_get(index)?;
    Ok(names.into_iter().map(Box::from).collect())
}

impl TableRow {
    /// A row of `tables.sql`.
    pub(super) fn read(row: &Row) -> Result<TableRow, tokio_postgres::Error> {
        let identity = match character(row, 3)? {
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            b'n' => ReplicaIdentity::Nothing,
            _ => ReplicaIdentity::Default,
        };
        let columns = names(row, 8)?
            .into_iter()
            .zip(row.try_get::<_, Vec<u32>>(9)?)
            .zip(row.try_get::<_, Vec<i32>>(10)?)
            .zip(row.try_get::<_, Vec<bool>>(11)?)
            .map(|(((name, type_id), modifier), in_identity)| ColumnDescription {
                name,
                type_id: TypeId(type_id),
                modifier,
                in_identity,
            });
        let description = RelationDescription {
            id: RelationId(row.try_get(0)?),
            schema: row.try_get::<_, &str>(1)?.into(),
            name: row.try_get::<_, &str>(2)?.into(),
            identity,
            columns: columns.collect(),
        };
        let row_security = match (row.try_get(5)?, row.try_get(6)?) {
            (false, _) => RowSecurity::Off,
            (true, false) => RowSecurity::On,
            (true, true) => RowSecurity::Forced,
        };
        let collations = names(row, 12)?.iter().map(|name| collation(name)).collect();
        Ok(TableRow {
            description,
            collations,
            primary_key: names(row, 14)?,
            unpublished_columns: names(row, 13)?,
            row_security,
            published: row.try_get(7)?,
            partitioned: character(row, 4)? == b'p',
            whole: row.try_get(15)?,
            inherited: row.try_get(16)?,
            stamps: names(row, 17)?,
            published_as: row.try_get::<_, &str>(18)?.into(),
        })
    }
}

fn collation(name: &str) -> Collation {
    match name {
        "none" => Collation::None,
        "bytes" => Collation::Bytes,
        "locale" => Collation::Locale,
        _ => Collation::Nondeterministic,
    }
}

impl GrantRow {
    /// A row of `grants.sql`.
    pub(super) fn read(row: &Row) -> Result<GrantRow, tokio_postgres::Error> {
        let columns: Option<Vec<&str>> = row.try_get(2)?;
        Ok(GrantRow {
            relation: RelationId(row.try_get(0)?),
            role: row.try_get::<_, &str>(1)?.into(),
            columns: columns.map(|columns| columns.into_iter().map(Box::from).collect()),
        })
    }
}

impl TypeRow {
    /// A row of `types.sql`.
    pub(super) fn read(row: &Row) -> Result<TypeRow, tokio_postgres::Error> {
        let attribute_types = row.try_get::<_, Vec<u32>>(8)?.into_iter().map(TypeId);
        Ok(TypeRow {
            id: TypeId(row.try_get(0)?),
            name: row.try_get::<_, &str>(1)?.into(),
            class: character(row, 2)?,
            base: TypeId(row.try_get(3)?),
            element: TypeId(row.try_get(4)?),
            delimiter: character(row, 5)?,
            labels: names(row, 6)?,
            attributes: names(row, 7)?.into_iter().zip(attribute_types).collect(),
            has_json_cast: row.try_get(9)?,
        })
    }
}

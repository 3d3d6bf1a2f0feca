//! Every shape that a table has had in this process, each with one version.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::load::TableRow;
use crate::catalog::types::Types;
use crate::change::id::RelationId;
use crate::change::relation::Column;
use crate::change::relation::ColumnDescription;
use crate::change::relation::Relation;
use crate::change::relation::RelationDescription;
use crate::change::relation::ReplicaIdentity;
use crate::change::types::Collation;
use crate::change::types::Kind;
use crate::change::types::Type;

/// How many shapes of a table are remembered. The oldest is forgotten first; coming back, it would
/// be another version.
const SHAPES_MAX: usize = 16;

/// The shapes by table.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    known: HashMap<RelationId, Vec<Shape>>,
    last_version: u64,
}

#[derive(Debug)]
struct Shape {
    description: RelationDescription,
    relation: Arc<Relation>,
}

impl Shapes {
    /// The relation that was made of this description last.
    pub(super) fn find(&self, description: &RelationDescription) -> Option<Arc<Relation>> {
        let shapes = self.known.get(&description.id)?;
        let shape = shapes.iter().find(|shape| shape.description == *description)?;
        Some(Arc::clone(&shape.relation))
    }

    /// The relation of this description with these types: the one that is there where nothing
    /// differs, else a new one, which takes the place of that of the same description.
    pub(super) fn intern(
        &mut self,
        description: &RelationDescription,
        table: Option<&TableRow>,
        types: &mut Types<'_>,
    ) -> Arc<Relation> {
        let shapes = self.known.entry(description.id).or_default();
        let relation = describe(description, table, types);
        let place = shapes.iter().position(|shape| shape.description == *description);
        if let Some(shape) = place.and_then(|place| shapes.get(place))
            && shape.relation.columns == relation.columns
            && shape.relation.primary_key == relation.primary_key
        {
            return Arc::clone(&shape.relation);
        }
        self.last_version += 1;
        let relation = Arc::new(Relation { version: self.last_version, ..relation });
        if let Some(place) = place {
            shapes.remove(place);
        } else if shapes.len() == SHAPES_MAX {
            shapes.remove(0);
        }
        shapes.push(Shape { description: description.clone(), relation: Arc::clone(&relation) });
        relation
    }
}

/// The relation, without a version.
fn describe(
    description: &RelationDescription,
    table: Option<&TableRow>,
    types: &mut Types<'_>,
) -> Relation {
    let columns: Vec<Column> = description
        .columns
        .iter()
        .map(|column| {
            let of = types.resolve(column.type_id);
            let collation = collation(column, &of, table);
            Column {
                name: column.name.clone(),
                of,
                modifier: column.modifier,
                collation,
                in_identity: column.in_identity,
            }
        })
        .collect();
    let position = |name: &str| columns.iter().position(|column| &*column.name == name);
    let key = table.map(|table| table.primary_key.as_slice()).unwrap_or_default();
    let primary_key = if description.identity == ReplicaIdentity::Index {
        (0..columns.len()).filter(|at| columns.get(*at).is_some_and(|it| it.in_identity)).collect()
    } else {
        key.iter().map(|name| position(name)).collect::<Option<Vec<usize>>>().unwrap_or_default()
    };
    Relation {
        id: description.id,
        version: 0,
        schema: description.schema.clone(),
        name: description.name.clone(),
        identity: description.identity,
        columns,
        primary_key,
    }
}

/// Today's collation of the column; where it is gone, the one that decides least.
fn collation(column: &ColumnDescription, of: &Type, table: Option<&TableRow>) -> Collation {
    let today = table.and_then(|table| {
        let same = |(today, _): &(&ColumnDescription, &Collation)| {
            today.name == column.name && today.type_id == column.type_id
        };
        let mut columns = table.description.columns.iter().zip(&table.collations);
        columns.find(same).map(|(_, collation)| *collation)
    });
    today.unwrap_or_else(|| unknown_collation(of))
}

fn unknown_collation(of: &Type) -> Collation {
    match &of.kind {
        Kind::Text | Kind::Bpchar | Kind::Other | Kind::JsonCast | Kind::Composite(_) => {
            Collation::Nondeterministic
        }
        Kind::Array { element, .. } => unknown_collation(element),
        Kind::Name => Collation::Bytes,
        Kind::Bool
        | Kind::Int2
        | Kind::Int4
        | Kind::Int8
        | Kind::Float4
        | Kind::Float8
        | Kind::Numeric
        | Kind::Oid
        | Kind::Char
        | Kind::Uuid
        | Kind::Date
        | Kind::Time
        | Kind::TimeTz
        | Kind::Timestamp
        | Kind::TimestampTz
        | Kind::Interval
        | Kind::Json
        | Kind::Jsonb
        | Kind::Bytea
        | Kind::Enum(_) => Collation::None,
    }
}

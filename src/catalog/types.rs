//! Rows of `pg_type` in, resolved [`Type`]s out.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::load::TypeRow;
use crate::change::id::TypeId;
use crate::change::types::Attribute;
use crate::change::types::Kind;
use crate::change::types::Type;

/// How deep types are taken apart. Postgres allows no type inside itself, but what is read while
/// somebody changes it could look like that.
const DEPTH_MAX: usize = 32;

/// The types that are known, and those resolved so far.
pub(super) struct Types<'a> {
    rows: HashMap<TypeId, &'a TypeRow>,
    resolved: HashMap<TypeId, Arc<Type>>,
}

impl<'a> Types<'a> {
    /// The built-in types and those of the database.
    pub(super) fn new(
        builtin: &'a [TypeRow],
        custom: impl Iterator<Item = &'a TypeRow>,
    ) -> Types<'a> {
        let rows = builtin.iter().chain(custom).map(|row| (row.id, row)).collect();
        Types { rows, resolved: HashMap::new() }
    }

    /// The type; of kind `Other` where it is not known.
    pub(super) fn resolve(&mut self, id: TypeId) -> Arc<Type> {
        self.resolve_at(id, 0)
    }

    fn resolve_at(&mut self, id: TypeId, depth: usize) -> Arc<Type> {
        if let Some(of) = self.resolved.get(&id) {
            return Arc::clone(of);
        }
        let row = self.rows.get(&id).copied().filter(|_| depth < DEPTH_MAX);
        let of = Arc::new(match row {
            None => Type { id, name: "unknown".into(), kind: Kind::Other },
            Some(row) => Type { id, name: row.name.clone(), kind: self.kind(row, depth) },
        });
        self.resolved.insert(id, Arc::clone(&of));
        of
    }

    fn kind(&mut self, row: &TypeRow, depth: usize) -> Kind {
        if let Some(kind) = scalar(row.id) {
            return kind;
        }
        match row.class {
            b'd' => self.resolve_at(row.base, depth + 1).kind.clone(),
            b'c' => {
                let attributes = row.attributes.iter().map(|(name, of)| Attribute {
                    name: name.clone(),
                    of: self.resolve_at(*of, depth + 1),
                });
                Kind::Composite(attributes.collect())
            }
            b'e' => Kind::Enum(row.labels.iter().cloned().collect()),
            _ if row.element != TypeId(0) => {
                let element = self.resolve_at(row.element, depth + 1);
                Kind::Array { element, delimiter: row.delimiter }
            }
            _ if row.has_json_cast => Kind::JsonCast,
            _ => Kind::Other,
        }
    }
}

/// The kind of a built-in type that has one of its own, by its OID (`pg_type.dat`).
fn scalar(id: TypeId) -> Option<Kind> {
    Some(match id.0 {
        16 => Kind::Bool,
        17 => Kind::Bytea,
        18 => Kind::Char,
        19 => Kind::Name,
        20 => Kind::Int8,
        21 => Kind::Int2,
        23 => Kind::Int4,
        25 | 1043 => Kind::Text,
        26 => Kind::Oid,
        114 => Kind::Json,
        700 => Kind::Float4,
        701 => Kind::Float8,
        1042 => Kind::Bpchar,
        1082 => Kind::Date,
        1083 => Kind::Time,
        1114 => Kind::Timestamp,
        1184 => Kind::TimestampTz,
        1186 => Kind::Interval,
        1266 => Kind::TimeTz,
        1700 => Kind::Numeric,
        2950 => Kind::Uuid,
        3802 => Kind::Jsonb,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u32, class: u8) -> TypeRow {
        TypeRow {
            id: TypeId(id),
            name: format!("t{id}").into(),
            class,
            base: TypeId(0),
            element: TypeId(0),
            delimiter: b',',
            labels: Vec::new(),
            attributes: Vec::new(),
            has_json_cast: false,
        }
    }

    #[test]
    fn a_domain_over_an_array_is_an_array_under_its_own_name() {
        let rows = [
            row(23, b'b'),
            TypeRow { element: TypeId(23), ..row(1007, b'b') },
            TypeRow { base: TypeId(1007), ..row(20_000, b'd') },
        ];
        let of = Types::new(&rows, [].iter()).resolve(TypeId(20_000));
        assert_eq!((of.id, &*of.name), (TypeId(20_000), "t20000"));
        let Kind::Array { element, delimiter: b',' } = &of.kind else { panic!("{of:?}") };
        assert_eq!(element.kind, Kind::Int4);
    }

    #[test]
    fn a_type_that_is_gone_or_holds_itself_is_opaque() {
        let rows = [TypeRow { base: TypeId(20_000), ..row(20_000, b'd') }];
        let mut types = Types::new(&rows, [].iter());
        assert_eq!(types.resolve(TypeId(20_000)).kind, Kind::Other);
        assert_eq!(types.resolve(TypeId(30_000)).kind, Kind::Other);
    }
}

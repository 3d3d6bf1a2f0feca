//! The published tables at one moment, and who may read which of their columns.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::TableName;
use crate::catalog::load::GrantRow;
use crate::catalog::load::Loaded;
use crate::catalog::load::TableRow;
use crate::catalog::policies::TablePolicies;
use crate::catalog::policies::TablePolicy;
use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::change::relation::ReplicaIdentity;
use crate::rule::policy::tables::Guard;
use crate::rule::policy::tables::Guarded;
use crate::rule::policy::tables::Tables;
use crate::rule::policy::tables::Unheld;

/// What the catalogue said at one look. Immutable.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// One more each time that the contents differ; 0 before the first look.
    pub generation: u64,
    tables: HashMap<RelationId, Arc<Table>>,
    by_name: HashMap<TableName, RelationId>,
}

/// `pg_class.relrowsecurity` and `relforcerowsecurity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSecurity {
    /// Everyone with a grant sees every row.
    Off,
    /// The policies decide, except for the owner.
    On,
    /// The policies decide, for the owner, too.
    Forced,
}

/// A table, as it is now.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its shape, the same `Arc` that the changes of this shape carry.
    pub relation: Arc<Relation>,
    /// Whether row-level security is on.
    pub row_security: RowSecurity,
    /// The policies that the database has for it; none where row-level security is off.
    pub policies: TablePolicies,
    /// Whether the publication has it.
    pub published: bool,
    /// Whether it is the root of a partitioned table.
    pub partitioned: bool,
    /// Columns that it has, but that the stream does not carry: generated ones, and those that
    /// the publication's column list leaves out.
    pub unpublished_columns: Vec<Box<str>>,
    /// Why its rows can't be known from the stream; absent where they can.
    pub unheld: Option<Unheld>,
    /// For each column of `relation` what is another where its values were rewritten.
    stamps: Vec<Box<str>>,
    /// What is another where it was put into the publication anew.
    published_as: Box<str>,
    grants: HashMap<Box<str>, Vec<bool>>,
    /// The roles whose grant is of the table, so of columns that are gone, too.
    whole: Vec<Box<str>>,
}

impl Snapshot {
    pub(super) fn build(
        generation: u64,
        loaded: &Loaded,
        policies: &mut HashMap<RelationId, TablePolicies>,
        mut relation_of: impl FnMut(&TableRow) -> Arc<Relation>,
    ) -> Snapshot {
        let mut tables = HashMap::new();
        let mut by_name = HashMap::new();
        for row in &loaded.tables {
            let id = row.description.id;
            let grants = loaded.grants.iter().filter(|grant| grant.relation == id);
            let policies = policies.remove(&id).unwrap_or_default();
            let table = Table { policies, ..Table::build(row, relation_of(row), grants) };
            let schema = table.relation.schema.clone();
            by_name.insert(TableName { schema, name: table.relation.name.clone() }, id);
            tables.insert(id, Arc::new(table));
        }
        Snapshot { generation, tables, by_name }
    }

    /// The table of this name, unquoted and exact.
    #[must_use]
    pub fn table(&self, schema: &str, name: &str) -> Option<&Arc<Table>> {
        let name = TableName { schema: schema.into(), name: name.into() };
        self.by_id(*self.by_name.get(&name)?)
    }

    /// The table of this OID.
    #[must_use]
    pub fn by_id(&self, id: RelationId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    /// The same if the rows of every table could be known from the stream: for finding out what is
    /// needed of tables of which that is not so yet.
    #[must_use]
    pub fn as_if_held(&self) -> Snapshot {
        let held = |(id, table): (&RelationId, &Arc<Table>)| {
            (*id, Arc::new(Table { unheld: None, ..Table::clone(table) }))
        };
        let tables = self.tables.iter().map(held).collect();
        Snapshot { generation: self.generation, tables, by_name: self.by_name.clone() }
    }

    /// All tables, in no order.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }
}

impl Table {
    fn build<'a>(
        row: &TableRow,
        relation: Arc<Relation>,
        grants: impl Iterator<Item = &'a GrantRow>,
    ) -> Table {
        let granted = |grant: &GrantRow| {
            let may = |name: &str| match &grant.columns {
                None => true,
                Some(columns) => columns.iter().any(|column| &**column == name),
            };
            relation.columns.iter().map(|column| may(&column.name)).collect()
        };
        let (mut by_role, mut whole) = (HashMap::new(), Vec::new());
        for grant in grants {
            by_role.insert(grant.role.clone(), granted(grant));
            whole.extend(grant.columns.is_none().then(|| grant.role.clone()));
        }
        Table {
            row_security: row.row_security,
            policies: TablePolicies::default(),
            published: row.published,
            partitioned: row.partitioned,
            unpublished_columns: row.unpublished_columns.clone(),
            unheld: if row.partitioned || row.inherited {
                Some(Unheld::Partitioned)
            } else if !row.published {
                Some(Unheld::Unpublished)
            } else {
                (!row.whole).then_some(Unheld::Filtered)
            },
            stamps: row.stamps.clone(),
            published_as: row.published_as.clone(),
            grants: by_role,
            whole,
            relation,
        }
    }

    /// What is another where the values of these columns, or of the key, may be others than before
    /// without the stream having said so: an `ALTER TABLE` has rewritten them, or changes were not
    /// published for a while.
    ///
    /// A column's is another after other changes of its definition, too (`SET STATISTICS`); it is not
    /// after `VACUUM FULL` and `CLUSTER`, which leave values as they are, nor after `TRUNCATE`, which
    /// the stream tells.
    #[must_use]
    pub fn stamp(&self, columns: &BTreeSet<Box<str>>) -> Box<str> {
        let Relation { identity, primary_key, .. } = &*self.relation;
        let mut stamp = String::from(&*self.published_as);
        for (at, (column, own)) in self.relation.columns.iter().zip(&self.stamps).enumerate() {
            let in_key = column.in_identity && *identity != ReplicaIdentity::Full;
            if in_key || primary_key.contains(&at) || columns.contains(&column.name) {
                stamp.extend([" ", &column.name, " ", own]);
            }
        }
        stamp.into()
    }

    /// Which columns of [`relation`](Table::relation) `role` may SELECT, by position; absent
    /// where it may not select a single one, or not use the schema, or does not exist.
    ///
    /// As Postgres says, memberships and PUBLIC included; only for the roles of the settings.
    #[must_use]
    pub fn granted(&self, role: &str) -> Option<&[bool]> {
        self.grants.get(role).map(Vec::as_slice)
    }

    /// Whether `role` may SELECT the column called `name`: for relations whose shape is not
    /// today's, whose positions are others. A column that is gone was covered by a grant of the
    /// whole table, and by no other.
    #[must_use]
    pub fn may_select(&self, role: &str, name: &str) -> bool {
        if self.whole.iter().any(|known| &**known == role) {
            return true;
        }
        let granted = |position: usize| self.granted(role)?.get(position).copied();
        self.relation.column(name).and_then(granted).unwrap_or(false)
    }
}

impl Tables for Snapshot {
    fn named(&self, schema: &str, name: &str) -> Option<&dyn Guarded> {
        let table: &dyn Guarded = &**self.table(schema, name)?;
        Some(table)
    }

    fn by_id(&self, id: RelationId) -> Option<&dyn Guarded> {
        let table: &dyn Guarded = &**self.tables.get(&id)?;
        Some(table)
    }
}

impl Guarded for Table {
    fn relation(&self) -> &Relation {
        &self.relation
    }

    fn unpublished(&self) -> &[Box<str>] {
        &self.unpublished_columns
    }

    fn unheld(&self) -> Option<Unheld> {
        self.unheld
    }

    fn granted(&self, role: &str) -> Option<&[bool]> {
        self.granted(role)
    }

    fn guards<'a>(&'a self, role: &str) -> Option<Vec<Guard<'a>>> {
        if self.row_security == RowSecurity::Off || self.policies.exempts(role) {
            return None;
        }
        Some(self.policies.of(role).map(TablePolicy::guard).collect())
    }
}

#[doc(hidden)]
impl Snapshot {
    /// Published tables of these shapes, that `role` may select: for tests without Postgres.
    #[must_use]
    pub fn of(generation: u64, relations: &[Arc<Relation>], role: &str) -> Snapshot {
        let mut snapshot = Snapshot { generation, ..Snapshot::default() };
        for relation in relations {
            let (schema, name) = (relation.schema.clone(), relation.name.clone());
            let table = Table {
                relation: Arc::clone(relation),
                row_security: RowSecurity::Off,
                policies: TablePolicies::default(),
                published: true,
                partitioned: false,
                unpublished_columns: Vec::new(),
                unheld: None,
                stamps: Vec::new(),
                published_as: Box::default(),
                grants: HashMap::from([(role.into(), vec![true; relation.columns.len()])]),
                whole: vec![role.into()],
            };
            snapshot.by_name.insert(TableName { schema, name }, relation.id);
            snapshot.tables.insert(relation.id, Arc::new(table));
        }
        snapshot
    }

    /// The same with what one more role may select of a table: the columns of these names, or, where
    /// absent, the table.
    #[must_use]
    pub fn grant(mut self, id: RelationId, role: &str, columns: Option<&[&str]>) -> Snapshot {
        if let Some(table) = self.tables.get_mut(&id).map(Arc::make_mut) {
            let may = |name: &str| columns.is_none_or(|columns| columns.contains(&name));
            let granted = table.relation.columns.iter().map(|column| may(&column.name)).collect();
            table.grants.insert(role.into(), granted);
            table.whole.extend(columns.is_none().then(|| role.into()));
        }
        self
    }
}

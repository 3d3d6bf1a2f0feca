//! A database of three small tables, and what its transactions do to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use walcast::catalog::snapshot::Snapshot;
use walcast::change::id::RelationId;
use walcast::change::id::TypeId;
use walcast::change::id::Xid;
use walcast::change::lsn::Lsn;
use walcast::change::relation::Column;
use walcast::change::relation::Relation;
use walcast::change::relation::ReplicaIdentity;
use walcast::change::transaction::ChangeKind;
use walcast::change::transaction::OldTuple;
use walcast::change::transaction::Timestamp;
use walcast::change::transaction::Transaction;
use walcast::change::transaction::TransactionBuilder;
use walcast::change::tuple::Tuple;
use walcast::change::types::Collation;
use walcast::change::types::Kind;
use walcast::change::types::Type;

use crate::random::Random;

/// The tables by number. `orders` has a policy: everyone sees their own.
pub(crate) const TABLES: [&str; 3] = ["orders", "notes", "quiet"];
pub(crate) const SUBJECTS: [&str; 3] = ["ann", "bob", "eve"];
pub(crate) const ROLES: [&str; 2] = ["web", "guest"];
/// A text that is stored apart, and not sent where it did not change.
pub(crate) const LARGE: &str = "large";
const IDS: usize = 6;
const WORDS: [&str; 3] = ["x", "y", LARGE];

/// The values of a row by column; `None` is NULL.
pub(crate) type Row = BTreeMap<&'static str, Option<String>>;

/// What a table is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) table: usize,
    /// Whether it has the column `extra`.
    pub(crate) extra: bool,
    /// Whether its replica identity is FULL; else it is the primary key.
    pub(crate) full: bool,
}

impl Shape {
    pub(crate) fn columns(self) -> Vec<&'static str> {
        let mut columns = vec!["id", "owner", "word", "total"];
        columns.extend(self.extra.then_some("extra"));
        columns
    }

    pub(crate) fn id(self) -> RelationId {
        RelationId(u32::try_from(self.table).unwrap() + 1)
    }
}

/// One row change with the row before and after it, and what the stream does not repeat.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) shape: Shape,
    pub(crate) old: Option<Row>,
    pub(crate) new: Option<Row>,
    pub(crate) truncate: bool,
}

impl Change {
    /// The columns whose large value did not change: the stream leaves them out.
    pub(crate) fn kept(&self) -> Vec<&'static str> {
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return Vec::new() };
        let large = |column: &&&str| new[**column].as_deref() == Some(LARGE);
        let columns = self.shape.columns();
        let large = columns.iter().filter(large);
        large.filter(|column| old[**column] == new[**column]).copied().collect()
    }

    pub(crate) fn key_changed(&self) -> bool {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => old["id"] != new["id"],
            _ => false,
        }
    }
}

/// Every shape of every table, each the same `Arc` each time, and the rows.
#[derive(Debug)]
pub(crate) struct Database {
    relations: BTreeMap<Shape, Arc<Relation>>,
    /// What the catalogue says that the tables are.
    pub(crate) shapes: [Shape; 3],
    /// What the stream says: it may still be at changes from before a DDL.
    streamed: [Shape; 3],
    rows: [BTreeMap<String, Row>; 3],
}

impl Database {
    pub(crate) fn new(random: &mut Random) -> Database {
        let mut relations = BTreeMap::new();
        for table in 0..TABLES.len() {
            for (extra, full) in [(false, false), (false, true), (true, false), (true, true)] {
                let shape = Shape { table, extra, full };
                let version = u64::try_from(relations.len()).unwrap() + 1;
                relations.insert(shape, relation(shape, version));
            }
        }
        let shapes = [0, 1, 2].map(|table| Shape { table, extra: false, full: random.one_in(2) });
        Database { relations, shapes, streamed: shapes, rows: Default::default() }
    }

    /// What the catalogue says now, with the given grants.
    pub(crate) fn snapshot(&self, generation: u64, grants: &Grants) -> Snapshot {
        let relations = self.shapes.map(|shape| Arc::clone(&self.relations[&shape]));
        let mut snapshot = Snapshot::of(generation, &relations, "nobody");
        for ((role, table), granted) in grants {
            let id = self.shapes[*table].id();
            snapshot = match granted {
                Granted::Nothing => snapshot,
                Granted::Table => snapshot.grant(id, role, None),
                Granted::Columns(columns) => snapshot.grant(id, role, Some(columns)),
            };
        }
        snapshot
    }

    /// `alter table`: adds or drops a column, or changes the replica identity.
    pub(crate) fn alter(&mut self, random: &mut Random) {
        let shape = &mut self.shapes[random.below(TABLES.len())];
        match random.below(3) {
            0 => shape.full = !shape.full,
            _ => shape.extra = !shape.extra,
        }
    }

    /// The stream comes to the last `alter table`.
    pub(crate) fn stream_ddl(&mut self) {
        self.streamed = self.shapes;
    }

    /// Some changes of some tables.
    pub(crate) fn changes(&mut self, count: usize, random: &mut Random) -> Vec<Change> {
        (0..count).map(|_| self.change(random)).collect()
    }

    fn change(&mut self, random: &mut Random) -> Change {
        let table = random.pick(&[0, 0, 0, 0, 1, 1, 1, 1, 2]);
        let shape = self.streamed[table];
        let rows = &mut self.rows[table];
        if random.one_in(60) {
            rows.clear();
            return Change { shape, old: None, new: None, truncate: true };
        }
        let id = random.below(IDS).to_string();
        let Some(old) = rows.remove(&id) else {
            let new = row(&id, None, random);
            rows.insert(id, new.clone());
            return Change { shape, old: None, new: Some(new), truncate: false };
        };
        if random.one_in(4) {
            return Change { shape, old: Some(old), new: None, truncate: false };
        }
        let other = random.below(IDS).to_string();
        let moves = random.one_in(6) && !rows.contains_key(&other);
        let id = if moves { other } else { id };
        let new = row(&id, Some(&old), random);
        rows.insert(id, new.clone());
        Change { shape, old: Some(old), new: Some(new), truncate: false }
    }

    /// The transaction as the stream has it, in parts where it is large.
    pub(crate) fn encode(
        &self,
        changes: &[Change],
        commit_lsn: Lsn,
        at: i64,
        random: &mut Random,
    ) -> Vec<Arc<Transaction>> {
        let mut parts = Vec::new();
        let cut = if random.one_in(3) { random.pick(&[1, 2, 5]) } else { usize::MAX };
        let xid = Xid(u32::try_from(commit_lsn.bytes()).unwrap());
        let mut builder = TransactionBuilder::new(xid, commit_lsn, Timestamp(at));
        for (index, change) in changes.iter().enumerate() {
            if index > 0 && index % cut == 0 {
                parts.push(Arc::new(builder.cut()));
            }
            let relation = &self.relations[&change.shape];
            let columns = change.shape.columns();
            let kept = change.kept();
            let old = change.old.as_ref();
            let new = change.new.as_ref().map(|row| wire(row, &columns, &kept));
            let full = old.map(|row| wire(row, &columns, &[]));
            let key = old.map(|row| {
                let only_id = |column: &str| row[column].clone().filter(|_| column == "id");
                let row = columns.iter().map(|column| (*column, only_id(column))).collect();
                wire(&row, &columns, &[])
            });
            let old = match (&full, &key) {
                (Some(full), _) if change.shape.full => Some(OldTuple::Full(tuple(full))),
                (_, Some(key)) => Some(OldTuple::Key(tuple(key))),
                _ => None,
            };
            let kind = match (&new, old) {
                _ if change.truncate => ChangeKind::Truncate,
                (Some(new), None) => ChangeKind::Insert { new: tuple(new) },
                (Some(new), Some(old)) => {
                    let old = Some(old).filter(|_| change.shape.full || change.key_changed());
                    ChangeKind::Update { old, new: tuple(new) }
                }
                (None, Some(old)) => ChangeKind::Delete { old },
                (None, None) => panic!("a change without rows"),
            };
            builder.push(relation, kind).unwrap();
        }
        parts.push(Arc::new(builder.commit(Lsn::new(commit_lsn.bytes() + 5))));
        parts
    }
}

/// What a role may select of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    Nothing,
    Table,
    Columns(Vec<&'static str>),
}

/// By role and table.
pub(crate) type Grants = BTreeMap<(&'static str, usize), Granted>;

pub(crate) fn all_granted() -> Grants {
    let tables = |role| (0..TABLES.len()).map(move |table| ((role, table), Granted::Table));
    ROLES.into_iter().flat_map(tables).collect()
}

fn row(id: &str, old: Option<&Row>, random: &mut Random) -> Row {
    let made = [
        ("owner", Some(random.pick(&SUBJECTS)).filter(|_| !random.one_in(10))),
        ("word", Some(random.pick(&WORDS)).filter(|_| !random.one_in(10))),
        ("total", Some(random.pick(&["1", "2", "3"])).filter(|_| !random.one_in(10))),
        ("extra", Some(random.pick(&WORDS)).filter(|_| !random.one_in(3))),
    ];
    let mut row = Row::from([("id", Some(id.to_owned()))]);
    for (column, value) in made {
        let before = old.map(|old| old[column].clone()).filter(|_| random.one_in(2));
        row.insert(column, before.unwrap_or_else(|| value.map(str::to_owned)));
    }
    row
}

fn relation(shape: Shape, version: u64) -> Arc<Relation> {
    let column = |name: &str| Column {
        name: name.into(),
        of: Arc::new(match name {
            "id" | "total" => Type { id: TypeId(20), name: "int8".into(), kind: Kind::Int8 },
            _ => Type { id: TypeId(25), name: "text".into(), kind: Kind::Text },
        }),
        modifier: -1,
        collation: Collation::Bytes,
        in_identity: shape.full || name == "id",
    };
    Arc::new(Relation {
        id: shape.id(),
        version,
        schema: "public".into(),
        name: TABLES[shape.table].into(),
        identity: if shape.full { ReplicaIdentity::Full } else { ReplicaIdentity::Default },
        columns: shape.columns().into_iter().map(column).collect(),
        primary_key: vec![0],
    })
}

fn wire(row: &Row, columns: &[&'static str], kept: &[&'static str]) -> Vec<u8> {
    let mut wire = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        match &row[column] {
            _ if kept.contains(column) => wire.push(b'u'),
            None => wire.push(b'n'),
            Some(text) => {
                wire.push(b't');
                wire.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                wire.extend(text.as_bytes());
            }
        }
    }
    wire
}

fn tuple(wire: &[u8]) -> Tuple<'_> {
    Tuple::take(wire).unwrap().0
}

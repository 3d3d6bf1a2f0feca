//! The store against a list of all states that a table has had.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::catalog::snapshot::Snapshot;
use crate::change::id::RelationId;
use crate::change::id::TypeId;
use crate::change::id::Xid;
use crate::change::lsn::Lsn;
use crate::change::relation::Column;
use crate::change::relation::Relation;
use crate::change::relation::ReplicaIdentity;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::OldTuple;
use crate::change::transaction::Timestamp;
use crate::change::transaction::Transaction;
use crate::change::transaction::TransactionBuilder;
use crate::change::tuple::Cell;
use crate::change::tuple::Tuple;
use crate::change::types::Collation;
use crate::change::types::Kind;
use crate::change::types::Type;
use crate::replica::Moment;
use crate::replica::Settings;
use crate::replica::Store;
use crate::replica::Touched;
use crate::replica::cells::Packing;
use crate::replica::reading::Adopted;
use crate::replica::slot::Loaded;
use crate::replica::table::Image;
use crate::replica::table::Table;
use crate::rule::Others;
use crate::rule::Source;
use crate::rule::Undecided;
use crate::rule::Wanted;

const TABLE: RelationId = RelationId(7);
/// A row: id, organisation, note; the note is not kept.
type Row = [Option<String>; 3];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll(end.try_into().unwrap())).unwrap()
    }
}

fn members(version: u64, identity: ReplicaIdentity) -> Arc<Relation> {
    let kinds = [("id", Kind::Int4), ("org", Kind::Text), ("note", Kind::Text)];
    let column = |(at, (name, kind)): (usize, &(&str, Kind))| Column {
        name: (*name).into(),
        of: Arc::new(Type { id: TypeId(25), name: "t".into(), kind: kind.clone() }),
        modifier: -1,
        collation: Collation::Bytes,
        in_identity: at == 0 || identity == ReplicaIdentity::Full,
    };
    Arc::new(Relation {
        id: TABLE,
        version,
        schema: "public".into(),
        name: "members".into(),
        identity,
        columns: kinds.iter().enumerate().map(column).collect(),
        primary_key: Vec::new(),
    })
}

fn wanted() -> Wanted {
    let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
    Wanted { table: TABLE, columns: names(&["id", "org"]), lookups: names(&["org", "id"]) }
}

fn store(relation: &Arc<Relation>, settings: Settings) -> Store {
    let snapshot = Snapshot::of(1, &[Arc::clone(relation)], "role");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let catalog = runtime.block_on(async { Catalog::read_once(snapshot) });
    let store = Store::new(settings, Arc::new(catalog));
    let snapshot = store.catalog().current();
    store.want(&[wanted()], &snapshot);
    store
}

fn source(relation: &Relation) -> Source {
    Source {
        table: TABLE,
        version: relation.version,
        columns: Box::new([0, 1]),
        base: 0,
        lookups: Box::new([]),
    }
}

fn wire(cells: &[Option<&str>]) -> Vec<u8> {
    let mut wire = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            None => wire.push(b'n'),
            Some("unchanged") => wire.push(b'u'),
            Some(text) => {
                wire.push(b't');
                wire.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                wire.extend(text.as_bytes());
            }
        }
    }
    wire
}

fn cells(row: &Row) -> Vec<Option<&str>> {
    row.iter().map(Option::as_deref).collect()
}

#[derive(Clone, Debug)]
enum Act {
    Insert(Row),
    Update(Row, Row),
    Delete(Row),
    Truncate,
}

#[derive(Clone, Debug)]
struct Deed {
    xid: u32,
    commit: u64,
    acts: Vec<Act>,
}

impl Deed {
    fn end(&self) -> u64 {
        self.commit + 10
    }

    /// The parts in which it comes.
    fn parts(&self, relation: &Arc<Relation>, dice: &mut Dice) -> Vec<Transaction> {
        let mut parts = Vec::new();
        let commit = Lsn::new(self.commit);
        let mut builder = TransactionBuilder::new(Xid(self.xid), commit, Timestamp(0));
        for (at, act) in self.acts.iter().enumerate() {
            if at > 0 && dice.roll(8) == 0 {
                parts.push(builder.cut());
            }
            push(&mut builder, relation, act, dice);
        }
        parts.push(builder.commit(Lsn::new(self.end())));
        parts
    }

    fn touches(&self) -> BTreeSet<Option<String>> {
        let rows = self.acts.iter().flat_map(|act| match act {
            Act::Insert(row) | Act::Delete(row) => vec![row.clone()],
            Act::Update(old, new) => vec![old.clone(), new.clone()],
            Act::Truncate => vec![],
        });
        rows.map(|row| row[0].clone()).collect()
    }
}

fn push(builder: &mut TransactionBuilder, relation: &Arc<Relation>, act: &Act, dice: &mut Dice) {
    let full = relation.identity == ReplicaIdentity::Full;
    let old_wire = |row: &Row| {
        let cells = cells(row);
        if full { wire(&cells) } else { wire(&[cells[0], None, None]) }
    };
    let (old, new);
    let old_of = |wire| {
        let (tuple, _) = Tuple::take(wire).unwrap();
        if full { OldTuple::Full(tuple) } else { OldTuple::Key(tuple) }
    };
    let change = match act {
        Act::Insert(row) => {
            new = wire(&cells(row));
            ChangeKind::Insert { new: Tuple::take(&new).unwrap().0 }
        }
        Act::Update(before, after) => {
            old = old_wire(before);
            let mut image = cells(after);
            for column in [1, 2] {
                if before[column] == after[column] && dice.roll(2) == 0 {
                    image[column] = Some("unchanged");
                }
            }
            new = wire(&image);
            let tells = full || before[0] != after[0];
            ChangeKind::Update {
                old: tells.then(|| old_of(&old)),
                new: Tuple::take(&new).unwrap().0,
            }
        }
        Act::Delete(row) => {
            old = old_wire(row);
            ChangeKind::Delete { old: old_of(&old) }
        }
        Act::Truncate => ChangeKind::Truncate,
    };
    builder.push(relation, change).unwrap();
}

fn carry_out(state: &mut Vec<Row>, act: &Act) {
    let remove = |state: &mut Vec<Row>, row: &Row| {
        let at = state.iter().position(|known| known == row).unwrap();
        state.swap_remove(at);
    };
    match act {
        Act::Insert(row) => state.push(row.clone()),
        Act::Update(old, new) => {
            remove(state, old);
            state.push(new.clone());
        }
        Act::Delete(row) => remove(state, row),
        Act::Truncate => state.clear(),
    }
}

/// A transaction of some changes to `state`, which is as it is after them then.
fn deed(state: &mut Vec<Row>, unique: bool, number: u32, dice: &mut Dice) -> Deed {
    let mut acts = Vec::new();
    for _ in 0..dice.roll(6) {
        let id = dice.roll(30);
        let taken = unique && state.iter().any(|row| row[0].as_deref() == Some(&id.to_string()));
        let org = (dice.roll(8) > 0).then(|| format!("org{}", dice.roll(4)));
        let row = [Some(id.to_string()), org, Some(dice.roll(3).to_string())];
        let other = |dice: &mut Dice| {
            let at = dice.below(state.len().max(1));
            state.get(at).cloned()
        };
        let act = match (dice.roll(20), other(dice)) {
            (0, _) => Act::Truncate,
            (1..=5, Some(old)) => Act::Delete(old),
            (6..=11, Some(old)) => {
                let id = if taken || dice.roll(2) > 0 { old[0].clone() } else { row[0].clone() };
                Act::Update(old, [id, row[1].clone(), row[2].clone()])
            }
            _ if taken => continue,
            _ => Act::Insert(row),
        };
        carry_out(state, &act);
        acts.push(act);
    }
    let commit = 1000 + u64::from(number) * 20;
    Deed { xid: 100 + number, commit, acts }
}

fn row(cells: &[Cell<'_>]) -> Row {
    let text = |cell: &Cell<'_>| match cell {
        Cell::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        Cell::Null => None,
        other => panic!("{other:?}"),
    };
    [text(&cells[0]), text(&cells[1]), None]
}

/// The rows' ids and organisations, sorted; absent where they are not known.
fn seen(
    store: &Store,
    relation: &Relation,
    (at, moment): (u64, Moment),
    by: Option<(usize, &str)>,
) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    let by = by.map(|(column, text)| (column, text.as_bytes()));
    let view = store.view(Lsn::new(at), moment);
    let visited = view.visit(&source(relation), by, &mut |cells| {
        rows.push(row(cells));
        ControlFlow::Continue(())
    });
    match visited {
        Ok(()) => {
            rows.sort();
            Some(rows)
        }
        Err(undecided) => {
            assert_eq!(undecided, Undecided::Unheld);
            None
        }
    }
}

fn kept(rows: &[Row], by: Option<(usize, &str)>) -> Vec<Row> {
    let fits = |row: &&Row| by.is_none_or(|(column, text)| row[column].as_deref() == Some(text));
    let mut rows: Vec<Row> =
        rows.iter().filter(fits).map(|[id, org, _]| [id.clone(), org.clone(), None]).collect();
    rows.sort();
    rows
}

/// Reads the table as a query would that saw these transactions.
fn load(store: &Store, seen: &[&Deed], insert_lsn: u64, visibility: &str) -> Option<bool> {
    let job = store.next_job()?;
    let mut state = Vec::new();
    seen.iter().flat_map(|deed| &deed.acts).for_each(|act| carry_out(&mut state, act));
    let mut table = Table::new(&job.kept);
    for row in &state {
        let image: Image<'_> = [(0, Packing::Int), (1, Packing::Text)]
            .iter()
            .map(|(column, packing)| match &row[*column] {
                Some(text) => packing.pack(Cell::Text(text.as_bytes())),
                None => packing.pack(Cell::Null),
            })
            .collect();
        table.load(&image).unwrap();
    }
    let saw = visibility.parse().unwrap();
    let loaded = Loaded { table, saw, insert_lsn: Lsn::new(insert_lsn), since: Lsn::ZERO };
    Some(matches!(store.adopt(&job, loaded), Adopted::Held { .. }))
}

/// One history: some transactions before the table is read, some while, some after.
fn one_history(seed: u64, identity: ReplicaIdentity) {
    let mut dice = Dice(seed);
    let relation = members(1, identity);
    let unique = identity != ReplicaIdentity::Full;
    let store = store(&relation, Settings::default());
    let (mut state, mut states, mut deeds) = (Vec::new(), vec![Vec::new()], Vec::new());
    for number in 0..30 {
        let deed = deed(&mut state, unique, number, &mut dice);
        deeds.push(deed);
        states.push(state.clone());
    }
    let tail = store.tail();
    store.begin(Lsn::new(1000));
    // What the query saw: a number of them, but for one that others need not wait for.
    let saw = usize::try_from(dice.roll(12)).unwrap();
    let begun = usize::try_from(dice.roll(6)).unwrap();
    let unseen = (0..saw).rev().take(3).find(|at| {
        let touches = deeds[*at].touches();
        let clear =
            !deeds[*at..saw].iter().flat_map(|it| &it.acts).any(|act| matches!(act, Act::Truncate));
        clear
            && !touches.is_empty()
            && deeds[at + 1..saw].iter().all(|later| later.touches().is_disjoint(&touches))
    });
    let unseen = unseen.filter(|_| dice.roll(2) == 0);
    let of_query: Vec<&Deed> =
        (0..saw).filter(|at| Some(*at) != unseen).map(|at| &deeds[at]).collect();
    let visibility = match unseen {
        Some(at) => format!("{0}:{1}:{0}", 100 + at, 100 + saw),
        None => format!("{0}:{0}:", 100 + saw),
    };
    let insert_lsn = if saw == 0 { 1000 } else { deeds[saw - 1].end() };
    let mut loaded = false;
    for (number, deed) in deeds.iter().enumerate() {
        if number == begun {
            loaded = load(&store, &of_query, insert_lsn, &visibility) == Some(true);
            assert!(loaded || begun > 0, "{seed}");
        }
        for part in deed.parts(&relation, &mut dice) {
            store.apply(&part);
            if loaded && dice.roll(4) == 0 {
                let (at, after) = (deed.commit, part.end_lsn.is_some());
                let result = seen(&store, &relation, (at, Moment::After), None);
                assert!(after || result.is_none(), "{seed}: a part is seen");
            }
        }
        let evicted = deeds[dice.below(number + 1)].commit;
        if dice.roll(8) == 0 {
            tail.set(Lsn::new(evicted));
            store.collect();
        }
        look_back(&store, &relation, &deeds[..=number], &states, (seed, saw));
    }
    if loaded {
        let last = deeds.last().unwrap();
        for (at, moment) in [(last.commit, Moment::Before), (last.end(), Moment::Before)] {
            assert!(seen(&store, &relation, (at, moment), None).is_some(), "{seed}");
        }
    }
}

/// Compares every moment with the list of states.
fn look_back(
    store: &Store,
    relation: &Relation,
    deeds: &[Deed],
    states: &[Vec<Row>],
    (seed, saw): (u64, usize),
) {
    let org = Some((1, "org1"));
    for (number, deed) in deeds.iter().enumerate() {
        for (moment, state) in
            [(Moment::Before, &states[number]), (Moment::After, &states[number + 1])]
        {
            for by in [None, org, Some((0, "7"))] {
                let moment = (deed.commit, moment);
                if let Some(rows) = seen(store, relation, moment, by) {
                    assert_eq!(
                        rows,
                        kept(state, by),
                        "seed {seed}, saw {saw}, {number} {moment:?}"
                    );
                }
            }
        }
        touched(store, relation, deed, (&states[number], &states[number + 1]), seed);
    }
}

/// What was there, less what is gone, and what has come, is what is there.
fn touched(
    store: &Store,
    relation: &Relation,
    deed: &Deed,
    (before, after): (&[Row], &[Row]),
    seed: u64,
) {
    let mut rows = kept(before, None);
    let view = store.view(Lsn::new(deed.commit), Moment::Before);
    if view.visit(&source(relation), None, &mut |_| ControlFlow::Break(())).is_err() {
        return;
    }
    let result = view.touched(&source(relation), &mut |what, cells| {
        let row = row(cells);
        match what {
            Touched::Come => rows.push(row),
            Touched::Gone => {
                let at = rows.iter().position(|known| *known == row).expect("it was there");
                rows.swap_remove(at);
            }
        }
    });
    if result.is_ok() {
        rows.sort();
        assert_eq!(rows, kept(after, None), "seed {seed}: {deed:?}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a seed is given from outside")]
fn every_moment_is_as_a_naive_model_has_it() {
    let seed = std::env::var("WALCAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = seed.unwrap_or(1);
    println!("WALCAST_SEED={first}");
    for seed in first..first + 20 {
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        for identity in [ReplicaIdentity::Default, ReplicaIdentity::Full] {
            one_history(seed, identity);
        }
    }
}

//! Recorded payloads through the decoder and the assembler: what a server sent, and what it means
//! to us. The recordings are made by the Postgres ring (`RECORD_FIXTURES=1 cargo test --test
//! postgres recorded`), one folder for each server version.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use walcast::change::relation::Column;
use walcast::change::relation::Relation;
use walcast::change::relation::RelationDescription;
use walcast::change::transaction::ChangeKind;
use walcast::change::transaction::OldTuple;
use walcast::change::transaction::Transaction;
use walcast::change::tuple::Cell;
use walcast::change::tuple::Tuple;
use walcast::change::types::Collation;
use walcast::change::types::Kind;
use walcast::change::types::Type;
use walcast::ingest::assemble::Assembler;
use walcast::ingest::assemble::PART_BYTES;
use walcast::ingest::assemble::Step;

#[test]
fn recordings_mean_what_they_meant() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/pgoutput");
    let mut recordings = Vec::new();
    for version in fs::read_dir(folder).unwrap() {
        let version = version.unwrap().path();
        recordings.extend(fs::read_dir(version).unwrap().map(|file| file.unwrap().path()));
    }
    recordings.sort();
    assert!(!recordings.is_empty());
    for recording in recordings {
        insta::assert_snapshot!(snapshot_name(&recording), meaning(&recording));
    }
}

fn snapshot_name(recording: &Path) -> String {
    let name = recording.file_stem().unwrap().to_string_lossy();
    let version = recording.parent().unwrap().file_name().unwrap().to_string_lossy();
    format!("pgoutput_{version}_{name}")
}

/// The shapes and the transactions of a recording, without the numbers that chance gives.
fn meaning(recording: &Path) -> String {
    let mut text = String::new();
    let mut assembler = Assembler::new(PART_BYTES, None);
    for line in fs::read_to_string(recording).unwrap().lines() {
        match assembler.push(&payload(line)).unwrap() {
            Step::More | Step::Reread => {}
            Step::Resolve(description) => {
                writeln!(text, "shape {}", shape(&description)).unwrap();
                assembler.learn(all_text(&description));
            }
            Step::Made(transaction) => {
                writeln!(text, "transaction of {}", transaction.len()).unwrap();
                changes(&transaction, &mut text);
            }
        }
    }
    assert!(!assembler.is_open());
    text
}

fn payload(line: &str) -> Vec<u8> {
    let pairs = line.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn shape(description: &RelationDescription) -> String {
    let columns = description.columns.iter().map(|column| {
        // Types of the user's own get their numbers by chance.
        let of = if column.type_id.0 < 16_384 { column.type_id.to_string() } else { "own".into() };
        format!("{}:{of}{}", column.name, if column.in_identity { "*" } else { "" })
    });
    let columns = columns.collect::<Vec<_>>().join(" ");
    format!("{}.{} {:?} {columns}", description.schema, description.name, description.identity)
}

/// A relation whose columns are all of type `text`: values are not looked at here.
fn all_text(description: &RelationDescription) -> Arc<Relation> {
    let column = |column: &walcast::change::relation::ColumnDescription| Column {
        name: column.name.clone(),
        of: Arc::new(Type { id: column.type_id, name: "text".into(), kind: Kind::Text }),
        modifier: column.modifier,
        collation: Collation::Bytes,
        in_identity: column.in_identity,
    };
    Arc::new(Relation {
        id: description.id,
        version: 1,
        schema: description.schema.clone(),
        name: description.name.clone(),
        identity: description.identity,
        columns: description.columns.iter().map(column).collect(),
        primary_key: Vec::new(),
    })
}

fn changes(transaction: &Transaction, text: &mut String) {
    for change in transaction.changes() {
        let name = &change.relation.name;
        match change.kind {
            ChangeKind::Insert { new } => writeln!(text, "  insert {name} {}", cells(new)),
            ChangeKind::Update { old, new } => {
                let old = old.map_or_else(|| "not sent".to_owned(), image);
                writeln!(text, "  update {name} {old} to {}", cells(new))
            }
            ChangeKind::Delete { old } => writeln!(text, "  delete {name} {}", image(old)),
            ChangeKind::Truncate => writeln!(text, "  truncate {name}"),
        }
        .unwrap();
    }
}

fn image(old: OldTuple<'_>) -> String {
    match old {
        OldTuple::Full(tuple) => format!("whole {}", cells(tuple)),
        OldTuple::Key(tuple) => format!("key {}", cells(tuple)),
    }
}

fn cells(tuple: Tuple<'_>) -> String {
    let cells = tuple.cells().map(|cell| match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Unchanged => "unchanged".to_owned(),
        Cell::Omitted { bytes } => format!("{bytes} bytes omitted"),
        Cell::Text(text) if text.len() > 100 => format!("{} bytes", text.len()),
        Cell::Text(text) => String::from_utf8_lossy(text).into_owned(),
    });
    format!("({})", cells.collect::<Vec<_>>().join(", "))
}

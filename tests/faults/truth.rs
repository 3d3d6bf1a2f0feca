//! What really happened, in commit order, as Postgres itself tells it.
//!
//! A second slot decodes the same log with `test_decoding`, whose text is read here. Nothing of
//! walcast takes part, and the slot is read only when everything is over.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::schema::COLUMNS;
use crate::schema::FIRST_STATUSES;
use crate::schema::GUARDED;
use crate::schema::LEAVES;
use crate::schema::TABLES;

/// The slot's name.
pub(crate) const SLOT: &str = "truth";

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    /// Large, and not touched by the update, so not in the log.
    Unchanged,
    /// A number or a truth value, as JSON writes it.
    Bare(Box<str>),
    Text(Box<str>),
}

/// The columns of a row image, in the table's order. One that is not known is absent.
pub(crate) type Row = Vec<(Arc<str>, Cell)>;

/// What was done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Insert,
    Update,
    Delete,
    Truncate,
}

#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) table: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) new: Option<Row>,
    /// The whole row under REPLICA IDENTITY FULL; else the key, where it is known.
    pub(crate) old: Option<Row>,
    /// Whether the publication had the table.
    pub(crate) published: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    /// `2026-11-21T04:00:00.123456Z`.
    pub(crate) committed_at: String,
    /// Where its commit record ends.
    pub(crate) end_lsn: u64,
    /// A moment before its COMMIT was sent, where that is known.
    pub(crate) sent_at: Option<Instant>,
    /// The tables whose shape it changed, or whether they are published.
    pub(crate) shapes: Vec<Arc<str>>,
    pub(crate) changes: Vec<Change>,
}

/// Everything, and what is wrong with it.
pub(crate) struct Truth {
    pub(crate) transactions: Vec<Transaction>,
    /// What staff may see of `docs`, and from when on; the first holds from the beginning.
    pub(crate) policies: Vec<Policy>,
    /// Where the truth is not one history, which would be a mistake of this harness.
    pub(crate) flaws: Vec<String>,
}

/// The policy that is altered now and then.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The first transaction that commits under it.
    pub(crate) from: usize,
    /// A moment before its COMMIT was sent.
    pub(crate) sent_at: Option<Instant>,
    pub(crate) statuses: Vec<String>,
}

/// How a table is at a moment of the history.
#[derive(Clone, Debug)]
struct Shape {
    published: bool,
    identity_full: bool,
    columns: Vec<Arc<str>>,
}

/// Makes the slot. To be done before anything is written.
pub(crate) async fn begin(sql: &Client) {
    let text = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding')");
    sql.batch_execute(&text).await.unwrap();
}

/// Reads the slot. `sent` tells of a writer's transactions when each COMMIT was sent, `altered` the
/// same of policies by their numbers.
pub(crate) async fn read(
    sql: &Client,
    by_root: bool,
    sent: &HashMap<(i64, i64), Instant>,
    altered: &HashMap<i64, Instant>,
) -> Truth {
    sql.batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO'").await.unwrap();
    let query = format!(
        "SELECT lsn::text, data FROM pg_logical_slot_get_changes('{SLOT}', NULL, NULL, \
         'include-xids', 'on', 'include-timestamp', 'on', 'skip-empty-xacts', 'on')"
    );
    let rows = sql.query(&query, &[]).await.unwrap();
    let mut reader = Reader::new(by_root);
    for row in rows {
        let (lsn, data): (&str, &str) = (row.get(0), row.get(1));
        reader.take(lsn, data);
    }
    for (number, policy) in &mut reader.policies {
        policy.sent_at = altered.get(number).copied();
    }
    let policies = reader.policies.into_iter().map(|(_, policy)| policy).collect();
    let mut truth = Truth { transactions: reader.transactions, policies, flaws: Vec::new() };
    truth.name_writers(sent);
    truth.compare_with_tables(sql).await;
    truth
}

struct Reader {
    by_root: bool,
    shapes: HashMap<Arc<str>, Shape>,
    names: HashMap<String, Arc<str>>,
    open: Vec<Change>,
    transactions: Vec<Transaction>,
    /// With their numbers.
    policies: Vec<(i64, Policy)>,
}

impl Reader {
    fn new(by_root: bool) -> Reader {
        let statuses = FIRST_STATUSES.map(str::to_owned).to_vec();
        let mut reader = Reader {
            policies: vec![(0, Policy { from: 0, sent_at: None, statuses })],
            by_root,
            shapes: HashMap::new(),
            names: HashMap::new(),
            open: Vec::new(),
            transactions: Vec::new(),
        };
        for table in TABLES.iter().chain(&LEAVES).chain(&GUARDED) {
            let identity_full = !["jobs", "notes", "papers"].contains(table);
            reader.shape(table, identity_full, &COLUMNS);
        }
        reader.shape("members", false, &["team", "who", "active"]);
        reader.shape("ledger", false, &["writer", "transaction", "number", "chain"]);
        reader
    }

    fn shape(&mut self, table: &str, identity_full: bool, columns: &[&str]) {
        let columns = columns.iter().map(|name| self.name(name)).collect();
        let table = self.name(table);
        self.shapes.insert(table, Shape { published: true, identity_full, columns });
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.names.insert(name.to_owned(), Arc::clone(&new));
        new
    }

    fn take(&mut self, lsn: &str, data: &str) {
        if data.starts_with("BEGIN") {
            assert!(self.open.is_empty(), "a transaction inside another");
        } else if let Some(rest) = data.strip_prefix("COMMIT ") {
            self.commit(lsn, rest);
        } else if let Some(rest) = data.strip_prefix("table ") {
            self.change(rest);
        }
    }

    fn commit(&mut self, lsn: &str, rest: &str) {
        let (_, at) = rest.split_once("(at ").unwrap();
        let mut changes = std::mem::take(&mut self.open);
        let mut shapes = Vec::new();
        for change in &changes {
            if &*change.table == "shape_log" {
                let new = change.new.as_ref().unwrap();
                let table = self.name(&text(new, "relation").unwrap());
                let columns = text(new, "columns").unwrap();
                let columns = columns.split(',').map(|name| self.name(name)).collect();
                let shape = Shape {
                    published: text(new, "published").as_deref() == Some("true"),
                    identity_full: text(new, "identity_full").as_deref() == Some("true"),
                    columns,
                };
                self.shapes.insert(Arc::clone(&table), shape);
                shapes.push(table);
            }
        }
        for change in changes.iter().filter(|change| &*change.table == "policy_log") {
            let new = change.new.as_ref().unwrap();
            let number = text(new, "number").unwrap().parse().unwrap();
            let statuses = text(new, "statuses").unwrap().split(',').map(str::to_owned).collect();
            let from = self.transactions.len();
            self.policies.push((number, Policy { from, sent_at: None, statuses }));
        }
        changes.retain(|change| !["shape_log", "policy_log"].contains(&&*change.table));
        self.transactions.push(Transaction {
            committed_at: time(at.trim_end_matches(')')),
            end_lsn: lsn_number(lsn),
            sent_at: None,
            shapes,
            changes,
        });
    }

    fn change(&mut self, rest: &str) {
        let (tables, rest) = rest.split_once(": ").unwrap();
        let (kind, rest) = rest.split_once(':').unwrap();
        let kind = match kind {
            "INSERT" => Kind::Insert,
            "UPDATE" => Kind::Update,
            "DELETE" => Kind::Delete,
            "TRUNCATE" => Kind::Truncate,
            other => panic!("{other}"),
        };
        for table in tables.split(", ") {
            let table = table.strip_prefix("public.").unwrap();
            let is_leaf = LEAVES.contains(&table);
            if kind == Kind::Truncate && (is_leaf == self.by_root) && table.starts_with("events") {
                continue;
            }
            let known = self.name(table);
            let root = if is_leaf && self.by_root { "events" } else { table };
            let root = self.name(root);
            let shape = self.shapes.get(&known).cloned();
            // Whether it is published is a matter of the root; its leaves have no say.
            let published = if is_leaf { self.name("events") } else { Arc::clone(&root) };
            let published = self.shapes.get(&published).is_some_and(|shape| shape.published);
            let (old, new) = self.images(kind, rest, shape.filter(|it| it.identity_full));
            self.open.push(Change { table: root, kind, new, old, published });
        }
    }

    /// The old and the new image. Where the old one is whole, nulls are filled in.
    fn images(
        &mut self,
        kind: Kind,
        rest: &str,
        full: Option<Shape>,
    ) -> (Option<Row>, Option<Row>) {
        if rest.contains("(no-tuple-data)") && rest.trim() == "(no-tuple-data)" {
            return (None, None);
        }
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let mut old = None;
        let mut new = None;
        match kind {
            Kind::Insert => new = Some(self.row(rest).0),
            Kind::Delete => old = Some(self.row(rest).0),
            Kind::Truncate => {}
            Kind::Update => match rest.strip_prefix("old-key: ") {
                Some(rest) => {
                    let (row, rest) = self.row(rest);
                    old = Some(row);
                    new = Some(self.row(rest.strip_prefix("new-tuple: ").unwrap()).0);
                }
                None => new = Some(self.row(rest).0),
            },
        }
        if let (Some(row), Some(shape)) = (&mut old, full) {
            let cell = |name: &Arc<str>| {
                let known = row.iter().find(|(column, _)| column == name);
                (Arc::clone(name), known.map_or(Cell::Null, |(_, cell)| cell.clone()))
            };
            *row = shape.columns.iter().map(cell).collect();
        }
        (old, new)
    }

    /// Reads `name[type]:value …`; gives what follows, if anything does.
    fn row<'a>(&mut self, mut rest: &'a str) -> (Row, &'a str) {
        let mut row = Row::new();
        while !rest.is_empty() && !rest.starts_with("new-tuple: ") {
            let (name, after) = rest.split_once('[').unwrap();
            let (_, after) = after.split_once("]:").unwrap();
            let (cell, after) = value(after);
            row.push((self.name(name), cell));
            rest = after.strip_prefix(' ').unwrap_or(after);
        }
        (row, rest)
    }
}

/// Reads one value; gives what follows it.
fn value(text: &str) -> (Cell, &str) {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (bare, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        let cell = match bare {
            "null" => Cell::Null,
            "unchanged-toast-datum" => Cell::Unchanged,
            bare => Cell::Bare(bare.into()),
        };
        return (cell, rest);
    };
    let mut from = 0;
    loop {
        let end = from + quoted[from..].find('\'').unwrap();
        if quoted[end + 1..].starts_with('\'') {
            from = end + 2;
        } else {
            return (Cell::Text(quoted[..end].replace("''", "'").into()), &quoted[end + 1..]);
        }
    }
}

/// `2026-11-21 04:00:00.12+00` in the form of a frame.
fn time(text: &str) -> String {
    let text = text.trim_end_matches("+00");
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{}.{fraction:0<6}Z", seconds.replace(' ', "T"))
}

fn lsn_number(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    (u64::from_str_radix(high, 16).unwrap() << 32) | u64::from_str_radix(low, 16).unwrap()
}

/// A column of a row.
pub(crate) fn cell<'a>(row: &'a Row, name: &str) -> Option<&'a Cell> {
    row.iter().find(|(column, _)| &**column == name).map(|(_, cell)| cell)
}

/// A column's value as text; none for null, unchanged and absent.
pub(crate) fn text(row: &Row, name: &str) -> Option<String> {
    match cell(row, name)? {
        Cell::Bare(text) | Cell::Text(text) => Some(text.to_string()),
        Cell::Null | Cell::Unchanged => None,
    }
}

/// A row as a frame shows it: without what is unchanged.
pub(crate) fn json(row: &Row, columns: impl Fn(&str) -> bool) -> Map<String, Value> {
    let shown = row.iter().filter(|(name, cell)| columns(name) && *cell != Cell::Unchanged);
    let value = |cell: &Cell| match cell {
        Cell::Null | Cell::Unchanged => Value::Null,
        Cell::Bare(text) => serde_json::from_str(text).unwrap(),
        Cell::Text(text) => Value::String(text.to_string()),
    };
    shown.map(|(name, cell)| (name.to_string(), value(cell))).collect()
}

impl Truth {
    /// The policy under which a transaction commits.
    pub(crate) fn policy_at(&self, transaction: usize) -> usize {
        self.policies.partition_point(|policy| policy.from <= transaction) - 1
    }

    /// A moment before a transaction's COMMIT was sent, or that of the last one before it of which it
    /// is known.
    pub(crate) fn sent_at(&self, transaction: usize) -> Option<Instant> {
        self.transactions[..=transaction].iter().rev().find_map(|it| it.sent_at)
    }

    /// The policies that may be in force for who is told, at a moment, of a transaction: a bit each.
    pub(crate) fn policies_until(&self, transaction: usize, at: Instant) -> u64 {
        let first = self.policy_at(transaction);
        let begun = |policy: &Policy| policy.sent_at.is_none_or(|sent_at| sent_at <= at);
        let later = self.policies.iter().enumerate().skip(first + 1);
        let later = later.filter(|(_, policy)| begun(policy)).map(|(number, _)| 1 << number);
        later.fold(1 << first, |all, bit: u64| all | bit)
    }

    /// Finds each transaction's writer by its row in the ledger, and proves the writers' chains:
    /// nothing that a writer did is missing here, and nothing stands in another order.
    fn name_writers(&mut self, sent: &HashMap<(i64, i64), Instant>) {
        let mut ends: HashMap<i64, (i64, String)> = HashMap::new();
        for transaction in &mut self.transactions {
            for change in &transaction.changes {
                let Some(new) = &change.new else { continue };
                let number = |column| text(new, column).and_then(|text| text.parse::<i64>().ok());
                let (Some(writer), Some(number)) = (number("writer"), number("number")) else {
                    continue;
                };
                let end = ends.entry(writer).or_insert((0, String::new()));
                let chain = text(new, "chain").unwrap_or_default();
                if &*change.table == "ledger" {
                    let own = text(new, "transaction").and_then(|text| text.parse().ok());
                    let own = own.and_then(|own| sent.get(&(writer, own)));
                    transaction.sent_at = own.copied().or(transaction.sent_at);
                    if (number, &chain) != (end.0, &end.1) {
                        self.flaws.push(format!("ledger of {writer} at {number}, not {}", end.0));
                    }
                    continue;
                }
                let links = number == end.0 + 1
                    && chain == link(&end.1, writer, number, text(new, "id").as_deref());
                if !links && writer > 0 {
                    self.flaws.push(format!("writer {writer}: {number} follows {}", end.0));
                }
                *end = (number, chain);
            }
        }
    }

    /// The history, replayed, must end in what is in the tables.
    async fn compare_with_tables(&mut self, sql: &Client) {
        let mut tables: BTreeMap<Arc<str>, BTreeMap<String, Row>> = BTreeMap::new();
        for change in self.transactions.iter().flat_map(|transaction| &transaction.changes) {
            let rows = tables.entry(Arc::clone(&change.table)).or_default();
            replay(rows, change);
        }
        for (table, rows) in tables.iter().filter(|(table, _)| &***table != "ledger") {
            let key = if &**table == "members" { "team || ' ' || who" } else { "id::text" };
            let query = format!("SELECT {key}, to_jsonb(t)::text FROM {table} t");
            let found = sql.query(&query, &[]).await.unwrap();
            if found.len() != rows.len() {
                let lengths = (found.len(), rows.len());
                self.flaws.push(format!("{table} has {} rows, not {}", lengths.0, lengths.1));
            }
            for row in found {
                let (id, json): (&str, &str) = (row.get(0), row.get(1));
                let real: Map<String, Value> = serde_json::from_str(json).unwrap();
                let told = rows.get(id).map(|row| self::json(row, |_| true));
                // A column that was added later has its default here, and no change told it.
                let differs = |(name, value): (&String, &Value)| {
                    real.get(name).is_some_and(|real| real != value)
                };
                if told.is_none_or(|told| told.iter().any(differs)) {
                    self.flaws.push(format!("{table} {id} differs: {json}"));
                }
            }
        }
    }
}

/// Does a change to the rows of a table, by their keys.
pub(crate) fn replay(rows: &mut BTreeMap<String, Row>, change: &Change) {
    let key = |row: &Row| match text(row, "who") {
        Some(who) => format!("{} {who}", text(row, "team").unwrap()),
        None => text(row, "id").or_else(|| text(row, "writer")).unwrap_or_default(),
    };
    if change.kind == Kind::Truncate {
        return rows.clear();
    }
    let new_key = change.new.as_ref().map(key);
    let old_key = change.old.as_ref().map(key).or_else(|| new_key.clone());
    let before = old_key.and_then(|old| rows.remove(&old));
    if let (Some(new), Some(id)) = (&change.new, new_key) {
        let kept = |name: &Arc<str>| {
            before.as_ref().and_then(|row| cell(row, name)).cloned().unwrap_or(Cell::Unchanged)
        };
        let whole = new.iter().map(|(name, cell)| match cell {
            Cell::Unchanged => (Arc::clone(name), kept(name)),
            cell => (Arc::clone(name), cell.clone()),
        });
        rows.insert(id, whole.collect());
    }
}

/// The link of a writer's chain that follows `before`.
pub(crate) fn link(before: &str, writer: i64, number: i64, id: Option<&str>) -> String {
    let text = format!("{before} {writer} {number} {}", id.unwrap_or_default());
    format!("{:016x}", hash(&text))
}

/// A text in a number (FNV-1a).
pub(crate) fn hash(text: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

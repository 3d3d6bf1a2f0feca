//! What a client holds that began with a snapshot, kept as `docs/clients.md` says, and compared
//! with the table as it was.
//!
//! A snapshot says which changes it has seen by its rows alone. So the comparison is made at the
//! first change that comes after `synced`: what was held then must be what the truth had before
//! that change.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use tokio::time::Instant;

use crate::due::Due;
use crate::filter::Verdict;
use crate::guard;
use crate::guard::PEOPLE;
use crate::guard::Teams;
use crate::plan::Watch;
use crate::schema::COLUMNS;
use crate::truth;
use crate::truth::Row;
use crate::truth::Truth;

/// The rows of one client for one subscription.
#[derive(Debug)]
pub(crate) struct Held {
    rows: BTreeMap<String, Map<String, Value>>,
    /// Whether everything that the snapshot did not see has come.
    pub(crate) synced: bool,
    /// When the snapshot was asked for.
    pub(crate) asked_at: Instant,
    /// Where a change can't be before, of those that come until `synced`.
    pub(crate) least: usize,
}

/// Rows that were held before a change, to be compared.
pub(crate) struct Comparison<'a> {
    watch: &'a Watch,
    /// The first change that is not in them; none at the end of everything.
    before: Option<Due>,
    asked_at: Instant,
    rows: BTreeMap<String, u64>,
}

impl Held {
    pub(crate) fn new(asked_at: Instant) -> Held {
        Held { rows: BTreeMap::new(), synced: false, asked_at, least: 0 }
    }

    /// Takes a row frame; says what can't be.
    pub(crate) fn take(&mut self, frame: &Value) -> Option<&'static str> {
        let id = |row: &Value| row["id"].to_string();
        let op = frame["op"].as_str().unwrap();
        if op == "truncate" {
            self.rows.clear();
            return None;
        }
        if op == "leave" || op == "delete" {
            let gone = self.rows.remove(&id(&frame["old"]));
            return gone.is_none().then_some("a row goes that is not held");
        }
        let now = frame["new"].as_object().unwrap();
        let key = id(&frame["new"]);
        let moved = frame.get("old").filter(|old| id(old) != key);
        let before = moved.and_then(|old| self.rows.remove(&id(old)));
        let before = before.or_else(|| self.rows.get(&key).cloned());
        let is_new = ["snapshot", "insert", "enter"].contains(&op);
        let wrong = match &before {
            Some(_) if is_new => Some("a row comes that is held"),
            Some(before)
                if before.get("number") == now.get("number")
                    && before.get("writer") == now.get("writer") =>
            {
                Some("a version of a row comes that is held")
            }
            _ => None,
        };
        let mut row = before.unwrap_or_default();
        row.extend(now.clone());
        self.rows.insert(key, row);
        wrong
    }

    /// What is held now, to be compared with the truth before a change.
    pub(crate) fn compare<'a>(&self, watch: &'a Watch, before: Option<Due>) -> Comparison<'a> {
        let rows = self.rows.iter().map(|(key, row)| (key.clone(), print(watch, row)));
        Comparison { watch, before, asked_at: self.asked_at, rows: rows.collect() }
    }
}

/// Compares everything, in one way along the truth; gives what differs, and how many were alike.
pub(crate) fn compare_all(truth: &Truth, mut all: Vec<Comparison<'_>>) -> (Vec<String>, u64) {
    all.sort_by_key(|it| it.before.map_or((usize::MAX, 0), |due| (due.transaction, due.change)));
    let mut all = all.into_iter().peekable();
    let mut tables: HashMap<Arc<str>, BTreeMap<String, Row>> = HashMap::new();
    let mut hidden: HashMap<Arc<str>, Option<Instant>> = HashMap::new();
    let mut teams: HashMap<&'static str, Teams> =
        PEOPLE.map(|it| (it.sub, Teams::default())).into();
    let (mut wrong, mut alike) = (Vec::new(), 0);
    let mut compare = |it: &Comparison<'_>,
                       tables: &HashMap<Arc<str>, BTreeMap<String, Row>>,
                       teams: &HashMap<&'static str, Teams>,
                       hidden: &HashMap<Arc<str>, Option<Instant>>| {
        // What was written while the table was not published is in no stream.
        let unseen = hidden.get(it.watch.table).copied().flatten();
        if unseen.is_some_and(|at| at + std::time::Duration::from_secs(2) > it.asked_at) {
            return;
        }
        let none = Teams::default();
        let member = it.watch.identity.map(|identity| identity.sub);
        let teams = member.and_then(|sub| teams.get(sub)).unwrap_or(&none);
        let sees = |row: &Row| {
            let Watch { table, identity, filter, .. } = it.watch;
            let policy = &truth.policies[0];
            filter.decide(row).and(guard::decide(table, *identity, row, teams, policy))
                == Verdict::Admits
        };
        match differs(it, tables.get(it.watch.table), &sees) {
            None => alike += 1,
            Some(what) => wrong.push(what),
        }
    };
    for (number, transaction) in truth.transactions.iter().enumerate() {
        let begun = |it: &Comparison<'_>| {
            it.before.is_some_and(|due| (due.transaction, due.change) <= (number, 0))
        };
        while let Some(it) = all.next_if(begun) {
            compare(&it, &tables, &teams, &hidden);
        }
        for (sub, teams) in &mut teams {
            teams.take(sub, transaction);
        }
        for (place, change) in transaction.changes.iter().enumerate() {
            let is_here = |it: &Comparison<'_>| {
                it.before.is_some_and(|due| (due.transaction, due.change) <= (number, place))
            };
            while let Some(it) = all.next_if(is_here) {
                compare(&it, &tables, &teams, &hidden);
            }
            if !change.published {
                hidden.insert(Arc::clone(&change.table), transaction.sent_at);
            }
            truth::replay(tables.entry(Arc::clone(&change.table)).or_default(), change);
        }
    }
    for it in all {
        compare(&it, &tables, &teams, &hidden);
    }
    (wrong, alike)
}

fn differs(
    it: &Comparison<'_>,
    table: Option<&BTreeMap<String, Row>>,
    sees: &dyn Fn(&Row) -> bool,
) -> Option<String> {
    let visible = table.into_iter().flatten();
    let visible = visible.filter(|(_, row)| sees(row));
    let real: BTreeMap<&String, &Row> = visible.collect();
    let missing = real.keys().filter(|key| !it.rows.contains_key(**key)).count();
    let surplus = it.rows.keys().filter(|key| !real.contains_key(key)).count();
    let other = real.iter().filter(|(key, row)| {
        let printed = print(it.watch, &truth::json(row, |_| true));
        it.rows.get(**key).is_some_and(|held| *held != printed)
    });
    let other: Vec<_> = other.map(|(key, _)| *key).collect();
    if missing + surplus + other.len() == 0 {
        return None;
    }
    Some(format!(
        "{} on {} ({}): of {} rows {missing} are missing, {surplus} too many, {} differ ({:?} …), \
         held before {:?}",
        it.watch.name,
        it.watch.table,
        it.watch.filter.sql(),
        real.len(),
        other.len(),
        other.first(),
        it.before
    ))
}

/// A row's content in a number: the columns that every table has at all times. Others come and go,
/// and what they hold in rows that nobody touched is told by no change.
fn print(watch: &Watch, row: &Map<String, Value>) -> u64 {
    let wanted = |name: &&str| watch.columns.as_ref().is_none_or(|it| it.contains(name));
    let cells = COLUMNS.iter().filter(|name| wanted(name)).map(|name| row.get(*name));
    let text: String = cells.map(|cell| format!("{cell:?} ")).collect();
    truth::hash(&text)
}

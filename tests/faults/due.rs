//! What a subscription has to see: which changes, as what, and in which frames. Told once more from
//! `docs/protocol.md`, and shared with nothing that walcast does.

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::filter::Verdict;
use crate::plan::Watch;
use crate::truth;
use crate::truth::Change;
use crate::truth::Kind;
use crate::truth::Row;
use crate::truth::Truth;
use crate::truth::cell;

/// A change that a subscription has to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) transaction: usize,
    pub(crate) change: usize,
    pub(crate) op: &'static str,
    /// Whether the old row is in the frame.
    pub(crate) with_old: bool,
}

/// What a subscription has to see, in order.
pub(crate) fn due(watch: &Watch, truth: &Truth) -> Vec<Due> {
    let mut due = Vec::new();
    for (transaction, it) in truth.transactions.iter().enumerate() {
        for (number, change) in it.changes.iter().enumerate() {
            if &*change.table != watch.table || !change.published {
                continue;
            }
            if let Some((op, with_old)) = seen(watch, change) {
                due.push(Due { transaction, change: number, op, with_old });
            }
        }
    }
    due
}

/// As what a change is seen, and whether the row of before is shown with it.
fn seen(watch: &Watch, change: &Change) -> Option<(&'static str, bool)> {
    let decide = |row: &Row| watch.filter.decide(row);
    let before = known_before(change).map(|row| decide(&row));
    let new = change.new.as_ref().map(|new| filled(new, change.old.as_ref()));
    let after = new.as_ref().map(decide);
    match (change.kind, before, after) {
        (Kind::Truncate, ..) => Some(("truncate", false)),
        (Kind::Insert, _, Some(Verdict::Admits)) => Some(("insert", false)),
        (Kind::Delete, Some(Verdict::Admits), _) => Some(("delete", true)),
        (Kind::Update, Some(before), Some(after)) => match (before, after) {
            (Verdict::Admits, Verdict::Admits) => Some(("update", change.old.is_some())),
            (Verdict::Rejects, Verdict::Admits) => Some(("enter", false)),
            (Verdict::Undecided, Verdict::Admits) => Some(("update", false)),
            (Verdict::Admits, Verdict::Rejects) => Some(("leave", true)),
            _ => None,
        },
        _ => None,
    }
}

/// What is known of the row before an update or a delete. Without an old image, the key did not
/// change.
fn known_before(change: &Change) -> Option<Row> {
    if let Some(old) = &change.old {
        return Some(old.clone());
    }
    let new = change.new.as_ref().filter(|_| change.kind == Kind::Update)?;
    let key = key_of(&change.table);
    Some(new.iter().filter(|(name, _)| &**name == key).cloned().collect())
}

/// A large value that was not touched is what it was, where that is known.
fn filled(new: &Row, old: Option<&Row>) -> Row {
    let before = |name: &Arc<str>| old.and_then(|old| cell(old, name));
    let fill = |(name, value): &(Arc<str>, truth::Cell)| {
        let value = match value {
            truth::Cell::Unchanged => before(name).unwrap_or(value),
            value => value,
        };
        (Arc::clone(name), value.clone())
    };
    new.iter().map(fill).collect()
}

pub(crate) fn key_of(table: &str) -> &'static str {
    if table == "ledger" { "writer" } else { "id" }
}

/// The frame that a change has to be, but for what is not ours to know.
pub(crate) fn frame_of(truth: &Truth, watch: &Watch, due: Due, frame: &Value) -> Value {
    let transaction = &truth.transactions[due.transaction];
    let change = &transaction.changes[due.change];
    let wanted = |name: &str| watch.columns.as_ref().is_none_or(|columns| columns.contains(&name));
    let mut made = Map::new();
    for (key, value) in [
        ("type", json!("row")),
        ("id", json!(watch.id)),
        ("op", json!(due.op)),
        ("commit_ts", json!(transaction.committed_at)),
    ] {
        made.insert(key.to_owned(), value);
    }
    // None until a snapshot is complete; else it is not ours to know.
    if let Some(cursor) = frame.get("cursor") {
        made.insert("cursor".to_owned(), cursor.clone());
    }
    if due.op != "leave"
        && due.op != "delete"
        && let Some(new) = &change.new
    {
        let new = filled(new, change.old.as_ref());
        made.insert("new".to_owned(), Value::Object(truth::json(&new, wanted)));
        let missing = new.iter().filter(|(_, cell)| *cell == truth::Cell::Unchanged);
        let missing: Vec<Value> =
            missing.filter(|(name, _)| wanted(name)).map(|(name, _)| json!(**name)).collect();
        if !missing.is_empty() {
            made.insert("unchanged".to_owned(), Value::Array(missing));
        }
    }
    if due.with_old {
        let key_only = due.op == "leave";
        let old = known_before(change).unwrap_or_default();
        let shown = |name: &str| wanted(name) && (!key_only || name == key_of(&change.table));
        made.insert("old".to_owned(), Value::Object(truth::json(&old, shown)));
    }
    Value::Object(made)
}

//! What a subscription has to see: which changes, as what, and in which frames. Told once more from
//! `docs/protocol.md`, and shared with nothing that walcast does.

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::filter::Verdict;
use crate::guard;
use crate::guard::Teams;
use crate::plan::Watch;
use crate::truth;
use crate::truth::Change;
use crate::truth::Kind;
use crate::truth::Policy;
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
    /// By which policies it is this, of those that held from the change on: a bit for each.
    pub(crate) by: u64,
    /// By which policies the change is seen at all.
    pub(crate) seen_by: u64,
}

/// The memberships of one person have changed.
#[derive(Clone, Debug)]
pub(crate) struct Shift {
    pub(crate) transaction: usize,
    /// Whether the subscription sees other rows by it.
    pub(crate) concerns: bool,
}

/// What a subscription has to see, in order, and where what it sees changed without a change of the
/// rows.
pub(crate) fn due(watch: &Watch, truth: &Truth) -> (Vec<Due>, Vec<Shift>) {
    let (mut due, mut shifts) = (Vec::new(), Vec::new());
    let member = guard::member(watch.table, watch.identity);
    let is_altered = guard::is_altered(watch.table, watch.identity);
    let mut before = Teams::default();
    for (transaction, it) in truth.transactions.iter().enumerate() {
        let mut after = before.clone();
        if member.is_some_and(|sub| after.take(sub, it)) {
            let teams = before.differ(&after);
            let concerns = watch.filter.region().is_none_or(|region| teams.contains(&region));
            if !teams.is_empty() {
                shifts.push(Shift { transaction, concerns });
            }
        }
        for (number, change) in it.changes.iter().enumerate() {
            if &*change.table != watch.table || !change.published {
                continue;
            }
            // Who reads later may read by a later policy, never by an earlier one.
            let first = truth.policy_at(transaction);
            let last = if is_altered { truth.policies.len() - 1 } else { first };
            let begin = due.len();
            for number_of_policy in first..=last {
                let judge = Judge {
                    watch,
                    teams: [&before, &after],
                    policy: &truth.policies[number_of_policy],
                };
                let Some((op, with_old)) = judge.seen(change) else { continue };
                let bit = 1 << number_of_policy;
                let same = |it: &&mut Due| (it.op, it.with_old) == (op, with_old);
                match due[begin..].iter_mut().find(same) {
                    Some(known) => known.by |= bit,
                    None => due.push(Due {
                        transaction,
                        change: number,
                        op,
                        with_old,
                        by: bit,
                        seen_by: 0,
                    }),
                }
            }
            let seen_by = due[begin..].iter().fold(0, |all, it| all | it.by);
            due[begin..].iter_mut().for_each(|it| it.seen_by = seen_by);
        }
        before = after;
    }
    (due, shifts)
}

/// How one change is judged.
struct Judge<'a> {
    watch: &'a Watch,
    /// Before the change's transaction and after it.
    teams: [&'a Teams; 2],
    policy: &'a Policy,
}

impl Judge<'_> {
    fn decide(&self, row: &Row, teams: &Teams) -> Verdict {
        let Watch { table, identity, filter, .. } = self.watch;
        filter.decide(row).and(guard::decide(table, *identity, row, teams, self.policy))
    }

    /// As what a change is seen, and whether the row of before is shown with it.
    fn seen(&self, change: &Change) -> Option<(&'static str, bool)> {
        let [teams_before, teams_after] = self.teams;
        let before = known_before(change).map(|row| self.decide(&row, teams_before));
        let new = change.new.as_ref().map(|new| filled(new, change.old.as_ref()));
        let after = new.as_ref().map(|row| self.decide(row, teams_after));
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

//! The checker: what each client saw, against the truth.
//!
//! For each subscription the truth gives the sequence of changes that it had to see. What it did
//! see must be an unbroken run of that sequence, up to the row that was written last of all. Only a
//! `resync` may break the run, and only where something had happened that takes history away.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::filter::Verdict;
use crate::inject::Done;
use crate::log::Entry;
use crate::log::Seen;
use crate::plan::Fault;
use crate::plan::Plan;
use crate::plan::Watch;
use crate::truth;
use crate::truth::Change;
use crate::truth::Kind;
use crate::truth::Row;
use crate::truth::Transaction;
use crate::truth::Truth;
use crate::truth::cell;

/// Violations of one subscription that are told; the others would be the same ones.
const TOLD_MAX: usize = 3;

/// What was counted, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<String>,
    pub(crate) deliveries: u64,
    pub(crate) resumes: u64,
    pub(crate) connections: u64,
    /// By reason.
    pub(crate) resyncs: BTreeMap<String, u64>,
    /// By code.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Changes that a subscription missed, and was told so.
    pub(crate) skipped: u64,
}

/// What is the same for every subscription.
pub(crate) struct Checker<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) truth: &'a Truth,
    pub(crate) done: &'a [Done],
    pub(crate) findings: Findings,
    /// What each cursor stands for, by all who were told it: a transaction, a change in it.
    cursors: HashMap<String, (usize, usize)>,
}

/// A change that a subscription has to see.
#[derive(Clone, Copy, Debug)]
struct Due {
    transaction: usize,
    change: usize,
    op: &'static str,
    /// Whether the old row is in the frame.
    with_old: bool,
}

/// One subscription's way along what it has to see.
struct Follower<'a> {
    watch: &'a Watch,
    due: Vec<Due>,
    /// The next one; unknown after the beginning, and after a `resync`.
    next: Option<usize>,
    /// Where it can't be before, while it is unknown.
    least: usize,
    /// What was committed later than this must be delivered, while `next` is unknown.
    since: Instant,
    /// When what was proven last was committed, or later.
    proven_at: Instant,
    /// The transaction that was delivered last.
    proven: usize,
    told: usize,
    wants: bool,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(plan: &'a Plan, truth: &'a Truth, done: &'a [Done]) -> Checker<'a> {
        let findings = Findings { violations: truth.flaws.clone(), ..Findings::default() };
        Checker { plan, truth, done, findings, cursors: HashMap::new() }
    }

    /// Checks one client's log.
    pub(crate) fn client(&mut self, number: usize, log: &[Entry]) {
        let plan = self.plan;
        let client = &plan.clients[number];
        let beginning = log.first().map_or_else(Instant::now, |entry| entry.at);
        let mut followers: Vec<Follower<'_>> = client
            .watches
            .iter()
            .map(|watch| Follower {
                watch,
                due: due(watch, self.truth),
                next: None,
                least: 0,
                since: beginning,
                proven_at: beginning,
                proven: 0,
                told: 0,
                wants: true,
            })
            .collect();
        for entry in log {
            match &entry.seen {
                Seen::Connected => self.findings.connections += 1,
                Seen::Asked { watch, since } => {
                    followers[*watch].wants = since.is_none();
                    self.findings.resumes += u64::from(since.is_some());
                }
                Seen::Frame(text) => {
                    let frame: Value = serde_json::from_str(text).unwrap();
                    if frame["type"] == "heartbeat" {
                        for follower in &mut followers {
                            follower.proven_at = entry.at;
                        }
                        continue;
                    }
                    let follower = followers.iter_mut().find(|it| frame["id"] == *it.watch.id);
                    if let Some(follower) = follower {
                        self.frame(follower, entry.at, &frame);
                    }
                }
                Seen::Lost(_) => {}
            }
        }
        for follower in &mut followers {
            self.end(follower);
        }
    }

    fn frame(&mut self, follower: &mut Follower<'_>, at: Instant, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "subscribed" if follower.wants => {
                // It has nothing yet, so nothing is known but when it began.
                (follower.next, follower.since, follower.proven_at) = (None, at, at);
            }
            "row" => self.row(follower, at, frame),
            "resync" => {
                let reason = frame["reason"].as_str().unwrap().to_owned();
                if !self.is_lawful(&reason, follower, at) {
                    let proven = at.duration_since(follower.proven_at);
                    self.violation(
                        follower,
                        &format!("resync for no reason: {reason}, {proven:?} after what it had"),
                    );
                }
                *self.findings.resyncs.entry(reason).or_default() += 1;
                follower.least = follower.next.unwrap_or(follower.least);
                (follower.next, follower.since, follower.proven_at) = (None, at, at);
            }
            "error" => {
                let code = frame["code"].as_str().unwrap().to_owned();
                let lawful = code == "unknown_table" && self.near(Fault::TableUnpublished, at);
                if !lawful {
                    self.violation(follower, &format!("refused: {frame}"));
                }
                *self.findings.refusals.entry(code).or_default() += 1;
            }
            _ => {}
        }
    }

    fn row(&mut self, follower: &mut Follower<'_>, at: Instant, frame: &Value) {
        self.findings.deliveries += 1;
        let found = match follower.next {
            Some(next) if self.is(follower, next, frame) => Some(next),
            Some(next) => {
                let found = self.find(follower, 0, frame);
                let what = self.tell_what(follower, next, found, frame);
                self.violation(follower, &what);
                found
            }
            None => {
                let found = self.find(follower, follower.least, frame);
                match found {
                    None => {
                        let what = self.tell_what(follower, follower.least, None, frame);
                        self.violation(follower, &what);
                    }
                    Some(found) => self.skip(follower, found),
                }
                found
            }
        };
        let Some(found) = found else { return };
        let Due { transaction, change, .. } = follower.due[found];
        follower.next = Some(found + 1);
        follower.proven = transaction;
        follower.proven_at = self.truth.transactions[transaction].sent_at.unwrap_or(at);
        let cursor = frame["cursor"].as_str().unwrap().to_owned();
        let stands_for = *self.cursors.entry(cursor).or_insert((transaction, change));
        if stands_for != (transaction, change) {
            self.violation(follower, &format!("one cursor for two changes: {frame}"));
        }
    }

    /// A run begins at `found`: what lies before it may be missing where that was said, or where it
    /// was committed before there was an answer.
    fn skip(&mut self, follower: &mut Follower<'_>, found: usize) {
        let skipped = follower.due[follower.least..found].to_vec();
        self.findings.skipped += u64::try_from(skipped.len()).unwrap();
        let late = skipped.iter().find(|due| {
            let sent_at = self.truth.transactions[due.transaction].sent_at;
            sent_at.is_some_and(|sent_at| sent_at > follower.since)
        });
        if let Some(late) = late {
            let shown = self.show(follower, *late);
            self.violation(follower, &format!("missing after it was told that all comes: {shown}"));
        }
    }

    /// A log has ended: it must have come to the last row.
    fn end(&mut self, follower: &mut Follower<'_>) {
        let chain = Value::String(format!("end:{}", follower.watch.name));
        let last = follower.due.iter().rposition(|due| {
            let change = self.change(*due);
            let new = change.new.as_ref().map(|row| truth::json(row, |name| name == "chain"));
            new.is_some_and(|row| row.get("chain") == Some(&chain))
        });
        let Some(last) = last else {
            return self.violation(follower, "the last row is not in the truth");
        };
        if follower.next.is_none_or(|next| next <= last) {
            let missing = follower.next.map(|next| self.show(follower, follower.due[next]));
            self.violation(
                follower,
                &format!("the last row never came; next would be {missing:?}"),
            );
        }
    }

    /// Whether a reason for a `resync` can be true.
    fn is_lawful(&self, reason: &str, follower: &Follower<'_>, at: Instant) -> bool {
        let dropped = self.done.iter().filter(|done| done.fault == Fault::SlotDropped);
        let mut dropped = dropped.filter(|done| done.began_at <= at);
        match reason {
            "other_history" => dropped.any(|done| at < done.ended_at + Duration::from_secs(60)),
            "too_old" => {
                let since = follower.proven_at;
                if dropped.any(|done| since <= done.ended_at + Duration::from_secs(15)) {
                    return true;
                }
                let (window, ring) = self.plan.profile.kept();
                let seconds = window.seconds.min(ring.seconds);
                let aged = at.duration_since(since) + Duration::from_secs(3);
                let passed = self.bytes_between(follower.proven, at);
                // Text takes less memory than what the ring holds of it.
                aged >= Duration::from_secs(seconds) || passed > window.bytes.min(ring.bytes) / 8
            }
            "schema_changed" => {
                let concerned = |transaction: &Transaction| {
                    transaction.shapes.iter().any(|table| &**table == follower.watch.table)
                };
                self.truth.transactions.iter().any(concerned)
            }
            _ => false,
        }
    }

    /// The log that was written after a transaction and before a moment, in bytes.
    fn bytes_between(&self, transaction: usize, at: Instant) -> u64 {
        let all = &self.truth.transactions;
        let begin = all.get(transaction).map_or(0, |it| it.end_lsn);
        let before = all.iter().rev().find(|it| it.sent_at.is_some_and(|sent| sent < at));
        before.map_or(0, |it| it.end_lsn.saturating_sub(begin))
    }

    /// Whether a fault was done shortly before, or is being done.
    fn near(&self, fault: Fault, at: Instant) -> bool {
        let after = Duration::from_secs(15);
        let done = self.done.iter().filter(|done| done.fault == fault);
        done.into_iter().any(|done| done.began_at <= at && at <= done.ended_at + after)
    }

    fn change(&self, due: Due) -> &Change {
        &self.truth.transactions[due.transaction].changes[due.change]
    }

    /// Whether a frame is what was due at a place.
    fn is(&self, follower: &Follower<'_>, place: usize, frame: &Value) -> bool {
        follower.due.get(place).is_some_and(|due| self.matches(follower.watch, *due, frame))
    }

    fn find(&self, follower: &Follower<'_>, from: usize, frame: &Value) -> Option<usize> {
        (from..follower.due.len()).find(|place| self.is(follower, *place, frame))
    }

    fn matches(&self, watch: &Watch, due: Due, frame: &Value) -> bool {
        let transaction = &self.truth.transactions[due.transaction];
        frame["op"] == due.op
            && frame["commit_ts"] == *transaction.committed_at
            && *frame == self.frame_of(watch, due, frame)
    }

    /// The frame that a change has to be, but for what is not ours to know.
    fn frame_of(&self, watch: &Watch, due: Due, frame: &Value) -> Value {
        let change = self.change(due);
        let wanted =
            |name: &str| watch.columns.as_ref().is_none_or(|columns| columns.contains(&name));
        let mut made = Map::new();
        for (key, value) in [
            ("type", json!("row")),
            ("id", json!(watch.id)),
            ("op", json!(due.op)),
            ("cursor", frame["cursor"].clone()),
            ("commit_ts", json!(self.truth.transactions[due.transaction].committed_at)),
        ] {
            made.insert(key.to_owned(), value);
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

    fn tell_what(
        &self,
        follower: &Follower<'_>,
        next: usize,
        found: Option<usize>,
        frame: &Value,
    ) -> String {
        let due = |place: usize| {
            let due = follower.due.get(place);
            due.map_or_else(|| "nothing".to_owned(), |due| self.show(follower, *due))
        };
        match found {
            Some(found) if found < next => {
                format!("twice, {} back: {frame}\n    due was {}", next - found, due(next))
            }
            Some(found) => {
                format!("{} missing before {frame}\n    the first is {}", found - next, due(next))
            }
            None => format!("not to be seen: {frame}\n    due was {}", due(next)),
        }
    }

    fn show(&self, follower: &Follower<'_>, due: Due) -> String {
        let transaction = &self.truth.transactions[due.transaction];
        let frame = self.frame_of(follower.watch, due, &Value::Null);
        let (lsn, changes) = (transaction.end_lsn, transaction.changes.len());
        format!("change {} of {changes} of the transaction at {lsn:x}: {frame}", due.change)
    }

    fn violation(&mut self, follower: &mut Follower<'_>, what: &str) {
        follower.told += 1;
        if follower.told <= TOLD_MAX {
            let Watch { name, table, filter, .. } = follower.watch;
            self.findings.violations.push(format!("{name} on {table} ({}): {what}", filter.sql()));
        }
    }
}

/// What a subscription has to see, in order.
fn due(watch: &Watch, truth: &Truth) -> Vec<Due> {
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

fn key_of(table: &str) -> &'static str {
    if table == "ledger" { "writer" } else { "id" }
}

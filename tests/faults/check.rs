//! The checker: what each client saw, against the truth.
//!
//! For each subscription the truth gives the sequence of changes that it had to see. What it did
//! see must be an unbroken run of that sequence, up to the row that was written last of all. Only a
//! `resync` may break the run, and only where something had happened that takes history away.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::clients::UNANSWERED;
use crate::clients::UNANSWERED_AFTER;
use crate::due::Due;
use crate::due::due;
use crate::due::frame_of;
use crate::guard;
use crate::held;
use crate::held::Comparison;
use crate::held::Held;
use crate::inject::Done;
use crate::log::Entry;
use crate::log::Seen;
use crate::plan::Fault;
use crate::plan::Plan;
use crate::plan::Watch;
use crate::shift::Shifts;
use crate::throttled::Throttled;
use crate::truth;
use crate::truth::Change;
use crate::truth::Transaction;
use crate::truth::Truth;

/// Violations of one subscription that are told; the others would be the same ones.
const TOLD_MAX: usize = 3;
/// How long a fault excuses that a request has no answer: walcast and Postgres start, and catch up.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What was counted, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<String>,
    pub(crate) deliveries: u64,
    /// Those of tables with policies, by table and role.
    pub(crate) guarded: BTreeMap<String, u64>,
    /// How often memberships let a subscription see other rows.
    pub(crate) shifts: u64,
    pub(crate) resumes: u64,
    /// By transport.
    pub(crate) connections: BTreeMap<String, u64>,
    /// Connections that ended, by what the client knows of it.
    pub(crate) lost: BTreeMap<String, u64>,
    /// By reason.
    pub(crate) resyncs: BTreeMap<String, u64>,
    /// By code.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Changes that a subscription missed, and was told so.
    pub(crate) skipped: u64,
    pub(crate) snapshot_rows: u64,
    /// How often what a client held was found to be what the table held.
    pub(crate) tables_compared: u64,
}

/// What is the same for every subscription.
pub(crate) struct Checker<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) truth: &'a Truth,
    pub(crate) done: &'a [Done],
    pub(crate) findings: Findings,
    /// What each cursor stands for, by all who were told it: a transaction, a change in it.
    cursors: HashMap<String, (usize, usize)>,
    /// The other way round.
    names: HashMap<(usize, usize), String>,
    /// What clients held, to be compared when all of it is known.
    comparisons: Vec<Comparison<'a>>,
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
    /// Whether one of its last rows came.
    ended: bool,
    /// Whether it was asked for without a cursor.
    wants: bool,
    /// Whether what it does not see was announced by a `resync`.
    missed: bool,
    /// Where memberships let it see other rows; empty where Postgres is asked.
    shifts: Shifts,
    /// What it holds, where it began with a snapshot.
    held: Option<Held>,
    /// Where it is throttled.
    throttled: Option<Throttled>,
}

impl Follower<'_> {
    /// All that it held is void.
    fn begin_snapshot(&mut self, at: Instant) {
        let least = self.next.unwrap_or(self.least);
        (self.next, self.least, self.held) = (None, least, Some(Held::new(at)));
    }
}

impl<'a> Checker<'a> {
    pub(crate) fn new(plan: &'a Plan, truth: &'a Truth, done: &'a [Done]) -> Checker<'a> {
        let findings = Findings { violations: truth.flaws.clone(), ..Findings::default() };
        let (cursors, names, comparisons) = (HashMap::new(), HashMap::new(), Vec::new());
        Checker { plan, truth, done, findings, cursors, names, comparisons }
    }

    /// Checks one client's log.
    pub(crate) fn client(&mut self, number: usize, log: &[Entry]) {
        let plan = self.plan;
        let client = &plan.clients[number];
        let beginning = log.first().map_or_else(Instant::now, |entry| entry.at);
        let mut followers: Vec<Follower<'a>> = client
            .watches
            .iter()
            .map(|watch| (watch, due(watch, self.truth)))
            .map(|(watch, (due, shifts))| Follower {
                watch,
                throttled: watch.throttle_ms.map(|_| Throttled::new(self.truth, &due)),
                shifts: Shifts::new(if guard::is_asked(watch.table) { Vec::new() } else { shifts }),
                due,
                next: None,
                least: 0,
                since: beginning,
                proven_at: beginning,
                proven: 0,
                told: 0,
                ended: false,
                wants: true,
                missed: false,
                held: None,
            })
            .collect();
        for entry in log {
            match &entry.seen {
                Seen::Connected(transport) => {
                    *self.findings.connections.entry((*transport).to_owned()).or_default() += 1;
                    for throttled in followers.iter_mut().filter_map(|it| it.throttled.as_mut()) {
                        throttled.connect(transport);
                    }
                }
                Seen::Asked { watch, since } => {
                    let follower = &mut followers[*watch];
                    if let Some(throttled) = &mut follower.throttled {
                        throttled.ask();
                    }
                    follower.wants = since.is_none();
                    if follower.wants && follower.watch.snapshot {
                        follower.begin_snapshot(entry.at);
                    }
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
                Seen::Lost(why) => self.lost(number, entry.at, why),
            }
        }
        let end = log.last().map_or(beginning, |entry| entry.at);
        for follower in &mut followers {
            self.findings.shifts += follower.shifts.count_all();
            if let Some(transaction) = follower.shifts.left(self.truth, end) {
                self.untold(follower, transaction);
            }
            self.end(follower);
        }
    }

    /// Counts a connection that ended. A request that nobody answered must have had a cause.
    fn lost(&mut self, number: usize, at: Instant, why: &str) {
        let kind = why.split([':', '{', '(']).next().unwrap_or(why).trim();
        *self.findings.lost.entry(kind.to_owned()).or_default() += 1;
        if why == UNANSWERED {
            let asked_at = at - UNANSWERED_AFTER - AFTERMATH;
            let excused = |done: &Done| done.began_at <= at && done.ended_at >= asked_at;
            if !self.done.iter().any(excused) {
                let text = format!("client {number}: {UNANSWERED}, though nothing was wrong");
                self.findings.violations.push(text);
            }
        }
    }

    fn frame(&mut self, follower: &mut Follower<'a>, at: Instant, frame: &Value) {
        let kind = frame["type"].as_str().unwrap();
        follower.ended |= kind == "row" && frame["new"]["chain"] == *follower.watch.end();
        if let Some(identity) = follower.watch.identity.filter(|_| kind == "row") {
            let of = format!("{} to {}", follower.watch.table, identity.role);
            *self.findings.guarded.entry(of).or_default() += 1;
        }
        match kind {
            "subscribed" if follower.wants => {
                // It has nothing yet, so nothing is known but when it began.
                (follower.next, follower.since, follower.proven_at) = (None, at, at);
                (follower.least, follower.missed) = (0, false);
                follower.shifts.tell(self.truth, at);
            }
            "row" if follower.throttled.is_some() => self.throttled_row(follower, at, frame),
            "row" => {
                let is_known = follower.held.as_ref().is_none_or(|held| held.synced);
                if is_known {
                    self.row(follower, at, frame);
                } else {
                    self.early(follower, at, frame);
                }
                let asked_at = follower.held.as_ref().map_or(at, |held| held.asked_at);
                let wrong = follower.held.as_mut().and_then(|held| held.take(frame));
                if let Some(wrong) = wrong
                    && !self.was_unpublished(follower)
                    && !follower.shifts.was_between(self.truth, asked_at, at)
                {
                    self.violation(follower, &format!("{wrong}: {frame}"));
                }
            }
            "synced" => {
                if let Some(held) = &mut follower.held {
                    held.synced = true;
                }
            }
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
                follower.missed = true;
                follower.shifts.tell(self.truth, at);
                (follower.next, follower.since, follower.proven_at) = (None, at, at);
                if frame.get("cursor").is_none() {
                    follower.begin_snapshot(at);
                }
            }
            "error" => {
                let code = frame["code"].as_str().unwrap().to_owned();
                let lawful = match code.as_str() {
                    "unknown_table" => self.near(at, |fault| fault == Fault::TableUnpublished),
                    "snapshot_overtaken" => self.plan.profile.tight,
                    "snapshot_failed" | "snapshot_timeout" | "snapshot_busy" => {
                        self.near(at, Fault::delays_answers)
                    }
                    _ => false,
                };
                if !lawful {
                    self.violation(follower, &format!("refused: {frame}"));
                }
                *self.findings.refusals.entry(code).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Whether rows were written that no stream tells, since what is held was asked for.
    fn was_unpublished(&self, follower: &Follower<'_>) -> bool {
        let Some(held) = &follower.held else { return false };
        let early = held.asked_at.checked_sub(Duration::from_secs(2)).unwrap_or(held.asked_at);
        let late = |it: &&Transaction| it.sent_at.is_some_and(|sent_at| sent_at > early);
        let mut changes = self.truth.transactions.iter().filter(late).flat_map(|it| &it.changes);
        changes.any(|change| !change.published && &*change.table == follower.watch.table)
    }

    fn row(&mut self, follower: &mut Follower<'a>, at: Instant, frame: &Value) {
        self.findings.deliveries += 1;
        let found = match follower.next {
            Some(next) => self.next_of(follower, next, at, frame).or_else(|| {
                let found = self.find(follower, 0, at, frame);
                let what = self.tell_what(follower, next, found, frame);
                self.violation(follower, &what);
                found
            }),
            None => {
                let found = self.find(follower, follower.least, at, frame);
                match found {
                    None => {
                        let what = self.tell_what(follower, follower.least, None, frame);
                        self.violation(follower, &what);
                    }
                    Some(found) => self.skip(follower, found, at),
                }
                if let (Some(found), Some(held)) = (found, &follower.held)
                    && !follower.shifts.was_between(self.truth, held.asked_at, at)
                {
                    let before = Some(follower.due[found]);
                    self.comparisons.push(held.compare(follower.watch, before));
                }
                found
            }
        };
        let Some(found) = found else { return };
        let Due { transaction, change, .. } = follower.due[found];
        let is_other = |due: &Due| (due.transaction, due.change) != (transaction, change);
        let next = follower.due[found..].iter().position(is_other);
        follower.next = Some(next.map_or(follower.due.len(), |next| found + next));
        follower.proven = transaction;
        if !follower.shifts.pass(transaction, at) {
            self.untold(follower, transaction);
        }
        follower.proven_at = self.truth.transactions[transaction].sent_at.unwrap_or(at);
        let cursor = frame["cursor"].as_str().unwrap().to_owned();
        let place = (transaction, change);
        let is_one = *self.cursors.entry(cursor.clone()).or_insert(place) == place;
        let has_one = *self.names.entry(place).or_insert_with(|| cursor.clone()) == cursor;
        if !(is_one && has_one) {
            self.violation(follower, &format!("not the cursor of this change for all: {frame}"));
        }
    }

    /// A row of a throttled subscription.
    fn throttled_row(&mut self, follower: &mut Follower<'a>, at: Instant, frame: &Value) {
        self.findings.deliveries += 1;
        let Some(mut throttled) = follower.throttled.take() else { return };
        let mut places = throttled.places(frame["commit_ts"].as_str().unwrap()).iter().copied();
        match places.find(|place| self.is(follower, *place, at, frame)) {
            None => {
                let what = format!("not to be seen: {frame}");
                self.violation(follower, &what);
            }
            Some(place) => {
                if !throttled.take(self.truth, &follower.due, place) {
                    self.violation(follower, &format!("again, or after something newer: {frame}"));
                }
                let Due { transaction, .. } = follower.due[place];
                follower.proven = transaction;
                follower.proven_at = self.truth.transactions[transaction].sent_at.unwrap_or(at);
            }
        }
        follower.throttled = Some(throttled);
    }

    /// The last of each row must have come, of what was committed since there was an answer, or
    /// since the last `resync`.
    fn throttled_end(&mut self, follower: &mut Follower<'a>) {
        let Some(throttled) = &follower.throttled else { return };
        let late = |due: &Due| {
            let sent_at = self.truth.transactions[due.transaction].sent_at;
            sent_at.is_some_and(|sent_at| sent_at > follower.since)
        };
        // Commits that were sent in one order may be in the log in another one.
        let from = follower.due.iter().rposition(|due| !late(due)).map_or(0, |place| place + 1);
        let missing = throttled.missing(self.truth, &follower.due, from);
        if let Some(first) = missing.iter().min() {
            let shown = self.show(follower, follower.due[*first]);
            let what = format!("the last of {} rows never came; first {shown}", missing.len());
            self.violation(follower, &what);
        }
    }

    /// A row of a snapshot, or a change that comes with it because it did not see it.
    fn early(&mut self, follower: &mut Follower<'a>, at: Instant, frame: &Value) {
        self.findings.deliveries += 1;
        if frame.get("cursor").is_some() {
            self.violation(follower, &format!("a cursor before `synced`: {frame}"));
        }
        if frame["op"] == "snapshot" {
            self.findings.snapshot_rows += 1;
            return;
        }
        let least = follower.held.as_ref().map_or(0, |held| held.least);
        let found = self.find(follower, least, at, frame);
        match (found, &mut follower.held) {
            (Some(found), Some(held)) => held.least = found + 1,
            _ => {
                let what = self.tell_what(follower, least, None, frame);
                self.violation(follower, &what);
            }
        }
    }

    /// A run begins at `found`: what lies before it may be missing where that was said, or where it
    /// was committed before there was an answer.
    fn skip(&mut self, follower: &mut Follower<'a>, found: usize, at: Instant) {
        // What came with a snapshot is compared as a whole.
        if follower.held.is_some() {
            return;
        }
        let skipped = follower.due[follower.least..found].to_vec();
        if follower.missed {
            self.findings.skipped += u64::try_from(skipped.len()).unwrap();
        }
        let Due { transaction, change, .. } = follower.due[found];
        let late = skipped.iter().find(|due| {
            if (due.transaction, due.change) == (transaction, change) {
                return false;
            }
            let sent_at = self.truth.transactions[due.transaction].sent_at;
            let is_late = sent_at.is_some_and(|sent_at| sent_at > follower.since);
            is_late && !self.may_be_hidden(follower.watch, **due, at)
        });
        if let Some(late) = late {
            let shown = self.show(follower, *late);
            self.violation(follower, &format!("missing after it was told that all comes: {shown}"));
        }
    }

    /// A log has ended: a last row must have come.
    fn end(&mut self, follower: &mut Follower<'a>) {
        let due = follower.next.and_then(|next| follower.due.get(next)).copied();
        if !follower.ended {
            let due = due.map(|due| self.show(follower, due));
            let what = format!("no last row came; next would be {due:?}");
            return self.violation(follower, &what);
        }
        if follower.throttled.is_some() {
            return self.throttled_end(follower);
        }
        if let Some(held) = follower.held.as_ref().filter(|held| held.synced) {
            self.comparisons.push(held.compare(follower.watch, due));
        }
    }

    /// Compares what clients held, and gives everything that was found.
    pub(crate) fn end_all(mut self) -> Findings {
        let (wrong, alike) = held::compare_all(self.truth, self.comparisons);
        self.findings.violations.extend(wrong);
        self.findings.tables_compared = alike;
        self.findings
    }

    /// Whether a reason for a `resync` can be true.
    fn is_lawful(&self, reason: &str, follower: &mut Follower<'_>, at: Instant) -> bool {
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
            "scope_entered" | "scope_left" | "scope_changed" => {
                follower.shifts.count(self.truth, at)
            }
            "state_unknown" => {
                let started = |fault| {
                    matches!(
                        fault,
                        Fault::WalcastKilled | Fault::WalcastDrained | Fault::SlotDropped
                    )
                };
                let member = guard::member(follower.watch.table, follower.watch.identity);
                member.is_some() && self.near(at, started)
            }
            "undecided" => guard::is_asked(follower.watch.table),
            "schema_changed" | "restarted" => {
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
    fn near(&self, at: Instant, of: impl Fn(Fault) -> bool) -> bool {
        let after = Duration::from_secs(15);
        let mut done = self.done.iter().filter(|done| of(done.fault));
        done.any(|done| done.began_at <= at && at <= done.ended_at + after)
    }

    /// Whether a frame is what was due at a place, by a policy that may count when it came.
    fn is(&self, follower: &Follower<'_>, place: usize, at: Instant, frame: &Value) -> bool {
        let Follower { watch, due, .. } = follower;
        let due = due.get(place);
        due.is_some_and(|due| {
            self.matches(watch, *due, frame) && due.by & self.in_force(watch, *due, at) != 0
        })
    }

    fn find(
        &self,
        follower: &Follower<'_>,
        from: usize,
        at: Instant,
        frame: &Value,
    ) -> Option<usize> {
        (from..follower.due.len()).find(|place| self.is(follower, *place, at, frame))
    }

    /// Where a frame is due next; between are only changes that a later policy may have hidden.
    fn next_of(
        &self,
        follower: &Follower<'_>,
        next: usize,
        at: Instant,
        frame: &Value,
    ) -> Option<usize> {
        let mut place = next;
        while let Some(due) = follower.due.get(place) {
            // By different policies one change may be different things.
            let same = |it: &&Due| (it.transaction, it.change) == (due.transaction, due.change);
            let end = place + follower.due[place..].iter().take_while(same).count();
            if let Some(found) = (place..end).find(|place| self.is(follower, *place, at, frame)) {
                return Some(found);
            }
            if !self.may_be_hidden(follower.watch, *due, at) {
                return None;
            }
            place = end;
        }
        None
    }

    /// The policies that a change may be judged by, for a frame that comes at a moment: a bit each.
    fn in_force(&self, watch: &Watch, due: Due, at: Instant) -> u64 {
        if guard::is_altered(watch.table, watch.identity) {
            self.truth.policies_until(due.transaction, at)
        } else {
            1 << self.truth.policy_at(due.transaction)
        }
    }

    /// Whether by one of these policies nothing of the change is seen.
    fn may_be_hidden(&self, watch: &Watch, due: Due, at: Instant) -> bool {
        self.in_force(watch, due, at) & !due.seen_by != 0
    }

    /// It sees other rows since a transaction, or one before it, and was not told.
    fn untold(&mut self, follower: &mut Follower<'a>, transaction: usize) {
        let lsn = self.truth.transactions[transaction].end_lsn;
        let what = format!("not told of other memberships, at {lsn:x} or before");
        self.violation(follower, &what);
    }

    fn matches(&self, watch: &Watch, due: Due, frame: &Value) -> bool {
        let transaction = &self.truth.transactions[due.transaction];
        frame["op"] == due.op
            && frame["commit_ts"] == *transaction.committed_at
            && is_about(&transaction.changes[due.change], due, frame)
            && *frame == frame_of(self.truth, watch, due, frame)
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
        let frame = frame_of(self.truth, follower.watch, due, &Value::Null);
        let (lsn, changes) = (transaction.end_lsn, transaction.changes.len());
        format!("change {} of {changes} of the transaction at {lsn:x}: {frame}", due.change)
    }

    fn violation(&mut self, follower: &mut Follower<'a>, what: &str) {
        follower.told += 1;
        if follower.told <= TOLD_MAX {
            let what: String = what.chars().take(1500).collect();
            let Watch { name, table, filter, .. } = follower.watch;
            self.findings.violations.push(format!("{name} on {table} ({}): {what}", filter.sql()));
        }
    }
}

/// Whether a frame is about the row of a change: much cheaper to see than whether it is the frame.
fn is_about(change: &Change, due: Due, frame: &Value) -> bool {
    let is_gone = due.op == "leave" || due.op == "delete";
    let (row, shown) =
        if is_gone { (&change.old, &frame["old"]) } else { (&change.new, &frame["new"]) };
    let row = row.as_ref().or(change.new.as_ref());
    row.is_none_or(|row| truth::text(row, "id") == Some(shown["id"].to_string()))
}

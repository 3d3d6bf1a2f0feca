//! Who sees what: the rings, matching, and rows asked of Postgres.

use std::time::Duration;

use crate::metrics::Metrics;
use crate::metrics::family::Family;
use crate::metrics::family::Samples;
use crate::metrics::family::Value;
use crate::metrics::family::counter;
use crate::metrics::family::gauge;
use crate::metrics::family::histogram;
use crate::metrics::shard::ShardMeter;

pub(super) const FAMILIES: &[Family] = &[
    gauge(
        ("walcast_ring_bytes", "bytes"),
        &["shard"],
        "Memory of the transactions in a shard's ring. The shards' rings share them.",
        |it, out| by_shard(it, out, |shard| Value::Whole(shard.ring.bytes.get())),
    ),
    gauge(
        ("walcast_ring_transactions", ""),
        &["shard"],
        "Transactions in a shard's ring, and parts of large ones.",
        |it, out| by_shard(it, out, |shard| Value::Whole(shard.ring.transactions.get())),
    ),
    gauge(
        ("walcast_ring_tail_age_seconds", "seconds"),
        &["shard"],
        "How long ago the oldest transaction in the ring came: for how long a client may be away and miss nothing.",
        |it, out| {
            let age = |shard: &ShardMeter| Duration::from_millis(shard.ring.tail_age_ms.get());
            by_shard(it, out, |shard| Value::Time(age(shard)));
        },
    ),
    counter(
        ("walcast_route_passes", ""),
        &["shard"],
        "Passes that had something to match: each is at most one write to each session.",
        |it, out| by_shard(it, out, |shard| Value::Whole(shard.passes.get())),
    ),
    counter(
        ("walcast_route_changes", ""),
        &[],
        "Changes of tables that somebody is subscribed to, counted by each shard.",
        |it, out| out.whole(it.sum(|shard| shard.matched.get())),
    ),
    counter(
        ("walcast_route_candidates", ""),
        &[],
        "Groups of equal subscriptions for which changes had to be decided: what the index left.",
        |it, out| out.whole(it.sum(|shard| shard.candidates.get())),
    ),
    counter(
        ("walcast_route_shown", ""),
        &[],
        "Groups that saw them: rule and policy let the row through.",
        |it, out| out.whole(it.sum(|shard| shard.shown.get())),
    ),
    counter(
        ("walcast_route_undecided", ""),
        &[],
        "Changes that were not delivered to a group because the log does not hold what its rule reads (see REPLICA IDENTITY).",
        |it, out| out.whole(it.sum(|shard| shard.undecided.get())),
    ),
    counter(
        ("walcast_route_referenced", ""),
        &[],
        "Rows told as a reference with their key, because they are larger than a frame may be.",
        |it, out| out.whole(it.sum(|shard| shard.referenced.get())),
    ),
    gauge(
        ("walcast_route_groups", ""),
        &[],
        "Groups of equal subscriptions, of all shards.",
        |it, out| out.whole(it.sum(|shard| shard.crowd.groups.get())),
    ),
    gauge(("walcast_route_subscriptions", ""), &[], "Subscriptions of all sessions.", |it, out| {
        out.whole(it.sum(|shard| shard.crowd.subscriptions.get()));
    }),
    gauge(
        ("walcast_route_paused_subscriptions", ""),
        &[],
        "Subscriptions that their clients let rest.",
        |it, out| out.whole(it.sum(|shard| shard.crowd.paused.get())),
    ),
    counter(
        ("walcast_refused", ""),
        &["code"],
        "Subscriptions, connections and requests that were refused or ended by an error, by its code.",
        |it, out| out.by(it.refused.get()),
    ),
    counter(
        ("walcast_resyncs", ""),
        &["reason"],
        "Subscriptions that were told that they missed changes, by the reason.",
        |it, out| out.by(it.resynced.get()),
    ),
    counter(
        ("walcast_snapshot_queries", ""),
        &[],
        "Queries for the rows that a subscription begins with.",
        |it, out| out.whole(it.snapshots.asked.get()),
    ),
    counter(
        ("walcast_snapshot_shared", ""),
        &[],
        "Snapshots whose rows an equal question of somebody else brings.",
        |it, out| out.whole(it.snapshots.shared.get()),
    ),
    counter(("walcast_snapshot_rows", ""), &[], "Rows that queries brought.", |it, out| {
        out.whole(it.snapshots.rows.get());
    }),
    counter(
        ("walcast_snapshot_failures", ""),
        &["reason"],
        "Queries that brought nothing, by the reason.",
        |it, out| out.by(it.snapshots.failed.get()),
    ),
    gauge(
        ("walcast_snapshot_waiting", ""),
        &[],
        "Questions that wait for a connection.",
        |it, out| out.whole(it.snapshots.waiting.get()),
    ),
    gauge(
        ("walcast_snapshot_running", ""),
        &[],
        "Questions that Postgres is answering.",
        |it, out| out.whole(it.snapshots.running.get()),
    ),
    histogram(
        "walcast_snapshot_duration_seconds",
        "How long Postgres took for an answer, the wait for a connection not included.",
        |it, out| out.buckets(it.snapshots.duration.read()),
    ),
    counter(
        ("walcast_verdict_inquiries", ""),
        &[],
        "Round trips in which Postgres was asked who may see changes: policies that are not decided in process.",
        |it, out| out.whole(it.verdicts.asked.get()),
    ),
    counter(
        ("walcast_verdict_questions", ""),
        &[],
        "Questions in them: one for each role with its claims.",
        |it, out| out.whole(it.verdicts.questions.get()),
    ),
    counter(
        ("walcast_verdict_images", ""),
        &[],
        "Rows that were judged in them, each for one role with its claims.",
        |it, out| out.whole(it.verdicts.words.get()),
    ),
    counter(
        ("walcast_verdict_shared", ""),
        &[],
        "Rows that an equal one stood for: equal in what the policies read.",
        |it, out| out.whole(it.verdicts.shared.get()),
    ),
    counter(
        ("walcast_verdict_memo_hits", ""),
        &[],
        "Rows that did not have to be judged again: Postgres had said it for the same role and claims, and nothing has changed since that matters.",
        |it, out| out.whole(it.verdicts.memo_hits.get()),
    ),
    counter(
        ("walcast_verdict_memo_misses", ""),
        &[],
        "Rows that had to be judged because nothing was kept of them, where answers are kept.",
        |it, out| out.whole(it.verdicts.memo_misses.get()),
    ),
    counter(
        ("walcast_verdict_memo_evictions", ""),
        &[],
        "Answers that made room for others: `rls.memo_bytes_max`.",
        |it, out| out.whole(it.verdicts.memo_evictions.get()),
    ),
    counter(
        ("walcast_verdict_changes", ""),
        &[],
        "Changes that waited for an answer, each counted for each of its subscriptions.",
        |it, out| out.whole(it.verdicts.changes.get()),
    ),
    counter(
        ("walcast_verdict_errors", ""),
        &[],
        "Questions to which a policy raised an error: nothing of the rows that raise it is shown.",
        |it, out| out.whole(it.verdicts.errors.get()),
    ),
    counter(
        ("walcast_verdict_failures", ""),
        &["reason"],
        "Round trips without an answer, by the reason.",
        |it, out| out.by(it.verdicts.failed.get()),
    ),
    gauge(
        ("walcast_verdict_waiting", ""),
        &[],
        "Inquiries that wait for a connection, or for their turn by `rls.questions_per_second`.",
        |it, out| out.whole(it.verdicts.waiting.get()),
    ),
    histogram(
        "walcast_verdict_duration_seconds",
        "How long Postgres took for a round trip.",
        |it, out| out.buckets(it.verdicts.duration.read()),
    ),
];

/// A value of each shard.
pub(super) fn by_shard(metrics: &Metrics, out: &mut Samples, of: impl Fn(&ShardMeter) -> Value) {
    for (number, shard) in metrics.shards().iter().enumerate() {
        out.labelled([number.to_string()], of(shard));
    }
}

//! Out to the clients: frames, outboxes, sessions.

use crate::metrics::family::Family;
use crate::metrics::family::Value;
use crate::metrics::family::counter;
use crate::metrics::family::gauge;
use crate::metrics::family::histogram;
use crate::metrics::instrument::Reading;
use crate::metrics::shard::sessions_of;
use crate::metrics::table::routing::by_shard;

pub(super) const FAMILIES: &[Family] = &[
    counter(
        ("walcast_delivery_frames", ""),
        &["shard"],
        "Row frames that went into outboxes: one for each session that gets the row.",
        |it, out| by_shard(it, out, |shard| Value::Whole(shard.frames.get())),
    ),
    counter(
        ("walcast_delivery_written_bytes", "bytes"),
        &["shard"],
        "Bytes that clients' sockets took, of all kinds of frames.",
        |it, out| by_shard(it, out, |shard| Value::Whole(shard.written_bytes.get())),
    ),
    counter(
        ("walcast_delivery_writes", ""),
        &["shard"],
        "Calls that wrote to clients' sockets. Fewer than frames where the machine is busy.",
        |it, out| by_shard(it, out, |shard| Value::Whole(shard.writes.get())),
    ),
    histogram(
        "walcast_delivery_commit_to_socket_seconds",
        "From a commit, by the server's clock, to the end of the pass that wrote it to those who are live: one observation for each row frame. Those who are behind are not in it.",
        |it, out| {
            let mut all = Reading::default();
            for shard in it.shards() {
                shard.commit_to_socket.read_into(&mut all);
            }
            out.buckets(all);
        },
    ),
    gauge(
        ("walcast_outbox_bytes", "bytes"),
        &[],
        "Bytes that wait for all sockets together.",
        |it, out| out.len(it.outbox_bytes()),
    ),
    gauge(
        ("walcast_outbox_budget_bytes", "bytes"),
        &[],
        "How many may: limits.outbox_total_bytes_max.",
        |it, out| out.whole(it.outbox_budget_bytes.get()),
    ),
    counter(
        ("walcast_outbox_fell_behind", ""),
        &[],
        "Sessions whose outbox was full, so that they went on from the ring.",
        |it, out| out.whole(it.fell_behind.get()),
    ),
    counter(
        ("walcast_throttle_conflated_frames", ""),
        &[],
        "Frames that a throttle dropped because a newer one took their place.",
        |it, out| out.whole(it.sum(|shard| shard.conflated.get())),
    ),
    counter(
        ("walcast_throttle_hurried_keys", ""),
        &[],
        "Keys that a throttle let go before their time, because too much was held.",
        |it, out| out.whole(it.sum(|shard| shard.hurried.get())),
    ),
    counter(
        ("walcast_subscriptions_paused", ""),
        &[],
        "Times that a client let a subscription rest.",
        |it, out| out.whole(it.paused.get()),
    ),
    gauge(
        ("walcast_sessions", ""),
        &["dialect"],
        "Sessions by what they speak: `native` over WebSocket, `events` and `changes` over HTTP.",
        |it, out| {
            let shards = it.shards();
            out.by(sessions_of(shards.iter().map(|shard| &**shard)));
        },
    ),
    gauge(
        ("walcast_sessions_behind", ""),
        &[],
        "Sessions that read the ring, because they were slow or came with a cursor.",
        |it, out| out.whole(it.behind()),
    ),
    counter(("walcast_sessions_opened", ""), &[], "Sessions that began.", |it, out| {
        out.whole(it.sessions_opened.get());
    }),
];

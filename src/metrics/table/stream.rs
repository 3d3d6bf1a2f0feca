//! From Postgres: the stream, the slot, the catalogue.

use std::time::Duration;
use std::time::SystemTime;

use crate::metrics::family::Family;
use crate::metrics::family::counter;
use crate::metrics::family::gauge;
use crate::metrics::ingest::STATES;

pub(super) const FAMILIES: &[Family] = &[
    gauge(
        ("walcast_ingest_state", ""),
        &["state"],
        "1 for the state that the stream from Postgres is in, 0 for the others.",
        |it, out| {
            let now = it.ingest.state();
            out.by(STATES.map(|state| (state, u64::from(state == now))));
        },
    ),
    counter(
        ("walcast_ingest_received_bytes", "bytes"),
        &[],
        "Bytes of messages that came from the slot.",
        |it, out| out.whole(it.ingest.bytes.get()),
    ),
    counter(
        ("walcast_ingest_messages", ""),
        &[],
        "Messages that came from the slot, keepalives included.",
        |it, out| out.whole(it.ingest.messages.get()),
    ),
    counter(
        ("walcast_ingest_transactions", ""),
        &[],
        "Transactions that were handed to the shards.",
        |it, out| out.whole(it.ingest.transactions.get()),
    ),
    counter(
        ("walcast_ingest_changes", ""),
        &[],
        "Row changes that were handed to the shards.",
        |it, out| out.whole(it.ingest.changes.get()),
    ),
    counter(
        ("walcast_ingest_repeated_transactions", ""),
        &[],
        "Transactions that came again after a reconnect and were dropped.",
        |it, out| out.whole(it.ingest.repeated.get()),
    ),
    counter(
        ("walcast_ingest_connections", ""),
        &[],
        "Connections to Postgres that began to stream.",
        |it, out| out.whole(it.ingest.connections.get()),
    ),
    counter(
        ("walcast_ingest_interruptions", ""),
        &[],
        "Times that the stream, or an attempt to begin it, failed and was tried again.",
        |it, out| out.whole(it.ingest.interruptions.get()),
    ),
    gauge(
        ("walcast_ingest_in_flight_bytes", "bytes"),
        &[],
        "Memory of transactions that not every shard has routed. At 64 MiB nothing more is read.",
        |it, out| out.whole(it.ingest.in_flight_bytes.get()),
    ),
    gauge(
        ("walcast_ingest_lag_bytes", "bytes"),
        &[],
        "Log that was received and is not yet routed by every shard.",
        |it, out| out.whole(it.ingest.lag_bytes()),
    ),
    gauge(
        ("walcast_ingest_lag_seconds", "seconds"),
        &[],
        "How old the last transaction was when it came, by both machines' clocks; while nothing can come, growing.",
        |it, out| out.time(it.ingest.lag(SystemTime::now())),
    ),
    gauge(
        ("walcast_ingest_last_commit_timestamp_seconds", "seconds"),
        &[],
        "When the last transaction that came was committed, in seconds since 1970; 0 before the first.",
        |it, out| out.time(Duration::from_micros(it.ingest.committed_at_us.get())),
    ),
    gauge(
        ("walcast_slot_unconfirmed_bytes", "bytes"),
        &[],
        "Log that is routed and not yet confirmed: what the window holds back for clients that resume.",
        |it, out| out.whole(it.ingest.unconfirmed_bytes()),
    ),
    gauge(
        ("walcast_slot_window_bytes", "bytes"),
        &[],
        "How much log the window may hold back: the setting, or a quarter of what Postgres keeps for a slot where that is less.",
        |it, out| out.whole(it.ingest.window_bytes.get()),
    ),
    gauge(
        ("walcast_slot_retained_bytes", "bytes"),
        &[],
        "Log that Postgres keeps for the slot.",
        |it, out| out.whole(it.slot.retained_bytes.get()),
    ),
    gauge(
        ("walcast_slot_keep_bytes", "bytes"),
        &[],
        "How much it keeps before it gives the slot up (max_slot_wal_keep_size); 0 where it keeps all.",
        |it, out| out.whole(it.slot.keep_bytes.get()),
    ),
    gauge(
        ("walcast_slot_budget_bytes", "bytes"),
        &[],
        "How much it may keep before something is done about it: wal.budget_bytes, or its default.",
        |it, out| out.whole(it.slot.budget_bytes.get()),
    ),
    counter(
        ("walcast_slot_sheds", ""),
        &[],
        "Times that nothing was held back for clients any more, because the slot kept too much.",
        |it, out| out.whole(it.slot.sheds.get()),
    ),
    counter(
        ("walcast_slot_let_goes", ""),
        &[],
        "Times that the log was let go, so that every client had to start again.",
        |it, out| out.whole(it.slot.let_goes.get()),
    ),
    counter(("walcast_catalog_polls", ""), &[], "Looks at the catalogue.", |it, out| {
        out.whole(it.catalog.polls.get());
    }),
    counter(
        ("walcast_catalog_failures", ""),
        &[],
        "Looks at the catalogue that failed; what was read last counts on.",
        |it, out| out.whole(it.catalog.failures.get()),
    ),
    counter(
        ("walcast_catalog_fences", ""),
        &[],
        "Looks that a transaction was held back for, because it came after a change of a table or its rules.",
        |it, out| out.whole(it.catalog.fences.get()),
    ),
    gauge(
        ("walcast_replica_rows", ""),
        &[],
        "Rows of the tables that policies read, kept in memory.",
        |it, out| out.whole(it.replicas.rows.get()),
    ),
    gauge(
        ("walcast_replica_past_rows", ""),
        &[],
        "Versions of their rows that are kept for who looks back.",
        |it, out| out.whole(it.replicas.past_rows.get()),
    ),
    gauge(("walcast_replica_bytes", "bytes"), &[], "Their memory.", |it, out| {
        out.whole(it.replicas.bytes.get());
    }),
    gauge(
        ("walcast_replica_budget_bytes", "bytes"),
        &[],
        "How much memory they may take together (`replicas.bytes_max`); beyond it one is given up.",
        |it, out| out.whole(it.replicas.bytes_max.get()),
    ),
    gauge(
        ("walcast_replica_unheld", ""),
        &[],
        "Tables that policies read and that are not held: Postgres is asked instead, or it is refused.",
        |it, out| out.whole(it.replicas.unheld.get()),
    ),
    counter(("walcast_replica_loads", ""), &[], "Times that one of them was read.", |it, out| {
        out.whole(it.replicas.loads.get());
    }),
    counter(
        ("walcast_replica_failures", ""),
        &["reason"],
        "Times that one could not be read, or was dropped, by the reason.",
        |it, out| out.by(it.replicas.failures.get()),
    ),
    counter(
        ("walcast_replica_lookups", ""),
        &[],
        "Questions of policies for their rows.",
        |it, out| out.whole(it.replicas.lookups.get()),
    ),
];

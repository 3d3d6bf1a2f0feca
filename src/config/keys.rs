//! Every key of the configuration: its name, what may stand there, its default, what it is for.
//!
//! The reader checks values by this table, takes defaults from it and finds unknown keys with it;
//! `docs/configuration.md` and `systemd/walcast.toml` are compared with it by tests.

mod kind;
mod auth;
mod operate;
mod rls;

use std::sync::LazyLock;

pub use kind::{Key, Kind};

use crate::config::keys::kind::{GIB, KIB, MIB, bytes, count, key, seconds};

/// All keys, in the order of the example file.
pub static KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| [DELIVERY, auth::KEYS, LIMITS, rls::KEYS, operate::KEYS].concat());

/// Where changes come from and where clients do.
const DELIVERY: &[Key] = &[
    key(
        "database.url",
        Kind::Url,
        None,
        "Where the database is and as which role its log is read: `postgres://walcast@host:5432/app`, or `host=/run/postgresql user=walcast dbname=app`. The role needs REPLICATION. `sslmode` is libpq's, `verify-full` for a server that is not on this machine. No password here: see `password_file`. Required.",
    )
    .fixed(),
    key(
        "database.ask_url",
        Kind::Url,
        None,
        "As which role questions are asked (catalogue, snapshots): LOGIN, without REPLICATION and BYPASSRLS. Default: the same as `url`.",
    )
    .fixed(),
    key(
        "database.password_file",
        Kind::File,
        None,
        "The password for `url`; one line end after it is dropped. Default: none is sent (peer or trust authentication).",
    )
    .fixed(),
    key(
        "database.ask_password_file",
        Kind::File,
        None,
        "The password for `ask_url`. Default: the same as `password_file` where `ask_url` is not given.",
    )
    .fixed(),
    key(
        "database.tls_ca_file",
        Kind::File,
        None,
        "PEM certificates that the database's own must descend from. Default: those that the system trusts.",
    )
    .fixed(),
    key(
        "database.slot",
        Kind::Text,
        Some("walcast"),
        "The replication slot. One daemon at a time can read it.",
    )
    .fixed(),
    key(
        "database.publication",
        Kind::Text,
        Some("walcast"),
        "The publication whose tables are delivered. A DBA creates it (`sql/`).",
    )
    .fixed(),
    key(
        "database.create_slot",
        Kind::Boolean,
        Some("true"),
        "Whether the slot is created when it does not exist. With `false` the daemon stops and says so.",
    )
    .fixed(),
    key(
        "window.bytes",
        bytes(0, 1024 * GIB),
        Some("67108864"),
        "How much write-ahead log Postgres keeps for us beyond what was routed, so that clients can resume across a restart of the daemon.",
    ),
    key(
        "window.seconds",
        seconds(0, 86_400),
        Some("60"),
        "For how long at most it is kept. Whichever of the two is less holds.",
    ),
    key(
        "wal.warn_bytes",
        bytes(0, 1024 * GIB),
        Some("0"),
        "From how much log on, kept in Postgres because of the slot, it is warned. 0: half of the budget.",
    ),
    key(
        "wal.budget_bytes",
        bytes(0, 1024 * GIB),
        Some("0"),
        "How much log the slot should keep at most, the window included. From three quarters of it on nothing is held back for clients any more. 0: three quarters of `max_slot_wal_keep_size`; 10 GiB where that has no bound.",
    ),
    key(
        "wal.over_budget",
        Kind::Text,
        Some("keep"),
        "What is done beyond the budget. `keep`: the log is kept, as long as the disk lasts or Postgres gives the slot up. `let_go`: the slot is given up for a new one, the log becomes free, and every client is told to start again (`resync`).",
    ),
    key(
        "ring.bytes_max",
        bytes(MIB, 1024 * GIB),
        Some("134217728"),
        "How much memory recent transactions may take; all shards share it. A client that comes back with an older cursor has to start again (`resync`).",
    ),
    key(
        "ring.seconds_max",
        seconds(1, 86_400),
        Some("600"),
        "For how long they are kept. Whichever of the two is less holds.",
    ),
    key(
        "listen.address",
        Kind::Text,
        Some("127.0.0.1:4480"),
        "The address and port where clients connect. `[::]:4480` is every interface: use TLS then, here or in front.",
    )
    .fixed(),
    key(
        "listen.shards",
        count(0, 256, "shards"),
        Some("0"),
        "How many threads deliver. 0: one for each processor, but one on a machine with two.",
    )
    .fixed(),
    key(
        "listen.origins",
        Kind::Texts,
        Some(""),
        "Web pages of which other origins may connect, as browsers name them: `https://app.example.com`. `*` is all of them. Empty: pages of the daemon's own origin; those of others only over WebSocket and with a token.",
    ),
    key(
        "listen.tls_cert_file",
        Kind::File,
        None,
        "The certificate that clients are shown, and those that lead from it to an authority, in PEM. With it clients connect by TLS only (`wss://`, `https://`). Default: plain text, for a proxy that does TLS.",
    ),
    key(
        "listen.tls_key_file",
        Kind::File,
        None,
        "The certificate's private key, in PEM.",
    ),
    key(
        "listen.trusted_proxies",
        Kind::Texts,
        Some(""),
        "The addresses or networks (`10.0.0.0/8`, `::1`) of proxies in front of walcast. Only they are believed for whom they ask; a client's address is the last in the header that is none of theirs. Empty: a client's address is the one that it connects from.",
    ),
    key(
        "listen.forwarded_header",
        Kind::Text,
        Some("x-forwarded-for"),
        "In which header the trusted proxies say for whom they ask: `x-forwarded-for`, or `forwarded` (RFC 7239). The other one is not read. `proxy-protocol`: in no header, but by the PROXY protocol (version 1 or 2) before the first byte of each connection, without which a trusted proxy's connection is closed.",
    ),
    key(
        "admin.address",
        Kind::Text,
        Some("127.0.0.1:4481"),
        "The address and port where operators ask: `/metrics`, `/readyz`, `/healthz`. Nobody is asked for a name there, so it belongs on an address that only they reach. `off`: nowhere.",
    )
    .fixed(),
    key(
        "admin.metrics",
        Kind::Boolean,
        Some("true"),
        "Whether deliveries are counted and timed. `false` is for measuring what that costs.",
    )
    .fixed(),
];

/// What bounds clients, and everything else that concerns them.
const LIMITS: &[Key] = &[
    key(
        "limits.subscriptions_per_session",
        count(1, 100_000, "subscriptions"),
        Some("100"),
        "How many subscriptions one connection may have.",
    ),
    key(
        "limits.request_bytes_max",
        bytes(KIB, 16 * MIB),
        Some("65536"),
        "How large one request of a client may be. A larger one ends the connection.",
    ),
    key(
        "limits.outbox_bytes_max",
        bytes(16 * KIB, GIB),
        Some("1048576"),
        "How much may be queued for one client. One that is slower than that reads on from the ring at its own pace. What its throttled subscriptions hold back has the same bound once more.",
    ),
    key(
        "limits.frame_bytes_max",
        bytes(16 * KIB, 64 * MIB),
        Some("1048576"),
        "How large the frame of one row may be. A larger row goes out as a reference with its key, and a value larger than this is not even held in memory.",
    )
    .fixed(),
    key(
        "limits.outbox_total_bytes_max",
        bytes(MIB, 1024 * GIB),
        Some("268435456"),
        "How much may be queued for all clients together. Beyond it nothing is queued that can be read from the ring later: who is slow reads on in small steps, and its requests wait.",
    ),
    key(
        "limits.handshake_seconds",
        seconds(1, 300),
        Some("10"),
        "How long a client may take to connect and to show a token.",
    ),
    key(
        "limits.ping_seconds",
        seconds(1, 3600),
        Some("25"),
        "After how long without traffic a client is asked whether it is there.",
    ),
    key(
        "limits.silence_seconds",
        seconds(2, 7200),
        Some("45"),
        "After how long without a sign of life a connection is closed. More than `ping_seconds`.",
    ),
    key(
        "limits.connections",
        count(0, 10_000_000, "connections"),
        Some("0"),
        "How many connections there may be, of all clients together. 0: as many as the process may have file descriptors, less 64 for everything else.",
    ),
    key(
        "limits.connections_per_address",
        count(0, 10_000_000, "connections"),
        Some("1000"),
        "How many of them one address may have; in IPv6, one network of 64 bits. 0: no limit. Behind a proxy, name it in `listen.trusted_proxies`, or all clients have one address.",
    ),
    key(
        "limits.connections_per_subject",
        count(0, 10_000_000, "connections"),
        Some("100"),
        "How many sessions one subject (`sub` of the token) may have. 0: no limit.",
    ),
    key(
        "limits.handshakes_per_second_per_address",
        count(0, 1_000_000, "handshakes"),
        Some("200"),
        "How often a second one address may connect or send an HTTP request, in the long run; five times as many may come at once. 0: no limit.",
    ),
    key(
        "limits.rejected_tokens_per_minute",
        count(0, 1_000_000, "tokens"),
        Some("60"),
        "How many tokens one address may show a minute that are not believed. Beyond that none of its tokens is looked at for a while. Expired ones don't count. 0: no limit.",
    ),
    key(
        "limits.requests_per_second",
        count(0, 1_000_000, "requests"),
        Some("50"),
        "How many messages a second one session may send, in the long run. Who sends more is refused the rest, and closed where it goes on. 0: no limit.",
    ),
    key(
        "limits.requests_burst",
        count(1, 1_000_000, "requests"),
        Some("500"),
        "How many messages of one session may come at once. A client that comes back begins all of its subscriptions at once.",
    ),
    key(
        "snapshot.connections",
        count(1, 100, "connections"),
        Some("4"),
        "How many snapshots are read from the database at the same time, each on a connection of `ask_url`'s role.",
    ),
    key(
        "snapshot.waiting_max",
        count(0, 100_000, "questions"),
        Some("1000"),
        "How many more may wait for their turn, `timeout_seconds` long at the most. Equal ones count once.",
    ),
    key(
        "snapshot.rows_max",
        count(1, 10_000_000, "rows"),
        Some("10000"),
        "How many rows one snapshot may have.",
    ),
    key(
        "snapshot.bytes_max",
        bytes(64 * KIB, GIB),
        Some("16777216"),
        "How large the rows of one snapshot may be in memory.",
    )
    .fixed(),
    key(
        "snapshot.held_bytes_max",
        bytes(64 * KIB, 64 * GIB),
        Some("134217728"),
        "How much memory the rows of all snapshots may take that are being read from the database or were not yet taken by every client that asked for them.",
    )
    .fixed(),
    key(
        "snapshot.timeout_seconds",
        seconds(1, 60),
        Some("10"),
        "How long the database may take for one snapshot.",
    ),
    key(
        "drain.seconds",
        seconds(0, 300),
        Some("5"),
        "Over how long, at a stop, clients are asked to come back, one after the other; the others are served meanwhile. 0: all at once.",
    ),
    key(
        "table[].name",
        Kind::Text,
        None,
        "A table: `public.orders`, or `orders` in the schema public. Names stand as the catalogue has them; quotes are needed only around a dot. Required.",
    ),
    key(
        "table[].policy",
        Kind::Text,
        None,
        "Who sees which row: a SQL condition over the row and `claims`, such as `customer_id = (claims ->> 'sub')::bigint`.",
    ),
    key(
        "table[].open",
        Kind::Boolean,
        Some("false"),
        "Everybody who may read the table's columns sees all of its rows. Instead of `policy`.",
    ),
    key("table[].undecided", Kind::Text, None, "The table's own `rls.undecided`."),
];

/// The key of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that somebody who wrote `name` most likely meant.
#[must_use]
pub fn similar(name: &str) -> Option<&'static Key> {
    let leaf = |name: &'_ str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |key: &&'static Key| {
        let whole = strsim::jaro_winkler(name, key.name);
        let last = strsim::jaro_winkler(&leaf(name), &leaf(key.name));
        // A right name in the wrong section is likely meant, unless its own section has one near.
        let section = name.split('.').next() == key.name.split('.').next();
        let elsewhere = if last > 0.95 { last * 0.88 } else { 0.0 };
        if section { f64::midpoint(whole, last).max(elsewhere) } else { elsewhere }
    };
    let best = KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.8).then_some(best)
}

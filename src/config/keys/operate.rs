//! The operators' keys.

use crate::config::keys::kind::{Key, Kind, count, key, seconds};

/// Whom the operator's side lets in, and where; what it is told.
pub(super) const KEYS: &[Key] = &[
    key(
        "console.address",
        Kind::Text,
        None,
        "The address and port of the console over TCP, such as `127.0.0.1:4482`. Needs users. Default: none.",
    )
    .fixed(),
    key(
        "console.socket",
        Kind::Text,
        None,
        "The path of the console's Unix socket, such as `/run/walcast/.s.PGSQL.4482` (for `psql -h /run/walcast -p 4482`). The daemon's own user and root come in without a password. Default: none.",
    )
    .fixed(),
    key(
        "console.users_file",
        Kind::File,
        None,
        "Who may log in by a password: a line `\"name\" \"SCRAM-SHA-256$…\"` for each, as `rolpassword` of `pg_authid` has it. Default: nobody.",
    )
    .fixed(),
    key(
        "console.admin_users",
        Kind::Texts,
        Some(""),
        "Which of them may do everything.",
    )
    .fixed(),
    key(
        "console.stats_users",
        Kind::Texts,
        Some(""),
        "Which of them may see everything and change nothing.",
    )
    .fixed(),
    key(
        "console.tls_cert_file",
        Kind::File,
        None,
        "The certificate that the console shows over TCP, with those above it, in PEM. Default: no TLS.",
    )
    .fixed(),
    key("console.tls_key_file", Kind::File, None, "The certificate's key, in PEM.").fixed(),
    key(
        "console.connections_max",
        count(1, 1000, "connections"),
        Some("20"),
        "How many connections to the console there may be over TCP, and as many over the Unix socket.",
    )
    .fixed(),
    key(
        "console.login_seconds",
        seconds(1, 60),
        Some("10"),
        "How long a login may take.",
    )
    .fixed(),
    key(
        "console.idle_seconds",
        seconds(1, 604_800),
        Some("3600"),
        "After how long without a statement one of them is ended.",
    )
    .fixed(),
    key(
        "reload.watch",
        Kind::Boolean,
        Some("false"),
        "Whether the daemon reads its configuration again when a file of it changes: this one, or one in `conf.d`. A file that it names, such as a key's, is not watched. SIGHUP does the same when you say so.",
    )
    .fixed(),
    key(
        "otlp.endpoint",
        Kind::Text,
        None,
        "Where traces are sent, by OTLP over HTTP: `http://127.0.0.1:4318`, to which `/v1/traces` is added, or an address with its path. Only in a program that was built with the feature `otlp`. Default: nowhere.",
    )
    .fixed(),
    key(
        "log.level",
        Kind::Text,
        Some("info"),
        "What `walcast serve` logs: `error`, `warn`, `info`, `debug`, or per module (`info,walcast::ingest=debug`). `--log` and `WALCAST_LOG` go over it.",
    ),
];

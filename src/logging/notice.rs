//! The moments that an operator looks for: each has a code, which is logged as the field `code`,
//! and a message id, by which journald finds it and its explanation.
//!
//! ```text
//! journalctl MESSAGE_ID=…      systemd/walcast.catalog, for journalctl --catalog
//! ```
//!
//! # Invariants
//!
//! - A code and its id never change and are never used again: somebody's alert is written with
//!   them. The catalogue and docs/logging.md have each of them. (`tests/logging.rs`.)

/// The settings are good, and every stage begins.
pub const STARTED: &str = "started";
/// The ring has caught up with the log; clients are accepted.
pub const READY: &str = "ready";
/// It was told to stop, and asks its clients to come back.
pub const DRAINING: &str = "draining";
/// Every stage has ended.
pub const STOPPED: &str = "stopped";
/// Postgres does not answer at the start; it is tried again.
pub const WAITING: &str = "waiting";
/// A slot was made: nothing from before it can be delivered.
pub const SLOT_CREATED: &str = "slot_created";
/// Another process reads the slot; it is waited for.
pub const SLOT_BUSY: &str = "slot_busy";
/// Postgres gave the slot up, or somebody dropped it; another one is made, and every client must resync.
pub const SLOT_LOST: &str = "slot_lost";
/// No cursor from before is good any more: every client is told to read its rows again.
pub const RESYNC_ALL: &str = "resync_all";
/// The stream from Postgres broke off; it is tried again.
pub const INTERRUPTED: &str = "interrupted";
/// What is committed comes through: at the start, and again after an interruption.
pub const STREAMING: &str = "streaming";
/// Postgres keeps more log for the slot than it should, or will soon give it up.
pub const WAL_BUDGET: &str = "wal_budget";
/// A table that policies read is not held (any more); what depends on it is asked of Postgres or refused.
pub const TABLE_UNHELD: &str = "table_unheld";
/// Other settings count from now on; `changed` names them.
pub const RELOADED: &str = "reloaded";
/// The configuration that was read again has mistakes; the one before it goes on counting.
pub const RELOAD_FAILED: &str = "reload_failed";
/// A stage has made no progress for too long, although there is work; systemd is no longer told that all is well.
pub const STALLED: &str = "stalled";

/// A code and its message id.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    /// What the field `code` says.
    pub code: &'static str,
    /// What journald's field `MESSAGE_ID` says.
    pub id: &'static str,
}

/// All of them.
pub const NOTICES: &[Notice] = &[
    Notice { code: STARTED, id: "5fc380ced8b644fb82d0e06be51e5644" },
    Notice { code: READY, id: "d2ce2c4ac0f54bf596bece47db52ea0d" },
    Notice { code: DRAINING, id: "2f7498e5bb2240189d337c6ce3ea3313" },
    Notice { code: STOPPED, id: "09c690e769c6474da00c63d3ced97774" },
    Notice { code: WAITING, id: "9342eea0d9844961ad7fd69d42638521" },
    Notice { code: SLOT_CREATED, id: "4129292cfc9e4172bdb47603f2344059" },
    Notice { code: SLOT_BUSY, id: "27260c6678584ed1836f0d396facd487" },
    Notice { code: SLOT_LOST, id: "4e8d73c57be04d2f831e1cae455931ca" },
    Notice { code: RESYNC_ALL, id: "3d96f2335d80414eaaf6246b166f7869" },
    Notice { code: INTERRUPTED, id: "1c67b34dee04413d87b528b9e5fa534f" },
    Notice { code: STREAMING, id: "db398fcb366f4bf58d80003a2291537a" },
    Notice { code: WAL_BUDGET, id: "56d0864666614b4d8237a6af97a7326c" },
    Notice { code: TABLE_UNHELD, id: "1873297d8b874c5281cf55083e7c1a6d" },
    Notice { code: RELOADED, id: "b6f05655c46d4fae958127e54d23dd35" },
    Notice { code: RELOAD_FAILED, id: "f81bb46fc7a340e9b7921b0088d73153" },
    Notice { code: STALLED, id: "b18d581f06c246d9bef489709cb6420f" },
];

/// The message id of a code; absent where the code is not one of these.
#[must_use]
pub fn id_of(code: &str) -> Option<&'static str> {
    NOTICES.iter().find(|notice| notice.code == code).map(|notice| notice.id)
}

//! The keys of row-level security that is not decided in process.

use crate::config::keys::kind::{GIB, Key, Kind, MIB, bytes, count, key, seconds};

/// What becomes of policies that are not decided here.
pub(super) const KEYS: &[Key] = &[
    key(
        "rls.undecided",
        Kind::Text,
        Some("ask"),
        "What becomes of a table whose policies for a role are not decided in process. `ask`: Postgres is asked, change by change (docs/security.md says what that means). `refuse`: the subscription is refused.",
    ),
    key(
        "rls.search_path",
        Kind::Text,
        Some("public"),
        "Where functions that such policies call find what they name without a schema, unless they have a `search_path` of their own.",
    ),
    key("rls.connections", count(1, 100, "connections"), Some("2"), "How many connections ask."),
    key(
        "rls.questions_per_second",
        count(1, 1_000_000, "questions"),
        Some("5000"),
        "How many questions they ask in a second: one for each role with its claims, over up to 1024 rows. What waits for its turn is asked together; who falls behind the ring gets a `resync`.",
    ),
    key(
        "rls.timeout_seconds",
        seconds(1, 60),
        Some("2"),
        "How long the database may take for one of them.",
    ),
    key(
        "rls.memo_bytes_max",
        bytes(0, 64 * GIB),
        Some("67108864"),
        "How much memory answers take that hold until something changes, so that they are not asked for again (docs/security.md says which do). What was not of use for long goes first. 0: everything is asked each time.",
    ),
    key(
        "replicas.role",
        Kind::Text,
        None,
        "As which role the tables are read that policies read (docs/database.md): it needs SELECT on these columns, and BYPASSRLS or ownership where they have row-level security. The role of `database.ask_url` must be a member of it. Default: that role itself.",
    ),
    key(
        "replicas.bytes_max",
        bytes(MIB, 1024 * GIB),
        Some("1073741824"),
        "How much memory these tables may take together. Of what has grown beyond it, the table that has grown most is given up, and what does not fit is not held: what depends on it is asked of Postgres, or refused (docs/operate.md).",
    ),
];

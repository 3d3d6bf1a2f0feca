//! The keys of row-level security that is not decided in process.

use crate::config::keys::kind::{Key, Kind, count, key, seconds};

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
];

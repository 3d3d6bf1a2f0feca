//! What becomes of policies that are not decided in process.

use std::time::Duration;

use crate::ask::verdict;
use crate::config::read::Reader;
use crate::replica;
use crate::route::policy::Undecided;

/// Section `rls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSecurity {
    /// What becomes of tables that say nothing of their own.
    pub undecided: Undecided,
    /// Where functions that policies call find what they name.
    pub search_path: String,
    /// Memory of what Postgres has said, for all shards together.
    pub memo_bytes_max: usize,
}

pub(super) fn row_security(reader: &mut Reader) -> RowSecurity {
    let search_path = reader.text("rls.search_path").unwrap_or_default();
    if !search_path.split(',').all(is_schema) {
        let expected = "names of schemas with commas between them, as in public, app";
        reader.wrong::<()>("rls.search_path", expected);
    }
    RowSecurity {
        undecided: undecided(reader, "rls.undecided").unwrap_or_default(),
        search_path,
        memo_bytes_max: reader.size("rls.memo_bytes_max"),
    }
}

/// What may be asked of them.
pub(super) fn verdicts(reader: &mut Reader) -> verdict::Settings {
    let per_second = reader.integer("rls.questions_per_second");
    verdict::Settings {
        connections: reader.size("rls.connections"),
        per_second: u32::try_from(per_second).unwrap_or(u32::MAX),
        timeout: Duration::from_secs(reader.integer("rls.timeout_seconds")),
    }
}

/// Section `replicas`.
pub(super) fn replicas(reader: &mut Reader) -> replica::Settings {
    replica::Settings {
        role: reader.text("replicas.role").map(Into::into),
        bytes_max: reader.size("replicas.bytes_max"),
        ..replica::Settings::default()
    }
}

/// One of the two words, where the key is given.
pub(super) fn undecided(reader: &mut Reader, key: &str) -> Option<Undecided> {
    match reader.text(key).as_deref() {
        Some("ask") => Some(Undecided::Ask),
        Some("refuse") => Some(Undecided::Refuse),
        Some(_) => reader.wrong(key, "ask or refuse"),
        None => None,
    }
}

/// Whether a part of a path is a name, with or without quotes.
fn is_schema(part: &str) -> bool {
    let part = part.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$';
    match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
        Some(quoted) => !quoted.is_empty() && !quoted.contains('"'),
        None => !part.is_empty() && part.bytes().all(plain),
    }
}

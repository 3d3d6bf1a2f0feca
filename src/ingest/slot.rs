//! The replication slot: found or made, and told apart from everything that it is not.
//!
//! The slot is read again from where it was confirmed, so a slot that was made anew has a gap
//! behind it. Whoever asks compares [`Slot::confirmed_lsn`] with where it was.
//!
//! The publication must be there before the slot: changes are decoded with the catalogue of their
//! own time, and a publication that is younger than a change does not exist for it. Publications
//! are a DBA's to create; the slot is ours.
//!
//! Columns of `pg_replication_slots` are read by name: servers from 13 to 18 have different ones.

use std::fmt;
use std::str::FromStr;

use crate::change::lsn::Lsn;
use crate::ingest::walsender::AnswerRow;
use crate::ingest::walsender::Commands;
use crate::ingest::walsender::WalsenderError;

/// A replication slot's name: 1 to 63 of `a`-`z`, `0`-`9` and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotName(Box<str>);

/// A publication's name: 1 to 63 bytes, none of them zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationName(Box<str>);

/// The text can't be the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Of a slot.
    #[error("not a slot name (expected 1 to 63 lower-case letters, digits and underscores)")]
    Slot,
    /// Of a publication.
    #[error("not a publication name (expected 1 to 63 bytes)")]
    Publication,
}

/// What the slot must be like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name. Default `walcast`.
    pub name: SlotName,
    /// The publication whose tables are read. Default `walcast`.
    pub publication: PublicationName,
    /// Whether a missing slot is created, and one that Postgres gave up is replaced. Default yes:
    /// clients are told to resync, which is better than a daemon that is down. No, where a DBA
    /// makes the slots.
    pub create: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        let name = || "walcast".into();
        Settings { name: SlotName(name()), publication: PublicationName(name()), create: true }
    }
}

/// A slot that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Everything that ended after this position will be sent.
    pub confirmed_lsn: Lsn,
    /// Up to where the server's log is written: what is there now has to be caught up with.
    pub flushed_lsn: Lsn,
    /// How long the server waits for a status before it ends the connection; absent: for ever.
    pub sender_timeout_ms: Option<u64>,
    /// How much log Postgres keeps for a slot before it gives it up; absent: all.
    pub budget_bytes: Option<u64>,
    /// Whether it was made just now.
    pub created: bool,
}

/// Why the slot can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The server does not write what logical decoding needs.
    #[error("wal_level is {found}, not logical: set it in postgresql.conf and restart Postgres")]
    WalLevel {
        /// What it is.
        found: String,
    },
    /// The publication does not exist. It must be created before the slot.
    #[error("publication {name} does not exist in database {database}")]
    NoPublication {
        /// Its name.
        name: String,
        /// The database.
        database: String,
    },
    /// The slot does not exist and is not to be created.
    #[error("replication slot {name} does not exist, and create_slot is off")]
    Missing {
        /// Its name.
        name: String,
    },
    /// Somebody else reads it.
    #[error("replication slot {name} is in use by the process {pid} of the server")]
    Busy {
        /// Its name.
        name: String,
        /// The walsender of whoever reads it; `unknown` where the server does not say.
        pid: String,
    },
    /// Postgres has removed log that it needs. It can never be read again.
    #[error("replication slot {name} is lost: {reason}")]
    Lost {
        /// Its name.
        name: String,
        /// What Postgres says about it.
        reason: String,
    },
    /// The slot was made in another database.
    #[error("replication slot {name} belongs to database {found}, not {expected}")]
    OtherDatabase {
        /// Its name.
        name: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The slot is physical, or made for another output plugin.
    #[error("replication slot {name} is not a logical one for pgoutput, but for {found}")]
    OtherPlugin {
        /// Its name.
        name: String,
        /// Its plugin.
        found: String,
    },
    /// The server is a standby of a version that can't decode there; it may be promoted soon.
    #[error("the server is a standby, and only from version 16 on can a standby be read")]
    Standby,
    /// Every slot that the server may have is taken.
    #[error("all replication slots of the server are in use: raise max_replication_slots")]
    TooMany,
    /// The connection failed, or the server refused a command.
    #[error("slot not read")]
    Walsender(#[from] WalsenderError),
}

impl SlotName {
    /// In double quotes, as the replication commands take it.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl FromStr for SlotName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<SlotName, NameError> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let fits = (1..=63).contains(&text.len()) && text.bytes().all(legal);
        if fits { Ok(SlotName(text.into())) } else { Err(NameError::Slot) }
    }
}

impl FromStr for PublicationName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<PublicationName, NameError> {
        let fits = (1..=63).contains(&text.len()) && !text.contains('\0');
        if fits { Ok(PublicationName(text.into())) } else { Err(NameError::Publication) }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PublicationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Settings {
    /// The options of `START_REPLICATION`: protocol 1, in which transactions come whole, and
    /// logical messages where the server knows them (14).
    pub(crate) fn options(&self, server_version: Option<&str>) -> String {
        let identifier = format!("\"{}\"", self.publication.0.replace('"', "\"\""));
        let names = literal(&identifier);
        let major = server_version.and_then(|version| version.split(['.', ' ', 'b', 'd']).next());
        let old = major.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 14);
        let messages = if old { "" } else { ", messages 'true'" };
        format!("proto_version '1', publication_names {names}{messages}")
    }
}

/// Finds the slot, or creates it, and looks whether it can be read.
///
/// Creating waits until every transaction that writes at this moment has ended.
pub(crate) async fn find_or_create(
    commands: &mut Commands,
    settings: &Settings,
) -> Result<Slot, SlotError> {
    let server = audit(commands, settings).await?;
    let name = settings.name.to_string();
    let text = format!("SELECT * FROM pg_replication_slots WHERE slot_name = '{name}'");
    let rows = commands.query("the query for the slot", &text).await?;
    let (confirmed_lsn, created) = match rows.first() {
        Some(row) => (examine(row, &name, &server.database)?, false),
        None if settings.create => (create(commands, settings).await?, true),
        None => return Err(SlotError::Missing { name }),
    };
    let Server { flushed_lsn, sender_timeout_ms, budget_bytes, .. } = server;
    Ok(Slot { confirmed_lsn, flushed_lsn, sender_timeout_ms, budget_bytes, created })
}

/// Gives up the log that the slot holds. Where slots are ours to make it is dropped, which frees the
/// log at once, and made anew later; else it is moved on to the log's end, and the log becomes free
/// as the server reads over it.
pub(crate) async fn give_up(commands: &mut Commands, settings: &Settings) -> Result<(), SlotError> {
    const ADVANCE: &str = "pg_replication_slot_advance";
    if !settings.create {
        let name = &settings.name;
        let text = format!(
            "SELECT {ADVANCE}('{name}', CASE WHEN pg_is_in_recovery() \
             THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)"
        );
        commands.query(ADVANCE, &text).await?;
        return Ok(());
    }
    let text = format!("DROP_REPLICATION_SLOT {} WAIT", settings.name.quoted());
    match commands.query("DROP_REPLICATION_SLOT", &text).await {
        // Somebody else has.
        Err(WalsenderError::Command { error, .. }) if error.code == "42704" => Ok(()),
        dropped => Ok(dropped.map(drop)?),
    }
}

struct Server {
    database: String,
    flushed_lsn: Lsn,
    sender_timeout_ms: Option<u64>,
    budget_bytes: Option<u64>,
}

async fn audit(commands: &mut Commands, settings: &Settings) -> Result<Server, SlotError> {
    const NAME: &str = "the query for the server's settings";
    let publication = literal(&settings.publication.0);
    let text = format!(
        "SELECT current_setting('wal_level') AS wal_level, current_database() AS database, \
         (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout') AS sender_timeout, \
         (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS budget_mb, \
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
         ELSE pg_current_wal_flush_lsn() END AS flushed, \
         pg_is_in_recovery() AND current_setting('server_version_num')::int < 160000 AS standby, \
         (SELECT count(*) FROM pg_publication WHERE pubname = {publication}) AS publications"
    );
    let rows = commands.query(NAME, &text).await?;
    let malformed = || SlotError::Walsender(WalsenderError::Answer { command: NAME });
    let row = rows.first().ok_or_else(malformed)?;
    let cell = |name: &str| row.get(name)?.as_deref();
    let database = cell("database").ok_or_else(malformed)?.to_owned();
    if cell("standby") == Some("t") {
        return Err(SlotError::Standby);
    }
    match cell("wal_level") {
        Some("logical") => {}
        found => return Err(SlotError::WalLevel { found: found.unwrap_or_default().to_owned() }),
    }
    if cell("publications") == Some("0") {
        return Err(SlotError::NoPublication { name: settings.publication.to_string(), database });
    }
    let flushed_lsn = cell("flushed").and_then(|lsn| lsn.parse().ok()).ok_or_else(malformed)?;
    let sender_timeout_ms = cell("sender_timeout").and_then(|text| text.parse().ok());
    let sender_timeout_ms = sender_timeout_ms.filter(|timeout| *timeout > 0);
    // -1, which is no number here, means that there is none.
    let budget_mb = cell("budget_mb").and_then(|text| text.parse::<u64>().ok());
    let budget_bytes = budget_mb.map(|megabytes| megabytes.saturating_mul(1 << 20));
    Ok(Server { database, flushed_lsn, sender_timeout_ms, budget_bytes })
}

fn examine(row: &AnswerRow, name: &str, database: &str) -> Result<Lsn, SlotError> {
    let name = name.to_owned();
    let cell = |column: &str| row.get(column)?.as_deref();
    let plugin = cell("plugin").unwrap_or("physical replication");
    if plugin != "pgoutput" {
        return Err(SlotError::OtherPlugin { name, found: plugin.to_owned() });
    }
    let found = cell("database").unwrap_or_default();
    if found != database {
        let (found, expected) = (found.to_owned(), database.to_owned());
        return Err(SlotError::OtherDatabase { name, found, expected });
    }
    // `restart_lsn` says nothing: it may be set on a lost slot, too.
    let reason = match (cell("invalidation_reason"), cell("wal_status"), cell("conflicting")) {
        (Some(reason), _, _) => Some(reason),
        (None, Some("lost"), _) => Some("the log that it needs was removed"),
        (None, _, Some("t")) => Some("it conflicted with recovery"),
        _ => None,
    };
    if let Some(reason) = reason {
        return Err(SlotError::Lost { name, reason: reason.to_owned() });
    }
    if cell("active") == Some("t") {
        let pid = cell("active_pid").unwrap_or("unknown").to_owned();
        return Err(SlotError::Busy { name, pid });
    }
    let confirmed = cell("confirmed_flush_lsn").and_then(|lsn| lsn.parse().ok());
    confirmed
        .ok_or(SlotError::Walsender(WalsenderError::Answer { command: "the query for the slot" }))
}

async fn create(commands: &mut Commands, settings: &Settings) -> Result<Lsn, SlotError> {
    const NAME: &str = "CREATE_REPLICATION_SLOT";
    let text = format!("{NAME} {} LOGICAL pgoutput NOEXPORT_SNAPSHOT", settings.name.quoted());
    let rows = match commands.query(NAME, &text).await {
        Ok(rows) => rows,
        Err(WalsenderError::Command { error, .. }) if error.code == "53400" => {
            return Err(SlotError::TooMany);
        }
        Err(error) => return Err(error.into()),
    };
    let point = rows.first().and_then(|row| row.get("consistent_point")?.as_deref());
    let point = point.and_then(|point| point.parse().ok());
    point.ok_or(SlotError::Walsender(WalsenderError::Answer { command: NAME }))
}

/// An SQL string constant.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[(&str, &str)]) -> AnswerRow {
        let usual = [
            ("plugin", "pgoutput"),
            ("database", "shop"),
            ("active", "f"),
            ("wal_status", "reserved"),
            ("confirmed_flush_lsn", "0/10"),
        ];
        let columns = usual.iter().chain(columns);
        columns.map(|(name, text)| ((*name).to_owned(), Some((*text).to_owned()))).collect()
    }

    #[test]
    fn a_slot_is_told_apart_from_what_it_is_not() {
        let examine = |columns: &[(&str, &str)]| examine(&row(columns), "walcast", "shop");
        assert_eq!(examine(&[]).unwrap(), Lsn::new(16));
        let busy = examine(&[("active", "t"), ("active_pid", "7")]).unwrap_err();
        assert!(matches!(busy, SlotError::Busy { pid, .. } if pid == "7"));
        for lost in [
            &[("wal_status", "lost")][..],
            &[("invalidation_reason", "idle_timeout")],
            &[("conflicting", "t")],
        ] {
            assert!(matches!(examine(lost), Err(SlotError::Lost { .. })), "{lost:?}");
        }
        let other = examine(&[("database", "other")]);
        assert!(matches!(other, Err(SlotError::OtherDatabase { .. })));
        let other = examine(&[("plugin", "wal2json")]);
        assert!(matches!(other, Err(SlotError::OtherPlugin { .. })));
    }

    #[test]
    fn names_are_checked_and_quoted() {
        for name in ["", "Walcast", "a b", "a\"b", "ä"] {
            assert_eq!(name.parse::<SlotName>(), Err(NameError::Slot), "{name:?}");
        }
        let publication = "it's \"mine\"".parse().unwrap();
        let settings = Settings { publication, ..Settings::default() };
        let expected =
            "proto_version '1', publication_names '\"it''s \"\"mine\"\"\"', messages 'true'";
        assert_eq!(settings.options(Some("15.18 (Debian 15.18-1)")), expected);
        assert!(!settings.options(Some("13.23")).contains("messages"));
        assert!(settings.options(Some("18beta1")).contains("messages"));
    }
}

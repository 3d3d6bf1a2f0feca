//! Is the database ready for walcast? [`Facts`] in, [`Finding`]s out, each with the SQL that
//! mends it.
//!
//! ```text
//! Catalog::facts ──Facts──▶ judge ──Vec<Finding>──▶ `walcast check`
//!  (one statement)          (pure)
//! ```
//!
//! Nothing here changes anything: the SQL is for a DBA to read and to run.

pub mod facts;
mod around;
mod server;
mod tables;

use std::fmt;

use crate::catalog::TableName;
use crate::catalog::audit::facts::Facts;
use crate::catalog::snapshot::Snapshot;

/// What the configuration expects of the database.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// The slot's name.
    pub slot: Box<str>,
    /// Whether the daemon makes the slot where it is missing.
    pub creates_slot: bool,
    /// The publication's name.
    pub publication: Box<str>,
    /// The role of the replication connection; absent where it is the asking role.
    pub replication_role: Option<Box<str>>,
    /// How many bytes of WAL the confirmed position is held back.
    pub window_bytes: u64,
    /// From how many bytes of WAL that the slot keeps it is warned; absent: a part of the budget.
    pub warn_bytes: Option<u64>,
    /// How many bytes of WAL the slot may keep; absent: as the server has it.
    pub budget_bytes: Option<u64>,
    /// The client roles.
    pub roles: Vec<Box<str>>,
    /// The tables that the configuration names.
    pub tables: Vec<ExpectedTable>,
}

/// A table that the configuration names.
#[derive(Clone, Debug)]
pub struct ExpectedTable {
    /// Its name.
    pub name: TableName,
    /// Who may see its rows, by the configuration.
    pub access: Access,
}

/// Who may see a table's rows, by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever a policy of the configuration admits.
    Policy,
    /// Everyone with a grant.
    Open,
    /// The configuration says nothing.
    Unsaid,
}

/// How much a finding matters. Ordered from the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// walcast, or the application, does not work like this.
    Error,
    /// It works, but something will be missing, refused or dangerous.
    Warning,
    /// Good to know.
    Notice,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A word for programs, stable between versions.
    pub code: &'static str,
    /// What it is about: a table, a role, a setting.
    pub subject: String,
    /// A sentence for people.
    pub message: String,
    /// The SQL that mends it, where there is some.
    pub mend: Option<String>,
}

impl Finding {
    fn new(
        severity: Severity,
        code: &'static str,
        subject: impl fmt::Display,
        message: impl Into<String>,
    ) -> Finding {
        let (subject, message) = (subject.to_string(), message.into());
        Finding { severity, code, subject, message, mend: None }
    }

    fn mended_by(self, sql: impl Into<String>) -> Finding {
        Finding { mend: Some(sql.into()), ..self }
    }
}

/// What is wrong, the worst first.
#[must_use]
pub fn judge(facts: &Facts, snapshot: &Snapshot, expected: &Expectations) -> Vec<Finding> {
    let mut findings = server::settings(facts, expected);
    findings.extend(server::slot(facts, expected));
    findings.extend(around::slots(facts, expected));
    findings.extend(around::clock(facts));
    findings.extend(server::publication(facts, expected));
    findings.extend(around::publication(facts, expected));
    findings.extend(server::roles(facts, expected));
    findings.extend(around::client_roles(facts));
    findings.extend(around::fence(facts));
    findings.extend(tables::identities(facts));
    findings.extend(tables::access(facts, snapshot, expected));
    findings.extend(tables::types(snapshot));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// A name as SQL takes it: in quotes, unless it is plain.
fn quoted(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let rest = |byte: u8| plain(byte) || byte.is_ascii_digit();
    let mut bytes = name.bytes();
    if bytes.next().is_some_and(plain) && bytes.all(rest) && !RESERVED.contains(&name) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Words that are likely names of tables and roles, but must be quoted.
const RESERVED: &[&str] = &["all", "analyze", "check", "default", "end", "group", "order", "user"];

/// A table's name as SQL takes it.
fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
        "version": 150018, "database": "app", "encoding": "UTF8", "in_recovery": false,
        "settings": {"wal_level": "logical", "max_slot_wal_keep_size": "10240",
            "wal_sender_timeout": "60000", "max_wal_senders": "10", "max_replication_slots": "10"},
        "slots_used": 1,
        "slot": {"plugin": "pgoutput", "database": "app", "active": false, "wal_status": "reserved",
            "temporary": false, "two_phase": false, "lag_bytes": 100, "retained_bytes": 200,
            "reader": null},
        "clock": 0, "senders_used": 1, "idle_slots": [], "partitioned": true,
        "publication": {"pubinsert": true, "pubupdate": true, "pubdelete": true,
            "pubtruncate": true, "pubviaroot": true, "puballtables": false},
        "row_filters": [],
        "asking_role": {"rolname": "ask", "rolsuper": false, "rolreplication": false,
            "rolbypassrls": false, "rolcanlogin": true},
        "replication_role": {"rolname": "repl", "rolsuper": false, "rolreplication": true,
            "rolbypassrls": false, "rolcanlogin": true},
        "unknown_roles": [], "foreign_roles": [], "exempt_roles": [],
        "fence": false, "late": [],
        "identities": [{"schema": "public", "name": "orders", "kind": "f", "usable": true,
            "has_key": true, "published": true}]
    }"#;

    fn expected() -> Expectations {
        Expectations {
            slot: "walcast".into(),
            creates_slot: true,
            publication: "walcast".into(),
            replication_role: Some("repl".into()),
            window_bytes: 64 << 20,
            warn_bytes: None,
            budget_bytes: Some(1 << 30),
            roles: vec!["customer".into()],
            tables: Vec::new(),
        }
    }

    fn codes(change: impl Fn(&mut serde_json::Value)) -> Vec<&'static str> {
        let mut facts: serde_json::Value = serde_json::from_str(GOOD).unwrap();
        change(&mut facts);
        let facts = Facts::parse(&facts.to_string()).unwrap();
        let findings = judge(&facts, &Snapshot::default(), &expected());
        findings.iter().map(|finding| finding.code).collect()
    }

    fn one(path: &str, value: impl Into<serde_json::Value>, code: &str) {
        let value = value.into();
        let found = codes(|facts| {
            let (parent, key) = path.rsplit_once('/').unwrap();
            facts.pointer_mut(parent).unwrap()[key] = value.clone();
        });
        assert_eq!(found, [code], "{path}");
    }

    #[test]
    fn a_good_database_has_no_findings() {
        assert_eq!(codes(|_| ()), [""; 0]);
    }

    #[test]
    fn each_fault_is_found_and_nothing_else() {
        let null = serde_json::Value::Null;
        one("/version", 130_000, "server-too-old");
        one("/version", 150_008, "server-unpatched");
        one("/version", 170_000, "server-unpatched");
        one("/encoding", "SQL_ASCII", "encoding");
        one("/settings/wal_level", "replica", "wal-level");
        one("/settings/max_slot_wal_keep_size", "-1", "wal-unbounded");
        one("/settings/max_slot_wal_keep_size", "50", "wal-budget");
        one("/settings/max_slot_wal_keep_size", "1024", "wal-budget-late");
        one("/settings/wal_sender_timeout", "0", "wal-sender-timeout");
        one("/settings/wal_sender_timeout", "1000", "wal-sender-timeout");
        one("/slot", null.clone(), "slot-missing");
        one("/slot/plugin", "wal2json", "slot-plugin");
        one("/slot/database", "other", "slot-database");
        one("/slot/wal_status", "lost", "slot-lost");
        one("/slot/wal_status", "unreserved", "slot-at-risk");
        one("/slot/active", true, "slot-active");
        one("/slot/two_phase", true, "slot-two-phase");
        one("/slot/retained_bytes", 600 << 20, "slot-behind");
        one("/senders_used", 10, "senders-taken");
        let idle = |name: &str, plugin: &str, bytes: i64| {
            let of = serde_json::json!(
                {"name": name, "plugin": plugin, "here": true, "retained_bytes": bytes});
            serde_json::json!([of])
        };
        one("/idle_slots", idle("walcast_old", "pgoutput", 0), "slot-orphaned");
        one("/idle_slots", idle("other", "wal2json", 2 << 30), "slot-orphaned");
        assert_eq!(codes(|facts| facts["idle_slots"] = idle("other", "wal2json", 0)), [""; 0]);
        one("/clock_ahead", 6.0, "clock-skew");
        one("/publication/pubviaroot", false, "publication-leaves");
        one("/publication/puballtables", true, "publication-all-tables");
        one("/exempt_roles", vec!["customer"], "client-role-too-strong");
        one("/late", vec!["orders"], "fence");
        one("/publication", null.clone(), "publication-missing");
        one("/publication/pubdelete", false, "publication-partial");
        one("/asking_role/rolsuper", true, "asking-role-too-strong");
        one("/asking_role/rolbypassrls", true, "asking-role-too-strong");
        one("/replication_role", null, "replication-role-missing");
        one("/replication_role/rolreplication", false, "replication-role-weak");
        one("/replication_role/rolsuper", true, "replication-role-too-strong");
        one("/unknown_roles", vec!["customer"], "role-missing");
        one("/foreign_roles", vec!["customer"], "role-not-granted");
        one("/identities/0/usable", false, "identity-missing");
        one("/identities/0/kind", "d", "identity-key-only");
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(qualified("public", "orders_2"), "public.orders_2");
        assert_eq!(qualified("We Ird", "a\"b"), "\"We Ird\".\"a\"\"b\"");
        assert_eq!(quoted("order"), "\"order\"");
        assert_eq!(quoted("2fast"), "\"2fast\"");
    }
}

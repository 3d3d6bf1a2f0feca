//! What is said of the server, the slot, the publication and the roles.

use crate::catalog::audit::Expectations;
use crate::catalog::audit::Finding;
use crate::catalog::audit::Severity;
use crate::catalog::audit::facts::Facts;
use crate::catalog::audit::qualified;
use crate::catalog::audit::quoted;

/// The oldest version that the daemon is tested with.
const OLDEST: u32 = 140_000;
/// The first version that it has not been tested with.
const UNTESTED: u32 = 190_000;
/// The first versions, by major, in which a plan is not used under another role than the one that it was
/// made for, and in which a role that was set comes back as it was (CVE-2024-10976, CVE-2024-10978).
const ROLES_MENDED: [u32; 4] = [140_014, 150_009, 160_005, 170_001];
/// With a shorter timeout a pause of the network ends the stream.
const SENDER_TIMEOUT_MIN_MS: i64 = 5_000;

/// Version, encoding, and the settings that decide about logical decoding.
pub(super) fn settings(facts: &Facts, expected: &Expectations) -> Vec<Finding> {
    let mut findings = Vec::new();
    let major = facts.version / 10_000;
    if facts.version < OLDEST {
        let message = format!("this is version {major}; walcast needs 14 or later");
        findings.push(Finding::new(Severity::Error, "server-too-old", "server", message));
    } else if facts.version >= UNTESTED {
        let message = format!("walcast was not tested with version {major}");
        findings.push(Finding::new(Severity::Warning, "server-untested", "server", message));
    }
    let mended = ROLES_MENDED.iter().find(|mended| *mended / 10_000 == major);
    if let Some(mended) = mended.filter(|mended| facts.version < **mended) {
        let message = format!(
            "version {major}.{} lets row-level security be decided under another role than the one \
             that asks (CVE-2024-10976, CVE-2024-10978); {major}.{} mends it",
            facts.version % 10_000,
            mended % 10_000
        );
        findings.push(Finding::new(Severity::Warning, "server-unpatched", "server", message));
    }
    if facts.in_recovery && facts.version < 160_000 {
        let message = "this is a standby; before version 16 only the primary can decode its log";
        findings.push(Finding::new(Severity::Error, "server-standby", "server", message));
    }
    if facts.encoding != "UTF8" {
        let message = format!(
            "the database's encoding is {}; texts that can't be written in UTF-8 end the stream, \
             or have characters replaced",
            facts.encoding
        );
        findings.push(Finding::new(Severity::Warning, "encoding", &facts.database, message));
    }
    let wal_level = facts.settings.get("wal_level").map(String::as_str);
    if wal_level != Some("logical") {
        let message = "the log does not hold what decoding needs";
        let mend = "ALTER SYSTEM SET wal_level = 'logical'; -- then restart the server";
        findings
            .push(Finding::new(Severity::Error, "wal-level", "wal_level", message).mended_by(mend));
    }
    findings.extend(wal_budget(facts, expected));
    findings.extend(timeouts(facts));
    findings
}

/// How much log a slot may keep, beside what the window holds back.
fn wal_budget(facts: &Facts, expected: &Expectations) -> Option<Finding> {
    let subject = "max_slot_wal_keep_size";
    let megabytes = facts.number(subject)?;
    let window = i64::try_from(expected.window_bytes >> 20).unwrap_or(i64::MAX);
    // A consumer needs room to be away for a while, too.
    let wanted = window.saturating_mul(4).max(1024);
    let mend = format!("ALTER SYSTEM SET {subject} = '{wanted}MB'; SELECT pg_reload_conf();");
    let finding = if megabytes < 0 {
        let message = "no bound: while walcast is away, the log may fill the disk";
        Finding::new(Severity::Warning, "wal-unbounded", subject, message)
    } else if megabytes <= window {
        let message = format!(
            "{megabytes} MB is not more than the window of {window} MB that walcast holds back: \
             the slot would be lost"
        );
        Finding::new(Severity::Error, "wal-budget", subject, message)
    } else {
        return None;
    };
    Some(finding.mended_by(mend))
}

fn timeouts(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(timeout) = facts.number("wal_sender_timeout")
        && timeout < SENDER_TIMEOUT_MIN_MS
    {
        let message = if timeout == 0 {
            "switched off: a connection that died keeps the slot busy for ever".to_owned()
        } else {
            format!("{timeout} ms: a short pause of the network ends the stream")
        };
        let finding =
            Finding::new(Severity::Warning, "wal-sender-timeout", "wal_sender_timeout", message);
        let mend = "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();";
        findings.push(finding.mended_by(mend));
    }
    if facts.number("idle_replication_slot_timeout").is_some_and(|timeout| timeout > 0) {
        let subject = "idle_replication_slot_timeout";
        let message = "a slot that walcast leaves alone for longer than this is lost";
        findings.push(Finding::new(Severity::Notice, "slot-idle-timeout", subject, message));
    }
    findings
}

/// The slot: there, healthy, and ours to read.
pub(super) fn slot(facts: &Facts, expected: &Expectations) -> Vec<Finding> {
    let name = &*expected.slot;
    let literal = name.replace('\'', "''");
    let Some(slot) = &facts.slot else { return missing_slot(facts, expected) };
    let drop = format!("SELECT pg_drop_replication_slot('{literal}');");
    let mut findings = Vec::new();
    let mut find = |severity, code, message: String, mend: Option<&String>| {
        let finding = Finding::new(severity, code, name, message);
        findings.push(Finding { mend: mend.cloned(), ..finding });
    };
    if slot.plugin.as_deref() != Some("pgoutput") || slot.temporary {
        let message = "not a lasting slot of the plugin pgoutput".to_owned();
        find(Severity::Error, "slot-plugin", message, Some(&drop));
    } else if slot.database.as_deref() != Some(&*facts.database) {
        let message = "of another database; slots belong to one".to_owned();
        find(Severity::Error, "slot-database", message, None);
    }
    if slot.wal_status.as_deref() == Some("lost") || slot.invalidation_reason.is_some() {
        let reason = slot.invalidation_reason.as_deref().unwrap_or("its log was removed");
        let message = format!("lost ({reason}): drop it; clients will be told to start again");
        find(Severity::Error, "slot-lost", message, Some(&drop));
    } else if slot.wal_status.as_deref() == Some("unreserved") {
        let lag = slot.lag_bytes.unwrap_or(0);
        let message = format!("about to be lost: {lag} bytes behind, more than the server keeps");
        find(Severity::Warning, "slot-at-risk", message, None);
    }
    if slot.two_phase {
        let message = "made with two_phase: prepared transactions would come twice".to_owned();
        find(Severity::Warning, "slot-two-phase", message, Some(&drop));
    }
    if slot.active {
        let reader = slot.reader.as_deref().unwrap_or("a daemon that runs or somebody else");
        let message = format!("being read now, by {reader}");
        find(Severity::Notice, "slot-active", message, None);
    }
    findings
}

fn missing_slot(facts: &Facts, expected: &Expectations) -> Vec<Finding> {
    let name = &*expected.slot;
    let mut findings = Vec::new();
    if facts.number("max_replication_slots").is_some_and(|most| facts.slots_used >= most) {
        let message = "every replication slot of the server is taken";
        let finding =
            Finding::new(Severity::Error, "slots-taken", "max_replication_slots", message);
        findings.push(
            finding.mended_by(
                "ALTER SYSTEM SET max_replication_slots = 20; -- then restart the server",
            ),
        );
    }
    let literal = name.replace('\'', "''");
    let (severity, message) = if expected.creates_slot {
        (Severity::Notice, "not there yet; walcast makes it when it starts")
    } else {
        (Severity::Error, "there is no such slot, and walcast may not make it")
    };
    let mend = format!("SELECT pg_create_logical_replication_slot('{literal}', 'pgoutput');");
    findings.push(Finding::new(severity, "slot-missing", name, message).mended_by(mend));
    findings
}

/// The publication: there, and of every kind of change.
pub(super) fn publication(facts: &Facts, expected: &Expectations) -> Vec<Finding> {
    let name = &*expected.publication;
    let sql = quoted(name);
    let Some(publication) = &facts.publication else {
        let message = "there is no such publication; it must be there before the slot is made";
        let tables = expected.tables.iter();
        let tables: Vec<String> =
            tables.map(|table| qualified(&table.name.schema, &table.name.name)).collect();
        let tables = if tables.is_empty() { "…".to_owned() } else { tables.join(", ") };
        let mend = format!("CREATE PUBLICATION {sql} FOR TABLE {tables};");
        return vec![
            Finding::new(Severity::Error, "publication-missing", name, message).mended_by(mend),
        ];
    };
    let mut findings = Vec::new();
    let kinds = [publication.pubinsert, publication.pubupdate, publication.pubdelete];
    if kinds.contains(&false) || !publication.pubtruncate {
        let message = "leaves out a kind of change, which clients would silently miss";
        let mend =
            format!("ALTER PUBLICATION {sql} SET (publish = 'insert, update, delete, truncate');");
        findings.push(
            Finding::new(Severity::Warning, "publication-partial", name, message).mended_by(mend),
        );
    }
    for table in &facts.row_filters {
        let subject = qualified(&table.schema, &table.name);
        let message = "has a row filter in the publication: an update across it arrives as an \
                       insert or a delete";
        findings.push(Finding::new(Severity::Warning, "publication-filter", subject, message));
    }
    findings
}

/// The two roles of the daemon, and those of the clients.
pub(super) fn roles(facts: &Facts, expected: &Expectations) -> Vec<Finding> {
    let mut findings = Vec::new();
    let asking = &facts.asking_role;
    let separate = expected.replication_role.as_deref().is_some_and(|role| role != asking.rolname);
    if asking.rolsuper || asking.rolbypassrls || (asking.rolreplication && separate) {
        let message = "the asking role can do more than ask: row-level security does not hold \
                       it, or it can read the log";
        let role = quoted(&asking.rolname);
        // The role may have to read the log, too.
        let replication = if separate { " NOREPLICATION" } else { "" };
        let mend = format!("ALTER ROLE {role} NOSUPERUSER{replication} NOBYPASSRLS;");
        let subject = &asking.rolname;
        findings.push(
            Finding::new(Severity::Warning, "asking-role-too-strong", subject, message)
                .mended_by(mend),
        );
    }
    findings.extend(replication_role(facts, expected));
    for role in &facts.unknown_roles {
        let message = "there is no such role: clients whose tokens name it are refused";
        let mend = format!("CREATE ROLE {} NOLOGIN;", quoted(role));
        findings
            .push(Finding::new(Severity::Warning, "role-missing", role, message).mended_by(mend));
    }
    for role in &facts.foreign_roles {
        let message = "the asking role is no member of it, so it can't ask in its name";
        let mend = format!("GRANT {} TO {};", quoted(role), quoted(&asking.rolname));
        findings.push(
            Finding::new(Severity::Warning, "role-not-granted", role, message).mended_by(mend),
        );
    }
    findings
}

fn replication_role(facts: &Facts, expected: &Expectations) -> Option<Finding> {
    let name = expected.replication_role.as_deref()?;
    let sql = quoted(name);
    let Some(role) = &facts.replication_role else {
        let message = "there is no such role";
        let finding = Finding::new(Severity::Error, "replication-role-missing", name, message);
        return Some(finding.mended_by(format!("CREATE ROLE {sql} LOGIN REPLICATION;")));
    };
    let finding = if role.rolsuper {
        let message = "a superuser reads the log; REPLICATION is enough";
        let mend = format!("ALTER ROLE {sql} NOSUPERUSER REPLICATION;");
        Finding::new(Severity::Warning, "replication-role-too-strong", name, message)
            .mended_by(mend)
    } else if !role.rolreplication || !role.rolcanlogin {
        let message = "may not read the log: it lacks REPLICATION or LOGIN";
        let mend = format!("ALTER ROLE {sql} LOGIN REPLICATION;");
        Finding::new(Severity::Error, "replication-role-weak", name, message).mended_by(mend)
    } else {
        return None;
    };
    Some(finding)
}

//! What is said of what lies around: other slots, connections, clocks, how much log is kept, tables
//! to come, and client roles that nothing holds.

use crate::catalog::audit::Expectations;
use crate::catalog::audit::Finding;
use crate::catalog::audit::Severity;
use crate::catalog::audit::facts::Facts;
use crate::catalog::audit::facts::IdleSlot;
use crate::catalog::audit::quoted;

/// A slot that nobody reads and that keeps more than this is likely forgotten.
const MUCH_LOG: i64 = 1 << 30;
/// Clocks that are further apart make tokens begin or end at the wrong time.
const SKEW_MAX_SECONDS: f64 = 5.0;

/// How much log is kept, by our slot and by others, and whether there is room for our connection.
pub(super) fn slots(facts: &Facts, expected: &Expectations) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(budget(facts, expected));
    findings.extend(behind(facts, expected));
    let idle = facts.idle_slots.iter().filter(|slot| is_orphan(slot, expected));
    findings.extend(idle.map(orphan));
    let reads = facts.slot.as_ref().is_some_and(|slot| slot.active);
    if !reads && facts.number("max_wal_senders").is_some_and(|most| facts.senders_used >= most) {
        let message = "every connection for replication is taken: walcast waits for one";
        let mend = "ALTER SYSTEM SET max_wal_senders = 20; -- then restart the server";
        let finding = Finding::new(Severity::Error, "senders-taken", "max_wal_senders", message);
        findings.push(finding.mended_by(mend));
    }
    findings
}

/// A budget that Postgres does not wait for.
fn budget(facts: &Facts, expected: &Expectations) -> Option<Finding> {
    let keep = facts.number("max_slot_wal_keep_size").filter(|megabytes| *megabytes > 0)?;
    let budget = i64::try_from(expected.budget_bytes? >> 20).unwrap_or(i64::MAX);
    let window = i64::try_from(expected.window_bytes >> 20).unwrap_or(i64::MAX);
    if budget < keep || keep <= window {
        return None;
    }
    let message = format!(
        "{budget} MB is not less than max_slot_wal_keep_size, {keep} MB: Postgres gives the slot up \
         before walcast does anything about it"
    );
    let wanted = budget.saturating_mul(4) / 3 + 1;
    let mend =
        format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{wanted}MB'; SELECT pg_reload_conf();");
    let finding = Finding::new(Severity::Warning, "wal-budget-late", "wal.budget_bytes", message);
    Some(finding.mended_by(mend))
}

/// A slot that keeps more than it is warned of.
fn behind(facts: &Facts, expected: &Expectations) -> Option<Finding> {
    let slot = facts.slot.as_ref()?;
    let retained = u64::try_from(slot.retained_bytes?).ok()?;
    let keep = facts.number("max_slot_wal_keep_size").and_then(|it| u64::try_from(it).ok());
    let usual = keep.map_or(10 << 30, |megabytes| megabytes.saturating_mul(1 << 20) / 4 * 3);
    let warn = expected.warn_bytes.unwrap_or(expected.budget_bytes.unwrap_or(usual) / 2);
    // Small bounds are about something else.
    if retained < warn || warn <= expected.window_bytes {
        return None;
    }
    let megabytes = retained >> 20;
    let message = if slot.active {
        format!(
            "keeps {megabytes} MB of log although it is read: walcast can't keep up or rests, or a \
             transaction is open for long"
        )
    } else {
        format!("keeps {megabytes} MB of log, and nobody reads it")
    };
    Some(Finding::new(Severity::Warning, "slot-behind", &expected.slot, message))
}

/// Whether a slot that nobody reads is likely one of ours, or keeps much.
fn is_orphan(slot: &IdleSlot, expected: &Expectations) -> bool {
    let ours = slot.plugin == "pgoutput"
        && slot.here == Some(true)
        && (slot.name.contains("walcast") || slot.name.contains(&*expected.slot));
    ours || slot.retained_bytes.is_some_and(|bytes| bytes >= MUCH_LOG)
}

fn orphan(slot: &IdleSlot) -> Finding {
    let megabytes = slot.retained_bytes.unwrap_or(0) >> 20;
    let message = format!(
        "nobody reads this slot ({}), and the server keeps {megabytes} MB of log for it: drop it if \
         nobody needs it any more",
        slot.plugin
    );
    let mend = format!("SELECT pg_drop_replication_slot('{}');", slot.name.replace('\'', "''"));
    Finding::new(Severity::Warning, "slot-orphaned", &slot.name, message).mended_by(mend)
}

/// Whether the server and we agree on the time.
pub(super) fn clock(facts: &Facts) -> Option<Finding> {
    let ahead = facts.clock_ahead;
    if ahead.abs() < SKEW_MAX_SECONDS {
        return None;
    }
    let which = if ahead > 0.0 { "ahead of" } else { "behind" };
    let message = format!(
        "the server's clock is {:.0} s {which} this machine's: tokens and the times of commits are \
         measured by different clocks",
        ahead.abs()
    );
    Some(Finding::new(Severity::Warning, "clock-skew", "server", message))
}

/// Tables that the publication takes in without anybody's word, or under other names.
pub(super) fn publication(facts: &Facts, expected: &Expectations) -> Vec<Finding> {
    let Some(publication) = &facts.publication else { return Vec::new() };
    let name = &*expected.publication;
    let mut findings = Vec::new();
    if facts.partitioned && !publication.pubviaroot {
        let message = "publishes partitioned tables as their partitions: who subscribes to the root \
                       gets nothing";
        let mend =
            format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true);", quoted(name));
        let finding = Finding::new(Severity::Warning, "publication-leaves", name, message);
        findings.push(finding.mended_by(mend));
    }
    if publication.puballtables {
        let message = "is FOR ALL TABLES: each table that is made later is published, and without a \
                       primary key every UPDATE and DELETE of it fails";
        let finding = Finding::new(Severity::Notice, "publication-all-tables", name, message);
        findings.push(finding);
    }
    findings
}

/// Whether a change of what policies depend on counts at once, or within two seconds.
pub(super) fn fence(facts: &Facts) -> Option<Finding> {
    if facts.late.is_empty() {
        return None;
    }
    let tables = facts.late.join(", ");
    let (severity, message) = if facts.fence {
        (
            Severity::Notice,
            format!(
                "is there: changes of functions, schemas and tables that policies read count from \
                 the next change on, also for {tables}"
            ),
        )
    } else {
        (
            Severity::Warning,
            format!(
                "is not there, so changes of functions, schemas, other tables or partitions that \
                 the policies of {tables} depend on count within two seconds, not at once: apply \
                 sql/06-fence.sql as a superuser (`walcast setup` has it)"
            ),
        )
    };
    Some(Finding::new(severity, "fence", "event trigger walcast_fence", message))
}

/// Client roles for which row-level security is not asked.
pub(super) fn client_roles(facts: &Facts) -> Vec<Finding> {
    let found = |role: &String| {
        let message = "a client role with SUPERUSER or BYPASSRLS: whoever has a token for it sees \
                       every row of tables that are served by their own policies";
        let mend = format!("ALTER ROLE {} NOSUPERUSER NOBYPASSRLS;", quoted(role));
        Finding::new(Severity::Warning, "client-role-too-strong", role, message).mended_by(mend)
    };
    facts.exempt_roles.iter().map(found).collect()
}

//! Which of the database's own policies walcast decides, and why not the others.

use serde_json::Value as Json;
use serde_json::json;

use crate::catalog::audit::Finding;
use crate::catalog::audit::Severity;
use crate::catalog::policies::TablePolicy;
use crate::catalog::snapshot::RowSecurity;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::snapshot::Table;
use crate::config::Access;
use crate::config::Config;
use crate::route::policy::Undecided;
use crate::rule::RuleError;
use crate::rule::Session;
use crate::rule::Settings;
use crate::rule::policy::Kind;
use crate::rule::policy::tables::Guard;
use crate::rule::policy::visible;

/// What claims are tried with, so that a policy that reads one finds it there: what fails for all of
/// them does not depend on anybody's token.
const SAMPLES: &[&str] = &["00000000-0000-4000-8000-000000000000", "1", "a"];

/// What is said of the tables that are served by their own policies.
pub(super) fn findings(config: &Config, snapshot: &Snapshot, roles: &[Box<str>]) -> Vec<Finding> {
    guarded(config, snapshot)
        .into_iter()
        .flat_map(|(table, undecided)| {
            of_table(table, (&config.settings, snapshot), roles, undecided)
        })
        .collect()
}

/// The tables that are served by their own policies, by name, and what becomes of each where these
/// are not decided here.
pub(super) fn guarded<'a>(config: &Config, snapshot: &'a Snapshot) -> Vec<(&'a Table, Undecided)> {
    let entry = |table: &Table| {
        config.tables.iter().find(|entry| {
            *entry.schema == *table.relation.schema && *entry.name == *table.relation.name
        })
    };
    let mut tables: Vec<&Table> = snapshot.tables().map(|table| &**table).collect();
    tables.retain(|table| {
        let replaced = entry(table).is_some_and(|entry| matches!(entry.access, Access::Policy(_)));
        table.published && table.row_security != RowSecurity::Off && !replaced
    });
    tables.sort_by_key(|table| (&table.relation.schema, &table.relation.name));
    let undecided = |table| entry(table).and_then(|entry| entry.undecided);
    let or_all = |undecided: Option<Undecided>| undecided.unwrap_or(config.row_security.undecided);
    tables.into_iter().map(|table| (table, or_all(undecided(table)))).collect()
}

fn of_table(
    table: &Table,
    (settings, snapshot): (&Settings, &Snapshot),
    roles: &[Box<str>],
    undecided: Undecided,
) -> Vec<Finding> {
    let subject = format!("{}.{}", table.relation.schema, table.relation.name);
    let finding = |severity, code, message| Finding {
        severity,
        code,
        subject: subject.clone(),
        message,
        mend: None,
    };
    let mut findings = Vec::new();
    let mut decided = Vec::new();
    for policy in &table.policies.policies {
        let concerned = policy
            .roles
            .iter()
            .filter(|role| roles.contains(role) && !table.policies.exempts(role));
        let concerned: Vec<&str> = concerned.map(|role| &**role).collect();
        let obstacles: Vec<(&str, Obstacle)> = concerned
            .iter()
            .filter_map(|role| Some((*role, obstacle(table, policy, (settings, snapshot), role)?)))
            .collect();
        let asks = undecided == Undecided::Ask;
        let (asked, refused): (Vec<_>, Vec<_>) =
            obstacles.into_iter().partition(|(_, obstacle)| asks && obstacle.can_be_asked);
        let named = |of: &[(&str, Obstacle)]| {
            let (_, first) = of.first()?;
            let who: Vec<&str> = of.iter().map(|(role, _)| *role).collect();
            Some((who.join(", "), first.why.clone()))
        };
        let name = &policy.name;
        if let Some((who, why)) = named(&refused) {
            let message =
                format!("its policy \"{name}\" is not decided here, so {who} is refused: {why}");
            findings.push(finding(Severity::Warning, "policy-unsupported", message));
        }
        if let Some((who, why)) = named(&asked) {
            let message = format!(
                "its policy \"{name}\" is not decided here, so Postgres is asked for {who} about \
                 each change: {why}"
            );
            findings.push(finding(Severity::Notice, "policy-asked", message));
        }
        if refused.is_empty() && asked.is_empty() && !concerned.is_empty() {
            decided.push(format!("\"{}\"", policy.name));
        }
        if policy.reads_user_metadata {
            let message = format!(
                "its policy \"{}\" reads user_metadata, which users of some services can change \
                 themselves",
                policy.name
            );
            findings.push(finding(Severity::Warning, "policy-user-metadata", message));
        }
    }
    if !decided.is_empty() {
        let message = format!("is served by its own policies: {}", decided.join(", "));
        findings.push(finding(Severity::Notice, "policy-decided", message));
    }
    findings
}

/// Why a policy is not decided here.
pub(super) struct Obstacle {
    pub(super) why: String,
    /// Whether Postgres has an answer all the same.
    pub(super) can_be_asked: bool,
}

/// Why the policy is not decided for the role, whatever the claims.
pub(super) fn obstacle(
    table: &Table,
    policy: &TablePolicy,
    (settings, snapshot): (&Settings, &Snapshot),
    role: &str,
) -> Option<Obstacle> {
    if let Err(error) = &policy.read {
        let (why, can_be_asked) = (error.to_string(), error.can_be_asked());
        return Some(Obstacle { why, can_be_asked });
    }
    let guard = Guard { kind: Kind::Permissive, ..policy.guard() };
    let mut first = None;
    for claims in
        std::iter::once(json!({})).chain(SAMPLES.iter().map(|text| sample(text, settings)))
    {
        let session = Session::new(&claims, role, settings);
        match visible(&[guard], &table.relation, &session, snapshot) {
            Ok(_) => return None,
            // Such claims do not fit; others may.
            Err((_, RuleError::Value { .. } | RuleError::Type { .. })) => {}
            Err((_, error)) => {
                let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                let can_be_asked = error.can_be_asked();
                first.get_or_insert(Obstacle { why: format!("{error}{hint}"), can_be_asked });
            }
        }
    }
    first
}

/// Claims that have this text wherever a policy is likely to look.
fn sample(text: &str, settings: &Settings) -> Json {
    let mut claims = json!({ "sub": text, "role": text, "email": text });
    for path in settings.paths() {
        let nested = path.iter().rev().fold(json!(text), |value, key| json!({ &**key: value }));
        merge(&mut claims, nested);
    }
    claims
}

fn merge(into: &mut Json, from: Json) {
    match (into, from) {
        (Json::Object(into), Json::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Json::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

//! Which tier decides who sees the rows of each table with policies, and why; and whether the tables
//! that policies read can be held.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::catalog::Catalog;
use crate::catalog::CatalogError;
use crate::catalog::audit::Finding;
use crate::catalog::audit::Severity;
use crate::catalog::dial::Dial;
use crate::catalog::replicas::Tier;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::snapshot::Table;
use crate::change::id::RelationId;
use crate::config::Config;
use crate::daemon::check::security;
use crate::daemon::settings;
use crate::replica::forecast::Forecast;
use crate::replica::forecast::forecast;
use crate::route::policy::Undecided;

/// What is known of the database, and what the configuration makes of it.
struct Look<'a> {
    config: &'a Config,
    snapshot: &'a Snapshot,
    roles: &'a [Box<str>],
    /// The tables that policies read.
    forecasts: Vec<Forecast>,
}

/// Who reads a table, and whether one of them would be refused without it.
#[derive(Default)]
struct Readers {
    names: BTreeSet<String>,
    refused: bool,
}

/// What is said of the tables that are served by their own policies, and of those that these read.
///
/// # Errors
///
/// [`CatalogError`] where there is no connection.
pub(super) async fn findings(
    config: &Config,
    catalog: &Catalog,
    roles: &[Box<str>],
) -> Result<Vec<Finding>, CatalogError> {
    let snapshot = catalog.current();
    // Of what is not published, too, it is told what it would take.
    let as_if_held = snapshot.as_if_held();
    let wanted = as_if_held.replicas();
    let forecasts = match settings::catalog(config) {
        Ok(asked) => {
            let publication = catalog.publication();
            let dial = Dial::new(&asked)?;
            forecast(&dial, &config.replicas, (&snapshot, publication), &wanted).await?
        }
        // It was told already.
        Err(_) => Vec::new(),
    };
    let look = Look { config, snapshot: &snapshot, roles, forecasts };
    let mut readers: BTreeMap<RelationId, Readers> = BTreeMap::new();
    let mut findings = Vec::new();
    for (table, undecided) in security::guarded(config, &snapshot) {
        findings.push(look.of_table(table, undecided));
        for role in roles {
            if let Tier::Tables(ids) = as_if_held.tier(table, role) {
                for id in ids {
                    let readers = readers.entry(id).or_default();
                    readers.names.insert(name(table));
                    readers.refused |= undecided == Undecided::Refuse;
                }
            }
        }
    }
    for (id, readers) in &readers {
        let read = look.forecasts.iter().filter(|read| read.id == *id);
        findings.extend(read.flat_map(|read| of_read(read, readers)));
    }
    findings.extend(look.together());
    Ok(findings)
}

impl Look<'_> {
    /// How it is decided, role by role.
    fn of_table(&self, table: &Table, undecided: Undecided) -> Finding {
        let mut roles: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for role in self.roles {
            roles.entry(self.how(table, role, undecided)).or_default().push(role);
        }
        let parts: Vec<String> =
            roles.iter().map(|(how, roles)| format!("{}: {how}", roles.join(", "))).collect();
        Finding {
            severity: Severity::Notice,
            code: "policy-tier",
            subject: name(table),
            message: format!("who decides for {}", parts.join("; for ")),
            mend: None,
        }
    }

    /// How it is decided what a role sees.
    fn how(&self, table: &Table, role: &str, undecided: Undecided) -> String {
        let elsewhere = |can_be_asked: bool, why: &str| {
            if can_be_asked && undecided == Undecided::Ask {
                format!("Postgres is asked about each change, because {why}")
            } else {
                format!("it is refused, because {why}")
            }
        };
        let settings = (&self.config.settings, self.snapshot);
        let mut policies = table.policies.of(role);
        let obstacle = policies.find_map(|policy| {
            let obstacle = security::obstacle(table, policy, settings, role)?;
            Some((&policy.name, obstacle))
        });
        if let Some((policy, obstacle)) = obstacle.filter(|_| !table.policies.exempts(role)) {
            let why = format!("policy \"{policy}\" is not decided here: {}", obstacle.why);
            return elsewhere(obstacle.can_be_asked, &why);
        }
        match self.snapshot.tier(table, role) {
            Tier::Everything => "nobody, the policies do not hold it".to_owned(),
            Tier::Nothing => "nobody, no policy admits a row".to_owned(),
            Tier::Row => "walcast, by the row and the claims".to_owned(),
            Tier::Elsewhere { policy, why } => {
                let text = format!("policy \"{policy}\" is not decided here: {why}");
                elsewhere(why.can_be_asked(), &text)
            }
            Tier::Tables(ids) => {
                let read = self.forecasts.iter().filter(|read| ids.contains(&read.id));
                let (held, unheld): (Vec<_>, Vec<_>) = read.partition(|it| it.unheld.is_empty());
                let names = |of: &[&Forecast]| {
                    let names: Vec<&str> = of.iter().map(|read| &*read.table).collect();
                    names.join(", ")
                };
                if unheld.is_empty() {
                    let held = names(&held);
                    format!("walcast, by the row, the claims and what it holds of {held}")
                } else {
                    elsewhere(true, &format!("its policies read {}, not held", names(&unheld)))
                }
            }
        }
    }

    /// Whether what can be held fits.
    fn together(&self) -> Option<Finding> {
        let held = self.forecasts.iter().filter(|read| read.unheld.is_empty());
        let bytes: usize = held.filter_map(|read| read.bytes).sum();
        let bytes_max = self.config.replicas.bytes_max;
        let message = format!(
            "the tables that policies read take about {bytes} bytes, and may take {bytes_max}: some \
             will not be held"
        );
        (bytes > bytes_max).then(|| Finding {
            severity: Severity::Warning,
            code: "replicas-too-large",
            subject: "replicas.bytes_max".to_owned(),
            message,
            mend: None,
        })
    }
}

/// What is said of a table that policies read.
fn of_read(read: &Forecast, readers: &Readers) -> Vec<Finding> {
    let size = match (read.rows, read.bytes) {
        (Some(rows), Some(bytes)) => format!("about {rows} rows, {bytes} bytes in memory"),
        _ => "how many rows there are is not known".to_owned(),
    };
    let of: Vec<&str> = readers.names.iter().map(String::as_str).collect();
    let what = format!("policies of {} read its {}", of.join(", "), read.columns.join(", "));
    let fine = Finding {
        severity: Severity::Notice,
        code: "replica",
        subject: read.table.clone(),
        message: format!("{what}; {size}"),
        mend: None,
    };
    if read.unheld.is_empty() {
        return vec![fine];
    }
    let (severity, then) = if readers.refused {
        (Severity::Warning, "so that subscriptions are refused")
    } else {
        (Severity::Notice, "so that Postgres is asked instead")
    };
    let findings = read.unheld.iter().map(|(why, remedy)| Finding {
        severity,
        code: "replica-unheld",
        message: format!("{what}, and it can't be held, {then}: {why}; {size}"),
        mend: remedy.clone(),
        ..fine.clone()
    });
    findings.collect()
}

fn name(table: &Table) -> String {
    format!("{}.{}", table.relation.schema, table.relation.name)
}

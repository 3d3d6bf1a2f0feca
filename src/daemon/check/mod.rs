//! What the configuration and the database give reason to say: both connections are tried, then the
//! catalogue is asked. For `walcast check --online`, and for `CHECK` on the console of a daemon that
//! runs.
//!
//! Nothing is changed there. What can't be asked because something more basic is wrong is not
//! guessed at: the finding says what is wrong, and the next run says the rest.

use std::error::Error;
use std::sync::Arc;

use serde_json::json;

use crate::catalog::Catalog;
use crate::catalog::CatalogError;
use crate::catalog::audit::Expectations;
use crate::catalog::audit::Finding;
use crate::catalog::audit::Severity;
use crate::catalog::audit::judge;
use crate::catalog::snapshot::Snapshot;
use crate::config::Access;
use crate::config::Config;
use crate::daemon::settings;
use crate::daemon::settings::SettingsError;
use crate::ingest::walsender;
use crate::rule::Rule;

mod security;
mod tiers;

/// What the configuration itself gives reason to say.
#[must_use]
pub fn offline(config: &Config) -> Vec<Finding> {
    let finding = |warning: &String| {
        let (subject, message) = warning.split_once(": ").unwrap_or(("", warning));
        Finding {
            severity: Severity::Warning,
            code: "configuration",
            subject: subject.to_owned(),
            message: message.to_owned(),
            mend: None,
        }
    };
    config.warnings.iter().map(finding).collect()
}

/// Looks at the database that the configuration names.
pub async fn online(config: &Config) -> Vec<Finding> {
    let catalog = settings::catalog(config);
    let catalog = match catalog {
        Ok(catalog) => async { Catalog::connect(catalog).await },
        Err(error) => return vec![unusable(&error)],
    };
    look(config, async { catalog.await.map(Arc::new) }).await
}

/// The same by a daemon that runs: through the catalogue's own connection.
pub(super) async fn running(config: &Config, catalog: Arc<Catalog>) -> Vec<Finding> {
    let looked = async {
        catalog.refresh().await?;
        Ok(catalog)
    };
    [offline(config), look(config, looked).await].concat()
}

async fn look(
    config: &Config,
    catalog: impl Future<Output = Result<Arc<Catalog>, CatalogError>>,
) -> Vec<Finding> {
    let (ingest, roles) = match (settings::ingest(config), settings::catalog(config)) {
        (Ok(ingest), Ok(catalog)) => (ingest, catalog.roles),
        (Err(error), _) | (_, Err(error)) => return vec![unusable(&error)],
    };
    let expected = settings::expectations(config, &ingest, &roles);
    let asked = async { ask(config, &expected, &*catalog.await?).await };
    let mut findings = match Box::pin(asked).await {
        Ok(findings) => findings,
        Err(error) => vec![unanswered("asking-role-connection", "database.ask_url", &error)],
    };
    // What is known to be wrong with the role explains a refusal better than the refusal.
    let explained = |finding: &Finding| finding.code.starts_with("replication-role");
    if !findings.iter().any(|finding| explained(finding) && finding.severity == Severity::Error)
        && let Err(error) = walsender::connect(&ingest).await
    {
        findings.push(unanswered("replication-connection", "database.url", &error));
    }
    findings
}

async fn ask(
    config: &Config,
    expected: &Expectations,
    catalog: &Catalog,
) -> Result<Vec<Finding>, CatalogError> {
    let facts = catalog.facts(expected).await?;
    let snapshot = catalog.current();
    let mut findings = judge(&facts, &snapshot, expected);
    findings.extend(policies(config, &snapshot));
    findings.extend(security::findings(config, &snapshot, &expected.roles));
    findings.extend(tiers::findings(config, catalog, &expected.roles).await?);
    Ok(findings)
}

/// Policies that can't be decided over the table as it is.
///
/// Each is bound to claims that hold nothing, so that what is found does not depend on anybody's
/// token: a claim that is not there is null, whatever it is cast to.
fn policies(config: &Config, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &config.tables {
        let Access::Policy(policy) = &table.access else { continue };
        let Some(known) = snapshot.table(&table.schema, &table.name) else { continue };
        let Err(error) = Rule::bind(policy, &known.relation, &json!({})) else { continue };
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        findings.push(Finding {
            severity: Severity::Error,
            code: "policy-undecidable",
            subject: settings::table_name(&table.schema, &table.name).to_string(),
            message: format!("its policy can't be decided, so clients are refused: {error}{hint}"),
            mend: None,
        });
    }
    findings
}

fn unusable(error: &SettingsError) -> Finding {
    unanswered("configuration", "database", error)
}

/// No connection, with all that is known of why.
fn unanswered(code: &'static str, subject: &str, error: &dyn Error) -> Finding {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    Finding { severity: Severity::Error, code, subject: subject.to_owned(), message, mend: None }
}

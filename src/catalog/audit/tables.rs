//! What is said of the published tables.

use crate::catalog::audit::Access;
use crate::catalog::audit::Expectations;
use crate::catalog::audit::Finding;
use crate::catalog::audit::Severity;
use crate::catalog::audit::facts::Facts;
use crate::catalog::audit::facts::Identity;
use crate::catalog::audit::qualified;
use crate::catalog::audit::quoted;
use crate::catalog::snapshot::RowSecurity;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::snapshot::Table;
use crate::change::types::Kind;
use crate::change::types::Type;

/// Tables whose changes the publication breaks, or whose old rows are not in the stream.
pub(super) fn identities(facts: &Facts) -> Vec<Finding> {
    let publishes = facts
        .publication
        .as_ref()
        .is_none_or(|publication| publication.pubupdate || publication.pubdelete);
    let tables = facts.identities.iter();
    tables.filter_map(|table| identity(table, publishes)).collect()
}

fn identity(table: &Identity, publishes: bool) -> Option<Finding> {
    let subject = qualified(&table.schema, &table.name);
    if !table.usable && publishes {
        let message = if table.published {
            "has no usable replica identity: every UPDATE and DELETE of it fails while it is \
             published"
        } else {
            "has no usable replica identity: give it one before it is published, or every UPDATE and \
             DELETE of it will fail"
        };
        let mend = if table.has_key && table.kind != "d" {
            format!("ALTER TABLE {subject} REPLICA IDENTITY DEFAULT;")
        } else {
            format!("ALTER TABLE {subject} REPLICA IDENTITY FULL;")
        };
        let finding = Finding::new(Severity::Error, "identity-missing", subject, message);
        return Some(finding.mended_by(mend));
    }
    if table.kind != "f" && table.usable {
        let message = "its old rows are in the stream by key only: a DELETE can be judged only \
                       by the key's columns, and nobody is told that a row leaves a filter";
        let mend = format!("ALTER TABLE {subject} REPLICA IDENTITY FULL;");
        let finding = Finding::new(Severity::Notice, "identity-key-only", subject, message);
        return Some(finding.mended_by(mend));
    }
    None
}

/// Tables that clients can't have although the configuration names them, or that nobody mentions.
pub(super) fn access(facts: &Facts, snapshot: &Snapshot, expected: &Expectations) -> Vec<Finding> {
    let mut findings = Vec::new();
    for wanted in &expected.tables {
        let (schema, name) = (&*wanted.name.schema, &*wanted.name.name);
        match snapshot.table(schema, name) {
            None => {
                let message = "the configuration names it, but there is no such table";
                let subject = qualified(schema, name);
                findings.push(Finding::new(Severity::Error, "table-missing", subject, message));
            }
            // Without a publication this is said once, of the publication.
            Some(table) if !table.published && facts.publication.is_some() => {
                findings.push(unpublished(table, expected));
            }
            Some(_) => {}
        }
    }
    let mut published: Vec<&Table> =
        snapshot.tables().map(|table| &**table).filter(|table| table.published).collect();
    published.sort_by_key(|table| (&table.relation.schema, &table.relation.name));
    for table in published {
        let (schema, name) = (&table.relation.schema, &table.relation.name);
        let named = expected
            .tables
            .iter()
            .find(|wanted| wanted.name.schema == *schema && wanted.name.name == *name);
        let access = named.map_or(Access::Unsaid, |wanted| wanted.access);
        findings.extend(visibility(table, access));
        findings.extend(grants(table, access, expected));
    }
    findings
}

fn unpublished(table: &Table, expected: &Expectations) -> Finding {
    let subject = qualified(&table.relation.schema, &table.relation.name);
    let message = "the configuration names it, but the publication does not have it";
    let mend = format!("ALTER PUBLICATION {} ADD TABLE {subject};", quoted(&expected.publication));
    Finding::new(Severity::Error, "table-unpublished", subject, message).mended_by(mend)
}

fn visibility(table: &Table, access: Access) -> Option<Finding> {
    let subject = qualified(&table.relation.schema, &table.relation.name);
    let guarded = table.row_security != RowSecurity::Off;
    let (severity, code, message) = match access {
        Access::Unsaid | Access::Open if guarded && table.policies.policies.is_empty() => (
            Severity::Warning,
            "row-security-without-policy",
            "has row-level security and no policy for SELECT: clients are refused",
        ),
        Access::Open if guarded => (
            Severity::Notice,
            "row-security-opened",
            "has row-level security: its policies decide, whatever `open = true` says",
        ),
        Access::Policy if guarded && !table.policies.policies.is_empty() => (
            Severity::Notice,
            "row-security-replaced",
            "has row-level security, and the configuration's policy takes the place of its own",
        ),
        Access::Unsaid if !guarded => (
            Severity::Notice,
            "table-closed",
            "is published, but has no row-level security, and the configuration neither opens it \
             nor gives it a policy: clients are refused",
        ),
        _ => return None,
    };
    Some(Finding::new(severity, code, subject, message))
}

/// A table that is open to clients, while no client's role may read it.
fn grants(table: &Table, access: Access, expected: &Expectations) -> Option<Finding> {
    let somebody = expected.roles.iter().any(|role| table.granted(role).is_some());
    let served = access != Access::Unsaid || !table.policies.policies.is_empty();
    if !served || somebody {
        return None;
    }
    let subject = qualified(&table.relation.schema, &table.relation.name);
    let message = "none of the client roles may SELECT from it (or use its schema)";
    let finding = Finding::new(Severity::Warning, "table-ungranted", &subject, message);
    let role = expected.roles.first()?;
    let (schema, role) = (quoted(&table.relation.schema), quoted(role));
    Some(finding.mended_by(format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {subject} TO {role};"
    )))
}

/// Columns that rules can't read, or whose JSON is not the server's own.
pub(super) fn types(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tables: Vec<&Table> = snapshot.tables().map(|table| &**table).collect();
    tables.sort_by_key(|table| (&table.relation.schema, &table.relation.name));
    for table in tables.into_iter().filter(|table| table.published) {
        let of_table = qualified(&table.relation.schema, &table.relation.name);
        for column in &table.relation.columns {
            let subject = format!("{of_table}.{}", quoted(&column.name));
            let name = &column.of.name;
            if is_cast_elsewhere(&column.of) {
                let message = format!(
                    "its type {name} has a cast to json that only the server can run: it is \
                     delivered as text"
                );
                findings.push(Finding::new(Severity::Warning, "type-cast", subject, message));
            } else if matches!(column.of.kind, Kind::Other) {
                let message = format!(
                    "its type {name} is opaque: delivered as text, and no rule can read it"
                );
                findings.push(Finding::new(Severity::Notice, "type-opaque", subject, message));
            }
        }
    }
    findings
}

fn is_cast_elsewhere(of: &Type) -> bool {
    match &of.kind {
        Kind::JsonCast => &*of.name != "hstore",
        Kind::Array { element, .. } => is_cast_elsewhere(element),
        Kind::Composite(attributes) => {
            attributes.iter().any(|attribute| is_cast_elsewhere(&attribute.of))
        }
        _ => false,
    }
}

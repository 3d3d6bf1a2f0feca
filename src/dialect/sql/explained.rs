//! An explanation as people read it, and as programs do.

use std::fmt;

use serde_json::Value;
use serde_json::json;

use crate::change::relation::ReplicaIdentity;
use crate::route::explain::Admission;
use crate::route::explain::Clause;
use crate::route::explain::ClauseOf;
use crate::route::explain::Explanation;
use crate::route::explain::Image;
use crate::route::explain::Outcome;
use crate::route::explain::Truth;
use crate::route::lookup::Found;
use crate::route::lookup::Known;

/// An explanation as lines: the answer, what it is about, and what each clause says.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'a>(pub &'a Explanation);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explained(of) = self;
        let identity = identity(of.identity);
        match &of.outcome {
            Outcome::Delivered(op) => writeln!(f, "delivered as {}: {}", op.name(), of.because)?,
            Outcome::Hidden => writeln!(f, "not delivered: {}", of.because)?,
            Outcome::Undecided => writeln!(f, "not delivered, undecided: {}", of.because)?,
            Outcome::Asked => writeln!(f, "Postgres is asked: {}", of.because)?,
            Outcome::Refused(refusal) => {
                writeln!(f, "refused ({}): {}", refusal.code(), of.because)?;
                if let Some(hint) = refusal.hint() {
                    writeln!(f, "  hint: {hint}")?;
                }
            }
        }
        writeln!(f, "table: {}, replica identity {identity}", of.table)?;
        writeln!(f, "role: {}", of.role)?;
        let (old, new) = (image(of.old), image(of.new));
        writeln!(f, "change: {}; the row before: {old}; after: {new}", of.change)?;
        let named = |wanted: &dyn Fn(&&_) -> bool| {
            let columns: Vec<&str> =
                of.columns.iter().filter(wanted).map(|column| &*column.name).collect();
            if columns.is_empty() { "none".to_owned() } else { columns.join(", ") }
        };
        writeln!(f, "columns granted: {}", named(&|column| column.granted))?;
        if of.columns.iter().any(|column| !column.granted) {
            writeln!(f, "columns not granted: {}", named(&|column| !column.granted))?;
        }
        if of.columns.iter().any(|column| column.granted && !column.delivered)
            && !matches!(of.outcome, Outcome::Refused(_))
        {
            writeln!(f, "columns delivered: {}", named(&|column| column.delivered))?;
        }
        writeln!(f, "rows are admitted by: {}", admission(of.admission).1)?;
        for clause in &of.clauses {
            write_clause(f, clause)?;
        }
        if !of.without_old.is_empty() {
            let columns = of.without_old.join(", ");
            writeln!(
                f,
                "limit: the stream does not carry the old value of {columns}, so rows that leave \
                 and deletes are not told; ALTER TABLE {} REPLICA IDENTITY FULL",
                of.table
            )?;
        }
        Ok(())
    }
}

fn write_clause(f: &mut fmt::Formatter<'_>, clause: &Clause) -> fmt::Result {
    let name = clause.name.as_deref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
    write!(f, "  {}{name}: {}", word(clause.of).1, clause.text)?;
    for (when, truth) in [("before", &clause.old), ("after", &clause.new)] {
        match truth {
            None => {}
            Some(Truth::True) => write!(f, "; {when}: true")?,
            Some(Truth::False) => write!(f, "; {when}: not true")?,
            Some(Truth::Unknown(why)) => write!(f, "; {when}: unknown ({why})")?,
        }
    }
    let asked = if clause.asked { " (Postgres was asked, as of now)" } else { "" };
    writeln!(f, "{asked}")
}

/// An explanation as one JSON object.
#[must_use]
pub fn to_json(of: &Explanation) -> Value {
    let truth = |truth: &Option<Truth>| match truth {
        None => Value::Null,
        Some(Truth::True) => json!({ "result": "true" }),
        Some(Truth::False) => json!({ "result": "not_true" }),
        Some(Truth::Unknown(why)) => json!({ "result": "unknown", "why": why }),
    };
    let clause = |clause: &Clause| {
        json!({
            "of": word(clause.of).0,
            "name": clause.name,
            "text": clause.text,
            "old": truth(&clause.old),
            "new": truth(&clause.new),
            "asked": clause.asked,
        })
    };
    let (outcome, op, code) = match &of.outcome {
        Outcome::Delivered(op) => ("delivered", Some(op.name()), None),
        Outcome::Hidden => ("hidden", None, None),
        Outcome::Undecided => ("undecided", None, None),
        Outcome::Asked => ("asked", None, None),
        Outcome::Refused(refusal) => ("refused", None, Some(refusal.code())),
    };
    let columns = of.columns.iter().map(|column| {
        json!({ "name": column.name, "granted": column.granted, "delivered": column.delivered })
    });
    json!({
        "outcome": outcome,
        "op": op,
        "code": code,
        "because": of.because,
        "table": of.table,
        "role": of.role,
        "replica_identity": identity(of.identity),
        "change": of.change,
        "old": image(of.old),
        "new": image(of.new),
        "columns": columns.collect::<Vec<_>>(),
        "admission": admission(of.admission).0,
        "clauses": of.clauses.iter().map(clause).collect::<Vec<_>>(),
        "without_old": of.without_old,
    })
}

/// What is to be said of the row beside the explanation.
#[must_use]
pub fn notes(found: &Found) -> String {
    let known = match found.known {
        Known::Whole => "",
        Known::Granted => {
            "note: the row was read as the client's role: of other columns nothing is known\n"
        }
        Known::KeyOnly => {
            "note: there is no such row, or neither the asking role nor the client's may see it; \
             only its key is known. a row that is said (--row, or ROW '{…}' on the console) is explained whole\n"
        }
    };
    let shown = match found.shown {
        None => "",
        Some(true) => "Postgres itself shows this row to the role with these claims\n",
        Some(false) => "Postgres itself shows no such row to the role with these claims\n",
    };
    format!("{known}{shown}")
}

const fn identity(identity: ReplicaIdentity) -> &'static str {
    match identity {
        ReplicaIdentity::Default => "default",
        ReplicaIdentity::Full => "full",
        ReplicaIdentity::Index => "index",
        ReplicaIdentity::Nothing => "nothing",
    }
}

const fn image(image: Image) -> &'static str {
    match image {
        Image::Absent => "none",
        Image::Sent => "whole",
        Image::Key => "key",
    }
}

/// The word for programs, and the one for people.
const fn admission(admission: Admission) -> (&'static str, &'static str) {
    match admission {
        Admission::Nothing => ("nothing", "nothing, the table is closed to clients"),
        Admission::Open => ("open", "open = true in the configuration"),
        Admission::Configuration => ("configuration", "the configuration's policy"),
        Admission::RowSecurity => ("row_security", "the table's row-level security"),
        Admission::Exempt => ("exempt", "everything, the role is exempt from row-level security"),
    }
}

const fn word(of: ClauseOf) -> (&'static str, &'static str) {
    match of {
        ClauseOf::Permissive => ("permissive", "permissive policy"),
        ClauseOf::Restrictive => ("restrictive", "restrictive policy"),
        ClauseOf::Configuration => ("configuration", "configured"),
        ClauseOf::Filter => ("filter", "filter"),
    }
}

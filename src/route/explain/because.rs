//! The sentence that says what decided.

use crate::route::explain::Clause;
use crate::route::explain::ClauseOf;
use crate::route::explain::Outcome;
use crate::route::explain::Truth;
use crate::route::image::Images;
use crate::route::plan::Refusal;
use crate::route::subscription::Op;

/// What decided, from the outcome and from what each clause says.
pub(super) fn because(outcome: &Outcome, clauses: &[Clause], images: &Images<'_>) -> String {
    match outcome {
        Outcome::Refused(refusal) => refused(refusal, clauses),
        Outcome::Delivered(Op::Truncate) => "everyone is told of a truncate".to_owned(),
        Outcome::Delivered(op) => {
            let of = |clause: &Clause| match op {
                Op::Delete | Op::Leave => clause.old.clone(),
                _ => clause.new.clone(),
            };
            delivered(*op, clauses, of)
        }
        Outcome::Asked => {
            unknown(clauses).unwrap_or_else(|| "the policies are not decided in process".to_owned())
        }
        Outcome::Hidden | Outcome::Undecided => {
            let by_old = images.new.is_none();
            let of = |clause: &Clause| if by_old { clause.old.clone() } else { clause.new.clone() };
            let row = if by_old { "the row before" } else { "the row" };
            if let Some(why) = blame(clauses, of, row) {
                return why;
            }
            // Only an update whose old image does not tell comes here.
            let why = blame(clauses, |clause| clause.old.clone(), "the row before");
            let why = why.unwrap_or_else(|| "the row before is not known".to_owned());
            format!("{why}, so it is not known whether the row leaves")
        }
    }
}

fn refused(refusal: &Refusal, clauses: &[Clause]) -> String {
    match refusal {
        Refusal::Policy { .. } | Refusal::PolicyUnread { .. } => unknown(clauses),
        _ => None,
    }
    .map_or_else(|| refusal.to_string(), |why| format!("{refusal}: {why}"))
}

/// The first clause that is not decided, and why.
fn unknown(clauses: &[Clause]) -> Option<String> {
    clauses.iter().find_map(|clause| match (&clause.new, &clause.old) {
        (Some(Truth::Unknown(why)), _) | (_, Some(Truth::Unknown(why))) => {
            Some(format!("{}: {why}", clause.called()))
        }
        _ => None,
    })
}

fn delivered(op: Op, clauses: &[Clause], of: impl Fn(&Clause) -> Option<Truth>) -> String {
    let admitting = clauses
        .iter()
        .find(|it| it.of == ClauseOf::Permissive && of(it) == Some(Truth::True))
        .map(Clause::called);
    let by = admitting.unwrap_or_else(|| match clauses {
        [] => "nothing restricts the rows".to_owned(),
        _ => "every clause".to_owned(),
    });
    let (row, verb) = match op {
        Op::Delete => ("the row before", "admitted"),
        Op::Leave => ("the row before, and not the row after,", "admitted"),
        Op::Enter => ("the row after, and not the row before,", "admits"),
        _ => ("the row", "admits"),
    };
    if clauses.is_empty() { by } else { format!("{by} {verb} {row}") }
}

/// The first clause that keeps a row back, and how.
fn blame(clauses: &[Clause], of: impl Fn(&Clause) -> Option<Truth>, row: &str) -> Option<String> {
    let permissive = |clause: &&Clause| clause.of == ClauseOf::Permissive;
    let refuses = |clause: &Clause| matches!(of(clause), Some(Truth::False));
    let must = |clause: &&Clause| clause.of != ClauseOf::Permissive;
    let mut any = clauses.iter().filter(permissive).peekable();
    if any.peek().is_some() && any.all(refuses) {
        return Some(format!("no permissive policy admits {row}"));
    }
    if let Some(clause) = clauses.iter().filter(must).find(|it| refuses(it)) {
        return Some(format!("{} does not admit {row}", clause.called()));
    }
    let unknown = |clause: &&Clause| matches!(of(clause), Some(Truth::Unknown(_)));
    let is_admitted = clauses.iter().any(|it| permissive(&it) && of(it) == Some(Truth::True));
    let open = |clause: &&Clause| !(is_admitted && permissive(clause));
    let clause = clauses.iter().filter(open).find(unknown)?;
    match of(clause) {
        Some(Truth::Unknown(why)) => {
            Some(format!("{} can't be decided of {row}: {why}", clause.called()))
        }
        _ => None,
    }
}

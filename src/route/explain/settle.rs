//! An explanation of a row that is there, where some policies are not decided here: with what Postgres
//! says of these, as of now.

use std::collections::HashMap;

use crate::ask::verdict::Word;
use crate::change::tuple::Cell;
use crate::route::explain::Clause;
use crate::route::explain::ClauseOf;
use crate::route::explain::Explanation;
use crate::route::explain::Outcome;
use crate::route::explain::Truth;
use crate::route::explain::because::because;
use crate::route::image::Images;
use crate::route::subscription::Op;

impl Explanation {
    /// The policies that are not decided here.
    pub(crate) fn open(&self) -> impl Iterator<Item = &str> {
        let is_open = matches!(self.outcome, Outcome::Asked | Outcome::Undecided);
        let open = move |clause: &&Clause| is_open && is_unknown(clause);
        self.clauses.iter().filter(open).filter_map(|clause| clause.name.as_deref())
    }

    /// Takes what Postgres says of them, and what comes of that.
    pub(crate) fn settled(mut self, words: &HashMap<Box<str>, Word>, row: &[Cell<'_>]) -> Self {
        for clause in self.clauses.iter_mut().filter(|clause| is_unknown(clause)) {
            let Some(word) = clause.name.as_ref().and_then(|name| words.get(name)) else {
                continue;
            };
            clause.asked = true;
            clause.new = Some(match word {
                Word::Seen => Truth::True,
                Word::Hidden => Truth::False,
                Word::Fails => Truth::Unknown("it raises an error in Postgres".to_owned()),
            });
        }
        if self.clauses.iter().any(|clause| clause.asked) {
            self.outcome = outcome(&self.clauses);
            let because = because(&self.outcome, &self.clauses, &Images::known(row));
            self.because = format!("{because}, as of now");
        }
        self
    }
}

fn is_unknown(clause: &Clause) -> bool {
    matches!(clause.of, ClauseOf::Permissive | ClauseOf::Restrictive)
        && matches!(clause.new, Some(Truth::Unknown(_)))
}

/// One permissive policy must be true, and everything else.
fn outcome(clauses: &[Clause]) -> Outcome {
    let says = |clause: &Clause, truth: &Truth| clause.new.as_ref() == Some(truth);
    let (any, all): (Vec<&Clause>, Vec<&Clause>) =
        clauses.iter().partition(|clause| clause.of == ClauseOf::Permissive);
    let admits = any.iter().any(|clause| says(clause, &Truth::True));
    let rejects = any.iter().all(|clause| says(clause, &Truth::False));
    if rejects || all.iter().any(|clause| says(clause, &Truth::False)) {
        Outcome::Hidden
    } else if admits && all.iter().all(|clause| says(clause, &Truth::True)) {
        Outcome::Delivered(Op::Snapshot)
    } else {
        Outcome::Undecided
    }
}

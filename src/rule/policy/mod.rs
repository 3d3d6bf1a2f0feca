//! Policies of the database: read twice, from the stored tree and from the printed text, and
//! bound to what a session asks with.
//!
//! ```text
//! polqual ──tree──▶ read ──▶ Expression ┐ bind(relation, session)
//!                                       ├──▶ two Rules: the same, or the policy is refused
//! pg_get_expr ──▶ parse_stored ─▶ Expression ┘
//! ```
//!
//! The tree says which operators, functions and types PostgreSQL has resolved, and has no words
//! that could be misread; the text says what a person sees. Each alone could be read wrongly; both
//! wrongly and alike is unlikely.
//!
//! # Invariants
//!
//! - A row that PostgreSQL hides is never admitted: what is not known, or could raise an error in
//!   another order of evaluation, is refused. (`tests/postgres/policies/`: PostgreSQL is asked.)
//! - Types, operators and functions are taken from lists; a node or a field that is on none makes the
//!   policy refused.
//! - What depends on a setting that nobody has set is visible only where it is visible for NULL and
//!   for the empty text.

mod tree;
mod constant;
mod read;
pub mod library;

use std::collections::BTreeMap;

use crate::change::relation::Relation;
use crate::rule::bind;
use crate::rule::bind::logic::junction;
use crate::rule::compiled::Rule;
use crate::rule::error::RuleError;
use crate::rule::expression::Expression;
use crate::rule::parse::parse_stored;
use crate::rule::policy::library::Library;
use crate::rule::session::Session;
use crate::rule::session::Unset;
use crate::rule::term::Term;

/// A policy as the catalogue has it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// `pg_policy.polqual`, as text.
    pub tree: &'a str,
    /// The same by `pg_get_expr`, with an empty `search_path`.
    pub text: &'a str,
    /// The table's columns by number (`pg_attribute.attnum`).
    pub columns: &'a BTreeMap<i16, Box<str>>,
}

/// A policy that was read, both ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    tree: Expression,
    text: Expression,
    /// Who may call the functions in it; absent where there are none.
    callers: library::Callers,
}

/// How the policies of a table for one role go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of these must admit a row.
    Permissive,
    /// All of these must.
    Restrictive,
}

impl Policy {
    /// Reads a policy both ways.
    ///
    /// # Errors
    ///
    /// [`RuleError`], which says what in it is not decided here.
    pub fn read(source: Source<'_>, library: &Library) -> Result<Policy, RuleError> {
        let mut tree = read::policy(source.tree, source.columns, library)?.node;
        let mut text = parse_stored(source.text)?;
        let callers = library.inline(&mut tree)?;
        library.inline(&mut text)?;
        Ok(Policy { tree: Expression::checked(tree)?, text: Expression::checked(text)?, callers })
    }

    /// Whether `role` may call the functions that the policy calls. Where it may not, PostgreSQL
    /// raises an error in place of every row.
    #[must_use]
    pub fn may_be_asked_by(&self, role: &str) -> bool {
        self.callers.as_ref().is_none_or(|roles| roles.iter().any(|known| &**known == role))
    }

    fn bind(&self, relation: &Relation, session: &Session<'_>) -> Result<Term, RuleError> {
        let tree = bind::bind_policy(&self.tree.node, relation, session)?;
        let text = bind::bind_policy(&self.text.node, relation, session)?;
        if tree != text {
            let reason = "its stored form and its text are read differently here";
            return Err(RuleError::unsupported("the policy", reason, ""));
        }
        if tree.may_fault() {
            let reason = "PostgreSQL may raise an error for some row, and which rows are seen then \
                          depends on the order in which it looks";
            return Err(RuleError::unsupported("a cast of a column", reason, ""));
        }
        Ok(tree)
    }
}

/// The rows that these policies together let a session see; none where none is permissive.
///
/// # Errors
///
/// [`RuleError`] of the first that can't be decided for this session, with its place in `policies`.
pub fn visible(
    policies: &[(&Policy, Kind)],
    relation: &Relation,
    session: &Session<'_>,
) -> Result<Rule, (usize, RuleError)> {
    let bound = |unset| {
        let session = session.taking(unset);
        let mut permissive = Vec::new();
        let mut both = Vec::new();
        for (place, (policy, kind)) in policies.iter().enumerate() {
            let term = policy.bind(relation, &session).map_err(|error| (place, error))?;
            match kind {
                Kind::Permissive => permissive.push(term),
                Kind::Restrictive => both.push(term),
            }
        }
        both.push(junction(permissive, true));
        Ok((junction(both, false), session.met_unset()))
    };
    let (fresh, met_unset) = bound(Unset::Null)?;
    if !met_unset {
        return Ok(Rule::of(fresh));
    }
    let (used, _) = bound(Unset::Empty)?;
    let both = if fresh == used { fresh } else { junction(vec![fresh, used], false) };
    Ok(Rule::of(both))
}

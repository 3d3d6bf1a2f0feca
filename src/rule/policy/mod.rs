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
mod body;
mod inline;
mod jsonb;
mod plpgsql;
pub mod library;
pub mod tables;

use std::collections::BTreeMap;

use crate::change::relation::Relation;
use crate::rule::bind;
use crate::rule::bind::Asking;
use crate::rule::bind::guard::Inside;
use crate::rule::bind::guard::without_recursion;
use crate::rule::bind::logic::junction;
use crate::rule::compiled::Rule;
use crate::rule::error::RuleError;
use crate::rule::expression::Expression;
use crate::rule::expression::Node;
use crate::rule::parse::parse_stored;
use crate::rule::policy::library::Library;
use crate::rule::policy::tables::Guard;
use crate::rule::policy::tables::Tables;
use crate::rule::session::Session;
use crate::rule::session::Settings;
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
    is_true: bool,
}

/// How the policies of a table for one role go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of these must admit a row.
    Permissive,
    /// All of these must.
    Restrictive,
}

/// One of the two ways in which a policy is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rule) enum Reading {
    /// From the stored tree.
    Tree,
    /// From the printed text.
    Text,
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
        let is_true = is_true(&tree) && text == Node::Boolean(true);
        library.inline(&mut tree, Reading::Tree)?;
        library.inline(&mut text, Reading::Text)?;
        let (tree, text) = (Expression::checked(tree)?, Expression::checked(text)?);
        Ok(Policy { tree, text, is_true })
    }

    /// Whether it is nothing but `true`.
    pub(in crate::rule) const fn is_true(&self) -> bool {
        self.is_true
    }

    pub(in crate::rule) const fn node(&self, reading: Reading) -> &Node {
        match reading {
            Reading::Tree => &self.tree.node,
            Reading::Text => &self.text.node,
        }
    }

    fn bind(
        &self,
        relation: &Relation,
        session: &Session<'_>,
        tables: &dyn Tables,
    ) -> Result<Term, RuleError> {
        let read = |reading| {
            let asking = Asking { session, tables, reading };
            bind::bind_policy(self.node(reading), relation, asking)
        };
        let (tree, text) = (read(Reading::Tree)?, read(Reading::Text)?);
        if tree != text {
            let reason = "its stored form and its text are read differently here";
            return Err(RuleError::unsupported("the policy", reason, ""));
        }
        // What the session knows would be computed by then.
        if !session.is_anybody() && tree.may_fault() {
            let reason = "PostgreSQL may raise an error for some row, and which rows are seen then \
                          depends on the order in which it looks";
            return Err(RuleError::unsupported("a cast of a column", reason, ""));
        }
        Ok(tree)
    }
}

/// What the policies of a table that concern a role read, whoever asks under it: a rule that is good
/// for nothing but its [sources](Rule::sources).
///
/// # Errors
///
/// [`RuleError`] of the first policy that is decided for nobody, with its place in `guards`.
pub fn surveyed(
    guards: &[Guard<'_>],
    relation: &Relation,
    role: &str,
    tables: &dyn Tables,
) -> Result<Rule, (usize, RuleError)> {
    let settings = Settings::default();
    visible(guards, relation, &Session::of_anybody(role, &settings), tables)
}

/// Whether the stored form is the constant `true`.
fn is_true(node: &Node) -> bool {
    match node {
        Node::Exactly { operand, of: 16 } => is_true(operand),
        Node::Cast { operand, to } => &**to == "bool" && **operand == Node::Text("t".into()),
        _ => false,
    }
}

/// The rows that these policies of a table together let a session see; none where none is permissive.
///
/// # Errors
///
/// [`RuleError`] of the first that can't be decided for this session, with its place in `guards`.
pub fn visible(
    guards: &[Guard<'_>],
    relation: &Relation,
    session: &Session<'_>,
    tables: &dyn Tables,
) -> Result<Rule, (usize, RuleError)> {
    let is_open = guards.iter().any(Guard::is_open);
    let inside = Inside { table: relation.id, role: session.role, outer: None };
    let bound = |unset| {
        let session = session.taking(unset);
        let mut permissive = Vec::new();
        let mut both = Vec::new();
        for (place, guard) in guards.iter().enumerate() {
            if is_open && guard.kind == Kind::Permissive {
                let checked = without_recursion(guard.reads, tables, &inside);
                checked.map_err(|error| (place, error))?;
                continue;
            }
            let bound = match guard.read {
                Ok(policy) => policy.bind(relation, &session, tables),
                Err(error) => Err(error.clone()),
            };
            let term = bound.map_err(|error| (place, error))?;
            match guard.kind {
                Kind::Permissive => permissive.push(term),
                Kind::Restrictive => both.push(term),
            }
        }
        if !is_open {
            both.push(junction(permissive, true));
        }
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

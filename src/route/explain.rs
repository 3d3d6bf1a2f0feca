//! Why a change is delivered to somebody, or is not: the same decision as delivery's, with its
//! reasons.
//!
//! ```text
//! relation, claims, request ──plan──▶ Rule ──decide(images)──▶ Outcome
//!                      └ clause by clause, on each image ────▶ Clause, and which one decided
//! ```
//!
//! The outcome is what [`plan_for`](crate::route::plan::plan_for) and
//! [`decide`] say, which are what a live session asks, so it can't
//! disagree with what is delivered. The clauses are bound by the same functions, each alone.
//!
//! # Invariants
//!
//! - What an operator reads here holds names and texts of policies and filters, never a claim's
//!   value or a row's.

mod because;
mod recall;
mod settle;

use std::sync::Arc;

use crate::auth::Claims;
use crate::catalog::snapshot::RowSecurity;
use crate::catalog::snapshot::Table;
use crate::change::cursor::Cursor;
use crate::change::relation::Relation;
use crate::change::relation::ReplicaIdentity;
use crate::change::transaction::ChangeKind;
use crate::change::tuple::Cell;
use crate::ring::Gap;
use crate::route::admit;
use crate::route::decide::Decision;
use crate::route::decide::decide;
use crate::route::explain::because::because;
use crate::route::image::ImageKind;
use crate::route::image::Images;
use crate::route::image::Moments;
use crate::route::plan;
use crate::route::plan::Context;
use crate::route::plan::Plan;
use crate::route::plan::Refusal;
use crate::route::policy::Policy;
use crate::route::subscription::Filter;
use crate::route::subscription::Op;
use crate::route::subscription::Request;
use crate::rule::Others;
use crate::rule::Rule;
use crate::rule::RuleError;
use crate::rule::Undecided;
use crate::rule::Verdict;
use crate::rule::policy::Kind;

/// What is to be explained.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A row that is there, as a snapshot or an insert brings it; what is not known of it is
    /// [`Cell::Unchanged`].
    Row(&'a [Cell<'a>]),
    /// A change of the stream.
    Change(&'a ChangeKind<'a>),
}

/// Why somebody gets something, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The table.
    pub table: Box<str>,
    /// The role that the claims name.
    pub role: Box<str>,
    /// What comes of it.
    pub outcome: Outcome,
    /// What decided that, as a sentence.
    pub because: String,
    /// The columns, with what the role may do with each.
    pub columns: Vec<ColumnGrant>,
    /// What says which rows the role may see.
    pub admission: Admission,
    /// Policies and filter, one by one.
    pub clauses: Vec<Clause>,
    /// What happened: `row`, `insert`, `update`, `delete` or `truncate`.
    pub change: &'static str,
    /// What there is of the row before.
    pub old: Image,
    /// What there is of the row after.
    pub new: Image,
    /// Which old values the stream carries.
    pub identity: ReplicaIdentity,
    /// The columns that decide and whose old values the stream does not carry: updates and deletes
    /// that depend on them are not decided.
    pub without_old: Vec<Box<str>>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is delivered, as this.
    Delivered(Op),
    /// It is none of theirs.
    Hidden,
    /// It can't be decided, so it is not delivered.
    Undecided,
    /// What is decided here admits it, and Postgres is asked of the rest.
    Asked,
    /// They may not even subscribe so.
    Refused(Refusal),
}

/// What says which rows a role may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing does: the table is closed.
    Nothing,
    /// The configuration opens the table, and the database has no row-level security for it.
    Open,
    /// A policy of the configuration, in place of the database's.
    Configuration,
    /// The database's policies.
    RowSecurity,
    /// The database has policies, but the role is exempt: its owner's, or `BYPASSRLS`.
    Exempt,
}

/// What a role may do with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnGrant {
    /// The column.
    pub name: Box<str>,
    /// Whether the role may select it.
    pub granted: bool,
    /// Whether the subscription delivers it.
    pub delivered: bool,
}

/// A part of what decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// What it is.
    pub of: ClauseOf,
    /// The policy's name.
    pub name: Option<Box<str>>,
    /// What it says, as the database or the client wrote it.
    pub text: Box<str>,
    /// What it says of the row before.
    pub old: Option<Truth>,
    /// What it says of the row after.
    pub new: Option<Truth>,
    /// Whether Postgres was asked for that, as of now.
    pub asked: bool,
}

/// What a clause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClauseOf {
    /// A policy of the database; one such must be true.
    Permissive,
    /// A policy of the database that must be true.
    Restrictive,
    /// A part of the configuration's policy, which must be true.
    Configuration,
    /// A part of the filter, which must be true.
    Filter,
}

/// What a clause says of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It is true.
    True,
    /// It is false, or null.
    False,
    /// It can't be said, and why.
    Unknown(String),
}

/// What there is of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Nothing, as there is no such row.
    Absent,
    /// All of it, or all but some large values that did not change.
    Sent,
    /// The replica identity's columns.
    Key,
}

/// Something that happened, to be looked up in the ring and explained for somebody.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The change's cursor.
    pub cursor: Cursor,
    /// For whom.
    pub claims: Claims,
    /// The filter that they would ask with.
    pub filter: Option<Filter>,
}

/// Why there is nothing to be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The ring does not hold the change.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// The cursor lies between transactions.
    #[error("the cursor is of no change (expected the `cursor` of a row)")]
    NoChange,
    /// There is no ring yet.
    #[error("walcast has not read anything yet")]
    NoRing,
}

/// Explains what becomes of a row or a change for these claims and this request.
#[must_use]
pub fn explain(
    context: Context<'_>,
    claims: &Claims,
    request: &Request,
    relation: &Arc<Relation>,
    subject: Subject<'_>,
) -> Explanation {
    explain_among(context, claims, request, relation, (subject, Moments::NONE))
}

/// The same where the rows of other tables are known.
fn explain_among(
    context: Context<'_>,
    claims: &Claims,
    request: &Request,
    relation: &Arc<Relation>,
    (subject, others): (Subject<'_>, Moments<'_>),
) -> Explanation {
    let images = match subject {
        Subject::Row(cells) => Images::known(cells),
        Subject::Change(kind) => Images::of(relation, kind),
    }
    .among(others);
    let plan = plan::plan_for(context, claims, request, relation);
    let table = plan::table(context, request).ok();
    let asking = Asking { context, claims, request, relation, images: &images };
    let clauses = table.map(|table| asking.clauses(table)).unwrap_or_default();
    let outcome = match &plan {
        Err(refusal) => Outcome::Refused(refusal.clone()),
        // Here Postgres was not asked for the row in the client's name.
        Ok(plan) if is_unheld(&plan.rule, &images) => Outcome::Undecided,
        Ok(plan) => match decide(&plan.rule, &images) {
            Decision::Shown(visible) if plan.asked.is_some() && visible.op() != Op::Truncate => {
                Outcome::Asked
            }
            Decision::Shown(visible) => Outcome::Delivered(visible.op()),
            Decision::Hidden => Outcome::Hidden,
            Decision::Undecided if plan.asked.is_some() => Outcome::Asked,
            Decision::Undecided | Decision::Unheld => Outcome::Undecided,
        },
    };
    let because = because(&outcome, &clauses, &images);
    Explanation {
        table: request.table.to_string().into(),
        role: claims.role().into(),
        outcome,
        because,
        columns: table.map(|table| asking.columns(table, plan.as_ref().ok())).unwrap_or_default(),
        admission: table.map_or(Admission::Nothing, |table| asking.admission(table)),
        clauses,
        change: match images.kind {
            ImageKind::Snapshot => "row",
            ImageKind::Insert => "insert",
            ImageKind::Update => "update",
            ImageKind::Delete => "delete",
            ImageKind::Truncate => "truncate",
        },
        old: old_image(&images, relation),
        new: if images.new.is_some() { Image::Sent } else { Image::Absent },
        identity: relation.identity,
        without_old: plan.map(|plan| without_old(&plan.rule, relation)).unwrap_or_default(),
    }
}

fn is_unheld(rule: &Rule, images: &Images<'_>) -> bool {
    let unheld = Verdict::Undecided(Undecided::Unheld);
    images.new.as_deref().is_some_and(|row| rule.evaluate_among(row, images.others.after) == unheld)
}

fn old_image(images: &Images<'_>, relation: &Relation) -> Image {
    match &images.old {
        None => Image::Absent,
        Some(_) if images.old_sent && relation.identity == ReplicaIdentity::Full => Image::Sent,
        Some(_) => Image::Key,
    }
}

fn without_old(rule: &Rule, relation: &Relation) -> Vec<Box<str>> {
    if !plan::lacks_old_image(rule, relation) {
        return Vec::new();
    }
    let read = rule.columns().iter().filter_map(|position| relation.columns.get(*position));
    read.filter(|column| !column.in_identity).map(|column| column.name.clone()).collect()
}

/// Who asks for what, of which images.
struct Asking<'a, 'b> {
    context: Context<'a>,
    claims: &'a Claims,
    request: &'a Request,
    relation: &'a Relation,
    images: &'a Images<'b>,
}

impl Asking<'_, '_> {
    fn admission(&self, table: &Table) -> Admission {
        match (self.context.policies.of(&self.request.table), table.row_security) {
            (Some(Policy::Rule(_)), _) => Admission::Configuration,
            (Some(Policy::Open), RowSecurity::Off) => Admission::Open,
            (None, RowSecurity::Off) => Admission::Nothing,
            _ if table.policies.exempts(self.claims.role()) => Admission::Exempt,
            _ => Admission::RowSecurity,
        }
    }

    fn columns(&self, table: &Table, plan: Option<&Plan>) -> Vec<ColumnGrant> {
        let delivered = |position| {
            plan.is_some_and(|plan| {
                plan.projection.columns.iter().any(|column| column.position == position)
            })
        };
        let columns = self.relation.columns.iter().enumerate();
        columns
            .map(|(position, column)| ColumnGrant {
                name: column.name.clone(),
                granted: table.may_select(self.claims.role(), &column.name),
                delivered: delivered(position),
            })
            .collect()
    }

    fn clauses(&self, table: &Table) -> Vec<Clause> {
        let bind = |part: &crate::rule::Expression| {
            Rule::bind(part, self.relation, self.claims.json()).map_err(|error| error.to_string())
        };
        let mut clauses = Vec::new();
        match (self.admission(table), self.context.policies.of(&self.request.table)) {
            (Admission::Configuration, Some(Policy::Rule(rule))) => {
                let parts = rule.clauses();
                clauses.extend(parts.iter().map(|part| {
                    let text = part.to_string();
                    self.clause((ClauseOf::Configuration, None), text, &bind(part))
                }));
            }
            (Admission::RowSecurity, _) => {
                let policies = admit::one_by_one(self.context, self.claims, (table, self.relation));
                clauses.extend(policies.into_iter().map(|(policy, rule)| {
                    let of = match policy.kind {
                        Kind::Permissive => ClauseOf::Permissive,
                        Kind::Restrictive => ClauseOf::Restrictive,
                    };
                    self.clause((of, Some(policy.name.clone())), policy.text.to_string(), &rule)
                }));
            }
            _ => {}
        }
        let filter = self.request.filter.as_ref().map(plan::parse);
        match filter {
            None => {}
            Some(Err(error)) => {
                let text = match &self.request.filter {
                    Some(Filter::Where(text) | Filter::Text(text)) => text.to_string(),
                    None => String::new(),
                };
                let wrong: Result<Rule, String> = Err(RuleError::to_string(&error));
                clauses.push(self.clause((ClauseOf::Filter, None), text, &wrong));
            }
            Some(Ok(filter)) => {
                clauses.extend(filter.clauses().iter().map(|part| {
                    self.clause((ClauseOf::Filter, None), part.to_string(), &bind(part))
                }));
            }
        }
        clauses
    }

    fn clause(
        &self,
        (of, name): (ClauseOf, Option<Box<str>>),
        text: String,
        rule: &Result<Rule, String>,
    ) -> Clause {
        let of_row = |row: Option<&[Cell<'_>]>, others: &dyn Others| {
            let row = row?;
            Some(match rule {
                Err(error) => Truth::Unknown(error.clone()),
                Ok(rule) => match rule.evaluate_among(row, others) {
                    Verdict::Admits => Truth::True,
                    Verdict::Rejects => Truth::False,
                    Verdict::Undecided(why) => Truth::Unknown(self.why(why)),
                },
            })
        };
        let Moments { before, after } = self.images.others;
        let old = of_row(self.images.old.as_deref(), before);
        let new = of_row(self.images.new.as_deref(), after);
        Clause { of, name, text: text.into(), old, new, asked: false }
    }

    fn why(&self, undecided: Undecided) -> String {
        match undecided {
            Undecided::Missing { column } => match self.relation.columns.get(column) {
                Some(column) => format!("the value of {} is not known", column.name),
                None => undecided.to_string(),
            },
            Undecided::Fault(_) | Undecided::MissingOperand | Undecided::Unheld => {
                undecided.to_string()
            }
        }
    }
}

impl Clause {
    /// What it is called in a sentence.
    #[must_use]
    pub fn called(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        match self.of {
            ClauseOf::Permissive => format!("policy \"{name}\""),
            ClauseOf::Restrictive => format!("restrictive policy \"{name}\""),
            ClauseOf::Configuration => {
                format!("the configuration's policy, in its part {}", self.text)
            }
            ClauseOf::Filter => format!("the filter, in its part {}", self.text),
        }
    }
}

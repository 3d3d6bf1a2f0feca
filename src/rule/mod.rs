//! What is true of a row: one expression language for filters, `where` clauses and policies.
//!
//! ```text
//! "status in ('open')"  ──parse──▶ ┐
//!                                  ├ Expression ──bind(relation, claims)──▶ Rule ──evaluate(row)──▶ Verdict
//! "status=in.(open)"   ──filter──▶ ┘
//!
//! pg_policy ──policy──▶ two Expressions ──bind(relation, session)──▶ Rule, where both say the same
//! ```
//!
//! # Invariants
//!
//! - A rule's verdict is the one that PostgreSQL gives, or the rule is refused when it is bound, or
//!   the verdict is `Undecided`. A wrong answer would be a leak. (Checked by
//!   `tests/postgres/rules/`, where PostgreSQL judges the same rows.)
//! - Claims are constants by then: nothing of a token is left in a rule but what it compares with.
//! - Rules that read the same, but for blanks and the case of words, are equal.
//! - No text makes this module panic or takes longer than its size warrants.
//!
//! It is assumed that the database is in UTF-8 and that the stream's session has `TimeZone` UTC,
//! `DateStyle` ISO, `IntervalStyle` postgres, `extra_float_digits` 1 or more and `bytea_output` hex.

mod error;
mod expression;
mod session;
mod parse;
mod filter;
mod of;
mod value;
mod bind;
mod compiled;
mod term;
mod apply;
mod sql;
mod text;
mod subquery;
mod reach;
pub mod policy;

pub use compiled::Equality;
pub use compiled::Rule;
pub use compiled::Verdict;
pub use error::RuleError;
pub use expression::DEPTH_MAX;
pub use expression::Expression;
pub use expression::FILTER_LIST_MAX;
pub use expression::LIST_MAX;
pub use expression::NODES_MAX;
pub use expression::TEXT_BYTES_MAX;
pub use filter::parse_filter;
pub use parse::parse_where;
pub use reach::Cover;
pub use reach::Reach;
pub use reach::Shift;
pub use session::ClaimPath;
pub use session::Session;
pub use session::Settings;
pub use session::is_setting_name;
pub use sql::Condition;
pub use sql::quoted_name;
pub use sql::quoted_text;
pub use subquery::Alone;
pub use subquery::Key;
pub use subquery::Lookup;
pub use subquery::Others;
pub use subquery::Source;
pub use subquery::Visit;
pub use subquery::Wanted;
pub use term::Undecided;
pub use value::Fault;

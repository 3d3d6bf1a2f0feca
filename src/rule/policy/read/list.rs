//! What is decided: the operators, functions and casts, by name and types.
//!
//! Left out is what depends on settings of the session (time zones, the form of dates), on the
//! clock, on other rows, or on code that is not the server's.

use crate::rule::expression::Comparison;
use crate::rule::expression::Function;
use crate::rule::expression::Node;
use crate::rule::expression::Operator as Binary;
use crate::rule::expression::Pattern;
use crate::rule::policy::library::Builtin;
use crate::rule::policy::library::Operator;

const BOOL: u32 = 16;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const JSON: u32 = 114;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIME: u32 = 1083;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const INTERVAL: u32 = 1186;
const TIMETZ: u32 = 1266;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;
const JSONB: u32 = 3802;
const BYTEA: u32 = 17;
const TEXTS: u32 = 1009;
const ANY_ARRAY: u32 = 2277;
const ANY_ENUM: u32 = 3500;

/// What an operator does.
pub(super) enum Meaning {
    Compare(Comparison),
    Match { how: Pattern, negated: bool },
    Binary(Binary),
}

impl Meaning {
    pub(super) fn applied(self, left: Node, right: Node) -> Node {
        match self {
            Meaning::Compare(op) => Node::compare(op, left, right),
            Meaning::Match { how, negated } => {
                let (operand, pattern) = (Box::new(left), Box::new(right));
                Node::Match { operand, pattern, how }.not_if(negated)
            }
            Meaning::Binary(op) => {
                Node::Binary { op, left: Box::new(left), right: Box::new(right) }
            }
        }
    }
}

/// Whether a declared type stands for several.
pub(super) const fn is_polymorphic(of: u32) -> bool {
    matches!(of, ANY_ARRAY | ANY_ENUM)
}

const fn is_number(of: u32) -> bool {
    matches!(of, INT2 | INT4 | INT8 | FLOAT4 | FLOAT8 | NUMERIC)
}

/// Types whose values compare in the same way in every session.
const fn is_comparable(left: u32, right: u32) -> bool {
    match (left, right) {
        (left, right) if is_number(left) && is_number(right) => true,
        (NAME, TEXT) | (TEXT, NAME) | (DATE, TIMESTAMP) | (TIMESTAMP, DATE) => true,
        (left, right) if left == right => matches!(
            left,
            BOOL | NAME
                | TEXT
                | OID
                | BPCHAR
                | DATE
                | TIME
                | TIMESTAMP
                | TIMESTAMPTZ
                | INTERVAL
                | TIMETZ
                | UUID
                | JSONB
                | BYTEA
                | ANY_ARRAY
                | ANY_ENUM
        ),
        _ => false,
    }
}

/// What an operator of the server does; `None` where that is not decided.
pub(super) fn operator(operator: &Operator) -> Option<Meaning> {
    let (left, right) = (operator.left, operator.right);
    let compare = |op| is_comparable(left, right).then_some(Meaning::Compare(op));
    let matched = |how, negated| {
        let texts = matches!((left, right), (TEXT | NAME | BPCHAR, TEXT));
        texts.then_some(Meaning::Match { how, negated })
    };
    let binary = |op, fits: bool| fits.then_some(Meaning::Binary(op));
    let json = matches!(left, JSON | JSONB);
    let contained = left == right && matches!(left, JSONB | ANY_ARRAY);
    match &*operator.name {
        "=" => compare(Comparison::Equal),
        "<>" => compare(Comparison::NotEqual),
        "<" => compare(Comparison::Less),
        "<=" => compare(Comparison::LessOrEqual),
        ">" => compare(Comparison::Greater),
        ">=" => compare(Comparison::GreaterOrEqual),
        "~~" => matched(Pattern::Like, false),
        "!~~" => matched(Pattern::Like, true),
        "~~*" => matched(Pattern::Ilike, false),
        "!~~*" => matched(Pattern::Ilike, true),
        "~" => matched(Pattern::Regex, false),
        "!~" => matched(Pattern::Regex, true),
        "~*" => matched(Pattern::RegexFold, false),
        "!~*" => matched(Pattern::RegexFold, true),
        "->" => binary(Binary::Get, json && matches!(right, TEXT | INT4)),
        "->>" => binary(Binary::GetText, json && matches!(right, TEXT | INT4)),
        "#>" => binary(Binary::GetPath, left == JSONB && right == TEXTS),
        "#>>" => binary(Binary::GetPathText, left == JSONB && right == TEXTS),
        "?" => binary(Binary::HasKey, left == JSONB && right == TEXT),
        "?|" => binary(Binary::HasAnyKey, left == JSONB && right == TEXTS),
        "?&" => binary(Binary::HasAllKeys, left == JSONB && right == TEXTS),
        "@>" => binary(Binary::Contains, contained),
        "<@" => binary(Binary::ContainedBy, contained),
        "&&" => binary(Binary::Overlaps, left == ANY_ARRAY && right == ANY_ARRAY),
        "||" => binary(Binary::Concat, left == TEXT && right == TEXT),
        _ => None,
    }
}

/// What a function of the server does, besides casts and settings.
pub(super) fn function(builtin: &Builtin) -> Option<Function> {
    match (&*builtin.name, &*builtin.arguments) {
        ("lower", [TEXT]) => Some(Function::Lower),
        ("upper", [TEXT]) => Some(Function::Upper),
        ("length" | "char_length" | "character_length", [TEXT]) => Some(Function::Length),
        _ => None,
    }
}

/// Whether a cast by a function of the server is decided.
pub(super) const fn is_cast(from: u32, to: u32) -> bool {
    match (from, to) {
        (INT2 | INT4 | INT8, INT2 | INT4 | INT8 | NUMERIC | FLOAT8)
        | (NUMERIC | FLOAT4, FLOAT8)
        | (NAME | BPCHAR | BOOL, TEXT)
        | (DATE, TIMESTAMP)
        | (TIMESTAMP, DATE) => from != to,
        _ => false,
    }
}

/// Whether a cast by the two types' texts is decided: both texts must be the same in every session.
pub(super) fn is_cast_through_text(from: u32, to: u32, is_enum: impl Fn(u32) -> bool) -> bool {
    let plain = |of| {
        matches!(of, BOOL | INT2 | INT4 | INT8 | OID | NUMERIC | UUID | JSON | JSONB) || is_enum(of)
    };
    match (from, to) {
        (TEXT | VARCHAR, DATE) | (JSON, JSONB) | (JSONB, JSON) => true,
        (TEXT | VARCHAR, to) => plain(to) || matches!(to, FLOAT8),
        (from, TEXT | VARCHAR) => plain(from) && from != JSON,
        _ => false,
    }
}

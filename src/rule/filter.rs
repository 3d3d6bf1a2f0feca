//! Filter strings, the PostgREST form: `status=in.(open,live),total=gt.5`.
//!
//! ```text
//! filter := item ("," item)*                                     all of them hold
//! item   := column "=" cond | ["not."] ("or" | "and") "=" "(" nested ("," nested)* ")"
//! nested := column "." cond | ["not."] ("or" | "and")     "(" nested ("," nested)* ")"
//! cond   := ["not."] op "." value
//! op     := eq neq lt lte gt gte in like ilike is match imatch isdistinct
//! ```
//!
//! The first form of an item is the one that Supabase's clients send; the rest is more than they
//! know. Commas count outside of quotes and parentheses; a quote opens only behind `.`, `(` or `,`,
//! and `\` stands before a character that is meant as it is. A value is cast to the column's type.

use std::borrow::Cow;

use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::DEPTH_MAX;
use crate::rule::expression::Expression;
use crate::rule::expression::FILTER_LIST_MAX;
use crate::rule::expression::Known;
use crate::rule::expression::Node;
use crate::rule::expression::Pattern;
use crate::rule::expression::TEXT_BYTES_MAX;
use crate::rule::value::array;

const GRAMMAR: &str = "a filter is column=operator.value, as in status=eq.open";

/// Reads a filter string. An empty one, or one of blanks, admits every row.
///
/// # Errors
///
/// [`RuleError`] when the text is no filter or passes a bound. Names and values are not looked at
/// yet.
pub fn parse_filter(text: &str) -> Result<Expression, RuleError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(RuleError::TooLarge { what: "its length in bytes", limit: TEXT_BYTES_MAX });
    }
    if text.contains('\0') {
        return Err(RuleError::syntax("a rule holds no NUL"));
    }
    if text.trim().is_empty() {
        return Ok(Expression { node: Node::Boolean(true) });
    }
    let items = split(text)?.into_iter().map(item).collect::<Result<Vec<_>, _>>()?;
    Expression::checked(Node::All(items))
}

/// Splits at the commas of the outermost level.
fn split(text: &str) -> Result<Vec<&str>, RuleError> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut depth = 0_usize;
    let mut quoted = false;
    let mut escaped = false;
    let mut before = None;
    for (at, character) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted {
            match character {
                '\\' => escaped = true,
                '"' => quoted = false,
                _ => {}
            }
        } else {
            match character {
                '"' if matches!(before, Some('.' | '(' | ',')) => quoted = true,
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    parts.push(text.get(from..at).unwrap_or_default());
                    from = at + 1;
                }
                _ => {}
            }
        }
        before = Some(character);
    }
    parts.push(text.get(from..).unwrap_or_default());
    let parts: Vec<&str> = parts.into_iter().map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty()) {
        let reason = "filter must not contain empty segments (check for extra commas)";
        return Err(RuleError::syntax(reason));
    }
    Ok(parts)
}

/// One item of the outermost level.
fn item(text: &str) -> Result<Node, RuleError> {
    let Some((column, condition)) = text.split_once('=') else {
        return Err(RuleError::syntax(format!("{GRAMMAR}; found {}", shown(text))));
    };
    let (negated, word) = match column.strip_prefix("not.") {
        Some(word) => (true, word),
        None => (false, column),
    };
    if matches!(word, "or" | "and")
        && let Some(inner) = parenthesised(condition)
    {
        return Ok(group(word, inner, 0)?.not_if(negated));
    }
    leaf(column, condition)
}

/// What stands between the outermost parentheses, where the text is nothing but them.
fn parenthesised(text: &str) -> Option<&str> {
    text.strip_prefix('(')?.strip_suffix(')')
}

/// `or(…)` and `and(…)`.
fn group(word: &str, inner: &str, depth: usize) -> Result<Node, RuleError> {
    if depth > DEPTH_MAX {
        return Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX });
    }
    let nodes = split(inner)?.into_iter().map(|part| nested(part, depth + 1));
    let nodes = nodes.collect::<Result<_, _>>()?;
    Ok(if word == "or" { Node::Any(nodes) } else { Node::All(nodes) })
}

fn nested(text: &str, depth: usize) -> Result<Node, RuleError> {
    let (negated, plain) = match text.strip_prefix("not.") {
        Some(plain) => (true, plain),
        None => (false, text),
    };
    for word in ["or", "and"] {
        if let Some(inner) = plain.strip_prefix(word).and_then(parenthesised) {
            return Ok(group(word, inner, depth)?.not_if(negated));
        }
    }
    let Some((column, condition)) = text.split_once('.') else {
        let grammar = "inside of or() and and() write column.operator.value";
        return Err(RuleError::syntax(format!("{grammar}; found {}", shown(text))));
    };
    leaf(column, condition)
}

/// One condition on a column.
fn leaf(column: &str, condition: &str) -> Result<Node, RuleError> {
    let (negated, rest) = match condition.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, condition),
    };
    let Some((op, value)) = rest.split_once('.') else {
        return Err(RuleError::syntax(format!("{GRAMMAR}; found {}", shown(rest))));
    };
    let column = Node::Column { qualifier: None, name: column.trim().into() };
    let compare = |op| Ok(Node::compare(op, column.clone(), text(value)));
    let matching = |how| {
        let (operand, pattern) = (Box::new(column.clone()), Box::new(text(value)));
        Ok(Node::Match { operand, pattern, how })
    };
    let node = match op {
        "eq" => compare(Comparison::Equal),
        "neq" => compare(Comparison::NotEqual),
        "lt" => compare(Comparison::Less),
        "lte" => compare(Comparison::LessOrEqual),
        "gt" => compare(Comparison::Greater),
        "gte" => compare(Comparison::GreaterOrEqual),
        "like" => matching(Pattern::Like),
        "ilike" => matching(Pattern::Ilike),
        "match" => matching(Pattern::Regex),
        "imatch" => matching(Pattern::RegexFold),
        "isdistinct" => Ok(Node::Distinct { left: Box::new(column), right: Box::new(text(value)) }),
        "is" => is(column, value),
        "in" => list(column, value),
        _ => {
            let reason = format!("the operator {} is not known; {GRAMMAR}", shown(op));
            return Err(RuleError::syntax(reason));
        }
    };
    Ok(node?.not_if(negated))
}

fn is(column: Node, value: &str) -> Result<Node, RuleError> {
    let operand = Box::new(column);
    let known = match value {
        "null" => return Ok(Node::IsNull(operand)),
        "true" => Known::True,
        "false" => Known::False,
        "unknown" => Known::Unknown,
        _ => return Err(RuleError::syntax("is. takes null, true, false or unknown")),
    };
    Ok(Node::Is { operand, known })
}

/// The inside of `in.(…)` is read like an array literal of PostgreSQL.
fn list(column: Node, value: &str) -> Result<Node, RuleError> {
    let Some(inner) = parenthesised(value) else {
        return Err(RuleError::syntax("`in` filter value must be wrapped by parentheses"));
    };
    let literal = format!("{{{inner}}}");
    let malformed = || RuleError::syntax("the list of an `in` filter is malformed");
    let (lengths, items) = array::items(literal.as_bytes()).ok_or_else(malformed)?;
    if lengths.len() > 1 {
        return Err(malformed());
    }
    if items.len() > FILTER_LIST_MAX {
        return Err(RuleError::TooLarge {
            what: "the number of values of an `in` filter",
            limit: FILTER_LIST_MAX,
        });
    }
    let element = |item: Option<Cow<'_, [u8]>>| match item {
        None => Node::Null,
        Some(text) => Node::Text(String::from_utf8_lossy(&text).into()),
    };
    let list: Vec<Node> = items.into_iter().map(element).collect();
    if list.is_empty() {
        // As `= ANY ('{}')`, but the column must exist and takes part.
        let right = Box::new(Node::Text("{}".into()));
        let op = Comparison::Equal;
        return Ok(Node::Quantified { op, left: Box::new(column), right, all: false });
    }
    Ok(Node::In { operand: Box::new(column), list })
}

/// A value: what is between the quotes where it is quoted as a whole, or the text as it stands.
fn text(value: &str) -> Node {
    Node::Text(unquoted(value).unwrap_or_else(|| value.to_owned()).into())
}

fn unquoted(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut characters = value.strip_prefix('"')?.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => out.push(characters.next()?),
            plain => out.push(plain),
        }
    }
    characters.next().is_none().then_some(out)
}

/// A part of the client's text, short enough for a message.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("\"{short}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        match parse_filter(text) {
            Ok(expression) => expression.node.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn conditions_are_read_as_supabase_s_clients_write_them() {
        assert_eq!(check("a=eq.1"), "(a = '1')");
        assert_eq!(check(" a=eq.1 , b=not.gt.2"), "(a = '1' AND NOT (b > '2'))");
        assert_eq!(
            check("name=eq.\"a,b\\\"c\",st=not.in.(x,\"y(z)\"),d=is.null,q=like.%z%"),
            "(name = 'a,b\"c' AND NOT (st IN ('x', 'y(z)')) AND d IS NULL AND q LIKE '%z%')"
        );
        assert_eq!(check("a=eq.x=y.z"), "(a = 'x=y.z')");
        assert_eq!(check("a=in.(1,NULL,\"NULL\")"), "(a IN ('1', NULL, 'NULL'))");
        assert_eq!(check("a=eq.\"open"), "(a = '\"open')");
        assert_eq!(check("a=eq."), "(a = '')");
        assert_eq!(check("a=isdistinct.1"), "(a IS DISTINCT FROM '1')");
        assert_eq!(check("  "), "true");
    }

    #[test]
    fn groups_nest() {
        assert_eq!(
            check("or=(a.eq.1,and(b.gt.2,c.is.null))"),
            "((a = '1' OR (b > '2' AND c IS NULL)))"
        );
        assert_eq!(check("not.or=(a.eq.1,b.not.eq.2)"), "(NOT ((a = '1' OR NOT (b = '2'))))");
        assert_eq!(
            check("a=eq.1,or=(b.in.(1,2),not.and(c.eq.3))"),
            "(a = '1' AND (b IN ('1', '2') OR NOT ((c = '3'))))"
        );
        assert_eq!(check("or=eq.1"), "(or = '1')");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("a=eq.1,", "filter must not contain empty segments (check for extra commas)"),
            ("a", "a filter is column=operator.value, as in status=eq.open; found \"a\""),
            ("a=in.1", "`in` filter value must be wrapped by parentheses"),
            ("a=is.5", "is. takes null, true, false or unknown"),
            (
                "a=cs.5",
                "the operator \"cs\" is not known; a filter is column=operator.value, as in status=eq.open",
            ),
        ] {
            assert_eq!(check(text), message, "{text}");
        }
    }

    #[test]
    fn a_hostile_filter_is_refused_cheaply() {
        let list = |count: usize| format!("a=in.({})", vec!["1"; count].join(","));
        assert!(parse_filter(&list(FILTER_LIST_MAX)).is_ok());
        assert!(parse_filter(&list(FILTER_LIST_MAX + 1)).is_err());
        let nested = format!("or={}a.eq.1{}", "(or".repeat(2000), ")".repeat(2000));
        assert!(parse_filter(&nested).is_err());
        let deep = format!("or=({}a.eq.1{})", "or(".repeat(2000), ")".repeat(2000));
        assert!(parse_filter(&deep).is_err());
        assert!(parse_filter(&"(".repeat(16_000)).is_err());
    }
}

//! The parser's tree in, ours out; what is not listed here is refused.
//!
//! Each operand must bind as tightly as its place asks (see `precedence`).

use sqlparser::ast::BinaryOperator;
use sqlparser::ast::CastKind;
use sqlparser::ast::DataType;
use sqlparser::ast::Expr;
use sqlparser::ast::Function as Call;
use sqlparser::ast::FunctionArg;
use sqlparser::ast::FunctionArgExpr;
use sqlparser::ast::FunctionArguments;
use sqlparser::ast::Ident;
use sqlparser::ast::ObjectName;
use sqlparser::ast::UnaryOperator;
use sqlparser::ast::Value;

use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::DEPTH_MAX;
use crate::rule::expression::Function;
use crate::rule::expression::Known;
use crate::rule::expression::LIST_MAX;
use crate::rule::expression::Node;
use crate::rule::expression::Operator;
use crate::rule::expression::Pattern;
use crate::rule::parse::keywords::is_reserved;
use crate::rule::parse::precedence::AND;
use crate::rule::parse::precedence::BETWEEN;
use crate::rule::parse::precedence::Binding;
use crate::rule::parse::precedence::CAST;
use crate::rule::parse::precedence::COLLATE;
use crate::rule::parse::precedence::COMPARISON;
use crate::rule::parse::precedence::IS;
use crate::rule::parse::precedence::NOT;
use crate::rule::parse::precedence::OR;
use crate::rule::parse::precedence::OTHER;
use crate::rule::parse::precedence::SIGN;
use crate::rule::parse::precedence::WHOLE;
use crate::rule::parse::precedence::binding;
use crate::rule::parse::precedence::comparison;
use crate::rule::parse::query;
use crate::rule::parse::stored;

/// Converts an operand that must bind at least as tightly as `least`.
pub(super) fn operand(tree: &Expr, least: Binding, depth: usize) -> Result<Node, RuleError> {
    if binding(tree) < least {
        return match convert(tree, depth + 1) {
            Err(error) => Err(error),
            Ok(node) => Err(RuleError::syntax(format!("put {node} in parentheses"))),
        };
    }
    convert(tree, depth + 1)
}

fn boxed(tree: &Expr, least: Binding, depth: usize) -> Result<Box<Node>, RuleError> {
    operand(tree, least, depth).map(Box::new)
}

/// Converts a tree that stands `depth` below the text's root.
pub(in crate::rule) fn convert(tree: &Expr, depth: usize) -> Result<Node, RuleError> {
    if depth > DEPTH_MAX {
        return Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX });
    }
    let is = |tree, known| -> Result<Node, RuleError> {
        Ok(Node::Is { operand: boxed(tree, IS + 1, depth)?, known })
    };
    Ok(match tree {
        Expr::Identifier(name) if stored::is_current_role(name) => Node::CurrentUser,
        Expr::Identifier(name) => match &*column(name)? {
            "claims" if name.quote_style.is_none() => Node::Claims,
            name => Node::Column { qualifier: None, name: name.into() },
        },
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, name] => Node::Column { qualifier: Some(column(table)?), name: column(name)? },
            _ => return Err(RuleError::unsupported(tree, "write column or table.column", "")),
        },
        Expr::Value(value) => literal(&value.value)?,
        Expr::Nested(inner) => convert(inner, depth + 1)?,
        Expr::BinaryOp { left, op, right } => binary(tree, (left, op, right), depth)?,
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => operand(expr, NOT, depth)?.not(),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => negative(expr, depth)?,
        Expr::IsNull(inner) => Node::IsNull(boxed(inner, IS + 1, depth)?),
        Expr::IsNotNull(inner) => Node::IsNull(boxed(inner, IS + 1, depth)?).not(),
        Expr::IsTrue(inner) => is(inner, Known::True)?,
        Expr::IsNotTrue(inner) => is(inner, Known::True)?.not(),
        Expr::IsFalse(inner) => is(inner, Known::False)?,
        Expr::IsNotFalse(inner) => is(inner, Known::False)?.not(),
        Expr::IsUnknown(inner) => is(inner, Known::Unknown)?,
        Expr::IsNotUnknown(inner) => is(inner, Known::Unknown)?.not(),
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            let left = boxed(left, IS + 1, depth)?;
            let right = boxed(right, IS + 1, depth)?;
            let negated = matches!(tree, Expr::IsNotDistinctFrom(..));
            Node::Distinct { left, right }.not_if(negated)
        }
        Expr::InList { expr, list, negated } => {
            let operand = boxed(expr, BETWEEN + 1, depth)?;
            Node::In { operand, list: elements(list, depth)? }.not_if(*negated)
        }
        Expr::Between { expr, negated, low, high } => {
            let subject = operand(expr, BETWEEN + 1, depth)?;
            // The lower end is a restricted expression (`b_expr`) in PostgreSQL's grammar.
            let low = operand(low, SIGN, depth)?;
            let high = operand(high, BETWEEN + 1, depth)?;
            let above = Node::compare(Comparison::GreaterOrEqual, subject.clone(), low);
            let below = Node::compare(Comparison::LessOrEqual, subject, high);
            Node::All(vec![above, below]).not_if(*negated)
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
            matching(expr, pattern, (Pattern::Like, BETWEEN), depth)?.not_if(*negated)
        }
        Expr::ILike { negated, any: false, expr, pattern, escape_char: None } => {
            matching(expr, pattern, (Pattern::Ilike, BETWEEN), depth)?.not_if(*negated)
        }
        _ => rarer(tree, depth)?,
    })
}

fn rarer(tree: &Expr, depth: usize) -> Result<Node, RuleError> {
    Ok(match tree {
        Expr::AnyOp { left, compare_op, right, .. } => {
            quantified(left, compare_op, right, (false, depth))?
        }
        Expr::AllOp { left, compare_op, right } => {
            quantified(left, compare_op, right, (true, depth))?
        }
        Expr::Cast { kind: CastKind::DoubleColon, expr, data_type, format: None } => {
            Node::Cast { operand: boxed(expr, CAST, depth)?, to: type_name(data_type)? }
        }
        Expr::Cast { kind: CastKind::Cast, expr, data_type, format: None } => {
            Node::Cast { operand: boxed(expr, 0, depth)?, to: type_name(data_type)? }
        }
        Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
            let operand = Box::new(literal(&typed.value.value)?);
            Node::Cast { operand, to: type_name(&typed.data_type)? }
        }
        Expr::Interval(interval)
            if interval.leading_field.is_none()
                && interval.leading_precision.is_none()
                && interval.last_field.is_none()
                && interval.fractional_seconds_precision.is_none() =>
        {
            let operand = boxed(&interval.value, WHOLE, depth)?;
            if !matches!(*operand, Node::Text(_)) {
                return Err(RuleError::syntax("an interval is written interval '…'"));
            }
            Node::Cast { operand, to: "interval".into() }
        }
        Expr::Collate { expr, collation } => {
            let collation = match one_name(collation) {
                Some(name) if name.quote_style.is_some() => name.value.as_str().into(),
                _ => {
                    return Err(RuleError::unsupported(
                        &format!("COLLATE {collation}"),
                        "only \"C\" and \"POSIX\" are compared here as PostgreSQL does",
                        "write COLLATE \"C\"",
                    ));
                }
            };
            Node::Collate { operand: boxed(expr, COLLATE, depth)?, collation }
        }
        Expr::Array(array) if array.named => Node::Array(elements(&array.elem, depth)?),
        Expr::Function(call) => match stored::array(call) {
            Some(subquery) => query::array(subquery, depth)?,
            None => function(call, depth)?,
        },
        Expr::Case { operand, conditions, else_result, .. } => {
            let optional = |tree: &Option<Box<Expr>>| {
                tree.as_ref().map(|tree| boxed(tree, 0, depth)).transpose()
            };
            let arms = conditions.iter().map(|arm| {
                Ok((operand_of_any(&arm.condition, depth)?, operand_of_any(&arm.result, depth)?))
            });
            let arms = arms.collect::<Result<_, RuleError>>()?;
            Node::Case { operand: optional(operand)?, arms, otherwise: optional(else_result)? }
        }
        Expr::Subquery(subquery) => query::scalar(subquery, depth)?,
        Expr::Exists { subquery, negated } => query::exists(subquery, depth)?.not_if(*negated),
        Expr::InSubquery { expr, subquery, negated } => {
            query::among(expr, subquery, depth)?.not_if(*negated)
        }
        _ => return Err(RuleError::unsupported(tree, "it is no part of a rule", "")),
    })
}

fn operand_of_any(tree: &Expr, depth: usize) -> Result<Node, RuleError> {
    operand(tree, 0, depth)
}

pub(super) fn column(name: &Ident) -> Result<Box<str>, RuleError> {
    /// `NAMEDATALEN` less the end; PostgreSQL cuts longer names off.
    const NAME_BYTES_MAX: usize = 63;
    if name.value.len() > NAME_BYTES_MAX || name.value.is_empty() {
        return Err(RuleError::syntax("a name has 1 to 63 bytes"));
    }
    if name.quote_style.is_some() {
        return Ok(name.value.as_str().into());
    }
    let folded = name.value.to_ascii_lowercase();
    if is_reserved(&folded) {
        let reason = "it is a word of SQL";
        return Err(RuleError::unsupported(&folded, reason, "a column of that name needs quotes"));
    }
    Ok(folded.into())
}

fn literal(value: &Value) -> Result<Node, RuleError> {
    match value {
        Value::Null => Ok(Node::Null),
        Value::Boolean(value) => Ok(Node::Boolean(*value)),
        Value::SingleQuotedString(text) => Ok(Node::Text(text.as_str().into())),
        Value::Placeholder(text) => match text.strip_prefix('$').map(str::parse) {
            Some(Ok(number)) => Ok(Node::Parameter(number)),
            _ => Err(RuleError::unsupported(value, "parameters are numbered", "")),
        },
        Value::Number(text, false) if is_plain_number(text) => {
            Ok(Node::Number(text.as_str().into()))
        }
        _ => Err(RuleError::unsupported(value, "write a plain number or 'text'", "")),
    }
}

/// Digits with a point and an exponent at most: what every version of PostgreSQL reads alike.
fn is_plain_number(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, None),
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.is_none_or(|text| {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        !unsigned.is_empty() && digits(unsigned)
    });
    exponent && digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
}

/// `-5` is a constant; a minus before anything else is a subtraction from nothing.
fn negative(tree: &Expr, depth: usize) -> Result<Node, RuleError> {
    match operand(tree, SIGN, depth)? {
        Node::Number(text) if !text.starts_with('-') && !matches!(tree, Expr::Nested(_)) => {
            Ok(Node::Number(format!("-{text}").into()))
        }
        node => {
            let reason = "a sign stands before a plain number only";
            Err(RuleError::unsupported(&format!("- {node}"), reason, "write 0 - (…)"))
        }
    }
}

fn binary(
    tree: &Expr,
    (left, op, right): (&Expr, &BinaryOperator, &Expr),
    depth: usize,
) -> Result<Node, RuleError> {
    if let Some(op) = comparison(op) {
        let left = boxed(left, COMPARISON + 1, depth)?;
        let right = boxed(right, COMPARISON + 1, depth)?;
        return Ok(Node::Compare { op, left, right });
    }
    let plain = |op| -> Result<Node, RuleError> {
        let level = binding(tree);
        let (left, right) = (boxed(left, level, depth)?, boxed(right, level + 1, depth)?);
        Ok(Node::Binary { op, left, right })
    };
    let matched = |how| matching(left, right, (how, OTHER), depth);
    match op {
        BinaryOperator::And => Ok(Node::All(chain(tree, AND, depth)?)),
        BinaryOperator::Or => Ok(Node::Any(chain(tree, OR, depth)?)),
        BinaryOperator::Plus => plain(Operator::Add),
        BinaryOperator::Minus => plain(Operator::Subtract),
        BinaryOperator::Multiply => plain(Operator::Multiply),
        BinaryOperator::StringConcat => plain(Operator::Concat),
        BinaryOperator::Arrow => plain(Operator::Get),
        BinaryOperator::LongArrow => plain(Operator::GetText),
        BinaryOperator::HashArrow => plain(Operator::GetPath),
        BinaryOperator::HashLongArrow => plain(Operator::GetPathText),
        BinaryOperator::AtArrow => plain(Operator::Contains),
        BinaryOperator::ArrowAt => plain(Operator::ContainedBy),
        BinaryOperator::Question => plain(Operator::HasKey),
        BinaryOperator::QuestionPipe => plain(Operator::HasAnyKey),
        BinaryOperator::QuestionAnd => plain(Operator::HasAllKeys),
        BinaryOperator::PGOverlap => plain(Operator::Overlaps),
        BinaryOperator::PGRegexMatch => matched(Pattern::Regex),
        BinaryOperator::PGRegexNotMatch => Ok(matched(Pattern::Regex)?.not()),
        BinaryOperator::PGRegexIMatch => matched(Pattern::RegexFold),
        BinaryOperator::PGRegexNotIMatch => Ok(matched(Pattern::RegexFold)?.not()),
        BinaryOperator::PGLikeMatch => matched(Pattern::Like),
        BinaryOperator::PGNotLikeMatch => Ok(matched(Pattern::Like)?.not()),
        BinaryOperator::PGILikeMatch => matched(Pattern::Ilike),
        BinaryOperator::PGNotILikeMatch => Ok(matched(Pattern::Ilike)?.not()),
        _ => Err(RuleError::unsupported(op, "the operator is not known here", "")),
    }
}

/// The operands of a run of the same AND or OR, which leans to the left, without recursion.
fn chain(tree: &Expr, level: Binding, depth: usize) -> Result<Vec<Node>, RuleError> {
    let mut rights = Vec::new();
    let mut rest = tree;
    while let Expr::BinaryOp { left, right, .. } = rest
        && binding(rest) == level
    {
        rights.push(&**right);
        rest = left;
    }
    rights.push(rest);
    // The first operand is the only one that may bind as loosely as the operator itself; the loop
    // has taken that apart.
    rights.iter().rev().map(|tree| operand(tree, level + 1, depth)).collect()
}

fn matching(
    subject: &Expr,
    pattern: &Expr,
    (how, level): (Pattern, Binding),
    depth: usize,
) -> Result<Node, RuleError> {
    let left_least = if level == OTHER { OTHER } else { level + 1 };
    let operand = boxed(subject, left_least, depth)?;
    Ok(Node::Match { operand, pattern: boxed(pattern, level + 1, depth)?, how })
}

fn quantified(
    left: &Expr,
    op: &BinaryOperator,
    right: &Expr,
    (all, depth): (bool, usize),
) -> Result<Node, RuleError> {
    let Some(op) = comparison(op) else {
        return Err(RuleError::unsupported(op, "only comparisons go with ANY and ALL", ""));
    };
    let left = boxed(left, COMPARISON + 1, depth)?;
    if let Expr::Subquery(subquery) = right {
        return query::quantified((op, all), left, subquery, depth);
    }
    Ok(Node::Quantified { op, left, right: boxed(right, 0, depth)?, all })
}

fn elements(list: &[Expr], depth: usize) -> Result<Vec<Node>, RuleError> {
    if list.len() > LIST_MAX {
        return Err(RuleError::TooLarge {
            what: "the number of a list's elements",
            limit: LIST_MAX,
        });
    }
    if list.is_empty() {
        return Err(RuleError::syntax("a list needs an element"));
    }
    list.iter().map(|element| operand(element, 0, depth)).collect()
}

fn function(call: &Call, depth: usize) -> Result<Node, RuleError> {
    if let Some(node) = stored::function(call, depth)? {
        return Ok(node);
    }
    let unknown = || RuleError::unsupported(&call.name, "the function is not known here", "");
    let name =
        one_name(&call.name).filter(|name| name.quote_style.is_none()).ok_or_else(unknown)?;
    let (function, least, most) = match &*name.value.to_ascii_lowercase() {
        "lower" => (Function::Lower, 1, 1),
        "upper" => (Function::Upper, 1, 1),
        "length" | "char_length" | "character_length" => (Function::Length, 1, 1),
        "coalesce" => (Function::Coalesce, 1, LIST_MAX),
        "nullif" => (Function::Nullif, 2, 2),
        _ => return Err(unknown()),
    };
    let plain = !call.uses_odbc_syntax
        && call.within_group.is_empty()
        && call.filter.is_none()
        && call.null_treatment.is_none()
        && call.over.is_none()
        && matches!(call.parameters, FunctionArguments::None);
    let arguments = match &call.args {
        FunctionArguments::List(list)
            if plain && list.clauses.is_empty() && list.duplicate_treatment.is_none() =>
        {
            &list.args
        }
        _ => {
            return Err(RuleError::unsupported(call, "write the function with arguments only", ""));
        }
    };
    if arguments.len() < least || arguments.len() > most {
        return Err(RuleError::syntax(format!("{function} takes {least} to {most} arguments")));
    }
    let arguments = arguments.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(tree)) => operand(tree, 0, depth),
        _ => Err(RuleError::unsupported(argument, "arguments are plain expressions", "")),
    });
    Ok(Node::Call { function, arguments: arguments.collect::<Result<_, _>>()? })
}

pub(super) fn one_name(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    }
}

/// The type's own name (`int8` for `bigint`), with `[]` behind it for an array.
fn type_name(of: &DataType) -> Result<Box<str>, RuleError> {
    if let DataType::Custom(name, modifiers) = of
        && let Some(name) = stored::type_name(name)
        && modifiers.is_empty()
    {
        return Ok(name);
    }
    if let DataType::Custom(name, modifiers) = of
        && let Some(name) = one_name(name)
        && modifiers.is_empty()
    {
        return column(name);
    }
    let written = of.to_string().to_ascii_lowercase();
    let (element, array) = match written.strip_suffix("[]") {
        Some(element) => (element, "[]"),
        None => (&*written, ""),
    };
    let name = match element {
        "bool" | "boolean" => "bool",
        "smallint" | "int2" => "int2",
        "int" | "integer" | "int4" => "int4",
        "bigint" | "int8" => "int8",
        "real" | "float4" => "float4",
        "double precision" | "float8" => "float8",
        "numeric" | "decimal" => "numeric",
        "text" => "text",
        "varchar" | "character varying" => "varchar",
        "uuid" => "uuid",
        "date" => "date",
        "time" | "time without time zone" => "time",
        "time with time zone" | "timetz" => "timetz",
        "timestamp" | "timestamp without time zone" => "timestamp",
        "timestamp with time zone" | "timestamptz" => "timestamptz",
        "interval" => "interval",
        "json" => "json",
        "jsonb" => "jsonb",
        "bytea" => "bytea",
        "oid" => "oid",
        "name" => "name",
        _ => return Err(RuleError::unsupported(of, "no cast to that type is known here", "")),
    };
    Ok(format!("{name}{array}").into())
}

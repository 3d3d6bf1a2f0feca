//! What only the expressions of a database have: functions of its own, settings, `current_user`.

use sqlparser::ast::Expr;
use sqlparser::ast::Function as Call;
use sqlparser::ast::FunctionArg;
use sqlparser::ast::FunctionArgExpr;
use sqlparser::ast::FunctionArguments;
use sqlparser::ast::Ident;
use sqlparser::ast::ObjectName;
use sqlparser::ast::Query;
use sqlparser::ast::Value;

use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::expression::QUALIFIED;
use crate::rule::parse::convert::column;
use crate::rule::parse::convert::one_name;
use crate::rule::parse::convert::operand;

/// `current_role`, for which the parser has no call as for `current_user`.
pub(super) fn is_current_role(name: &Ident) -> bool {
    name.quote_style.is_none() && name.value.eq_ignore_ascii_case("current_role")
}

/// `current_user`, `current_setting(…)`, a function of the database; absent where it is none of these.
pub(super) fn function(call: &Call, depth: usize) -> Result<Option<Node>, RuleError> {
    let plain = one_name(&call.name).filter(|name| name.quote_style.is_none());
    let name = plain.map(|name| name.value.to_ascii_lowercase());
    match (name.as_deref(), call.name.0.as_slice()) {
        (Some("current_user" | "current_role"), _) if call.args == FunctionArguments::None => {
            Ok(Some(Node::CurrentUser))
        }
        (Some("current_setting"), _) => setting(call).map(Some),
        (Some(name), _) if is_own(name) => Ok(None),
        _ if called(&call.name)?.is_none() => Ok(None),
        _ => of_database(&call.name, &plain_arguments(call)?, depth).map(Some),
    }
}

/// `array(SELECT …)`.
pub(super) fn array(call: &Call) -> Option<&Query> {
    let name = one_name(&call.name).filter(|name| name.quote_style.is_none())?;
    let FunctionArguments::Subquery(query) = &call.args else { return None };
    // Whatever else the call has would be printed, too.
    let is_array = name.value.eq_ignore_ascii_case("array");
    (is_array && call.to_string() == format!("{name}({query})")).then_some(query)
}

/// The arguments of a function of this name, which is called with nothing else.
pub(super) fn called_with<'a>(call: &'a Call, name: &str) -> Option<Vec<&'a Expr>> {
    let called = one_name(&call.name).filter(|name| name.quote_style.is_none())?;
    let is_it = called.value.eq_ignore_ascii_case(name);
    is_it.then(|| plain_arguments(call).ok()).flatten()
}

/// `count(*)`.
pub(super) fn counts_rows(call: &Call) -> bool {
    call.to_string().eq_ignore_ascii_case("count(*)")
}

/// A function in whose place a table could stand: the call, and how its arguments are written.
pub(super) fn call(
    name: &ObjectName,
    arguments: &[FunctionArg],
    depth: usize,
) -> Result<(Node, String), RuleError> {
    let other = || RuleError::unsupported(name, "write the function with arguments only", "");
    let trees = plain(arguments).ok_or_else(other)?;
    let call = of_database(name, &trees, depth)?;
    Ok((call, format!("({})", written(&trees))))
}

/// The schema of a function, where one is written, and its name.
type Named = (Option<Box<str>>, Box<str>);

fn called(name: &ObjectName) -> Result<Option<Named>, RuleError> {
    let parts: Option<Vec<&Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
    Ok(match parts.as_deref() {
        Some([name]) => Some((None, column(name)?)),
        Some([schema, name]) => Some((Some(column(schema)?), column(name)?)),
        _ => None,
    })
}

fn of_database(name: &ObjectName, arguments: &[&Expr], depth: usize) -> Result<Node, RuleError> {
    let unknown = || RuleError::unsupported(name, "the function is not known here", "");
    let (schema, name) = called(name)?.ok_or_else(unknown)?;
    let arguments = arguments.iter().map(|tree| operand(tree, 0, depth));
    Ok(Node::User { schema, name, arguments: arguments.collect::<Result<_, _>>()? })
}

/// The functions that rules have themselves.
fn is_own(name: &str) -> bool {
    matches!(
        name,
        "lower" | "upper" | "length" | "char_length" | "character_length" | "coalesce" | "nullif"
    )
}

/// The arguments of a call that has nothing else.
fn plain_arguments(call: &Call) -> Result<Vec<&Expr>, RuleError> {
    let other = || RuleError::unsupported(call, "write the function with arguments only", "");
    let FunctionArguments::List(list) = &call.args else { return Err(other()) };
    let arguments = plain(&list.args).ok_or_else(other)?;
    // Whatever else the call has would be printed, too.
    if call.to_string() == format!("{}({})", call.name, written(&arguments)) {
        Ok(arguments)
    } else {
        Err(other())
    }
}

fn plain(arguments: &[FunctionArg]) -> Option<Vec<&Expr>> {
    let plain = arguments.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(tree)) => Some(tree),
        _ => None,
    });
    plain.collect()
}

fn written(arguments: &[&Expr]) -> String {
    arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn setting(call: &Call) -> Result<Node, RuleError> {
    let other = || RuleError::unsupported(call, "the name of a setting is a constant here", "");
    let FunctionArguments::List(list) = &call.args else { return Err(other()) };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(tree)) => constant(tree),
        _ => None,
    };
    let arguments: Option<Vec<Value>> = list.args.iter().map(argument).collect();
    let (name, missing_ok) = match arguments.as_deref() {
        Some([Value::SingleQuotedString(name)]) => (name, false),
        Some([Value::SingleQuotedString(name), Value::Boolean(missing_ok)]) => (name, *missing_ok),
        _ => return Err(other()),
    };
    Ok(Node::Setting { name: name.as_str().into(), missing_ok })
}

/// A literal, with `::text` behind it or not.
fn constant(tree: &Expr) -> Option<Value> {
    match tree {
        Expr::Value(value) => Some(value.value.clone()),
        Expr::Cast { expr, data_type, .. } if data_type.to_string() == "TEXT" => constant(expr),
        _ => None,
    }
}

/// The name of a type that is written with its schema, between which stands what no name has. Only
/// the policies of a database are taken with it.
pub(super) fn type_name(name: &ObjectName) -> Option<Box<str>> {
    match name.0.as_slice() {
        [schema, name] => {
            let (schema, name) = (column(schema.as_ident()?), column(name.as_ident()?));
            Some(format!("{}{QUALIFIED}{}", schema.ok()?, name.ok()?).into())
        }
        _ => None,
    }
}

//! What only the expressions of a database have: functions of its own, settings, `current_user`.

use sqlparser::ast::Expr;
use sqlparser::ast::Function as Call;
use sqlparser::ast::FunctionArg;
use sqlparser::ast::FunctionArgExpr;
use sqlparser::ast::FunctionArguments;
use sqlparser::ast::Ident;
use sqlparser::ast::ObjectName;
use sqlparser::ast::Value;

use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::expression::QUALIFIED;
use crate::rule::parse::convert::column;
use crate::rule::parse::convert::one_name;

/// `current_role`, for which the parser has no call as for `current_user`.
pub(super) fn is_current_role(name: &Ident) -> bool {
    name.quote_style.is_none() && name.value.eq_ignore_ascii_case("current_role")
}

/// `current_user`, `current_setting(…)`, `schema.function()`; absent where it is none of these.
pub(super) fn function(call: &Call) -> Result<Option<Node>, RuleError> {
    let plain = one_name(&call.name).filter(|name| name.quote_style.is_none());
    let name = plain.map(|name| name.value.to_ascii_lowercase());
    match (name.as_deref(), call.name.0.as_slice()) {
        (Some("current_user" | "current_role"), _) if call.args == FunctionArguments::None => {
            Ok(Some(Node::CurrentUser))
        }
        (Some("current_setting"), _) => setting(call).map(Some),
        (None, [schema, name]) => {
            let (Some(schema), Some(name)) = (schema.as_ident(), name.as_ident()) else {
                return Ok(None);
            };
            // Whatever else the call has would be printed, too.
            if call.to_string() != format!("{}()", call.name) {
                let reason = "only functions without arguments are looked into";
                return Err(RuleError::unsupported(call, reason, ""));
            }
            Ok(Some(Node::User { schema: column(schema)?, name: column(name)? }))
        }
        _ => Ok(None),
    }
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

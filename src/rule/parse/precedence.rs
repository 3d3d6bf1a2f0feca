//! How tightly PostgreSQL's operators bind.
//!
//! The parser's idea of that is not trusted. Each operand that stands without parentheses must bind
//! as tightly as PostgreSQL's grammar (`gram.y`) asks of that place. A tree in which all do is the
//! one tree that PostgreSQL makes of the text.

use sqlparser::ast::BinaryOperator;
use sqlparser::ast::CastKind;
use sqlparser::ast::Expr;
use sqlparser::ast::UnaryOperator;

use crate::rule::expression::Comparison;

/// How tightly something binds, by `gram.y`; the higher the tighter.
pub(super) type Binding = u8;
pub(super) const OR: Binding = 1;
pub(super) const AND: Binding = 2;
pub(super) const NOT: Binding = 3;
pub(super) const IS: Binding = 4;
pub(super) const COMPARISON: Binding = 5;
pub(super) const BETWEEN: Binding = 6;
pub(super) const OTHER: Binding = 7;
pub(super) const SUM: Binding = 8;
pub(super) const PRODUCT: Binding = 9;
pub(super) const COLLATE: Binding = 12;
pub(super) const SIGN: Binding = 13;
pub(super) const CAST: Binding = 15;
pub(super) const WHOLE: Binding = 20;

pub(super) fn binding(tree: &Expr) -> Binding {
    match tree {
        Expr::BinaryOp { op, .. } => match op {
            BinaryOperator::Or => OR,
            BinaryOperator::And => AND,
            BinaryOperator::Plus | BinaryOperator::Minus => SUM,
            BinaryOperator::Multiply => PRODUCT,
            op if comparison(op).is_some() => COMPARISON,
            _ => OTHER,
        },
        Expr::UnaryOp { op: UnaryOperator::Not, .. } | Expr::Exists { negated: true, .. } => NOT,
        Expr::UnaryOp { .. } => SIGN,
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..) => IS,
        Expr::AnyOp { .. } | Expr::AllOp { .. } => COMPARISON,
        Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. } => BETWEEN,
        Expr::Collate { .. } => COLLATE,
        Expr::Cast { kind: CastKind::DoubleColon, .. } => CAST,
        Expr::Nested(_)
        | Expr::Subquery(_)
        | Expr::Exists { .. }
        | Expr::Value(_)
        | Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Function(_)
        | Expr::Case { .. }
        | Expr::Array(_)
        | Expr::TypedString(_)
        | Expr::Interval(_)
        | Expr::Cast { .. } => WHOLE,
        // Nothing else is converted.
        _ => 0,
    }
}

pub(super) const fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

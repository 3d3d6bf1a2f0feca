//! Casts that are exact, and `COLLATE`.

use std::sync::Arc;

use crate::change::types::Kind;
use crate::rule::apply::Apply;
use crate::rule::bind::Binder;
use crate::rule::bind::Collated;
use crate::rule::bind::Typed;
use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::expression::QUALIFIED;
use crate::rule::of::Of;
use crate::rule::term::Term;
use crate::rule::value::Read;
use crate::rule::value::Value;
use crate::rule::value::array::Array;
use crate::rule::value::json;

impl Binder<'_> {
    pub(in crate::rule::bind) fn cast(
        &self,
        operand: &Node,
        to: &str,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let target = self.target(to, token)?;
        if let (Node::Array(nodes), Of::Array(element)) = (operand, &target) {
            return self.cast_array(nodes, element, token);
        }
        let typed = self.node(operand)?;
        if typed.of == Of::Unknown {
            let typed = self.coerce(typed, &target, token)?;
            return Ok(typed.with(Collated::Default));
        }
        if typed.of == target {
            return Ok(typed);
        }
        let claim = reads_claims(operand);
        let bound = self.convert(typed, &target, token);
        // A malformed claim is named by its cast; what it holds stays out of the message.
        bound.map_err(|error| match error {
            RuleError::Type { .. } if claim => RuleError::value(operand, target.to_string()),
            other => other,
        })
    }

    /// The type that a cast names: a built-in one, or an enum that a column of the relation has.
    pub(in crate::rule::bind) fn target(&self, to: &str, token: &Node) -> Result<Of, RuleError> {
        match to {
            "json" if self.policy.is_some() => return Ok(Of::Json),
            "bpchar" if self.policy.is_some() => return Ok(Of::Bpchar),
            _ => {}
        }
        // Which schema it is in is known to the other reading of a policy, and to nobody else.
        let to = to.split_once(QUALIFIED).map_or(to, |(_, name)| name);
        if let Some(of) = Of::named(to) {
            return Ok(of);
        }
        let columns = self.names.all().flat_map(|table| &table.relation.columns);
        let types = columns.map(|column| &column.of);
        let mut named = types.filter(|of| &*of.name == to && matches!(of.kind, Kind::Enum(_)));
        match named.next() {
            Some(of) if named.all(|other| other.id == of.id) => Ok(Of::Enum(Arc::clone(of))),
            _ => {
                let hint = if to == "json" { "cast to jsonb" } else { "" };
                Err(RuleError::unsupported(token, "no cast to that type is known here", hint))
            }
        }
    }

    /// `ARRAY['a', 'b']::uuid[]` casts each element.
    fn cast_array(&self, nodes: &[Node], element: &Of, token: &Node) -> Result<Typed, RuleError> {
        let mut values = Vec::new();
        for node in nodes {
            match self.cast(node, element.name(), node)?.term {
                Term::Constant(value) => values.push(value),
                _ => {
                    let reason = "an array's elements are constants here";
                    return Err(RuleError::unsupported(token, reason, ""));
                }
            }
        }
        let array = Value::Array(Box::new(Array::of(values)));
        Ok(Typed::constant(Some(array), Of::Array(element.clone().into())))
    }

    fn convert(&self, typed: Typed, target: &Of, token: &Node) -> Result<Typed, RuleError> {
        let relabel = |typed: Typed| Ok(Typed { of: target.clone(), ..typed });
        let apply = |typed: Typed, function| {
            let operand = Box::new(typed.term);
            let term = Term::Apply { function: Box::new(function), operand };
            self.fold(Typed { term, of: target.clone(), collated: typed.collated }, token)
        };
        match (&typed.of, target) {
            (Of::Int2, Of::Int4 | Of::Int8 | Of::Numeric)
            | (Of::Int4, Of::Int8 | Of::Numeric)
            | (Of::Int8, Of::Numeric)
            | (Of::Float4, Of::Float8)
            | (Of::Text | Of::Varchar | Of::Name | Of::Bpchar, Of::Text)
            | (Of::Text | Of::Name, Of::Varchar)
            | (Of::Timestamp, Of::TimestampTz)
            | (Of::TimestampTz, Of::Timestamp)
            | (Of::Jsonb, Of::Json) => relabel(typed),
            (Of::Int4 | Of::Int8, Of::Int2) => apply(typed, Apply::Narrow(i16::MAX.into())),
            (Of::Int8, Of::Int4) => apply(typed, Apply::Narrow(i32::MAX.into())),
            (of, Of::Float8) if of.is_number() => self.double(typed, token),
            (Of::Timestamp | Of::TimestampTz, Of::Date) => apply(typed, Apply::ToDay),
            (Of::Date, Of::Timestamp | Of::TimestampTz) => apply(typed, Apply::ToMoment),
            (_, Of::Text | Of::Varchar) if !matches!(typed.of, Of::Array(_) | Of::Bpchar) => {
                self.print(typed, target, token)
            }
            (Of::Json, Of::Jsonb) => self.normal(typed, token),
            (Of::Text | Of::Varchar, of) if !matches!(of, Of::Name | Of::Bpchar) => {
                Ok(apply(typed, Apply::Read(target.clone()))?.with(Collated::Default))
            }
            (from, to) => {
                let reason = format!("a cast from {from} to {to} is not exact or not known here");
                let hint =
                    if *from == Of::Jsonb { "take the text with ->> and cast that" } else { "" };
                Err(RuleError::unsupported(token, reason, hint))
            }
        }
    }

    /// A computed `json` as `jsonb` holds it.
    fn normal(&self, typed: Typed, token: &Node) -> Result<Typed, RuleError> {
        match typed.term {
            Term::Constant(None) => Ok(Typed::constant(None, Of::Jsonb)),
            Term::Constant(Some(Value::Json(json))) => {
                let json = json::normal(*json).ok_or_else(|| RuleError::value(token, "jsonb"))?;
                Ok(Typed::constant(Some(Value::Json(Box::new(json))), Of::Jsonb))
            }
            _ if self.is_anybody() => Ok(Typed::anything(Of::Jsonb)),
            _ => Err(RuleError::unsupported(token, "only computed from the claims", "")),
        }
    }

    /// A value's text: what the cell holds, or what can be printed here as PostgreSQL does.
    fn print(&self, typed: Typed, target: &Of, token: &Node) -> Result<Typed, RuleError> {
        let term = match (typed.term, &typed.of) {
            (Term::Column { column, .. }, of) if *of != Of::Bool => {
                Term::Column { column, read: Read::Text }
            }
            (Term::Constant(None), _) => Term::NULL,
            (Term::Constant(Some(Value::Numeric(text))), _) => {
                Term::Constant(Some(Value::Text(text)))
            }
            (operand, of)
                if of.is_integer()
                    || matches!(
                        of,
                        Of::Bool | Of::Oid | Of::Jsonb | Of::Uuid | Of::Bytea | Of::Enum(_)
                    ) =>
            {
                Term::Apply { function: Box::new(Apply::Print), operand: Box::new(operand) }
            }
            (_, of) => {
                let reason = format!("the text of a computed {of} is not known here");
                return Err(RuleError::unsupported(token, reason, ""));
            }
        };
        self.fold(Typed::new(term, target.clone()), token)
    }

    pub(in crate::rule::bind) fn collate(
        &self,
        operand: &Node,
        collation: &str,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        if !matches!(collation, "C" | "POSIX") {
            let reason = "only the collations \"C\" and \"POSIX\" are known here";
            return Err(RuleError::unsupported(token, reason, "write COLLATE \"C\""));
        }
        let typed = self.node(operand)?;
        let typed = self.coerce(typed, &Of::Text, operand)?;
        if !typed.of.is_text() {
            let reason = format!("collations are not supported by type {}", typed.of);
            return Err(RuleError::types(token, reason, ""));
        }
        Ok(typed.with(Collated::Bytes))
    }
}

/// Whether a value of the token is in it.
fn reads_claims(node: &Node) -> bool {
    node.has(&|node| matches!(node, Node::Claims | Node::Setting { .. }))
}

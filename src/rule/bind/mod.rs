//! Names and types: a tree of the text in, a tree of terms out.
//!
//! Types are found as PostgreSQL finds them (documentation, chapter "Type Conversion"): a quoted
//! constant takes the type of what it stands against, and so on; where its choice between operators
//! is not certain here, the rule is refused. Terms without a column are evaluated at once.

mod asked;
mod cast;
mod column;
mod compare;
pub(in crate::rule) mod logic;
mod operator;
mod names;
mod case;
mod inline;
mod join;
mod sides;
mod subquery;
pub(in crate::rule) mod guard;

use serde_json::Value as Json;

use crate::change::relation::Relation;
use crate::change::types::Collation;
use crate::rule::bind::guard::Inside;
use crate::rule::bind::logic::junction;
use crate::rule::bind::logic::not;
use crate::rule::bind::names::Layout;
use crate::rule::bind::names::Names;
use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::Function;
use crate::rule::expression::Node;
use crate::rule::of::Of;
use crate::rule::policy::Reading;
use crate::rule::policy::tables::Tables;
use crate::rule::session::Session;
use crate::rule::subquery::Scope;
use crate::rule::term::Term;
use crate::rule::value::Value;
use crate::rule::value::array::Array;
use crate::rule::value::decimal;
use crate::rule::value::input;
use crate::rule::value::json;

/// Binds a whole rule: a boolean.
pub(in crate::rule) fn bind(
    node: &Node,
    relation: &Relation,
    claims: &Json,
) -> Result<Term, RuleError> {
    let names = Names::row(relation, &[]);
    Binder { names: &names, claims, policy: None, is_positive: false }.boolean(node)
}

/// What a policy of the database is bound with.
#[derive(Clone, Copy)]
pub(in crate::rule) struct Asking<'a> {
    pub(in crate::rule) session: &'a Session<'a>,
    pub(in crate::rule) tables: &'a dyn Tables,
    pub(in crate::rule) reading: Reading,
}

/// Binds a policy of the database, as one session sees it.
pub(in crate::rule) fn bind_policy(
    node: &Node,
    relation: &Relation,
    asking: Asking<'_>,
) -> Result<Term, RuleError> {
    let Asking { session, tables, reading } = asking;
    let (names, layout) = (Names::row(relation, &[]), Layout::default());
    let inside = Inside { table: relation.id, role: session.role, outer: None };
    let policy = InPolicy {
        session,
        tables,
        reading,
        layout: &layout,
        role: session.role,
        inside: &inside,
        height: relation.columns.len(),
    };
    let binder =
        Binder { names: &names, claims: session.claims, policy: Some(policy), is_positive: true };
    let term = binder.boolean(node)?;
    if layout.settle() { binder.boolean(node) } else { Ok(term) }
}

/// What a node comes to that reads no column, and its type; `None` where it is no constant.
pub(in crate::rule) fn constant(
    node: &Node,
    relation: &Relation,
    claims: &Json,
) -> Option<(Option<Value<'static>>, Of)> {
    let names = Names::row(relation, &[]);
    let binder = Binder { names: &names, claims, policy: None, is_positive: false };
    match binder.node(node).ok()? {
        Typed { term: Term::Constant(value), of, .. } => Some((value, of)),
        _ => None,
    }
}

/// What a rule is bound to.
#[derive(Clone, Copy)]
struct Binder<'a> {
    names: &'a Names<'a>,
    claims: &'a Json,
    /// Only where a policy of the database is bound.
    policy: Option<InPolicy<'a>>,
    /// Whether NULL and FALSE come to the same here, for whoever asks.
    is_positive: bool,
}

/// What only a policy of the database has.
#[derive(Clone, Copy)]
struct InPolicy<'a> {
    session: &'a Session<'a>,
    tables: &'a dyn Tables,
    reading: Reading,
    layout: &'a Layout,
    /// With whose rights tables are read.
    role: &'a str,
    /// The tables whose policies this stands in.
    inside: &'a Inside<'a>,
    /// Where the cells of the next source go.
    height: usize,
}

/// The place in the stack of what a session would know that is nobody's.
const ANYTHING: usize = usize::MAX;

/// Where a text's collation comes from; decides which comparisons are by bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Collated {
    /// A constant or a function's result: the database's own collation, which gives way.
    Default,
    /// A column.
    Column(Collation),
    /// `COLLATE "C"`.
    Bytes,
}

/// A term with its type.
#[derive(Clone, Debug)]
struct Typed {
    term: Term,
    of: Of,
    collated: Collated,
}

impl Typed {
    fn constant(value: Option<Value<'static>>, of: Of) -> Typed {
        Typed { term: Term::Constant(value), of, collated: Collated::Default }
    }

    const fn new(term: Term, of: Of) -> Typed {
        Typed { term, of, collated: Collated::Default }
    }

    /// What only a session that is somebody's knows.
    fn anything(of: Of) -> Typed {
        Typed::new(Term::Column { column: ANYTHING, read: of.read() }, of)
    }

    const fn with(mut self, collated: Collated) -> Typed {
        self.collated = collated;
        self
    }
}

impl Collated {
    /// The collation of something made of two texts.
    fn with(self, other: Collated, token: &Node) -> Result<Collated, RuleError> {
        let merged = match (self, other) {
            (Collated::Bytes, _) | (_, Collated::Bytes) => Collated::Bytes,
            (Collated::Default, other) | (other, Collated::Default) => other,
            (left, right) if left == right => left,
            _ => {
                let reason = "the two sides have different collations";
                return Err(RuleError::unsupported(
                    token,
                    reason,
                    "write COLLATE \"C\" behind one",
                ));
            }
        };
        if merged == Collated::Column(Collation::Nondeterministic) {
            let reason = "its collation is not deterministic, so not even equality is by bytes";
            return Err(RuleError::unsupported(token, reason, "write COLLATE \"C\" behind it"));
        }
        Ok(merged)
    }

    /// Whether order and case are the C locale's.
    const fn is_bytes(self) -> bool {
        matches!(self, Collated::Bytes | Collated::Column(Collation::Bytes))
    }
}

impl<'a> Binder<'a> {
    /// Binds what must be a boolean.
    fn boolean(&self, node: &Node) -> Result<Term, RuleError> {
        let typed = self.node(node)?;
        let typed = self.coerce(typed, &Of::Bool, node)?;
        if typed.of != Of::Bool {
            let reason = format!("a boolean is expected here, not {}", typed.of);
            return Err(RuleError::types(node, reason, ""));
        }
        Ok(typed.term)
    }

    fn node(&self, node: &Node) -> Result<Typed, RuleError> {
        match node {
            Node::All(nodes) => Ok(Typed::new(junction(self.booleans(nodes)?, false), Of::Bool)),
            Node::Any(nodes) => Ok(Typed::new(junction(self.booleans(nodes)?, true), Of::Bool)),
            Node::Compare { op, left, right } => self.compare(*op, left, right, node),
            Node::Subquery { asks, query } => self.subquery(asks, query, node),
            Node::Inlined(call) => self.inlined(call, node),
            Node::Case { operand: None, arms, otherwise } if self.is_positive => {
                match self.positive_case(arms, otherwise.as_deref())? {
                    Some(typed) => Ok(typed),
                    None => Binder { is_positive: false, ..*self }.operation(node),
                }
            }
            node => Binder { is_positive: false, ..*self }.operation(node),
        }
    }

    /// What is neither true nor false may be told from FALSE by what stands around it.
    fn operation(&self, node: &Node) -> Result<Typed, RuleError> {
        let test = |term| self.fold(Typed::new(term, Of::Bool), node);
        match node {
            Node::All(_)
            | Node::Any(_)
            | Node::Compare { .. }
            | Node::Subquery { .. }
            | Node::Inlined(_) => self.node(node),
            Node::Parameter(number) => self.numbered(*number, node),
            Node::Column { qualifier, name } => self.column(qualifier.as_deref(), name, node),
            Node::Claims => {
                let claims = json::normal(self.claims.clone());
                let claims = claims.ok_or_else(|| RuleError::value(node, "jsonb"))?;
                Ok(Typed::constant(Some(Value::Json(Box::new(claims))), Of::Jsonb))
            }
            Node::Null => Ok(Typed::constant(None, Of::Unknown)),
            Node::Boolean(value) => Ok(Typed::constant(Some(Value::Bool(*value)), Of::Bool)),
            Node::Number(text) => number(text, node),
            Node::Text(text) => {
                let value = input::input(text, &Of::Unknown);
                let value = value.ok_or_else(|| RuleError::value(node, "text"))?;
                Ok(Typed::constant(Some(value), Of::Unknown))
            }
            Node::Cast { operand, to } => self.cast(operand, to, node),
            Node::Collate { operand, collation } => self.collate(operand, collation, node),
            Node::Not(operand) => Ok(Typed::new(not(self.boolean(operand)?), Of::Bool)),
            Node::Distinct { left, right } => self.distinct(left, right, node),
            Node::IsNull(operand) => test(Term::IsNull(Box::new(self.nullable(operand)?))),
            Node::Is { operand, known } => {
                test(Term::Is { operand: Box::new(self.boolean(operand)?), known: *known })
            }
            Node::In { operand, list } => self.in_list(operand, list, node),
            Node::Match { operand, pattern, how } => self.matching(operand, pattern, *how, node),
            Node::Quantified { op, left, right, all } => {
                self.quantified((*op, *all), left, right, node)
            }
            Node::Array(nodes) => self.array(nodes, node),
            Node::Binary { op, left, right } => self.binary(*op, left, right, node),
            Node::Call { function, arguments } => self.call(*function, arguments, node),
            Node::Case { operand, arms, otherwise } => {
                self.case(operand.as_deref(), arms, otherwise.as_deref(), node)
            }
            Node::Setting { .. } | Node::CurrentUser | Node::User { .. } => self.asked(node),
            Node::Exactly { operand, of } => self.exactly(operand, *of, node),
            Node::Star { .. } => {
                Err(RuleError::unsupported(node, "what all of its columns are is not known", ""))
            }
        }
    }

    fn booleans(&self, nodes: &[Node]) -> Result<Vec<Term>, RuleError> {
        nodes.iter().map(|node| self.boolean(node)).collect()
    }

    /// Whether what depends on the session may be anything.
    fn is_anybody(&self) -> bool {
        self.policy.is_some_and(|policy| policy.session.is_anybody())
    }

    /// Evaluates a term that reads no column.
    fn fold(&self, typed: Typed, token: &Node) -> Result<Typed, RuleError> {
        let mut constant = !matches!(
            typed.term,
            Term::Constant(_) | Term::Column { .. } | Term::Same { .. } | Term::OneOf { .. }
        );
        typed.term.for_each_child(&mut |child| constant &= child.is_constant());
        if !constant {
            return Ok(typed);
        }
        let value = match typed.term.value(Scope::alone(&[])) {
            Ok(value) => value.map(Value::into_owned),
            Err(fault) => return Err(RuleError::types(token, fault.to_string(), "")),
        };
        Ok(Typed { term: Term::Constant(value), ..typed })
    }

    /// Gives a quoted constant or NULL a type; leaves what has one alone.
    fn coerce(&self, typed: Typed, of: &Of, token: &Node) -> Result<Typed, RuleError> {
        let Typed { term: Term::Constant(value), of: Of::Unknown, collated } = typed else {
            return Ok(typed);
        };
        let value = match value {
            None => None,
            Some(Value::Text(text)) => {
                let text = String::from_utf8_lossy(&text);
                let value = input::input(&text, of);
                Some(value.ok_or_else(|| RuleError::value(token, of.to_string()))?)
            }
            other => other,
        };
        Ok(Typed { term: Term::Constant(value), of: of.clone(), collated })
    }

    /// `ARRAY[…]` of constants.
    fn array(&self, nodes: &[Node], token: &Node) -> Result<Typed, RuleError> {
        let elements = nodes.iter().map(|node| self.node(node)).collect::<Result<Vec<_>, _>>()?;
        let element = self.common(&elements, token)?;
        if matches!(element, Of::Array(_)) {
            return Err(RuleError::unsupported(token, "an array here has one dimension", ""));
        }
        let mut values = Vec::new();
        for (typed, node) in elements.into_iter().zip(nodes) {
            let Term::Constant(value) = self.coerce(typed, &element, node)?.term else {
                let reason = "an array's elements are constants here";
                return Err(RuleError::unsupported(node, reason, "write x = a OR x = b"));
            };
            values.push(value);
        }
        let array = Value::Array(Box::new(Array::of(values)));
        Ok(Typed::constant(Some(array), Of::Array(element.into())))
    }

    /// The one type of several expressions that make one result.
    fn common(&self, all: &[Typed], token: &Node) -> Result<Of, RuleError> {
        let mut common = Of::Unknown;
        for Typed { of, .. } in all {
            common = match (common, of) {
                (Of::Unknown, of) => of.clone(),
                (common, Of::Unknown) => common,
                (common, of) if common == *of => common,
                (Of::Int8, Of::Int2 | Of::Int4) | (Of::Int2 | Of::Int4, Of::Int8) => Of::Int8,
                (Of::Int4, Of::Int2) | (Of::Int2, Of::Int4) => Of::Int4,
                (Of::Numeric, of) if of.is_integer() => Of::Numeric,
                (common, Of::Numeric) if common.is_integer() => Of::Numeric,
                (common, of) => {
                    let reason = format!("{common} and {of} are mixed");
                    return Err(RuleError::types(token, reason, "cast them to one type"));
                }
            };
        }
        Ok(if common == Of::Unknown { Of::Text } else { common })
    }

    fn call(
        &self,
        function: Function,
        arguments: &[Node],
        token: &Node,
    ) -> Result<Typed, RuleError> {
        match (function, arguments) {
            (Function::Coalesce, nodes) => {
                let nodes: Vec<&Node> = nodes.iter().collect();
                let (terms, of, collated) = self.results(&nodes, token)?;
                self.fold(Typed { term: Term::First(terms.into()), of, collated }, token)
            }
            (Function::Nullif, [left, right]) => {
                let condition = self.compare(Comparison::Equal, left, right, token)?.term;
                let (mut terms, of, collated) = self.results(&[left, right], token)?;
                terms.truncate(1);
                let otherwise = Box::new(terms.pop().unwrap_or(Term::NULL));
                let term = Term::Case { arms: Box::new([[condition, Term::NULL]]), otherwise };
                self.fold(Typed { term, of, collated }, token)
            }
            (Function::Lower | Function::Upper | Function::Length, [argument]) => {
                self.text_function(function, argument, token)
            }
            (_, _) => Err(RuleError::types(token, "wrong number of arguments", "")),
        }
    }
}

/// An unquoted number: the smallest of `int4`, `int8` and `numeric` that holds it as it is written.
fn number(text: &str, node: &Node) -> Result<Typed, RuleError> {
    if let Ok(value) = text.parse::<i64>() {
        let of = if i32::try_from(value).is_ok() { Of::Int4 } else { Of::Int8 };
        return Ok(Typed::constant(Some(Value::Int(value)), of));
    }
    let digits = decimal::parse(text).ok_or_else(|| RuleError::value(node, "numeric"))?;
    let value = Value::Numeric(std::borrow::Cow::Owned(digits.into_bytes()));
    Ok(Typed::constant(Some(value), Of::Numeric))
}

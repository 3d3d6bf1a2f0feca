//! Queries over other tables: `SUBLINK`, and the `QUERY` in it.
//!
//! A query is taken that joins tables, has a condition and selects expressions. Every other field of
//! it must say nothing (`Fields::end`).

use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::Function;
use crate::rule::expression::Node;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Query;
use crate::rule::policy::read::Level;
use crate::rule::policy::read::Meaning;
use crate::rule::policy::read::Reader;
use crate::rule::policy::read::Typed;
use crate::rule::policy::read::refused;
use crate::rule::policy::tree::Fields;
use crate::rule::policy::tree::Tree;

/// `int8(integer)`, in which a limit stands.
const INT8_OF_INT4: u32 = 481;
/// `array_agg(anynonarray)`.
const ARRAY_AGG: u32 = 2335;
/// `count(any)` and `count(*)`.
const COUNT: u32 = 2147;
const COUNT_ROWS: u32 = 2803;

pub(super) fn other(reason: &str) -> RuleError {
    refused("a subquery", reason)
}

/// A query that was read.
struct Selected {
    query: Query,
    /// What it selects, with its type, where that is one expression.
    output: Option<Typed>,
    /// What it is compared as, where that is several expressions.
    tested: Vec<Typed>,
    /// What is asked of all of it, where that is an aggregate.
    asks: Option<Asked>,
    /// What stands in the place of an aggregate that is NULL.
    otherwise: Option<Node>,
}

/// What a query says of itself beside what it asks for.
const NO_MATTER: &[&str] = &[
    "canSetTag",
    "hasSubLinks",
    "hasTargetSRFs",
    "isReturn",
    "limitOption",
    "querySource",
    "rteperminfos",
    "stmt_len",
    "stmt_location",
];

impl<'a> Reader<'a> {
    pub(super) fn sublink(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (kind, query) = (fields.word("subLinkType")?, fields.take("subselect")?.node()?);
        let test = fields.take("testexpr")?;
        fields.end(&["subLinkId", "operName"])?;
        if query.name != "QUERY" {
            return Err(other("it can't be read"));
        }
        match (kind, test) {
            ("0", Tree::Nothing) => {
                let Selected { query, asks, .. } = self.query(query, Vec::new(), depth)?;
                if asks.is_some() {
                    return Err(other("an aggregate always has a row"));
                }
                let (asks, query) = (Asked::Exists, Box::new(query));
                Ok(Typed { node: Node::Subquery { asks, query }, of: 16 })
            }
            ("4", Tree::Nothing) => self.value(query, depth),
            ("6", Tree::Nothing) => self.gathered(query, depth),
            ("1", Tree::Node(test)) => self.tested_query(query, test, true, depth),
            ("2", Tree::Node(test)) => self.tested_query(query, test, false, depth),
            _ => Err(other("only EXISTS, IN, ANY, ALL, ARRAY and a single value are decided here")),
        }
    }

    /// `(SELECT …)`: from nothing, the expression itself.
    pub(super) fn value(&self, query: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let Selected { query, output, asks, otherwise, .. } =
            self.query(query, Vec::new(), depth)?;
        let output = match output {
            Some(output) if query.from.is_empty() && !output.node.is_call() && asks.is_none() => {
                return Ok(output);
            }
            // Of a function's body there may be several values.
            output => output.map_or(0, |output| output.of),
        };
        let (of, asks) = (output, asks.unwrap_or(Asked::Value));
        let node = Node::Subquery { asks, query: Box::new(query) };
        let Some(otherwise) = otherwise else { return Ok(Typed { node, of }) };
        let (function, arguments) = (Function::Coalesce, vec![node, otherwise]);
        Ok(Typed { node: Node::Call { function, arguments }, of })
    }

    /// `ARRAY(SELECT …)`.
    fn gathered(&self, query: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let Selected { query, output, asks, .. } = self.query(query, Vec::new(), depth)?;
        let output = output.filter(|_| asks.is_none());
        let output = output.ok_or_else(|| other("it selects something else than one value"))?;
        let asks = Asked::Array { or_null: false };
        let node = Node::Subquery { asks, query: Box::new(query) };
        Ok(Typed { node, of: self.array_of(output.of) })
    }

    /// The type of an array of these; 0 where it has no name here.
    fn array_of(&self, element: u32) -> u32 {
        self.library.array_of(element).unwrap_or_default()
    }

    /// `operand op ANY (SELECT …)`, or ALL.
    fn tested_query(
        &self,
        query: Fields<'_>,
        mut test: Fields<'_>,
        all: bool,
        depth: usize,
    ) -> Result<Typed, RuleError> {
        if test.name == "BOOLEXPR" && !all && test.word("boolop")? == "and" {
            return self.tested_row(query, test, depth);
        }
        if test.name != "OPEXPR" {
            return Err(other("rows are compared with it only by IN here"));
        }
        let id = test.number::<u32>("opno")?;
        let (left, right) = test.two("args")?;
        test.end(&["opfuncid", "opresulttype", "opcollid", "inputcollid"])?;
        let left = self.any(left, depth)?;
        let Selected { query, output, asks, .. } = self.query(query, vec![right], depth)?;
        let output = output.filter(|_| asks.is_none());
        let output = output.ok_or_else(|| other("it selects something else than one value"))?;
        let (meaning, operand, output) = self.resolved(id, (left, output))?;
        let Meaning::Compare(op) = meaning else {
            return Err(refused("ANY and ALL", "only comparisons go with them"));
        };
        if query.from.is_empty() && !output.is_call() {
            return Ok(Typed { node: Node::compare(op, operand, output), of: 16 });
        }
        let query = Query { outputs: vec![output], ..query };
        let asks = Asked::Quantified { op, all, operand: Box::new(operand), or_null: false };
        Ok(Typed { node: Node::Subquery { asks, query: Box::new(query) }, of: 16 })
    }

    /// `(…, …) IN (SELECT …)`.
    fn tested_row(
        &self,
        query: Fields<'_>,
        mut test: Fields<'_>,
        depth: usize,
    ) -> Result<Typed, RuleError> {
        let arms = test.take("args")?.list()?;
        test.end(&[])?;
        let (mut operators, mut operands, mut tests) = (Vec::new(), Vec::new(), Vec::new());
        for arm in arms {
            let mut arm = arm.node()?;
            if arm.name != "OPEXPR" {
                return Err(other("rows are compared with it only by their values here"));
            }
            operators.push(arm.number::<u32>("opno")?);
            let (left, right) = arm.two("args")?;
            arm.end(&["opfuncid", "opresulttype", "opcollid", "inputcollid"])?;
            operands.push(self.any(left, depth)?);
            tests.push(right);
        }
        let Selected { query, tested, .. } = self.query(query, tests, depth)?;
        if tested.len() != operands.len() || query.outputs.len() != tested.len() {
            return Err(other("it selects not as many values as are compared"));
        }
        let (mut lefts, mut outputs) = (Vec::new(), Vec::new());
        for ((id, left), right) in operators.into_iter().zip(operands).zip(tested) {
            let (meaning, left, right) = self.resolved(id, (left, right))?;
            let Meaning::Compare(Comparison::Equal) = meaning else {
                return Err(refused("IN", "its operator is not ="));
            };
            lefts.push(left);
            outputs.push(right);
        }
        let query = Box::new(Query { outputs, ..query });
        let asks = Asked::Row { operands: lefts };
        Ok(Typed { node: Node::Subquery { asks, query }, of: 16 })
    }

    /// What the subquery selects, in the comparison that it is part of; or an argument.
    pub(super) fn parameter(&self, mut fields: Fields<'_>) -> Result<Typed, RuleError> {
        let (kind, number) = (fields.word("paramkind")?, fields.number::<usize>("paramid")?);
        let of = fields.number::<u32>("paramtype")?;
        fields.end(&["paramtypmod", "paramcollid"])?;
        let output = number.checked_sub(1).and_then(|place| self.parameters.get(place));
        match (kind, output) {
            ("2", Some(output)) if output.of == of => Ok(output.clone()),
            // PARAM_EXTERN: of the function that this is the body of.
            ("0", _) if number > 0 => {
                Ok(Typed { node: Typed { node: Node::Parameter(number), of }.exactly(), of })
            }
            _ => Err(refused("a parameter", "it is not known here")),
        }
    }

    /// Reads a query. `tests` are what its outputs are compared as.
    fn query(
        &self,
        mut query: Fields<'_>,
        tests: Vec<Tree<'_>>,
        depth: usize,
    ) -> Result<Selected, RuleError> {
        let ranges = query.take("rtable")?.list()?;
        let mut level =
            Level { outer: Some(self.level), depth: self.level.depth + 1, ranges: Vec::new() };
        let mut tables = Vec::new();
        for range in ranges {
            let (range, table) = self.range(range.node()?, &level, depth)?;
            level.ranges.push(range);
            tables.push(table);
        }
        let aggregates = query.boolean("hasAggs")?;
        let inside = Reader { level: &level, parameters: &[], ..*self };
        let (from, targets) = (query.take("jointree")?.node()?, query.take("targetList")?.list()?);
        let limited = is_one(query.take("limitCount")?)?;
        if query.word("commandType")? != "1" {
            return Err(other("it is no SELECT"));
        }
        let distinct = !query.take("distinctClause")?.list()?.is_empty();
        if limited && distinct {
            return Err(other("of rows that are told apart it takes one"));
        }
        query.end(NO_MATTER)?;
        let (from, conditions) = inside.joined(from, &mut tables, depth)?;
        if aggregates {
            return inside.aggregated((from, conditions), (limited, distinct), targets, depth);
        }
        let mut outputs = Vec::new();
        for target in targets {
            outputs.push(inside.any(selected(target)?, depth)?);
        }
        let compared = Reader { parameters: &outputs, ..inside };
        let tests = tests.into_iter().map(|test| compared.any(test, depth));
        let mut tested = tests.collect::<Result<Vec<_>, _>>()?;
        let output = match outputs.as_slice() {
            [output] => Some(tested.pop().unwrap_or_else(|| output.clone())),
            _ => None,
        };
        let outputs = outputs.into_iter().map(|typed| typed.node).collect();
        let query = Query { from, condition: Node::All(conditions), outputs, limited, distinct };
        Ok(Selected { query, output, tested, asks: None, otherwise: None })
    }

    /// A query that selects an aggregate; perhaps with what stands for NULL.
    fn aggregated(
        &self,
        (from, conditions): (Vec<From>, Vec<Node>),
        (limited, distinct): (bool, bool),
        mut targets: Vec<Tree<'_>>,
        depth: usize,
    ) -> Result<Selected, RuleError> {
        let target = targets.pop().filter(|_| targets.is_empty());
        let target = target.ok_or_else(|| other("it selects several aggregates"))?;
        let mut call = selected(target)?.node()?;
        let mut otherwise = None;
        if matches!(call.name, "COALESCEEXPR" | "COALESCE") {
            let (aggregate, constant) = call.two("args")?;
            let constant = constant.node()?;
            if constant.name != "CONST" {
                return Err(other("beside an aggregate, only constants are decided here"));
            }
            otherwise = Some(self.constant(constant)?.node);
            call = aggregate.node()?;
        }
        let (outputs, of, asks) = self.aggregate(call, depth)?;
        let outputs = outputs.into_iter().map(|typed| typed.node).collect();
        let query = Query { from, condition: Node::All(conditions), outputs, limited, distinct };
        // What it is made of stands in the query.
        let output = Some(Typed { node: Node::Null, of });
        Ok(Selected { query, output, tested: Vec::new(), asks: Some(asks), otherwise })
    }

    /// `array_agg(…)`, `count(*)` or `count(…)`: what is selected, its type, and what is asked of it.
    fn aggregate(
        &self,
        mut call: Fields<'_>,
        depth: usize,
    ) -> Result<(Vec<Typed>, u32, Asked), RuleError> {
        let refused = || other("of aggregates, only array_agg and count are decided here");
        if call.name != "AGGREF" {
            return Err(refused());
        }
        let (id, kind) = (call.number::<u32>("aggfnoid")?, call.word("aggkind")?);
        let (of, arguments) = (call.number("aggtype")?, call.take("args")?.list()?);
        call.end(&["aggstar", "aggcollid", "inputcollid", "aggtranstype", "aggargtypes"])?;
        let mut outputs = Vec::new();
        for argument in arguments {
            outputs.push(self.any(selected(argument)?, depth)?);
        }
        match (kind, id, outputs.len()) {
            ("n", ARRAY_AGG, 1) => Ok((outputs, of, Asked::Array { or_null: true })),
            ("n", COUNT, 1) | ("n", COUNT_ROWS, 0) => Ok((outputs, of, Asked::Count)),
            _ => Err(refused()),
        }
    }
}

/// The expression of an entry of what is selected.
fn selected(target: Tree<'_>) -> Result<Tree<'_>, RuleError> {
    let mut target = target.node()?;
    let expression = target.take("expr")?;
    target.end(&["resno", "resname", "ressortgroupref", "resorigtbl", "resorigcol"])?;
    Ok(expression)
}

/// Whether a limit is 1; where there is none, it is not.
fn is_one(limit: Tree<'_>) -> Result<bool, RuleError> {
    let refused = || other("the only limit that is decided here is 1");
    let mut limit = match limit {
        Tree::Nothing => return Ok(false),
        limit => limit.node()?,
    };
    if limit.name == "FUNCEXPR" && limit.number::<u32>("funcid")? == INT8_OF_INT4 {
        let arguments = limit.take("args")?.list()?;
        let [argument] = <[_; 1]>::try_from(arguments).map_err(|_| refused())?;
        limit = argument.node()?;
    }
    match (limit.name, limit.take("constvalue")) {
        ("CONST", Ok(Tree::Bytes(bytes))) if bytes == 1_i64.to_le_bytes() => Ok(true),
        _ => Err(refused()),
    }
}

//! Queries over other tables: `SUBLINK`, and the `QUERY` in it.
//!
//! A query is taken that joins tables, has a condition and selects expressions. Every other field of
//! it must say nothing (`Fields::end`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::rule::error::RuleError;
use crate::rule::expression::Function;
use crate::rule::expression::Node;
use crate::rule::expression::QUALIFIED;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Origin;
use crate::rule::expression::query::Query;
use crate::rule::policy::read::DEPTH_MAX;
use crate::rule::policy::read::Level;
use crate::rule::policy::read::Meaning;
use crate::rule::policy::read::Range;
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

fn other(reason: &str) -> RuleError {
    refused("a subquery", reason)
}

/// A query that was read.
struct Selected {
    query: Query,
    /// What it selects, with its type, where that is one expression.
    output: Option<Typed>,
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
                let Selected { query, asks, .. } = self.query(query, None, depth)?;
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
        let Selected { query, output, asks, otherwise } = self.query(query, None, depth)?;
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
        let Selected { query, output, asks, .. } = self.query(query, None, depth)?;
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
        if test.name != "OPEXPR" {
            return Err(other("only one value is compared with it here"));
        }
        let id = test.number::<u32>("opno")?;
        let (left, right) = test.two("args")?;
        test.end(&["opfuncid", "opresulttype", "opcollid", "inputcollid"])?;
        let left = self.any(left, depth)?;
        let Selected { query, output, asks, .. } = self.query(query, Some(right), depth)?;
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

    /// What the subquery selects, in the comparison that it is part of; or an argument.
    pub(super) fn parameter(&self, mut fields: Fields<'_>) -> Result<Typed, RuleError> {
        let (kind, number) = (fields.word("paramkind")?, fields.number::<usize>("paramid")?);
        let of = fields.number::<u32>("paramtype")?;
        fields.end(&["paramtypmod", "paramcollid"])?;
        match ((kind, number), self.parameter) {
            (("2", 1), Some(output)) if output.of == of => Ok(output.clone()),
            // PARAM_EXTERN: of the function that this is the body of.
            (("0", 1..), _) => {
                Ok(Typed { node: Typed { node: Node::Parameter(number), of }.exactly(), of })
            }
            _ => Err(refused("a parameter", "it is not known here")),
        }
    }

    /// Reads a query. `test` is what its output is compared as.
    fn query(
        &self,
        mut query: Fields<'_>,
        test: Option<Tree<'_>>,
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
        let inside = Reader { level: &level, parameter: None, ..*self };
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
        let output = match (outputs.as_slice(), test) {
            ([output], None) => Some(output.clone()),
            ([output], Some(test)) => {
                Some(Reader { parameter: Some(output), ..inside }.any(test, depth)?)
            }
            _ => None,
        };
        let outputs = outputs.into_iter().map(|typed| typed.node).collect();
        let query = Query { from, condition: Node::All(conditions), outputs, limited, distinct };
        Ok(Selected { query, output, asks: None, otherwise: None })
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
        Ok(Selected { query, output, asks: Some(asks), otherwise })
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

    /// An entry of the range table: a table, the rows of a function, or a join, which is nothing of
    /// its own.
    fn range(
        &self,
        mut entry: Fields<'_>,
        level: &Level<'_>,
        depth: usize,
    ) -> Result<(Option<Range<'a>>, Option<From>), RuleError> {
        match entry.word("rtekind")? {
            // RTE_RELATION
            "0" => {}
            // RTE_JOIN: what its columns are stands in the tables themselves.
            "2" => return Ok((None, None)),
            // RTE_FUNCTION
            "3" => return self.rows(entry, level, depth),
            _ => return Err(other("it reads something else than tables and functions")),
        }
        let (id, kind) = (entry.number::<u32>("relid")?, entry.word("relkind")?);
        let (mut called, inherits) = (entry.take("eref")?.node()?, entry.boolean("inh")?);
        let alias = called.word("aliasname")?.replace('\\', "");
        let no_matter =
            ["alias", "inFromCl", "requiredPerms", "rellockmode", "selectedCols", "perminfoindex"];
        entry.end(&no_matter)?;
        if kind != "r" || !inherits {
            return Err(other("it reads a view, a partitioned table, or ONLY a table"));
        }
        let table = self.library.tables.get(&id);
        let table = table.ok_or_else(|| other("it reads a table that is not known here"))?;
        let place = level.ranges.len();
        let name: Box<str> = format!("{alias}{QUALIFIED}{}.{place}", level.depth).into();
        let (schema, named) = (Some(table.schema.clone()), table.name.clone());
        let from = From { what: Origin::Table { schema, table: named }, alias: name.clone() };
        Ok((Some(Range { name, columns: Cow::Borrowed(&table.columns) }), Some(from)))
    }

    /// A function in the place of a table.
    fn rows(
        &self,
        mut entry: Fields<'_>,
        level: &Level<'_>,
        depth: usize,
    ) -> Result<(Option<Range<'a>>, Option<From>), RuleError> {
        let unreadable = || other("a function in it can't be read");
        let mut called = entry.take("eref")?.node()?;
        let alias = called.word("aliasname")?.replace('\\', "");
        let names = called.take("colnames")?.list()?;
        let mut functions = entry.take("functions")?.list()?;
        entry.end(&["alias", "inFromCl"])?;
        let function = functions.pop().filter(|_| functions.is_empty());
        let mut function = function.ok_or_else(unreadable)?.node()?;
        let (call, count) = (function.take("funcexpr")?, function.number::<usize>("funccolcount")?);
        function.end(&[])?;
        let mut columns = BTreeMap::new();
        for (number, name) in (1_i16..).zip(&names) {
            let Tree::Word(name) = name else { return Err(unreadable()) };
            let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            let name = name.ok_or_else(unreadable)?.replace('\\', "");
            // A column without a name was dropped from the table of the function's rows.
            if !name.is_empty() {
                columns.insert(number, Box::from(name));
            }
        }
        if names.len() != count {
            return Err(unreadable());
        }
        let inside = Reader { level, parameter: None, ..*self };
        let call = inside.any(call, depth)?.node;
        if !matches!(call, Node::User { .. }) {
            return Err(other("of functions, it reads those of the database only"));
        }
        let name: Box<str> =
            format!("{alias}{QUALIFIED}{}.{}", level.depth, level.ranges.len()).into();
        let what = Origin::Call { call, columns: columns.values().cloned().collect() };
        let from = From { what, alias: name.clone() };
        Ok((Some(Range { name, columns: Cow::Owned(columns) }), Some(from)))
    }

    /// What is joined, and on what condition.
    fn joined(
        &self,
        mut from: Fields<'_>,
        tables: &mut [Option<From>],
        depth: usize,
    ) -> Result<(Vec<From>, Vec<Node>), RuleError> {
        let (items, condition) = (from.take("fromlist")?.list()?, from.take("quals")?);
        from.end(&[])?;
        let mut joined = Joined { reader: self, tables, from: Vec::new(), conditions: Vec::new() };
        for item in items {
            joined.item(item, depth)?;
        }
        joined.condition(condition, depth)?;
        if joined.from.is_empty() && !joined.conditions.is_empty() {
            return Err(other("it has a condition and no table"));
        }
        Ok((joined.from, joined.conditions))
    }
}

/// The tables in the order in which they are joined.
struct Joined<'j, 'a> {
    reader: &'j Reader<'a>,
    tables: &'j mut [Option<From>],
    from: Vec<From>,
    conditions: Vec<Node>,
}

impl Joined<'_, '_> {
    fn item(&mut self, item: Tree<'_>, depth: usize) -> Result<(), RuleError> {
        let mut item = item.node()?;
        match item.name {
            "RANGETBLREF" => {
                let number = item.number::<usize>("rtindex")?;
                item.end(&[])?;
                let table = number.checked_sub(1).and_then(|place| self.tables.get_mut(place));
                let table = table.and_then(Option::take);
                self.from.push(table.ok_or_else(|| other("it can't be read"))?);
                Ok(())
            }
            "JOINEXPR" if depth < DEPTH_MAX => {
                if item.word("jointype")? != "0" {
                    return Err(other("only inner joins are decided here"));
                }
                let (left, right) = (item.take("larg")?, item.take("rarg")?);
                let condition = item.take("quals")?;
                item.end(&["rtindex"])?;
                self.item(left, depth + 1)?;
                self.item(right, depth + 1)?;
                self.condition(condition, depth)
            }
            _ => Err(other("only tables and inner joins are decided here")),
        }
    }

    fn condition(&mut self, condition: Tree<'_>, depth: usize) -> Result<(), RuleError> {
        if condition != Tree::Nothing {
            self.conditions.push(self.reader.node(condition, depth)?);
        }
        Ok(())
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

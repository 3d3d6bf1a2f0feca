//! The bodies of functions, put beside their calls; and functions that return rows, put where a query
//! reads them.
//!
//! ```text
//! x IN (SELECT f())        ─┐
//! x = ANY (ARRAY(SELECT …)) ├─▶ a query whose rows x is compared with
//! x = ANY (g())            ─┘   (g: SELECT array_agg(…))
//! ```
//!
//! # Invariants
//!
//! - A name without a schema is resolved only where it can mean one thing.
//! - Both readings of a policy come through here, so that what is rewritten is rewritten alike.

use crate::rule::error::RuleError;
use crate::rule::expression::Expression;
use crate::rule::expression::Function as Own;
use crate::rule::expression::Node;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Inlined;
use crate::rule::expression::query::Origin;
use crate::rule::expression::query::Parameter;
use crate::rule::expression::query::Query;
use crate::rule::expression::query::Returns;
use crate::rule::policy::Reading;
use crate::rule::policy::library::Body;
use crate::rule::policy::library::Function;
use crate::rule::policy::library::Language;
use crate::rule::policy::library::Library;
use crate::rule::policy::library::NamedType;
use crate::rule::policy::library::TableNames;
use crate::rule::policy::plpgsql::Spoken;

/// How deep functions may call each other.
const CALLS_MAX: usize = 8;

/// What no table and no column is called: the rows of a function that stands for them.
const ROWS: &str = "\0rows";

impl Library {
    /// Puts the bodies of functions beside their calls.
    pub(super) fn inline(&self, node: &mut Node, reading: Reading) -> Result<(), RuleError> {
        Inlining { library: self, reading, caller: None, depth: 0 }.inline(node)?;
        Expression::checked(node.clone())?;
        Ok(())
    }

    /// The only function of that name.
    fn named(&self, schema: &str, name: &str) -> Option<&Function> {
        let mut named = self
            .functions
            .iter()
            .filter(|function| &*function.schema == schema && &*function.name == name);
        named.next().filter(|_| named.next().is_none())
    }

    /// The function that a name without a schema means in the body of `caller`.
    fn found(&self, name: &str, caller: &Function) -> Option<&Function> {
        let mut named = self.functions.iter().filter(|function| &*function.name == name);
        let function = named.next()?;
        (function.is_only && caller.looks_in(&function.schema)).then_some(function)
    }

    /// Gives the tables that a query in the body of `caller` reads their schemas.
    fn name_tables(&self, query: &mut Query, caller: &Function) -> Result<(), RuleError> {
        for from in &mut query.from {
            if let Origin::Table { schema: schema @ None, table } = &mut from.what {
                *schema = Some(self.schema_of(table, caller)?);
            }
        }
        Ok(())
    }

    /// The schema of the table that a name without one means in the body of `caller`.
    fn schema_of(&self, table: &str, caller: &Function) -> Result<Box<str>, RuleError> {
        let refused = |reason| RuleError::unsupported(table, reason, "write it with its schema");
        if self.ambiguous.contains(table) {
            return Err(refused("there are tables of that name in several schemas"));
        }
        let found = self.tables.values().find(|it| &*it.name == table);
        let found = found.ok_or_else(|| refused("the table is not known here"))?;
        if !caller.looks_in(&found.schema) {
            return Err(refused("whether the function finds the table there is not certain"));
        }
        Ok(found.schema.clone())
    }

    /// Selects every column by its name where all are selected. What is not known stays as it is,
    /// and is refused when it is bound.
    fn write_out(&self, query: &mut Query) {
        let all = |output: &Node| match output {
            Node::Star { qualifier } => {
                let wanted = query.from.iter().filter(|from| {
                    qualifier.as_ref().is_none_or(|qualifier| *qualifier == from.alias)
                });
                let columns: Option<Vec<Vec<Node>>> =
                    wanted.map(|from| self.columns_of(from)).collect();
                columns.map(|columns| columns.concat()).filter(|columns| !columns.is_empty())
            }
            _ => None,
        };
        let outputs =
            query.outputs.iter().map(|output| all(output).unwrap_or(vec![output.clone()]));
        query.outputs = outputs.collect::<Vec<_>>().concat();
    }

    /// The columns of what a query reads.
    fn columns_of(&self, from: &From) -> Option<Vec<Node>> {
        let names: Vec<&str> = match &from.what {
            Origin::Table { schema, table } => {
                let mut tables = self.tables.values();
                let is_it =
                    |it: &&TableNames| Some(&it.schema) == schema.as_ref() && it.name == *table;
                tables.find(is_it)?.columns.values().map(|name| &**name).collect()
            }
            Origin::Call { columns, .. } if !columns.is_empty() => {
                columns.iter().map(|name| &**name).collect()
            }
            Origin::Call { call, .. } => match call {
                Node::Inlined(call) => call.returns.columns(&from.alias)?,
                _ => return None,
            },
        };
        let column =
            |name: &str| Node::Column { qualifier: Some(from.alias.clone()), name: name.into() };
        Some(names.into_iter().map(column).collect())
    }

    /// Compares with the rows that an array is made of where that is what a comparison asks for.
    fn among_rows(&self, node: &mut Node) {
        let Node::Quantified { op, left, right, all } = node else { return };
        let Some((query, or_null)) = self.gathered(right) else { return };
        let operand = std::mem::replace(left, Box::new(Node::Null));
        let asks = Asked::Quantified { op: *op, all: *all, operand, or_null };
        *node = Node::Subquery { asks, query: Box::new(query) };
    }

    /// The query whose values an array holds, and whether the array is NULL where there is none.
    fn gathered(&self, array: &Node) -> Option<(Query, bool)> {
        match array {
            Node::Subquery { asks: Asked::Array { or_null }, query } => {
                Some((Query::clone(query), *or_null))
            }
            Node::Cast { operand, to } => {
                let element = to.strip_suffix("[]")?;
                let (mut query, or_null) = self.gathered(operand)?;
                for output in &mut query.outputs {
                    let operand = Box::new(std::mem::replace(output, Node::Null));
                    *output = Node::Cast { operand, to: element.into() };
                }
                Some((query, or_null))
            }
            Node::Call { function: Own::Coalesce, arguments } => match arguments.as_slice() {
                [array, otherwise] if is_empty_array(otherwise) => {
                    Some((self.gathered(array)?.0, false))
                }
                _ => None,
            },
            Node::Inlined(call) => self.gathered_by(call),
            _ => None,
        }
    }

    /// The same of a function that returns an array.
    fn gathered_by(&self, call: &Inlined) -> Option<(Query, bool)> {
        // Where it is not called it is NULL, which no row would tell.
        let is_called = !call.is_strict || call.arguments.is_empty();
        let Returns::Value(array) = call.returns.clone() else { return None };
        let of = self.element(array.of).filter(|_| is_called)?;
        let (query, or_null) = self.gathered(&call.body)?;
        let body = Node::Subquery { asks: Asked::Value, query: Box::new(query) };
        let type_name = self.type_name(of).map(Box::from);
        let column = Parameter { name: Box::default(), of, type_name };
        let returns = Returns::Rows(Box::new([column]));
        let call = Node::Inlined(Box::new(Inlined { body, returns, ..call.clone() }));
        let mut query = Query::default();
        let column = query.read(call);
        query.outputs.push(column);
        Some((query, or_null))
    }
}

/// One body, or a policy, whose calls get their bodies.
#[derive(Clone, Copy)]
struct Inlining<'a> {
    library: &'a Library,
    reading: Reading,
    /// Whose body it is; absent where it is a policy.
    caller: Option<&'a Function>,
    depth: usize,
}

impl Inlining<'_> {
    fn inline(self, node: &mut Node) -> Result<(), RuleError> {
        node.rewrite(&mut |node| {
            match node {
                Node::User { .. } => *node = self.call(node)?,
                Node::Subquery { query, .. } => {
                    if let Some(caller) = self.reader() {
                        self.library.name_tables(query, caller)?;
                    }
                    self.library.write_out(query);
                    from_nothing(node);
                }
                Node::Quantified { .. } => self.library.among_rows(node),
                _ => {}
            }
            Ok(())
        })
    }

    /// Who looks for what names without a schema mean; nobody where everything is stored.
    fn reader(&self) -> Option<&Function> {
        self.caller.filter(|caller| matches!(caller.body, Body::Text(_)))
    }

    /// A call with its body beside it.
    fn call(self, node: &Node) -> Result<Node, RuleError> {
        let refused = |reason: &str| RuleError::unsupported(node, reason, "");
        let unknown = || refused("the function is not known here");
        let Node::User { schema, name, arguments } = node else { return Err(unknown()) };
        if self.depth == CALLS_MAX {
            return Err(refused("functions call each other too deep"));
        }
        let Inlining { library, reading, .. } = self;
        let function = match (schema, self.reader()) {
            (Some(schema), _) => library.named(schema, name),
            (None, Some(caller)) => library.found(name, caller),
            (None, None) => None,
        };
        let function = function.ok_or_else(unknown)?;
        let spoken = function.expression(reading, library).map_err(|error| match error {
            RuleError::Unsupported { token, reason, .. } => refused(&format!("{token}: {reason}")),
            other => refused(&other.to_string()),
        })?;
        let Spoken { mut locals, returned: mut body } = spoken;
        let inside = Inlining { caller: Some(function), depth: self.depth + 1, ..self };
        for node in locals.iter_mut().map(|(_, value)| value).chain([&mut body]) {
            inside.inline(node)?;
            // Each call may double the size: what is too large already grows no further.
            Expression::checked(node.clone())?;
        }
        let is_parameter = |name| function.parameters.iter().any(|(known, _)| known == name);
        if locals.iter().any(|(name, _)| is_parameter(name)) {
            return Err(refused("a variable in it hides a parameter"));
        }
        let parameter = |(name, of): &NamedType| Parameter {
            name: name.clone(),
            of: *of,
            type_name: library.type_name(*of).map(Box::from),
        };
        Ok(Node::Inlined(Box::new(Inlined {
            name: format!("{}.{}", function.schema, function.name).into(),
            parameters: function.parameters.iter().map(parameter).collect(),
            arguments: arguments.clone(),
            locals,
            body,
            returns: match &function.rows {
                None => Returns::Value(parameter(&(Box::default(), function.result))),
                Some(columns) => Returns::Rows(columns.iter().map(parameter).collect()),
            },
            is_strict: function.is_strict,
            columns_first: function.language == Language::Sql,
            owner: function.owner.clone(),
            callers: match self.caller {
                None => function.callers.clone(),
                Some(caller) => caller.may_call(function).into(),
            },
        })))
    }
}

impl Query {
    /// Reads the rows of a call, too; its only column.
    fn read(&mut self, call: Node) -> Node {
        let what = Origin::Call { call, columns: vec![ROWS.into()] };
        self.from.push(From { what, alias: ROWS.into() });
        Node::Column { qualifier: Some(ROWS.into()), name: ROWS.into() }
    }
}

/// A query that reads nothing is what it selects; unless that has rows, which are read then.
fn from_nothing(node: &mut Node) {
    let Node::Subquery { asks, query } = node else { return };
    let (true, [output]) = (query.from.is_empty(), query.outputs.as_mut_slice()) else { return };
    if let Some(call) = rows_in(output) {
        let taken = std::mem::replace(call, Node::Null);
        let mut read = Query::default();
        *call = read.read(taken);
        query.from = read.from;
        return;
    }
    match asks {
        Asked::Value => *node = std::mem::replace(output, Node::Null),
        Asked::Quantified { op, operand, .. } => {
            let operand = std::mem::replace(&mut **operand, Node::Null);
            *node = Node::compare(*op, operand, std::mem::replace(output, Node::Null));
        }
        Asked::Exists | Asked::Row { .. } | Asked::Array { .. } | Asked::Count => {}
    }
}

/// The call of a function that returns rows, whose values are selected, cast or not.
fn rows_in(node: &mut Node) -> Option<&mut Node> {
    match node {
        Node::Inlined(call) if matches!(call.returns, Returns::Rows(_)) => Some(node),
        Node::Cast { operand, .. } | Node::Exactly { operand, .. } => rows_in(operand),
        _ => None,
    }
}

/// `'{}'`, cast or not.
fn is_empty_array(node: &Node) -> bool {
    match node {
        Node::Text(text) => &**text == "{}",
        Node::Cast { operand, .. } | Node::Exactly { operand, .. } => is_empty_array(operand),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::parse::parse_stored;

    fn function(name: &str, body: &str) -> Function {
        Function {
            id: 20_000,
            schema: "auth".into(),
            name: name.into(),
            parameters: Box::default(),
            result: 25,
            rows: None,
            language: Language::Sql,
            body: Body::Text(body.into()),
            obstacle: None,
            is_strict: false,
            owner: None,
            path: None,
            is_only: true,
            callers: Box::new(["web".into()]),
            namers: Box::default(),
        }
    }

    /// The bodies, from the outside in.
    fn inlined(functions: Vec<Function>) -> String {
        let library = Library { functions, ..Library::default() };
        let mut node = parse_stored("auth.a() = 'x'").unwrap();
        if let Err(error) = library.inline(&mut node, Reading::Text) {
            return error.to_string();
        }
        let mut bodies = String::new();
        let mut open = vec![&node];
        while let Some(node) = open.pop() {
            if let Node::Inlined(call) = node {
                bodies.push_str(&format!("{} {:?} ", call.body, call.callers));
            }
            node.for_each_child(|child| open.push(child));
        }
        bodies
    }

    #[test]
    fn a_body_stands_beside_the_call() {
        let body = "\n  select nullif(current_setting('app.a', true), ''); -- it is\n";
        assert_eq!(
            inlined(vec![function("a", body)]),
            "nullif(current_setting('app.a'), '') [\"web\"] "
        );
        // What is called from a body is named there, which takes another privilege.
        let nested = vec![function("a", "SELECT auth.b()"), function("b", "select 'y'::text")];
        assert_eq!(inlined(nested), "auth.b() [\"web\"] ('y')::text [] ");
    }

    #[test]
    fn what_is_no_plain_expression_is_refused() {
        for body in [
            "select a from b",
            "select 1, 2",
            "select 1; select 2",
            "select",
            "select auth.a()",
            "select auth.other()",
            "select other()",
            "select 1 limit 1",
            "with a as (select 1) select 1",
            "select 'x') or (select true",
            "update a set b = 1",
        ] {
            let text = inlined(vec![function("a", body)]);
            assert!(text.contains("is not supported"), "{body}: {text}");
        }
        let twice = vec![function("a", "select 'x'"), function("a", "select 'x'")];
        assert!(inlined(twice).contains("not known"));
    }
}

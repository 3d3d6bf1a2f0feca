//! What a query reads: tables, and the rows of functions.
//!
//! A function's rows are those of the query in its body, which is read where the call stands: its
//! tables become sources like any other, with the rights of the function's owner, and its columns are
//! what it selects, as terms over the same stack.
//!
//! # Invariants
//!
//! - A term reads no cells but those that are on the stack when its own sources are opened, so that a
//!   subquery in it may begin there, whatever is put on the stack later.

use crate::rule::bind::Binder;
use crate::rule::bind::InPolicy;
use crate::rule::bind::Typed;
use crate::rule::bind::logic::not;
use crate::rule::bind::names::Called;
use crate::rule::bind::names::Named;
use crate::rule::bind::names::Names;
use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Inlined;
use crate::rule::expression::query::Origin;
use crate::rule::expression::query::Parameter;
use crate::rule::expression::query::Query;
use crate::rule::expression::query::Returns;
use crate::rule::policy::tables::Guarded;
use crate::rule::policy::tables::Unheld;
use crate::rule::subquery::Source;
use crate::rule::term::Term;

/// What was opened for a query.
pub(in crate::rule::bind) struct Opening {
    pub(in crate::rule::bind) sources: Vec<Source>,
    /// What is true of every row of all of them.
    pub(in crate::rule::bind) conditions: Vec<Term>,
    /// Where the cells of the next source go.
    pub(in crate::rule::bind) height: usize,
    /// Whether some rows are told apart, so that there are fewer than of the sources.
    pub(in crate::rule::bind) is_distinct: bool,
}

impl Opening {
    pub(in crate::rule::bind) const fn at(height: usize) -> Opening {
        Opening { sources: Vec::new(), conditions: Vec::new(), height, is_distinct: false }
    }
}

impl Binder<'_> {
    /// Opens what a query reads; the names that it has then.
    pub(in crate::rule::bind) fn join<'q>(
        &self,
        query: &'q Query,
        mut names: Names<'q>,
        opening: &mut Opening,
    ) -> Result<Names<'q>, RuleError>
    where
        Self: 'q,
    {
        let Some(policy) = self.policy else { return Ok(names) };
        let mut tables = Vec::new();
        for from in &query.from {
            match &from.what {
                Origin::Table { schema, table } => {
                    let found = policy.find(schema.as_deref(), table)?;
                    let named = policy.open(found, from, opening)?;
                    names.tables.push(named);
                    tables.push((found, named));
                }
                Origin::Call { call, columns } => {
                    let policy = Some(InPolicy { height: opening.height, ..policy });
                    let inside = Binder { names: &names, policy, is_positive: false, ..*self };
                    let reads = |name: &str| reads(query, &from.alias, name);
                    let columns = inside.rows(call, (columns, &from.alias), &reads, opening)?;
                    names.called.push(Called { alias: &from.alias, columns });
                }
            }
        }
        let policy = Some(InPolicy { height: opening.height, ..policy });
        let inside = Binder { policy, ..*self };
        for (table, named) in tables {
            opening.conditions.push(inside.guarded(table, named)?);
        }
        Ok(names)
    }

    /// The columns of a call's rows, by the names that they are given.
    fn rows(
        &self,
        call: &Node,
        (given, alias): (&[Box<str>], &str),
        reads: &dyn Fn(&str) -> bool,
        opening: &mut Opening,
    ) -> Result<Vec<(Box<str>, Typed)>, RuleError> {
        let Node::Inlined(inlined) = call else {
            return Err(RuleError::unsupported(call, "the function is not known here", ""));
        };
        let own = inlined.returns.columns(alias).unwrap_or_else(|| vec![alias]);
        let names = if given.is_empty() { own } else { given.iter().map(|name| &**name).collect() };
        let wanted: Vec<bool> = names.iter().map(|name| reads(name)).collect();
        let values = match &inlined.returns {
            Returns::Value(_) => vec![Some(self.inlined(inlined, call)?)],
            Returns::Rows(columns) => self.rows_of(inlined, (columns, &wanted), call, opening)?,
        };
        if names.len() != values.len() {
            let reason = "it has not as many columns as are named";
            return Err(RuleError::unsupported(call, reason, ""));
        }
        let named = names.into_iter().zip(values);
        Ok(named.filter_map(|(name, value)| Some((name.into(), value?))).collect())
    }

    /// The values of the rows of a function, whose tables are opened; without those that nobody
    /// reads.
    fn rows_of(
        &self,
        call: &Inlined,
        (columns, wanted): (&[Parameter], &[bool]),
        token: &Node,
        opening: &mut Opening,
    ) -> Result<Vec<Option<Typed>>, RuleError> {
        let (frame, role, nulls) = self.called(call, token)?;
        if call.is_strict {
            opening.conditions.push(not(nulls));
        }
        let nothing = Query::default();
        let (query, outputs) = match &call.body {
            Node::Subquery { asks: Asked::Value, query } => (&**query, query.outputs.as_slice()),
            body => (&nothing, std::slice::from_ref(body)),
        };
        if query.limited {
            return Err(RuleError::unsupported(token, "a limit in it takes rows away", ""));
        }
        opening.is_distinct |= query.distinct;
        let policy = self.policy.map(|policy| InPolicy { role, ..policy });
        let names = Binder { policy, ..*self }.join(query, Names::of_body(&frame), opening)?;
        let policy = policy.map(|policy| InPolicy { height: opening.height, ..policy });
        let inside = Binder { names: &names, claims: self.claims, policy, is_positive: true };
        opening.conditions.push(inside.boolean(&query.condition)?);
        let inside = Binder { is_positive: false, ..inside };
        if outputs.len() != columns.len() {
            let reason = "it does not select as many columns as it returns";
            return Err(RuleError::unsupported(token, reason, ""));
        }
        let mut values = Vec::new();
        for ((output, column), wanted) in outputs.iter().zip(columns).zip(wanted) {
            if !wanted && inside.is_column(output, column.of) {
                inside.may_select(output)?;
                values.push(None);
                continue;
            }
            let typed = inside.node(output)?;
            if !call.columns_first && typed.of.oid() != Some(column.of) {
                let reason = format!("it returns {} where it says that it is another", typed.of);
                return Err(RuleError::raises(&*call.name, reason));
            }
            values.push(Some(frame.returned(self.implicitly(typed, column, token)?)));
        }
        Ok(values)
    }

    /// Whether it is a table's column of this type.
    fn is_column(&self, node: &Node, of: u32) -> bool {
        let Node::Column { qualifier, name } = node else { return false };
        let found = self.names.find(qualifier.as_deref(), name);
        found.is_ok_and(|found| found.column.of.id.0 == of)
    }
}

/// Whether a query reads a column of what it calls `alias`.
fn reads(query: &Query, alias: &str, column: &str) -> bool {
    let is_it = |node: &Node| match node {
        Node::Column { qualifier, name } => {
            **name == *column && qualifier.as_ref().is_none_or(|qualifier| **qualifier == *alias)
        }
        Node::Star { .. } => true,
        _ => false,
    };
    let calls = query.from.iter().filter_map(From::call);
    let mut nodes = calls.chain(&query.outputs).chain([&query.condition]);
    nodes.any(|node| node.has(&is_it))
}

impl<'a> InPolicy<'a> {
    /// The table of this name, if its rows are known.
    fn find(self, schema: Option<&str>, name: &str) -> Result<&'a dyn Guarded, RuleError> {
        let other = |reason| RuleError::unsupported(name, reason, "");
        let schema = schema.ok_or_else(|| other("which schema it is in is not certain"))?;
        let table = self.tables.named(schema, name);
        let table = table.ok_or_else(|| other("it is not known here, or no plain table"))?;
        match table.unheld() {
            None => Ok(table),
            Some(Unheld::Unpublished) => {
                let reason = "its changes are not in the publication";
                let hint = "ALTER PUBLICATION … ADD TABLE …, with this table";
                Err(RuleError::unsupported(name, reason, hint))
            }
            Some(Unheld::Filtered) => {
                Err(other("the publication has only some of its rows or changes"))
            }
            Some(Unheld::Partitioned) => {
                let reason = "it is partitioned, or inherited from: which rows it has depends on \
                              which tables belong to it, and the stream does not say that";
                let hint = "let policies read a table that is neither";
                Err(RuleError::unsupported(name, reason, hint))
            }
        }
    }

    /// Gives a table's cells a place in the stack.
    fn open<'q>(
        self,
        table: &'q dyn Guarded,
        from: &'q From,
        opening: &mut Opening,
    ) -> Result<Named<'q>, RuleError>
    where
        'a: 'q,
    {
        let relation = table.relation();
        let granted = table.granted(self.role).ok_or_else(|| {
            RuleError::raises(&*relation.name, format!("{} may not select from it", self.role))
        })?;
        let (source, width) = self.layout.open(relation);
        let base = opening.height;
        opening.height += width;
        opening.sources.push(Source {
            table: relation.id,
            version: relation.version,
            columns: self.layout.columns(source, relation),
            base,
            lookups: Box::default(),
        });
        Ok(Named {
            alias: &from.alias,
            relation,
            unpublished: table.unpublished(),
            granted: Some(granted),
            base,
            source: Some(source),
        })
    }
}

//! Columns: of the judged row, of the tables that a query reads, of the rows of functions.

use crate::change::types::Kind;
use crate::rule::bind::Binder;
use crate::rule::bind::Collated;
use crate::rule::bind::Typed;
use crate::rule::bind::names::Found;
use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::of::Of;
use crate::rule::term::Term;
use crate::rule::value::Read;

impl<'a> Binder<'a> {
    /// The column that is named, and its place in the stack.
    pub(in crate::rule::bind) fn find(
        &self,
        qualifier: Option<&str>,
        name: &str,
    ) -> Result<(usize, Found<'a, 'a>), RuleError> {
        let found = self.names.find(qualifier, name)?;
        let Found { table, position, .. } = found;
        table.check(position)?;
        if qualifier.is_none() {
            self.check_column(name)?;
        }
        let place = match (table.source, self.policy) {
            (Some(source), Some(policy)) => policy.layout.place(source, position),
            _ => position,
        };
        Ok((table.base + place, found))
    }

    pub(in crate::rule::bind) fn column(
        &self,
        qualifier: Option<&str>,
        name: &str,
        node: &Node,
    ) -> Result<Typed, RuleError> {
        if let Some(typed) = self.names.called(qualifier, name)? {
            if qualifier.is_none() {
                self.check_column(name)?;
            }
            return Ok(typed.clone());
        }
        let (place, column) = match self.find(qualifier, name) {
            Ok((place, Found { column, .. })) => (place, column),
            Err(error @ RuleError::UnknownColumn { .. }) => {
                return self.parameter(qualifier, name, node)?.ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let Some(of) = Of::column(&column.of) else {
            let reason = format!("values of type {} are not compared here", column.of.name);
            return Err(RuleError::unsupported(node, reason, "only IS NULL can be asked of it"));
        };
        let collated = if of.is_text() || matches!(of, Of::Array(_)) {
            Collated::Column(column.collation)
        } else {
            Collated::Default
        };
        Ok(Typed { term: Term::Column { column: place, read: of.read() }, of, collated })
    }

    /// What is asked whether it is NULL: a column of any type, and it need not be read.
    pub(in crate::rule::bind) fn nullable(&self, node: &Node) -> Result<Term, RuleError> {
        let node = match node {
            Node::Exactly { operand, .. } if matches!(**operand, Node::Column { .. }) => operand,
            other => other,
        };
        let Node::Column { qualifier, name } = node else { return Ok(self.node(node)?.term) };
        if self.names.called(qualifier.as_deref(), name)?.is_some() {
            return Ok(self.node(node)?.term);
        }
        let found = self.find(qualifier.as_deref(), name);
        if matches!(found, Err(RuleError::UnknownColumn { .. })) {
            return Ok(self.node(node)?.term);
        }
        let (place, Found { column, .. }) = found?;
        if matches!(column.of.kind, Kind::Composite(_)) {
            let reason = "a row type is NULL when all of its fields are";
            return Err(RuleError::unsupported(node, reason, ""));
        }
        Ok(Term::Column { column: place, read: Read::Text })
    }
}

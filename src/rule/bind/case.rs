//! CASE, and other expressions of which one becomes the result.

use crate::rule::bind::Binder;
use crate::rule::bind::Collated;
use crate::rule::bind::Typed;
use crate::rule::bind::logic::junction;
use crate::rule::bind::logic::not;
use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::Known;
use crate::rule::expression::Node;
use crate::rule::of::Of;
use crate::rule::term::Term;

impl Binder<'_> {
    /// A CASE of booleans without an operand, where NULL and FALSE come to the same: AND and OR, so
    /// that it can be found by what its arms say. Absent where an error could get lost by that.
    pub(in crate::rule::bind) fn positive_case(
        &self,
        arms: &[(Node, Node)],
        otherwise: Option<&Node>,
    ) -> Result<Option<Typed>, RuleError> {
        let plain = Binder { is_positive: false, ..*self };
        let mut term = match otherwise {
            Some(node) => self.boolean(node)?,
            None => Term::boolean(false),
        };
        let mut may_fault = term.may_fault();
        for (node, result) in arms.iter().rev() {
            let (condition, result) = (self.boolean(node)?, self.boolean(result)?);
            may_fault |= condition.may_fault() || result.may_fault();
            if result == Term::boolean(true) {
                term = junction(vec![condition, term], true);
                continue;
            }
            let operand = Box::new(plain.boolean(node)?);
            let is_true = Typed::new(Term::Is { operand, known: Known::True }, Of::Bool);
            let is_other = not(self.fold(is_true, node)?.term);
            let first = junction(vec![condition, result], false);
            term = junction(vec![first, junction(vec![is_other, term], false)], true);
        }
        Ok((!may_fault).then_some(Typed::new(term, Of::Bool)))
    }

    pub(in crate::rule::bind) fn case(
        &self,
        operand: Option<&Node>,
        arms: &[(Node, Node)],
        otherwise: Option<&Node>,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let mut conditions = Vec::new();
        let mut nodes = Vec::new();
        for (condition, result) in arms {
            conditions.push(match operand {
                None => self.boolean(condition)?,
                Some(operand) => self.compare(Comparison::Equal, operand, condition, token)?.term,
            });
            nodes.push(result);
        }
        nodes.push(otherwise.unwrap_or(&Node::Null));
        let (mut results, of, collated) = self.results(&nodes, token)?;
        let otherwise = results.pop().unwrap_or(Term::NULL);
        let arms =
            conditions.into_iter().zip(results).map(|(condition, result)| [condition, result]);
        let term = Term::Case { arms: arms.collect(), otherwise: Box::new(otherwise) };
        self.fold(Typed { term, of, collated }, token)
    }

    /// Several expressions of which one will be the result.
    pub(in crate::rule::bind) fn results(
        &self,
        nodes: &[&Node],
        token: &Node,
    ) -> Result<(Vec<Term>, Of, Collated), RuleError> {
        let typed = nodes.iter().map(|node| self.node(node)).collect::<Result<Vec<_>, _>>()?;
        let of = self.common(&typed, token)?;
        let mut collated = Collated::Default;
        let mut terms = Vec::new();
        for (typed, node) in typed.into_iter().zip(nodes) {
            collated = collated.with(typed.collated, token)?;
            terms.push(self.coerce(typed, &of, node)?.term);
        }
        Ok((terms, of, collated))
    }
}

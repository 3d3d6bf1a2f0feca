//! CASE, and other expressions of which one becomes the result.

use crate::rule::bind::Binder;
use crate::rule::bind::Collated;
use crate::rule::bind::Typed;
use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::Node;
use crate::rule::of::Of;
use crate::rule::term::Term;

impl Binder<'_> {
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

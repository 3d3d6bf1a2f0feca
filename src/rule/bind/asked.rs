//! What only policies of the database have: questions to the session, and what the server has found.

use crate::rule::bind::Binder;
use crate::rule::bind::Typed;
use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::of::Of;
use crate::rule::value::Value;

impl Binder<'_> {
    /// What the session answers.
    pub(in crate::rule::bind) fn asked(&self, node: &Node) -> Result<Typed, RuleError> {
        let unknown = || RuleError::unsupported(node, "a policy of the database may ask it", "");
        let policy = self.policy.ok_or_else(unknown)?;
        let text = |text: String| Value::Text(text.into_bytes().into());
        match node {
            Node::Setting { .. } if policy.session.is_anybody() => Ok(Typed::anything(Of::Text)),
            Node::Setting { name, missing_ok } => {
                let value = policy.session.setting(name, *missing_ok, node)?;
                Ok(Typed::constant(value.map(text), Of::Text))
            }
            Node::CurrentUser => Ok(Typed::constant(Some(text(policy.role.to_owned())), Of::Name)),
            _ => Err(unknown()),
        }
    }

    /// What the server has found to be of this type: where another is found here, one of the two
    /// has read something else than is written.
    pub(in crate::rule::bind) fn exactly(
        &self,
        operand: &Node,
        of: u32,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let typed = self.node(operand)?;
        let found = match operand {
            Node::Column { qualifier, name }
                if self.names.called(qualifier.as_deref(), name)?.is_none() =>
            {
                let (_, found) = self.find(qualifier.as_deref(), name)?;
                Some(found.column.of.id.0)
            }
            _ => typed.of.oid(),
        };
        if found == Some(of) {
            return Ok(typed);
        }
        let reason = format!("it is of type {} here, of the type with OID {of} there", typed.of);
        Err(RuleError::unsupported(token, reason, ""))
    }
}

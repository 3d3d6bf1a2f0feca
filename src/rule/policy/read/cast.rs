//! Casts, in the forms in which they are kept: by a function, without one, by the types' texts, and
//! of each element of an array.

use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::policy::library::FIRST_CUSTOM;
use crate::rule::policy::read::Reader;
use crate::rule::policy::read::Typed;
use crate::rule::policy::read::list;
use crate::rule::policy::read::refused;
use crate::rule::policy::tree::Fields;
use crate::rule::policy::tree::Tree;

const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const TEXTS: u32 = 1009;
const VARCHARS: u32 = 1015;

impl Reader<'_> {
    /// An operand of type `from` cast to another type.
    pub(super) fn cast(
        &self,
        operand: Tree<'_>,
        from: u32,
        to: u32,
        depth: usize,
    ) -> Result<Typed, RuleError> {
        let operand = self.node(operand, depth)?;
        let name = self.library.type_name(to);
        let name = name.ok_or_else(|| refused("a cast", format!("to the type with OID {to}")))?;
        let operand = Box::new(Node::Exactly { operand: Box::new(operand), of: from });
        Ok(Typed { node: Node::Cast { operand, to: name.into() }, of: to })
    }

    pub(super) fn relabel(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (argument, of) = (fields.take("arg")?, fields.number("resulttype")?);
        fields.end(&["resulttypmod", "resultcollid", "relabelformat"])?;
        let argument = self.any(argument, depth)?;
        let texts = matches!((argument.of, of), (VARCHAR | TEXT, TEXT) | (TEXT, VARCHAR));
        // A domain is taken for its base type.
        let domain = argument.of >= FIRST_CUSTOM && !self.library.is_enum(argument.of);
        let name = self.library.type_name(of).filter(|_| texts || domain);
        let Some(name) = name else {
            let reason = format!("from the type with OID {} to {of}", argument.of);
            return Err(refused("a cast without a function", reason));
        };
        let node = Node::Cast { operand: Box::new(argument.node), to: name.into() };
        Ok(Typed { node, of })
    }

    /// A cast by a type's output and another's input function.
    pub(super) fn through_text(
        &self,
        mut fields: Fields<'_>,
        depth: usize,
    ) -> Result<Typed, RuleError> {
        let (argument, of) = (fields.take("arg")?, fields.number("resulttype")?);
        fields.end(&["resultcollid", "coerceformat"])?;
        let argument = self.any(argument, depth)?;
        let name = self
            .library
            .type_name(of)
            .filter(|_| list::is_cast_through_text(argument.of, of, |of| self.library.is_enum(of)));
        let Some(name) = name else {
            let reason = format!("from the type with OID {} to {of}", argument.of);
            return Err(refused("a cast by the types' texts", reason));
        };
        let node = Node::Cast { operand: Box::new(argument.exactly()), to: name.into() };
        Ok(Typed { node, of })
    }

    /// `(ARRAY['a'::varchar])::text[]`, as a list for a `varchar` column is kept.
    pub(super) fn relabel_array(
        &self,
        mut fields: Fields<'_>,
        depth: usize,
    ) -> Result<Typed, RuleError> {
        let (argument, of) = (fields.take("arg")?, fields.number("resulttype")?);
        let mut each = fields.take("elemexpr")?.node()?;
        fields.end(&["resulttypmod", "resultcollid", "coerceformat"])?;
        let argument = self.any(argument, depth)?;
        let tested = each.take("arg")?.node()?.name;
        let plain = each.name == "RELABELTYPE" && tested == "CASETESTEXPR";
        if !plain || (argument.of, of) != (VARCHARS, TEXTS) {
            return Err(refused("a cast of an array", "only varchar[] to text[] is decided here"));
        }
        let node = Node::Cast { operand: Box::new(argument.node), to: "text[]".into() };
        Ok(Typed { node, of })
    }
}

//! The stored tree of a policy in, the expression that it is out.
//!
//! Every node says which types, operators and functions PostgreSQL has found. They are compared
//! with lists, and carried along (`Node::Exactly`), so that binding refuses what it would resolve in
//! another way.

mod cast;
mod from;
mod list;
mod query;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::Expression;
use crate::rule::expression::Function;
use crate::rule::expression::Known;
use crate::rule::expression::Node;
use crate::rule::expression::ROW;
use crate::rule::policy::constant;
use crate::rule::policy::library::FIRST_CUSTOM;
use crate::rule::policy::library::Library;
use crate::rule::policy::read::list::Meaning;
use crate::rule::policy::tree;
use crate::rule::policy::tree::Fields;
use crate::rule::policy::tree::Tree;

/// How deep expressions may be nested: every one of them becomes a node or two.
const DEPTH_MAX: usize = 64;

const TEXT: u32 = 25;
const NAME: u32 = 19;

/// Reads a policy.
pub(super) fn policy(
    tree: &str,
    columns: &BTreeMap<i16, Box<str>>,
    library: &Library,
) -> Result<Expression, RuleError> {
    let row = Range { name: ROW.into(), columns: Cow::Borrowed(columns) };
    let level = Level { outer: None, depth: 0, ranges: vec![Some(row)] };
    let reader = Reader { level: &level, library, parameters: &[] };
    Expression::checked(reader.any(tree::parse(tree)?, 0)?.node)
}

/// Reads the body of a function: one query.
pub(super) fn body(tree: &str, library: &Library) -> Result<Node, RuleError> {
    let several = || refused("its body", "of BEGIN ATOMIC, only one SELECT is looked into");
    let mut query = tree::parse(tree)?;
    while let Tree::List(mut list) = query {
        query = list.pop().filter(|_| list.is_empty()).ok_or_else(several)?;
    }
    let level = Level { outer: None, depth: 0, ranges: Vec::new() };
    let reader = Reader { level: &level, library, parameters: &[] };
    let query = query.node()?;
    if query.name != "QUERY" {
        return Err(several());
    }
    Ok(Expression::checked(reader.value(query, 0)?.node)?.node)
}

fn refused(token: &str, reason: impl Into<Box<str>>) -> RuleError {
    RuleError::unsupported(token, reason, "")
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    level: &'a Level<'a>,
    library: &'a Library,
    /// What the subquery selects whose comparisons are read.
    parameters: &'a [Typed],
}

/// One level of queries, and those around it.
struct Level<'a> {
    outer: Option<&'a Level<'a>>,
    depth: usize,
    /// What may be spoken of, by number; absent where that is no table.
    ranges: Vec<Option<Range<'a>>>,
}

/// A table, or the rows of a function.
struct Range<'a> {
    /// How its columns are qualified: in a way in which no other table's are.
    name: Box<str>,
    columns: Cow<'a, BTreeMap<i16, Box<str>>>,
}

impl<'a> Level<'a> {
    /// The table of this number, so many levels up.
    fn range(&self, number: usize, levels: u32) -> Option<&Range<'a>> {
        let mut level = self;
        for _ in 0..levels {
            level = level.outer?;
        }
        level.ranges.get(number.checked_sub(1)?)?.as_ref()
    }
}

/// An expression with the type that PostgreSQL gives it.
#[derive(Clone)]
struct Typed {
    node: Node,
    of: u32,
}

impl Typed {
    /// Must be of its type for us, too.
    fn exactly(self) -> Node {
        Node::Exactly { operand: Box::new(self.node), of: self.of }
    }
}

impl Reader<'_> {
    fn any(&self, tree: Tree<'_>, depth: usize) -> Result<Typed, RuleError> {
        if depth > DEPTH_MAX {
            return Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX });
        }
        let fields = tree.node()?;
        let depth = depth + 1;
        match fields.name {
            "VAR" => self.column(fields),
            "CONST" => self.constant(fields),
            "OPEXPR" => self.operator(fields, depth),
            "DISTINCTEXPR" => self.distinct(fields, depth),
            "NULLIFEXPR" => self.nullif(fields, depth),
            "SCALARARRAYOPEXPR" => self.quantified(fields, depth),
            "BOOLEXPR" => self.junction(fields, depth),
            "FUNCEXPR" => self.function(fields, depth),
            "RELABELTYPE" => self.relabel(fields, depth),
            "COERCEVIAIO" => self.through_text(fields, depth),
            "ARRAYCOERCEEXPR" => self.relabel_array(fields, depth),
            "ARRAYEXPR" | "ARRAY" => self.array(fields, depth),
            "NULLTEST" => self.null_test(fields, depth),
            "BOOLEANTEST" => self.boolean_test(fields, depth),
            "CASEEXPR" | "CASE" => self.case(fields, depth),
            "COALESCEEXPR" | "COALESCE" => self.coalesce(fields, depth),
            "COLLATEEXPR" | "COLLATE" => self.collate(fields, depth),
            "SQLVALUEFUNCTION" => session_value(fields),
            "SUBLINK" => self.sublink(fields, depth),
            "PARAM" => self.parameter(fields),
            other => Err(refused(other, "it is on no list of what is decided here")),
        }
    }

    fn node(&self, tree: Tree<'_>, depth: usize) -> Result<Node, RuleError> {
        Ok(self.any(tree, depth)?.node)
    }

    fn nodes(&self, trees: Vec<Tree<'_>>, depth: usize) -> Result<Vec<Node>, RuleError> {
        trees.into_iter().map(|tree| self.node(tree, depth)).collect()
    }

    fn column(&self, mut fields: Fields<'_>) -> Result<Typed, RuleError> {
        let (table, number) = (fields.number("varno")?, fields.number::<i16>("varattno")?);
        let (of, level) = (fields.number("vartype")?, fields.number::<u32>("varlevelsup")?);
        let ignored = ["vartypmod", "varcollid", "varnosyn", "varattnosyn", "varreturningtype"];
        fields.end(&ignored)?;
        let range = self.level.range(table, level);
        let range = range.ok_or_else(|| refused("a column", "it is no table's"))?;
        let name = range.columns.get(&number);
        let name = name.ok_or_else(|| refused("a column", "it is none that a table has"))?;
        let column = Node::Column { qualifier: Some(range.name.clone()), name: name.clone() };
        Ok(Typed { node: Typed { node: column, of }.exactly(), of })
    }

    fn constant(&self, mut fields: Fields<'_>) -> Result<Typed, RuleError> {
        let (of, is_null) = (fields.number("consttype")?, fields.boolean("constisnull")?);
        let value = fields.take("constvalue")?;
        fields.end(&["consttypmod", "constcollid", "constlen", "constbyval"])?;
        let to = self.library.type_name(of);
        let to =
            to.ok_or_else(|| refused("a constant", format!("its type ({of}) is not known here")))?;
        let operand = match value {
            Tree::Nothing if is_null => Node::Null,
            Tree::Bytes(bytes) if !is_null => {
                Node::Text(constant::text(&bytes, of, self.library)?.into())
            }
            _ => return Err(refused("a constant", "it can't be read")),
        };
        let node = Node::Cast { operand: Box::new(operand), to: to.into() };
        // An array of enums has no type of its own here.
        let known = of < FIRST_CUSTOM || self.library.is_enum(of);
        let typed = Typed { node, of };
        Ok(if known { Typed { node: typed.exactly(), of } } else { typed })
    }

    /// What an operator means, with its sides made to be of the types that it takes.
    fn resolved(
        &self,
        id: u32,
        (left, right): (Typed, Typed),
    ) -> Result<(Meaning, Node, Node), RuleError> {
        let operator = self.library.server.operators.get(&id);
        let operator = operator.ok_or_else(|| {
            refused(
                "an operator",
                "it is not one of the server's own, so what it does is not known",
            )
        })?;
        let meaning = list::operator(operator).ok_or_else(|| {
            let types = format!("{} {} {}", operator.left, operator.name, operator.right);
            refused(&types, "the operator for these types is on no list of what is decided here")
        })?;
        let side = |typed: Typed, taken: u32| {
            if list::is_polymorphic(taken) {
                return typed.node;
            }
            Node::Exactly { operand: Box::new(typed.node), of: taken }
        };
        Ok((meaning, side(left, operator.left), side(right, operator.right)))
    }

    fn sides(&self, fields: &mut Fields<'_>, depth: usize) -> Result<(Typed, Typed), RuleError> {
        let (left, right) = fields.two("args")?;
        Ok((self.any(left, depth)?, self.any(right, depth)?))
    }

    fn operator(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (id, of) = (fields.number("opno")?, fields.number("opresulttype")?);
        let sides = self.sides(&mut fields, depth)?;
        fields.end(&["opfuncid", "opcollid", "inputcollid"])?;
        let (meaning, left, right) = self.resolved(id, sides)?;
        Ok(Typed { node: meaning.applied(left, right), of })
    }

    /// A node of two sides whose operator is `=`.
    fn equality(
        &self,
        mut fields: Fields<'_>,
        depth: usize,
    ) -> Result<(Node, Node, u32), RuleError> {
        let (id, of) = (fields.number("opno")?, fields.number("opresulttype")?);
        let sides = self.sides(&mut fields, depth)?;
        let name = fields.name;
        fields.end(&["opfuncid", "opcollid", "inputcollid"])?;
        match self.resolved(id, sides)? {
            (Meaning::Compare(Comparison::Equal), left, right) => Ok((left, right, of)),
            _ => Err(refused(name, "its operator is not =")),
        }
    }

    fn distinct(&self, fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (left, right, of) = self.equality(fields, depth)?;
        Ok(Typed { node: Node::Distinct { left: left.into(), right: right.into() }, of })
    }

    fn nullif(&self, fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (left, right, of) = self.equality(fields, depth)?;
        let node = Node::Call { function: Function::Nullif, arguments: vec![left, right] };
        Ok(Typed { node, of })
    }

    fn quantified(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (id, any) = (fields.number::<u32>("opno")?, fields.boolean("useOr")?);
        let (left, right) = self.sides(&mut fields, depth)?;
        fields.end(&["opfuncid", "hashfuncid", "negfuncid", "inputcollid"])?;
        // The operator is the elements'; the array's own type follows from theirs.
        let array = right.node;
        let element = Typed { node: Node::Null, of: 0 };
        let (meaning, left, _) = self.resolved(id, (left, element))?;
        let Meaning::Compare(op) = meaning else {
            return Err(refused("ANY and ALL", "only comparisons go with them"));
        };
        let node = Node::Quantified { op, left: left.into(), right: array.into(), all: !any };
        Ok(Typed { node, of: 16 })
    }

    fn junction(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let op = fields.word("boolop")?;
        let arguments = fields.take("args")?.list()?;
        fields.end(&[])?;
        let mut nodes = self.nodes(arguments, depth)?;
        let node = match (op, nodes.len()) {
            ("and", 2..) => Node::All(nodes),
            ("or", 2..) => Node::Any(nodes),
            ("not", 1) => nodes.remove(0).not(),
            _ => return Err(refused("BOOLEXPR", "it can't be read")),
        };
        Ok(Typed { node, of: 16 })
    }

    fn function(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (id, of) = (fields.number::<u32>("funcid")?, fields.number("funcresulttype")?);
        let format = fields.number::<u32>("funcformat")?;
        let is_set = fields.boolean("funcretset")?;
        let arguments = fields.take("args")?.list()?;
        fields.end(&["funccollid", "inputcollid"])?;
        if id >= FIRST_CUSTOM {
            let function = self.library.function(id);
            let function = function.ok_or_else(|| refused("a function", "it is not known here"))?;
            if function.result != of || function.rows.is_some() != is_set {
                return Err(refused(&function.name, "its result is of another type"));
            }
            let (schema, name) = (Some(function.schema.clone()), function.name.clone());
            let arguments = self.nodes(arguments, depth)?;
            return Ok(Typed { node: Node::User { schema, name, arguments }, of });
        }
        let builtin = self.library.server.functions.get(&id);
        let builtin =
            builtin.ok_or_else(|| refused("a function of the server", "it is on no list"))?;
        let other = || refused(&builtin.name, "the function is not decided here");
        if is_set {
            return Err(other());
        }
        if let (1 | 2, [from]) = (format, &*builtin.arguments) {
            // Written as a cast, or not written at all.
            if !list::is_cast(*from, of) {
                return Err(other());
            }
            let mut arguments = arguments;
            let argument = arguments.pop().ok_or_else(other)?;
            return self.cast(argument, *from, of, depth);
        }
        if &*builtin.name == "current_setting" {
            return setting(arguments, self.library).map(|node| Typed { node, of });
        }
        let function = list::function(builtin).ok_or_else(other)?;
        Ok(Typed { node: Node::Call { function, arguments: self.nodes(arguments, depth)? }, of })
    }

    fn array(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let of = fields.number("array_typeid")?;
        let elements = fields.take("elements")?.list()?;
        let ignored = ["array_collid", "element_typeid", "list_start", "list_end"];
        fields.end(&ignored)?;
        Ok(Typed { node: Node::Array(self.nodes(elements, depth)?), of })
    }

    fn null_test(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (argument, test) = (fields.take("arg")?, fields.word("nulltesttype")?);
        // `argisrow` says something only where it is true.
        fields.end(&[])?;
        let node = Node::IsNull(Box::new(self.node(argument, depth)?)).not_if(test == "1");
        Ok(Typed { node, of: 16 })
    }

    fn boolean_test(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (argument, test) = (fields.take("arg")?, fields.number::<u8>("booltesttype")?);
        fields.end(&[])?;
        let (known, negated) = match test {
            0 | 1 => (Known::True, test == 1),
            2 | 3 => (Known::False, test == 3),
            4 | 5 => (Known::Unknown, test == 5),
            _ => return Err(refused("IS", "the test is not known here")),
        };
        let operand = Box::new(self.node(argument, depth)?);
        Ok(Typed { node: Node::Is { operand, known }.not_if(negated), of: 16 })
    }

    fn case(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let of = fields.number("casetype")?;
        let (operand, arms) = (fields.take("arg")?, fields.take("args")?.list()?);
        let otherwise = fields.take("defresult")?;
        fields.end(&["casecollid"])?;
        let simple = operand != Tree::Nothing;
        let optional = |tree: Tree<'_>| match tree {
            Tree::Nothing => Ok(None),
            tree => self.node(tree, depth).map(|node| Some(Box::new(node))),
        };
        let arm = |arm: Tree<'_>| -> Result<(Node, Node), RuleError> {
            let mut fields = arm.node()?;
            let (condition, result) = (fields.take("expr")?, fields.take("result")?);
            fields.end(&[])?;
            let condition =
                if simple { self.tested(condition, depth)? } else { self.node(condition, depth)? };
            Ok((condition, self.node(result, depth)?))
        };
        let arms = arms.into_iter().map(arm).collect::<Result<_, _>>()?;
        let node =
            Node::Case { operand: optional(operand)?, arms, otherwise: optional(otherwise)? };
        Ok(Typed { node, of })
    }

    /// What the operand of a CASE is compared with.
    fn tested(&self, condition: Tree<'_>, depth: usize) -> Result<Node, RuleError> {
        let mut fields = condition.node()?;
        let id = fields.number::<u32>("opno")?;
        let (left, right) = fields.two("args")?;
        fields.end(&["opfuncid", "opresulttype", "opcollid", "inputcollid"])?;
        let element = Typed { node: Node::Null, of: 0 };
        let (meaning, _, right) = self.resolved(id, (element, self.any(right, depth)?))?;
        match (meaning, left.node()?.name) {
            (Meaning::Compare(Comparison::Equal), "CASETESTEXPR") => Ok(right),
            _ => Err(refused("CASE", "only plain comparisons with its operand are decided here")),
        }
    }

    fn coalesce(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let of = fields.number("coalescetype")?;
        let arguments = self.nodes(fields.take("args")?.list()?, depth)?;
        fields.end(&["coalescecollid"])?;
        Ok(Typed { node: Node::Call { function: Function::Coalesce, arguments }, of })
    }

    fn collate(&self, mut fields: Fields<'_>, depth: usize) -> Result<Typed, RuleError> {
        let (argument, collation) = (fields.take("arg")?, fields.number::<u32>("collOid")?);
        fields.end(&[])?;
        let name = match collation {
            950 => "C",
            951 => "POSIX",
            _ => return Err(refused("COLLATE", "only \"C\" and \"POSIX\" are decided here")),
        };
        let argument = self.any(argument, depth)?;
        let node = Node::Collate { operand: Box::new(argument.node), collation: name.into() };
        Ok(Typed { node, of: argument.of })
    }
}

/// `current_user` and what else the grammar has for it.
fn session_value(mut fields: Fields<'_>) -> Result<Typed, RuleError> {
    let (op, of) = (fields.number::<u32>("op")?, fields.number("type")?);
    fields.end(&["typmod"])?;
    match (op, of) {
        // SVFOP_CURRENT_ROLE, SVFOP_CURRENT_USER
        (9 | 10, NAME) => Ok(Typed { node: Node::CurrentUser, of }),
        (12, _) => Err(refused("session_user", "it is the gateway's, not the client's")),
        (0..=8, _) => Err(refused("the time", "what it admits changes without any change")),
        _ => Err(refused("a value of the session", "it is not known here")),
    }
}

/// `current_setting(name)` and `current_setting(name, missing_ok)`.
fn setting(arguments: Vec<Tree<'_>>, library: &Library) -> Result<Node, RuleError> {
    let mut texts = Vec::new();
    for argument in arguments {
        let mut fields = argument.node()?;
        if fields.name != "CONST" {
            return Err(refused("current_setting", "the name of a setting is a constant here"));
        }
        let of = fields.number::<u32>("consttype")?;
        match fields.take("constvalue")? {
            Tree::Bytes(bytes) => texts.push((of, constant::text(&bytes, of, library)?)),
            _ => return Err(refused("current_setting", "of NULL")),
        }
    }
    match texts.as_slice() {
        [(TEXT, name)] => Ok(Node::Setting { name: name.as_str().into(), missing_ok: false }),
        [(TEXT, name), (16, flag)] => {
            Ok(Node::Setting { name: name.as_str().into(), missing_ok: flag == "t" })
        }
        _ => Err(refused("current_setting", "its arguments are not known here")),
    }
}

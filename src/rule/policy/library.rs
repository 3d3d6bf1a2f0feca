//! What the OIDs in a policy mean: the server's own operators and functions, and the database's.
//!
//! The built-in ones are read from the server at the start of a connection, so that an OID means
//! what this server means by it, whatever its version; they can't be replaced by anybody. What is
//! not listed in [`read`](super::read) by name and types is refused all the same.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::rule::error::RuleError;
use crate::rule::expression::Expression;
use crate::rule::expression::Node;
use crate::rule::parse::parse_body;

/// OIDs below are given by the server's own makers, and to nothing else.
pub const FIRST_CUSTOM: u32 = 16_384;

/// How deep functions may call each other.
const CALLS_MAX: usize = 8;

/// A built-in operator: its name, and the types of its sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// `pg_operator.oprname`.
    pub name: Box<str>,
    /// `pg_operator.oprleft`.
    pub left: u32,
    /// `pg_operator.oprright`.
    pub right: u32,
}

/// A built-in function: its name, and the types that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// `pg_proc.proname`.
    pub name: Box<str>,
    /// `pg_proc.proargtypes`.
    pub arguments: Box<[u32]>,
}

/// The server's own operators and functions, by OID.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// The operators whose code is the server's own.
    pub operators: HashMap<u32, Operator>,
    /// The functions whose code is the server's own.
    pub functions: HashMap<u32, Builtin>,
}

/// A function of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `pg_proc.oid`.
    pub id: u32,
    /// Its schema.
    pub schema: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// The type of its result.
    pub result: u32,
    /// Its body; absent where it is not a plain text in SQL.
    pub body: Option<Box<str>>,
    /// Why it can't be looked into, whatever its body says; absent where it can.
    pub obstacle: Option<&'static str>,
    /// Whether it runs as its owner.
    pub definer: bool,
    /// The client roles that may call it.
    pub callers: Box<[Box<str>]>,
    /// The client roles that may also name it: a body is read each time that it runs.
    pub namers: Box<[Box<str>]>,
}

/// An enum, with the OIDs of its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enum {
    /// `pg_type.oid`.
    pub id: u32,
    /// Its name.
    pub name: Box<str>,
    /// `pg_enum.oid` and label.
    pub labels: Vec<(u32, Box<str>)>,
}

/// Everything that a policy may mention.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// What is built in.
    pub server: Arc<Server>,
    /// The functions of the database that policies call, and those that these call.
    pub functions: Vec<Function>,
    /// The enums of the tables' columns.
    pub enums: Vec<Enum>,
    /// The tables that policies may read, by `pg_class.oid`.
    pub tables: HashMap<u32, TableNames>,
}

/// What a table and its columns are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNames {
    /// Its schema.
    pub schema: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// The columns by number (`pg_attribute.attnum`).
    pub columns: BTreeMap<i16, Box<str>>,
}

/// Who may run what a policy calls: the client roles, or everybody where it calls nothing.
pub(super) type Callers = Option<Vec<Box<str>>>;

impl Library {
    /// Puts the bodies of functions in the place of their calls; tells who may call all of them.
    pub(super) fn inline(&self, node: &mut Node) -> Result<Callers, RuleError> {
        let mut callers = None;
        self.inline_at(node, 0, &mut callers)?;
        Expression::checked(node.clone())?;
        Ok(callers)
    }

    fn inline_at(
        &self,
        node: &mut Node,
        depth: usize,
        callers: &mut Callers,
    ) -> Result<(), RuleError> {
        node.rewrite(&mut |node| {
            let Node::User { schema, name } = &*node else { return Ok(()) };
            let refused = |reason: &str| RuleError::unsupported(&*node, reason, "");
            if depth == CALLS_MAX {
                return Err(refused("functions call each other too deep"));
            }
            let function = self.named(schema, name);
            let function = function.ok_or_else(|| refused("the function is not known here"))?;
            let mut body = function.expression().map_err(|error| match error {
                RuleError::Unsupported { token, reason, .. } => {
                    refused(&format!("{token}: {reason}"))
                }
                other => refused(&other.to_string()),
            })?;
            let may = if depth == 0 { &function.callers } else { &function.namers };
            match callers {
                None => *callers = Some(may.to_vec()),
                Some(callers) => callers.retain(|role| may.contains(role)),
            }
            self.inline_at(&mut body, depth + 1, callers)?;
            // Each call may double the size: what is too large already grows no further.
            Expression::checked(body.clone())?;
            *node = Node::Exactly { operand: Box::new(body), of: function.result };
            Ok(())
        })
    }

    /// The only function of that name.
    fn named(&self, schema: &str, name: &str) -> Option<&Function> {
        let mut named = self
            .functions
            .iter()
            .filter(|function| &*function.schema == schema && &*function.name == name);
        named.next().filter(|_| named.next().is_none())
    }

    pub(super) fn function(&self, id: u32) -> Option<&Function> {
        self.functions.iter().find(|function| function.id == id)
    }

    /// The name by which a type is cast to.
    pub(super) fn type_name(&self, of: u32) -> Option<&str> {
        Some(match of {
            16 => "bool",
            17 => "bytea",
            19 => "name",
            20 => "int8",
            21 => "int2",
            23 => "int4",
            25 => "text",
            26 => "oid",
            114 => "json",
            700 => "float4",
            701 => "float8",
            1042 => "bpchar",
            1043 => "varchar",
            1082 => "date",
            1114 => "timestamp",
            1184 => "timestamptz",
            1700 => "numeric",
            2950 => "uuid",
            3802 => "jsonb",
            1000 => "bool[]",
            1005 => "int2[]",
            1007 => "int4[]",
            1009 => "text[]",
            1015 => "varchar[]",
            1016 => "int8[]",
            1182 => "date[]",
            1231 => "numeric[]",
            2951 => "uuid[]",
            of => return self.enums.iter().find(|it| it.id == of).map(|it| &*it.name),
        })
    }

    /// The element's type of a built-in array.
    pub(super) fn element(&self, of: u32) -> Option<u32> {
        let name = self.type_name(of)?.strip_suffix("[]")?;
        [16, 20, 21, 23, 25, 1043, 1082, 1700, 2950]
            .into_iter()
            .find(|element| self.type_name(*element) == Some(name))
    }

    pub(super) fn is_enum(&self, of: u32) -> bool {
        self.enums.iter().any(|it| it.id == of)
    }

    pub(super) fn label(&self, of: u32, label: u32) -> Option<&str> {
        let labels = &self.enums.iter().find(|it| it.id == of)?.labels;
        labels.iter().find(|(id, _)| *id == label).map(|(_, label)| &**label)
    }
}

impl Function {
    /// The one expression that the function selects.
    fn expression(&self) -> Result<Node, RuleError> {
        let refused = |reason| RuleError::unsupported("its body", reason, "");
        if let Some(obstacle) = self.obstacle {
            return Err(refused(obstacle));
        }
        let body = self.body.as_deref().ok_or_else(|| refused("it is not a text in SQL"))?;
        let node = parse_body(body)?;
        if node.has(&|node| matches!(node, Node::Column { .. })) {
            return Err(refused("it reads columns or parameters"));
        }
        if self.definer && node.has(&|node| *node == Node::CurrentUser) {
            return Err(refused("it runs as its owner, and asks for current_user"));
        }
        Ok(node)
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
            result: 25,
            body: Some(body.into()),
            obstacle: None,
            definer: false,
            callers: Box::new(["web".into()]),
            namers: Box::default(),
        }
    }

    fn inlined(functions: Vec<Function>) -> String {
        let library = Library { functions, ..Library::default() };
        let mut node = parse_stored("auth.a() = 'x'").unwrap();
        match library.inline(&mut node) {
            Ok(callers) => format!("{node} {callers:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_body_takes_the_place_of_the_call() {
        let body = "\n  select nullif(current_setting('app.a', true), '');\n";
        assert_eq!(
            inlined(vec![function("a", body)]),
            "nullif(current_setting('app.a'), '') = 'x' Some([\"web\"])"
        );
        // What is called from a body is named there, which takes another privilege.
        let nested = vec![function("a", "SELECT auth.b()"), function("b", "select 'y'::text")];
        assert_eq!(inlined(nested), "('y')::text = 'x' Some([])");
    }

    #[test]
    fn what_is_no_plain_expression_is_refused() {
        for body in [
            "select a from b",
            "select 1, 2",
            "select 1; select 2",
            "select",
            "select x",
            "select auth.a()",
            "select auth.other()",
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

//! What the OIDs in a policy mean: the server's own operators and functions, and the database's.
//!
//! The built-in ones are read from the server at the start of a connection, so that an OID means
//! what this server means by it, whatever its version; they can't be replaced by anybody. What is
//! not listed in [`read`](super::read) by name and types is refused all the same.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use crate::rule::error::RuleError;
use crate::rule::expression::Expression;
use crate::rule::expression::Node;
use crate::rule::expression::query::Inlined;
use crate::rule::expression::query::Parameter;
use crate::rule::policy::body;

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
    /// What it takes, in order: each by its name, which may be empty, and its type.
    pub parameters: Box<[(Box<str>, u32)]>,
    /// The type of its result.
    pub result: u32,
    /// The language that its body is written in.
    pub language: Language,
    /// Its body.
    pub body: Box<str>,
    /// Why it can't be looked into, whatever its body says; absent where it can.
    pub obstacle: Option<&'static str>,
    /// Whether it is NULL where an argument is.
    pub is_strict: bool,
    /// With whose rights it runs, where these are not the caller's.
    pub owner: Option<Box<str>>,
    /// The schemas in which it looks for tables and functions; absent where its caller says.
    pub path: Option<Vec<Box<str>>>,
    /// Whether no other function of the server has its name.
    pub is_only: bool,
    /// The roles that may call it.
    pub callers: Box<[Box<str>]>,
    /// The roles that may also name it: a body is read each time that it runs.
    pub namers: Box<[Box<str>]>,
}

/// The language of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// SQL.
    Sql,
    /// PL/pgSQL.
    Plpgsql,
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
    /// The names of tables and views that there are in several schemas.
    pub ambiguous: BTreeSet<Box<str>>,
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

impl Library {
    /// Puts the bodies of functions beside their calls.
    pub(super) fn inline(&self, node: &mut Node) -> Result<(), RuleError> {
        self.inline_at(node, None, 0)?;
        Expression::checked(node.clone())?;
        Ok(())
    }

    /// Inside of the body of `caller`, or of what is stored, where names are no question.
    fn inline_at(
        &self,
        node: &mut Node,
        caller: Option<&Function>,
        depth: usize,
    ) -> Result<(), RuleError> {
        node.rewrite(&mut |node| {
            if let (Node::Subquery { query, .. }, Some(caller)) = (&mut *node, caller) {
                for from in query.from.iter_mut().filter(|from| from.schema.is_none()) {
                    from.schema = Some(self.schema_of(&from.table, caller)?);
                }
                return Ok(());
            }
            let Node::User { schema, name, arguments } = &*node else { return Ok(()) };
            let refused = |reason: &str| RuleError::unsupported(&*node, reason, "");
            if depth == CALLS_MAX {
                return Err(refused("functions call each other too deep"));
            }
            let function = match (schema, caller) {
                (Some(schema), _) => self.named(schema, name),
                (None, Some(caller)) => self.found(name, caller),
                (None, None) => None,
            };
            let function = function.ok_or_else(|| refused("the function is not known here"))?;
            let mut body = function.expression().map_err(|error| match error {
                RuleError::Unsupported { token, reason, .. } => {
                    refused(&format!("{token}: {reason}"))
                }
                other => refused(&other.to_string()),
            })?;
            self.inline_at(&mut body, Some(function), depth + 1)?;
            // Each call may double the size: what is too large already grows no further.
            Expression::checked(body.clone())?;
            let parameter = |(name, of): &(Box<str>, u32)| Parameter {
                name: name.clone(),
                of: *of,
                type_name: self.type_name(*of).map(Box::from),
            };
            *node = Node::Inlined(Box::new(Inlined {
                name: format!("{}.{}", function.schema, function.name).into(),
                parameters: function.parameters.iter().map(parameter).collect(),
                arguments: arguments.clone(),
                body,
                result: parameter(&(Box::default(), function.result)),
                is_strict: function.is_strict,
                columns_first: function.language == Language::Sql,
                owner: function.owner.clone(),
                callers: if caller.is_none() { &function.callers } else { &function.namers }
                    .clone(),
            }));
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

    /// The function that a name without a schema means in the body of `caller`.
    fn found(&self, name: &str, caller: &Function) -> Option<&Function> {
        let mut named = self.functions.iter().filter(|function| &*function.name == name);
        let function = named.next()?;
        (function.is_only && caller.looks_in(&function.schema)).then_some(function)
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
    /// The one expression that the function returns.
    fn expression(&self) -> Result<Node, RuleError> {
        if let Some(obstacle) = self.obstacle {
            return Err(RuleError::unsupported("its body", obstacle, ""));
        }
        match self.language {
            Language::Sql => body::sql(&self.body),
            Language::Plpgsql => body::plpgsql(&self.body),
        }
    }

    /// Whether it looks for names in a schema. Who calls it may have set another path than the
    /// usual one; then only what is in `public` is certain enough.
    fn looks_in(&self, schema: &str) -> bool {
        match &self.path {
            Some(path) => path.iter().any(|known| &**known == schema),
            None => schema == "public",
        }
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
            language: Language::Sql,
            body: body.into(),
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
        if let Err(error) = library.inline(&mut node) {
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

//! What the OIDs in a policy mean: the server's own operators and functions, and the database's.
//!
//! The built-in ones are read from the server at the start of a connection, so that an OID means
//! what this server means by it, whatever its version; they can't be replaced by anybody. What is
//! not listed in [`read`] by name and types is refused all the same.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use crate::rule::error::RuleError;
use crate::rule::policy::Reading;
use crate::rule::policy::body;
use crate::rule::policy::plpgsql;
use crate::rule::policy::plpgsql::Spoken;
use crate::rule::policy::read;

/// OIDs below are given by the server's own makers, and to nothing else.
pub const FIRST_CUSTOM: u32 = 16_384;

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

/// A name, which may be empty, and a type (`pg_type.oid`).
pub type NamedType = (Box<str>, u32);

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
    pub parameters: Box<[NamedType]>,
    /// The type of its result.
    pub result: u32,
    /// The columns of its rows, by name and type, where it returns rows; a single one may have no
    /// name.
    pub rows: Option<Box<[NamedType]>>,
    /// The language that its body is written in.
    pub language: Language,
    /// Its body.
    pub body: Body,
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

/// The body of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// As it was written; it is read each time that it runs.
    Text(Box<str>),
    /// As it was read when it was made (`RETURN …`, `BEGIN ATOMIC …`): `pg_proc.prosqlbody`, and how
    /// the server prints it, with an empty `search_path`.
    Stored {
        /// As text.
        tree: Box<str>,
        /// By `pg_get_function_sqlbody`.
        text: Box<str>,
    },
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
            1083 => "time",
            1186 => "interval",
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

    /// The built-in array of an element's type.
    pub(super) fn array_of(&self, of: u32) -> Option<u32> {
        [1000, 1005, 1007, 1009, 1015, 1016, 1182, 1231, 2951]
            .into_iter()
            .find(|array| self.element(*array) == Some(of))
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
    /// The one expression that the function returns, and the variables in it.
    pub(super) fn expression(
        &self,
        reading: Reading,
        library: &Library,
    ) -> Result<Spoken, RuleError> {
        if let Some(obstacle) = self.obstacle {
            return Err(RuleError::unsupported("its body", obstacle, ""));
        }
        let returned = match (&self.body, self.language, reading) {
            (Body::Stored { tree, .. }, _, Reading::Tree) => read::body(tree, library)?,
            (Body::Stored { text, .. }, _, Reading::Text) => body::stored(text)?,
            (Body::Text(text), Language::Sql, _) => body::sql(text)?,
            (Body::Text(text), Language::Plpgsql, _) => {
                return plpgsql::read(text, self.rows.is_some());
            }
        };
        Ok(Spoken { locals: Vec::new(), returned })
    }

    /// Who may call what is called in its body.
    pub(super) fn may_call<'f>(&self, called: &'f Function) -> &'f [Box<str>] {
        match self.body {
            Body::Text(_) => &called.namers,
            Body::Stored { .. } => &called.callers,
        }
    }

    /// Whether it looks for names in a schema. Who calls it may have set another path than the
    /// usual one; then only what is in `public` is certain enough.
    pub(super) fn looks_in(&self, schema: &str) -> bool {
        match &self.path {
            Some(path) => path.iter().any(|known| &**known == schema),
            None => schema == "public",
        }
    }
}

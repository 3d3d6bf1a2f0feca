//! The row-level security of the tables: which policies concern which role, each of them read.
//!
//! ```text
//! policies.sql ──one JSON document──▶ Policies::read ──▶ a TablePolicies for each table
//! server.sql ───once per connection─▶ Server ┘
//! ```
//!
//! The document is compared as a text with the one before it, so that a poll that finds nothing new
//! reads nothing. Memberships, inheritance, ownership, FORCE and BYPASSRLS are PostgreSQL's own
//! answers: nothing of that is computed here.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::catalog::reach::Reach;
use crate::change::id::RelationId;
use crate::rule::RuleError;
use crate::rule::policy::Kind;
use crate::rule::policy::Policy;
use crate::rule::policy::Source;
use crate::rule::policy::library::Body;
use crate::rule::policy::library::Builtin;
use crate::rule::policy::library::Enum;
use crate::rule::policy::library::Function;
use crate::rule::policy::library::Language;
use crate::rule::policy::library::Library;
use crate::rule::policy::library::NamedType;
use crate::rule::policy::library::Operator;
use crate::rule::policy::library::Server;
use crate::rule::policy::library::TableNames;
use crate::rule::policy::tables::Guard;

/// The policies of one table with row-level security, for SELECT.
#[derive(Clone, Debug, Default)]
pub struct TablePolicies {
    /// The client roles that see every row: superusers, those with BYPASSRLS, and owners where it
    /// is not forced.
    pub exempt: Vec<Box<str>>,
    /// The policies, by name.
    pub policies: Vec<TablePolicy>,
    /// What they reach.
    pub reach: Reach,
}

/// One policy.
#[derive(Clone, Debug)]
pub struct TablePolicy {
    /// Its name.
    pub name: Box<str>,
    /// How it goes together with others.
    pub kind: Kind,
    /// The client roles that it concerns, those included that inherit a role of it.
    pub roles: Vec<Box<str>>,
    /// Whether it relies on what users of some services can change themselves.
    pub reads_user_metadata: bool,
    /// What it says, as PostgreSQL prints it.
    pub text: Box<str>,
    /// What it says, or why that is not decided here.
    pub read: Result<Policy, RuleError>,
    /// The tables (`pg_class.oid`) that it reads, those that its functions read not included.
    pub reads: Box<[u32]>,
}

impl TablePolicies {
    /// Whether `role` sees every row.
    #[must_use]
    pub fn exempts(&self, role: &str) -> bool {
        self.exempt.iter().any(|known| &**known == role)
    }

    /// The client roles that policies concern; each once.
    #[must_use]
    pub fn roles(&self) -> BTreeSet<&str> {
        self.policies.iter().flat_map(|policy| &policy.roles).map(|role| &**role).collect()
    }

    /// The policies that concern `role`.
    pub fn of<'a, 'r>(
        &'a self,
        role: &'r str,
    ) -> impl Iterator<Item = &'a TablePolicy> + use<'a, 'r> {
        self.policies.iter().filter(move |policy| policy.concerns(role))
    }
}

impl TablePolicy {
    /// It, as binding wants it.
    #[must_use]
    pub fn guard(&self) -> Guard<'_> {
        Guard { read: &self.read, kind: self.kind, reads: &self.reads }
    }

    fn concerns(&self, role: &str) -> bool {
        self.roles.iter().any(|known| &**known == role)
    }
}

#[derive(Deserialize)]
struct Document {
    names: Vec<NamesRow>,
    tables: Vec<Table>,
    enums: Vec<EnumRow>,
    functions: Vec<FunctionRow>,
    ambiguous: BTreeSet<Box<str>>,
    shadowed: bool,
    shadowed_aggregates: bool,
}

#[derive(Deserialize)]
struct NamesRow {
    id: u32,
    schema: Box<str>,
    name: Box<str>,
    columns: Vec<(i16, Box<str>)>,
}

#[derive(Deserialize)]
struct Table {
    id: u32,
    exempt: Vec<Box<str>>,
    policies: Vec<PolicyRow>,
}

#[derive(Deserialize)]
struct PolicyRow {
    name: Box<str>,
    permissive: bool,
    roles: Vec<Box<str>>,
    tree: Box<str>,
    text: Box<str>,
}

#[derive(Deserialize)]
struct EnumRow {
    id: u32,
    name: Box<str>,
    labels: Vec<(u32, Box<str>)>,
}

#[derive(Deserialize)]
struct FunctionRow {
    id: u32,
    schema: Box<str>,
    name: Box<str>,
    result: u32,
    rows: Option<Box<[NamedType]>>,
    parameters: Box<[NamedType]>,
    language: Box<str>,
    body: Box<str>,
    is_plain: bool,
    stored: Option<(Box<str>, Box<str>)>,
    is_strict: bool,
    is_only: bool,
    owner: Option<Box<str>>,
    settings: Vec<Box<str>>,
    callers: Box<[Box<str>]>,
    namers: Box<[Box<str>]>,
}

#[derive(Deserialize)]
struct ServerDocument {
    operators: Vec<(u32, Box<str>, u32, u32)>,
    functions: Vec<(u32, Box<str>, Box<[u32]>)>,
}

/// Reads the document that `server.sql` makes.
pub(super) fn server(document: &str) -> Result<Server, serde_json::Error> {
    let document: ServerDocument = serde_json::from_str(document)?;
    let operator = |(id, name, left, right)| (id, Operator { name, left, right });
    let function = |(id, name, arguments)| (id, Builtin { name, arguments });
    Ok(Server {
        operators: document.operators.into_iter().map(operator).collect(),
        functions: document.functions.into_iter().map(function).collect(),
    })
}

/// Reads the document that `policies.sql` makes, and every policy in it.
pub(super) fn read(
    document: &str,
    server: Arc<Server>,
) -> Result<HashMap<RelationId, TablePolicies>, serde_json::Error> {
    let document: Document = serde_json::from_str(document)?;
    let enums =
        document.enums.into_iter().map(|EnumRow { id, name, labels }| Enum { id, name, labels });
    let (shadowed, aggregates) = (document.shadowed, document.shadowed_aggregates);
    let functions = document.functions.into_iter().map(|row| {
        let shadowed = shadowed || (aggregates && row.aggregates());
        row.function(shadowed)
    });
    let names = document.names.into_iter().map(|row| {
        let NamesRow { id, schema, name, columns } = row;
        (id, TableNames { schema, name, columns: columns.into_iter().collect() })
    });
    let (functions, enums) = (functions.collect(), enums.collect());
    let (tables, ambiguous) = (names.collect(), document.ambiguous);
    let library = Library { server, functions, enums, tables, ambiguous };
    let none = BTreeMap::new();
    let tables = document.tables.into_iter().map(|table| {
        let columns = library.tables.get(&table.id).map_or(&none, |table| &table.columns);
        let policies = table.policies.into_iter().map(|row| TablePolicy {
            read: Policy::read(Source { tree: &row.tree, text: &row.text, columns }, &library),
            reads: tables_in(&row.tree),
            reads_user_metadata: row.text.contains("user_metadata"),
            text: row.text,
            name: row.name,
            kind: if row.permissive { Kind::Permissive } else { Kind::Restrictive },
            roles: row.roles,
        });
        let policies = TablePolicies {
            exempt: table.exempt,
            policies: policies.collect(),
            ..TablePolicies::default()
        };
        (RelationId(table.id), policies)
    });
    Ok(tables.collect())
}

/// The tables that a stored tree reads, whatever else is in it.
fn tables_in(tree: &str) -> Box<[u32]> {
    let numbers = tree.split(":relid ").skip(1);
    numbers.filter_map(|rest| rest.split([' ', '}']).next()?.parse().ok()).collect()
}

impl FunctionRow {
    /// Whether there may be an aggregate in its body.
    fn aggregates(&self) -> bool {
        let body = self.body.to_ascii_lowercase();
        body.contains("count") || body.contains("array_agg")
    }

    fn function(self, shadowed: bool) -> Function {
        let path = self.settings.iter().find_map(|setting| setting.strip_prefix("search_path="));
        let path = path.map(schemas);
        let settings = self.settings.iter().all(|setting| setting.starts_with("search_path="));
        let obstacle = if !matches!(&*self.language, "sql" | "plpgsql") {
            Some("it is written neither in SQL nor in PL/pgSQL")
        } else if !self.is_plain {
            Some("only functions that take values and return a value or rows are looked into")
        } else if !settings {
            Some("it changes settings")
        } else if shadowed && self.stored.is_none() {
            Some(
                "the database has an operator or a function of the same name as one of the \
                 server's, so that it is not certain what a body means",
            )
        } else {
            None
        };
        let is_sql = &*self.language == "sql";
        Function {
            id: self.id,
            schema: self.schema,
            name: self.name,
            parameters: self.parameters,
            result: self.result,
            rows: self.rows,
            language: if is_sql { Language::Sql } else { Language::Plpgsql },
            body: match self.stored {
                Some((tree, text)) => Body::Stored { tree, text },
                None => Body::Text(self.body),
            },
            obstacle,
            is_strict: self.is_strict,
            owner: self.owner,
            path,
            is_only: self.is_only,
            callers: self.callers,
            namers: self.namers,
        }
    }
}

/// The schemas of a search path, without those that are not the same for everybody.
fn schemas(path: &str) -> Vec<Box<str>> {
    let names = path.split(',').map(|name| name.trim().trim_matches('"'));
    names.filter(|name| !name.is_empty() && *name != "$user").map(Box::from).collect()
}

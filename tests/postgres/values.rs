//! Values: what walcast writes is what `to_jsonb` writes, for every type that the server has.
//!
//! The server lists its own types. A built-in type without a value in [`literals`] fails the test,
//! so that a new major version of Postgres can't bring one in unnoticed.

mod literals;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use walcast::catalog::Catalog;
use walcast::catalog::Settings;
use walcast::change::id::RelationId;
use walcast::change::id::TypeId;
use walcast::change::relation::ColumnDescription;
use walcast::change::relation::RelationDescription;
use walcast::change::relation::ReplicaIdentity;
use walcast::change::types::Type;
use walcast::change::value::write_json;
use walcast::tls::TlsMode;

use crate::support::Database;
use crate::support::database;
use crate::values::literals::literals;

/// The settings that every session of the daemon pins.
const PINNED: &str = "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
                      SET extra_float_digits = 3; SET bytea_output = 'hex'";

/// Built-in types of which nobody can make a value.
const WITHOUT_VALUES: &[&str] =
    &["gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"];

/// Values of built-in types that have no literals, with a query that finds some.
const FOUND: &[(&str, &str)] = &[
    ("pg_node_tree", "SELECT ev_action FROM pg_rewrite ORDER BY oid LIMIT 3"),
    ("pg_ndistinct", "SELECT stxdndistinct FROM pg_statistic_ext_data"),
    ("pg_dependencies", "SELECT stxddependencies FROM pg_statistic_ext_data"),
    ("pg_mcv_list", "SELECT stxdmcv FROM pg_statistic_ext_data"),
];

/// Types of a user, to be tried beside the built-in ones.
const USER_MADE: &str = "
    CREATE EXTENSION hstore;
    CREATE EXTENSION citext;
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'qu\"ote', 'NULL', 'a,b', '(x)', '{y}', '');
    CREATE DOMAIN small AS int CHECK (VALUE < 100);
    CREATE DOMAIN grid AS int[];
    CREATE DOMAIN inner_domain AS timestamptz;
    CREATE DOMAIN outer_domain AS inner_domain;
    CREATE TYPE span AS RANGE (subtype = float8);
    CREATE TYPE pair AS (a int, \"b \"\"q\"\"\" text);
    CREATE TYPE nest AS (p pair, ps pair[], g grid, m mood[], j json, h hstore, t timestamptz);
    CREATE DOMAIN nest_domain AS nest;
    CREATE TYPE alone AS (x text);
    CREATE TYPE hollow AS ();
    CREATE TYPE dropped AS (a int, b text, c bool);
    ALTER TYPE dropped DROP ATTRIBUTE b;
    CREATE TABLE stats (a int, b int);
    INSERT INTO stats SELECT i % 10, i % 10 FROM generate_series(1, 1000) i;
    CREATE STATISTICS stats_ab (ndistinct, dependencies, mcv) ON a, b FROM stats;
    ANALYZE stats;
";

/// A type of the server, and a few values of it.
struct Subject {
    id: TypeId,
    /// As SQL writes it, with its schema.
    name: String,
    /// In the form that a column of it would have in the stream.
    texts: Vec<String>,
}

#[tokio::test]
async fn every_type_of_the_server_is_written_as_to_jsonb_writes_it() {
    let database = database().await;
    let client = database.connect().await;
    client.batch_execute(PINNED).await.unwrap();
    client.batch_execute(USER_MADE).await.unwrap();

    let mut scalars = Vec::new();
    let mut bare = Vec::new();
    for (id, name, short, builtin) in types(
        &client,
        "typelem = 0 OR typsubscript <> \
        'array_subscript_handler'::regproc OR oid IN (22, 30)",
    )
    .await
    {
        let texts = texts(&client, &name, &short).await;
        if texts.is_empty() && builtin && !WITHOUT_VALUES.contains(&&*short) {
            bare.push(name);
        } else {
            scalars.push(Subject { id, name, texts });
        }
    }
    assert!(bare.is_empty(), "built-in types without a value to try: {bare:?}");
    assert!(scalars.len() > 80, "{}", scalars.len());

    let arrays = arrays(&client, &scalars).await;
    let row = row_of_everything(&client, &scalars, &arrays).await;
    let subjects: Vec<Subject> = scalars.into_iter().chain(arrays).chain(row).collect();
    let of = resolve(&database, &subjects).await;
    let mut values = 0;
    for subject in &subjects {
        let literals =
            subject.texts.iter().map(|text| format!("{}::{}", quoted(text), subject.name));
        let found = FOUND.iter().find(|(name, _)| subject.name == format!("pg_catalog.{name}"));
        let query = match found {
            Some((_, query)) => (*query).to_owned(),
            None if subject.texts.is_empty() => continue,
            None => format!("VALUES ({})", literals.collect::<Vec<_>>().join("), (")),
        };
        values += compare(&client, &query, &of[&subject.id.0]).await;
    }
    assert!(values > 800, "{values}");
}

#[tokio::test]
async fn every_row_type_of_the_server_is_written_as_to_jsonb_writes_it() {
    let database = database().await;
    let client = database.connect().await;
    client.batch_execute(PINNED).await.unwrap();
    // No column can be of the pseudo-types that pg_statistic and its views have. Tables only:
    // what views show may differ between two looks, and some cannot be looked at.
    let relations = rows(
        &client,
        "SELECT t.oid, t.oid::regtype FROM pg_type t JOIN pg_class c ON c.reltype = t.oid
         WHERE t.typtype = 'c' AND c.relkind = 'r' AND NOT EXISTS (
             SELECT FROM pg_attribute a JOIN pg_type p ON p.oid = a.atttypid
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND p.typtype = 'p')",
    )
    .await;
    let subjects: Vec<Subject> = relations
        .into_iter()
        .map(|row| {
            let [id, name] = <[Option<String>; 2]>::try_from(row).unwrap().map(Option::unwrap);
            Subject { id: TypeId(id.parse().unwrap()), name, texts: Vec::new() }
        })
        .collect();
    assert!(subjects.len() > 60, "{}", subjects.len());
    let of = resolve(&database, &subjects).await;
    for subject in &subjects {
        let query = format!("SELECT t FROM {} t LIMIT 20", subject.name);
        compare(&client, &query, &of[&subject.id.0]).await;
    }
}

#[tokio::test]
async fn any_json_is_made_normal_as_jsonb_does_it() {
    let seed = std::env::var_os("WALCAST_SEED")
        .map_or(20_261_121, |seed| seed.to_str().unwrap().parse::<u64>().unwrap());
    println!("WALCAST_SEED={seed}");
    let mut random = Random(seed);
    let database = database().await;
    let client = database.connect().await;
    let json =
        resolve(&database, &[Subject { id: TypeId(114), name: String::new(), texts: vec![] }])
            .await;
    for _ in 0..20 {
        let texts = (0..200).map(|_| {
            let mut text = String::new();
            random.json(0, &mut text);
            format!("({}::json)", quoted(&text))
        });
        let query = format!("VALUES {}", texts.collect::<Vec<_>>().join(", "));
        compare(&client, &query, &json[&114]).await;
    }
}

/// Has Postgres write the values of `query` as text and as JSON, and compares ours with its own.
async fn compare(client: &Client, query: &str, of: &Type) -> usize {
    let query = format!("SELECT v, to_jsonb(v), jsonb_typeof(to_jsonb(v)) FROM ({query}) s (v)");
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for row in rows(client, &query).await {
        let [text, json, kind] = <[Option<String>; 3]>::try_from(row).unwrap();
        let Some(text) = text else { continue };
        let mut out = Vec::new();
        write_json(text.as_bytes(), of, &mut out);
        let out = String::from_utf8(out).unwrap();
        let json = json.unwrap();
        if !matches!(kind.as_deref(), Some("object" | "array")) {
            assert_eq!(out, json, "{text} of {}", of.name);
        }
        ours.push(format!("({}::jsonb)", quoted(&out)));
        theirs.push((text, json));
    }
    if ours.is_empty() {
        return 0;
    }
    let read_back = rows(client, &format!("VALUES {}", ours.join(", "))).await;
    assert_eq!(read_back.len(), theirs.len());
    for (ours, (text, theirs)) in read_back.into_iter().zip(&theirs) {
        assert_eq!(ours.first(), Some(&Some(theirs.clone())), "{text} of {}", of.name);
    }
    theirs.len()
}

/// The types as the catalogue resolves them, by OID.
async fn resolve(database: &Database, subjects: &[Subject]) -> BTreeMap<u32, Arc<Type>> {
    let settings = Settings {
        connection: database.connection_string().parse().unwrap(),
        tls_mode: TlsMode::Prefer,
        tls_ca_file: None,
        publication: "none".into(),
        roles: Vec::new(),
        tables: Vec::new(),
    };
    let columns = subjects.iter().map(|subject| ColumnDescription {
        name: subject.name.as_str().into(),
        type_id: subject.id,
        modifier: -1,
        in_identity: false,
    });
    let description = RelationDescription {
        id: RelationId(4_000_000_000),
        schema: "public".into(),
        name: "everything".into(),
        identity: ReplicaIdentity::Default,
        columns: columns.collect(),
    };
    let catalog = Catalog::connect(settings).await.unwrap();
    let relation = catalog.resolve(&description).await.unwrap();
    relation.columns.iter().map(|column| (column.of.id.0, Arc::clone(&column.of))).collect()
}

/// OID, name with schema, bare name, and whether it is built in.
async fn types(client: &Client, condition: &str) -> Vec<(TypeId, String, String, bool)> {
    let rows = rows(
        client,
        &format!(
            "SELECT t.oid, quote_ident(n.nspname) || '.' || quote_ident(t.typname), t.typname,
                    t.oid < 16384
             FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
             WHERE t.typtype IN ('b', 'd', 'e', 'r', 'm', 'c') AND ({condition})
               AND NOT EXISTS (
                   SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')
             ORDER BY t.oid",
            condition = condition.replace("oid IN", "t.oid IN").replace("typ", "t.typ"),
        ),
    )
    .await;
    rows.into_iter()
        .map(|row| {
            let [id, name, short, builtin] =
                <[Option<String>; 4]>::try_from(row).unwrap().map(Option::unwrap);
            (TypeId(id.parse().unwrap()), name, short, builtin == "t")
        })
        .collect()
}

/// The type's values, as its output function prints them.
async fn texts(client: &Client, name: &str, short: &str) -> Vec<String> {
    let query = match FOUND.iter().find(|(found, _)| *found == short) {
        Some((_, query)) => (*query).to_owned(),
        None if literals(short).is_empty() => return Vec::new(),
        None => {
            let literals = literals(short).iter();
            let values: Vec<String> =
                literals.map(|text| format!("({}::{name})", quoted(text))).collect();
            format!("VALUES {}", values.join(", "))
        }
    };
    rows(client, &query)
        .await
        .into_iter()
        .filter_map(|row| row.into_iter().next().unwrap())
        .collect()
}

/// The array types of these types, with values made of theirs.
async fn arrays(client: &Client, scalars: &[Subject]) -> Vec<Subject> {
    let rows = rows(
        client,
        "SELECT e.oid, t.oid, quote_ident(n.nspname) || '.' || quote_ident(t.typname), e.typdelim
         FROM pg_type t JOIN pg_type e ON e.typarray = t.oid
         JOIN pg_namespace n ON n.oid = t.typnamespace",
    )
    .await;
    let mut arrays = Vec::new();
    for row in rows {
        let [element, id, name, delimiter] =
            <[Option<String>; 4]>::try_from(row).unwrap().map(Option::unwrap);
        let element: u32 = element.parse().unwrap();
        let Some(scalar) = scalars.iter().find(|scalar| scalar.id.0 == element) else { continue };
        let elements: Vec<String> = scalar.texts.iter().map(|text| escaped(text)).collect();
        let mut texts = vec!["{}".to_owned()];
        if let (Some(first), Some(last)) = (elements.first(), elements.last()) {
            let d = &delimiter;
            texts.push(format!("{{{}{d}NULL}}", elements.join(d)));
            texts.push(format!("[3:4]={{{first}{d}{last}}}"));
            texts.push(format!("{{{{{first}{d}NULL}}{d}{{{last}{d}{first}}}}}"));
            texts.push(format!("[0:0][-1:0][1:1]={{{{{{{first}}}{d}{{{last}}}}}}}"));
        }
        arrays.push(Subject { id: TypeId(id.parse().unwrap()), name, texts });
    }
    arrays
}

/// A row type with an attribute of each type, rows of it, an array of them, and a row of that.
async fn row_of_everything(
    client: &Client,
    scalars: &[Subject],
    arrays: &[Subject],
) -> Vec<Subject> {
    let parts: Vec<&Subject> = scalars
        .iter()
        .chain(arrays)
        .filter(|part| !part.texts.is_empty())
        .filter(|part| !FOUND.iter().any(|(name, _)| part.name.ends_with(name)))
        .collect();
    let attributes: Vec<String> =
        parts.iter().enumerate().map(|(at, part)| format!("a{at} {}", part.name)).collect();
    client
        .batch_execute(&format!(
            "CREATE TYPE everything AS ({}); CREATE TYPE wrapped AS (e everything, es everything[])",
            attributes.join(", ")
        ))
        .await
        .unwrap();
    let row = |fields: &[&String]| {
        let fields: Vec<String> = fields
            .iter()
            .map(|field| format!("\"{}\"", field.replace('\\', "\\\\").replace('"', "\"\"")))
            .collect();
        format!("({})", fields.join(","))
    };
    let first = row(&parts.iter().map(|part| part.texts.first().unwrap()).collect::<Vec<_>>());
    let last = row(&parts.iter().map(|part| part.texts.last().unwrap()).collect::<Vec<_>>());
    let nothing = format!("({})", ",".repeat(parts.len() - 1));
    let array = format!("{{{},{},NULL}}", escaped(&first), escaped(&nothing));
    let texts = BTreeMap::from([
        ("wrapped", vec![row(&[&last, &array]), "(,)".to_owned()]),
        ("_everything", vec![array]),
        ("everything", vec![first, last, nothing]),
    ]);
    let rows = rows(
        client,
        "SELECT oid, typname FROM pg_type WHERE typname IN ('everything', '_everything', 'wrapped')",
    )
    .await;
    rows.into_iter()
        .map(|row| {
            let [id, name] = <[Option<String>; 2]>::try_from(row).unwrap().map(Option::unwrap);
            let texts = texts.get(&*name).unwrap().clone();
            Subject { id: TypeId(id.parse().unwrap()), name, texts }
        })
        .collect()
}

/// The rows of a query, every value as its output function prints it.
async fn rows(client: &Client, query: &str) -> Vec<Vec<Option<String>>> {
    let answer = client.simple_query(query).await;
    let messages = answer.map_err(|error| format!("{error:?} for {query:.400}")).unwrap();
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()).collect()
}

/// As an SQL literal.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// As an element of an array's literal.
fn escaped(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Texts of `json`, well-formed, in every form that they may have.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let at = self.below(u64::try_from(of.len()).unwrap());
        of.get(usize::try_from(at).unwrap()).unwrap()
    }

    fn json(&mut self, depth: u32, out: &mut String) {
        let blank = self.one_of(&["", "", "", " ", "\n\t\r "]);
        out.push_str(blank);
        match self.below(if depth < 4 { 6 } else { 3 }) {
            0 => out.push_str(self.one_of(&["true", "false", "null"])),
            1 => self.number(out),
            2 => self.string(out),
            3 => {
                out.push('[');
                for at in 0..self.below(5) {
                    out.push_str(if at > 0 { "," } else { "" });
                    self.json(depth + 1, out);
                }
                out.push_str(self.one_of(&["]", " ]"]));
            }
            _ => {
                out.push('{');
                for at in 0..self.below(6) {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(self.one_of(&["", " "]));
                    self.string(out);
                    out.push_str(self.one_of(&[":", " : "]));
                    self.json(depth + 1, out);
                }
                out.push_str(self.one_of(&["}", " }"]));
            }
        }
        out.push_str(blank);
    }

    fn number(&mut self, out: &mut String) {
        out.push_str(self.one_of(&["", "-"]));
        out.push_str(self.one_of(&["0", "1", "10", "900", "12345678901234567890"]));
        out.push_str(self.one_of(&["", "", ".0", ".50", ".001", ".000", ".9999999999999999999"]));
        out.push_str(self.one_of(&["", "", "e0", "E+2", "e-3", "e15", "E-30", "e+300", "e00007"]));
    }

    fn string(&mut self, out: &mut String) {
        out.push('"');
        for _ in 0..self.below(3) {
            out.push_str(self.one_of(&[
                "a",
                "b",
                "aa",
                "é",
                "😀",
                " ",
                "/",
                "\\/",
                "\\\"",
                "\\\\",
                "\\n",
                "\\b",
                "\\f",
                "\\r",
                "\\t",
                "\\u0061",
                "\\u00E9",
                "\\ud83d\\ude00",
                "\\u0001",
                "\\u007f",
                "\u{7f}",
                "'",
            ]));
        }
        out.push('"');
    }
}

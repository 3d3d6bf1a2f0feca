//! What clients ask of every server of Postgres, answered so that they go on: health checks,
//! settings that drivers look at, and psql's own queries of the catalogue.
//!
//! This is no database, and nothing is evaluated: a handful of texts are known, and psql's queries
//! are told apart by the catalogue that they read. Those for completing what is typed after `SHOW`
//! and for the names of tables get an answer of use; the others find nothing.

use crate::console::answer::Of;
use crate::console::answer::Refused;
use crate::console::answer::Table;
use crate::console::answer::Value;
use crate::console::parse::Statement;
use crate::console::split::Word;
use crate::console::split::words;
use crate::console::statement::STATEMENTS;
use crate::console::statement::Spec;

/// The version of Postgres that clients are told, which is one that none of them is older than.
pub(crate) const SERVER_VERSION: &str = concat!("14.0 (walcast ", env!("CARGO_PKG_VERSION"), ")");

/// One value that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Constant {
    /// The column's name.
    pub(crate) name: String,
    pub(crate) said: Said,
}

/// The value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Text(String),
    Number(i64),
    Flag(bool),
    /// Who is logged in.
    User,
}

impl Constant {
    fn new(name: &str, said: Said) -> Constant {
        Constant { name: name.to_owned(), said }
    }

    pub(crate) const fn of(&self) -> Of {
        match self.said {
            Said::Text(_) | Said::User => Of::Text,
            Said::Number(_) => Of::Number,
            Said::Flag(_) => Of::Flag,
        }
    }

    /// The answer to `user`.
    pub(crate) fn table(&self, user: &str) -> Table {
        Table::one(vec![match &self.said {
            Said::Text(text) => text.as_str().into(),
            Said::Number(number) => (*number).into(),
            Said::Flag(flag) => (*flag).into(),
            Said::User => user.into(),
        }])
    }
}

/// What a driver may ask with SHOW, as `SHOW transaction isolation level`, joined by `_`.
pub(crate) fn setting(name: &str) -> Option<Constant> {
    let value = match name {
        "server_version" => SERVER_VERSION,
        "server_version_num" => "140000",
        "server_encoding" | "client_encoding" => "UTF8",
        "standard_conforming_strings" | "integer_datetimes" => "on",
        "transaction_isolation"
        | "transaction_isolation_level"
        | "default_transaction_isolation" => "read committed",
        "is_superuser"
        | "transaction_read_only"
        | "default_transaction_read_only"
        | "in_hot_standby" => "off",
        "timezone" | "time_zone" => "UTC",
        "datestyle" => "ISO, MDY",
        "intervalstyle" => "postgres",
        "search_path" => "public",
        "application_name" => "",
        "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" => "0",
        "extra_float_digits" => "1",
        _ => return None,
    };
    Some(Constant::new(name, Said::Text(value.to_owned())))
}

/// Reads what begins with SELECT and its like; `rest` is what follows the first word.
pub(crate) fn select(text: &str, rest: &[Word<'_>]) -> Result<Statement, Refused> {
    if text.contains("pg_catalog.") || text.contains("information_schema.") {
        return Ok(Statement::Catalogue(catalogue(text)));
    }
    let (asked, name) = match rest {
        [asked @ .., as_, Word::Bare(name)] if as_.is("as") => (asked, Some((*name).to_owned())),
        [asked @ .., as_, Word::Quoted(name)] if as_.is("as") => (asked, Some(name.clone())),
        asked => (asked, None),
    };
    let Some(mut constant) = constant(asked) else {
        return Err(Refused::new("0A000", "walcast's console is not a database")
            .hint("SHOW HELP tells what can be asked."));
    };
    if let Some(name) = name {
        constant.name = name;
    }
    Ok(Statement::Constant(constant))
}

fn constant(asked: &[Word<'_>]) -> Option<Constant> {
    let known = |name: &str, said| Some(Constant::new(name, said));
    match asked {
        [Word::Bare(word)] => match word.to_ascii_lowercase().as_str() {
            "true" => known("bool", Said::Flag(true)),
            "false" => known("bool", Said::Flag(false)),
            name @ ("current_user" | "session_user" | "user") => known(name, Said::User),
            name @ "current_schema" => known(name, Said::Text("public".to_owned())),
            number => known("?column?", Said::Number(number.parse().ok()?)),
        },
        [Word::Text(text)] => known("?column?", Said::Text(text.clone())),
        [Word::Bare(function), Word::Sign('('), Word::Sign(')')] => {
            match function.to_ascii_lowercase().as_str() {
                name @ "version" => {
                    let version = concat!("walcast ", env!("CARGO_PKG_VERSION"));
                    known(name, Said::Text(version.to_owned()))
                }
                name @ "current_database" => known(name, Said::Text("walcast".to_owned())),
                name @ "current_schema" => known(name, Said::Text("public".to_owned())),
                name @ "pg_is_in_recovery" => known(name, Said::Flag(false)),
                _ => None,
            }
        }
        [Word::Bare(function), Word::Sign('('), Word::Text(name), Word::Sign(')')]
            if function.eq_ignore_ascii_case("current_setting") =>
        {
            setting(&name.to_ascii_lowercase())
        }
        _ => None,
    }
}

/// A query of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Catalogue {
    pub(crate) columns: Vec<String>,
    wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    /// What can be shown, by the beginning of its name.
    Shows(String),
    /// Tables, by the beginning of their names.
    Tables(String),
}

impl Catalogue {
    /// The answer, where these are the tables.
    pub(crate) fn table<'a>(&self, tables: impl Iterator<Item = &'a str>) -> Table {
        let row = |name: String| {
            let rest = std::iter::repeat_n(Value::Null, self.columns.len().saturating_sub(1));
            std::iter::once(Value::Text(name)).chain(rest).collect()
        };
        let mut names: Vec<String> = match &self.wanted {
            Wanted::Nothing => Vec::new(),
            Wanted::Shows(prefix) => {
                let shows = STATEMENTS.iter().filter_map(Spec::shows);
                let shows = shows.map(str::to_ascii_lowercase);
                shows.filter(|name| name.starts_with(prefix)).collect()
            }
            Wanted::Tables(prefix) => {
                tables.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
            }
        };
        names.sort_unstable();
        names.dedup();
        Table::of(names.into_iter().map(row).collect())
    }
}

fn catalogue(text: &str) -> Catalogue {
    let words = words(text);
    let reads = |name: &str| words.iter().any(|word| word.is(&format!("pg_catalog.{name}")));
    let prefix = prefix(&words);
    let wanted = match prefix {
        Some(prefix) if reads("pg_settings") => Wanted::Shows(prefix.to_ascii_lowercase()),
        Some(prefix) if reads("pg_class") && words.iter().any(|word| word.is("c.relname")) => {
            Wanted::Tables(prefix)
        }
        _ => Wanted::Nothing,
    };
    Catalogue { columns: columns(&words), wanted }
}

/// The beginning that is looked for: what stands after the first LIKE, without the `%` after it.
fn prefix(words: &[Word<'_>]) -> Option<String> {
    let like = words.iter().position(|word| word.is("like"))?;
    let found = words.get(like..)?.iter().find_map(|word| match word {
        Word::Text(text) => Some(text),
        _ => None,
    })?;
    let found = found.strip_suffix('%').unwrap_or(found);
    Some(found.replace('\\', ""))
}

/// The names of the columns of the first SELECT, as far as they are told.
fn columns(words: &[Word<'_>]) -> Vec<String> {
    let (mut depth, mut names, mut last) = (0_usize, Vec::new(), String::new());
    for word in words.iter().skip(1) {
        match word {
            Word::Sign('(') => depth += 1,
            Word::Sign(')') => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            Word::Sign(',') => names.push(std::mem::take(&mut last)),
            Word::Bare(_) if word.is("from") => break,
            Word::Bare(name) => {
                (*name).rsplit('.').next().unwrap_or_default().clone_into(&mut last);
            }
            Word::Quoted(name) | Word::Text(name) => last.clone_from(name),
            Word::Sign(_) => {}
        }
    }
    names.push(last);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::parse::parse;

    fn constant(text: &str) -> (String, Said) {
        match parse(text).unwrap() {
            Statement::Constant(Constant { name, said }) => (name, said),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn health_checks_and_drivers_are_answered() {
        assert_eq!(constant("SELECT 1"), ("?column?".into(), Said::Number(1)));
        assert_eq!(constant("select 1 as ok"), ("ok".into(), Said::Number(1)));
        assert_eq!(constant("SELECT current_user"), ("current_user".into(), Said::User));
        assert_eq!(
            constant("select pg_is_in_recovery()"),
            ("pg_is_in_recovery".into(), Said::Flag(false))
        );
        assert_eq!(
            constant("show transaction isolation level").1,
            Said::Text("read committed".into())
        );
        assert_eq!(constant("SHOW server_version").1, Said::Text(SERVER_VERSION.into()));
        for text in [
            "SELECT * FROM orders",
            "SELECT 1 + 1",
            "SELECT pg_sleep(1)",
            "WITH x AS (SELECT 1) SELECT 2",
        ] {
            assert_eq!(parse(text).unwrap_err().code, "0A000", "{text}");
        }
    }

    fn completed(text: &str) -> (Vec<String>, Vec<String>) {
        let Statement::Catalogue(catalogue) = parse(text).unwrap() else { panic!("{text}") };
        let table = catalogue.table(["orders", "order_items", "people"].into_iter());
        let names = table.rows.iter().map(|row| match &row[0] {
            Value::Text(name) => name.clone(),
            other => panic!("{other:?}"),
        });
        assert!(table.rows.iter().all(|row| row.len() == catalogue.columns.len()));
        (catalogue.columns.clone(), names.collect())
    }

    #[test]
    fn psql_completes_what_can_be_shown_and_tables() {
        let (columns, names) = completed(
            "SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings  WHERE \
             pg_catalog.lower(name) LIKE pg_catalog.lower('cl%') LIMIT 1000",
        );
        assert_eq!((columns.len(), names), (1, vec!["clients".to_owned()]));
        let (columns, names) = completed(
            "SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.relkind IN \
             ('r', 'p') AND (c.relname) LIKE 'order\\_%' AND pg_catalog.pg_table_is_visible(c.oid)",
        );
        assert_eq!((columns.len(), names), (2, vec!["order_items".to_owned()]));
    }

    #[test]
    fn other_queries_of_the_catalogue_find_nothing() {
        let (columns, names) = completed(
            "SELECT d.datname as \"Name\", pg_catalog.pg_get_userbyid(d.datdba) as \"Owner\" \
             FROM pg_catalog.pg_database d ORDER BY 1",
        );
        assert_eq!((columns, names.len()), (vec!["Name".to_owned(), "Owner".to_owned()], 0));
    }
}

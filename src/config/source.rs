//! The layers: the file, over it the environment, over that the command line.
//!
//! All of them become one flat table from a key's full name to what was written and where, so that
//! everything after this file treats them alike. An entry of a repeated section has its number in
//! its name, counted from 0: `table.0.name`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use crate::config::keys;
use crate::config::mistake::{Mistake, Origin};

/// The first part of the name of every environment variable that is read.
pub(super) const ENVIRONMENT_PREFIX: &str = "WALCAST__";

/// The sections that may stand repeatedly.
const REPEATED: &[&str] = &["auth.keys", "auth.jwks", "table", "auth.settings"];

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Text(String),
    Integer(String),
    Boolean(bool),
    Texts(Vec<String>),
    /// From the environment or the command line, where all is text.
    Raw(String),
    /// Something that no key takes: a float, a date, a list of other things than texts.
    Other(String),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) input: Input,
    pub(super) origin: Origin,
}

/// Everything that was given, by full name.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    pub(super) all: BTreeMap<String, Entry>,
    pub(super) mistakes: Vec<Mistake>,
    /// What was given for keys that don't exist, where that is not a mistake.
    pub(super) unknown: Vec<String>,
    /// Whether it is none.
    pub(super) allow_unknown: bool,
}

impl Entries {
    /// Adds a file's text, over the files before it; where it is not TOML, only the mistakes in
    /// that. Entries of its repeated sections come after those that are there.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) {
        let count = |section: &&'static str| (*section, self.count(section));
        let before = REPEATED.iter().map(count).collect();
        let file = File { path: path.to_owned(), text, before };
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            self.add_table("", &file, table.get_ref());
        }
        for error in errors {
            let origin = file.origin(&error.span().unwrap_or_default());
            let message = format!("not TOML: {}", error.message().replace('\n', ", "));
            self.mistakes.push(Mistake { origin, key: String::new(), found: None, message });
        }
    }

    /// Adds the environment's variables; others than ours are passed over, and so are empty ones.
    pub(super) fn add_environment(&mut self, variables: &[(String, String)]) {
        for (variable, value) in variables {
            let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if value.is_empty() {
                continue;
            }
            let name = rest.to_lowercase().replace("__", ".");
            let origin = Origin::Environment { name: variable.clone() };
            self.add(name, Input::Raw(value.clone()), origin);
        }
    }

    /// Adds what was given as `--set section.key=value`.
    pub(super) fn add_flags(&mut self, flags: &[String]) {
        for flag in flags {
            match flag.split_once('=') {
                Some((name, value)) => {
                    self.add(name.trim().to_owned(), Input::Raw(value.to_owned()), Origin::Flag);
                }
                None => self.mistakes.push(Mistake {
                    origin: Origin::Flag,
                    key: flag.clone(),
                    found: None,
                    message: "expected section.key=value".to_owned(),
                }),
            }
        }
    }

    /// How many entries the repeated section has: one more than the largest number that occurs.
    pub(super) fn count(&self, section: &str) -> usize {
        let prefix = format!("{section}.");
        let numbers = self.all.keys().filter_map(|name| {
            let number = name.strip_prefix(&prefix)?.split('.').next()?;
            number.parse::<usize>().ok()
        });
        numbers.max().map_or(0, |last| last + 1)
    }

    fn add_table(&mut self, prefix: &str, file: &File<'_>, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            let origin = file.origin(&key.span());
            match value.get_ref() {
                DeValue::Table(inner) => self.add_table(&name, file, inner),
                DeValue::Array(items) if REPEATED.contains(&name.as_str()) => {
                    let before = file.before.get(name.as_str()).copied().unwrap_or_default();
                    for (index, item) in items.iter().enumerate() {
                        let index = before + index;
                        match item.get_ref() {
                            DeValue::Table(inner) => {
                                self.add_table(&format!("{name}.{index}"), file, inner);
                            }
                            other => {
                                let input = Input::Other(other.type_str().to_owned());
                                self.add(format!("{name}.{index}"), input, origin.clone());
                            }
                        }
                    }
                }
                other => self.add(name, input(other), origin),
            }
        }
    }

    fn add(&mut self, name: String, input: Input, origin: Origin) {
        if keys::find(&pattern(&name)).is_some() {
            self.all.insert(name, Entry { input, origin });
            return;
        }
        let message = unknown(&name);
        if self.allow_unknown {
            self.unknown.push(format!("{name}: {message}"));
            return;
        }
        self.mistakes.push(Mistake { origin, key: name, found: None, message });
    }
}

/// A name with `[]` in the place of a repeated section's number.
pub(super) fn pattern(name: &str) -> String {
    for section in REPEATED {
        let numbered = name.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
        if let Some((number, leaf)) = numbered.and_then(|rest| rest.split_once('.'))
            && number.len() <= 3
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            return format!("{section}[].{leaf}");
        }
    }
    name.to_owned()
}

fn unknown(name: &str) -> String {
    for section in REPEATED {
        let leaf = name.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
        if leaf.is_some_and(|leaf| keys::find(&format!("{section}[].{leaf}")).is_some()) {
            return format!("unknown key (the section is written [[{section}]])");
        }
    }
    match keys::similar(&pattern(name)) {
        Some(key) => format!("unknown key (did you mean {}?)", key.name),
        None => "unknown key (docs/configuration.md lists all of them)".to_owned(),
    }
}

fn input(value: &DeValue<'_>) -> Input {
    match value {
        DeValue::String(text) => Input::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Input::Integer(number.as_str().to_owned())
        }
        DeValue::Boolean(value) => Input::Boolean(*value),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            match texts.collect::<Option<Vec<String>>>() {
                Some(texts) => Input::Texts(texts),
                None => Input::Other("a list of other things than texts".to_owned()),
            }
        }
        DeValue::Integer(number) => Input::Other(format!("a number of base {}", number.radix())),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            Input::Other(value.type_str().to_owned())
        }
    }
}

/// The file's text, for finding the line of a byte.
struct File<'a> {
    path: PathBuf,
    text: &'a str,
    /// How many entries the repeated sections have from files before it.
    before: BTreeMap<&'static str, usize>,
}

impl File<'_> {
    fn origin(&self, span: &Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Origin::File { path: self.path.clone(), line, column }
    }
}

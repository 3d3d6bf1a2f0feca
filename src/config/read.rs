//! Typed values out of the layers, and a mistake for each that is not what its key wants.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::auth::Secret;
use crate::config::keys::{self, Key, Kind};
use crate::config::mistake::{Mistake, Origin};
use crate::config::source::{Entries, Entry, Input, pattern};

/// What a path begins with that names a systemd credential.
const CREDENTIAL_PREFIX: &str = "credential:";

/// How large a file with a secret or a key may be; larger ones are something else.
const FILE_LEN_MAX: usize = 64 * 1024;

/// Reads values, and keeps the mistakes. A value that cannot be read is replaced by one that can,
/// so that reading goes on; it never leaves this module's caller, because there is a mistake then.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) entries: Entries,
    /// What works and still should be looked at.
    pub(super) warnings: Vec<String>,
    /// What stood in the files that were read, by key. What is in here is not read again.
    pub(super) contents: BTreeMap<String, Secret>,
    credentials: Option<PathBuf>,
}

impl Reader {
    pub(super) fn new(entries: Entries, credentials: Option<PathBuf>) -> Reader {
        Reader { entries, warnings: Vec::new(), contents: BTreeMap::new(), credentials }
    }

    /// Whether anything was given for the key.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.entries.all.contains_key(name)
    }

    /// A text; `None` where none was given and there is no default.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.entry(name)?.input {
            Input::Text(text) | Input::Raw(text) if !text.trim().is_empty() => Some(text),
            _ => self.wrong(name, "a text"),
        }
    }

    /// A text that has to be there, such as `example`.
    pub(super) fn required(&mut self, name: &str, example: &str) -> String {
        if !self.is_given(name) && info(name).default.is_none() {
            self.mistake(name, format!("missing; it is needed, as in {example:?}"));
            return String::new();
        }
        self.text(name).unwrap_or_default()
    }

    /// A number within the bounds that the key's table entry has.
    pub(super) fn integer(&mut self, name: &str) -> u64 {
        let kind = info(name).kind;
        let Kind::Integer { min, max, .. } = kind else { return 0 };
        let number = match self.entry(name).map(|entry| entry.input) {
            Some(Input::Integer(digits) | Input::Raw(digits)) => {
                digits.trim().replace('_', "").parse::<u64>().ok()
            }
            _ => None,
        };
        match number.filter(|number| (min..=max).contains(number)) {
            Some(number) => number,
            None => self.wrong(name, &kind.to_string()).unwrap_or(min),
        }
    }

    /// A number that is small enough for the machine's own word.
    pub(super) fn size(&mut self, name: &str) -> usize {
        usize::try_from(self.integer(name)).unwrap_or(usize::MAX)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, name: &str) -> bool {
        match self.entry(name).map(|entry| entry.input) {
            Some(Input::Boolean(value)) => value,
            Some(Input::Raw(text)) if text == "true" => true,
            Some(Input::Raw(text)) if text == "false" => false,
            _ => self.wrong(name, "true or false").unwrap_or(false),
        }
    }

    /// Texts; one alone is a list of one.
    pub(super) fn texts(&mut self, name: &str) -> Vec<String> {
        let texts = match self.entry(name).map(|entry| entry.input) {
            Some(Input::Texts(texts)) => texts,
            Some(Input::Text(text)) => vec![text],
            Some(Input::Raw(text)) if text.is_empty() => Vec::new(),
            Some(Input::Raw(text)) => text.split(',').map(|one| one.trim().to_owned()).collect(),
            _ => return self.wrong(name, "a list of texts").unwrap_or_default(),
        };
        if texts.iter().any(String::is_empty) {
            return self.wrong(name, "a list of texts that are not empty").unwrap_or_default();
        }
        texts
    }

    /// The names that lead to a claim.
    pub(super) fn claim_path(&mut self, name: &str) -> Vec<String> {
        let names = match self.entry(name).map(|entry| entry.input) {
            Some(Input::Texts(names)) => names,
            Some(Input::Text(name) | Input::Raw(name)) => vec![name],
            _ => Vec::new(),
        };
        if names.is_empty() || names.iter().any(String::is_empty) {
            return self.wrong(name, "a claim's name, or a list of names").unwrap_or_default();
        }
        names
    }

    /// A file's path, as it can be opened.
    pub(super) fn file(&mut self, name: &str) -> Option<PathBuf> {
        let text = self.text(name)?;
        let Some(credential) = text.strip_prefix(CREDENTIAL_PREFIX) else {
            let origin = self.entries.all.get(name).map(|entry| &entry.origin);
            return match origin {
                Some(Origin::File { path, .. }) => {
                    Some(path.parent().unwrap_or(Path::new("")).join(text))
                }
                _ => Some(PathBuf::from(text)),
            };
        };
        let plain = !credential.is_empty() && !credential.contains(['/', '\\']);
        match (&self.credentials, plain && credential != "..") {
            (Some(folder), true) => Some(folder.join(credential)),
            (None, true) => {
                let message = "$CREDENTIALS_DIRECTORY is not set: add LoadCredential= to the unit";
                self.mistake(name, message.to_owned());
                None
            }
            (_, false) => self.wrong(name, "credential:NAME, NAME without slashes"),
        }
    }

    /// A file's content.
    pub(super) fn content(&mut self, name: &str) -> Option<Vec<u8>> {
        let path = self.file(name)?;
        if let Some(content) = self.contents.get(name) {
            return Some(content.expose().to_vec());
        }
        match fs::read(&path) {
            Ok(bytes) if bytes.is_empty() => {
                self.mistake(name, "the file is empty".to_owned());
                None
            }
            Ok(bytes) if bytes.len() > FILE_LEN_MAX => {
                self.mistake(name, "the file is larger than 64 KiB".to_owned());
                None
            }
            Ok(bytes) => {
                self.contents.insert(name.to_owned(), Secret::new(bytes.clone()));
                Some(bytes)
            }
            Err(error) => {
                self.mistake(name, format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// What a file hides, without the one line end that editors put after it.
    pub(super) fn secret(&mut self, name: &str) -> Option<Secret> {
        let mut bytes = self.content(name)?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        self.warn_if_exposed(name);
        Some(Secret::new(bytes))
    }

    /// Notes that the value is not what it should be; gives nothing, in the type that is wanted.
    pub(super) fn wrong<T>(&mut self, name: &str, expected: &str) -> Option<T> {
        self.mistake(name, format!("expected {expected}"));
        None
    }

    /// Notes a mistake about the key, at the place where its value was given.
    pub(super) fn mistake(&mut self, name: &str, message: String) {
        let entry = self.entries.all.get(name);
        let origin = entry.map_or(Origin::Nowhere, |entry| entry.origin.clone());
        let shown = !matches!(info(name).kind, Kind::Url);
        let found = entry.filter(|_| shown).map(|entry| show(&entry.input));
        self.entries.mistakes.push(Mistake { origin, key: name.to_owned(), found, message });
    }

    /// What was given, or the default.
    fn entry(&self, name: &str) -> Option<Entry> {
        if let Some(entry) = self.entries.all.get(name) {
            return Some(entry.clone());
        }
        let input = Input::Raw(info(name).default?.to_owned());
        Some(Entry { input, origin: Origin::Nowhere })
    }

    fn warn_if_exposed(&mut self, name: &str) {
        let Some(path) = self.file(name) else { return };
        if fs::metadata(&path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0) {
            let path = path.display();
            self.warnings.push(format!("{name}: {path} can be read by everybody (chmod o-r)"));
        }
    }
}

/// The key's entry in the table.
fn info(name: &str) -> &'static Key {
    keys::find(&pattern(name)).expect("config asks only for keys that its own table has")
}

/// What was written, shortly.
fn show(input: &Input) -> String {
    match input {
        Input::Text(text) | Input::Raw(text) => {
            let mut short: String = text.chars().take(60).collect();
            if short.len() < text.len() {
                short.push('…');
            }
            format!("{short:?}")
        }
        Input::Integer(digits) => digits.clone(),
        Input::Boolean(value) => value.to_string(),
        Input::Texts(texts) => format!("{texts:?}"),
        Input::Other(what) => format!("({what})"),
    }
}

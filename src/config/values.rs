//! What every key is and where it comes from: for people who ask, and for finding out what a reload
//! changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use crate::auth::Secret;
use crate::config::keys;
use crate::config::keys::KEYS;
use crate::config::keys::Key;
use crate::config::mistake::Origin;
use crate::config::read::Reader;
use crate::config::source::Entries;
use crate::config::source::Input;
use crate::config::source::pattern;
use crate::control::Change;
use crate::control::Setting;

/// What a change calls a file's content where it must not be shown.
const CONTENT: &str = "(file)";

/// Every key of a configuration without a mistake.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Each with its value and source, in the order of the documentation.
    pub settings: Vec<Setting>,
    /// What was given.
    entries: Entries,
    /// What stood in the files that the configuration names, by key.
    files: BTreeMap<String, Secret>,
}

impl Values {
    /// Takes them from the layers, after everything was found to be good.
    pub(super) fn of(entries: Entries, files: BTreeMap<String, Secret>) -> Values {
        let mut settings = Vec::with_capacity(KEYS.len());
        let mut rest = KEYS.as_slice();
        while let Some(key) = rest.first() {
            let Some((section, _)) = key.name.split_once("[].") else {
                settings.push(setting(&entries, key, key.name.to_owned()));
                rest = rest.get(1..).unwrap_or_default();
                continue;
            };
            // The keys of a repeated section stand together, entry by entry.
            let together = rest.iter().take_while(|it| it.name.starts_with(section)).count();
            let (keys, others) = rest.split_at(together);
            for index in 0..entries.count(section) {
                let named = |key: &Key| key.name.replacen("[]", &format!(".{index}"), 1);
                settings.extend(keys.iter().map(|key| setting(&entries, key, named(key))));
            }
            rest = others;
        }
        Values { settings, entries, files }
    }

    /// What comes of `wanted` in a daemon that runs with these: the keys that can't be changed stay
    /// as they are, and so does what their files were read to hold.
    pub(super) fn keep_fixed(&self, wanted: Values, credentials: Option<PathBuf>) -> Reader {
        let Values { mut entries, mut files, .. } = wanted;
        let is_fixed =
            |name: &String| keys::find(&pattern(name)).is_some_and(|key| !key.reloadable);
        entries.all.retain(|name, _| !is_fixed(name));
        let kept = self.entries.all.iter().filter(|(name, _)| is_fixed(name));
        entries.all.extend(kept.map(|(name, entry)| (name.clone(), entry.clone())));
        files.retain(|name, _| !is_fixed(name));
        let kept = self.files.iter().filter(|(name, _)| is_fixed(name));
        files.extend(kept.map(|(name, content)| (name.clone(), content.clone())));
        let mut reader = Reader::new(entries, credentials);
        reader.contents = files;
        reader
    }

    /// What `new` has different, by name.
    #[must_use]
    pub fn changes(&self, new: &Values) -> Vec<Change> {
        let by_name = |values: &Values| -> BTreeMap<String, Setting> {
            values.settings.iter().map(|it| (it.name.clone(), it.clone())).collect()
        };
        let (old_by_name, new_by_name) = (by_name(self), by_name(new));
        let mut names: Vec<&String> = old_by_name.keys().chain(new_by_name.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let change = |name: &String| {
            let (old, now) = (old_by_name.get(name), new_by_name.get(name));
            let applied = old.or(now).is_some_and(|it| it.reloadable);
            let value = |it: Option<&Setting>| it.map(|it| it.value.clone());
            let (old, now) = (value(old), value(now));
            if old != now {
                return Some(Change { name: name.clone(), old, new: now, applied });
            }
            let content = || Some(CONTENT.to_owned());
            let same = self.files.get(name) == new.files.get(name);
            (!same).then(|| Change { name: name.clone(), old: content(), new: content(), applied })
        };
        names.into_iter().filter_map(change).collect()
    }
}

fn setting(entries: &Entries, key: &Key, name: String) -> Setting {
    let entry = entries.all.get(&name);
    let (value, source) = match entry {
        Some(entry) => (written(&entry.input), source(&entry.origin)),
        None => (key.default.unwrap_or_default().to_owned(), "default".to_owned()),
    };
    Setting { name, value, source, reloadable: key.reloadable }
}

/// As one would write it in `--set`.
fn written(input: &Input) -> String {
    match input {
        Input::Text(text) | Input::Raw(text) | Input::Integer(text) => text.clone(),
        Input::Boolean(value) => value.to_string(),
        Input::Texts(texts) => texts.join(","),
        Input::Other(what) => what.clone(),
    }
}

fn source(origin: &Origin) -> String {
    match origin {
        Origin::File { path, line, .. } => format!("{}:{line}", Path::display(path)),
        Origin::Environment { name } => name.clone(),
        Origin::Flag => "--set".to_owned(),
        Origin::Nowhere => "default".to_owned(),
    }
}

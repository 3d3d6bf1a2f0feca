//! The example configuration and the documentation name every key, as the code has it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use walcast::cli::config::default_file;
use walcast::config::keys::{KEYS, Kind};
use walcast::config::{Access, Config, Layers};
use walcast::rule::parse_where;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/walcast.toml");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const BEGIN: &str = "<!-- keys: begin -->\n";
const END: &str = "<!-- keys: end -->";

/// The example with all that is commented out, except what stands for a section of its own.
fn uncommented(text: &str) -> String {
    let line = |line: &str| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_key = bare.split_once(" = ").is_some_and(|(key, _)| {
            key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        });
        if is_key || bare.starts_with("[[") { bare.to_owned() } else { line.to_owned() }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_a_configuration() {
    let credentials = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("credentials");
    fs::create_dir_all(&credentials).unwrap();
    fs::write(credentials.join("token_secret"), "0123456789abcdef0123456789abcdef").unwrap();
    let layers = Layers {
        file: Some(PathBuf::from(EXAMPLE)),
        credentials: Some(credentials),
        ..Layers::default()
    };
    let config = Config::load(&layers).unwrap();
    let policy = parse_where("customer_id = (claims ->> 'sub')::bigint").unwrap();
    let expected = Access::Policy(policy);
    assert_eq!(config.tables.first().map(|table| &table.access), Some(&expected));
}

#[test]
fn the_example_lists_every_key_with_its_default() {
    let text = uncommented(&fs::read_to_string(EXAMPLE).unwrap());
    let example: toml::Table = toml::from_str(&text).unwrap();
    for key in KEYS.iter() {
        let (section, leaf) = key.name.rsplit_once('.').unwrap();
        let mut values = vec![toml::Value::Table(example.clone())];
        for part in section.split('.') {
            let name = part.trim_end_matches("[]");
            values = values.iter().filter_map(|value| value.get(name).cloned()).collect();
            if part.ends_with("[]") {
                let list = |value: &toml::Value| value.as_array().unwrap().clone();
                values = values.iter().flat_map(list).collect();
            }
        }
        let given: Vec<_> = values.iter().filter_map(|value| value.get(leaf)).collect();
        assert!(!given.is_empty(), "{} is not in the example", key.name);
        let comparable = matches!(key.kind, Kind::Integer { .. } | Kind::Boolean);
        if let Some(default) = key.default.filter(|_| comparable && !section.ends_with("[]")) {
            assert_eq!(given.first().unwrap().to_string(), default, "{}", key.name);
        }
    }
}

#[test]
fn the_documentation_has_the_table_of_keys() {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(Path::new(DOCUMENT), format!("{before}{BEGIN}{}{END}{after}", documented()))
            .unwrap();
        return;
    }
    assert_eq!(table, documented(), "run this test with WRITE_DOCS=1 to write the table");
}

/// The keys as they stand in the documentation: a table for each section.
fn documented() -> String {
    let mut text = String::new();
    let mut last = "";
    for key in KEYS.iter() {
        let (section, leaf) = key.name.rsplit_once('.').unwrap();
        if section != last {
            let title = match section.strip_suffix("[]") {
                Some(repeated) => format!("[[{repeated}]]"),
                None => format!("[{section}]"),
            };
            write!(text, "\n### `{title}`\n\n").unwrap();
            text.push_str("| key | value | default | for |\n| --- | --- | --- | --- |\n");
            last = section;
        }
        let default = match key.default {
            None => "none".to_owned(),
            Some("") => "empty".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        let reload = if key.reloadable { "" } else { " *Restart.*" };
        writeln!(text, "| `{leaf}` | {} | {default} | {}{reload} |", key.kind, key.purpose)
            .unwrap();
    }
    text.push('\n');
    text
}

#[test]
fn the_default_file_has_every_key_and_says_the_defaults() {
    let text = default_file();
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let empty: toml::Table = toml::from_str(&text).unwrap();
    assert!(empty.values().all(|section| section.as_table().is_some_and(toml::Table::is_empty)));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("default.toml");
    // Where there is no default there is an empty place.
    let given = |line: &str| !line.ends_with("= \"\"") && !line.ends_with("= false");
    let lines = uncommented(&text);
    // A repeated section has an entry only where somebody writes one.
    let mut repeated = false;
    let text: Vec<&str> = lines
        .lines()
        .filter(|line| {
            repeated = if line.starts_with('[') { line.starts_with("[[") } else { repeated };
            !repeated && given(line)
        })
        .collect();
    fs::write(&path, text.join("\n")).unwrap();
    let least = ["database.url=postgres://w@h/d", "auth.anonymous_role=v"];
    let flags = least.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
    let bare = Config::load(&Layers { flags: flags.clone(), ..Layers::default() }).unwrap();
    let file = Some(path);
    let full = Config::load(&Layers { file, flags, ..Layers::default() }).unwrap();
    assert_eq!(bare.values.changes(&full.values), []);
    for key in KEYS.iter() {
        let (_, leaf) = key.name.rsplit_once('.').unwrap();
        assert!(lines.lines().any(|line| line.starts_with(&format!("{leaf} = "))), "{}", key.name);
    }
}

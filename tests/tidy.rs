//! House rules that no lint knows: who may name whom, and how long a file may be.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Each module with the modules that it may name, ground floor first. A module may name only
/// modules that stand above it in this table, so the table cannot describe a cycle.
const LAYERS: &[(&str, &[&str])] = &[
    ("tls", &[]),
    ("trace", &["tls"]),
    ("logging", &["trace"]),
    ("metrics", &[]),
    ("inherit", &[]),
    ("admin", &["metrics", "inherit"]),
    ("control", &[]),
    ("gate", &["metrics"]),
    ("change", &[]),
    ("rule", &["change"]),
    ("auth", &["tls"]),
    ("ring", &["change"]),
    ("catalog", &["tls", "trace", "change", "rule"]),
    ("ask", &["trace", "metrics", "change", "rule", "catalog"]),
    ("replica", &["logging", "metrics", "change", "rule", "catalog"]),
    ("route", &["metrics", "change", "rule", "auth", "ring", "catalog", "ask", "replica"]),
    ("dialect", &["change", "ring", "catalog", "route"]),
    ("ingest", &["trace", "logging", "metrics", "tls", "change", "ring", "catalog", "replica"]),
    ("serve", &["trace", "logging", "metrics", "gate", "auth", "route", "dialect"]),
    (
        "console",
        &[
            "trace", "metrics", "inherit", "control", "change", "auth", "catalog", "route",
            "dialect", "ingest", "serve", "replica",
        ],
    ),
    (
        "config",
        &[
            "trace", "logging", "control", "gate", "tls", "change", "rule", "auth", "ring",
            "catalog", "ask", "replica", "route", "ingest", "serve", "console",
        ],
    ),
    (
        "daemon",
        &[
            "trace", "logging", "metrics", "admin", "control", "inherit", "gate", "tls", "change",
            "rule", "auth", "ring", "catalog", "ask", "replica", "route", "dialect", "ingest",
            "serve", "console", "config",
        ],
    ),
    (
        "cli",
        &[
            "trace", "logging", "metrics", "control", "inherit", "gate", "tls", "change", "rule",
            "auth", "ring", "catalog", "ask", "route", "dialect", "ingest", "serve", "console",
            "config", "daemon",
        ],
    ),
];

/// How many lines a file may have before its `#[cfg(test)]`.
const LINES_MAX: usize = 450;

#[test]
fn modules_name_only_what_lies_below_them() {
    for (index, (module, allowed)) in LAYERS.iter().enumerate() {
        for name in *allowed {
            let below = LAYERS.iter().take(index).any(|(lower, _)| lower == name);
            assert!(below, "the table lets {module} name {name}, which is not below it");
        }
        for file in source_files(module) {
            let text = fs::read_to_string(&file).unwrap();
            for (line_number, line) in text.lines().enumerate() {
                for named in modules_named_in(line) {
                    assert!(
                        named == *module || allowed.contains(&named),
                        "{}:{}: {module} may not name {named}",
                        file.display(),
                        line_number + 1,
                    );
                }
            }
        }
    }
}

#[test]
fn every_module_has_its_floor() {
    let lib = fs::read_to_string(source("lib.rs")).unwrap();
    for module in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        assert!(LAYERS.iter().any(|(known, _)| *known == module), "{module} is on no floor");
    }
}

#[test]
fn no_file_has_two_jobs() {
    for file in files_below(&source("")) {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: split it", file.display());
    }
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)
}

fn source_files(module: &str) -> Vec<PathBuf> {
    let single = source(&format!("{module}.rs"));
    let mut files = files_below(&source(module));
    files.extend(single.exists().then_some(single));
    files
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return files };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The path segments after each `crate::` that is not in a comment. A grouped `crate::{..}` names
/// the module `{`, which no table allows.
fn modules_named_in(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let after = code.split("crate::").skip(1);
    after
        .map(|rest| rest.split([':', ';', ' ', ',', '>', ')']).next().unwrap_or_default())
        .collect()
}

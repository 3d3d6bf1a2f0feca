//! The log's codes and message ids: what is written about them, and what journald makes of them.
//! `.ci/needs systemd` brings `journalctl`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use walcast::logging::notice::NOTICES;

const CATALOG: &str = "systemd/walcast.catalog";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn ids() -> BTreeMap<String, String> {
    NOTICES.iter().map(|notice| (notice.id.to_owned(), notice.code.to_owned())).collect()
}

#[test]
fn ids_are_different_and_of_journald_s_form() {
    assert_eq!(ids().len(), NOTICES.len());
    for notice in NOTICES {
        let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        assert!(notice.id.len() == 32 && notice.id.chars().all(digits), "{}", notice.id);
    }
}

#[test]
fn the_documentation_has_every_code_with_its_id() {
    let guide = read("docs/logging.md");
    let rows = guide.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let code = cells.next()?.trim_end_matches('`').to_owned();
        Some((cells.nth(1)?.trim_matches('`').to_owned(), code))
    });
    assert_eq!(rows.filter(|(id, _)| id.len() == 32).collect::<BTreeMap<_, _>>(), ids());
}

#[test]
fn the_catalogue_explains_every_id() {
    let catalog = read(CATALOG);
    let explained = catalog.lines().filter_map(|line| line.strip_prefix("-- "));
    let all: BTreeSet<String> = explained.map(str::to_owned).collect();
    assert_eq!(all, ids().into_keys().collect::<BTreeSet<_>>());
}

#[test]
fn journald_takes_the_catalogue() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("catalog");
    let installed = root.join("usr/lib/systemd/catalog");
    fs::create_dir_all(&installed).unwrap();
    fs::create_dir_all(root.join("var/lib/systemd/catalog")).unwrap();
    fs::write(installed.join("walcast.catalog"), read(CATALOG)).unwrap();
    let journalctl = |arguments: &[&str]| {
        let mut command = Command::new("journalctl");
        command.arg(format!("--root={}", root.display())).args(arguments);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    journalctl(&["--update-catalog"]);
    assert_eq!(journalctl(&["--list-catalog"]).lines().count(), NOTICES.len());
}

/// Somebody's alert is written with each of them, so each has to be logged somewhere.
#[test]
fn every_code_is_logged_somewhere() {
    let mut code = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.starts_with(root.join("logging")) {
                let text = fs::read_to_string(path).unwrap();
                let lines = text.split("#[cfg(test)]").next().unwrap().lines();
                code.extend(lines.filter(|line| !line.starts_with("use ")));
            }
        }
    }
    for notice in NOTICES {
        let name = notice.code.to_ascii_uppercase();
        let name = format!("notice::{name}");
        let logged = code.split(&name).skip(1);
        let mut whole =
            logged.map(|after| !after.starts_with(|it: char| it.is_alphanumeric() || it == '_'));
        assert!(whole.any(|whole| whole), "{name} is never logged");
    }
}

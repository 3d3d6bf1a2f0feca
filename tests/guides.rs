//! The guides for those who run walcast name what there is: every code that a client may be told,
//! and no line of the log that the code does not write.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod documents;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use documents::read;
use documents::root;
use documents::rows;

/// The parts of the protocol's description that have tables of codes. They are those of the code
/// (`tests/docs.rs`).
const CODES: [&str; 5] = [
    "is answered over HTTP",
    "`resync` has one of these reasons:",
    "## Error codes",
    "What is refused is refused by a status",
    "## Keeping alive, and closing",
];

#[test]
fn every_code_is_in_the_troubleshooting_guide() {
    let (protocol, guide) = (read("docs/protocol.md"), read("docs/troubleshooting.md"));
    let mut codes = BTreeSet::new();
    for begin in CODES {
        let (_, after) = protocol.split_once(begin).unwrap();
        for row in rows(after) {
            codes.extend(row.iter().take(2).flat_map(|cell| quoted(cell)).map(str::to_owned));
            // A close code is a number, without quotes.
            let number = row.first().unwrap();
            if number.len() == 4 {
                assert!(guide.contains(number.as_str()), "docs/troubleshooting.md lacks {number}");
            }
        }
    }
    codes.retain(|code| code.chars().all(|it| it.is_ascii_lowercase() || it == '_'));
    codes.retain(|code| !code.ends_with("_seconds") && !code.ends_with("_ms"));
    assert!(codes.len() > 30, "{codes:?}");
    let (_, explained) = guide.split_once("## Every code").unwrap();
    let explained: BTreeSet<String> = rows(explained)
        .iter()
        .flat_map(|row| quoted(row.first().unwrap()))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = codes.difference(&explained).collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md says nothing of {missing:?}");
}

#[test]
fn every_line_of_the_log_that_a_guide_quotes_is_one_of_the_code() {
    let mut code = String::new();
    for file in sources() {
        // A text that goes on in the next line of the source.
        let text = fs::read_to_string(file).unwrap();
        let mut parts = text.split("\\\n");
        code.push_str(parts.next().unwrap());
        parts.for_each(|part| code.push_str(part.trim_start()));
    }
    let mut lines = 0;
    for guide in ["docs/troubleshooting.md", "docs/operate.md", "docs/database.md"] {
        let guide = fs::read_to_string(root().join(guide)).unwrap_or_default();
        for table in guide.split("\n| log |").skip(1) {
            for row in rows(&format!("| log |{table}")) {
                for line in quoted(row.first().unwrap()) {
                    for part in fixed(line) {
                        assert!(code.contains(&part), "no {part:?} in src, of {line:?}");
                        lines += 1;
                    }
                }
            }
        }
    }
    assert!(lines > 5, "{lines}");
}

/// The guides for those who run walcast.
const GUIDES: [&str; 5] = [
    "docs/operate.md",
    "docs/troubleshooting.md",
    "docs/database.md",
    "docs/deploy.md",
    "docs/security.md",
];

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let rules = read("alerts/walcast.rules.yml");
    let alerts: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let guide = read("docs/operate.md");
    let (_, sections) = guide.split_once("\n## Alerts\n").unwrap();
    let mut explained = BTreeSet::new();
    for section in sections.split("\n### ").skip(1) {
        let (name, text) = section.split_once('\n').unwrap();
        for part in ["**Means.**", "**Users see**", "**Look.**", "**Do.**"] {
            assert!(text.contains(part), "{name} has no {part}");
        }
        explained.insert(name);
    }
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(explained, alerts);
}

#[test]
fn every_metric_that_a_guide_names_is_there() {
    let metrics = read("docs/metrics.md");
    let mut named = 0;
    for guide in GUIDES {
        let text = read(guide);
        for code in quoted(&text) {
            let name = code.split(['{', ' ']).next().unwrap();
            // The replication role's name begins alike.
            if name.starts_with("walcast_") && name != "walcast_replication" {
                assert!(metrics.contains(&format!("`{name}`")), "{guide} names {code}");
                named += 1;
            }
        }
    }
    assert!(named > 5, "{named}");
}

#[test]
fn every_statement_of_the_console_that_a_guide_names_is_there() {
    let console = read("docs/console.md");
    let mut named = 0;
    for guide in GUIDES {
        let text = read(guide);
        for code in quoted(&text) {
            let words: Vec<&str> = code.split_whitespace().take(2).collect();
            // What follows `SHOW` in small letters is a setting of Postgres.
            let of_console = match words.as_slice() {
                ["SHOW", what] => what.chars().all(|it| it.is_ascii_uppercase()),
                ["KILL" | "EXPLAIN", ..] | ["PAUSE" | "RESUME" | "RELOAD" | "DRAIN"] => true,
                _ => false,
            };
            // EXPLAIN alone is Postgres's.
            if of_console && code != "EXPLAIN" {
                let heading = format!("### `{}", words.join(" "));
                assert!(console.contains(&heading), "{guide} names {code}");
                named += 1;
            }
        }
    }
    assert!(named > 15, "{named}");
}

#[test]
fn the_readme_leads_to_every_document() {
    let readme = read("README.md");
    for document in documents() {
        let name = document.file_name().unwrap().to_string_lossy().into_owned();
        let is_linked = name == "README.md" || readme.contains(&format!("](docs/{name}"));
        assert!(is_linked, "README.md does not lead to {name}");
    }
}

/// Runs each command with `--help` behind it: what is unknown before that is an error.
#[test]
fn every_command_of_a_document_is_understood() {
    let program = env!("CARGO_BIN_EXE_walcast");
    let mut commands = BTreeSet::new();
    for document in documents() {
        let text = fs::read_to_string(document).unwrap();
        let blocks: String = text.split("```sh\n").skip(1).map(before_fence).collect();
        let lines = blocks.replace("\\\n", "");
        commands
            .extend(lines.lines().filter(|line| line.starts_with("walcast ")).map(str::to_owned));
        // Between the blocks, where quotes are not code's own.
        for part in text.split("```").step_by(2) {
            let codes = quoted(part).filter(|code| code.starts_with("walcast "));
            commands.extend(codes.map(str::to_owned));
        }
    }
    // The name of a connection.
    commands.remove("walcast asking");
    for command in &commands {
        // What it is piped into is not ours.
        let ours = command.split(" | ").next().unwrap();
        let script = format!("walcast() {{ '{program}' \"$@\" --help; }}; {ours}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
    }
    assert!(commands.len() > 5, "{commands:?}");
}

fn before_fence(block: &str) -> &str {
    block.split("```").next().unwrap()
}

/// Every document for people.
fn documents() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("docs")).unwrap();
    let mut documents: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    documents.push(root().join("README.md"));
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents
}

/// What stands between the parts of a line that vary: `…`, words in capitals, and two examples.
fn fixed(line: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let line = line.replace(':', " … ");
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        let is_variable = word.contains('…')
            || ["walcast", "replica"].contains(&word)
            || word.chars().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit());
        let last = parts.last_mut().unwrap();
        if is_variable {
            parts.push(String::new());
        } else if last.is_empty() {
            last.push_str(word);
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

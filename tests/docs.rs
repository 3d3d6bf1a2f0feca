//! Documents that say what the code says, where that can be compared cheaply.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod documents;
#[path = "docs/monitoring.rs"]
mod monitoring;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use documents::read;
use documents::root;
use documents::rows;
use walcast::console::statement::STATEMENTS;
use walcast::console::users::Level;
use walcast::gate::Limit;
use walcast::metrics::ingest::STATES;
use walcast::metrics::table::SECTIONS;
use walcast::route::subscription::Op;

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 4] = ["target", ".git", "node_modules", "artifacts"];

/// What belongs to somebody's machine or to a registry and not into a file of the project. In two
/// parts, or this file would be found.
const NOT_OURS: [[&str; 2]; 8] = [
    ["/ho", "me/"],
    ["/Us", "ers/"],
    ["/wo", "rk/"],
    ["/fa", "rm/"],
    ["cra", "tes.io"],
    ["py", "pi.org"],
    ["npm", "js."],
    ["deb.deb", "ian.org"],
];

#[test]
fn the_protocol_s_frame_types_are_those_of_the_code() {
    let write = before_tests("src/dialect/native/write.rs");
    let mut code = after_each(&write, "\"type\": \"");
    code.extend(after_each(&write, "\"type\":\""));
    assert_eq!(documented("## Frames"), code);
}

#[test]
fn the_protocol_s_requests_are_those_of_the_code() {
    let request = before_tests("src/dialect/native/request.rs");
    let (_, parse) = request.split_once("match envelope.of.as_str() {").unwrap();
    let (parse, _) = parse.split_once("_ => {").unwrap();
    let arms = parse.lines().filter_map(|line| line.trim().strip_suffix("=> {"));
    let code: BTreeSet<String> = arms.map(|arm| arm.trim().trim_matches('"').to_owned()).collect();
    let protocol = read("docs/protocol.md");
    let requests = protocol.split("\n## ").find(|section| section.starts_with("Requests")).unwrap();
    assert_eq!(after_each(requests, "### `"), code);
}

#[test]
fn the_protocol_s_error_codes_are_those_of_the_code() {
    let mut code = results("src/route/plan.rs", "pub fn code(");
    let request = before_tests("src/dialect/native/request.rs");
    code.extend(after_each(&request, "code: \""));
    code.extend(after_each(&before_tests("src/serve/websocket.rs"), "session_error(\""));
    code.extend(after_each(
        &before_tests("src/serve/websocket.rs"),
        "write::error(id.as_deref(), \"",
    ));
    code.insert(Limit::Requests.code().to_owned());
    assert_eq!(documented("## Error codes"), code);
}

#[test]
fn the_tests_that_the_threats_name_are_there() {
    let all: String = files("rs").iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let security = read("docs/security.md");
    let (_, after) = security.split_once("## Threats to tokens and rules").unwrap();
    for row in rows(after) {
        let named = row[2].split(", ").map(|name| name.trim_matches('`'));
        for name in named {
            assert!(all.contains(&format!("fn {name}(")), "{name}, which is to cover: {}", row[0]);
        }
    }
}

#[test]
fn the_protocol_s_resync_reasons_are_those_of_the_code() {
    let code = results("src/ring/mod.rs", "pub const fn code(");
    assert_eq!(documented("`resync` has one of these reasons:"), code);
}

#[test]
fn the_protocol_s_operations_are_those_of_the_code() {
    let all = Op::ALL.into_iter().chain([Op::Snapshot]);
    let code: BTreeSet<String> = all.map(|op| op.name().to_owned()).collect();
    assert_eq!(documented("### `row`"), code);
}

#[test]
fn the_protocol_s_close_codes_are_those_of_the_code() {
    let sessions =
        [before_tests("src/serve/end.rs"), before_tests("src/serve/websocket.rs")].concat();
    let code: BTreeSet<(String, String)> = sessions
        .split("End { code: ")
        .skip(1)
        .map(|rest| {
            let (code, rest) = rest.split_once(", reason: \"").unwrap();
            (code.to_owned(), rest.split('"').next().unwrap().to_owned())
        })
        .collect();
    let mut documented = BTreeSet::new();
    for row in table("## Keeping alive, and closing") {
        for reason in row[1].split(", ") {
            documented.insert((row[0].clone(), reason.trim_matches('`').to_owned()));
        }
    }
    assert_eq!(documented, code);
}

#[test]
fn the_protocol_s_http_answers_are_those_of_the_code() {
    let mut code = results("src/route/plan.rs", "pub fn code(");
    // They can't happen where there is one subscription.
    for never in ["duplicate_id", "unknown_id", "too_many_subscriptions"] {
        assert!(code.remove(never), "{never}");
    }
    code.extend(results("src/gate/mod.rs", "pub const fn code("));
    // Over WebSocket only.
    assert!(code.remove(Limit::Requests.code()));
    for file in files("rs").iter().filter(|file| file.starts_with(root().join("src/serve"))) {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("refuse(").skip(1) {
            let (before, rest) = rest.split_once('"').unwrap_or_default();
            if !before.contains(['{', ')']) {
                code.insert(rest.split('"').next().unwrap().to_owned());
            }
        }
    }
    let mut documented = BTreeSet::new();
    for begin in ["is answered over HTTP", "What is refused is refused by a status"] {
        for row in table(begin) {
            let codes = row[1].split('`').skip(1).step_by(2);
            let other = |code: &&str| !code.contains("_seconds") && !code.contains('-');
            documented.extend(codes.filter(other).map(str::to_owned));
        }
    }
    documented.retain(|code| !code.contains('.'));
    assert_eq!(documented, code);
}

#[test]
fn every_finding_of_check_is_explained() {
    let online = before_tests("src/daemon/check/mod.rs");
    let mut code = after_each(&before_tests("src/cli/check.rs"), "code: \"");
    code.extend(after_each(&online, "code: \""));
    code.extend(after_each(&online, "unanswered(\""));
    for file in [
        "src/catalog/audit/around.rs",
        "src/catalog/audit/server.rs",
        "src/catalog/audit/tables.rs",
        "src/daemon/check/security.rs",
        "src/daemon/check/tiers.rs",
    ] {
        let text = before_tests(file);
        code.extend(after_each(&text, "code: \""));
        code.extend(after_each(&text, "Finding::new(severity, \""));
        for after in text.split("Severity::").skip(1) {
            // The code stands right behind the severity, on the same line or the next.
            let (between, after) = after.split_once('"').unwrap_or_default();
            if between.chars().all(|it| it.is_alphanumeric() || it == ',' || it.is_whitespace()) {
                code.extend(after.split('"').next().map(str::to_owned));
            }
        }
        code.retain(|code| !code.contains(' '));
    }
    assert!(code.len() > 20, "{code:?}");
    let database = read("docs/database.md");
    let (_, findings) = database.split_once("## What `check` finds").unwrap();
    let mut documented = BTreeSet::new();
    for row in rows(findings) {
        documented.extend(row[0].split(", ").map(|code| code.trim_matches('`').to_owned()));
    }
    assert_eq!(documented, code);
}

#[test]
fn the_names_in_the_map_are_those_of_the_code() {
    let map = read("ARCHITECTURE.md");
    let mut code = String::new();
    for file in files("rs").iter().filter(|file| file.starts_with(root().join("src"))) {
        code.push_str(&fs::read_to_string(file).unwrap());
    }
    let known = |name: &str| match name.chars().next() {
        Some(first) if first.is_uppercase() => {
            [" {", "(", ",", " "].iter().any(|end| code.contains(&format!(" {name}{end}")))
        }
        _ => [format!("fn {name}("), format!("fn {name}<"), format!("mod {name};")]
            .iter()
            .any(|definition| code.contains(definition.as_str())),
    };
    let mut names = 0;
    let walks: String = map.split("```").skip(1).step_by(2).collect();
    for path in walks.split(|it: char| !(it.is_alphanumeric() || it == '_' || it == ':')) {
        let mut of_path = path.trim_matches(':').split("::");
        let _type_or_module = of_path.next();
        for name in of_path {
            assert!(known(name), "ARCHITECTURE.md names {path}");
            names += 1;
        }
    }
    assert!(names > 30, "{names}");
    let mut paths = 0;
    for path in map.split('`').skip(1).step_by(2) {
        if path.ends_with('/') || path.ends_with(".rs") {
            let exists =
                [root().join(path), root().join("src").join(path)].iter().any(|it| it.exists());
            assert!(exists, "ARCHITECTURE.md names {path}");
            paths += 1;
        }
    }
    assert!(paths > 10, "{paths}");
}

/// The statements of the console as docs/console.md has them. `WRITE_DOCS=1` writes them there.
#[test]
fn the_console_s_statements_are_those_of_the_code() {
    let (begin, end) = ("<!-- statements: begin -->\n", "<!-- statements: end -->");
    let document = read("docs/console.md");
    let (before, rest) = document.split_once(begin).unwrap();
    let (found, after) = rest.split_once(end).unwrap();
    let mut expected = String::new();
    for spec in STATEMENTS {
        let level = if spec.level == Level::Admin { " Level `admin`." } else { "" };
        writeln!(expected, "\n### `{}`\n\n{}{level}", spec.form, spec.purpose).unwrap();
        if !spec.columns.is_empty() {
            expected.push_str("\n| column | type | |\n| --- | --- | --- |\n");
        }
        for column in spec.columns {
            writeln!(expected, "| `{}` | {} | {} |", column.name, column.of.name(), column.says)
                .unwrap();
        }
    }
    expected.push('\n');
    if std::env::var_os("WRITE_DOCS").is_some() {
        let text = format!("{before}{begin}{expected}{end}{after}");
        fs::write(root().join("docs/console.md"), text).unwrap();
        return;
    }
    assert_eq!(found, expected, "run this test with WRITE_DOCS=1 to write them");
}

#[test]
fn the_documentation_has_the_table_of_metrics() {
    const BEGIN: &str = "<!-- metrics: begin -->\n";
    let document = read("docs/metrics.md");
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once("<!-- metrics: end -->").unwrap();
    let expected = metrics();
    if std::env::var_os("WRITE_DOCS").is_some() {
        let text = format!("{before}{BEGIN}{expected}<!-- metrics: end -->{after}");
        fs::write(root().join("docs/metrics.md"), text).unwrap();
        return;
    }
    assert_eq!(table, expected, "run this test with WRITE_DOCS=1 to write the table");
}

/// The metrics as they stand in the documentation: a table for each section.
fn metrics() -> String {
    let mut text = String::new();
    for (title, families) in SECTIONS {
        write!(text, "\n### {title}\n\n| metric | kind | labels | says |\n").unwrap();
        text.push_str("| --- | --- | --- | --- |\n");
        for family in *families {
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, labels) = (family.served_name(), labels.join(", "));
            writeln!(text, "| `{name}` | {} | {labels} | {} |", family.kind, family.help).unwrap();
        }
    }
    text.push('\n');
    text
}

#[test]
fn what_the_labels_of_metrics_say_is_that_of_the_code() {
    let section = |metric: &str| -> BTreeSet<String> {
        let document = read("docs/metrics.md");
        let (_, after) = document.split_once(&format!("### `{metric}`\n")).unwrap();
        let rows = rows(after);
        rows.iter().map(|row| row.first().unwrap().trim_matches('`').to_owned()).collect()
    };
    for (metric, path) in [
        ("walcast_auth_rejected_total", "src/auth/token.rs"),
        ("walcast_auth_key_look_failures_total", "src/auth/fetch.rs"),
    ] {
        assert_eq!(section(metric), results(path, "pub const fn code("), "{metric}");
    }
    let asked = results("src/ask/mod.rs", "pub const fn word(");
    assert_eq!(section("walcast_snapshot_failures_total"), asked);
    let sources: String = files("rs").iter().map(|path| read_code(path)).collect();
    let mut unheld = results("src/replica/unheld.rs", "pub const fn code(");
    unheld.extend(after_each(&sources, "replicas.failures.one(\""));
    assert_eq!(section("walcast_replica_failures_total"), unheld);
    // The others are told to clients, and in the protocol.
    let counted = after_each(&sources, "self.metrics.refused(\"");
    assert_eq!(section("walcast_refused_total"), counted);
}

/// A file of the program; empty where it is none.
fn read_code(path: &Path) -> String {
    let ours = path.strip_prefix(root()).unwrap_or(path);
    if ours.starts_with("src") { before_tests(ours.to_str().unwrap()) } else { String::new() }
}

#[test]
fn every_condition_of_readyz_is_explained() {
    let mut code = BTreeSet::from(["stalled".to_owned()]);
    for file in files("rs").iter().filter(|file| file.starts_with(root().join("src"))) {
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for call in ["health.unready(\"", "health.warn(\"", "RELOAD_FAILED: &str = \""] {
            code.extend(after_each(text, call));
        }
    }
    code.extend(STATES.map(str::to_owned));
    code.remove("streaming");
    let document = read("docs/metrics.md");
    let (_, after) = document.split_once("## What `/readyz` says").unwrap();
    let documented: BTreeSet<String> =
        rows(after).iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(documented, code);
}

#[test]
fn the_guarantees_name_every_bound() {
    let (configuration, guarantees) = (read("docs/configuration.md"), read("docs/guarantees.md"));
    for section in ["window", "wal", "ring", "limits", "snapshot", "drain"] {
        let (_, after) = configuration.split_once(&format!("### `[{section}]`")).unwrap();
        for row in rows(after) {
            let key = row.first().unwrap().trim_matches('`');
            let name = format!("`{section}.{key}`");
            assert!(guarantees.contains(&name), "docs/guarantees.md does not say what {name} does");
        }
    }
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut links = 0;
    for document in files("md") {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            assert!(file.exists(), "{}: no file {target}", document.display());
            if !anchor.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                let known = there.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(
                    known.into_iter().any(|it| it == anchor),
                    "{}: no heading {target}",
                    document.display()
                );
            }
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}

#[test]
fn no_file_names_a_machine_s_folder_or_a_registry() {
    let mut seen = 0;
    for file in files("") {
        let locked = file.extension().is_some_and(|extension| extension == "lock")
            || file.ends_with("package-lock.json");
        let Ok(text) = fs::read_to_string(&file) else { continue };
        seen += 1;
        for parts in NOT_OURS {
            let found = !locked && text.contains(&parts.concat());
            assert!(!found, "{} names {}", file.display(), parts.concat());
        }
    }
    assert!(seen > 100, "{seen}");
}

fn before_tests(path: &str) -> String {
    let text = read(path);
    text.split("#[cfg(test)]").next().unwrap().to_owned()
}

/// What stands between each `prefix` and the next quote of either kind.
fn after_each(text: &str, prefix: &str) -> BTreeSet<String> {
    let rest = text.split(prefix).skip(1);
    rest.filter_map(|rest| rest.split(['"', '`']).next()).map(str::to_owned).collect()
}

/// The texts that the arms of a function's `match` come to.
fn results(path: &str, function: &str) -> BTreeSet<String> {
    let text = before_tests(path);
    let (_, body) = text.split_once(function).unwrap();
    let (body, _) = body.split_once("\n    }\n").unwrap();
    after_each(body, "=> \"")
}

/// The first column of the first table after `begin` in the protocol, without backquotes.
fn documented(begin: &str) -> BTreeSet<String> {
    table(begin).iter().map(|row| row.first().unwrap().trim_matches('`').to_owned()).collect()
}

fn table(begin: &str) -> Vec<Vec<String>> {
    let protocol = read("docs/protocol.md");
    let (_, after) = protocol.split_once(begin).unwrap();
    rows(after)
}

/// The anchor of a heading, as code hosts make it.
fn anchor_of(heading: &str) -> String {
    let title = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

/// Every file with that extension, or every file.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if FOREIGN.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if extension.is_empty() || path.extension().is_some_and(|it| it == extension) {
                files.push(path);
            }
        }
    }
    files
}

//! The Debian package, as far as that can be told without making it (`make deb-test` makes it).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use toml::Table;

/// Names of folders that .ci/deb fills.
const MADE: [&str; 2] = ["target/release/", "target/package/"];
/// Folders of which every file has to be in the package.
const WHOLE: [&str; 5] = ["systemd", "sql", "docs", "dashboards", "alerts"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// What goes into the package: where it is here, and where it will be.
fn assets() -> Vec<(String, String)> {
    let manifest: Table = read("Cargo.toml").parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().unwrap().iter();
    let text = |asset: &toml::Value, index| asset[index].as_str().unwrap().to_owned();
    assets.map(|asset| (text(asset, 0), text(asset, 1))).collect()
}

/// The files that a pattern with one asterisk means.
fn files(pattern: &str) -> Vec<String> {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or((".", pattern));
    let (before, after) = name.split_once('*').unwrap_or((name, ""));
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let matching = names.filter(|it| {
        if name.contains('*') { it.starts_with(before) && it.ends_with(after) } else { it == name }
    });
    matching.map(|name| format!("{folder}/{name}")).collect()
}

#[test]
fn everything_that_is_packed_is_there_and_all_of_it_is_packed() {
    let mut packed = BTreeSet::new();
    for (source, _) in assets() {
        if !MADE.iter().any(|made| source.starts_with(made)) {
            let found = files(&source);
            assert!(!found.is_empty(), "{source} is nothing");
            packed.extend(found);
        }
    }
    for folder in WHOLE {
        for file in files(&format!("{folder}/*")) {
            let is_folder = root().join(&file).is_dir();
            assert!(is_folder || packed.contains(&file), "{file} is not in the package");
        }
    }
}

#[test]
fn the_maintainer_scripts_know_every_unit_and_are_a_shell_s() {
    let packed = assets().into_iter().map(|(source, _)| source);
    let units: Vec<String> = packed
        .filter(|source| source.ends_with(".service") || source.ends_with(".socket"))
        .flat_map(|source| files(&source))
        .map(|file| file.rsplit_once('/').unwrap().1.to_owned())
        .collect();
    for script in ["debian/postinst", "debian/prerm", "debian/postrm"] {
        let text = read(script);
        for unit in &units {
            assert!(text.contains(unit.as_str()), "{script} does not know {unit}");
        }
    }
    let scripts = [
        "debian/postinst",
        "debian/prerm",
        "debian/postrm",
        ".ci/deb",
        ".ci/deb-test",
        ".ci/deb-test-inside",
    ];
    for script in scripts {
        let status = Command::new("sh").arg("-n").arg(root().join(script)).status().unwrap();
        assert!(status.success(), "{script}");
    }
}

#[test]
fn the_package_has_the_version_of_the_program() {
    let first = read("debian/changelog").lines().next().unwrap().to_owned();
    let expected = format!("walcast ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(first.starts_with(&expected), "debian/changelog begins with {first}, not {expected}");
}

#[test]
fn the_program_writes_its_manual_and_its_completions() {
    let walcast = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_walcast")).args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(walcast(&["completions", shell]).contains("serve"), "{shell}");
    }
    assert!(walcast(&["man"]).contains(".TH walcast 1"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    fs::create_dir_all(&folder).unwrap();
    walcast(&["man", folder.to_str().unwrap()]);
    assert!(fs::read_to_string(folder.join("walcast-serve.1")).unwrap().contains(r"\-\-config"));
}

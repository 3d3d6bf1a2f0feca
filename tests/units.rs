//! The systemd units: what systemd itself says of them, and that they say what the code says.
//! `.ci/needs systemd` brings `systemd-analyze`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use walcast::config::keys::KEYS;
use walcast::inherit;

const SERVICE: &str = "walcast.service";
const SOCKETS: [(&str, &str); 3] = [
    ("walcast.socket", inherit::PUBLIC),
    ("walcast-admin.socket", inherit::ADMIN),
    ("walcast-console.socket", inherit::CONSOLE),
];

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(unit(name)).unwrap()
}

/// The value of a setting that stands once in a unit.
fn value(unit: &str, setting: &str) -> String {
    let text = read(unit);
    let mut values = text.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("{unit} has no {setting}"));
    assert_eq!(values.next(), None, "{unit} has {setting} twice");
    value.to_owned()
}

fn default_of(key: &str) -> &'static str {
    KEYS.iter().find(|it| it.name == key).and_then(|it| it.default).unwrap()
}

fn systemd_analyze(arguments: &[&str]) -> Output {
    Command::new("systemd-analyze").args(arguments).output().unwrap()
}

fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("units");
    fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    for name in SOCKETS.map(|(name, _)| name).into_iter().chain([SERVICE]) {
        // The program is where it is built and not where it will be.
        let text = read(name).replace("/usr/bin/walcast", env!("CARGO_BIN_EXE_walcast"));
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        files.push(file.display().to_string());
    }
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(files.iter().map(String::as_str));
    let output = systemd_analyze(&arguments);
    let said = printed(&output);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("walcast"), "{said}");
}

#[test]
fn the_service_is_exposed_by_less_than_one_and_a_half() {
    let service = unit(SERVICE).display().to_string();
    let arguments = ["security", "--offline=true", "--threshold=15", "--no-pager", &service];
    let output = systemd_analyze(&arguments);
    assert!(output.status.success(), "{}", printed(&output));
}

#[test]
fn each_socket_has_the_name_that_the_program_takes_it_by() {
    for (unit, name) in SOCKETS {
        assert_eq!(value(unit, "FileDescriptorName"), name);
    }
    assert_eq!(value("walcast.socket", "ListenStream"), default_of("listen.address"));
    for (unit, _) in &SOCKETS[1..] {
        assert_eq!(value(unit, "Service"), SERVICE);
    }
}

#[test]
fn the_service_has_time_to_drain() {
    let stop: u64 = value(SERVICE, "TimeoutStopSec").trim_end_matches('s').parse().unwrap();
    let drain: u64 = default_of("drain.seconds").parse().unwrap();
    // docs/deploy.md: drain.seconds and 16 seconds more, at most.
    assert!(stop > drain + 16, "{stop} s for a drain of {drain} s");
}

#[test]
fn a_mistake_in_the_configuration_does_not_start_it_again() {
    let code = walcast::cli::EXIT_CONFIGURATION.to_string();
    assert_eq!(value(SERVICE, "RestartPreventExitStatus"), code);
}

//! `walcast demo` as a person runs it: the program itself, a second terminal, Ctrl-C.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use walcast::cli::demo::postgres::free_port;

/// Counts tables that could not be held, by the reason; it is there when there was one.
const FAILURES: &str = "walcast_replica_failures_total{";
/// Counts those that could.
const LOADS: &str = "walcast_replica_loads_total";

/// A demo with a temporary folder of its own, so that it does not meet others.
struct Demo {
    process: Child,
    lines: Box<dyn Iterator<Item = String>>,
    folder: PathBuf,
}

fn walcast(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
    command.env("TMPDIR", folder).env_remove("WALCAST_TOKEN").env_remove("WALCAST_URL");
    command
}

/// A port that is free, as the one after it is: that is the operators'.
fn free_ports() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok();
    (0..100).map(|_| free_port().unwrap()).find(is_free).expect("two free ports")
}

impl Demo {
    fn start(name: &str, arguments: &[&str]) -> Demo {
        // Short, because the path of a unix socket may have a hundred bytes.
        let folder = std::env::temp_dir().join(format!("walcast-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
        let mut command = walcast(&folder);
        command.arg("demo").args(["--port", &free_ports().to_string()]).args(arguments);
        if let Some(binaries) = std::env::var_os("WALCAST_TEST_PG_BIN") {
            command.arg("--pg-bin").arg(binaries);
        }
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let lines = Box::new(output.lines().map_while(Result::ok));
        Demo { process, lines, folder }
    }

    /// Reads what it says until a line that contains `text`.
    fn says(&mut self, text: &str) -> String {
        self.lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("never said: {text}"))
    }

    fn tail(&self, arguments: &[&str]) -> Output {
        walcast(&self.folder).arg("tail").args(arguments).output().unwrap()
    }

    /// Ends it by a signal, as Ctrl-C does; its folder must be empty then.
    fn interrupt(mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        // What it still says must have somewhere to go.
        for _ in self.lines.by_ref() {}
        assert!(self.process.wait().unwrap().success());
        let left: Vec<_> = fs::read_dir(&self.folder).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// What the demo that serves `url` tells operators, at the port beside.
fn metrics(url: &str) -> String {
    let port = url.rsplit(':').next().unwrap().split('/').next().unwrap();
    let admin = (Ipv4Addr::LOCALHOST, port.parse::<u16>().unwrap() + 1);
    let mut socket = TcpStream::connect(admin).unwrap();
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: walcast\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(LOADS), "{answer}");
    answer
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

#[test]
fn orders_come_into_the_view_of_a_second_terminal_and_leave_it() {
    let mut demo = Demo::start("demo", &["--rate", "300", "--silent"]);
    demo.says("Everything is up");
    let condition = "status in ('open','assigned')";
    let output = demo.tail(&["orders", "--where", condition, "--count", "100", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let rows = String::from_utf8(output.stdout).unwrap();
    assert_eq!(rows.lines().count(), 100);
    for op in ["enter", "update", "leave"] {
        assert!(rows.contains(&format!(r#""op":"{op}""#)), "no {op} in {rows}");
    }
    demo.interrupt();
}

#[test]
fn changes_are_shown_as_three_people_see_them() {
    let mut demo = Demo::start("views", &["--rate", "300"]);
    let customer = demo.says("customer.token").split_once("--token-file ").unwrap().1.to_owned();
    let (customer, url) = customer.split_once(" --url ").unwrap();
    demo.says("admin    orders");
    demo.says("driver   orders");
    let tail = ["orders", "--token-file", customer, "--url", url, "--count", "5", "--json"];
    let output = demo.tail(&tail);
    let rows = String::from_utf8(output.stdout).unwrap();
    assert_eq!(rows.lines().count(), 5);
    for row in rows.lines() {
        assert!(row.contains("c0000000-0000-4000-8000-000000000001"), "another's order: {row}");
    }
    // Its policies are decided in process: the tables that they read can all be held.
    let failures = metrics(url).lines().filter(|it| it.starts_with(FAILURES)).count();
    assert_eq!(failures, 0, "tables that policies read are not held");
    demo.interrupt();
}

//! Traces: the real program, a real Postgres, and a collector of the test's own that takes
//! OTLP over HTTP. `cargo test --features otlp --test otlp`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use walcast::cli::demo::postgres::Options;
use walcast::cli::demo::postgres::PrivateServer;

/// How long anything may take that must happen.
const DEADLINE: Duration = Duration::from_secs(30);

/// One export: the head of the request, and its body, an `ExportTraceServiceRequest`. The names in
/// that stand there as they are.
struct Export {
    head: String,
    body: Vec<u8>,
}

impl Export {
    fn names(&self, name: &str) -> bool {
        self.body.windows(name.len()).any(|part| part == name.as_bytes())
    }
}

/// Takes what is sent, and answers with a status.
fn collector(status: &'static str) -> (String, Receiver<Export>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (exports, received) = mpsc::channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            if take(socket.unwrap(), status, &exports).is_none() {
                return;
            }
        }
    });
    (endpoint, received)
}

/// Reads one request and answers it; nothing when nobody wants to know any more.
fn take(socket: TcpStream, status: &str, exports: &Sender<Export>) -> Option<()> {
    let mut socket = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if socket.read_line(&mut head).unwrap() == 0 {
            return Some(());
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    socket.read_exact(&mut body).unwrap();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    socket.get_mut().write_all(answer.as_bytes()).unwrap();
    exports.send(Export { head, body }).ok()
}

/// A daemon that ends with this.
struct Daemon {
    child: Child,
    lines: Receiver<String>,
    /// What it has said so far.
    said: Vec<String>,
}

impl Daemon {
    /// Starts it on the server, and returns when it is ready.
    fn start(server: &PrivateServer, endpoint: &str) -> Daemon {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let file = folder.join(format!("otlp-{}.toml", server.port()));
        let url = server.connection_string("postgres");
        let text = format!(
            "database.url = \"{url}\"\nauth.anonymous_role = 'postgres'\nlog.level = 'warn,walcast::daemon=info,walcast::trace=info'\n\
             listen.address = '127.0.0.1:0'\nadmin.address = 'off'\notlp.endpoint = '{endpoint}'\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
        command.args(["serve", "--config", file.to_str().unwrap()]).env_remove("NOTIFY_SOCKET");
        // Not five seconds.
        command.env("OTEL_BSP_SCHEDULE_DELAY", "50").stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _unread = said.send(line);
            }
        });
        let mut daemon = Daemon { child, lines, said: Vec::new() };
        daemon.says("code=\"ready\"");
        daemon
    }

    /// Waits for a line of the log, unless it was said already.
    fn says(&mut self, part: &str) -> String {
        loop {
            if let Some(line) = self.said.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            self.said.push(self.lines.recv_timeout(DEADLINE).unwrap());
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn server() -> PrivateServer {
    let templates = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("postgres-templates");
    let server = PrivateServer::start(Options::for_tests(&templates)).unwrap();
    let folder = server.socket_folder().display().to_string();
    let port = server.port().to_string();
    let made = Command::new("psql")
        .args(["-qX", "-h", &folder, "-p", &port, "-U", "postgres"])
        .args(["-c", "CREATE PUBLICATION walcast FOR ALL TABLES"])
        .status();
    assert!(made.unwrap().success());
    server
}

#[test]
fn a_collector_is_told_what_took_how_long_and_nothing_of_it_is_in_the_log() {
    let server = server();
    let (endpoint, exports) = collector("200 OK");
    let mut daemon = Daemon::start(&server, &endpoint);
    daemon.signal(Signal::HUP);
    let mut awaited = vec!["ingest.connect", "catalog.read", "daemon.reload"];
    let mut first = None;
    while !awaited.is_empty() {
        let export = exports.recv_timeout(DEADLINE).unwrap();
        awaited.retain(|name| !export.names(name));
        first.get_or_insert(export);
    }
    let first = first.unwrap();
    assert!(first.head.starts_with("post /v1/traces http/1.1\r\n"), "{}", first.head);
    assert!(first.head.contains("content-type: application/x-protobuf"), "{}", first.head);
    assert!(first.names("service.name") && first.names("walcast"));

    daemon.signal(Signal::TERM);
    assert!(daemon.child.wait().unwrap().success());
    let all: Vec<String> = daemon.said.iter().cloned().chain(daemon.lines.try_iter()).collect();
    assert!(!all.iter().any(|line| line.contains("daemon.reload")), "{all:#?}");
}

#[test]
fn a_collector_that_refuses_is_told_to_the_log_and_hinders_nothing() {
    let server = server();
    let (endpoint, exports) = collector("503 Service Unavailable");
    let mut daemon = Daemon::start(&server, &endpoint);
    let line = daemon.says("traces can't be sent");
    assert!(line.contains("503"), "{line}");
    exports.recv_timeout(DEADLINE).unwrap();
    daemon.signal(Signal::TERM);
    assert!(daemon.child.wait().unwrap().success());
}

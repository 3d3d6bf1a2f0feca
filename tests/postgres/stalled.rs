//! A stage that stands still in the real program: its log goes into a pipe that nobody reads, and
//! when that is full, the thread that logs waits.

use std::io::BufRead;
use std::io::BufReader;
use std::io::PipeReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use walcast::cli::demo::postgres::free_port;

use crate::commands::Company;
use crate::deployment::DEADLINE;
use crate::program::walcast;

/// The first line with this in it.
fn says(log: &mut BufReader<PipeReader>, wanted: &str) -> String {
    for line in log.lines() {
        let line = line.unwrap();
        if line.contains(wanted) {
            return line;
        }
    }
    panic!("it ended without saying {wanted:?}")
}

/// Sends something and reads what comes, as far as anything does.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _silent = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// What systemd is told there.
fn listen(path: &Path) -> Receiver<String> {
    let notified = UnixDatagram::bind(path).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = notified.recv(&mut buffer) {
            if tell.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                return;
            }
        }
    });
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_stands_still_is_not_ready_and_the_watchdog_is_not_told() {
    let company = Company::new().await;
    let told = listen(&company.folder.path("notify"));
    let operators = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut command = walcast(&["serve", "--config", &company.config()]);
    command.args(["--set", "listen.shards=1", "--set", &format!("admin.address={operators}")]);
    command.args(["--set", "limits.handshakes_per_second_per_address=0"]);
    command.args(["--log-format", "human", "--log", "info,walcast::serve=debug"]);
    command.env("NOTIFY_SOCKET", company.folder.path("notify")).env("WATCHDOG_USEC", "400000");
    command.stdout(Stdio::null()).stderr(writer);
    let mut daemon = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let mut log = BufReader::new(reader);
    let line = says(&mut log, "code=\"ready\"");
    let clients = line.split("address=").nth(1).unwrap().split(' ').next().unwrap();
    let clients: SocketAddr = clients.parse().unwrap();
    let readyz = || ask(operators, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(readyz().starts_with("HTTP/1.1 200"));

    // Each is a line of the shard's, until no more fits into the pipe.
    let begin = Instant::now();
    let stalled = loop {
        let ready = readyz();
        if ready.starts_with("HTTP/1.1 503") {
            break ready;
        }
        assert!(begin.elapsed() < DEADLINE, "{ready}");
        if begin.elapsed() < Duration::from_secs(5) {
            for _ in 0..20 {
                // Nobody accepts any more, in the end.
                let patience = Duration::from_millis(50);
                let Ok(mut socket) = TcpStream::connect_timeout(&clients, patience) else { break };
                let _gone = socket.write_all(b"nonsense\r\n\r\n");
            }
        }
        let _told = told.recv_timeout(Duration::from_millis(100));
    };
    assert!(stalled.contains("stalled") && stalled.contains("shard-0"), "{stalled}");

    // What systemd was told before is taken; from then on it is not told that all is well.
    let _before = told.try_iter().count();
    let until = Instant::now() + Duration::from_millis(1500);
    while let Ok(text) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
        assert!(!text.contains("WATCHDOG=1"), "{text}");
    }

    // Somebody reads again: the thread goes on, and what was to be said of it is said.
    let reading = thread::spawn(move || says(&mut log, "code=\"stalled\""));
    while !readyz().starts_with("HTTP/1.1 200") {
        assert!(begin.elapsed() < 2 * DEADLINE);
        let _told = told.recv_timeout(Duration::from_millis(100));
    }
    assert!(reading.join().unwrap().contains("stage=\"shard-0\""));
    while !told.recv_timeout(DEADLINE).unwrap().contains("WATCHDOG=1") {}
    daemon.kill().await.unwrap();
}

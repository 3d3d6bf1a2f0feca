//! `/v1/events` read by an `EventSource` that is not ours, in Node, behind a connection that is cut.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::deployment::DEADLINE;
use crate::transports::open;

/// Forwards connections to the daemon, and cuts those that there are.
struct Line {
    address: SocketAddr,
    cut: mpsc::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Line {
    async fn to(daemon: SocketAddr) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, mut is_cut) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pipes = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (mut client, _) = accepted.unwrap();
                        let mut server = TcpStream::connect(daemon).await.unwrap();
                        pipes.spawn(async move {
                            let _ended = copy_bidirectional(&mut client, &mut server).await;
                        });
                    }
                    Some(()) = is_cut.recv() => pipes.shutdown().await,
                }
            }
        });
        Line { address, cut, _tasks: tasks }
    }
}

/// The script, and what it prints.
struct Page {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Page {
    fn open(address: &str) -> Page {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/eventsource.cjs");
        let mut process = Command::new("node")
            .args([script, address])
            .env("NODE_PATH", "/usr/share/nodejs")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Page { _process: process, lines }
    }

    async fn prints(&mut self, expected: &str) {
        let line = timeout(DEADLINE, self.lines.next_line()).await.unwrap().unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_source_comes_back_by_itself_and_misses_nothing() {
    let deployment = open(&[]).await;
    let line = Line::to(deployment.daemon.address()).await;
    let address = format!("http://{}/v1/events?table=notes", line.address);
    let mut page = Page::open(&address);
    page.prints("subscribed").await;
    deployment.execute(&["INSERT INTO notes VALUES (1)"]).await;
    page.prints("insert 1 true").await;
    line.cut.send(()).await.unwrap();
    page.prints("lost").await;
    deployment.execute(&["INSERT INTO notes VALUES (2)"]).await;
    page.prints("subscribed").await;
    page.prints("insert 2 true").await;
    deployment.execute(&["INSERT INTO notes VALUES (3)"]).await;
    page.prints("insert 3 true").await;

    // Where it is refused it says so, and does not come back.
    let mut page = Page::open(&address.replace("notes", "nothing"));
    page.prints("refused 404").await;
    assert_eq!(timeout(DEADLINE, page.lines.next_line()).await.unwrap().unwrap(), None);
}

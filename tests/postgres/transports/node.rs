//! Clients that are not ours, in Node, behind a connection that is cut: an `EventSource`, and those
//! of `docs/clients.md` as they stand there.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
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
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::program::Folder;
use crate::transports::open;

/// Forwards connections to the daemon, and cuts those that there are.
pub(super) struct Line {
    pub(super) address: SocketAddr,
    pub(super) cut: mpsc::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Line {
    pub(super) async fn to(daemon: SocketAddr) -> Line {
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

const EVENT_SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/eventsource.cjs");

/// The script, and what it prints.
pub(super) struct Page {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Page {
    fn open(address: &str) -> Page {
        Page::run(Path::new(EVENT_SOURCE), address, &[])
    }

    /// The same where the certificates in a file are believed.
    pub(super) fn open_believing(authorities: &Path, address: &str) -> Page {
        let authorities = authorities.to_str().unwrap();
        // The name has an address of IPv6, too, where nobody listens.
        let environment = [
            ("NODE_EXTRA_CA_CERTS", authorities),
            ("NODE_OPTIONS", "--dns-result-order=ipv4first"),
        ];
        Page::run(Path::new(EVENT_SOURCE), address, &environment)
    }

    /// Runs the guide's code block that has `mark` in it, with `before` in front of it and for
    /// another address.
    fn of_the_guide(folder: &Folder, mark: &str, before: &str, address: SocketAddr) -> Page {
        let mut block = block(mark);
        for example in ["127.0.0.1:4480", "live.example.com"] {
            block = block.replace(example, &address.to_string());
        }
        let block = block.replace("https://", "http://");
        let before = format!("{PRELUDE}{before}");
        Page::run(&folder.write("page.mjs", format!("{before}\n{block}")), "", &[])
    }

    fn run(script: &Path, address: &str, environment: &[(&str, &str)]) -> Page {
        let mut process = Command::new("node")
            .arg(script)
            .arg(address)
            .env("NODE_PATH", "/usr/share/nodejs")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Page { _process: process, lines }
    }

    pub(super) async fn prints(&mut self, expected: &str) {
        let line = timeout(DEADLINE, self.lines.next_line()).await.unwrap().unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
}

/// What a browser has and Node may not.
const PRELUDE: &str = r#"
import { createRequire } from "node:module";
const require = createRequire(import.meta.url);
globalThis.EventSource ??= require("eventsource");
globalThis.WebSocket ??= class extends require("ws") {
  constructor(...given) {
    super(...given);
    this.on("error", () => {});
  }
};
"#;

/// Has a WebSocket tell when it has all rows for the first time.
const TELL_SYNCED: &str = r#"
let synced = false;
globalThis.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({ data }) => {
      if (!synced && JSON.parse(data).type === "synced") console.log("synced");
      synced ||= JSON.parse(data).type === "synced";
    });
  }
};
"#;

/// The code block of `docs/clients.md` that has `mark` in it.
fn block(mark: &str) -> String {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/clients.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let mut blocks = guide.split("```js\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(mark)).unwrap().to_owned()
}

/// A table of orders, and one that is open.
async fn orders() -> Deployment {
    Deployment::start(Plan {
        schema: "CREATE TABLE orders (id bigint PRIMARY KEY, status text); \
                 ALTER TABLE orders REPLICA IDENTITY FULL; INSERT INTO orders VALUES (1, 'open')",
        tables: "[[table]]\nname = 'public.orders'\nopen = true\n",
        anonymous: false,
        ..Plan::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_s_client_holds_the_rows_over_a_lost_connection() {
    let deployment = orders().await;
    let line = Line::to(deployment.daemon.address()).await;
    let folder = Folder::new();
    folder.write("follow.mjs", block("// follow.mjs"));
    let token = deployment.token(json!({}));
    let before = format!("{TELL_SYNCED}process.env.WALCAST_TOKEN = '{token}';");
    let mut page = Page::of_the_guide(&folder, "import { follow }", &before, line.address);
    page.prints("snapshot { id: 1, status: 'open' } 1").await;
    // Cut off before that it would begin again.
    page.prints("synced").await;
    deployment.execute(&["INSERT INTO orders VALUES (2, 'open')"]).await;
    page.prints("insert { id: 2, status: 'open' } 2").await;
    let moved = "UPDATE orders SET status = 'assigned' WHERE id = 1";
    deployment.execute(&[moved]).await;
    page.prints("update { id: 1, status: 'assigned' } 2").await;
    line.cut.send(()).await.unwrap();
    deployment.execute(&["UPDATE orders SET status = 'done' WHERE id = 1"]).await;
    deployment.execute(&["INSERT INTO orders VALUES (3, 'open'), (4, 'done')"]).await;
    page.prints("leave { id: 1 } 1").await;
    page.prints("insert { id: 3, status: 'open' } 2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_s_event_source_and_poll_tell_what_happens() {
    let deployment = orders().await;
    let address = deployment.daemon.address();
    let token = deployment.token(json!({}));
    let tell = "const apply = ({ type, op, new: row }) => console.log(op ?? type, row?.id ?? '');";
    let before = format!("{tell} const token = '{token}'; const rows = new Map();");
    let (streams, polls) = (Folder::new(), Folder::new());
    let mut stream = Page::of_the_guide(&streams, "new EventSource", &before, address);
    let before = format!("{tell} const freshToken = () => '{token}';");
    let mut poll = Page::of_the_guide(&polls, "async function* changes", &before, address);
    stream.prints("snapshot 1").await;
    poll.prints("subscribed ").await;
    for id in 2..5 {
        deployment.execute(&[&format!("INSERT INTO orders VALUES ({id}, 'open')")]).await;
        stream.prints(&format!("insert {id}")).await;
        poll.prints(&format!("insert {id}")).await;
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

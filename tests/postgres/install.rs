//! docs/install.md, followed to the letter: its blocks are run in their order, on a server that has
//! nothing yet, with no more than the ports changed. What it says is printed has to be printed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use walcast::cli::demo::postgres::Listen;
use walcast::cli::demo::postgres::Options;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::free_port;

use crate::commands::Running;
use crate::program::Folder;
use crate::program::printed;
use crate::program::walcast;
use crate::support;

/// A fenced block of the guide.
#[derive(Debug)]
enum Block {
    /// To be run, and to be ended before the next.
    Step(String),
    /// To be run in a terminal of its own.
    Terminal(String),
    /// What the last terminal prints: these keys and values, among others.
    Printed(Vec<Value>),
    /// Whoever follows the guide stops what runs in the other terminals.
    Stop,
}

/// The guide's blocks. Those that are `text` are for a machine that is no test's.
fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        if line == "## Taking it away" {
            blocks.push(Block::Stop);
        }
        let Some(of) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(match of {
            "sh" => Block::Step(body.join("\n")),
            // Signals go to the program, and what it prints comes as it is printed.
            "sh terminal" => {
                let (last, before) = body.split_last().unwrap();
                Block::Terminal(format!("{}\nexec stdbuf -oL {last}", before.join("\n")))
            }
            "json" => {
                let lines = body.iter().map(|line| serde_json::from_str(line).unwrap());
                Block::Printed(lines.collect())
            }
            "text" => continue,
            other => panic!("docs/install.md has a block of {other}"),
        });
    }
    blocks
}

/// The guide, with ports that are free on this machine.
fn guide(server: &PrivateServer) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/install.md");
    let mut guide = fs::read_to_string(path).unwrap();
    let port = || free_port().unwrap().to_string();
    let ports =
        [("5432", server.port().to_string()), ("4480", port()), ("4481", port()), ("4482", port())];
    for (usual, free) in ports {
        assert!(guide.contains(usual), "docs/install.md has no port {usual}");
        guide = guide.replace(usual, &free);
    }
    guide
}

/// Somebody at a machine, who has walcast and a Postgres.
struct Newcomer {
    home: Folder,
    server: PrivateServer,
    terminals: Vec<Running>,
}

impl Newcomer {
    /// A shell in their home, or where the last step left them.
    fn shell(&self, script: &str) -> Command {
        let program = walcast(&[]);
        let programs = Path::new(program.get_program()).parent().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let all = [programs.to_owned()].into_iter().chain(std::env::split_paths(&path));
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", script])
            .env("PATH", std::env::join_paths(all).unwrap())
            .env("HOME", self.home.path(""))
            .env("PGHOST", self.server.socket_folder())
            .env("PGPORT", self.server.port().to_string())
            .env("PGUSER", "postgres")
            .env_remove("NOTIFY_SOCKET")
            .current_dir(self.home.path(""));
        shell
    }

    fn step(&self, step: &str) {
        let stays = format!("cd \"$(cat ~/where)\"\n{step}\npwd > ~/where");
        let output = self.shell(&stays).output().unwrap();
        let printed = printed(&output);
        assert!(output.status.success(), "{step}\n{printed}");
    }

    async fn terminal(&mut self, script: &str) {
        let mut terminal = Running::spawn(self.shell(script));
        if script.contains("walcast serve") {
            terminal.says("accepting clients").await;
        } else {
            let line = terminal.line().await;
            assert!(line.contains(r#""type":"subscribed""#), "{line}");
        }
        self.terminals.push(terminal);
    }

    async fn prints(&mut self, lines: &[Value]) {
        let terminal = self.terminals.last_mut().unwrap();
        for expected in lines {
            let line = terminal.line().await;
            let printed: Value = serde_json::from_str(&line).unwrap();
            for (key, value) in expected.as_object().unwrap() {
                assert_eq!(&printed[key], value, "{key} of {line}");
            }
        }
    }
}

#[tokio::test]
async fn a_newcomer_gets_to_the_first_change_by_the_guide_alone() {
    let options = Options { listen: Listen::Loopback, ..support::options() };
    let server = PrivateServer::start(options).unwrap();
    let guide = guide(&server);
    let home = Folder::new();
    home.write("where", home.path("").display().to_string());
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    std::os::unix::fs::symlink(sql, home.path("sql")).unwrap();
    let mut newcomer = Newcomer { home, server, terminals: Vec::new() };
    let mut seen = 0;
    for block in blocks(&guide) {
        match block {
            Block::Step(step) => newcomer.step(&step),
            Block::Terminal(script) => newcomer.terminal(&script).await,
            Block::Printed(lines) => {
                newcomer.prints(&lines).await;
                seen += lines.len();
            }
            Block::Stop => {
                while let Some(mut terminal) = newcomer.terminals.pop() {
                    terminal.signal("-INT").await;
                    terminal.ended().await;
                }
            }
        }
    }
    assert!(seen > 0, "the guide shows no change");
    assert!(!newcomer.home.path("walcast-try").exists(), "something is left");
}

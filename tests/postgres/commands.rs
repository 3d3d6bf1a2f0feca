//! `walcast serve`, `tail` and `token` as a user runs them.

use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::net::UnixDatagram;
use tokio::process::Child;
use tokio::process::ChildStderr;
use tokio::process::ChildStdout;
use tokio::time::timeout;
use tokio_postgres::Client as Sql;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::program::Folder;
use crate::program::printed;
use crate::program::run;
use crate::program::walcast;
use crate::support;

/// A program that runs; killed when the test is over.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut command = walcast(arguments);
        command.envs(environment.iter().copied());
        Running::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Running { child, stdout, stderr }
    }

    /// The next line on stdout.
    pub(crate) async fn line(&mut self) -> String {
        timeout(DEADLINE, self.stdout.next_line()).await.unwrap().unwrap().unwrap()
    }

    /// Waits for a line on stderr that has `text` in it.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        loop {
            let line = timeout(DEADLINE, self.stderr.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended without saying {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        let mut kill = tokio::process::Command::new("kill");
        assert!(kill.args([signal, &pid]).status().await.unwrap().success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap()
    }
}

/// A database with a table, and a configuration for it.
pub(crate) struct Company {
    pub(crate) sql: Sql,
    pub(crate) folder: Folder,
    /// The database's name, and the slot's.
    name: String,
    /// The client role.
    role: String,
}

impl Company {
    pub(crate) async fn new() -> Company {
        let database = support::database().await;
        let sql = database.connect().await;
        let role = format!("web_{}", database.name);
        let schema = format!(
            "CREATE TABLE orders (id int PRIMARY KEY, customer text, status text); \
             ALTER TABLE orders REPLICA IDENTITY FULL; CREATE ROLE {role} NOLOGIN; \
             GRANT SELECT ON orders TO {role}; CREATE PUBLICATION walcast FOR TABLE orders"
        );
        sql.batch_execute(&schema).await.unwrap();
        let folder = Folder::new();
        folder.write("secret", "a secret of the tests, of thirty-two bytes or more");
        let text = format!(
            "[database]\nurl = '{}'\nslot = '{}'\n[listen]\naddress = '127.0.0.1:0'\n[admin]\naddress = '127.0.0.1:0'\n\
             [auth]\nroles = ['{role}']\nanonymous_role = '{role}'\n\
             [[auth.keys]]\nalgorithm = 'HS256'\nsecret_file = 'secret'\n\
             [[table]]\nname = 'orders'\n\
             policy = \"customer = claims ->> 'sub' or claims ->> 'sub' is null\"\n",
            database.connection_string(),
            database.name,
        );
        folder.write("walcast.toml", text);
        Company { sql, folder, name: database.name, role }
    }

    pub(crate) fn config(&self) -> String {
        self.folder.path("walcast.toml").display().to_string()
    }

    /// Starts `walcast serve`; returns it with its address when it accepts clients.
    async fn serve(&self, address: &str) -> (Running, String) {
        self.serve_with(address, &[]).await
    }

    pub(crate) async fn serve_with(
        &self,
        address: &str,
        environment: &[(&str, &str)],
    ) -> (Running, String) {
        let set = format!("listen.address={address}");
        let arguments = ["serve", "--config", &self.config(), "--set", &set];
        let mut daemon = Running::start(&arguments, environment);
        let line = daemon.says("accepting clients").await;
        let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap();
        (daemon, address.to_owned())
    }

    pub(crate) async fn execute(&self, statements: &[&str]) {
        for statement in statements {
            self.sql.batch_execute(statement).await.unwrap();
        }
    }

    /// Waits until nobody reads the slot.
    async fn slot_is_free(&self) {
        let query = "SELECT active FROM pg_replication_slots WHERE slot_name = $1";
        let free = async {
            while self.sql.query_one(query, &[&self.name]).await.unwrap().get::<_, bool>(0) {}
        };
        timeout(DEADLINE, free).await.unwrap();
    }
}

/// Any port.
const ANY: &str = "127.0.0.1:0";

#[tokio::test]
async fn tail_shows_rows_enter_and_leave_a_filter() {
    let company = Company::new().await;
    let (_daemon, address) = company.serve(ANY).await;
    let url = format!("ws://{address}");
    let condition = "status in ('open','assigned')";
    let arguments = ["tail", "orders", "--where", condition, "--count", "3", "--url", &url];
    let mut tail = Running::start(&arguments, &[]);
    tail.says("subscribed to orders").await;
    company
        .execute(&[
            "INSERT INTO orders VALUES (7, 'ann', 'new')",
            "UPDATE orders SET status = 'open'",
            "UPDATE orders SET status = 'assigned'",
            "UPDATE orders SET status = 'delivered'",
        ])
        .await;
    for expected in
        ["enter   id=7 customer=\"ann\" status=\"open\"", "update  id=7", "leave   id=7"]
    {
        let line = tail.line().await;
        assert!(line.contains(expected), "{line}");
    }
    assert!(tail.ended().await.success());
}

#[tokio::test]
async fn tail_sees_what_its_token_allows() {
    let company = Company::new().await;
    let (_daemon, address) = company.serve(ANY).await;
    let arguments =
        ["token", "--config", &company.config(), "--role", &company.role, "--sub", "ann"];
    let token = run(&arguments);
    assert!(token.status.success(), "{}", printed(&token));
    let file = company.folder.write("token", token.stdout).display().to_string();
    let url = format!("ws://{address}");
    let arguments = ["tail", "orders", "--count", "1", "--url", &url, "--token-file", &file];
    let mut tail = Running::start(&arguments, &[]);
    tail.says("subscribed to orders").await;
    company
        .execute(&[
            "INSERT INTO orders VALUES (1, 'bob', 'new')",
            "INSERT INTO orders VALUES (2, 'ann', 'new')",
        ])
        .await;
    let line = tail.line().await;
    assert!(line.contains("insert  id=2 "), "{line}");
    assert!(tail.ended().await.success());

    let wrong = ["tail", "orders", "--url", &url, "--token", "a.b.c"];
    let mut tail = Running::start(&wrong, &[]);
    tail.says("bad_token").await;
    assert_eq!(tail.ended().await.code(), Some(1));
}

#[tokio::test]
async fn a_stop_sends_clients_away_frees_the_slot_and_tells_systemd() {
    let company = Company::new().await;
    let notified = UnixDatagram::bind(company.folder.path("notify")).unwrap();
    let socket = company.folder.path("notify").display().to_string();
    let environment = [("NOTIFY_SOCKET", socket.as_str()), ("WATCHDOG_USEC", "400000")];
    let (mut daemon, address) = company.serve_with(ANY, &environment).await;
    let told = async |wanted: &str| {
        let mut buffer = [0; 1024];
        let said = async {
            loop {
                let length = notified.recv(&mut buffer).await.unwrap();
                let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                if text.contains(wanted) {
                    return text;
                }
            }
        };
        timeout(DEADLINE, said).await.unwrap()
    };
    told("READY=1").await;
    assert!(told("WATCHDOG=1").await.contains("STATUS=lag 0 B, 0.0 s; 0 clients, 0 behind"));
    let mut client = Client::connect(&format!("ws://{address}/v1/ws")).await;
    client.subscribed(json!({"id": "o", "table": "orders"})).await;
    company.execute(&["INSERT INTO orders VALUES (1, 'ann', 'new')"]).await;
    client.row().await;
    told("; 1 client, 0 behind").await;
    daemon.signal("-TERM").await;
    assert_eq!(client.closed().await, 1012);
    drop(client);
    told("STOPPING=1").await;
    assert_eq!(daemon.ended().await.code(), Some(0));
    company.slot_is_free().await;
}

#[tokio::test]
async fn sighup_reloads_tells_systemd_and_keeps_what_holds_where_the_file_is_bad() {
    let company = Company::new().await;
    let notified = UnixDatagram::bind(company.folder.path("notify")).unwrap();
    let socket = company.folder.path("notify").display().to_string();
    let (mut daemon, address) =
        company.serve_with(ANY, &[("NOTIFY_SOCKET", socket.as_str())]).await;
    let mut buffer = [0; 256];
    let mut heard = async |what: &str| loop {
        let length = timeout(DEADLINE, notified.recv(&mut buffer)).await.unwrap().unwrap();
        let told = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if told.contains(what) {
            return told;
        }
    };
    heard("READY=1").await;
    let mut client = Client::connect(&format!("ws://{address}/v1/ws")).await;
    client.subscribed(json!({"id": "o", "table": "orders"})).await;

    let good = std::fs::read_to_string(company.config()).unwrap();
    company.folder.write("walcast.toml", good.replace("policy = ", "open = true\n# "));
    daemon.signal("-HUP").await;
    let line = daemon.says("the configuration has changed").await;
    assert!(line.contains("table.0.open"), "{line}");
    assert!(heard("RELOADING=1").await.contains("MONOTONIC_USEC="));
    heard("READY=1").await;

    company.folder.write("walcast.toml", good.replace("policy = ", "policy"));
    daemon.signal("-HUP").await;
    let line = daemon.says("a mistake in the configuration").await;
    assert!(line.contains("walcast.toml:") && line.contains("not TOML"), "{line}");
    daemon.says("the configuration was not reloaded").await;
    heard("RELOADING=1").await;
    heard("READY=1").await;
    company.execute(&["INSERT INTO orders VALUES (1, 'ann', 'new')"]).await;
    client.row().await;
}

#[tokio::test]
async fn tail_goes_on_over_a_crash_of_the_daemon_without_a_gap_or_a_repetition() {
    let company = Company::new().await;
    let (mut daemon, address) = company.serve(ANY).await;
    let url = format!("ws://{address}");
    let arguments = ["tail", "orders", "--json", "--count", "40", "--url", &url];
    let mut tail = Running::start(&arguments, &[]);
    tail.says("subscribed to orders").await;
    let insert = async |id: i32| {
        let insert = format!("INSERT INTO orders VALUES ({id}, 'ann', 'new')");
        company.sql.batch_execute(&insert).await.unwrap();
    };
    let mut seen = Vec::new();
    for round in 0..4 {
        for id in 1..=5 {
            insert(round * 10 + id).await;
        }
        // Not all of them: some may be on their way when the daemon dies.
        for _ in 0..3 {
            seen.push(tail.line().await);
        }
        daemon.signal("-KILL").await;
        daemon.ended().await;
        for id in 6..=10 {
            insert(round * 10 + id).await;
        }
        (daemon, _) = company.serve(&address).await;
        while seen.len() < usize::try_from(round * 10 + 10).unwrap() {
            seen.push(tail.line().await);
        }
    }
    let ids: Vec<i64> = seen
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| row["new"]["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids, (1..=40).collect::<Vec<_>>());
    assert!(tail.ended().await.success());
}

#[tokio::test]
async fn a_port_that_another_daemon_listens_on_is_a_clear_error() {
    let company = Company::new().await;
    let (_daemon, address) = company.serve(ANY).await;
    let (listen, slot) = (format!("listen.address={address}"), "database.slot=another");
    let arguments = ["serve", "--config", &company.config(), "--set", &listen, "--set", slot];
    let mut second = Running::start(&arguments, &[]);
    second.says(&format!("walcast: binding {address}")).await;
    second.says("because: Address already in use").await;
    assert_eq!(second.ended().await.code(), Some(1));
}

#[test]
fn a_wrong_configuration_prints_every_mistake() {
    let folder = Folder::new();
    let text = "[database]\nurl = 'postgres://localhost'\nslott = 'x'\n[window]\nseconds = -1\n";
    let file = folder.write("walcast.toml", text);
    let output = run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    let text = printed(&output);
    assert!(text.starts_with("walcast: 4 mistakes in the configuration\n"), "{text}");
    for key in ["database.url", "database.slott", "window.seconds", "auth.keys"] {
        assert!(text.contains(key), "{key}: {text}");
    }
}

#[tokio::test]
async fn a_reload_changes_what_is_logged() {
    let company = Company::new().await;
    let (mut daemon, _address) = company.serve(ANY).await;
    let before = std::fs::read_to_string(company.config()).unwrap();
    let write = |more: &str| std::fs::write(company.config(), format!("{more}{before}")).unwrap();
    // Warnings only: that it was reloaded is told no more.
    write("reload.watch = true\nlog.level = 'warn'\n");
    daemon.signal("-HUP").await;
    daemon.says("asked to reload").await;
    daemon.says("this change waits for the next start").await;
    // It says so again, and all that it says below that.
    write("log.level = 'walcast=debug'\n");
    daemon.signal("-HUP").await;
    let next = daemon.says("the configuration ").await;
    assert!(next.contains("has changed"), "{next}");
    daemon.says("the configuration was reloaded").await;
    daemon.signal("-TERM").await;
    assert!(daemon.ended().await.success());
}

//! The console, as an operator meets it: psql and drivers against a daemon.

mod drivers;
mod follow;
mod login;
mod orders;
mod statements;
mod terminal;

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use tokio::process::Command;
use tokio::time::timeout;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::support;

/// The password of everybody here.
const PASSWORD: &str = "a pass'word";

/// A daemon with a console over TCP and over a Unix socket, where `dba` may do everything and
/// `viewer` may see.
struct Desk {
    deployment: Deployment,
    folder: PathBuf,
}

impl Desk {
    async fn open(plan: Plan<'_>) -> Desk {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("walcast-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // The path of a socket has to be short.
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let database = support::database().await;
        let users = folder.join("users.txt");
        std::fs::write(&users, verifiers(&database).await).unwrap();
        let set = [
            format!("console.socket={}", folder.join(".s.PGSQL.4482").display()),
            "console.address=127.0.0.1:0".to_owned(),
            format!("console.users_file={}", users.display()),
            "console.admin_users=dba".to_owned(),
            "console.stats_users=viewer".to_owned(),
        ];
        let set: Vec<&str> =
            set.iter().map(String::as_str).chain(plan.set.iter().copied()).collect();
        let deployment = Deployment::on(database, Plan { set: &set, ..plan }).await;
        Desk { deployment, folder }
    }

    /// The console's port over TCP.
    fn port(&self) -> u16 {
        self.deployment.daemon.console_address().unwrap().port()
    }

    /// How somebody reaches it over TCP.
    fn over_tcp(&self, user: &str) -> String {
        format!("host=127.0.0.1 port={} user={user} dbname=walcast", self.port())
    }

    /// How somebody reaches it over the Unix socket.
    fn over_socket(&self, user: &str) -> String {
        format!("host={} port=4482 user={user} dbname=walcast", self.folder.display())
    }

    /// What psql prints at a statement of the daemon's own user, without headings.
    async fn psql(&self, statement: &str) -> String {
        let output = psql(&self.over_socket("root"), &["-At", "-c", statement]).await;
        assert!(output.status.success(), "{statement}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs psql.
async fn psql(connection: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("psql");
    command.arg("-X").arg(connection).args(arguments);
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "20").kill_on_drop(true);
    timeout(DEADLINE, command.output()).await.unwrap().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A users' file, with the verifiers as Postgres makes them.
async fn verifiers(database: &support::Database) -> String {
    let sql = database.connect().await;
    let mut file = String::new();
    for user in ["dba", "viewer", "nobody"] {
        let role = format!("console_{user}_{}", database.name);
        let quoted = PASSWORD.replace('\'', "''");
        let create = format!("CREATE ROLE {role} PASSWORD '{quoted}'");
        sql.batch_execute(&create).await.unwrap();
        let question = "SELECT rolpassword FROM pg_authid WHERE rolname = $1";
        let row = sql.query_one(question, &[&role]).await.unwrap();
        file += &format!("\"{user}\" \"{}\"\n", row.get::<_, &str>(0));
    }
    file
}

//! Postgres, and what can be done to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::NoTls;
use walcast::cli::demo::postgres::PrivateServer;
use walcast::cli::demo::postgres::Stop;

use crate::support;

/// The server of a run.
#[derive(Clone)]
pub(crate) struct Server(Arc<PrivateServer>);

impl Server {
    /// Starts one that is durable, and gives up early on a walsender that nobody answers.
    pub(crate) async fn start() -> Server {
        let options = support::options()
            .parameter("fsync", "on")
            .parameter("wal_sender_timeout", "5s")
            .parameter("logical_decoding_work_mem", "64kB")
            .parameter("max_wal_size", "4GB")
            .parameter("deadlock_timeout", "100ms");
        let server = spawn_blocking(|| PrivateServer::start(options).unwrap()).await.unwrap();
        Server(Arc::new(server))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// A connection of the superuser.
    pub(crate) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(&self.0.connection_string("postgres"), NoTls).await?;
        #[expect(clippy::disallowed_methods, reason = "the task ends with its client")]
        tokio::spawn(connection);
        Ok(client)
    }

    /// A connection, as soon as the server gives one.
    pub(crate) async fn connect_soon(&self) -> Client {
        loop {
            match self.connect().await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Stops it and starts it again.
    pub(crate) async fn restart(&self, how: Stop, down: Duration) {
        // Asked to stop fast while it recovers from a crash, Postgres 15 can end its startup process
        // and then wait for ever, with nobody attached.
        if matches!(how, Stop::Fast) {
            let _it_answers = self.connect_soon().await;
        }
        let server = Arc::clone(&self.0);
        spawn_blocking(move || server.stop(how)).await.unwrap().unwrap();
        sleep(down).await;
        self.run().await;
    }

    /// Starts it where it does not run.
    pub(crate) async fn run(&self) {
        let server = Arc::clone(&self.0);
        spawn_blocking(move || server.start_again()).await.unwrap().unwrap();
    }

    /// Stops all of its processes for a while, as a machine does that is moved.
    pub(crate) async fn pause(&self, how_long: Duration) {
        let data = self.0.data_folder();
        pause(&working_in(&data), how_long).await;
    }

    /// Lets commits wait for nobody, until it has worked.
    pub(crate) async fn release_commits(&self) {
        loop {
            let client = self.connect_soon().await;
            let reset = client.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await;
            if reset.is_ok() && reload(&client).await.is_ok() {
                return;
            }
        }
    }

    /// The process of walcast's walsender, if there is one.
    pub(crate) async fn walsender(&self) -> Option<u32> {
        let client = self.connect().await.ok()?;
        let query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'walcast'";
        let row = client.query_opt(query, &[]).await.ok()??;
        u32::try_from(row.get::<_, Option<i32>>(0)?).ok()
    }

    /// The end of the server's log.
    pub(crate) fn log_path(&self) -> std::path::PathBuf {
        self.0.log_path()
    }
}

/// Has the server read its settings again.
pub(crate) async fn reload(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("SELECT pg_reload_conf()").await
}

/// Stops processes for a while. A shell does it, which lets them go on although we are killed.
pub(crate) async fn pause(pids: &[u32], how_long: Duration) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let seconds = how_long.as_secs_f64();
    let pids = pids.join(" ");
    let script =
        format!("kill -STOP {pids} 2>/dev/null; sleep {seconds}; kill -CONT {pids} 2>/dev/null");
    let mut command = Command::new("/bin/sh");
    let _status = command.args(["-c", &script]).process_group(0).status().await.unwrap();
}

/// Kills one process.
pub(crate) async fn kill(pid: u32) {
    let mut command = Command::new("/bin/sh");
    let script = format!("kill -KILL {pid} 2>/dev/null");
    let _status = command.args(["-c", &script]).status().await.unwrap();
}

fn working_in(folder: &std::path::Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let there = |pid: &u32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|working| working == folder)
    };
    pids.filter(there).collect()
}

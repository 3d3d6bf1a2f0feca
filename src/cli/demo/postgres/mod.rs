//! A throw-away Postgres: [`Options`] in, a running [`PrivateServer`] out.
//!
//! `walcast demo`, the tests and the benchmark start their servers here and nowhere else. A server
//! lives in a folder of its own under the temporary folder: `data`, the unix socket, the log.
//!
//! ```text
//! installation   which programs, run as whom
//!      └ template      initdb, or a copy of one that is kept
//!           └ PrivateServer   start, stop, restart, crash
//!                └ guard       stops and removes it when this process is gone, however it went
//! ```
//!
//! # Invariants
//!
//! - Postgres never runs as root: as root everything is started as the user `postgres`.
//! - A server and its folder do not outlive the process that started them, not even when that
//!   process was killed: a guard holds the other end of a pipe and cleans up when it closes.
//!   (Test: `a_server_does_not_outlive_its_process`.)
//! - Nothing here blocks without a deadline.
//!
//! The calls block: use `spawn_blocking`, or a thread, where a runtime must go on meanwhile.

mod options;
mod installation;
mod template;
mod process;
mod error;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

pub use error::ServerError;
pub use installation::Installation;
pub use options::Afterwards;
pub use options::Listen;
pub use options::Options;

/// How long a server may take to become ready, or to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a server's state is looked at while waiting for it.
const GLANCE: Duration = Duration::from_millis(5);

/// How often another port is tried when the one that was free a moment ago is taken.
const PORT_TRIES: usize = 5;

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `pg_ctl stop -m fast`: sessions are cut off, what walsenders have not sent is sent first.
    Fast,
    /// `pg_ctl stop -m immediate`: no checkpoint; the next start recovers from the log.
    Immediate,
    /// `kill -9` for each of its processes, as when the machine fails.
    Kill,
}

/// A throw-away server, running or stopped. Stopped and removed when dropped.
#[derive(Debug)]
pub struct PrivateServer {
    installation: Installation,
    options: Options,
    folder: PathBuf,
    port: u16,
    /// The postmaster, while it is running.
    postmaster: Mutex<Option<Child>>,
    /// Never read; its end of the pipe closes with this process.
    guard: Option<Child>,
}

impl PrivateServer {
    /// Initialises a server and starts it; returns when it accepts connections.
    ///
    /// Takes a fifth of a second with a template, two seconds without.
    ///
    /// # Errors
    ///
    /// [`ServerError`], each case of which says what to do; nothing is left running.
    pub fn start(options: Options) -> Result<PrivateServer, ServerError> {
        let installation = Installation::find(options.binaries.as_deref())?;
        let folder = template::new_folder(&installation)?;
        let guard = process::guard(&folder, options.afterwards)?;
        let server = PrivateServer {
            installation,
            options,
            folder,
            port: 5432,
            postmaster: Mutex::new(None),
            guard: Some(guard),
        };
        template::initialise(&server.installation, &server.options, &server.data_folder())?;
        match server.options.listen {
            Listen::Socket => server.start_again().map(|()| server),
            Listen::Loopback => server.start_at_free_port(),
        }
    }

    /// A port that was free may be taken by the time that Postgres opens it: another one, then.
    fn start_at_free_port(mut self) -> Result<PrivateServer, ServerError> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.port = free_port()?;
            match self.start_again() {
                Ok(()) => return Ok(self),
                Err(ServerError::Program { output, .. })
                    if tries < PORT_TRIES && output.contains("could not create any TCP/IP") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts a stopped server on its old data, socket and port; returns when it accepts
    /// connections, after recovery if that was needed. Nothing happens where it is running.
    ///
    /// # Errors
    ///
    /// [`ServerError::Program`] with the end of the log when Postgres gave up,
    /// [`ServerError::Late`] when it did not become ready.
    pub fn start_again(&self) -> Result<(), ServerError> {
        let mut postmaster = self.postmaster();
        if let Some(child) = postmaster.as_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(());
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .map_err(|source| io_error("open the server's log", source))?;
        let errors = log.try_clone().map_err(|source| io_error("open the server's log", source))?;
        let child = self
            .installation
            .command("postgres", &self.folder)
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|source| io_error("start postgres", source))?;
        let child = postmaster.insert(child);
        let ready = self.wait_until_ready(child);
        if ready.is_err() {
            process::end(child, &self.data_folder());
            *postmaster = None;
        }
        ready
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data_folder().into()];
        let addresses = match self.options.listen {
            Listen::Socket => "",
            Listen::Loopback => "127.0.0.1",
        };
        let mut set = |name: &str, value: &str| {
            arguments.push("-c".into());
            arguments.push(format!("{name}={value}").into());
        };
        set("listen_addresses", addresses);
        set("port", &self.port.to_string());
        set("unix_socket_directories", &self.folder.display().to_string());
        for (name, value) in &self.options.parameters {
            set(name, value);
        }
        arguments
    }

    /// Waits for the state that Postgres writes into `postmaster.pid`, as `pg_ctl` does.
    fn wait_until_ready(&self, child: &mut Child) -> Result<(), ServerError> {
        let deadline = Instant::now() + PATIENCE;
        let file = self.data_folder().join("postmaster.pid");
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                let status = status.to_string();
                let output = self.log_end();
                return Err(ServerError::Program { program: "postgres".into(), status, output });
            }
            if let Ok(text) = fs::read_to_string(&file) {
                let mut lines = text.lines();
                let is_ours = lines.next() == Some(child.id().to_string().as_str());
                if is_ours && lines.nth(6).is_some_and(|state| state.trim() == "ready") {
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                return Err(self.late("ready"));
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Stops the server and waits until all of its processes are gone; it can be started again.
    /// Nothing happens where it is stopped.
    ///
    /// # Errors
    ///
    /// [`ServerError::Late`] when it does not end within a minute; it is killed then.
    pub fn stop(&self, how: Stop) -> Result<(), ServerError> {
        let mut postmaster = self.postmaster();
        let Some(mut child) = postmaster.take() else { return Ok(()) };
        let data = self.data_folder();
        match how {
            Stop::Fast => process::signal("INT", child.id())?,
            Stop::Immediate => process::signal("QUIT", child.id())?,
            Stop::Kill => {
                process::end(&mut child, &data);
                return Ok(());
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                process::end(&mut child, &data);
                return Err(self.late("gone"));
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    ///
    /// As [`PrivateServer::stop`] and [`PrivateServer::start_again`].
    pub fn restart(&self, how: Stop) -> Result<(), ServerError> {
        self.stop(how)?;
        self.start_again()
    }

    /// Has the server read its files again (`pg_hba.conf`, `postgresql.auto.conf`). Postgres takes
    /// a moment for it, and says nothing.
    ///
    /// # Errors
    ///
    /// When the signal can't be sent.
    pub fn reload(&self) -> Result<(), ServerError> {
        self.pid().map_or(Ok(()), |pid| process::signal("HUP", pid))
    }

    /// The process id of the postmaster; absent while it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.postmaster().as_ref().map(Child::id)
    }

    /// The server's port: of TCP, and in the name of the unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the unix socket, which is also the server's own folder.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// The data folder (`PGDATA`).
    #[must_use]
    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The server's log, of all its starts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The programs that it runs from.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// How the superuser reaches `database`, by the unix socket, as `libpq` and `tokio-postgres`
    /// read it (`host=… port=…`).
    #[must_use]
    pub fn connection_string(&self, database: &str) -> String {
        let user = &self.options.superuser;
        self.connection_string_as(user, database)
    }

    /// The same for another user.
    #[must_use]
    pub fn connection_string_as(&self, user: &str, database: &str) -> String {
        let folder = self.folder.display();
        let port = self.port;
        format!("host={folder} port={port} user={user} dbname={database}")
    }

    /// How `user` reaches `database` by TCP, as a URL.
    #[must_use]
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    fn late(&self, state: &'static str) -> ServerError {
        ServerError::Late { state, seconds: PATIENCE.as_secs(), log: self.log_end() }
    }

    /// The last lines of the log.
    fn log_end(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        end_of(&text)
    }

    fn postmaster(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PrivateServer {
    /// Lets the guard do its work now, and waits for it.
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            drop(guard.wait());
        }
        if let Some(mut child) = self.postmaster().take() {
            drop(child.wait());
        }
    }
}

/// A TCP port of 127.0.0.1 that nobody listens on at this moment.
///
/// # Errors
///
/// When the loopback interface has none to give.
pub fn free_port() -> Result<u16, ServerError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|source| io_error("find a free port", source))
}

fn io_error(doing: &str, source: io::Error) -> ServerError {
    ServerError::Io { doing: doing.to_owned(), source }
}

/// The last lines of what a program wrote: enough to see why.
fn end_of(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().rev().take(20).collect();
    lines.reverse();
    lines.join("\n")
}

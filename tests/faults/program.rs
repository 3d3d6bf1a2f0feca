//! The walcast program as a child process, under a supervisor that starts it again, as systemd
//! would.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::process::Child;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::guard::SECRET;
use crate::plan::Profile;
use crate::schema::LEAVES;
use crate::schema::ROLE;
use crate::schema::STAFF;
use crate::schema::TABLES;
use crate::server::pause;

/// Ends the program when the process that started it is gone, however it went.
const GUARD: &str = r#"
trap '' INT TERM HUP
read -r _
pid=$(cat "$1/pid" 2>/dev/null)
[ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$1" ] && kill -KILL "$pid"
rm -rf -- "$1"
"#;

/// The program, which runs until this is dropped.
pub(crate) struct Program {
    /// Where clients connect.
    pub(crate) port: u16,
    pub(crate) folder: Arc<PathBuf>,
    pid: watch::Receiver<Option<u32>>,
    /// How often it ended by itself.
    pub(crate) ended: Arc<Mutex<Vec<String>>>,
    expected: Arc<Mutex<bool>>,
    _guard: std::process::Child,
    _tasks: JoinSet<()>,
}

impl Program {
    /// Starts it, against Postgres at a port of 127.0.0.1.
    pub(crate) fn start(postgres: u16, profile: Profile) -> Program {
        let folder = Arc::new(new_folder());
        let port = walcast::cli::demo::postgres::free_port().unwrap();
        let text = configuration(port, postgres, profile);
        fs::write(folder.join("walcast.toml"), text).unwrap();
        fs::write(folder.join("secret"), SECRET).unwrap();
        let guard = std::process::Command::new("/bin/sh")
            .current_dir("/")
            .args(["-c", GUARD, "walcast-guard"])
            .arg(&*folder)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, pid) = watch::channel(None);
        let (ended, expected) = (Arc::default(), Arc::new(Mutex::new(false)));
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(
            Arc::clone(&folder),
            sender,
            Arc::clone(&ended),
            Arc::clone(&expected),
        ));
        Program { port, folder, pid, ended, expected, _guard: guard, _tasks: tasks }
    }

    /// Sends a signal and waits until another process is there in its place.
    pub(crate) async fn restart(&self, signal: &str) {
        let mut pid = self.pid.clone();
        let Some(before) = *pid.borrow_and_update() else { return };
        *self.expected.lock().unwrap() = true;
        let script = format!("kill -{signal} {before}");
        let _status = Command::new("/bin/sh").args(["-c", &script]).status().await.unwrap();
        let another = pid.wait_for(|now| now.is_some() && *now != Some(before));
        timeout(Duration::from_secs(60), another).await.expect("walcast does not end").unwrap();
    }

    /// Stops it for a while.
    pub(crate) async fn pause(&self, how_long: Duration) {
        let pid = *self.pid.borrow();
        if let Some(pid) = pid {
            pause(&[pid], how_long).await;
        }
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// A folder of the program's own; the guard removes it.
fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("walcast-faults-{}-{count}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

async fn supervise(
    folder: Arc<PathBuf>,
    pid: watch::Sender<Option<u32>>,
    ended: Arc<Mutex<Vec<String>>>,
    expected: Arc<Mutex<bool>>,
) {
    loop {
        let mut child = spawn(&folder);
        fs::write(folder.join("pid"), child.id().unwrap().to_string()).unwrap();
        pid.send_replace(child.id());
        let status = child.wait().await.unwrap();
        pid.send_replace(None);
        if !std::mem::take(&mut *expected.lock().unwrap()) {
            ended.lock().unwrap().push(status.to_string());
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn spawn(folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::from(crate::command::walcast(&["serve", "--config"]));
    command.arg(folder.join("walcast.toml")).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.kill_on_drop(true).spawn().unwrap()
}

fn configuration(port: u16, postgres: u16, profile: Profile) -> String {
    let mut text = format!(
        "[database]\nurl = 'postgres://postgres@127.0.0.1:{postgres}/postgres?sslmode=disable'\n\
         [admin]\naddress = '127.0.0.1:0'\n[listen]\naddress = '127.0.0.1:{port}'\nshards = {}\n\
         [auth]\nroles = ['{ROLE}', '{STAFF}']\nanonymous_role = '{ROLE}'\n\
         [[auth.keys]]\nalgorithm = 'HS256'\nsecret_file = 'secret'\n",
        profile.shards
    );
    let (window, ring) = profile.kept();
    text.push_str(&format!(
        "[window]\nseconds = {}\nbytes = {}\n[ring]\nseconds_max = {}\nbytes_max = {}\n\
         [limits]\nping_seconds = 1\nsilence_seconds = 4\noutbox_bytes_max = {}\n\
         connections_per_address = 0\nhandshakes_per_second_per_address = 0\n\
         [snapshot]\nrows_max = 1000000\nbytes_max = 1073741824\nheld_bytes_max = 4294967296\n",
        window.seconds,
        window.bytes,
        ring.seconds,
        ring.bytes,
        profile.outbox_bytes()
    ));
    for table in TABLES.iter().chain(&LEAVES).chain(&["ledger"]) {
        text.push_str(&format!("[[table]]\nname = 'public.{table}'\nopen = true\n"));
    }
    text
}

/// What is kept of the past, in time and in bytes: the less of the two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) seconds: u64,
    pub(crate) bytes: u64,
}

impl Profile {
    /// The window and the ring.
    pub(crate) fn kept(self) -> (Kept, Kept) {
        if self.tight {
            (Kept { seconds: 10, bytes: 8 << 20 }, Kept { seconds: 20, bytes: 8 << 20 })
        } else {
            (Kept { seconds: 60, bytes: 64 << 20 }, Kept { seconds: 600, bytes: 128 << 20 })
        }
    }

    fn outbox_bytes(self) -> u64 {
        if self.tight { 16 << 10 } else { 1 << 20 }
    }
}

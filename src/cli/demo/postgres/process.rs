//! The processes of a private server: signals, ends, and the guard that outlives us.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use tokio::time::Instant;

use super::Afterwards;
use super::GLANCE;
use super::PATIENCE;
use super::ServerError;
use super::io_error;

/// Waits until the pipe on its input closes, which happens when the process that started it drops
/// the server or is gone; then stops the postmaster and removes the folder.
///
/// The process id in `postmaster.pid` may be stale, and belong to someone else by now: the
/// postmaster is the one whose working folder is the data folder. Removing is tried again, because an
/// `initdb` or `cp` that lost its parent may go on for a moment.
///
/// Runs as this process does, not as the server: a copy that was cut off is not the server's yet.
const GUARD: &str = r#"
trap '' INT TERM HUP
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
alive() { [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; }
alive "$1" && kill -QUIT "$pid"
rounds=0
while alive "$1"; do
    rounds=$((rounds + 1))
    [ "$rounds" -eq 500 ] && kill -KILL "$pid"
    sleep 0.02
done
[ "$2" = remove ] || exit 0
rounds=0
while [ -e "$1" ] && [ "$rounds" -lt 500 ]; do
    rm -rf -- "$1"
    rounds=$((rounds + 1))
    sleep 0.02
done
exit 0
"#;

/// Starts the guard of the server in `folder`.
pub(super) fn guard(folder: &Path, afterwards: Afterwards) -> Result<Child, ServerError> {
    let afterwards = match afterwards {
        Afterwards::Remove => "remove",
        Afterwards::Keep => "keep",
    };
    Command::new("/bin/sh")
        .current_dir("/")
        .process_group(0)
        .args(["-c", GUARD, "walcast-guard"])
        .arg(folder)
        .arg(afterwards)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| io_error("start /bin/sh to guard the server", source))
}

/// Sends a signal; `name` as `kill` knows it, without `SIG`.
pub(super) fn signal(name: &str, pid: u32) -> Result<(), ServerError> {
    let output = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
        .output()
        .map_err(|source| io_error("run kill", source))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServerError::Program {
        program: format!("kill -s {name}"),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Kills the postmaster and whatever else works in the data folder, and waits until they are gone:
/// their shared memory would keep the server from starting again.
pub(super) fn end(postmaster: &mut Child, data: &Path) {
    drop(postmaster.kill());
    drop(postmaster.wait());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = working_in(data);
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        for pid in left {
            // One that has just ended is as good as killed.
            drop(signal("KILL", pid));
        }
        std::thread::sleep(GLANCE);
    }
}

/// The processes whose working folder is `folder`.
fn working_in(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder))
        .collect()
}

//! Which Postgres programs this machine has, and as whom they may be run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use super::ServerError;

/// Folders with one sub-folder per installed version.
const VERSIONED: &[(&str, &str)] = &[("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// Server programs, and the user that runs them.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Absent: the programs are found by `PATH`.
    folder: Option<PathBuf>,
    /// Absent: as this process's own user.
    user: Option<User>,
}

/// A user of the operating system.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Installation {
    /// Finds the server programs: in `chosen` where that is given (and nowhere else then), else the
    /// newest of the packaged ones, else those in `PATH`.
    ///
    /// # Errors
    ///
    /// [`ServerError`], when there are none, or when this process is root and there is nobody to
    /// run them as.
    pub fn find(chosen: Option<&Path>) -> Result<Installation, ServerError> {
        let user = if is_root() { Some(postgres_user().ok_or(ServerError::NoUser)?) } else { None };
        if let Some(folder) = chosen {
            if !holds_server(folder) {
                return Err(ServerError::NotThere { folder: folder.to_owned() });
            }
            return Ok(Installation { folder: Some(folder.to_owned()), user });
        }
        if let Some(folder) = newest_packaged() {
            return Ok(Installation { folder: Some(folder), user });
        }
        let installation = Installation { folder: None, user };
        installation.version().map(|_| installation).ok_or(ServerError::NotInstalled)
    }

    /// What `postgres --version` says, `postgres (PostgreSQL) 15.14 (Debian …)`; absent where it
    /// can't be run.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        let output = self.command("postgres", Path::new("/")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    }

    /// A program of this installation, run as the right user in `folder`, in a process group of its
    /// own, so that a Ctrl-C at the terminal does not reach it before us.
    pub(super) fn command(&self, program: &str, folder: &Path) -> Command {
        let mut command = match &self.folder {
            Some(binaries) => Command::new(binaries.join(program)),
            None => Command::new(program),
        };
        command.current_dir(folder).process_group(0).stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    pub(super) fn user(&self) -> Option<User> {
        self.user
    }
}

/// Whether this process may do everything: `/proc/self` belongs to its effective user.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn postgres_user() -> Option<User> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_postgres = fields.next() == Some("postgres");
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        is_postgres.then_some(User { uid, gid })
    })
}

fn holds_server(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

fn newest_packaged() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in VERSIONED {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix));
            let version = version.and_then(|version| version.parse().ok());
            let folder = entry.path().join("bin");
            if let Some(version) = version
                && holds_server(&folder)
            {
                found.push((version, folder));
            }
        }
    }
    found.into_iter().max().map(|(_, folder)| folder)
}

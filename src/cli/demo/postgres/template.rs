//! Data folders: made by `initdb`, or copied from one that was.
//!
//! Tests that run side by side in several processes share the templates: a file lock lets one of
//! them run `initdb` while the others wait, and a template appears under its name only when it is
//! whole.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hash;
use std::hash::Hasher;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::Installation;
use super::Options;
use super::ServerError;
use super::end_of;
use super::io_error;

/// Makes a server's folder under the temporary folder, for nobody but the user who runs it.
pub(super) fn new_folder(installation: &Installation) -> Result<PathBuf, ServerError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let parent = std::env::temp_dir();
    // The guard compares paths with those of /proc, which have no symbolic links in them.
    let parent = fs::canonicalize(&parent).unwrap_or(parent);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("walcast-postgres-{}-{count}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {
                own(installation, &folder)?;
                return Ok(folder);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(io_error(&format!("make {}", folder.display()), source)),
        }
    }
}

fn own(installation: &Installation, path: &Path) -> Result<(), ServerError> {
    let Some(user) = installation.user() else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
        .map_err(|source| io_error(&format!("give {} to its user", path.display()), source))
}

/// Makes the data folder, which must not be there.
pub(super) fn initialise(
    installation: &Installation,
    options: &Options,
    data: &Path,
) -> Result<(), ServerError> {
    let Some(templates) = &options.templates else { return initdb(installation, options, data) };
    let doing = |what: &str| format!("{what} {}", templates.display());
    fs::create_dir_all(templates).map_err(|source| io_error(&doing("make"), source))?;
    let template = templates.join(template_name(installation, options));
    let lock = fs::File::create(template.with_extension("lock"))
        .map_err(|source| io_error(&doing("make a lock file in"), source))?;
    lock.lock().map_err(|source| io_error(&doing("lock a file in"), source))?;
    if template.is_dir() {
        drop(lock);
        return copy(&template, data);
    }
    // The user who runs Postgres may have no way into the folder of the templates, so `initdb`
    // works where the server will, and the template is a copy of that.
    initdb(installation, options, data)?;
    let partial = template.with_extension("partial");
    drop(fs::remove_dir_all(&partial));
    copy(data, &partial)?;
    fs::rename(&partial, &template).map_err(|source| io_error(&doing("rename in"), source))
}

/// Different for all that `initdb` decides.
fn template_name(installation: &Installation, options: &Options) -> String {
    let mut hasher = DefaultHasher::new();
    installation.version().hash(&mut hasher);
    installation.user().map(|user| user.uid).hash(&mut hasher);
    options.superuser.hash(&mut hasher);
    options.locale.hash(&mut hasher);
    format!("postgres-{:016x}", hasher.finish())
}

fn initdb(installation: &Installation, options: &Options, data: &Path) -> Result<(), ServerError> {
    let folder = data.parent().unwrap_or(data);
    let mut command = installation.command("initdb", folder);
    command
        .arg("-D")
        .arg(data)
        .args(["--username", &options.superuser])
        .args(["--locale", &options.locale])
        .args(["--encoding", "UTF8", "--auth", "trust", "--no-sync", "--no-instructions"]);
    run("initdb", &mut command)
}

/// Copies a folder with all that is in it, owners and permissions included.
fn copy(from: &Path, to: &Path) -> Result<(), ServerError> {
    run("cp", Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to))
}

fn run(program: &str, command: &mut Command) -> Result<(), ServerError> {
    let output = command.output().map_err(|source| io_error(&format!("run {program}"), source))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServerError::Program {
        program: program.to_owned(),
        status: output.status.to_string(),
        output: both(&output),
    })
}

fn both(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    end_of(&String::from_utf8_lossy(&text))
}

//! What the operating system says of this process. Linux tells it in files; where one can't be read
//! the value is left out.
//!
//! What is asked again and again is read from files that stay open: it is told as well where the
//! process has no descriptor left, which is when it is looked at.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::process::Resource;
use rustix::process::getrlimit;

/// A second has so many of what Linux counts processor time in, on every machine.
const TICKS: u64 = 100;
/// Longer than the files are.
const LENGTH_MAX: usize = 4096;

static STATUS: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/status").ok());
static STAT: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/stat").ok());
static BEGAN_AT: LazyLock<Option<Duration>> = LazyLock::new(find_began_at);

/// Opens what is read later on.
pub(super) fn open() {
    LazyLock::force(&STATUS);
    LazyLock::force(&STAT);
    LazyLock::force(&BEGAN_AT);
}

/// Memory that is in use, in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = read(&STATUS)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

/// Files that are open, sockets among them.
pub(super) fn open_files() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    // Linux 6.2 and later say it without a look at each.
    let told = fs::metadata(FOLDER).ok()?.len();
    if told > 0 {
        return Some(told);
    }
    match fs::read_dir(FOLDER) {
        // One is the folder itself.
        Ok(open) => u64::try_from(open.count()).ok()?.checked_sub(1),
        // There is none left for it.
        Err(_) => open_files_max(),
    }
}

/// How many may be.
pub(super) fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Processor time used.
pub(super) fn processor_time() -> Option<Duration> {
    let fields = stat()?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Threads.
pub(super) fn threads() -> Option<u64> {
    stat()?.get(17)?.parse().ok()
}

/// When it began, as the time since 1970.
pub(super) fn began_at() -> Option<Duration> {
    *BEGAN_AT
}

fn find_began_at() -> Option<Duration> {
    let ticks: u64 = stat()?.get(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let booted = Duration::from_secs(booted.trim().parse().ok()?);
    Some(booted + Duration::from_millis(ticks * 1000 / TICKS))
}

/// The fields of `/proc/self/stat` after the name, which may hold anything.
fn stat() -> Option<Vec<String>> {
    let stat = read(&STAT)?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// What a file says now.
fn read(file: &Option<File>) -> Option<String> {
    let mut bytes = vec![0; LENGTH_MAX];
    let length = file.as_ref()?.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(length);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn this_process_is_known() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(open_files().unwrap() >= 3);
        assert!(open_files_max().unwrap() >= open_files().unwrap());
        assert!(threads().unwrap() >= 1);
        assert!(processor_time().unwrap() < Duration::from_hours(1));
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let age = now.saturating_sub(began_at().unwrap());
        assert!(age < Duration::from_hours(1), "{age:?}");
    }
}

//! What the operating system says of this process. Linux tells it in files; where one can't be read
//! the value is left out.

use std::fs;
use std::time::Duration;

/// A second has so many of what Linux counts processor time in, on every machine.
const TICKS: u64 = 100;

/// Memory that is in use, in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

/// Files that are open, sockets among them.
pub(super) fn open_files() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // One is the folder itself.
    u64::try_from(open).ok()?.checked_sub(1)
}

/// How many may be.
pub(super) fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
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
    let ticks: u64 = stat()?.get(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let booted = Duration::from_secs(booted.trim().parse().ok()?);
    Some(booted + Duration::from_millis(ticks * 1000 / TICKS))
}

/// The fields of `/proc/self/stat` after the name, which may hold anything.
fn stat() -> Option<Vec<String>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
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

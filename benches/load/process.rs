//! Children that end with us, and what processes cost, from `/proc`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::process::Child;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

use crate::Fallible;

/// How long a child may take to end after it was asked to.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A command whose process the kernel kills should ours die without having stopped it.
pub(crate) fn guarded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A child process. Dropping it asks it to end, waits, and kills it when that takes too long.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts `command`.
    pub(crate) fn start(command: &mut Command) -> Fallible<Process> {
        let child = command.spawn();
        Ok(Process(child.map_err(|error| format!("{}: {error}", describe(command)))?))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// An error when the process has ended by itself.
    pub(crate) fn check(&mut self) -> Fallible<()> {
        match self.0.try_wait()? {
            Some(status) => Err(format!("the server ended with {status}; see its log").into()),
            None => Ok(()),
        }
    }

    /// Sends `signal`.
    pub(crate) fn signal(&self, signal: Signal) -> Fallible<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let asked = Instant::now();
        // A stopped process cannot end; the second signal lets it see the first.
        let _ = self.signal(Signal::TERM);
        let _ = self.signal(Signal::CONT);
        while asked.elapsed() < END_WITHIN {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn describe(command: &Command) -> String {
    format!("{} {:?}", command.get_program().display(), command.get_args().collect::<Vec<_>>())
}

/// What a process and its descendants have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time, in seconds, that of descendants already waited for included.
    pub(crate) cpu_seconds: f64,
    /// Resident memory now.
    pub(crate) resident_kib: u64,
}

/// Sums up `root` and all its descendants.
pub(crate) fn usage(root: u32) -> Usage {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut cpu: HashMap<u32, f64> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(stat) = Stat::read(id) {
            children.entry(stat.parent).or_default().push(id);
            cpu.insert(id, stat.own_seconds + stat.waited_seconds);
        }
    }
    let mut sum = Usage::default();
    let mut left = vec![root];
    while let Some(id) = left.pop() {
        if let Some(seconds) = cpu.get(&id) {
            sum.cpu_seconds += seconds;
            sum.resident_kib += resident_kib(id);
        }
        left.extend(children.remove(&id).unwrap_or_default());
    }
    sum
}

/// CPU seconds of this process, without its children.
pub(crate) fn own_cpu_seconds() -> f64 {
    Stat::read(std::process::id()).map_or(0.0, |stat| stat.own_seconds)
}

/// CPU seconds of those children of this process that have ended and were waited for.
pub(crate) fn waited_cpu_seconds() -> f64 {
    Stat::read(std::process::id()).map_or(0.0, |stat| stat.waited_seconds)
}

/// CPU seconds of the whole machine that were not idle, since it started.
pub(crate) fn machine_cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = ticks.take(8).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy: f64 =
        ticks.iter().enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|t| t.1).sum();
    busy / ticks_per_second()
}

struct Stat {
    parent: u32,
    own_seconds: f64,
    waited_seconds: f64,
}

impl Stat {
    fn read(id: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name in parentheses may hold anything; the fields begin after it, with the third.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let seconds = |at: usize| -> Option<f64> {
            let ticks: f64 = fields.get(at)?.parse().ok()?;
            Some(ticks / ticks_per_second())
        };
        Some(Stat {
            parent: fields.get(1)?.parse().ok()?,
            own_seconds: seconds(11)? + seconds(12)?,
            waited_seconds: seconds(13)? + seconds(14)?,
        })
    }
}

fn resident_kib(id: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

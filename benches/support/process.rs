//! A child process, and what /proc says of its CPU and memory.
//!
//! The child is ended by its own id and never outlives the bench. CPU is user plus system time of
//! all its threads, also of those that have ended, with the kernel's resolution of 10 ms.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::failure::{Failure, io};

/// Microseconds per tick of /proc/PID/stat: USER_HZ is 100 on every Linux that Rust runs on.
const TICK_MICROS: u64 = 10_000;
/// How long a process may take to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A running child.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`, with its output in the file `said`.
    pub(crate) fn start(mut command: Command, said: fs::File) -> Result<Self, Failure> {
        let out = said.try_clone().map_err(io("share a file"))?;
        command.stdin(Stdio::null()).stdout(out).stderr(said);
        Ok(Self { child: command.spawn().map_err(io("start a broker"))? })
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// CPU time of all its threads so far, in microseconds.
    pub(crate) fn cpu_micros(&self) -> Result<u64, Failure> {
        cpu_micros(&self.child.id().to_string())
    }

    /// Resident memory now, in bytes.
    pub(crate) fn rss_bytes(&self) -> Result<u64, Failure> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).map_err(io("read /proc"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: Option<u64> = kib.and_then(|kib| kib.trim().parse().ok());
        kib.map(|kib| kib * 1024).ok_or(Failure::Proc)
    }

    /// Asks it to end, and sees to it.
    pub(crate) fn stop(mut self) {
        let Some(pid) =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
        else {
            return;
        };
        // A failure means that it has ended already; dropping reaps it.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while self.runs() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// CPU time of this process so far, in microseconds.
pub(crate) fn own_cpu_micros() -> Result<u64, Failure> {
    cpu_micros("self")
}

fn cpu_micros(pid: &str) -> Result<u64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(io("read /proc"))?;
    // The name in parentheses may hold anything; after it come state, ppid, … utime is the 12th.
    let (_, rest) = stat.rsplit_once(')').ok_or(Failure::Proc)?;
    let mut ticks = rest.split_ascii_whitespace().skip(11).map_while(|n| n.parse::<u64>().ok());
    let (utime, stime) = ticks.next().zip(ticks.next()).ok_or(Failure::Proc)?;
    Ok((utime + stime) * TICK_MICROS)
}

/// Puts the bench itself on the second core, away from the broker; says whether that worked.
pub(crate) fn pin_generator() -> bool {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return false;
    }
    let pid = std::process::id().to_string();
    let taskset = Command::new("taskset").args(["-cp", "1", &pid]).stdout(Stdio::null()).status();
    taskset.is_ok_and(|status| status.success())
}

/// A command that runs `program` on the first core if `pinned`.
pub(crate) fn on_first_core(program: &str, pinned: bool) -> Command {
    if !pinned {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]);
    command
}

/// Lets this process hold as many connections as the system allows.
pub(crate) fn raise_open_files() -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|errno| io("raise RLIMIT_NOFILE")(errno.into()))
}

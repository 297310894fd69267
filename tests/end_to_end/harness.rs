//! One plant per test: a directory made by `avow init`, clients added by `avow device add`, the
//! built binary serving it on loopback.
//!
//! The broker is a child process that is killed, by its id, when its [`Broker`] is dropped, also
//! when a test fails. Every wait has an end.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest time for a broker to serve, or to end.
const SERVING_WITHIN: Duration = Duration::from_secs(20);
/// Longest time for any other command.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn avow() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avow"));
    command.stdin(Stdio::null()).env_remove("AVOW_DIR").env("NO_COLOR", "1");
    command
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Both streams, for searching.
    pub(crate) fn all(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }
}

/// Runs a command to its end, which must come within a minute.
pub(crate) fn run(command: &mut Command) -> Said {
    run_within(command, COMMAND_WITHIN)
}

/// Runs a command to its end, which must come in time.
pub(crate) fn run_within(command: &mut Command, within: Duration) -> Said {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let id = rustix::process::Pid::from_child(&child);
    let (sender, ended) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    let Ok(output) = ended.recv_timeout(within) else {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        let _ = waiting.join();
        panic!("{command:?} did not end within {within:?}");
    };
    let Output { status, stdout, stderr } = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// A port of the loopback that nobody listens on. Below the range that the system gives to
/// outgoing connections, so that none of ours can take it before the broker does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    let spread = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (spread.wrapping_mul(7).wrapping_add(step)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A client's credentials, as `device add` wrote them.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
}

impl Bundle {
    pub(crate) fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.dir.join(file)).unwrap()
    }
}

/// A broker's directory.
pub(crate) struct Plant {
    root: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) metrics_port: u16,
}

impl Plant {
    /// Makes one with the shipped configuration and small segments.
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("avow-plant-").tempdir().unwrap();
        let plant = Self { root, port: free_port(), metrics_port: free_port() };
        let listen = format!("127.0.0.1:{}", plant.port);
        let mut init = avow();
        init.arg("init").arg(plant.dir()).args(["--name", "plant-1", "--listen", &listen]);
        run(&mut init).exits(0);
        // Small segments, so that a test fills several; the log that `init` began has a large one
        // already, so ours begins elsewhere.
        let metrics = format!("127.0.0.1:{}", plant.metrics_port);
        plant.set("127.0.0.1:9464", &metrics);
        plant.set("segment_bytes = \"64 MiB\"", "segment_bytes = \"1 MiB\"");
        plant.set("backlog_bytes_max = \"16 MiB\"", "backlog_bytes_max = \"512 KiB\"");
        plant.set("directory = \"log\"", "directory = \"evidence\"");
        plant
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("plant")
    }

    /// A file or directory beside the plant's own.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Replaces a text of `avow.toml`, which must be there.
    #[track_caller]
    pub(crate) fn set(&self, from: &str, to: &str) {
        self.edit("avow.toml", |text| text.replacen(from, to, 1));
    }

    /// Changes a file of the directory, which must differ afterwards.
    #[track_caller]
    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(&str) -> String) {
        let path = self.dir().join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        let after = change(&before);
        assert_ne!(before, after, "nothing was changed in {file}");
        std::fs::write(path, after).unwrap();
    }

    /// Writes a file of the directory.
    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir().join(file), text).unwrap();
    }

    /// `avow --dir DIR …`
    pub(crate) fn avow(&self, arguments: &[&str]) -> Command {
        let mut command = avow();
        command.arg("--dir").arg(self.dir()).args(arguments);
        command
    }

    /// Adds a device.
    pub(crate) fn device(&self, name: &str) -> Bundle {
        self.add("device", name)
    }

    /// Adds a dashboard.
    pub(crate) fn dashboard(&self, name: &str) -> Bundle {
        self.add("dashboard", name)
    }

    fn add(&self, role: &str, name: &str) -> Bundle {
        let dir = self.beside(&format!("{role}-{name}"));
        run(self.avow(&[role, "add", name, "--out"]).arg(&dir)).exits(0);
        Bundle { name: name.to_owned(), dir }
    }

    /// `avow audit verify`.
    pub(crate) fn audit_verify(&self) -> Said {
        run(&mut self.avow(&["audit", "verify"]))
    }

    /// `avow audit query --json …`: one entry per line. It exits 1 when nothing fits.
    #[track_caller]
    pub(crate) fn query(&self, arguments: &[&str]) -> Vec<Value> {
        let mut command = self.avow(&["audit", "query", "--json"]);
        let said = run(command.args(arguments));
        assert!(matches!(said.code, Some(0 | 1)), "{said:#?}");
        let lines = said.out.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Serves, and waits until it does.
    pub(crate) fn serve(&self) -> Broker {
        self.start().serving_within(SERVING_WITHIN)
    }

    /// Serves with these variables in the environment.
    pub(crate) fn serve_with(&self, environment: &[(&str, &OsStr)]) -> Broker {
        self.start_with(environment).serving_within(SERVING_WITHIN)
    }

    /// Starts the broker, which does not serve yet.
    pub(crate) fn start(&self) -> Broker {
        self.start_with(&[])
    }

    fn start_with(&self, environment: &[(&str, &OsStr)]) -> Broker {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.beside("serve.log"))
            .unwrap();
        let child = self
            .avow(&["serve"])
            .envs(environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the broker starts");
        Broker {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, self.metrics_port)),
            log: self.beside("serve.log"),
        }
    }
}

/// A broker that runs.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    log: PathBuf,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    /// What it wrote so far, of all its runs.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it serves.
    #[track_caller]
    pub(crate) fn serving_within(mut self, within: Duration) -> Self {
        let began = Instant::now();
        while !self.is_healthy() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the broker ended with {status}:\n{}", self.said());
            }
            let waited = began.elapsed();
            assert!(waited < within, "no broker after {waited:?}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }

    /// The first answer of `/healthz`.
    #[track_caller]
    pub(crate) fn health_within(&self, within: Duration) -> String {
        let began = Instant::now();
        loop {
            if let Some(answer) = get(self.metrics, "/healthz") {
                return answer;
            }
            assert!(began.elapsed() < within, "no answer:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether `/healthz` answers 200.
    pub(crate) fn is_healthy(&self) -> bool {
        get(self.metrics, "/healthz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    /// Fails unless the process lives and says that it is well.
    #[track_caller]
    pub(crate) fn lives(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it died:\n{}", self.said());
        assert!(self.is_healthy(), "it is not healthy:\n{}", self.said());
    }

    /// The value of the one sample called `name` (with its labels); 0 if there is none.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = get(self.metrics, "/metrics").expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.trim().parse().expect("a whole number"))
    }

    /// Resident memory of the process, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits until [`Self::metric`] is `at_least`.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, name: &str, at_least: u64) {
        let began = Instant::now();
        while self.metric(name) < at_least {
            let waited = began.elapsed();
            assert!(waited < SERVING_WITHIN, "{name} is {} after {waited:?}", self.metric(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it in order.
    pub(crate) fn stop(self) -> ExitStatus {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.ended_within(SERVING_WITHIN)
    }

    /// Waits until it has ended.
    pub(crate) fn ended_within(mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            let waited = began.elapsed();
            assert!(waited < within, "it did not end in {waited:?}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An HTTP GET; `None` if nobody answers.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let within = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, within).ok()?;
    stream.set_read_timeout(Some(within)).ok()?;
    let mut request = String::new();
    write!(request, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The path of a file of this test's directory.
pub(crate) fn beside_this(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end").join(file)
}

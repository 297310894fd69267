//! The brokers of a run: Mosquitto as a distribution ships it, and Avow as `avow init` makes it.
//!
//! Both take mutual TLS 1.3 only and authorise by the certificate's name. Mosquitto keeps nothing;
//! Avow has policy, limits, schema and durable evidence on, and its scratch directory lies in
//! `target/tmp`, so that its syncs reach a disk. Limits are raised above the load, never off.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::failure::{Failure, io};
use super::pki::Pki;
use super::process::{Process, on_first_core};

/// How long a broker may take until it listens.
const START_MAX: Duration = Duration::from_secs(20);

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mosquitto,
    Avow,
}

/// What a bench permits beside what every plant permits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Permits {
    /// Rules at the end of Avow's policy.
    pub(crate) policy: &'static str,
    /// Lines at the end of Mosquitto's access list.
    pub(crate) acl: &'static str,
}

/// A broker that listens.
pub(crate) struct Broker {
    kind: Kind,
    address: SocketAddr,
    pki: Pki,
    process: Process,
    scratch: TempDir,
}

impl Kind {
    /// Starts it; nothing if it is not installed. Dashboards are `wall-0` to `wall-{dashboards}`.
    pub(crate) fn start(
        self,
        pinned: bool,
        dashboards: usize,
        permits: Permits,
    ) -> Result<Option<Broker>, Failure> {
        let scratch = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .map_err(io("make a scratch directory"))?;
        let address = free_address()?;
        let (pki, command) = match self {
            Self::Mosquitto => {
                let Some(program) = mosquitto() else { return Ok(None) };
                let pki = Pki::create()?;
                let config =
                    write_mosquitto(scratch.path(), address, &pki, (dashboards, permits.acl))?;
                let mut command = on_first_core(&program, pinned);
                command.arg("-c").arg(config);
                (pki, command)
            }
            Self::Avow => {
                let dir = scratch.path().join("plant");
                init_avow(&dir, address, permits.policy)?;
                let mut command = on_first_core(env!("CARGO_BIN_EXE_avow"), pinned);
                command.arg("--dir").arg(&dir).arg("serve");
                (Pki::open(&dir)?, command)
            }
        };
        let said = fs::File::create(scratch.path().join("said")).map_err(io("make a file"))?;
        let process = Process::start(command, said)?;
        let mut broker = Broker { kind: self, address, pki, process, scratch };
        broker.wait_until_it_listens()?;
        Ok(Some(broker))
    }

    /// What it is called in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Avow => "avow",
        }
    }
}

impl Broker {
    pub(crate) const fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) const fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The origin of Avow's log.
    pub(crate) fn origin(&self) -> Result<String, Failure> {
        let path = self.scratch.path().join("plant/avow.toml");
        let config = fs::read_to_string(path).map_err(io("read avow.toml"))?;
        let lines = config.lines().filter_map(|line| line.split_once(" = "));
        let origin = lines.into_iter().find(|(name, _)| *name == "origin");
        origin
            .map(|(_, value)| value.trim_matches('"').to_owned())
            .ok_or(Failure::NoField("origin"))
    }

    /// Avow's directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.scratch.path().join("plant")
    }

    pub(crate) const fn process(&self) -> &Process {
        &self.process
    }

    /// Fails with its last words if it has ended.
    pub(crate) fn require_running(&mut self) -> Result<(), Failure> {
        if self.process.runs() {
            return Ok(());
        }
        Err(Failure::Ended(self.name(), self.last_words()))
    }

    /// Ends it. Avow's log must then verify, and hold an entry for each of `published` messages.
    pub(crate) fn stop(self, published: u64) -> Result<(), Failure> {
        self.process.stop();
        if self.kind == Kind::Mosquitto {
            return Ok(());
        }
        let dir = self.scratch.path().join("plant");
        let mut command = Command::new(env!("CARGO_BIN_EXE_avow"));
        command.arg("--dir").arg(dir).args(["audit", "verify", "--json"]);
        let output = command.output().map_err(io("run avow audit verify"))?;
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let size = serde_json::from_str::<serde_json::Value>(&report).ok();
        let size = size.and_then(|report| report.get("signed_entries")?.as_u64());
        if output.status.success() && size.is_some_and(|size| size >= published) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::Audit(published, format!("{report}{said}")))
    }

    fn wait_until_it_listens(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_MAX;
        while !self.serves() {
            self.require_running()?;
            if Instant::now() >= deadline {
                return Err(Failure::NotListening(self.name(), self.last_words()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether clients are let in: Avow listens before it does, and says when.
    fn serves(&self) -> bool {
        match self.kind {
            Kind::Mosquitto => TcpStream::connect(self.address).is_ok(),
            Kind::Avow => {
                let said = fs::read_to_string(self.scratch.path().join("said"));
                said.is_ok_and(|said| said.lines().any(|line| line.contains(" ready ")))
            }
        }
    }

    fn last_words(&self) -> String {
        let said = fs::read(self.scratch.path().join("said")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<&str> = said.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

fn free_address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io("find a free port"))?;
    listener.local_addr().map_err(io("find a free port"))
}

/// Mosquitto, from the environment or where Debian and Homebrew put it.
fn mosquitto() -> Option<String> {
    let asked = std::env::var("AVOW_BENCH_MOSQUITTO").ok();
    let known =
        ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"];
    asked.into_iter().chain(known.map(str::to_owned)).find(|path| Path::new(path).exists())
}

fn write_mosquitto(
    dir: &Path,
    address: SocketAddr,
    pki: &Pki,
    (dashboards, more): (usize, &str),
) -> Result<PathBuf, Failure> {
    use std::fmt::Write as _;

    let server = pki.server()?;
    let mut acl = format!("pattern write plant/%u/telemetry/#\n{more}");
    for index in 0..dashboards {
        let _infallible = writeln!(acl, "user wall-{index}\ntopic read plant/#");
    }
    let shown = dir.display();
    // Root gives up its rights otherwise, and with them the scratch directory.
    let config = format!(
        "user root\nlistener {} {}\ncafile {shown}/ca.pem\ncertfile {shown}/server.pem\n\
         keyfile {shown}/server.key\nrequire_certificate true\nuse_identity_as_username true\n\
         tls_version tlsv1.3\nallow_anonymous false\nacl_file {shown}/acl\npersistence false\n\
         max_queued_messages 0\nset_tcp_nodelay true\nlog_dest stderr\nlog_type error\n\
         log_type warning\n",
        address.port(),
        address.ip()
    );
    for (name, text) in [
        ("ca.pem", pki.ca_pem()),
        ("server.pem", &server.certificate_pem),
        ("server.key", &server.key_pem),
        ("acl", &acl),
        ("mosquitto.conf", &config),
    ] {
        fs::write(dir.join(name), text).map_err(io("write Mosquitto's files"))?;
    }
    Ok(dir.join("mosquitto.conf"))
}

fn init_avow(dir: &Path, address: SocketAddr, rules: &str) -> Result<(), Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avow"));
    command.arg("init").arg(dir).args(["--listen", &address.to_string()]);
    let output = command.output().map_err(io("run avow init"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::Command { program: "avow".into(), verb: "init", stderr });
    }
    let path = dir.join("policy.toml");
    let policy = fs::read_to_string(&path).map_err(io("read policy.toml"))?;
    fs::write(&path, policy + rules).map_err(io("write policy.toml"))?;
    let path = dir.join("avow.toml");
    let mut config = fs::read_to_string(&path).map_err(io("read avow.toml"))?;
    for (field, value) in [
        ("address", format!("\"{}\"", free_address()?)),
        ("outbound_bytes_max", "\"64 MiB\"".to_owned()),
        ("messages_per_second", "1_000_000".to_owned()),
        ("messages_burst", "1_000_000".to_owned()),
        ("bytes_per_second", "1_000_000_000".to_owned()),
        ("bytes_burst", "1_000_000_000".to_owned()),
        ("connects_per_second", "10_000".to_owned()),
        ("connects_burst", "10_000".to_owned()),
        ("subscribes_per_second", "10_000".to_owned()),
        ("subscribes_burst", "10_000".to_owned()),
        ("sessions_max", "64".to_owned()),
        ("queue_messages_max", "1_000_000".to_owned()),
        ("queue_bytes_max", "\"512 MiB\"".to_owned()),
    ] {
        config = set(&config, field, &value)?;
    }
    fs::write(&path, config).map_err(io("write avow.toml"))
}

/// `config` with `value` wherever it sets `field`.
fn set(config: &str, field: &'static str, value: &str) -> Result<String, Failure> {
    let mut found = false;
    let lines = config.lines().map(|line| {
        let sets = line.split_once('=').is_some_and(|(name, _)| name.trim() == field);
        found |= sets;
        if sets { format!("{field} = {value}\n") } else { format!("{line}\n") }
    });
    let config = lines.collect();
    if found { Ok(config) } else { Err(Failure::NoField(field)) }
}

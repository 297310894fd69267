//! A broker for one test: the whole server in this process, on a loopback port, behind TLS that
//! asks for a certificate, over a log on a disk.
//!
//! Its policy lets every device do everything under any Client Identifier, except below
//! `t/forbidden/`, and dashboards read `t/` and `$SYS`: what is tried here is the protocol, not the
//! policy.

use std::net::SocketAddr;
use std::sync::Arc;

use avow::broker::{About, Backlog, Broker, Settings};
use avow::evidence::{LogKey, RecordKind};
use avow::identity::authority::{Authority, Credential, create_root};
use avow::identity::profile::Profiles;
use avow::identity::{Issuer, Issuers, Role, TokenKeys};
use avow::limits::{AddressLimiter, LimitsConfig};
use avow::policy::Policy;
use avow::schema::Schemas;
use avow::server::tls::{Pem, certificates, client_config, server_config};
use avow::server::{
    Clock, Core, Fault, Running, RunningWriter, Server, ServerOptions, StartWriter,
};
use avow::session::Bounds;
use avow::storage::{Log, LogOptions, RealDisk, StorageFault, Writer, WriterOptions};
use avow::time::UnixNanos;

const TRUST_DOMAIN: &str = "plant.example";

const POLICY: &str = r##"
version = 1

[defaults]
v3_refusal = "close"

[[permit]]
id = "any-client-id"
who = ["device"]
client_id = "*"

[[permit]]
id = "everything"
who = ["device"]
publish = ["#"]
subscribe = ["#"]
retain = true
clear_retained = true
schema = "none"

[[permit]]
id = "dashboards"
who = ["dashboard"]
client_id = "*"
subscribe = ["$SYS/#", "t/#"]

[[forbid]]
id = "but-this"
who = ["device"]
publish = ["t/forbidden/#"]
subscribe = ["t/forbidden/#"]
"##;

/// A server that serves until this is dropped.
pub(crate) struct Site {
    running: Option<Running>,
    address: SocketAddr,
    root: Credential,
    authority: Authority,
    profiles: Profiles,
    now: UnixNanos,
    log: tempfile::TempDir,
}

impl Site {
    /// With the default bounds, except that a Keep Alive of one second is granted.
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// With bounds that `change` has changed.
    pub(crate) fn with(change: impl FnOnce(&mut Bounds)) -> Self {
        Self::about(About { sys_interval_seconds: 0, ..About::default() }, change)
    }

    /// With bounds that `change` has changed, and with what the broker says of itself.
    pub(crate) fn about(about: About, change: impl FnOnce(&mut Bounds)) -> Self {
        let mut bounds = Bounds { keep_alive_seconds_min: 1, ..Bounds::default() };
        change(&mut bounds);
        let log = tempfile::Builder::new().prefix("avow-wire-").tempdir().unwrap();
        let clock = Clock::start();
        let now = clock.now().unix;
        let profiles = Profiles::shipped().unwrap();
        let root = create_root(&profiles.root, "wire root", now).unwrap();
        let issuing = Authority::load(&root.certificate_pem, &root.key_pem)
            .unwrap()
            .create_issuing(&profiles.issuing, "wire issuing", now)
            .unwrap();
        let authority = Authority::load(&issuing.certificate_pem, &issuing.key_pem).unwrap();
        let server = authority.issue_server(&profiles.server, &[], now).unwrap();
        let (root_pem, _) = pem(&root);
        let anchors = certificates(root_pem).unwrap();
        let issuer = Issuer::new("plant", TRUST_DOMAIN, &Role::ALL, "", &anchors).unwrap();
        let issuers = Arc::new(Issuers::new(vec![issuer]).unwrap());
        let (chain, key) = pem(&server);
        let limits = limits();
        let options = ServerOptions {
            websocket: None,
            proxy: None,
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: server_config(chain, key, Arc::clone(&issuers)).unwrap(),
            issuers,
            address_limiter: AddressLimiter::new(&limits),
            shards: 1,
            bounds: avow::server::Bounds::default(),
            clock,
            metrics: None,
            handle_signals: false,
        };
        let writer = writer(log.path().to_owned());
        let core = Core { broker: make_broker(bounds, limits, about), writer };
        let running = Server::start(options, core).unwrap();
        let address = running.local_addr();
        Self { running: Some(running), address, root, authority, profiles, now, log }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// TLS of the device `name`, with a certificate of its own.
    pub(super) fn tls(&self, name: &str) -> Arc<rustls::ClientConfig> {
        self.tls_of(Role::Device, name)
    }

    /// TLS of `name` in this role, with a certificate of its own.
    pub(super) fn tls_of(&self, role: Role, name: &str) -> Arc<rustls::ClientConfig> {
        let profile = self.profiles.client(role);
        let device = self.authority.issue_client(profile, TRUST_DOMAIN, name, self.now).unwrap();
        let (root, _) = pem(&self.root);
        let (chain, key) = pem(&device);
        client_config(root, chain, key).unwrap()
    }

    /// Stops the server in order, and waits until it has stopped.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.wait().unwrap();
        }
    }

    /// Stops the server and reads every entry of its log, in order.
    pub(super) fn entries(&mut self) -> Vec<serde_json::Value> {
        self.stop();
        let mut entries = Vec::new();
        let disk = RealDisk::new(self.log.path());
        Log::open(disk, log_options(&log_key()), &mut |record| {
            if record.kind == RecordKind::Entry {
                entries.push(serde_json::from_slice(record.head).unwrap());
            }
        })
        .unwrap();
        entries
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            let _ = running.wait();
        }
    }
}

/// Wide enough for whatever a test does at once.
fn limits() -> LimitsConfig {
    let mut limits = LimitsConfig {
        connects_per_second: 10_000,
        connects_burst: 10_000,
        ..LimitsConfig::default()
    };
    limits.default.messages_per_second = 100_000;
    limits.default.messages_burst = 100_000;
    limits.default.subscribes_per_second = 10_000;
    limits.default.subscribes_burst = 10_000;
    limits.default.sessions_max = 100;
    limits
}

fn make_broker(bounds: Bounds, limits: LimitsConfig, about: About) -> avow::server::MakeBroker {
    let read = |_: &str| -> std::io::Result<String> { Ok(String::new()) };
    let settings = Settings {
        node: "wire".into(),
        shard: 0,
        bounds,
        tokens: Arc::new(TokenKeys::none()),
        backlog: Backlog::default(),
        policy: Arc::new(Policy::parse("policy.toml", POLICY).unwrap()),
        schemas: Arc::new(Schemas::parse("registry.toml", "version = 1\n", read).unwrap()),
        limits,
        privacy: avow::evidence::Privacy::PLAIN,
        about,
        statements: Default::default(),
        receipts: None,
        config_sha256: [1; 32],
        seed: [7; 32],
    };
    Arc::new(move |shard, now| Broker::new(Settings { shard, ..settings.clone() }, now))
}

fn writer(directory: std::path::PathBuf) -> StartWriter {
    Box::new(move |events| {
        let failed = |fault: StorageFault| Fault::Writer(fault.to_string());
        let key = log_key();
        let options = log_options(&key);
        let (log, recovery) =
            Log::open(RealDisk::new(&directory), options, &mut |_| {}).map_err(failed)?;
        let (hooks, durations) = events.hooks();
        let bounds = WriterOptions::default();
        let writer = Writer::start(log, recovery, key, bounds, hooks, None).map_err(failed)?;
        Ok(RunningWriter::new(writer, durations))
    })
}

fn log_key() -> LogKey {
    LogKey::from_seed("plant.example/log", &[7; 32]).unwrap()
}

fn log_options(key: &LogKey) -> LogOptions {
    LogOptions { verifier: key.verifier().clone(), segment_bytes: 1 << 20, tiles: true }
}

fn pem(credential: &Credential) -> (Pem<'_>, Pem<'_>) {
    (
        Pem { file: "cert.pem", text: &credential.certificate_pem },
        Pem { file: "key.pem", text: &credential.key_pem },
    )
}

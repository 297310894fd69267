//! Certificates and a standing clock for the tests of this room.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::UnixTime;

use super::options::MakeBroker;
use super::shutdown::Fault;
use super::tls::{Pem, client_config_at, server_config_at};
use super::writing::{RunningWriter, StartWriter};
use crate::broker::{Backlog, Broker, Settings};
use crate::evidence::LogKey;
use crate::identity::authority::Credential;
use crate::identity::testing::{NOW, Plant};
use crate::identity::{Issuers, Role, TokenKeys};
use crate::limits::LimitsConfig;
use crate::policy::Policy;
use crate::schema::Schemas;
use crate::session;
use crate::storage::{Log, LogOptions, RealDisk, Writer, WriterOptions};
use crate::time::{Instant, Now};

/// The moment at which the certificates of [`Plant`] are valid.
pub(super) fn now() -> Now {
    Now { instant: Instant::ZERO, unix: NOW }
}

const POLICY: &str = r#"
version = 1

[[permit]]
id = "client-id"
who = ["device"]
client_id = "${device}*"

[[permit]]
id = "sealed"
who = ["device"]
publish = ["plant/${device}/sealed/#"]
subscribe = ["plant/${device}/sealed/#"]
qos_max = 2
schema = "opaque"
"#;

/// Makes cores whose policy lets a device publish to and read `plant/<its name>/sealed/#`.
pub(super) fn make_broker() -> MakeBroker {
    let settings = Settings {
        node: "plant".into(),
        shard: 0,
        bounds: session::Bounds::default(),
        backlog: Backlog::default(),
        tokens: Arc::new(TokenKeys::none()),
        policy: Arc::new(Policy::parse("policy.toml", POLICY).unwrap()),
        schemas: Arc::new(
            Schemas::parse(
                "registry.toml",
                "version = 1\n",
                |_: &str| -> std::io::Result<String> { Ok(String::new()) },
            )
            .unwrap(),
        ),
        limits: LimitsConfig::default(),
        privacy: crate::evidence::Privacy::PLAIN,
        about: Default::default(),
        statements: Default::default(),
        receipts: None,
        config_sha256: [1; 32],
        seed: [7; 32],
    };
    Arc::new(move |shard, now| Broker::new(Settings { shard, ..settings.clone() }, now))
}

/// The key of the test's log.
pub(super) fn log_key() -> LogKey {
    LogKey::from_seed("plant.example/log", &[7; 32]).unwrap()
}

/// Starts the real writer over a log in `directory`.
pub(super) fn durable(directory: &Path) -> StartWriter {
    let directory = directory.to_owned();
    Box::new(move |events| {
        let failed = |fault: crate::storage::StorageFault| Fault::Writer(fault.to_string());
        let options = LogOptions {
            verifier: log_key().verifier().clone(),
            segment_bytes: 1 << 20,
            tiles: false,
        };
        let disk = RealDisk::new(directory);
        let (log, recovery) = Log::open(disk, options, &mut |_| {}).map_err(failed)?;
        let (hooks, durations) = events.hooks();
        let bounds = WriterOptions::default();
        let writer =
            Writer::start(log, recovery, log_key(), bounds, hooks, None).map_err(failed)?;
        Ok(RunningWriter::new(writer, durations))
    })
}

#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_seconds())))
    }
}

/// A plant and its listener's TLS.
pub(super) struct Site {
    plant: Plant,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) issuers: Arc<Issuers>,
}

impl Site {
    pub(super) fn new() -> Self {
        let plant = Plant::new("a");
        let server = plant.server();
        let issuers = Arc::new(plant.issuers());
        let (chain, key) = pem(&server);
        let tls = server_config_at(chain, key, Arc::clone(&issuers), Arc::new(Still)).unwrap();
        Self { plant, tls, issuers }
    }

    /// TLS of the device `name`.
    pub(super) fn client(&self, name: &str) -> Arc<ClientConfig> {
        self.stranger(self, name)
    }

    /// As [`Self::client`], with a certificate of `other`'s plant.
    pub(super) fn stranger(&self, other: &Self, name: &str) -> Arc<ClientConfig> {
        let device = other.plant.client(Role::Device, name);
        let (root, _) = pem(&self.plant.root);
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let config = client_config_at(root, Some(pem(&device)), &versions, Arc::new(Still));
        Arc::new(config.unwrap())
    }
}

fn pem(credential: &Credential) -> (Pem<'_>, Pem<'_>) {
    (
        Pem { file: "cert.pem", text: &credential.certificate_pem },
        Pem { file: "key.pem", text: &credential.key_pem },
    )
}

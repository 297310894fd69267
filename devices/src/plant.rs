//! Runs devices and a dashboard against one broker, and reports.
//!
//! The dashboard subscribes before the first device connects, and leaves after the last message
//! arrived or a bounded wait, so "not delivered" never means "not there yet". All tasks belong to
//! [`Plant::run`] and end with it; a current-thread runtime is enough.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Client, ClientError, Credentials, Endpoint, Messages};
use crate::dashboard;
use crate::device::Device;
use crate::ledger::Ledger;
use crate::profile::Profile;
use crate::report::{DeviceReport, PlantReport};
pub use crate::seal::SealError;
use crate::seal::SealKey;
use crate::signing::{Signers, Signing, SigningError};

/// Devices of one plant, at most.
pub const DEVICES_MAX: usize = 256;

/// From one device's first connect to the next device's.
const START_INTERVAL: Duration = Duration::from_millis(50);

/// From one live report to the next.
const LIVE_INTERVAL: Duration = Duration::from_millis(200);

/// How long devices may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// How long the last deliveries may take.
const LAST_DELIVERIES_WITHIN: Duration = Duration::from_secs(5);

/// Where the broker is, and who comes.
#[derive(Clone, Debug)]
pub struct PlantOptions {
    /// The broker's TLS listener.
    pub addr: SocketAddr,
    /// The name that the broker's certificate must carry.
    pub server_name: String,
    /// At most [`DEVICES_MAX`], with distinct names.
    pub devices: Vec<DeviceSpec>,
    /// The subscriber.
    pub dashboard: DashboardSpec,
    /// What devices that sign must know.
    pub signing: Option<Signing>,
    /// Equal seeds give equal measurements.
    pub seed: u64,
}

/// One device: `name` is its Client Identifier and stands in its topics.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// Its name.
    pub name: String,
    /// What it does.
    pub profile: Profile,
    /// What it shows.
    pub credentials: Credentials,
}

/// The dashboard: `name` is its Client Identifier.
#[derive(Clone, Debug)]
pub struct DashboardSpec {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub credentials: Credentials,
}

/// Why a plant could not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlantError {
    /// Two devices have one name, or a name cannot stand in a topic.
    #[error("device name {name:?} is taken, empty or has one of / + #")]
    Name {
        /// The name.
        name: String,
    },
    /// Too many devices.
    #[error("{count} devices, more than {DEVICES_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A device is to sign, and nobody says for whom.
    #[error("device {name:?} signs its messages: `signing` must say for which log")]
    NoLog {
        /// The name.
        name: String,
    },
    /// A device is to sign, and cannot.
    #[error("device {name:?} cannot sign: {error}")]
    Signing {
        /// The name.
        name: String,
        /// Why not.
        error: SigningError,
    },
    /// No key for a sealed stream.
    #[error("no key for sealed payloads")]
    Seal(#[from] SealError),
    /// The dashboard could not connect or subscribe.
    #[error("dashboard: {0}")]
    Dashboard(#[source] ClientError),
}

/// A plant that is ready to run.
pub struct Plant {
    options: PlantOptions,
    ledger: Arc<Ledger>,
    keys: HashMap<String, Arc<SealKey>>,
    live: watch::Sender<PlantReport>,
}

impl Plant {
    /// Checks the options and makes the keys that devices share with the dashboard.
    ///
    /// # Errors
    /// A bound or a name is broken, or there is no randomness.
    pub fn new(options: PlantOptions) -> Result<Self, PlantError> {
        if options.devices.len() > DEVICES_MAX {
            return Err(PlantError::TooMany { count: options.devices.len() });
        }
        let mut names = HashSet::new();
        for DeviceSpec { name, .. } in &options.devices {
            if name.is_empty() || name.contains(['/', '+', '#']) || !names.insert(name) {
                return Err(PlantError::Name { name: name.clone() });
            }
        }
        for device in options.devices.iter().filter(|device| device.profile.signs()) {
            let name = device.name.clone();
            let Some(signing) = &options.signing else { return Err(PlantError::NoLog { name }) };
            Signers::new(&device.credentials, &name, signing, 1)
                .map_err(|error| PlantError::Signing { name, error })?;
        }
        let mut keys = HashMap::new();
        for device in options.devices.iter().filter(|device| device.profile.seals()) {
            keys.insert(device.name.clone(), Arc::new(SealKey::generate()?));
        }
        let reports =
            options.devices.iter().map(|device| DeviceReport::new(&device.name, &device.profile));
        let ledger = Arc::new(Ledger::new(reports.collect()));
        let live = watch::Sender::new(ledger.report());
        Ok(Self { options, ledger, keys, live })
    }

    /// The live report, renewed five times a second while the plant runs.
    pub fn live(&self) -> watch::Receiver<PlantReport> {
        self.live.subscribe()
    }

    /// Runs until `stop` completes, lets everything in flight arrive, and reports. Dropping the
    /// future drops every connection.
    ///
    /// # Errors
    /// The dashboard could not connect or subscribe. What happens to devices is in the report.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<PlantReport, PlantError> {
        let spec = &self.options.dashboard;
        let endpoint = self.endpoint(&spec.credentials);
        let connected = dashboard::connect(&endpoint, &spec.name).await;
        let (client, messages) = connected.map_err(PlantError::Dashboard)?;
        let mut listener = self.listener(&client, messages);
        let (stopping, stopped) = watch::channel(false);
        let mut devices = JoinSet::new();
        for device in self.devices(&stopped) {
            devices.spawn(device.run());
        }
        tokio::select! {
            () = stop => {}
            () = self.keep_live() => {}
        }
        stopping.send_replace(true);
        let all_stopped = async { while devices.join_next().await.is_some() {} };
        let all_delivered = async {
            let _ = tokio::time::timeout(STOP_WITHIN, all_stopped).await;
            let _ = tokio::time::timeout(LAST_DELIVERIES_WITHIN, self.nothing_missing()).await;
        };
        tokio::select! {
            () = all_delivered => {}
            () = self.keep_live() => {}
        }
        client.disconnect().await;
        let _ = tokio::time::timeout(LAST_DELIVERIES_WITHIN, async {
            while listener.join_next().await.is_some() {}
        })
        .await;
        let report = self.ledger.report();
        self.live.send_replace(report.clone());
        Ok(report)
    }

    fn listener(&self, client: &Client, messages: Messages) -> JoinSet<()> {
        let mut listener = JoinSet::new();
        let ledger = Arc::clone(&self.ledger);
        listener.spawn(dashboard::listen(client.clone(), messages, ledger, self.keys.clone()));
        listener
    }

    fn devices(&self, stop: &watch::Receiver<bool>) -> Vec<Device> {
        let specs = self.options.devices.iter().enumerate();
        let mut start_after = Duration::ZERO;
        let device = |(index, spec): (usize, &DeviceSpec)| {
            start_after += START_INTERVAL;
            Device {
                index,
                name: spec.name.clone(),
                victim: self.victim_of(&spec.name),
                profile: spec.profile.clone(),
                endpoint: self.endpoint(&spec.credentials),
                seed: self.options.seed,
                start_after,
                key: self.keys.get(&spec.name).cloned(),
                signing: self.options.signing.clone(),
                ledger: Arc::clone(&self.ledger),
                stop: stop.clone(),
            }
        };
        specs.map(device).collect()
    }

    /// The first other device that connects: the one a trespasser writes to.
    fn victim_of(&self, name: &str) -> String {
        let others = self.options.devices.iter().filter(|device| device.name != name);
        let victim = others.filter(|device| device.profile.expect.connects).map(|d| &d.name).next();
        victim.cloned().unwrap_or_else(|| "nobody".to_owned())
    }

    fn endpoint(&self, credentials: &Credentials) -> Endpoint {
        Endpoint {
            addr: self.options.addr,
            server_name: self.options.server_name.clone(),
            credentials: credentials.clone(),
        }
    }

    /// Renews the live report for ever.
    async fn keep_live(&self) {
        loop {
            tokio::time::sleep(LIVE_INTERVAL).await;
            self.live.send_replace(self.ledger.report());
        }
    }

    /// Waits until every accepted message is at the dashboard.
    async fn nothing_missing(&self) {
        let missing = |report: PlantReport| report.devices.iter().any(|d| d.proper.missing > 0);
        while missing(self.ledger.report()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plant(names: &[String]) -> Result<Plant, PlantError> {
        let credentials =
            Credentials { ca_pem: Vec::new(), cert_pem: Vec::new(), key_pem: Vec::new() };
        let device = |name: &String| DeviceSpec {
            name: name.clone(),
            profile: Profile::named("meter").unwrap(),
            credentials: credentials.clone(),
        };
        Plant::new(PlantOptions {
            addr: SocketAddr::from(([127, 0, 0, 1], 1)),
            server_name: "localhost".to_owned(),
            devices: names.iter().map(device).collect(),
            dashboard: DashboardSpec { name: "d".to_owned(), credentials: credentials.clone() },
            signing: None,
            seed: 0,
        })
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("m{n}")).collect()
    }

    #[test]
    fn names_are_distinct_and_fit_a_topic_and_their_number_is_bounded() {
        assert!(plant(&names(DEVICES_MAX)).is_ok());
        let error = plant(&names(DEVICES_MAX + 1)).err();
        assert_eq!(error, Some(PlantError::TooMany { count: DEVICES_MAX + 1 }));
        for bad in ["", "a/b", "+", "#", "m0"] {
            let error = plant(&["m0".to_owned(), bad.to_owned()]).err();
            assert_eq!(error, Some(PlantError::Name { name: bad.to_owned() }));
        }
    }

    #[test]
    fn every_sealing_device_has_its_own_key_and_a_victim_is_another_device() {
        let plant = plant(&names(3)).unwrap();
        assert_eq!(plant.keys.len(), 3);
        assert_eq!(plant.victim_of("m0"), "m1");
        assert_eq!(plant.victim_of("m2"), "m0");
    }
}

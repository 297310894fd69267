//! Certificates and a standing clock for the tests of this room.

use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::UnixTime;

use super::tls::{Pem, client_config_at, server_config_at};
use crate::identity::authority::Credential;
use crate::identity::testing::{NOW, Plant};
use crate::identity::{Issuers, Role};
use crate::time::{Instant, Now};

/// The moment at which the certificates of [`Plant`] are valid.
pub(super) fn now() -> Now {
    Now { instant: Instant::ZERO, unix: NOW }
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

//! Mutual TLS for one device.
//!
//! TLS 1.3 and 1.2 as rustls offers them, no resumption: a simulated device must show its
//! certificate on every connection.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ClientError, Credentials, Endpoint};

/// Opens TCP and completes the client's side of the handshake.
pub(super) async fn open(endpoint: &Endpoint) -> Result<TlsStream<TcpStream>, ClientError> {
    let config = config(&endpoint.credentials)?;
    let name = ServerName::try_from(endpoint.server_name.clone())
        .map_err(|error| credentials("server name", &error))?;
    let tcp = TcpStream::connect(endpoint.addr)
        .await
        .map_err(|error| ClientError::Unreachable { detail: error.to_string() })?;
    tcp.set_nodelay(true)
        .map_err(|error| ClientError::Unreachable { detail: error.to_string() })?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.map_err(|error| before_connack(&error))
}

/// Sorts an I/O error before CONNACK by who refused whom.
pub(super) fn before_connack(error: &io::Error) -> ClientError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(refused @ rustls::Error::InvalidCertificate(_)) => {
            ClientError::ServerNotTrusted { detail: refused.to_string() }
        }
        Some(other) => ClientError::TlsRefused { detail: other.to_string() },
        None => ClientError::TlsRefused { detail: error.to_string() },
    }
}

fn config(files: &Credentials) -> Result<ClientConfig, ClientError> {
    let mut anchors = RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(&files.ca_pem) {
        let anchor = anchor.map_err(|error| credentials("CA certificate", &error))?;
        anchors.add(anchor).map_err(|error| credentials("CA certificate", &error))?;
    }
    let chain = CertificateDer::pem_slice_iter(&files.cert_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| credentials("certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(&files.key_pem)
        .map_err(|error| credentials("private key", &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| credentials("TLS versions", &error))?
        .with_root_certificates(anchors)
        .with_client_auth_cert(chain, key)
        .map_err(|error| credentials("certificate and key", &error))?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn credentials(what: &str, error: &dyn std::error::Error) -> ClientError {
    ClientError::Credentials { detail: format!("{what}: {error}") }
}

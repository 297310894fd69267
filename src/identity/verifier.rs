//! From the certificates a client sent to who it is: rustls's client verifier, and ours in it.
//!
//! [`identify`] is the whole decision and the only maker of [`CertificateFacts`]. It runs twice
//! per connection: during the handshake, inside [`AvowClientVerifier`], so that a stranger never
//! gets past TLS; and after it, called by the acceptor on `peer_certificates()`. rustls gives a
//! verifier no place to leave its result, and a side channel (a slot per connection, a cache by
//! hash) would be a second source of truth to keep right; the second run costs a few signature
//! checks, judges by the clock and the issuers of that moment, and cannot disagree with what it
//! returns.
//!
//! webpki builds and verifies the path; it ignores what it is not asked about (a missing
//! extendedKeyUsage, keyUsage of the end entity, names), which is why our rules follow its own.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certificate::{self, CertificateFacts};
use super::issuer::Issuers;
use super::path::CertificationPath;
use super::refusal::{CertificateRefusal, nanos, time};
use crate::time::UnixNanos;

/// Most certificates read from one client: the end entity's and three of CAs.
pub const CERTIFICATES_MAX: usize = 4;
/// Largest certificate read, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

/// Decides who a client is, from the certificates it sent (the end entity's first) at `now`.
///
/// # Errors
/// The first [`CertificateRefusal`] of: the bounds, the certification path and its issuer, the
/// certificate's own form, the issuer's binding.
pub fn identify(
    certificates: &[CertificateDer<'_>],
    issuers: &Issuers,
    now: UnixNanos,
) -> Result<CertificateFacts, CertificateRefusal> {
    let (end_entity, intermediates) =
        certificates.split_first().ok_or(CertificateRefusal::NoCertificate)?;
    decide(end_entity, intermediates, issuers, now)
}

fn decide(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    issuers: &Issuers,
    now: UnixNanos,
) -> Result<CertificateFacts, CertificateRefusal> {
    let count = intermediates.len().saturating_add(1);
    if count > CERTIFICATES_MAX {
        return Err(CertificateRefusal::TooManyCertificates { count, max: CERTIFICATES_MAX });
    }
    let bytes = intermediates.iter().map(|der| der.len()).fold(end_entity.len(), usize::max);
    if bytes > CERTIFICATE_BYTES_MAX {
        return Err(CertificateRefusal::TooLarge { bytes, max: CERTIFICATE_BYTES_MAX });
    }
    let (issuer, anchor) = issuers.vouching(end_entity, intermediates, time(now))?;
    let path = CertificationPath::walk(end_entity, intermediates, anchor);
    let facts = certificate::read(end_entity, issuer.id(), path)?;
    issuer.check_binding(facts.identity())?;
    Ok(facts)
}

/// rustls's verifier of client certificates, by [`identify`].
#[derive(Debug)]
pub struct AvowClientVerifier {
    issuers: Arc<Issuers>,
    is_mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AvowClientVerifier {
    /// A verifier that accepts what `issuers` vouch for, and nobody without a certificate.
    pub fn new(issuers: Arc<Issuers>) -> Self {
        Self { issuers, is_mandatory: true, algorithms: Issuers::algorithms() }
    }

    /// As [`Self::new`], and a client may show no certificate at all; one that it shows is judged
    /// the same. Whoever uses it must decide what a nameless client may do.
    pub fn optional(issuers: Arc<Issuers>) -> Self {
        Self { is_mandatory: false, ..Self::new(issuers) }
    }
}

impl ClientCertVerifier for AvowClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.issuers.hints()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        decide(end_entity, intermediates, &self.issuers, nanos(now))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;

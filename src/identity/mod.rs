//! Who a peer is: the name its verified certificate carries, and who vouched for it; or, where a
//! listener lets peers come without a certificate, the name in a token.
//!
//! The line begins here. A peer with a certificate is the one URI subjectAltName of its end entity certificate,
//! together with the configured issuer whose trust anchor its certification path ends in; never
//! a Common Name, a Client Identifier or an address. [`verifier::identify`] is the only way to a
//! [`CertificateFacts`], so that whoever holds one holds a peer that passed every check. A peer
//! without one is what [`token`] says, under an issuer that no certificate can have.
//!
//! This room reads no file, no clock and no socket. [`authority`] issues certificates and is the
//! one place of it that uses randomness; it belongs to the command line, not to the core.
//! Revocation and enrolment are not here.
//!
//! Specification: RFC 5280 (certificates and paths), the SPIFFE X.509-SVID form of a name.

pub mod authority;
pub mod certificate;
pub mod grants;
pub mod issuer;
pub mod key;
pub mod name;
pub mod path;
pub mod profile;
pub mod refusal;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub mod verifier;

pub use certificate::CertificateFacts;
pub use grants::Grants;
pub use issuer::{Issuer, IssuerFault, Issuers};
pub use key::{DeviceKey, KeyKind};
pub use name::{Identity, NameError, Role};
pub use path::CertificationPath;
pub use refusal::CertificateRefusal;
pub use token::{TokenFacts, TokenKeys};
pub use verifier::{AvowClientVerifier, identify};

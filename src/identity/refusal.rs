//! Every way a client certificate is refused, with the name and the advice of each.
//!
//! A refused handshake is evidence, so its reason has to survive the way through rustls: the
//! verifier returns a [`rustls::Error`], the acceptor turns that back with
//! [`CertificateRefusal::of`]. What has an alert of its own in TLS (expired, unknown CA) travels
//! as rustls's own variant, so that the peer hears the right alert; the rest travels whole inside
//! [`rustls::OtherError`]. Nothing is lost either way.

use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, ExtendedKeyPurpose, OtherError};
use rustls_pki_types::UnixTime;

use super::name::{NameError, Role};
use crate::time::UnixNanos;

/// Longest text that a refusal quotes from a certificate or a library, in characters.
pub(super) const QUOTE_CHARS_MAX: usize = 96;

/// Why a client certificate was refused. A closed list: entries and metrics use its names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    /// The client sent no certificate.
    #[error("no client certificate was sent; configure the client with its cert.pem and key.pem")]
    NoCertificate,
    /// The client sent more certificates than the bound.
    #[error("{count} certificates were sent, {max} are read; send the end entity and its CA only")]
    TooManyCertificates {
        /// How many were sent.
        count: usize,
        /// The bound, [`super::verifier::CERTIFICATES_MAX`].
        max: usize,
    },
    /// A certificate has more bytes than the bound.
    #[error("a certificate has {bytes} bytes, {max} are read; issue it with fewer extensions")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The bound, [`super::verifier::CERTIFICATE_BYTES_MAX`].
        max: usize,
    },
    /// The certificate is not DER that means one thing.
    #[error("the certificate cannot be parsed; issue it anew")]
    NotParsable,
    /// The certificate is not of version 3.
    #[error("the certificate is not X.509 version 3; issue it anew")]
    NotVersion3,
    /// No configured issuer vouches for it.
    #[error("no configured issuer signed this certificate; add its CA as an issuer or re-issue it")]
    UnknownIssuer,
    /// More than one configured issuer vouches for it.
    #[error(
        "issuers `{first}` and `{second}` both vouch for this certificate; \
         let no issuer's anchor stand above another's"
    )]
    AmbiguousIssuer {
        /// The id of one.
        first: Arc<str>,
        /// The id of another.
        second: Arc<str>,
    },
    /// The anchor of the issuer is outside its own validity.
    #[error("the CA certificate of issuer `{issuer}` is not valid now; renew it")]
    AnchorNotValid {
        /// The issuer's id.
        issuer: Arc<str>,
    },
    /// A certificate of the path is past its notAfter.
    #[error("the certificate expired at {}; renew it", .not_after.as_seconds())]
    Expired {
        /// Its notAfter.
        not_after: UnixNanos,
        /// When it was judged.
        now: UnixNanos,
    },
    /// A certificate of the path is before its notBefore.
    #[error("the certificate is valid from {} on; check both clocks", .not_before.as_seconds())]
    NotYetValid {
        /// Its notBefore.
        not_before: UnixNanos,
        /// When it was judged.
        now: UnixNanos,
    },
    /// A signature, on a certificate or of the handshake, does not verify.
    #[error("a signature does not verify; check that certificate, CA and key belong together")]
    BadSignature,
    /// A certificate of the path is revoked.
    #[error("the certificate is revoked; issue a new one if the device is still trusted")]
    Revoked,
    /// The certification path breaks a rule of RFC 5280, named in `detail`.
    #[error("the certification path is not valid ({detail}); issue the certificate anew")]
    PathNotValid {
        /// The rule, in webpki's words.
        detail: Box<str>,
    },
    /// There is no Extended Key Usage extension.
    #[error("the certificate has no extendedKeyUsage; issue it with clientAuth")]
    NoExtendedKeyUsage,
    /// The Extended Key Usage does not list clientAuth (anyExtendedKeyUsage does not count).
    #[error("the certificate's extendedKeyUsage lacks clientAuth; issue it with clientAuth")]
    NoClientAuth,
    /// There is no Key Usage extension.
    #[error("the certificate has no keyUsage; issue it with digitalSignature")]
    NoKeyUsage,
    /// The Key Usage does not list digitalSignature.
    #[error("the certificate's keyUsage lacks digitalSignature; issue it with digitalSignature")]
    NoDigitalSignature,
    /// It is the certificate of a CA.
    #[error("the certificate is a CA's; issue an end entity certificate for the client")]
    IsCa,
    /// There is no URI subjectAltName.
    #[error(
        "the certificate has no URI subjectAltName; \
         issue it with spiffe://<trust domain>/<role>/<name>"
    )]
    NoUriSan,
    /// There are several URI subjectAltNames.
    #[error("the certificate has {count} URI subjectAltNames; issue it with exactly one")]
    SeveralUriSans {
        /// How many.
        count: usize,
    },
    /// The URI subjectAltName is not text.
    #[error("the URI subjectAltName is not valid UTF-8; issue the certificate anew")]
    UriSanNotUtf8,
    /// The URI subjectAltName is not a name of our form.
    #[error("the URI subjectAltName is not a name here: {0}; issue the certificate anew")]
    Name(#[from] NameError),
    /// The issuer may not name this trust domain.
    #[error(
        "issuer `{issuer}` may name `{bound}` only, not `{claimed}`; \
         issue the certificate in that trust domain"
    )]
    TrustDomainNotBound {
        /// The issuer's id.
        issuer: Arc<str>,
        /// The trust domain it is bound to.
        bound: Box<str>,
        /// The one that the certificate names.
        claimed: Box<str>,
    },
    /// The issuer may not name this role.
    #[error("issuer `{issuer}` may not name {}s; permit the role or re-issue", .role.as_str())]
    RoleNotBound {
        /// The issuer's id.
        issuer: Arc<str>,
        /// The role that the certificate names.
        role: Role,
    },
    /// The issuer may not name this name.
    #[error("issuer `{issuer}` may only name what begins with `{prefix}`; re-issue")]
    NameNotBound {
        /// The issuer's id.
        issuer: Arc<str>,
        /// What its names begin with.
        prefix: Box<str>,
    },
}

impl CertificateRefusal {
    /// Its stable name, `certificate.reason`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoCertificate => "certificate.no_certificate",
            Self::TooManyCertificates { .. } => "certificate.too_many",
            Self::TooLarge { .. } => "certificate.too_large",
            Self::NotParsable => "certificate.not_parsable",
            Self::NotVersion3 => "certificate.version",
            Self::UnknownIssuer => "certificate.unknown_issuer",
            Self::AmbiguousIssuer { .. } => "certificate.ambiguous_issuer",
            Self::AnchorNotValid { .. } => "certificate.anchor_not_valid",
            Self::Expired { .. } => "certificate.expired",
            Self::NotYetValid { .. } => "certificate.not_yet_valid",
            Self::BadSignature => "certificate.bad_signature",
            Self::Revoked => "certificate.revoked",
            Self::PathNotValid { .. } => "certificate.path",
            Self::NoExtendedKeyUsage => "certificate.no_extended_key_usage",
            Self::NoClientAuth => "certificate.no_client_auth",
            Self::NoKeyUsage => "certificate.no_key_usage",
            Self::NoDigitalSignature => "certificate.no_digital_signature",
            Self::IsCa => "certificate.is_ca",
            Self::NoUriSan => "certificate.no_uri_san",
            Self::SeveralUriSans { .. } => "certificate.several_uri_sans",
            Self::UriSanNotUtf8 => "certificate.uri_san_not_utf8",
            Self::Name(_) => "certificate.name",
            Self::TrustDomainNotBound { .. } => "certificate.trust_domain_not_bound",
            Self::RoleNotBound { .. } => "certificate.role_not_bound",
            Self::NameNotBound { .. } => "certificate.name_not_bound",
        }
    }

    /// The refusal behind a failed server-side handshake; `None` if the handshake failed for
    /// another reason than the client's certificate.
    pub fn of(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::NoCertificatesPresented => Some(Self::NoCertificate),
            rustls::Error::InvalidCertificate(error) => Some(Self::of_certificate(error)),
            // rustls's enum is open; everything else in it is about TLS and not about us.
            _ => None,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::BadEncoding => Self::NotParsable,
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            // The latter is what a namesake's key of another kind comes to.
            CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Self::BadSignature
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { not_after: nanos(*not_after), now: nanos(*time) }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { not_before: nanos(*not_before), now: nanos(*time) }
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::NoClientAuth
            }
            CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<Self>() {
                Some(ours) => ours.clone(),
                None => Self::PathNotValid { detail: quote(&format!("{inner:?}")) },
            },
            // rustls's enum is open; its rarer members are told in its own words.
            rare => Self::PathNotValid { detail: quote(&format!("{rare:?}")) },
        }
    }
}

impl From<CertificateRefusal> for rustls::Error {
    fn from(refusal: CertificateRefusal) -> Self {
        use CertificateRefusal as R;
        Self::InvalidCertificate(match refusal {
            R::NoCertificate => return Self::NoCertificatesPresented,
            R::NotParsable => CertificateError::BadEncoding,
            R::UnknownIssuer => CertificateError::UnknownIssuer,
            R::BadSignature => CertificateError::BadSignature,
            R::Revoked => CertificateError::Revoked,
            R::Expired { not_after, now } => {
                CertificateError::ExpiredContext { time: time(now), not_after: time(not_after) }
            }
            R::NotYetValid { not_before, now } => CertificateError::NotValidYetContext {
                time: time(now),
                not_before: time(not_before),
            },
            R::NoClientAuth => CertificateError::InvalidPurposeContext {
                required: ExtendedKeyPurpose::ClientAuth,
                presented: Vec::new(),
            },
            ours => CertificateError::Other(OtherError(Arc::new(ours))),
        })
    }
}

/// A peer's or a library's text for a refusal: escaped, and at most [`QUOTE_CHARS_MAX`] of it.
pub(super) fn quote(text: &str) -> Box<str> {
    text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// rustls's time as ours; both count from the same epoch.
pub(super) fn nanos(time: UnixTime) -> UnixNanos {
    UnixNanos::from_seconds(time.as_secs())
}

/// Our time as rustls's, which counts whole seconds.
pub(super) fn time(nanos: UnixNanos) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(nanos.as_seconds()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reason_is_lost_on_the_way_through_rustls() {
        use CertificateRefusal as R;
        let (now, then) = (UnixNanos::from_seconds(9), UnixNanos::from_seconds(5));
        let id: Arc<str> = Arc::from("plant");
        for refusal in [
            R::NoCertificate,
            R::TooManyCertificates { count: 9, max: 4 },
            R::NotParsable,
            R::UnknownIssuer,
            R::AmbiguousIssuer { first: id.clone(), second: id.clone() },
            R::AnchorNotValid { issuer: id.clone() },
            R::Expired { not_after: then, now },
            R::NotYetValid { not_before: now, now: then },
            R::BadSignature,
            R::Revoked,
            R::PathNotValid { detail: "CaUsedAsEndEntity".into() },
            R::NoExtendedKeyUsage,
            R::NoClientAuth,
            R::IsCa,
            R::NoUriSan,
            R::SeveralUriSans { count: 2 },
            R::Name(NameError::Scheme("x".into())),
            R::RoleNotBound { issuer: id, role: Role::Operator },
        ] {
            let through = rustls::Error::from(refusal.clone());
            assert_eq!(R::of(&through), Some(refusal));
        }
        assert_eq!(R::of(&rustls::Error::DecryptError), None);
    }

    #[test]
    fn what_is_quoted_is_short_and_printable() {
        let quoted = quote(&"\u{1b}[31m".repeat(100));
        assert!(quoted.chars().all(|c| !c.is_control()));
        assert!(quoted.len() <= QUOTE_CHARS_MAX * "\\u{10ffff}".len());
    }
}

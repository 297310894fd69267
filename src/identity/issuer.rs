//! The configured issuers: whose certificates are accepted, and what each of them may name.
//!
//! An issuer is bound to one trust domain, to roles in it and, if wished, to a prefix of the
//! names. X.509 cannot say this for URIs (webpki refuses URI name constraints), so it is our own
//! rule. Which issuer vouches is found by building the certification path once per anchor, with
//! nothing but that anchor trusted: subject names are never compared, so two issuers that bear
//! the same name stay two.
//!
//! Invariant: exactly one issuer vouches for an accepted certificate. If one issuer's anchor
//! stands above another's, both vouch, and the certificate is refused rather than judged by the
//! wider of two bindings.
//!
//! Not here: revocation, reading files. RFC 5280 section 6 is webpki's work.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certificate;
use super::name::{Identity, NAME_BYTES_MAX, NameError, Role, check_name, check_trust_domain};
use super::refusal::{CertificateRefusal, nanos};
use crate::time::UnixNanos;

/// Most issuers of one broker. Each handshake may build a path per anchor.
pub const ISSUERS_MAX: usize = 16;
/// Most trust anchors of one issuer: the old, the new, and some room.
pub const ANCHORS_MAX: usize = 4;

/// Someone whose certificates are accepted, and what it may name.
#[derive(Debug)]
pub struct Issuer {
    id: Arc<str>,
    trust_domain: Box<str>,
    roles: Box<[Role]>,
    name_prefix: Box<str>,
    anchors: Vec<Anchor>,
}

/// One trust anchor, with a path builder that trusts nothing else.
struct Anchor {
    der: Arc<[u8]>,
    subject: Vec<u8>,
    public_key: Vec<u8>,
    not_before: UnixNanos,
    not_after: UnixNanos,
    path: Arc<dyn ClientCertVerifier>,
}

/// All configured issuers.
#[derive(Debug)]
pub struct Issuers {
    issuers: Vec<Issuer>,
    hints: Vec<DistinguishedName>,
}

/// Why issuers cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum IssuerFault {
    /// The id has other characters than a name has, or two issuers share it.
    #[error("the issuer id `{id}` must be unique, 1 to 128 characters of A-Z, a-z, 0-9, . - _")]
    Id {
        /// The id.
        id: String,
    },
    /// The trust domain is not one.
    #[error("issuer `{id}`: {source}")]
    TrustDomain {
        /// The issuer's id.
        id: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// No role is permitted.
    #[error("issuer `{id}` may name no role; list `device`, `dashboard` or `operator`")]
    NoRole {
        /// The issuer's id.
        id: String,
    },
    /// The prefix of names is one that no name begins with.
    #[error("issuer `{id}`: no name begins with `{prefix}`; use A-Z, a-z, 0-9, . - _")]
    NamePrefix {
        /// The issuer's id.
        id: String,
        /// The prefix.
        prefix: String,
    },
    /// There are no anchors, or too many.
    #[error("issuer `{id}` has {count} CA certificates; give 1 to {ANCHORS_MAX}")]
    AnchorCount {
        /// The issuer's id.
        id: String,
        /// How many there are.
        count: usize,
    },
    /// A CA certificate does not parse, is not a CA's, or may not sign certificates.
    #[error(
        "issuer `{id}`: certificate {number} of its CA file is not a CA certificate \
         that may sign certificates"
    )]
    NotCa {
        /// The issuer's id.
        id: String,
        /// Which one, counted from 1.
        number: usize,
    },
    /// rustls does not take a CA certificate.
    #[error("issuer `{id}`: certificate {number} of its CA file cannot be an anchor")]
    Anchor {
        /// The issuer's id.
        id: String,
        /// Which one, counted from 1.
        number: usize,
        /// Why not.
        source: AnchorFault,
    },
    /// Two issuers trust the same CA, so that neither is bound.
    #[error("issuers `{first}` and `{second}` share a CA; give each issuer a CA of its own")]
    SharedAnchor {
        /// The id of one.
        first: String,
        /// The id of the other.
        second: String,
    },
    /// There are no issuers, or too many.
    #[error("{0} issuers are configured; configure 1 to {ISSUERS_MAX}")]
    Count(usize),
}

/// Why rustls does not take an anchor.
#[derive(Debug, thiserror::Error)]
pub enum AnchorFault {
    /// Its certificate is not one for webpki.
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    /// No path builder can be made from it.
    #[error(transparent)]
    Path(#[from] rustls::server::VerifierBuilderError),
}

impl Issuer {
    /// An issuer called `id` that may name `roles` in `trust_domain`, and of those only names
    /// that begin with `name_prefix` (empty: any), by certificates that chain to `anchors`.
    ///
    /// # Errors
    /// An [`IssuerFault`] that names the id and, for a certificate, its number.
    pub fn new(
        id: &str,
        trust_domain: &str,
        roles: &[Role],
        name_prefix: &str,
        anchors: &[CertificateDer<'_>],
    ) -> Result<Self, IssuerFault> {
        let own = || id.to_owned();
        check_name(id).map_err(|_| IssuerFault::Id { id: own() })?;
        check_trust_domain(trust_domain)
            .map_err(|source| IssuerFault::TrustDomain { id: own(), source })?;
        if roles.is_empty() {
            return Err(IssuerFault::NoRole { id: own() });
        }
        // A prefix is good if a name can begin with it.
        let room = name_prefix.len() < NAME_BYTES_MAX;
        if !room || check_name(&format!("{name_prefix}x")).is_err() {
            return Err(IssuerFault::NamePrefix { id: own(), prefix: name_prefix.to_owned() });
        }
        if !(1..=ANCHORS_MAX).contains(&anchors.len()) {
            return Err(IssuerFault::AnchorCount { id: own(), count: anchors.len() });
        }
        let anchors = (1..)
            .zip(anchors)
            .map(|(number, der)| Anchor::new(id, number, der))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            id: Arc::from(id),
            trust_domain: trust_domain.into(),
            roles: roles.into(),
            name_prefix: name_prefix.into(),
            anchors,
        })
    }

    /// Its id: what [`Identity::issuer`] says.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Checks that this issuer may name `identity`.
    pub(super) fn check_binding(&self, identity: &Identity) -> Result<(), CertificateRefusal> {
        if identity.trust_domain() != &*self.trust_domain {
            return Err(CertificateRefusal::TrustDomainNotBound {
                issuer: self.id.clone(),
                bound: self.trust_domain.clone(),
                claimed: identity.trust_domain().into(),
            });
        }
        if !self.roles.contains(&identity.role()) {
            return Err(CertificateRefusal::RoleNotBound {
                issuer: self.id.clone(),
                role: identity.role(),
            });
        }
        if !identity.name().starts_with(&*self.name_prefix) {
            return Err(CertificateRefusal::NameNotBound {
                issuer: self.id.clone(),
                prefix: self.name_prefix.clone(),
            });
        }
        Ok(())
    }

    /// Builds a path from `end_entity` to an anchor of this issuer, valid at `now`; that anchor.
    fn vouch(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<&Arc<[u8]>, CertificateRefusal> {
        let mut closest = CertificateRefusal::UnknownIssuer;
        for anchor in &self.anchors {
            let refusal = match anchor.path.verify_client_cert(end_entity, intermediates, now) {
                // webpki takes an anchor for valid at any time.
                Ok(_) if !(anchor.not_before..=anchor.not_after).contains(&nanos(now)) => {
                    CertificateRefusal::AnchorNotValid { issuer: self.id.clone() }
                }
                Ok(_) => return Ok(&anchor.der),
                Err(error) => path_refusal(&error),
            };
            closest = closer(closest, refusal);
        }
        Err(closest)
    }
}

impl Anchor {
    fn new(id: &str, number: usize, der: &CertificateDer<'_>) -> Result<Self, IssuerFault> {
        let not_ca = || IssuerFault::NotCa { id: id.to_owned(), number };
        let parsed = certificate::parse(der).map_err(|_| not_ca())?;
        // A keyUsage is not demanded of other people's old roots; if there is one, it counts.
        let usage = parsed.key_usage().map_err(|_| not_ca())?;
        let may_sign = usage.is_none_or(|usage| usage.value.key_cert_sign());
        if !certificate::is_ca(&parsed).map_err(|_| not_ca())? || !may_sign {
            return Err(not_ca());
        }
        let fault = |source| IssuerFault::Anchor { id: id.to_owned(), number, source };
        let mut roots = RootCertStore::empty();
        roots.add(der.clone().into_owned()).map_err(|error| fault(error.into()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let path = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| fault(error.into()))?;
        Ok(Self {
            der: Arc::from(der.as_ref()),
            subject: parsed.subject().as_raw().to_vec(),
            public_key: parsed.public_key().raw.to_vec(),
            not_before: certificate::nanos(parsed.validity().not_before),
            not_after: certificate::nanos(parsed.validity().not_after),
            path,
        })
    }

    /// Whether both are the same anchor to a path builder: same subject, same key.
    fn is_same(&self, other: &Self) -> bool {
        self.subject == other.subject && self.public_key == other.public_key
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchor").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Issuers {
    /// All issuers of a broker.
    ///
    /// # Errors
    /// [`IssuerFault::Count`], [`IssuerFault::Id`] for an id used twice,
    /// [`IssuerFault::SharedAnchor`].
    pub fn new(issuers: Vec<Issuer>) -> Result<Self, IssuerFault> {
        if !(1..=ISSUERS_MAX).contains(&issuers.len()) {
            return Err(IssuerFault::Count(issuers.len()));
        }
        let mut rest = issuers.iter();
        while let Some(one) = rest.next() {
            for other in rest.clone() {
                if one.id == other.id {
                    return Err(IssuerFault::Id { id: one.id.to_string() });
                }
                if one.anchors.iter().any(|a| other.anchors.iter().any(|b| a.is_same(b))) {
                    return Err(IssuerFault::SharedAnchor {
                        first: one.id.to_string(),
                        second: other.id.to_string(),
                    });
                }
            }
        }
        let anchors = issuers.iter().flat_map(|issuer| &issuer.anchors);
        let hints = anchors.flat_map(|anchor| anchor.path.root_hint_subjects()).cloned().collect();
        Ok(Self { issuers, hints })
    }

    /// The subject names that a server tells clients it accepts.
    pub(super) fn hints(&self) -> &[DistinguishedName] {
        &self.hints
    }

    /// The signature algorithms that are accepted, on certificates and in handshakes.
    pub(super) fn algorithms() -> WebPkiSupportedAlgorithms {
        aws_lc_rs::default_provider().signature_verification_algorithms
    }

    /// The one issuer that vouches for `end_entity` at `now`, and the anchor by which it does.
    ///
    /// # Errors
    /// The refusal of the issuer that came closest, or [`CertificateRefusal::AmbiguousIssuer`].
    pub(super) fn vouching(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(&Issuer, &Arc<[u8]>), CertificateRefusal> {
        let mut vouching: Option<(&Issuer, &Arc<[u8]>)> = None;
        let mut closest = CertificateRefusal::UnknownIssuer;
        for issuer in &self.issuers {
            match (issuer.vouch(end_entity, intermediates, now), vouching) {
                (Ok(anchor), None) => vouching = Some((issuer, anchor)),
                (Ok(_), Some((first, _))) => {
                    return Err(CertificateRefusal::AmbiguousIssuer {
                        first: first.id.clone(),
                        second: issuer.id.clone(),
                    });
                }
                // It would have vouched: no issuer above it may take its place.
                (Err(refusal @ CertificateRefusal::AnchorNotValid { .. }), _) => {
                    return Err(refusal);
                }
                (Err(refusal), _) => closest = closer(closest, refusal),
            }
        }
        vouching.ok_or(closest)
    }
}

/// Why a path builder refused. It only ever refuses for the certificate.
fn path_refusal(error: &rustls::Error) -> CertificateRefusal {
    CertificateRefusal::of(error).unwrap_or_else(|| CertificateRefusal::PathNotValid {
        detail: super::refusal::quote(&error.to_string()),
    })
}

/// Of two refusals the one that helps more: "unknown" and then "bad signature" mean that this was
/// not the issuer at all (a namesake fails with the latter); the rest, that it was.
fn closer(one: CertificateRefusal, other: CertificateRefusal) -> CertificateRefusal {
    let rank = |refusal: &CertificateRefusal| match refusal {
        CertificateRefusal::UnknownIssuer => 0,
        CertificateRefusal::BadSignature => 1,
        _ => 2,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{Plant, ders};

    fn issuer(plant: &Plant, id: &str, prefix: &str) -> Result<Issuer, IssuerFault> {
        Issuer::new(id, "plant.example", &[Role::Device], prefix, &ders(&plant.root))
    }

    #[test]
    fn two_issuers_neither_share_an_id_nor_a_ca() {
        let (one, other) = (Plant::new("a"), Plant::new("a"));
        let pair = |a, b| Issuers::new(vec![a, b]);
        let (a, b) = (issuer(&one, "a", "").unwrap(), issuer(&one, "b", "").unwrap());
        assert!(matches!(pair(a, b), Err(IssuerFault::SharedAnchor { .. })));
        let (a, b) = (issuer(&one, "a", "").unwrap(), issuer(&other, "a", "").unwrap());
        assert!(matches!(pair(a, b), Err(IssuerFault::Id { .. })));
        let (a, b) = (issuer(&one, "a", "").unwrap(), issuer(&other, "b", "").unwrap());
        assert!(pair(a, b).is_ok());
        assert!(matches!(Issuers::new(Vec::new()), Err(IssuerFault::Count(0))));
    }

    #[test]
    fn an_issuer_is_bound_to_something_that_can_be_named() {
        let plant = Plant::new("a");
        assert!(issuer(&plant, "a", "press-").is_ok());
        assert!(matches!(issuer(&plant, "", ""), Err(IssuerFault::Id { .. })));
        assert!(matches!(issuer(&plant, "a", "a/"), Err(IssuerFault::NamePrefix { .. })));
        let long = "a".repeat(NAME_BYTES_MAX);
        assert!(matches!(issuer(&plant, "a", &long), Err(IssuerFault::NamePrefix { .. })));
        let none = Issuer::new("a", "plant.example", &[], "", &ders(&plant.root));
        assert!(matches!(none, Err(IssuerFault::NoRole { .. })));
        let domain = Issuer::new("a", "Plant", &[Role::Device], "", &ders(&plant.root));
        assert!(matches!(domain, Err(IssuerFault::TrustDomain { .. })));
    }

    #[test]
    fn only_a_ca_is_an_anchor() {
        let plant = Plant::new("a");
        let with = |anchors: &[CertificateDer<'_>]| {
            Issuer::new("a", "plant.example", &[Role::Device], "", anchors)
        };
        let chain = ders(&plant.client(Role::Device, "a"));
        assert!(matches!(with(&chain), Err(IssuerFault::NotCa { number: 1, .. })));
        assert!(matches!(with(&[]), Err(IssuerFault::AnchorCount { count: 0, .. })));
        let many = vec![ders(&plant.root)[0].clone(); ANCHORS_MAX + 1];
        assert!(matches!(with(&many), Err(IssuerFault::AnchorCount { .. })));
        assert!(with(&many[..ANCHORS_MAX]).is_ok());
    }
}

//! What a peer is called: a SPIFFE name with a role in it.

use std::fmt;
use std::sync::Arc;

/// Longest trust domain, in bytes (the SPIFFE specification's bound).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// Longest name within a role, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// What a peer may be. A closed list: a policy names roles, a certificate carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A thing that publishes telemetry.
    Device,
    /// A person or service that reads.
    Dashboard,
    /// A person or service that provisions and operates.
    Operator,
    /// A person or service that reads the log and nothing else.
    Auditor,
}

impl Role {
    /// Every role, in the order of declaration.
    pub const ALL: [Self; 4] = [Self::Device, Self::Dashboard, Self::Operator, Self::Auditor];

    /// The path segment of this role in a SPIFFE ID, and its name in the policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Dashboard => "dashboard",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }

    /// The role whose path segment is `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Who a peer is: the URI subjectAltName of its verified end entity certificate,
/// `spiffe://<trust domain>/<role>/<name>`, together with the issuer that vouched for it.
///
/// Two peers are the same peer exactly when their `Identity` values are equal, so the same
/// SPIFFE ID under another issuer is another identity. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<Inner>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Inner {
    uri: String,
    trust_domain_end: usize,
    name_start: usize,
    role: Role,
    issuer: Arc<str>,
}

/// Why a text is not a name that Avow accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The URI does not start with `spiffe://`.
    #[error("`{0}` does not start with `spiffe://`")]
    Scheme(String),
    /// The trust domain is empty, too long or has a character outside `a-z 0-9 . - _`.
    #[error("the trust domain `{0}` must be 1 to 255 characters of a-z, 0-9, '.', '-', '_'")]
    TrustDomain(String),
    /// The path is not `/<role>/<name>`.
    #[error(
        "the path `{0}` is not `/<role>/<name>`; roles are device, dashboard, operator, auditor"
    )]
    Path(String),
    /// The name is empty, too long or has a character outside `A-Z a-z 0-9 . - _`.
    #[error(
        "the name `{0}` must be 1 to 128 characters of A-Z, a-z, 0-9, '.', '-', '_', and neither `.` nor `..`"
    )]
    Name(String),
}

impl Identity {
    /// Reads a SPIFFE ID of our form, vouched for by `issuer` (the configured issuer's id).
    ///
    /// This checks the form only. That a certificate really carries it is the business of
    /// [`super::certificate`].
    pub fn parse(uri: &str, issuer: &str) -> Result<Self, NameError> {
        let rest = uri.strip_prefix("spiffe://").ok_or_else(|| NameError::Scheme(clip(uri)))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| NameError::Path(clip(rest)))?;
        check_trust_domain(domain)?;
        let (role, name) = path.split_once('/').ok_or_else(|| NameError::Path(clip(path)))?;
        let role = Role::parse(role).ok_or_else(|| NameError::Path(clip(path)))?;
        check_name(name)?;
        Ok(Self(Arc::new(Inner {
            trust_domain_end: "spiffe://".len() + domain.len(),
            name_start: uri.len() - name.len(),
            uri: uri.to_owned(),
            role,
            issuer: Arc::from(issuer),
        })))
    }

    /// The name of `role`/`name` in `trust_domain`.
    pub fn new(
        trust_domain: &str,
        role: Role,
        name: &str,
        issuer: &str,
    ) -> Result<Self, NameError> {
        check_name(name)?;
        Self::parse(&format!("spiffe://{trust_domain}/{}/{name}", role.as_str()), issuer)
    }

    /// The whole SPIFFE ID.
    pub fn uri(&self) -> &str {
        &self.0.uri
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        self.0.uri.get("spiffe://".len()..self.0.trust_domain_end).unwrap_or_default()
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// The name within the role: what `${device}` stands for in a policy.
    pub fn name(&self) -> &str {
        self.0.uri.get(self.0.name_start..).unwrap_or_default()
    }

    /// The id of the configured issuer that vouched for this identity.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.uri)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} by {})", self.0.uri, self.0.issuer)
    }
}

/// Checks a trust domain; see [`NameError::TrustDomain`].
pub fn check_trust_domain(domain: &str) -> Result<(), NameError> {
    let fits = (1..=TRUST_DOMAIN_BYTES_MAX).contains(&domain.len());
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    if fits && domain.bytes().all(plain) {
        Ok(())
    } else {
        Err(NameError::TrustDomain(clip(domain)))
    }
}

/// Checks a name within a role; see [`NameError::Name`]. What passes can stand in a topic, a
/// file name and a URL without escaping.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    if fits && name.bytes().all(plain) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(NameError::Name(clip(name)))
    }
}

/// A peer's text may be long and hostile: errors quote at most 64 characters of it, escaped.
fn clip(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_falls_into_its_parts() {
        let id = Identity::parse("spiffe://plant.example/device/press-7", "plant").unwrap();
        assert_eq!(
            (id.trust_domain(), id.role(), id.name(), id.issuer()),
            ("plant.example", Role::Device, "press-7", "plant")
        );
    }

    #[test]
    fn the_same_name_under_another_issuer_is_another_identity() {
        let ours = Identity::parse("spiffe://p/device/a", "one").unwrap();
        let theirs = Identity::parse("spiffe://p/device/a", "two").unwrap();
        assert_ne!(ours, theirs);
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "https://p/device/a",
            "spiffe://",
            "spiffe:///device/a",
            "spiffe://p/device",
            "spiffe://p/device/",
            "spiffe://p/device/a/b",
            "spiffe://p/admin/a",
            "spiffe://P/device/a",
            "spiffe://p/device/a+b",
            "spiffe://p/device/#",
            "spiffe://p/device/..",
            "spiffe://p/device/a%2Fb",
            "spiffe://p/device/é",
        ] {
            assert!(Identity::parse(bad, "x").is_err(), "{bad} was accepted");
        }
        let long = format!("spiffe://p/device/{}", "a".repeat(NAME_BYTES_MAX));
        assert!(Identity::parse(&long, "x").is_ok());
        assert!(Identity::parse(&format!("{long}a"), "x").is_err());
    }
}

//! The certificate profiles in `certs/`: what each kind of certificate says, checked at load.
//!
//! A profile is a TOML file. The shipped ones are compiled in ([`Profiles::shipped`]); a broker's
//! directory may bring its own ([`Profile::parse`]). Invariant: a [`Profile`] never makes
//! [`super::authority`] issue what [`super::verifier`] refuses, nor a server certificate that
//! could pass for a client's.
//!
//! Not here: reading the files, issuing. RFC 5280 sections 4.1.2.5 and 4.2.1.

use serde::Deserialize;

use super::name::Role;

/// Longest lifetime of a CA, in days.
pub const CA_DAYS_MAX: u32 = 7_300;
/// Longest lifetime of an end entity certificate, in days.
pub const END_ENTITY_DAYS_MAX: u32 = 398;
/// Furthest that notBefore may lie in the past, in seconds.
pub const BACKDATE_SECONDS_MAX: u32 = 86_400;
/// Most names that a profile puts into each server certificate.
pub const HOSTS_MAX: usize = 32;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileKind {
    /// The root CA.
    Root,
    /// The issuing CA.
    Issuing,
    /// A server.
    Server,
    /// A client in this role.
    Client(Role),
}

/// What the certificates of one kind say. Made by [`Profile::parse`] only, so it is consistent.
#[derive(Clone, Debug)]
pub struct Profile {
    pub(super) kind: ProfileKind,
    pub(super) text: ProfileText,
}

/// A profile for each kind.
#[derive(Clone, Debug)]
pub struct Profiles {
    /// For the root CA.
    pub root: Profile,
    /// For the issuing CA.
    pub issuing: Profile,
    /// For servers.
    pub server: Profile,
    /// For devices.
    pub device: Profile,
    /// For dashboards.
    pub dashboard: Profile,
    /// For operators.
    pub operator: Profile,
    /// For auditors.
    pub auditor: Profile,
}

/// Why a profile does not load.
#[derive(Debug, thiserror::Error)]
pub enum ProfileFault {
    /// It is not TOML, or a field is unknown, missing or of another type.
    #[error("{file}: {source}")]
    Syntax {
        /// The file.
        file: String,
        /// Line, column and field.
        source: Box<toml::de::Error>,
    },
    /// A field has a value that this kind of certificate must not have.
    #[error("{file}: `{field}` must {must}")]
    Field {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
        /// What it must do.
        must: &'static str,
    },
}

/// A profile as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileText {
    pub(super) validity_days: u32,
    pub(super) backdate_seconds: u32,
    pub(super) path_length: Option<u8>,
    pub(super) key_usage: Vec<KeyUsage>,
    pub(super) extended_key_usage: Vec<ExtendedKeyUsage>,
    pub(super) subject_alt_name: SubjectAltName,
    #[serde(default)]
    pub(super) hosts: Vec<String>,
}

/// The key usages that are issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum KeyUsage {
    #[serde(rename = "digitalSignature")]
    DigitalSignature,
    #[serde(rename = "keyCertSign")]
    KeyCertSign,
    #[serde(rename = "cRLSign")]
    CrlSign,
}

/// The extended key usages that are issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum ExtendedKeyUsage {
    #[serde(rename = "serverAuth")]
    ServerAuth,
    #[serde(rename = "clientAuth")]
    ClientAuth,
}

/// The forms of subjectAltName that are issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SubjectAltName {
    None,
    Hosts,
    Spiffe,
}

impl ProfileKind {
    /// The name of its file in `certs/`.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Root => "root.toml",
            Self::Issuing => "issuing.toml",
            Self::Server => "server.toml",
            Self::Client(Role::Device) => "device.toml",
            Self::Client(Role::Dashboard) => "dashboard.toml",
            Self::Client(Role::Operator) => "operator.toml",
            Self::Client(Role::Auditor) => "auditor.toml",
        }
    }

    /// The shipped profile, as text.
    pub const fn shipped_text(self) -> &'static str {
        match self {
            Self::Root => include_str!("../../certs/root.toml"),
            Self::Issuing => include_str!("../../certs/issuing.toml"),
            Self::Server => include_str!("../../certs/server.toml"),
            Self::Client(Role::Device) => include_str!("../../certs/device.toml"),
            Self::Client(Role::Dashboard) => include_str!("../../certs/dashboard.toml"),
            Self::Client(Role::Operator) => include_str!("../../certs/operator.toml"),
            Self::Client(Role::Auditor) => include_str!("../../certs/auditor.toml"),
        }
    }
}

impl Profile {
    /// Reads `text`, which is `file`, as the profile of `kind`.
    ///
    /// # Errors
    /// A [`ProfileFault`] that names the file and the field.
    pub fn parse(kind: ProfileKind, file: &str, text: &str) -> Result<Self, ProfileFault> {
        let text: ProfileText = toml::from_str(text).map_err(|source| ProfileFault::Syntax {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
        match text.broken_rule(kind) {
            None => Ok(Self { kind, text }),
            Some((field, must)) => Err(ProfileFault::Field { file: file.to_owned(), field, must }),
        }
    }

    /// The shipped profile of `kind`.
    ///
    /// # Errors
    /// None in a program whose tests ran: they load every shipped profile.
    pub fn shipped(kind: ProfileKind) -> Result<Self, ProfileFault> {
        Self::parse(kind, &format!("certs/{}", kind.file_name()), kind.shipped_text())
    }

    /// What it is for.
    pub fn kind(&self) -> ProfileKind {
        self.kind
    }

    /// The same with another lifetime, in days; `None` if that is 0 or longer than its kind may
    /// live.
    pub fn with_validity_days(mut self, days: u32) -> Option<Self> {
        let is_ca = matches!(self.kind, ProfileKind::Root | ProfileKind::Issuing);
        let days_max = if is_ca { CA_DAYS_MAX } else { END_ENTITY_DAYS_MAX };
        self.text.validity_days = days;
        (1..=days_max).contains(&days).then_some(self)
    }

    /// The lifetime it gives, in days.
    pub fn validity_days(&self) -> u32 {
        self.text.validity_days
    }
}

impl Profiles {
    /// The profiles that are compiled in.
    ///
    /// # Errors
    /// See [`Profile::shipped`].
    pub fn shipped() -> Result<Self, ProfileFault> {
        Self::load(Profile::shipped)
    }

    /// The profiles that `load` gives, one call for each kind.
    ///
    /// # Errors
    /// The first of `load`.
    pub fn load<E>(load: impl Fn(ProfileKind) -> Result<Profile, E>) -> Result<Self, E> {
        Ok(Self {
            root: load(ProfileKind::Root)?,
            issuing: load(ProfileKind::Issuing)?,
            server: load(ProfileKind::Server)?,
            device: load(ProfileKind::Client(Role::Device))?,
            dashboard: load(ProfileKind::Client(Role::Dashboard))?,
            operator: load(ProfileKind::Client(Role::Operator))?,
            auditor: load(ProfileKind::Client(Role::Auditor))?,
        })
    }

    /// The profile of clients in `role`.
    pub fn client(&self, role: Role) -> &Profile {
        match role {
            Role::Device => &self.device,
            Role::Dashboard => &self.dashboard,
            Role::Operator => &self.operator,
            Role::Auditor => &self.auditor,
        }
    }
}

impl ProfileText {
    /// The first rule of `kind` that this breaks: the field, and what it must do.
    fn broken_rule(&self, kind: ProfileKind) -> Option<(&'static str, &'static str)> {
        use ExtendedKeyUsage::{ClientAuth, ServerAuth};
        let is_ca = matches!(kind, ProfileKind::Root | ProfileKind::Issuing);
        let signs = |usage| self.key_usage.contains(&usage);
        let extended = self.extended_key_usage.as_slice();
        let days = 1..=if is_ca { CA_DAYS_MAX } else { END_ENTITY_DAYS_MAX };
        let usages = if is_ca {
            let must = "list `keyCertSign` and not `digitalSignature`: a CA signs certificates";
            (signs(KeyUsage::KeyCertSign) && !signs(KeyUsage::DigitalSignature), must)
        } else {
            let must = "be `digitalSignature` alone: an end entity signs handshakes";
            (self.key_usage == [KeyUsage::DigitalSignature], must)
        };
        let (path, purposes, names, hosts) = match kind {
            ProfileKind::Root => (
                (self.path_length >= Some(1), "be at least 1: the issuing CA stands below"),
                (extended.is_empty(), "be empty for a CA"),
                (SubjectAltName::None, "be `none` for a CA"),
                0..=0,
            ),
            ProfileKind::Issuing => (
                (self.path_length == Some(0), "be 0: no CA stands below the issuing CA"),
                (extended.is_empty(), "be empty for a CA"),
                (SubjectAltName::None, "be `none` for a CA"),
                0..=0,
            ),
            ProfileKind::Server => (
                (self.path_length.is_none(), "be absent: a server is not a CA"),
                (extended == [ServerAuth], "be `serverAuth` alone: a server is not a client"),
                (SubjectAltName::Hosts, "be `hosts` for a server"),
                0..=HOSTS_MAX,
            ),
            ProfileKind::Client(_) => (
                (self.path_length.is_none(), "be absent: a client is not a CA"),
                (extended == [ClientAuth], "be `clientAuth` alone: a client is not a server"),
                (SubjectAltName::Spiffe, "be `spiffe` for a client"),
                0..=0,
            ),
        };
        [
            (
                days.contains(&self.validity_days),
                "validity_days",
                "be 1 to 398, for a CA 1 to 7300",
            ),
            (self.backdate_seconds <= BACKDATE_SECONDS_MAX, "backdate_seconds", "be 0 to 86400"),
            (path.0, "path_length", path.1),
            (usages.0, "key_usage", usages.1),
            (purposes.0, "extended_key_usage", purposes.1),
            (self.subject_alt_name == names.0, "subject_alt_name", names.1),
            (hosts.contains(&self.hosts.len()), "hosts", "be at most 32 names, of a server only"),
        ]
        .into_iter()
        .find_map(|(holds, field, must)| (!holds).then_some((field, must)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_loads() {
        let profiles = Profiles::shipped().unwrap();
        assert_eq!(profiles.client(Role::Device).validity_days(), 30);
        assert_eq!(profiles.server.validity_days(), 90);
    }

    #[test]
    fn an_error_names_the_file_and_the_field() {
        let kind = ProfileKind::Client(Role::Device);
        let swap = |from, to| {
            let text = kind.shipped_text().replace(from, to);
            assert_ne!(text, kind.shipped_text());
            Profile::parse(kind, "certs/device.toml", &text).unwrap_err().to_string()
        };
        insta::assert_snapshot!(
            swap("\"clientAuth\"", "\"serverAuth\""),
            @"certs/device.toml: `extended_key_usage` must be `clientAuth` alone: \
              a client is not a server"
        );
        insta::assert_snapshot!(
            swap("validity_days = 30", "validity_days = 399"),
            @"certs/device.toml: `validity_days` must be 1 to 398, for a CA 1 to 7300"
        );
        let unknown = swap("validity_days", "validity_day");
        assert!(unknown.contains("certs/device.toml") && unknown.contains("validity_day"));
        assert!(unknown.contains("line 2"), "{unknown}");
    }

    #[test]
    fn no_profile_stands_in_for_another_kind() {
        use ProfileKind as K;
        let kinds = [K::Root, K::Issuing, K::Server, K::Client(Role::Device)];
        for kind in kinds {
            for other in kinds {
                let loaded = Profile::parse(kind, "x", other.shipped_text());
                assert_eq!(loaded.is_ok(), kind == other, "{other:?} as {kind:?}");
            }
        }
    }
}

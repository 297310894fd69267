//! `[audit_api]`: whether and where auditors read the log over HTTPS.

use std::net::SocketAddr;

use super::section::Section;
use super::sections::{At, Found, narrow};

pub(super) const AUDIT_API: &[&str] = &["address", "connections_max", "requests_per_second"];

/// `[audit_api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditApiConfig {
    /// Where to listen.
    pub address: SocketAddr,
    /// Connections at once.
    pub connections_max: u32,
    /// Requests of one identity per second.
    pub requests_per_second: u32,
}

pub(super) fn read((table, span): At<'_>, problems: &mut Found) -> Option<AuditApiConfig> {
    let mut s = Section::new(table, span, "[audit_api]", AUDIT_API, problems);
    let connections_max = narrow(s.count("connections_max", 16, 1..=1_024));
    let requests_per_second = narrow(s.count("requests_per_second", 50, 1..=10_000));
    let address = s.address("address")?;
    Some(AuditApiConfig { address, connections_max, requests_per_second })
}

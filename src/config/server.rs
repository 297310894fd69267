//! `[server]`: what the broker says of itself, and where it sends its clients.
//!
//! What a value means is [`crate::broker::About`]'s. All of it has a default.

use toml::de::DeTable;

use super::section::Section;
use super::sections::{At, Found, narrow};
use crate::broker::About;

/// Longest interval of `$SYS`, in seconds: an hour.
const SYS_INTERVAL_MAX: u64 = 3_600;
/// Longest Server Reference, in bytes: a list of a few hosts.
const REFERENCE_BYTES_MAX: usize = 1_024;

const SERVER: &[&str] = &["sys_interval", "reference"];

/// Every field, for the test that the shipped file shows them all.
#[cfg(test)]
pub(super) const EVERY_FIELD: &[&str] = SERVER;

/// Reads `[server]`; all of it is the default where there is none.
pub(super) fn read(at: Option<At<'_>>, problems: &mut Found) -> About {
    let empty = DeTable::new();
    let (table, span) = at.unwrap_or((&empty, 0..0));
    let mut s = Section::new(table, span, "[server]", SERVER, problems);
    let default = About::default();
    let reference = s.text(
        "reference",
        "empty, or hosts with their ports, a space between them",
        "\"standby.plant.example:8883\"",
        is_reference,
    );
    About {
        sys_interval_seconds: narrow(s.seconds(
            "sys_interval",
            default.sys_interval_seconds.into(),
            0..=SYS_INTERVAL_MAX,
        )),
        server_reference: reference.filter(|text| !text.is_empty()).map(Into::into),
    }
}

/// Hosts with ports, a space between two (section 4.11): `a.example:8883 [2001:db8::1]:8883`.
fn is_reference(text: &str) -> bool {
    let is_host = |host: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(plain),
        }
    };
    let is_server = |server: &str| {
        server.rsplit_once(':').is_some_and(|(host, port)| {
            is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    text.is_empty() || (text.len() <= REFERENCE_BYTES_MAX && text.split(' ').all(is_server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_hosts_with_ports() {
        for good in
            ["", "a.example:8883", "127.0.0.1:1", "[2001:db8::1]:8883", "a:1 b-2.example:65535"]
        {
            assert!(is_reference(good), "{good}");
        }
        let long = format!("{}:1", "a".repeat(REFERENCE_BYTES_MAX - 2));
        assert!(is_reference(&long) && !is_reference(&format!("a{long}")));
        for bad in [
            " ", "a", "a:", ":1", "a:0", "a:65536", "a:1  b:1", "a:1 ", "[::g]:1", "::1:1", "a\n:1",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}

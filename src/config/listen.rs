//! `[listen]` and `[listen.websocket]`: where Network Connections come in, and through what.
//!
//! An Origin is compared byte by byte later, so it is taken here only in the one form in which
//! browsers write it. A proxy is believed about addresses, so nobody is trusted as one by default,
//! and never everybody.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use toml::de::DeTable;

use super::problem::ConfigProblem;
use super::section::Section;
use super::sections::{Found, KIB, MIB, narrow};
use super::value::clip;
use super::{ClientCertificate, Listen, Proxy, ProxyProtocol, WebSocketListen};
use crate::limits::Network;

pub(super) const LISTEN: &[&str] = &[
    "mqtt",
    "handshakes_max",
    "connect_timeout",
    "connections_max",
    "proxy_protocol",
    "trusted_proxies",
    "websocket",
];

pub(super) const WEBSOCKET: &[&str] = &[
    "address",
    "path",
    "origins",
    "allow_no_origin",
    "client_certificate",
    "message_bytes_max",
    "proxy_protocol",
    "trusted_proxies",
];

/// Most Origins, and most blocks of trusted proxies.
const LISTED_MAX: usize = 64;

type At<'t> = (&'t DeTable<'t>, Range<usize>);

pub(super) fn listen((table, span): At<'_>, packet_bytes_max: u32, problems: &mut Found) -> Listen {
    let mut s = Section::new(table, span, "[listen]", LISTEN, problems);
    let seconds = Duration::from_secs;
    let mut listen = Listen {
        mqtt: s.address("mqtt").unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8883))),
        handshakes_max: narrow(s.count("handshakes_max", 256, 1..=16_384)),
        connect_timeout: s.duration("connect_timeout", seconds(10), seconds(1)..=seconds(60)),
        connections_max: narrow(s.count("connections_max", 10_000, 1..=1_000_000)),
        proxy: proxy(&mut s),
        websocket: None,
    };
    let at_websocket = s.table("websocket");
    listen.websocket = at_websocket.map(|at| websocket(at, packet_bytes_max, problems));
    listen
}

fn websocket(
    (table, span): At<'_>,
    packet_bytes_max: u32,
    problems: &mut Found,
) -> WebSocketListen {
    let mut s = Section::new(table, span, "[listen.websocket]", WEBSOCKET, problems);
    let path = s.text("path", "a path of A-Z a-z 0-9 / . - _", "\"/mqtt\"", is_path);
    let certificates = [
        ("required", ClientCertificate::Required),
        ("optional", ClientCertificate::Optional),
        ("none", ClientCertificate::None),
    ];
    let mut websocket = WebSocketListen {
        address: s.address("address").unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8884))),
        path: path.unwrap_or_else(|| "/mqtt".to_owned()),
        origins: Vec::new(),
        allow_no_origin: s.switch("allow_no_origin", false),
        client_certificate: s.choice(
            "client_certificate",
            ClientCertificate::Required,
            &certificates,
        ),
        message_bytes_max: narrow(s.bytes("message_bytes_max", MIB, KIB..=16 * MIB)),
        proxy: proxy(&mut s),
    };
    websocket.origins = origins(&mut s, websocket.allow_no_origin);
    if websocket.message_bytes_max < packet_bytes_max {
        s.report(s.span_of("message_bytes_max"), ConfigProblem::MessageBelowPacket);
    }
    websocket
}

fn is_path(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/.-_".contains(&b);
    text.starts_with('/') && text.len() <= 128 && text.bytes().all(plain)
}

fn origins(s: &mut Section<'_, '_>, may_be_none: bool) -> Vec<String> {
    let texts = s.texts("origins");
    if texts.is_empty() && !may_be_none {
        s.report(s.span_of("origins"), ConfigProblem::NoOrigin);
    }
    if texts.len() > LISTED_MAX {
        let too_many = ConfigProblem::TooManyListed { field: "origins", max: LISTED_MAX };
        s.report(s.span_of("origins"), too_many);
    }
    let mut origins = Vec::new();
    for text in texts {
        if is_origin(text.get_ref()) {
            origins.push((*text.get_ref()).to_owned());
        } else {
            s.report(text.span(), ConfigProblem::Origin { text: clip(text.get_ref()) });
        }
    }
    origins
}

/// Whether `text` is how a browser writes the Origin of a page that may be let in: `https`, or
/// `http` of this very machine, which nobody on the way can alter.
fn is_origin(text: &str) -> bool {
    let (authority, default_port, is_plain) = match text.split_once("://") {
        Some(("https", authority)) => (authority, "443", false),
        Some(("http", authority)) => (authority, "80", true),
        _ => return false,
    };
    let end_of_host = authority.find(']').map_or(0, |at| at + 1);
    let Some((bracketed, rest)) = authority.split_at_checked(end_of_host) else { return false };
    let (name, port) = match rest.split_once(':') {
        None => (rest, None),
        Some((name, port)) => (name, Some(port)),
    };
    let host_is_good = if bracketed.is_empty() {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        (1..=253).contains(&name.len()) && name.bytes().all(plain)
    } else {
        let address = bracketed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let parsed = address.and_then(|text| text.parse::<std::net::Ipv6Addr>().ok());
        name.is_empty() && parsed.is_some_and(|parsed| address == Some(&parsed.to_string()))
    };
    let port_is_good = port.is_none_or(|port| {
        let number = port.parse::<u16>().ok();
        port != default_port && number.is_some_and(|number| number.to_string() == port)
    });
    let is_here = matches!(bracketed, "[::1]") || matches!(name, "localhost" | "127.0.0.1");
    host_is_good && port_is_good && (!is_plain || is_here)
}

/// `proxy_protocol` and `trusted_proxies` of either section.
fn proxy(s: &mut Section<'_, '_>) -> Option<Proxy> {
    let versions =
        [("off", None), ("v1", Some(ProxyProtocol::V1)), ("v2", Some(ProxyProtocol::V2))];
    let protocol = s.choice("proxy_protocol", None, &versions);
    let texts = s.texts("trusted_proxies");
    if texts.len() > LISTED_MAX {
        let too_many = ConfigProblem::TooManyListed { field: "trusted_proxies", max: LISTED_MAX };
        s.report(s.span_of("trusted_proxies"), too_many);
    }
    let is_listed = !texts.is_empty();
    let mut trusted = Vec::new();
    for text in texts {
        match Network::parse(text.get_ref()) {
            Some(network) if network.is_everything() => {
                s.report(text.span(), ConfigProblem::ProxiesEverybody);
            }
            Some(network) => trusted.push(network),
            None => {
                let problem = ConfigProblem::Unreadable {
                    field: "trusted_proxies",
                    text: clip(text.get_ref()),
                    expected: "an address or a block of addresses",
                    example: "[\"127.0.0.1/32\"]",
                };
                s.report(text.span(), problem);
            }
        }
    }
    match protocol {
        None if is_listed => {
            s.report(s.span_of("trusted_proxies"), ConfigProblem::ProxiesWithoutProtocol);
            None
        }
        Some(_) if !is_listed => {
            s.report(s.span_of("proxy_protocol"), ConfigProblem::ProtocolWithoutProxies);
            None
        }
        protocol => protocol.map(|protocol| Proxy { protocol, trusted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_form() {
        for good in [
            "https://plant.example",
            "https://plant.example:8443",
            "https://127.0.0.1",
            "https://[2001:db8::7]:8443",
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:3000",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "plant.example",
            "https://",
            "https://*",
            "https://*.plant.example",
            "https://plant.example/",
            "https://plant.example/dash",
            "https://Plant.example",
            "https://pflanze\u{f6}.example",
            "https://plant.example:443",
            "https://plant.example:",
            "https://plant.example:08443",
            "https://plant.example:65536",
            "https://user@plant.example",
            "https://[2001:DB8::7]",
            "https://[::1",
            "https://[::1]x",
            "http://plant.example",
            "http://localhost:80",
            "wss://plant.example",
            "HTTPS://plant.example",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}

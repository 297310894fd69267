//! The PROXY protocol, versions 1 and 2: the address of a client whose connection a proxy carries.
//!
//! The header stands before TLS and nothing vouches for it, so it is read only from addresses that
//! the configuration trusts, and only in the version that it names: a receiver that guesses can be
//! made to take a client's bytes for a header. Exactly the header is taken from the socket; what
//! follows belongs to TLS. Of version 2 the TLVs are walked and ignored.
//!
//! Not here: whose connections a proxy may carry, and what an address may do. Invariant: whatever
//! the bytes, at most [`V1_BYTES_MAX`] or [`V2_BYTES_MAX`] of them are held.
//! Specification: `proxy-protocol.txt` of HAProxy, sections 2.1 and 2.2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::options::ProxyVersion;

/// Longest header of version 1, line end included, in bytes.
const V1_BYTES_MAX: usize = 107;
/// Longest header of version 2, TLVs included, in bytes: what the specification asks every
/// receiver to take in one piece (the least TCP segment).
const V2_BYTES_MAX: usize = 536;
/// The first part of a header of version 2: signature, version, command, family, length.
const V2_HEAD_BYTES: usize = 16;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The connection is this client's.
    Client(SocketAddr),
    /// The connection is the proxy's own, or the proxy does not know: the socket's address holds.
    Socket,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyRefusal {
    /// The peer may not send one.
    Untrusted,
    /// These bytes are none of the configured version.
    Malformed,
    /// A header that is longer than the bound.
    TooLong,
    /// The connection ended first.
    Closed,
}

impl ProxyRefusal {
    /// Its stable name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Untrusted => "proxy.untrusted",
            Self::Malformed => "proxy.malformed",
            Self::TooLong => "proxy.too_long",
            Self::Closed => "io.closed",
        }
    }
}

impl From<io::Error> for ProxyRefusal {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Takes one header of `version` from `socket`, and nothing behind it. Waits as long as it takes:
/// the caller has the deadline.
pub(super) async fn read_header(
    socket: &mut TcpStream,
    version: ProxyVersion,
) -> Result<Source, ProxyRefusal> {
    match version {
        ProxyVersion::V1 => read_v1(socket).await,
        ProxyVersion::V2 => read_v2(socket).await,
    }
}

async fn read_v1(socket: &mut TcpStream) -> Result<Source, ProxyRefusal> {
    let mut line = Vec::with_capacity(V1_BYTES_MAX);
    loop {
        // Looked at first, because the line's end is not known and TLS begins right behind it.
        let mut ahead = [0; V1_BYTES_MAX];
        let room = ahead.get_mut(line.len()..).unwrap_or_default();
        if room.is_empty() {
            return Err(ProxyRefusal::TooLong);
        }
        let seen = socket.peek(room).await?;
        if seen == 0 {
            return Err(ProxyRefusal::Closed);
        }
        let seen = room.get(..seen).unwrap_or_default();
        let end = seen.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(seen.len(), |at| at + 1);
        let from = line.len();
        line.resize(from + take, 0);
        socket.read_exact(line.get_mut(from..).unwrap_or_default()).await?;
        if end.is_some() {
            return parse_v1(&line).ok_or(ProxyRefusal::Malformed);
        }
        // A client that speaks TLS at once, or anything else, is not read to the bound.
        if !line.starts_with(b"PROXY ".get(..line.len()).unwrap_or(b"PROXY ")) {
            return Err(ProxyRefusal::Malformed);
        }
    }
}

async fn read_v2(socket: &mut TcpStream) -> Result<Source, ProxyRefusal> {
    let mut head = [0; V2_HEAD_BYTES];
    socket.read_exact(&mut head).await?;
    let head = V2Head::parse(&head).ok_or(ProxyRefusal::Malformed)?;
    let length = usize::from(head.length);
    if length > V2_BYTES_MAX - V2_HEAD_BYTES {
        return Err(ProxyRefusal::TooLong);
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    head.source(&body).ok_or(ProxyRefusal::Malformed)
}

/// Reads a line of version 1, its end included.
fn parse_v1(line: &[u8]) -> Option<Source> {
    let line = line.strip_suffix(b"\r\n")?;
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?;
    // What follows UNKNOWN is to be ignored.
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(Source::Socket);
    }
    let mut words = rest.split(' ');
    let mut word = || words.next();
    let (family, source, destination) = (word()?, word()?, word()?);
    let (port, _) = (port(word()?)?, port(word()?)?);
    if word().is_some() {
        return None;
    }
    let address = match family {
        "TCP4" => {
            let _: Ipv4Addr = destination.parse().ok()?;
            IpAddr::V4(source.parse().ok()?)
        }
        "TCP6" => {
            let _: Ipv6Addr = destination.parse().ok()?;
            IpAddr::V6(source.parse().ok()?)
        }
        _ => return None,
    };
    Some(Source::Client(SocketAddr::new(address, port)))
}

/// A decimal number without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if plain && !leading_zero { text.parse().ok() } else { None }
}

/// The beginning of a header of version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct V2Head {
    is_local: bool,
    /// Address family and transport.
    family: u8,
    /// Bytes that follow.
    length: u16,
}

impl V2Head {
    fn parse(head: &[u8; V2_HEAD_BYTES]) -> Option<Self> {
        let &[version_and_command, family, high, low] = head.strip_prefix(V2_SIGNATURE)? else {
            return None;
        };
        let is_local = match version_and_command {
            0x20 => true,
            0x21 => false,
            _ => return None,
        };
        Some(Self { is_local, family, length: u16::from_be_bytes([high, low]) })
    }

    fn source(self, body: &[u8]) -> Option<Source> {
        // A health check of the proxy: whatever it says of addresses is to be ignored.
        if self.is_local {
            return Some(Source::Socket);
        }
        let (source, tlvs) = match self.family {
            0x00 => (Source::Socket, body),
            0x11 => {
                let (addresses, tlvs) = body.split_first_chunk::<12>()?;
                let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
                (client(Ipv4Addr::new(a, b, c, d), [high, low]), tlvs)
            }
            0x21 => {
                let (source, rest) = body.split_first_chunk::<16>()?;
                let (_destination, rest) = rest.split_first_chunk::<16>()?;
                let (&[high, low, _, _], tlvs) = rest.split_first_chunk::<4>()?;
                (client(Ipv6Addr::from(*source), [high, low]), tlvs)
            }
            // UDP and Unix sockets: this is a listener of TCP.
            _ => return None,
        };
        tlvs_fit(tlvs).then_some(source)
    }
}

fn client(address: impl Into<IpAddr>, port: [u8; 2]) -> Source {
    Source::Client(SocketAddr::new(address.into(), u16::from_be_bytes(port)))
}

/// Whether every TLV ends within the header.
fn tlvs_fit(mut rest: &[u8]) -> bool {
    while let Some((&[_kind, high, low], behind)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(next) = behind.get(length..) else { return false };
        rest = next;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests;

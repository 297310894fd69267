//! The least of an MQTT client, by hand, over real mutual TLS: it sends any bytes and shows what
//! comes back.
//!
//! Blocking, with a deadline on every read. It checks nothing: that is the broker's to do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::Bundle;

/// Longest wait for the broker's next byte.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// 3.1.1 or 5.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

/// A connection.
pub(crate) struct Raw {
    stream: StreamOwned<ClientConnection, TcpStream>,
    version: Version,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A Control Packet: its first byte, and what follows the Remaining Length.
    Packet(u8, Vec<u8>),
    /// The broker closed the connection, or the TLS beneath it.
    Closed,
}

/// A TCP connection whose reads and writes have a deadline.
pub(crate) fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, ANSWER_WITHIN).unwrap();
    socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
    socket.set_write_timeout(Some(ANSWER_WITHIN)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// TLS on `socket`; the handshake comes with the first bytes.
pub(crate) fn secure(
    socket: TcpStream,
    tls: Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(tls, name).unwrap(), socket)
}

/// Trusts the broker as `trusting` does, shows the certificate of `showing`, if any.
pub(crate) fn tls(trusting: &Bundle, showing: Option<&Bundle>) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut anchors = RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(&trusting.read("ca.pem")) {
        anchors.add(anchor.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(anchors);
    let config = match showing {
        None => builder.with_no_client_auth(),
        Some(bundle) => {
            let path: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&bundle.read("cert.pem")).collect();
            let key = PrivateKeyDer::from_pem_slice(&bundle.read("key.pem")).unwrap();
            builder.with_client_auth_cert(path.unwrap(), key).unwrap()
        }
    };
    Arc::new(config)
}

impl Raw {
    /// Connects without sending anything.
    pub(crate) fn open(address: SocketAddr, tls: Arc<ClientConfig>, version: Version) -> Self {
        Self { stream: secure(socket(address), tls), version }
    }

    /// Begins TLS and MQTT on a socket that may have been used for something else.
    pub(crate) fn over(socket: TcpStream, tls: Arc<ClientConfig>, version: Version) -> Self {
        Self { stream: secure(socket, tls), version }
    }

    /// Connects as `bundle`, with its name as Client Identifier, and takes the CONNACK.
    pub(crate) fn connected(address: SocketAddr, bundle: &Bundle, version: Version) -> Self {
        let mut raw = Self::open(address, tls(bundle, Some(bundle)), version);
        assert!(raw.send(&connect(version, &bundle.name)));
        let Answer::Packet(0x20, body) = raw.answer() else { panic!("no CONNACK") };
        assert_eq!(body.get(1), Some(&0), "CONNACK says {body:02x?}");
        raw
    }

    /// Sends bytes; `false` if the connection is gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    /// Sends a PUBLISH.
    pub(crate) fn publish(&mut self, topic: &str, qos: u8, id: u16, payload: &[u8]) -> bool {
        let packet = publish(self.version, topic, qos, id, payload);
        self.send(&packet)
    }

    /// The next answer. Fails if the broker says nothing for ten seconds.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.read_answer().unwrap_or(Answer::Closed)
    }

    /// The Reason Code and Reason String of the next answer, which must be a 5.0 PUBACK or PUBREC
    /// for `id`.
    #[track_caller]
    pub(crate) fn acknowledged(&mut self, id: u16) -> (u8, Option<String>) {
        let answer = self.answer();
        let Answer::Packet(0x40 | 0x50, body) = &answer else { panic!("{answer:02x?}") };
        assert_eq!(body.get(..2), Some(&id.to_be_bytes()[..]), "{body:02x?}");
        let reason = body.get(2).copied().unwrap_or(0);
        (reason, reason_string(body.get(3..).unwrap_or_default()))
    }

    /// Reads until the broker closes; everything that came before.
    #[track_caller]
    pub(crate) fn until_closed(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut packets = Vec::new();
        while let Answer::Packet(kind, body) = self.answer() {
            packets.push((kind, body));
            assert!(packets.len() < 100, "it goes on: {packets:02x?}");
        }
        packets
    }

    #[track_caller]
    fn read_answer(&mut self) -> Option<Answer> {
        let kind = self.byte()?;
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        Some(Answer::Packet(kind, body))
    }

    #[track_caller]
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Some(byte[0])
    }

    /// `None` if the connection is gone.
    #[track_caller]
    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer within {ANSWER_WITHIN:?}")
            }
            Err(_) => None,
        }
    }
}

/// The Reason String among properties that begin with their length.
fn reason_string(properties: &[u8]) -> Option<String> {
    // Below 128 bytes the length is one byte, and the broker puts no property before it.
    let rest = properties.get(1..)?.strip_prefix(&[0x1f])?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let text = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    Some(String::from_utf8(text.to_vec()).unwrap())
}

/// A CONNECT that asks for a clean session and a Keep Alive of a minute.
pub(crate) fn connect(version: Version, client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    let level = match version {
        Version::V3 => 4,
        Version::V5 => 5,
    };
    body.extend([level, 0x02, 0, 60]);
    if version == Version::V5 {
        body.push(0);
    }
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// A PUBLISH without RETAIN and properties. QoS 0 has no Packet Identifier.
pub(crate) fn publish(version: Version, topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(payload);
    packet(0x30 | (qos << 1), &body)
}

/// A Control Packet: first byte, Remaining Length, the rest.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).unwrap();
        length /= 128;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

pub(crate) fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text.as_bytes());
}

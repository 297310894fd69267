//! A client that sends any bytes over mutual TLS and shows whole packets as they came.
//!
//! Blocking, with a deadline on every read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::bytes::{CLEAN, CLOSED, Version, connect, field, unsuback, unsubscribe};
use super::site::Site;

/// Longest wait for the broker's next byte.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Packet Identifier and filter of the fence.
const FENCE: (u16, &str) = (0xFFFE, "t/fence");

/// One Network Connection.
pub(super) struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    pub(super) version: Version,
}

impl Client {
    /// Shakes hands as the device `name`; sends nothing.
    pub(super) fn open(site: &Site, name: &str, version: Version) -> Self {
        Self::open_with(site, site.tls(name), version)
    }

    /// Shakes hands with this TLS; sends nothing.
    pub(super) fn open_with(site: &Site, tls: Arc<rustls::ClientConfig>, version: Version) -> Self {
        let socket = TcpStream::connect_timeout(&site.address(), ANSWER_WITHIN).unwrap();
        socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        socket.set_write_timeout(Some(ANSWER_WITHIN)).unwrap();
        socket.set_nodelay(true).unwrap();
        let host = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(tls, host).unwrap();
        Self { stream: StreamOwned::new(tls, socket), version }
    }

    /// Opens, sends `connect` and takes the CONNACK, which is returned as it came.
    #[track_caller]
    pub(super) fn connect(
        site: &Site,
        name: &str,
        version: Version,
        connect: &[u8],
    ) -> (Self, Vec<u8>) {
        let mut client = Self::open(site, name, version);
        client.send(connect);
        let connack = client.next();
        (client, connack)
    }

    /// A clean session of `name` under a Client Identifier of that name, accepted.
    #[track_caller]
    pub(super) fn clean(site: &Site, name: &str, version: Version) -> Self {
        let packet = connect(version, CLEAN, b"", &[&field(name)]);
        let (client, connack) = Self::connect(site, name, version, &packet);
        assert_eq!((connack.first(), connack.get(3)), (Some(&0x20), Some(&0)), "{connack:02x?}");
        client
    }

    /// A session of `name` that outlives its connection, resumed if there is one; whether it was.
    #[track_caller]
    pub(super) fn lasting(site: &Site, name: &str, version: Version) -> (Self, bool) {
        let packet = connect(version, 0, b"\x11\x00\x00\x00\x3C", &[&field(name)]);
        let (client, connack) = Self::connect(site, name, version, &packet);
        assert_eq!((connack.first(), connack.get(3)), (Some(&0x20), Some(&0)), "{connack:02x?}");
        (client, connack[2] == 1)
    }

    /// Sends bytes. That the broker closed meanwhile is seen at the next read.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// The next packet, whole, or [`CLOSED`]. Fails if nothing comes for ten seconds.
    #[track_caller]
    pub(super) fn next(&mut self) -> Vec<u8> {
        self.read_packet().unwrap_or_else(|| CLOSED.to_vec())
    }

    /// Sends and returns the next packet.
    #[track_caller]
    pub(super) fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.next()
    }

    /// Everything up to the end of the connection.
    #[track_caller]
    pub(super) fn until_closed(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(packet) = self.read_packet() {
            packets.push(packet);
            assert!(packets.len() < 1_000, "it goes on");
        }
        packets
    }

    /// Everything that was sent before the answer to an UNSUBSCRIBE, which waits for the disk like
    /// every answer and so cannot overtake one.
    #[track_caller]
    pub(super) fn fence(&mut self) -> Vec<Vec<u8>> {
        self.send(&unsubscribe(self.version, FENCE.0, &[FENCE.1]));
        let end = unsuback(self.version, FENCE.0, &[0x11]);
        let mut packets = Vec::new();
        loop {
            let packet = self.next();
            assert_ne!(packet, CLOSED, "closed after {packets:02x?}");
            if packet == end {
                return packets;
            }
            packets.push(packet);
        }
    }

    #[track_caller]
    fn read_packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = Vec::new();
        self.read_into(&mut packet, 1)?;
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            self.read_into(&mut packet, 1)?;
            let byte = *packet.last()?;
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        self.read_into(&mut packet, length)?;
        Some(packet)
    }

    /// `None` if the connection is gone.
    #[track_caller]
    fn read_into(&mut self, packet: &mut Vec<u8>, count: usize) -> Option<()> {
        let start = packet.len();
        packet.resize(start + count, 0);
        match self.stream.read_exact(&mut packet[start..]) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer within {ANSWER_WITHIN:?}")
            }
            Err(_) => None,
        }
    }
}

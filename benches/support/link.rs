//! One mutual-TLS Network Connection of the generator: opened blocking, then driven by events.
//!
//! Cheap on purpose: one `read` takes all that came, one `write` sends many packets. What it counts is left to its caller.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::failure::{Failure, io};
use super::field::Subscription;
use super::wire;

/// How long the broker may take to answer while a connection is opened.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A connection that the broker has accepted.
pub(crate) struct Link {
    socket: TcpStream,
    tls: ClientConnection,
    inbox: Vec<u8>,
}

impl Link {
    /// Connects as `client_id` and, if asked, subscribes to a Topic Filter.
    pub(crate) fn open(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        client_id: &str,
        subscription: Option<(&str, Subscription)>,
    ) -> Result<Self, Failure> {
        let name = ServerName::IpAddress(address.ip().into());
        let mut tls = ClientConnection::new(config, name)?;
        let mut socket = std::net::TcpStream::connect(address).map_err(io("connect"))?;
        socket.set_nodelay(true).map_err(io("set TCP_NODELAY"))?;
        socket.set_read_timeout(Some(ANSWER_MAX)).map_err(io("set a timeout"))?;
        let mut inbox = Vec::new();
        let (expiry_seconds, qos) = subscription.map_or((0, 0), |(_, subscription)| {
            (subscription.expiry_seconds(), subscription.qos())
        });
        let connect = wire::connect(client_id, expiry_seconds);
        ask(&mut socket, &mut tls, &mut inbox, &connect, wire::CONNACK, 0)?;
        if let Some((filter, _)) = subscription {
            let subscribe = wire::subscribe(filter, qos);
            ask(&mut socket, &mut tls, &mut inbox, &subscribe, wire::SUBACK, qos)?;
        }
        socket.set_nonblocking(true).map_err(io("set non-blocking"))?;
        Ok(Self { socket: TcpStream::from_std(socket), tls, inbox })
    }

    /// Lets `poll` say when this connection can be read or written.
    pub(crate) fn register(&mut self, poll: &mio::Poll, token: usize) -> Result<(), Failure> {
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        let registry = poll.registry();
        registry.register(&mut self.socket, mio::Token(token), interest).map_err(io("register"))
    }

    /// Seals whole packets into a record, or as few as they fit into, for the next flush.
    pub(crate) fn queue(&mut self, packets: &[u8]) -> Result<(), Failure> {
        self.tls.writer().write_all(packets).map_err(io("buffer packets"))
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(io("write")(error)),
            }
        }
        Ok(())
    }

    /// Reads what came, through `buffer`, and hands every whole packet to `on_packet`.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        mut on_packet: impl FnMut(u8, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let read = match self.socket.read(buffer) {
                Ok(0) => return Err(Failure::Closed),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(io("read")(error)),
            };
            let mut bytes = buffer.get(..read).unwrap_or_default();
            while !bytes.is_empty() {
                self.tls.read_tls(&mut bytes).map_err(io("buffer records"))?;
                take_plaintext(&mut self.tls, &mut self.inbox)?;
            }
            let mut rest = self.inbox.as_slice();
            while let Some((first, body, after)) = wire::split(rest) {
                on_packet(first, body)?;
                rest = after;
            }
            let taken = self.inbox.len() - rest.len();
            self.inbox.drain(..taken);
            // epoll(7): a short read of a stream says that it is drained.
            if read < buffer.len() {
                return Ok(());
            }
        }
    }
}

fn take_plaintext(tls: &mut ClientConnection, inbox: &mut Vec<u8>) -> Result<(), Failure> {
    let ready = tls.process_new_packets()?.plaintext_bytes_to_read();
    let mut reader = tls.reader().take(u64::try_from(ready).unwrap_or(u64::MAX));
    reader.read_to_end(inbox).map_err(io("take plaintext"))?;
    Ok(())
}

/// Sends `packet` and waits for the answer of type `expected`, which must say `granted`: 0, or the
/// QoS asked for.
fn ask(
    socket: &mut std::net::TcpStream,
    tls: &mut ClientConnection,
    inbox: &mut Vec<u8>,
    packet: &[u8],
    expected: u8,
    granted: u8,
) -> Result<(), Failure> {
    tls.writer().write_all(packet).map_err(io("buffer a packet"))?;
    loop {
        while tls.wants_write() {
            tls.write_tls(socket).map_err(io("write"))?;
        }
        if let Some((first, body, after)) = wire::split(inbox) {
            let code = match (first, body) {
                (wire::CONNACK, [_, code, ..]) if expected == first => *code,
                (wire::SUBACK, [.., code]) if expected == first => *code,
                _ => return Err(Failure::Unexpected("another packet than the answer")),
            };
            if code != granted {
                let what = if first == wire::CONNACK { "CONNECT" } else { "SUBSCRIBE" };
                return Err(Failure::Refused(what, code));
            }
            let taken = inbox.len() - after.len();
            inbox.drain(..taken);
            return Ok(());
        }
        if tls.read_tls(socket).map_err(io("read an answer"))? == 0 {
            return Err(Failure::Closed);
        }
        take_plaintext(tls, inbox)?;
    }
}

//! One Network Connection of a client: TLS, CONNECT, packets in and out.
#![expect(clippy::disallowed_methods, reason = "a client opens sockets")]

use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ClientFailure;
use super::arguments::{ConnectionArguments, Target};
use crate::mqtt::{
    ClientId, ConnAckProperties, Connect, ConnectProperties, Decoded, Decoder, Disconnect,
    DisconnectProperties, Packet, ProtocolVersion, ReasonCode, encode,
};

/// How long each step to a connection may take, and each answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest packet a client takes, in bytes.
const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An open connection, after CONNACK.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
    input: Vec<u8>,
    version: ProtocolVersion,
    /// Properties of CONNACK.
    pub(super) server: ConnAckProperties,
}

impl Connection {
    /// Connects, shakes hands, sends CONNECT and waits for CONNACK.
    pub(super) async fn open(
        target: &Target,
        arguments: &ConnectionArguments,
    ) -> Result<Self, ClientFailure> {
        let stream = open_tls(target).await?;
        let mut connection = Self {
            stream,
            decoder: Decoder::client(target.version, PACKET_BYTES_MAX),
            input: Vec::new(),
            version: target.version,
            server: ConnAckProperties::default(),
        };
        connection.send(&Packet::Connect(Box::new(connect(target, arguments)))).await?;
        match connection.answer("CONNACK").await? {
            Packet::ConnAck(ack) if !ack.reason.is_error() => connection.server = ack.properties,
            Packet::ConnAck(ack) => {
                return Err(ClientFailure::Refused {
                    what: format!("CONNECT as `{}`", crate::cli::show::escape(&target.client_id)),
                    reason: ack.reason,
                    text: ack.properties.reason_string,
                });
            }
            _ => return Err(ClientFailure::Silent("CONNACK")),
        }
        Ok(connection)
    }

    /// Sends one packet.
    pub(super) async fn send(&mut self, packet: &Packet) -> Result<(), ClientFailure> {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes)?;
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match written.await {
            Ok(()) => Ok(()),
            // The broker may have said why before it closed.
            Err(error) => match timeout(ANSWER_TIMEOUT, self.receive()).await {
                Ok(Err(said @ ClientFailure::Refused { .. })) => Err(said),
                _ => Err(ClientFailure::Closed(Some(error))),
            },
        }
    }

    /// The next packet; a DISCONNECT is a refusal. Cancel safe: bytes that were read stay.
    pub(super) async fn receive(&mut self) -> Result<Packet, ClientFailure> {
        loop {
            if !self.input.is_empty()
                && let Decoded::Packet { packet, consumed } = self.decoder.decode(&self.input)?
            {
                self.input.drain(..consumed);
                return match packet {
                    Packet::Disconnect(disconnect) => Err(ClientFailure::Refused {
                        what: "connection".to_owned(),
                        reason: disconnect.reason,
                        text: disconnect.properties.reason_string,
                    }),
                    packet => Ok(packet),
                };
            }
            self.input.reserve(16 * 1024);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(ClientFailure::Closed(None)),
                Ok(_) => {}
                Err(error) => return Err(ClientFailure::Closed(Some(error))),
            }
        }
    }

    /// The next packet, within the time an answer may take.
    pub(super) async fn answer(&mut self, what: &'static str) -> Result<Packet, ClientFailure> {
        timeout(ANSWER_TIMEOUT, self.receive()).await.unwrap_or(Err(ClientFailure::Silent(what)))
    }

    /// Says goodbye and waits until the broker has read it.
    pub(super) async fn close(mut self) -> Result<(), ClientFailure> {
        let reason = ReasonCode::Success;
        let properties = DisconnectProperties::default();
        self.send(&Packet::Disconnect(Box::new(Disconnect { reason, properties }))).await?;
        // What was sent is lost if we reset the connection with the broker's bytes unread.
        let drained = async {
            let _ = self.stream.shutdown().await;
            while self.receive().await.is_ok() {}
        };
        let _ = timeout(Duration::from_secs(2), drained).await;
        Ok(())
    }
}

async fn open_tls(target: &Target) -> Result<TlsStream<TcpStream>, ClientFailure> {
    let (host, port) = (target.host.clone(), target.port);
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    let tcp = timeout(ANSWER_TIMEOUT, TcpStream::connect((host.as_str(), port)))
        .await
        .unwrap_or_else(|_| Err(late()))
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|source| ClientFailure::Unreachable { host: host.clone(), port, source })?;
    let name = ServerName::try_from(host.clone())
        .map_err(|_| ClientFailure::Usage("-h must be a host name or an IP address"))?;
    timeout(ANSWER_TIMEOUT, TlsConnector::from(target.tls.clone()).connect(name, tcp))
        .await
        .unwrap_or_else(|_| Err(late()))
        .map_err(|source| ClientFailure::Handshake { host, source })
}

fn connect(target: &Target, arguments: &ConnectionArguments) -> Connect {
    let v5 = target.version.is_v5();
    Connect {
        version: target.version,
        clean_start: !arguments.disable_clean_session,
        keep_alive_seconds: arguments.keepalive,
        client_id: ClientId::new(&target.client_id),
        will: None,
        user_name: arguments.username.clone(),
        password: arguments.password.clone().map(Bytes::from),
        properties: ConnectProperties {
            session_expiry_seconds: arguments.session_expiry_interval.filter(|_| v5),
            user_properties: if v5 { target.user_properties.clone() } else { Vec::new() },
            ..ConnectProperties::default()
        },
    }
}

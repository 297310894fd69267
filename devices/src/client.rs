//! One MQTT connection of one device, over mutual TLS.
//!
//! A [`Client`] is a cheap handle; a task owns the socket and the protocol engine. Several
//! publishes may be in flight, at most the window of [`ConnectOptions`]. A client does not
//! reconnect and keeps no session over connections: whoever owns it decides what a lost
//! connection means.
//!
//! The invariant: every accepted call is answered exactly once, by the broker's answer or by the
//! reason why the connection ended.

use avow_signer::{LINK_PROPERTY, STATEMENT_PROPERTY};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mqtt_protocol_core::mqtt::result_code::MqttError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

mod driver;
mod packets;
mod session;
mod tls;

/// Received messages that wait for the application, in messages. When they are that many the
/// client stops reading, so the broker sees back-pressure.
pub const MESSAGES_WAITING_MAX: usize = 1_024;

/// Calls that wait for the connection's task.
const COMMANDS_WAITING_MAX: usize = 256;

/// The MQTT version a device speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
pub enum Version {
    /// MQTT 3.1.1. Its PUBACK cannot say no.
    #[serde(rename = "3.1.1")]
    V3_1_1,
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    V5_0,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V3_1_1 => "3.1.1",
            Self::V5_0 => "5.0",
        })
    }
}

/// A quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(try_from = "u8")]
pub enum Qos {
    /// QoS 0: never acknowledged.
    AtMostOnce,
    /// QoS 1: PUBACK.
    AtLeastOnce,
    /// QoS 2: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce,
}

impl TryFrom<u8> for Qos {
    type Error = QosOutOfRange;

    fn try_from(value: u8) -> Result<Self, QosOutOfRange> {
        match value {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            other => Err(QosOutOfRange(other)),
        }
    }
}

/// A number that is no QoS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a QoS is 0, 1 or 2, not {0}")]
pub struct QosOutOfRange(pub u8);

/// What a peer needs for mutual TLS, as PEM. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The trust anchors the broker's certificate must lead to.
    pub ca_pem: Vec<u8>,
    /// The end entity certificate, with the intermediate ones after it.
    pub cert_pem: Vec<u8>,
    /// The private key of the end entity certificate.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Where to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The broker's listener.
    pub addr: SocketAddr,
    /// The name that the broker's certificate must carry.
    pub server_name: String,
    /// The client's own credentials.
    pub credentials: Credentials,
}

/// An Application Message to publish, or a Will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The Topic Name.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The quality of service asked for.
    pub qos: Qos,
    /// The RETAIN flag.
    pub retain: bool,
    /// What its device states with it, in a user property; 5.0 only.
    pub statement: Option<Stated>,
}

/// A user property of a device that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stated {
    /// The statement about this message.
    Statement(String),
    /// Its place in a batch that is signed for later.
    Link(String),
}

impl Stated {
    /// Name and value.
    pub(crate) fn property(&self) -> (&'static str, &str) {
        match self {
            Self::Statement(value) => (STATEMENT_PROPERTY, value),
            Self::Link(value) => (LINK_PROPERTY, value),
        }
    }
}

/// An Application Message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The Topic Name.
    pub topic: String,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
    /// The quality of service it was delivered with.
    pub qos: Qos,
    /// The RETAIN flag: set on what was retained before the subscription.
    pub retain: bool,
    /// The DUP flag.
    pub dup: bool,
}

/// The contents of CONNECT and the bounds of the client.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The MQTT version.
    pub version: Version,
    /// The Client Identifier; may be empty when `clean` is set.
    pub client_id: String,
    /// Keep alive, in seconds; 0 turns it off.
    pub keep_alive_secs: u16,
    /// Clean Session (3.1.1) or Clean Start (5.0).
    pub clean: bool,
    /// Session Expiry Interval, in seconds; 5.0 only.
    pub session_expiry_secs: u32,
    /// The Will.
    pub will: Option<Message>,
    /// Publishes in flight, in messages; at least 1. The broker's Receive Maximum lowers it.
    pub window_messages_max: u16,
    /// How long TCP, TLS and CONNACK may take together.
    pub deadline: Duration,
}

impl ConnectOptions {
    /// A clean 60-second-keep-alive connection with 16 publishes in flight and 10 seconds to
    /// connect.
    pub fn new(version: Version, client_id: impl Into<String>) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            keep_alive_secs: 60,
            clean: true,
            session_expiry_secs: 0,
            will: None,
            window_messages_max: 16,
            deadline: Duration::from_secs(10),
        }
    }
}

/// How the broker answered a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The Reason Code. 0x00 where the protocol has none: 3.1.1, and QoS 0, which is answered
    /// when its bytes are handed to the connection.
    pub reason_code: u8,
    /// The Reason String, if there was one.
    pub reason: Option<String>,
    /// From handing the PUBLISH to the connection until its last acknowledgement.
    pub latency: Duration,
}

impl Acknowledgement {
    /// Whether the broker took the message.
    pub const fn accepted(&self) -> bool {
        self.reason_code < 0x80
    }
}

/// Why a connection could not be made, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The client's own PEM files or names are unusable.
    #[error("credentials: {detail}")]
    Credentials {
        /// What is wrong, without key material.
        detail: String,
    },
    /// No TCP connection.
    #[error("no TCP connection: {detail}")]
    Unreachable {
        /// The system's words.
        detail: String,
    },
    /// The client refused the broker's certificate.
    #[error("the broker's certificate is not trusted: {detail}")]
    ServerNotTrusted {
        /// rustls' words.
        detail: String,
    },
    /// The broker ended the connection before CONNACK. In TLS 1.3 a refused client certificate
    /// shows only after the client's handshake is complete, so this covers both.
    #[error("ended by the broker before CONNACK: {detail}")]
    TlsRefused {
        /// The alert, or how the connection ended.
        detail: String,
    },
    /// A CONNACK that says no.
    #[error("CONNACK {reason_code:#04x} {}", reason.as_deref().unwrap_or(""))]
    Refused {
        /// Reason Code (5.0) or return code (3.1.1).
        reason_code: u8,
        /// The Reason String, if there was one.
        reason: Option<String>,
    },
    /// The broker sent DISCONNECT.
    #[error("DISCONNECT {reason_code:#04x} {}", reason.as_deref().unwrap_or(""))]
    Disconnected {
        /// The Reason Code.
        reason_code: u8,
        /// The Reason String, if there was one.
        reason: Option<String>,
    },
    /// The connection ended without a DISCONNECT.
    #[error("connection closed: {detail}")]
    Closed {
        /// The system's words.
        detail: String,
    },
    /// This side ended the connection.
    #[error("disconnected by this side")]
    Finished,
    /// Nothing came back in time.
    #[error("no answer in time while {waiting_for}")]
    Timeout {
        /// What was waited for.
        waiting_for: &'static str,
    },
    /// The protocol engine refused to send or could not read a packet.
    #[error("protocol engine: {0}")]
    Protocol(MqttError),
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, ClientError>>;

/// What a handle asks of the connection's task.
pub(crate) enum Command {
    Publish { message: Message, permit: OwnedSemaphorePermit, answer: Answer<Acknowledgement> },
    Subscribe { filters: Vec<(String, Qos)>, answer: Answer<Vec<u8>> },
    Disconnect,
}

/// A handle on one connection. Clones share it; the last one dropped closes the socket without
/// DISCONNECT, so that the broker publishes the Will.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    window: Arc<Semaphore>,
    ended: watch::Receiver<Option<ClientError>>,
    session_present: bool,
}

/// The messages that arrive on a connection, in order.
#[derive(Debug)]
pub struct Messages(mpsc::Receiver<Received>);

impl Messages {
    /// The next message; `None` after the connection ended and all was read.
    pub async fn next(&mut self) -> Option<Received> {
        self.0.recv().await
    }
}

/// A place in the window of a connection.
pub(crate) struct Room {
    permit: OwnedSemaphorePermit,
    slot: mpsc::OwnedPermit<Command>,
    ended: watch::Receiver<Option<ClientError>>,
}

impl Room {
    /// Publishes one message in this place, without waiting.
    pub(crate) fn send(self, message: Message) -> InFlight {
        let (answer, answered) = oneshot::channel();
        self.slot.send(Command::Publish { message, permit: self.permit, answer });
        InFlight { answer: answered, ended: self.ended }
    }
}

/// The answer that a publish in flight will get.
#[derive(Debug)]
pub struct InFlight {
    answer: oneshot::Receiver<Result<Acknowledgement, ClientError>>,
    ended: watch::Receiver<Option<ClientError>>,
}

impl InFlight {
    /// Waits for the acknowledgement.
    ///
    /// # Errors
    /// Why the connection ended before it came.
    pub async fn acknowledged(self) -> Result<Acknowledgement, ClientError> {
        self.answer.await.unwrap_or_else(|_| Err(reason_of(&self.ended)))
    }
}

impl Client {
    /// Connects with TCP, mutual TLS and CONNECT, and waits for CONNACK.
    ///
    /// # Errors
    /// [`ClientError::TlsRefused`] when the broker ends it before CONNACK,
    /// [`ClientError::Refused`] when CONNACK says no, and the local reasons.
    pub async fn connect(
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> Result<(Self, Messages), ClientError> {
        let connected = tokio::time::timeout(options.deadline, driver::connect(endpoint, options));
        let (driver, session_present) =
            connected.await.map_err(|_| ClientError::Timeout { waiting_for: "connecting" })??;
        let (commands, commands_in) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (messages_out, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
        let (ended_out, ended) = watch::channel(None);
        tokio::spawn(driver.run(commands_in, messages_out, ended_out));
        let window = Arc::new(Semaphore::new(usize::from(options.window_messages_max.max(1))));
        Ok((Self { commands, window, ended, session_present }, Messages(messages)))
    }

    /// Whether CONNACK said that the broker has a session for this client.
    pub const fn session_present(&self) -> bool {
        self.session_present
    }

    /// Publishes one message and waits for the broker's answer.
    ///
    /// # Errors
    /// Why there was none. A negative answer is an [`Acknowledgement`], not an error.
    pub async fn publish(&self, message: Message) -> Result<Acknowledgement, ClientError> {
        self.send(message).await?.acknowledged().await
    }

    /// Publishes one message as soon as the window has room, and does not wait for the answer.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send(&self, message: Message) -> Result<InFlight, ClientError> {
        Ok(self.room().await?.send(message))
    }

    /// Waits for a place in the window. A place that is dropped is free again.
    pub(crate) async fn room(&self) -> Result<Room, ClientError> {
        let window = Arc::clone(&self.window);
        let permit = window.acquire_owned().await.map_err(|_| reason_of(&self.ended))?;
        let commands = self.commands.clone();
        let slot = commands.reserve_owned().await.map_err(|_| reason_of(&self.ended))?;
        Ok(Room { permit, slot, ended: self.ended.clone() })
    }

    /// Subscribes to Topic Filters, each with a maximum QoS, in one SUBSCRIBE; returns the Reason
    /// Codes of SUBACK in the same order.
    ///
    /// # Errors
    /// The connection ended before SUBACK, or a filter is malformed.
    pub async fn subscribe(&self, filters: Vec<(String, Qos)>) -> Result<Vec<u8>, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Subscribe { filters, answer }).await?;
        answered.await.unwrap_or_else(|_| Err(reason_of(&self.ended)))
    }

    /// Sends DISCONNECT and waits until the socket is closed.
    pub async fn disconnect(self) {
        if self.command(Command::Disconnect).await.is_ok() {
            self.ended().await;
        }
    }

    /// Waits until the connection ends, and says why.
    pub async fn ended(&self) -> ClientError {
        let mut ended = self.ended.clone();
        // An error means that the task is gone, which is an end as well.
        let _ = ended.wait_for(Option::is_some).await;
        reason_of(&ended)
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| reason_of(&self.ended))
    }
}

fn reason_of(ended: &watch::Receiver<Option<ClientError>>) -> ClientError {
    let reason = ended.borrow().clone();
    reason.unwrap_or_else(|| ClientError::Closed { detail: "its task ended".to_owned() })
}

//! What a server is started with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::writing::StartWriter;
use crate::broker::Broker;
use crate::identity::Issuers;
use crate::limits::{AddressLimiter, Network};
use crate::time::Now;

/// Makes the core of the shard with this number, on that shard's thread, beginning now.
pub type MakeBroker = Arc<dyn Fn(u16, Now) -> Broker + Send + Sync>;

/// What a server is started with.
pub struct ServerOptions {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// TLS as `tls::server_config` makes it.
    pub tls: Arc<rustls::ServerConfig>,
    /// Whether proxies stand before `listen`, and which.
    pub proxy: Option<ProxyOptions>,
    /// MQTT over WebSocket, if it is served.
    pub websocket: Option<WebSocketOptions>,
    /// Whom `tls` trusts, for the second look after the handshake.
    pub issuers: Arc<Issuers>,
    /// Bounds the connects of an address over time.
    pub address_limiter: AddressLimiter,
    /// Threads that serve connections; at least 1.
    pub shards: u16,
    /// The bounds.
    pub bounds: Bounds,
    /// The process's clock.
    pub clock: super::Clock,
    /// Where to serve `/metrics` and `/healthz`, if anywhere.
    pub metrics: Option<MetricsOptions>,
    /// Whether SIGTERM and SIGINT stop the server. A process has one such server at most.
    pub handle_signals: bool,
}

/// What a server needs of whoever has read the log.
pub struct Core {
    /// Makes the core of each shard.
    pub broker: MakeBroker,
    /// Starts the writer.
    pub writer: StartWriter,
}

/// Where MQTT over WebSocket is served, and to whom.
pub struct WebSocketOptions {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// TLS as `tls::websocket_config` makes it.
    pub tls: Arc<rustls::ServerConfig>,
    /// The one path that is served.
    pub path: String,
    /// The Origins of the pages that may connect, as browsers write them: `https://host` or
    /// `https://host:port`, in lower case.
    pub origins: Vec<String>,
    /// Whether a client that names no Origin may connect; a browser always names one.
    pub allow_no_origin: bool,
    /// Whether a client without a certificate comes as far as CONNECT, where a token may name it.
    pub takes_tokens: bool,
    /// Longest message of a connection that has sent CONNECT, in bytes.
    pub message_bytes_max: usize,
    /// Whether proxies stand before `listen`, and which.
    pub proxy: Option<ProxyOptions>,
}

/// Which proxies tell whose connections they carry, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// How.
    pub version: ProxyVersion,
    /// Which; every other peer is refused.
    pub trusted: Vec<Network>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Where to serve `/metrics` and `/healthz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsOptions {
    /// The address.
    pub listen: SocketAddr,
    /// Whether an address outside the loopback is meant: there is no TLS and no login there.
    pub allow_non_loopback: bool,
}

/// Bounds of the shell. What the core bounds stands in its own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Network Connections at once, over all shards; the next one is closed at once.
    pub connections_max: usize,
    /// Handshakes that hold TLS state at once.
    pub handshakes_max: usize,
    /// Sockets that wait for their first byte or for their turn to shake hands; the next one is
    /// closed at once.
    pub handshakes_waiting_max: usize,
    /// Sockets of one address (of one /64 in IPv6) between accept and identity.
    pub handshakes_per_address_max: usize,
    /// Time from accept to CONNECT.
    pub connect_max: Duration,
    /// Longest CONNECT, and all that a peer can make us hold before it, in bytes.
    pub connect_bytes_max: usize,
    /// Longest packet, in bytes, fixed header included.
    pub packet_bytes_max: usize,
    /// Unsent bytes above which a connection is not read.
    pub out_bytes_pause: usize,
    /// Unsent bytes above which a connection is given up. The core keeps below it by counting
    /// what was written; reaching it is our mistake, not a slow peer.
    pub out_bytes_max: usize,
    /// Bytes read from all connections of a shard that may wait for its next round.
    pub round_bytes_max: usize,
    /// Longest time for a peer to take 64 KiB of what we send.
    pub write_stall_max: Duration,
    /// Longest time to send the rest and close_notify.
    pub close_max: Duration,
    /// Longest time to wait for the peer's end after ours.
    pub linger_max: Duration,
    /// Threads that check signatures of devices; without it, half as many as there are processors.
    pub verify_threads: Option<usize>,
    /// Longest time from the request to stop until the last connection is closed.
    pub stop_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            handshakes_max: 256,
            handshakes_waiting_max: 2_048,
            handshakes_per_address_max: 512,
            connect_max: Duration::from_secs(10),
            connect_bytes_max: 32 * 1024,
            packet_bytes_max: 128 * 1024,
            out_bytes_pause: 64 * 1024,
            out_bytes_max: 16 * 1024 * 1024,
            round_bytes_max: 4 * 1024 * 1024,
            write_stall_max: Duration::from_secs(30),
            close_max: Duration::from_secs(5),
            linger_max: Duration::from_secs(1),
            verify_threads: None,
            stop_max: Duration::from_secs(10),
        }
    }
}

//! What can be wrong with `avow.toml`, each with its fix.
//!
//! The places of problems and their rendering are [`crate::source`]'s. The invariant: a problem
//! always says what to write instead.

use crate::policy::WhoError;
use crate::source::FieldProblem;

/// The closed list of what can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum ConfigProblem {
    /// Wrong as TOML, or a field missing, unknown, mistyped or out of bounds.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Field(#[from] FieldProblem),
    /// A text that does not read as what the field holds.
    #[error("`{text}` is not {expected}")]
    #[diagnostic(help("write `{field} = {example}`"))]
    Unreadable {
        /// The field.
        field: &'static str,
        /// The text, clipped and escaped.
        text: String,
        /// What would do, in words.
        expected: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// A value with a unit, outside the bounds of the field.
    #[error("`{field}` is {value}, outside {min} to {max}")]
    #[diagnostic(help("choose a value from {min} to {max}; nothing here is unlimited"))]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The value, with its unit.
        value: String,
        /// The smallest value, with its unit.
        min: String,
        /// The largest value, with its unit.
        max: String,
    },
    /// A secret written into the file.
    #[error("`{field}` names no place: secrets stand outside this file")]
    #[diagnostic(help(
        "write \"file:PATH\" (relative to this file) or \"env:NAME\", and put the secret there"
    ))]
    SecretInline {
        /// The field.
        field: &'static str,
    },
    /// A CONNECT that no packet may be.
    #[error("`connect_bytes_max` is above `packet_bytes_max`")]
    #[diagnostic(help("lower `connect_bytes_max`; 32 KiB is plenty"))]
    ConnectAbovePacket,
    /// A queue that cannot hold one packet.
    #[error("`queue_bytes_max` is below `packet_bytes_max`: a session could not queue a packet")]
    #[diagnostic(help("raise `queue_bytes_max`, or lower `packet_bytes_max`"))]
    QueueBelowPacket,
    /// A floor above its ceiling.
    #[error("`keep_alive_min` is above `keep_alive_max`")]
    #[diagnostic(help("lower `keep_alive_min`, or raise `keep_alive_max`"))]
    KeepAliveOrder,
    /// Silence allowed to clients without Keep Alive is shorter than the Keep Alive of others.
    #[error("`idle_max` is below `keep_alive_max`")]
    #[diagnostic(help("raise `idle_max` to at least 1.5 times `keep_alive_max`"))]
    IdleBelowKeepAlive,
    /// Fewer sessions than connections.
    #[error("`sessions_total_max` is below `connections_max`: connections without a session")]
    #[diagnostic(help(
        "raise `sessions_total_max`, or lower `connections_max` in [listen] to {connections_max}"
    ))]
    SessionsBelowConnections {
        /// The most connections that would do.
        connections_max: u32,
    },
    /// Metrics open to the network.
    #[error("`address` is not a loopback address: metrics have no authentication")]
    #[diagnostic(help(
        "use 127.0.0.1 or [::1]; if something else guards the port, say `allow_remote = true`"
    ))]
    MetricsRemote,
    /// A WebSocket listener that lets nobody in.
    #[error("[listen.websocket] has no `origins`: nobody could connect")]
    #[diagnostic(help(
        "list the Origin of each page that may connect, `origins = [\"https://wall.example\"]`; \
         for programs that are no browsers say `allow_no_origin = true`"
    ))]
    NoOrigin,
    /// An Origin that no browser writes, or one that must not be let in.
    #[error("`{text}` is not an Origin that may connect")]
    #[diagnostic(help(
        "write scheme, host and port as the browser's address bar shows them, in lower case, \
         without path, default port or wildcard: \"https://wall.example:8443\"; `http` only for \
         localhost"
    ))]
    Origin {
        /// The text, clipped and escaped.
        text: String,
    },
    /// More entries in a list than the bound.
    #[error("`{field}` lists more than {max}")]
    #[diagnostic(help("keep to {max} entries; a block of addresses covers many"))]
    TooManyListed {
        /// The field.
        field: &'static str,
        /// Most entries.
        max: usize,
    },
    /// A WebSocket message that cannot hold one packet.
    #[error("`message_bytes_max` is below `packet_bytes_max` of [mqtt]")]
    #[diagnostic(help("raise `message_bytes_max`, or lower `packet_bytes_max`"))]
    MessageBelowPacket,
    /// Headers are expected, and nobody may send one.
    #[error("`proxy_protocol` is on and `trusted_proxies` is empty: nobody could connect")]
    #[diagnostic(help(
        "list the proxies, `trusted_proxies = [\"10.0.0.5/32\"]`, or say `proxy_protocol = \"off\"`"
    ))]
    ProtocolWithoutProxies,
    /// Proxies are listed, and their headers would be taken for TLS.
    #[error("`trusted_proxies` is set and `proxy_protocol` is off")]
    #[diagnostic(help(
        "say `proxy_protocol = \"v1\"` or \"v2\", whichever the proxies send, or remove the list"
    ))]
    ProxiesWithoutProtocol,
    /// Whoever connects would choose the address that limits and entries name.
    #[error("`trusted_proxies` holds every address: anybody could claim to be anybody")]
    #[diagnostic(help("list the addresses of the proxies alone, such as \"10.0.0.5/32\""))]
    ProxiesEverybody,
    /// No issuer at all.
    #[error("there is no [[issuer]]: nobody could connect")]
    #[diagnostic(help(
        "add an [[issuer]] with `id`, `anchors`, `trust_domain` and `roles`; `avow init` writes one"
    ))]
    NoIssuer,
    /// Two issuers of one id.
    #[error("another issuer has the id `{id}`")]
    #[diagnostic(help("give every [[issuer]] an id of its own"))]
    IssuerTwice {
        /// The id.
        id: String,
    },
    /// An issuer that may name nobody.
    #[error("issuer `{id}` may name no role")]
    #[diagnostic(help("write `roles = [\"device\"]`, or remove the issuer"))]
    IssuerWithoutRole {
        /// The id.
        id: String,
    },
    /// Somebody who can be nobody.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Who(#[from] WhoError),
    /// A class that names nobody.
    #[error("`who` is empty: the class names nobody")]
    #[diagnostic(help("name a role or a name: `who = [\"device/press-*\"]`"))]
    ClassNobody,
    /// A burst that the largest packet can never fit into.
    #[error(
        "`bytes_burst` of {table} is {burst}, less than the largest packet: `packet_bytes_max` is \
         {packet}"
    )]
    #[diagnostic(help("write `bytes_burst = {packet_bytes_max}` or more in {table}"))]
    BurstBelowPacket {
        /// The table that it holds in.
        table: &'static str,
        /// Its value, with its unit.
        burst: String,
        /// The largest packet, with its unit.
        packet: String,
        /// The largest packet, in bytes.
        packet_bytes_max: u32,
    },
    /// A segment that cannot hold one batch.
    #[error("`segment_bytes` is below twice `backlog_bytes_max`: a batch might not fit a segment")]
    #[diagnostic(help("raise `segment_bytes`, or lower `backlog_bytes_max`"))]
    SegmentBelowBacklog,
    /// A backlog that cannot hold a few packets.
    #[error("`backlog_bytes_max` is below four times `packet_bytes_max` of [mqtt]")]
    #[diagnostic(help("raise `backlog_bytes_max`, or lower `packet_bytes_max`"))]
    BacklogBelowPackets,
}

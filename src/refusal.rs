//! Every way to say no, and the one table that turns it into Reason Codes.
//!
//! A Refusal is a decision about a well-formed request; it is recorded, then answered. What a
//! peer does wrong on the wire is a [`crate::mqtt::Violation`], what goes wrong in the broker is a
//! Fault.

mod statement;
mod token;

pub use statement::StatementRefusal;
pub use token::{Claim, TokenRefusal};

use crate::mqtt::ReasonCode;

/// Why a request was refused. A closed list: entries, metrics and Reason Strings use its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No rule of the policy permits it.
    NoRule,
    /// A `forbid` rule matches.
    Forbidden,
    /// The rule that permits the topic does not permit this QoS.
    QosNotPermitted,
    /// The rule that permits the topic does not permit the RETAIN flag.
    RetainNotPermitted,
    /// The rule that permits the topic does not permit clearing a retained message.
    ClearNotPermitted,
    /// No rule lets this identity use this Client Identifier.
    ClientIdNotPermitted,
    /// The Client Identifier is empty where it must not be, or too long.
    ClientIdInvalid,
    /// More messages per second than the class of the identity may send.
    MessageRate,
    /// More bytes per second than the class of the identity may send.
    ByteRate,
    /// More subscriptions per second than the class of the identity may make.
    SubscribeRate,
    /// More sessions at once than the class of the identity may hold.
    SessionCount,
    /// A topic or filter with more levels than the bound.
    TopicTooDeep,
    /// A topic or filter with more bytes than the bound.
    TopicTooLong,
    /// Not a valid Topic Filter.
    FilterInvalid,
    /// More filters in one SUBSCRIBE than the bound.
    FilterCount,
    /// More subscriptions in one session than the bound.
    SubscriptionCount,
    /// More User Properties than the bound.
    UserPropertyCount,
    /// The topic is the broker's own (`$SYS`, `$quarantine`, …).
    ReservedTopic,
    /// The topic has no schema, and its rule names neither `none` nor `opaque`.
    NoSchema,
    /// The payload is larger than its schema allows.
    PayloadTooLarge,
    /// Payload Format Indicator says UTF-8, the payload is not.
    PayloadNotUtf8,
    /// The payload is not JSON.
    PayloadNotJson,
    /// The JSON is nested deeper than its schema allows.
    PayloadTooDeep,
    /// The JSON has more values than its schema allows.
    PayloadTooManyNodes,
    /// An object of the JSON has a key twice.
    PayloadDuplicateKey,
    /// The JSON does not satisfy its schema.
    SchemaMismatch,
    /// The payload is older, by its own time, than its schema allows.
    PayloadLate,
    /// The payload's own time is further ahead than its schema allows.
    PayloadEarly,
    /// The payload has no time where its schema looks for one.
    PayloadUndated,
    /// The payload's number was used before, or is too far back to tell.
    PayloadReplayed,
    /// The payload's number was used before by another payload.
    PayloadConflicting,
    /// The payload has no number where its schema looks for one.
    PayloadUnnumbered,
    /// The store of retained messages is full.
    RetainedFull,
    /// The Authentication Method is not supported.
    AuthenticationMethod,
    /// The token is no credential.
    Token(TokenRefusal),
    /// The device's statement does not carry the message.
    Statement(StatementRefusal),
    /// The Maximum Packet Size of the client is smaller than the CONNACK that would accept it.
    PacketSizeTooSmall,
}

impl Refusal {
    /// The table: name in entries and metrics, Reason Code in answers.
    const fn row(self) -> (&'static str, ReasonCode) {
        use ReasonCode as R;
        match self {
            Self::NoRule => ("policy.no_rule", R::NotAuthorized),
            Self::Forbidden => ("policy.forbidden", R::NotAuthorized),
            Self::QosNotPermitted => ("policy.qos", R::NotAuthorized),
            Self::RetainNotPermitted => ("policy.retain", R::NotAuthorized),
            Self::ClearNotPermitted => ("policy.clear", R::NotAuthorized),
            Self::ClientIdNotPermitted => ("policy.client_id", R::ClientIdentifierNotValid),
            Self::ClientIdInvalid => ("session.client_id", R::ClientIdentifierNotValid),
            Self::MessageRate => ("limit.messages", R::QuotaExceeded),
            Self::ByteRate => ("limit.bytes", R::QuotaExceeded),
            Self::SubscribeRate => ("limit.subscribes", R::QuotaExceeded),
            Self::SessionCount => ("limit.sessions", R::QuotaExceeded),
            Self::TopicTooDeep => ("topic.depth", R::TopicNameInvalid),
            Self::TopicTooLong => ("topic.length", R::TopicNameInvalid),
            Self::FilterInvalid => ("filter.invalid", R::TopicFilterInvalid),
            Self::FilterCount => ("filter.count", R::QuotaExceeded),
            Self::SubscriptionCount => ("subscription.count", R::QuotaExceeded),
            Self::UserPropertyCount => ("property.count", R::QuotaExceeded),
            Self::ReservedTopic => ("topic.reserved", R::NotAuthorized),
            Self::NoSchema => ("schema.none_named", R::ImplementationSpecificError),
            Self::PayloadTooLarge => ("payload.bytes", R::ImplementationSpecificError),
            Self::PayloadNotUtf8 => ("payload.utf8", R::PayloadFormatInvalid),
            Self::PayloadNotJson => ("payload.json", R::ImplementationSpecificError),
            Self::PayloadTooDeep => ("payload.depth", R::ImplementationSpecificError),
            Self::PayloadTooManyNodes => ("payload.nodes", R::ImplementationSpecificError),
            Self::PayloadDuplicateKey => ("payload.duplicate_key", R::ImplementationSpecificError),
            Self::SchemaMismatch => ("schema.mismatch", R::ImplementationSpecificError),
            Self::PayloadLate => ("payload.late", R::ImplementationSpecificError),
            Self::PayloadEarly => ("payload.early", R::ImplementationSpecificError),
            Self::PayloadUndated => ("payload.undated", R::ImplementationSpecificError),
            Self::PayloadReplayed => ("payload.replayed", R::ImplementationSpecificError),
            Self::PayloadConflicting => ("payload.conflict", R::ImplementationSpecificError),
            Self::PayloadUnnumbered => ("payload.unnumbered", R::ImplementationSpecificError),
            Self::RetainedFull => ("retained.full", R::QuotaExceeded),
            Self::AuthenticationMethod => ("auth.method", R::BadAuthenticationMethod),
            Self::Token(token) => (token.name(), R::NotAuthorized),
            Self::Statement(refusal) if refusal.is_quota() => (refusal.name(), R::QuotaExceeded),
            Self::Statement(refusal) => (refusal.name(), R::NotAuthorized),
            Self::PacketSizeTooSmall => ("session.packet_bytes", R::PacketTooLarge),
        }
    }

    /// Its stable name, `room.reason`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The Reason Code that answers a PUBLISH, a filter of a SUBSCRIBE or a CONNECT.
    pub const fn reason_code(self) -> ReasonCode {
        self.row().1
    }
}

/// A refusal with what the log should say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The id of the rule or schema that decided, if one did.
    pub by: Option<std::sync::Arc<str>>,
    /// Details for the log (a JSON pointer and the keyword that failed, a bound): at most
    /// [`DETAIL_BYTES_MAX`] bytes, never a value from a payload.
    pub detail: Option<Box<str>>,
}

/// Longest [`Refused::detail`], in bytes.
pub const DETAIL_BYTES_MAX: usize = 256;

impl From<TokenRefusal> for Refused {
    fn from(token: TokenRefusal) -> Self {
        let detail = token.claim().map(|claim| claim.as_str().into());
        Self { refusal: Refusal::Token(token), by: None, detail }
    }
}

impl From<StatementRefusal> for Refused {
    fn from(refusal: StatementRefusal) -> Self {
        Refusal::Statement(refusal).into()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, by: None, detail: None }
    }
}

//! DISCONNECT and AUTH (sections 3.14 and 3.15).

use super::{Side, property};
use crate::mqtt::scalar::Reader;
use crate::mqtt::{
    Auth, AuthProperties, Disconnect, DisconnectProperties, ProtocolVersion, ReasonCode, Violation,
};

pub(super) fn disconnect(
    r: &mut Reader<'_>,
    version: ProtocolVersion,
    side: Side,
) -> Result<Disconnect, Violation> {
    let mut disconnect =
        Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
    if !version.is_v5() || r.is_empty() {
        return Ok(disconnect);
    }
    // [MQTT-3.14.2-1]
    disconnect.reason = ReasonCode::from_u8(r.u8()?)
        .filter(|&reason| may_disconnect(reason, side))
        .ok_or(Violation::DISCONNECT_REASON)?;
    // Without a Property Length there are no properties (Remaining Length below 2).
    if !r.is_empty() {
        disconnect.properties = property::disconnect(r, side)?;
    }
    Ok(disconnect)
}

/// Whether the other end of `side` may disconnect for `reason`.
fn may_disconnect(reason: ReasonCode, side: Side) -> bool {
    use ReasonCode as R;
    match reason {
        R::Success
        | R::UnspecifiedError
        | R::MalformedPacket
        | R::ProtocolError
        | R::ImplementationSpecificError
        | R::TopicNameInvalid
        | R::ReceiveMaximumExceeded
        | R::TopicAliasInvalid
        | R::PacketTooLarge
        | R::MessageRateTooHigh
        | R::QuotaExceeded
        | R::AdministrativeAction
        | R::PayloadFormatInvalid => true,
        R::DisconnectWithWill => side == Side::Server,
        R::NotAuthorized
        | R::ServerBusy
        | R::ServerShuttingDown
        | R::BadAuthenticationMethod
        | R::KeepAliveTimeout
        | R::SessionTakenOver
        | R::TopicFilterInvalid
        | R::RetainNotSupported
        | R::QoSNotSupported
        | R::UseAnotherServer
        | R::ServerMoved
        | R::SharedSubscriptionsNotSupported
        | R::ConnectionRateExceeded
        | R::MaximumConnectTime
        | R::SubscriptionIdentifiersNotSupported
        | R::WildcardSubscriptionsNotSupported => side == Side::Client,
        R::GrantedQoS1
        | R::GrantedQoS2
        | R::NoMatchingSubscribers
        | R::NoSubscriptionExisted
        | R::ContinueAuthentication
        | R::ReAuthenticate
        | R::UnsupportedProtocolVersion
        | R::ClientIdentifierNotValid
        | R::BadUserNameOrPassword
        | R::ServerUnavailable
        | R::Banned
        | R::PacketIdentifierInUse
        | R::PacketIdentifierNotFound => false,
    }
}

pub(super) fn auth(r: &mut Reader<'_>, side: Side) -> Result<Auth, Violation> {
    // Success without properties may be written as nothing at all.
    let (code, properties) =
        if r.is_empty() { (0, None) } else { (r.u8()?, Some(property::auth(r)?)) };
    // [MQTT-3.15.2-1]
    let reason = match (ReasonCode::from_u8(code), side) {
        (Some(ReasonCode::ContinueAuthentication), _) => ReasonCode::ContinueAuthentication,
        (Some(ReasonCode::Success), Side::Client) => ReasonCode::Success,
        (Some(ReasonCode::ReAuthenticate), Side::Server) => ReasonCode::ReAuthenticate,
        _ => return Err(Violation::AUTH_REASON),
    };
    match properties {
        Some(AuthProperties { authentication_method: None, .. }) => {
            Err(Violation::AUTH_METHOD_MISSING)
        }
        Some(properties) => Ok(Auth { reason, properties }),
        None => Ok(Auth { reason, properties: AuthProperties::default() }),
    }
}

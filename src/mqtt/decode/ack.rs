//! The acknowledgements: PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7), SUBACK (3.9) and
//! UNSUBACK (3.11).

use super::property;
use crate::mqtt::scalar::Reader;
use crate::mqtt::{Ack, AckProperties, ProtocolVersion, ReasonCode, SubAck, UnsubAck, Violation};

/// PUBACK.
pub(super) fn puback(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Ack, Violation> {
    // [MQTT-3.4.2-1]
    ack(r, version, |code| received(code).ok_or(Violation::PUBACK_REASON))
}

/// PUBREC.
pub(super) fn pubrec(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Ack, Violation> {
    // [MQTT-3.5.2-1]
    ack(r, version, |code| received(code).ok_or(Violation::PUBREC_REASON))
}

/// PUBREL.
pub(super) fn pubrel(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Ack, Violation> {
    // [MQTT-3.6.2-1]
    ack(r, version, |code| released(code).ok_or(Violation::PUBREL_REASON))
}

/// PUBCOMP.
pub(super) fn pubcomp(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Ack, Violation> {
    // [MQTT-3.7.2-1]
    ack(r, version, |code| released(code).ok_or(Violation::PUBCOMP_REASON))
}

/// SUBACK.
pub(super) fn suback(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<SubAck, Violation> {
    let packet_id = r.packet_id()?;
    let properties = if version.is_v5() { property::ack(r)? } else { AckProperties::default() };
    let reasons = reasons(r, |code| suback_reason(code, version))?;
    if reasons.is_empty() {
        return Err(Violation::SUBACK_EMPTY);
    }
    Ok(SubAck { packet_id, properties, reasons })
}

/// UNSUBACK.
pub(super) fn unsuback(
    r: &mut Reader<'_>,
    version: ProtocolVersion,
) -> Result<UnsubAck, Violation> {
    let packet_id = r.packet_id()?;
    if !version.is_v5() {
        return Ok(UnsubAck { packet_id, properties: AckProperties::default(), reasons: vec![] });
    }
    let properties = property::ack(r)?;
    let reasons = reasons(r, unsuback_reason)?;
    if reasons.is_empty() {
        return Err(Violation::UNSUBACK_EMPTY);
    }
    Ok(UnsubAck { packet_id, properties, reasons })
}

fn ack(
    r: &mut Reader<'_>,
    version: ProtocolVersion,
    reason: impl Fn(u8) -> Result<ReasonCode, Violation>,
) -> Result<Ack, Violation> {
    let packet_id = r.packet_id()?;
    if !version.is_v5() || r.is_empty() {
        return Ok(Ack::new(packet_id, ReasonCode::Success));
    }
    let reason = reason(r.u8()?)?;
    // Without a Property Length there are no properties (Remaining Length below 4).
    if r.is_empty() {
        return Ok(Ack::new(packet_id, reason));
    }
    let properties = property::ack(r)?;
    let properties = (properties != AckProperties::default()).then(|| Box::new(properties));
    Ok(Ack { packet_id, reason, properties })
}

fn reasons(
    r: &mut Reader<'_>,
    reason: impl Fn(u8) -> Result<ReasonCode, Violation>,
) -> Result<Vec<ReasonCode>, Violation> {
    r.remainder().iter().map(|&code| reason(code)).collect()
}

fn received(code: u8) -> Option<ReasonCode> {
    use ReasonCode as R;
    R::from_u8(code).filter(|reason| {
        matches!(
            reason,
            R::Success
                | R::NoMatchingSubscribers
                | R::UnspecifiedError
                | R::ImplementationSpecificError
                | R::NotAuthorized
                | R::TopicNameInvalid
                | R::PacketIdentifierInUse
                | R::QuotaExceeded
                | R::PayloadFormatInvalid
        )
    })
}

fn released(code: u8) -> Option<ReasonCode> {
    use ReasonCode as R;
    R::from_u8(code).filter(|reason| matches!(reason, R::Success | R::PacketIdentifierNotFound))
}

fn suback_reason(code: u8, version: ProtocolVersion) -> Result<ReasonCode, Violation> {
    use ReasonCode as R;
    let known = R::from_u8(code).filter(|reason| match reason {
        // All that 3.1.1 knows; 3.1 has no failure, but servers send it this one.
        R::Success | R::GrantedQoS1 | R::GrantedQoS2 | R::UnspecifiedError => true,
        R::ImplementationSpecificError
        | R::NotAuthorized
        | R::TopicFilterInvalid
        | R::PacketIdentifierInUse
        | R::QuotaExceeded
        | R::SharedSubscriptionsNotSupported
        | R::SubscriptionIdentifiersNotSupported
        | R::WildcardSubscriptionsNotSupported => version.is_v5(),
        _ => false,
    });
    // [MQTT-3.9.3-2]
    known.ok_or(Violation::SUBACK_REASON)
}

fn unsuback_reason(code: u8) -> Result<ReasonCode, Violation> {
    use ReasonCode as R;
    let known = R::from_u8(code).filter(|reason| {
        matches!(
            reason,
            R::Success
                | R::NoSubscriptionExisted
                | R::UnspecifiedError
                | R::ImplementationSpecificError
                | R::NotAuthorized
                | R::TopicFilterInvalid
                | R::PacketIdentifierInUse
        )
    });
    // [MQTT-3.11.3-2]
    known.ok_or(Violation::UNSUBACK_REASON)
}

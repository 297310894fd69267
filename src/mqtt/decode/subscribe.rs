//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).
//!
//! Whether a string is a valid Topic Filter is not judged: SUBACK and UNSUBACK answer that, filter
//! by filter.

use super::property;
use crate::mqtt::scalar::Reader;
use crate::mqtt::{
    ProtocolVersion, QoS, RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions,
    Unsubscribe, Violation,
};

pub(super) fn subscribe(
    r: &mut Reader<'_>,
    version: ProtocolVersion,
) -> Result<Subscribe, Violation> {
    let packet_id = r.packet_id()?;
    let (subscription_identifier, user_properties) =
        if version.is_v5() { property::subscribe(r)? } else { (None, vec![]) };
    // [MQTT-3.8.3-2]
    if r.is_empty() {
        return Err(Violation::NO_FILTER_TO_SUBSCRIBE);
    }
    let mut filters = Vec::new();
    while !r.is_empty() {
        // [MQTT-3.8.3-1]
        let filter = r.name()?;
        let options = if version.is_v5() { options(r.u8()?)? } else { options_v3(r.u8()?)? };
        // [MQTT-3.8.3-4]
        if options.no_local && filter.starts_with("$share/") {
            return Err(Violation::NO_LOCAL_SHARED);
        }
        filters.push(SubscribeFilter { filter: filter.to_owned(), options });
    }
    Ok(Subscribe { packet_id, subscription_identifier, user_properties, filters })
}

pub(super) fn unsubscribe(
    r: &mut Reader<'_>,
    version: ProtocolVersion,
) -> Result<Unsubscribe, Violation> {
    let packet_id = r.packet_id()?;
    let user_properties = if version.is_v5() { property::unsubscribe(r)? } else { vec![] };
    // [MQTT-3.10.3-2]
    if r.is_empty() {
        return Err(Violation::NO_FILTER_TO_UNSUBSCRIBE);
    }
    let mut filters = Vec::new();
    while !r.is_empty() {
        // [MQTT-3.10.3-1]
        filters.push(r.name()?.to_owned());
    }
    Ok(Unsubscribe { packet_id, user_properties, filters })
}

fn options(byte: u8) -> Result<SubscriptionOptions, Violation> {
    // [MQTT-3.8.3-5]
    if byte & 0b1100_0000 != 0 {
        return Err(Violation::OPTIONS_RESERVED);
    }
    Ok(SubscriptionOptions {
        qos: QoS::from_bits(byte & 0b11).ok_or(Violation::OPTIONS_QOS_3)?,
        no_local: byte & 0b0000_0100 != 0,
        retain_as_published: byte & 0b0000_1000 != 0,
        retain_handling: match byte >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Violation::OPTIONS_RETAIN_HANDLING_3),
        },
    })
}

/// The Requested QoS of 3.x, whose other six bits are reserved.
fn options_v3(byte: u8) -> Result<SubscriptionOptions, Violation> {
    if byte & !0b11 != 0 {
        return Err(Violation::OPTIONS_RESERVED);
    }
    let qos = QoS::from_bits(byte).ok_or(Violation::OPTIONS_QOS_3)?;
    Ok(SubscriptionOptions { qos, ..SubscriptionOptions::default() })
}

//! Properties of every packet that has them (section 2.2.2).
//!
//! Each function reads one whole property section, its length first. A property that stands in
//! the wrong packet makes the packet malformed; one given twice is a Protocol Error, except the
//! User Property and, towards a client, the Subscription Identifier.

use bytes::Bytes;

use super::Side;
use crate::mqtt::property::PropertyId as Id;
use crate::mqtt::scalar::Reader;
use crate::mqtt::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, TopicName, UserProperty, Violation, WillProperties,
};

pub(super) fn connect(outer: &mut Reader<'_>) -> Result<ConnectProperties, Violation> {
    let mut p = ConnectProperties::default();
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match id {
            Id::SessionExpiryInterval => once(&mut p.session_expiry_seconds, r.u32()?)?,
            Id::ReceiveMaximum => once(&mut p.receive_maximum, receive_maximum(r)?)?,
            Id::MaximumPacketSize => once(&mut p.maximum_packet_size, maximum_packet_size(r)?)?,
            Id::TopicAliasMaximum => once(&mut p.topic_alias_maximum, r.u16()?)?,
            Id::RequestResponseInformation => {
                once(&mut p.request_response_information, boolean(r)?)?;
            }
            Id::RequestProblemInformation => {
                once(&mut p.request_problem_information, boolean(r)?)?;
            }
            Id::AuthenticationMethod => once(&mut p.authentication_method, text(r)?)?,
            Id::AuthenticationData => once(&mut p.authentication_data, binary(r)?)?,
            Id::UserProperty => p.user_properties.push(user_property(r)?),
            _ => return Err(Violation::PROPERTY_MISPLACED),
        }
    }
    check_authentication(&p.authentication_method, &p.authentication_data)?;
    Ok(p)
}

pub(super) fn will(outer: &mut Reader<'_>) -> Result<WillProperties, Violation> {
    let mut p = WillProperties::default();
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match id {
            Id::WillDelayInterval => once(&mut p.delay_seconds, r.u32()?)?,
            id => message(id, r, &mut p.publish)?,
        }
    }
    Ok(p)
}

pub(super) fn connack(outer: &mut Reader<'_>) -> Result<ConnAckProperties, Violation> {
    let mut p = ConnAckProperties::default();
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match id {
            Id::SessionExpiryInterval => once(&mut p.session_expiry_seconds, r.u32()?)?,
            Id::ReceiveMaximum => once(&mut p.receive_maximum, receive_maximum(r)?)?,
            // Maximum QoS is 0 or 1: a server that has QoS 2 leaves it out.
            Id::MaximumQoS => once(&mut p.maximum_qos, u8::from(boolean(r)?))?,
            Id::RetainAvailable => once(&mut p.retain_available, boolean(r)?)?,
            Id::MaximumPacketSize => once(&mut p.maximum_packet_size, maximum_packet_size(r)?)?,
            Id::AssignedClientIdentifier => once(&mut p.assigned_client_identifier, text(r)?)?,
            Id::TopicAliasMaximum => once(&mut p.topic_alias_maximum, r.u16()?)?,
            Id::ReasonString => once(&mut p.reason_string, text(r)?)?,
            Id::UserProperty => p.user_properties.push(user_property(r)?),
            Id::WildcardSubscriptionAvailable => {
                once(&mut p.wildcard_subscription_available, boolean(r)?)?;
            }
            Id::SubscriptionIdentifiersAvailable => {
                once(&mut p.subscription_identifiers_available, boolean(r)?)?;
            }
            Id::SharedSubscriptionAvailable => {
                once(&mut p.shared_subscription_available, boolean(r)?)?;
            }
            Id::ServerKeepAlive => once(&mut p.server_keep_alive_seconds, r.u16()?)?,
            Id::ResponseInformation => once(&mut p.response_information, text(r)?)?,
            Id::ServerReference => once(&mut p.server_reference, text(r)?)?,
            Id::AuthenticationMethod => once(&mut p.authentication_method, text(r)?)?,
            Id::AuthenticationData => once(&mut p.authentication_data, binary(r)?)?,
            _ => return Err(Violation::PROPERTY_MISPLACED),
        }
    }
    check_authentication(&p.authentication_method, &p.authentication_data)?;
    Ok(p)
}

pub(super) fn publish(outer: &mut Reader<'_>, side: Side) -> Result<PublishProperties, Violation> {
    let mut p = PublishProperties::default();
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match id {
            Id::TopicAlias => {
                let alias = r.u16()?;
                // [MQTT-3.3.2-8]
                if alias == 0 {
                    return Err(Violation::TOPIC_ALIAS_ZERO);
                }
                once(&mut p.topic_alias, alias)?;
            }
            Id::SubscriptionIdentifier => {
                // [MQTT-3.3.4-6]
                if side == Side::Server {
                    return Err(Violation::SUBSCRIPTION_IDENTIFIER_FROM_CLIENT);
                }
                p.subscription_identifiers.push(subscription_identifier(r)?);
            }
            id => message(id, r, &mut p)?,
        }
    }
    Ok(p)
}

/// The properties of an Application Message that are the same for each of its subscribers: all of
/// `bytes`.
pub(in crate::mqtt) fn forwarded(bytes: &[u8]) -> Result<PublishProperties, Violation> {
    let mut p = PublishProperties::default();
    let r = &mut Reader::new(bytes);
    while let Some(id) = next(r)? {
        message(id, r, &mut p)?;
    }
    Ok(p)
}

pub(super) fn ack(outer: &mut Reader<'_>) -> Result<AckProperties, Violation> {
    let mut p = AckProperties::default();
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match id {
            Id::ReasonString => once(&mut p.reason_string, text(r)?)?,
            Id::UserProperty => p.user_properties.push(user_property(r)?),
            _ => return Err(Violation::PROPERTY_MISPLACED),
        }
    }
    Ok(p)
}

/// Subscription Identifier and User Properties of SUBSCRIBE.
pub(super) fn subscribe(
    outer: &mut Reader<'_>,
) -> Result<(Option<u32>, Vec<UserProperty>), Violation> {
    let (mut identifier, mut user_properties) = (None, vec![]);
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match id {
            Id::SubscriptionIdentifier => once(&mut identifier, subscription_identifier(r)?)?,
            Id::UserProperty => user_properties.push(user_property(r)?),
            _ => return Err(Violation::PROPERTY_MISPLACED),
        }
    }
    Ok((identifier, user_properties))
}

/// User Properties of UNSUBSCRIBE.
pub(super) fn unsubscribe(outer: &mut Reader<'_>) -> Result<Vec<UserProperty>, Violation> {
    let mut user_properties = vec![];
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match id {
            Id::UserProperty => user_properties.push(user_property(r)?),
            _ => return Err(Violation::PROPERTY_MISPLACED),
        }
    }
    Ok(user_properties)
}

pub(super) fn disconnect(
    outer: &mut Reader<'_>,
    side: Side,
) -> Result<DisconnectProperties, Violation> {
    let mut p = DisconnectProperties::default();
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match (id, side) {
            // [MQTT-3.14.2-2]
            (Id::SessionExpiryInterval, Side::Client) => {
                return Err(Violation::SESSION_EXPIRY_FROM_SERVER);
            }
            (Id::SessionExpiryInterval, Side::Server) => {
                once(&mut p.session_expiry_seconds, r.u32()?)?;
            }
            (Id::ServerReference, Side::Server) => {
                return Err(Violation::SERVER_REFERENCE_FROM_CLIENT);
            }
            (Id::ServerReference, Side::Client) => once(&mut p.server_reference, text(r)?)?,
            (Id::ReasonString, _) => once(&mut p.reason_string, text(r)?)?,
            (Id::UserProperty, _) => p.user_properties.push(user_property(r)?),
            _ => return Err(Violation::PROPERTY_MISPLACED),
        }
    }
    Ok(p)
}

pub(super) fn auth(outer: &mut Reader<'_>) -> Result<AuthProperties, Violation> {
    let mut p = AuthProperties::default();
    let r = &mut outer.section()?;
    while let Some(id) = next(r)? {
        match id {
            Id::AuthenticationMethod => once(&mut p.authentication_method, text(r)?)?,
            Id::AuthenticationData => once(&mut p.authentication_data, binary(r)?)?,
            Id::ReasonString => once(&mut p.reason_string, text(r)?)?,
            Id::UserProperty => p.user_properties.push(user_property(r)?),
            _ => return Err(Violation::PROPERTY_MISPLACED),
        }
    }
    Ok(p)
}

/// The properties that a PUBLISH and a Will share.
fn message(id: Id, r: &mut Reader<'_>, p: &mut PublishProperties) -> Result<(), Violation> {
    match id {
        Id::PayloadFormatIndicator => once(&mut p.payload_is_utf8, boolean(r)?),
        Id::MessageExpiryInterval => once(&mut p.message_expiry_seconds, r.u32()?),
        Id::ResponseTopic => {
            // [MQTT-3.3.2-13], [MQTT-3.3.2-14]
            let topic = r.name()?;
            TopicName::parse(topic).map_err(|_| Violation::RESPONSE_TOPIC)?;
            once(&mut p.response_topic, topic.to_owned())
        }
        Id::CorrelationData => once(&mut p.correlation_data, binary(r)?),
        Id::UserProperty => {
            p.user_properties.push(user_property(r)?);
            Ok(())
        }
        // [MQTT-3.3.2-19]
        Id::ContentType => once(&mut p.content_type, text(r)?),
        _ => Err(Violation::PROPERTY_MISPLACED),
    }
}

/// The identifier of the next property; `None` at the end of the section.
fn next(r: &mut Reader<'_>) -> Result<Option<Id>, Violation> {
    if r.is_empty() {
        return Ok(None);
    }
    Id::from_u32(r.variable()?).map(Some).ok_or(Violation::PROPERTY_UNKNOWN)
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Violation> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Violation::PROPERTY_TWICE),
    }
}

fn text(r: &mut Reader<'_>) -> Result<String, Violation> {
    r.text().map(str::to_owned)
}

fn binary(r: &mut Reader<'_>) -> Result<Bytes, Violation> {
    r.binary().map(Bytes::copy_from_slice)
}

fn user_property(r: &mut Reader<'_>) -> Result<UserProperty, Violation> {
    // [MQTT-1.5.7-1]
    Ok(UserProperty { name: text(r)?, value: text(r)? })
}

fn boolean(r: &mut Reader<'_>) -> Result<bool, Violation> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Violation::PROPERTY_NOT_BOOLEAN),
    }
}

fn receive_maximum(r: &mut Reader<'_>) -> Result<u16, Violation> {
    Some(r.u16()?).filter(|&value| value != 0).ok_or(Violation::RECEIVE_MAXIMUM_ZERO)
}

fn maximum_packet_size(r: &mut Reader<'_>) -> Result<u32, Violation> {
    Some(r.u32()?).filter(|&value| value != 0).ok_or(Violation::MAXIMUM_PACKET_SIZE_ZERO)
}

fn subscription_identifier(r: &mut Reader<'_>) -> Result<u32, Violation> {
    Some(r.variable()?).filter(|&value| value != 0).ok_or(Violation::SUBSCRIPTION_IDENTIFIER_ZERO)
}

fn check_authentication(method: &Option<String>, data: &Option<Bytes>) -> Result<(), Violation> {
    if data.is_some() && method.is_none() {
        return Err(Violation::AUTH_DATA_WITHOUT_METHOD);
    }
    Ok(())
}

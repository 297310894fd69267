//! Properties, in the order the specification lists them.

use super::Fields;
use crate::mqtt::property::PropertyId as Id;
use crate::mqtt::scalar::Sink;
use crate::mqtt::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    EncodeError, PublishProperties, Subscribe, UserProperty, WillProperties,
};

/// The User Properties of an UNSUBSCRIBE, its only ones.
pub(super) struct UserProperties<'a>(pub(super) &'a [UserProperty]);

/// The properties of a SUBSCRIBE.
pub(super) struct OfSubscribe<'a>(pub(super) &'a Subscribe);

impl Fields for ConnectProperties {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        long(Id::SessionExpiryInterval, self.session_expiry_seconds, s);
        short(Id::ReceiveMaximum, self.receive_maximum, s);
        long(Id::MaximumPacketSize, self.maximum_packet_size, s);
        short(Id::TopicAliasMaximum, self.topic_alias_maximum, s);
        boolean(Id::RequestResponseInformation, self.request_response_information, s);
        boolean(Id::RequestProblemInformation, self.request_problem_information, s);
        UserProperties(&self.user_properties).write(s)?;
        text(Id::AuthenticationMethod, self.authentication_method.as_deref(), s)?;
        binary(Id::AuthenticationData, self.authentication_data.as_deref(), s)
    }
}

impl Fields for WillProperties {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        long(Id::WillDelayInterval, self.delay_seconds, s);
        message(&self.publish, s)
    }
}

impl Fields for ConnAckProperties {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        long(Id::SessionExpiryInterval, self.session_expiry_seconds, s);
        short(Id::ReceiveMaximum, self.receive_maximum, s);
        byte(Id::MaximumQoS, self.maximum_qos, s);
        boolean(Id::RetainAvailable, self.retain_available, s);
        long(Id::MaximumPacketSize, self.maximum_packet_size, s);
        text(Id::AssignedClientIdentifier, self.assigned_client_identifier.as_deref(), s)?;
        short(Id::TopicAliasMaximum, self.topic_alias_maximum, s);
        text(Id::ReasonString, self.reason_string.as_deref(), s)?;
        UserProperties(&self.user_properties).write(s)?;
        boolean(Id::WildcardSubscriptionAvailable, self.wildcard_subscription_available, s);
        boolean(Id::SubscriptionIdentifiersAvailable, self.subscription_identifiers_available, s);
        boolean(Id::SharedSubscriptionAvailable, self.shared_subscription_available, s);
        short(Id::ServerKeepAlive, self.server_keep_alive_seconds, s);
        text(Id::ResponseInformation, self.response_information.as_deref(), s)?;
        text(Id::ServerReference, self.server_reference.as_deref(), s)?;
        text(Id::AuthenticationMethod, self.authentication_method.as_deref(), s)?;
        binary(Id::AuthenticationData, self.authentication_data.as_deref(), s)
    }
}

impl Fields for PublishProperties {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        short(Id::TopicAlias, self.topic_alias, s);
        for &identifier in &self.subscription_identifiers {
            subscription_identifier(identifier, s)?;
        }
        message(self, s)
    }
}

impl Fields for OfSubscribe<'_> {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        if let Some(identifier) = self.0.subscription_identifier {
            subscription_identifier(identifier, s)?;
        }
        UserProperties(&self.0.user_properties).write(s)
    }
}

impl Fields for AckProperties {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        text(Id::ReasonString, self.reason_string.as_deref(), s)?;
        UserProperties(&self.user_properties).write(s)
    }
}

impl Fields for DisconnectProperties {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        long(Id::SessionExpiryInterval, self.session_expiry_seconds, s);
        text(Id::ReasonString, self.reason_string.as_deref(), s)?;
        UserProperties(&self.user_properties).write(s)?;
        text(Id::ServerReference, self.server_reference.as_deref(), s)
    }
}

impl Fields for AuthProperties {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        text(Id::AuthenticationMethod, self.authentication_method.as_deref(), s)?;
        binary(Id::AuthenticationData, self.authentication_data.as_deref(), s)?;
        text(Id::ReasonString, self.reason_string.as_deref(), s)?;
        UserProperties(&self.user_properties).write(s)
    }
}

impl Fields for UserProperties<'_> {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        for property in self.0 {
            s.u8(Id::UserProperty.as_u8());
            s.text(&property.name)?;
            s.text(&property.value)?;
        }
        Ok(())
    }
}

/// The properties that a PUBLISH and a Will share.
/// The properties of an Application Message that are the same for each of its subscribers.
pub(in crate::mqtt) fn forwarded(
    properties: &PublishProperties,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    message(properties, out)
}

fn message<S: Sink>(p: &PublishProperties, s: &mut S) -> Result<(), EncodeError> {
    boolean(Id::PayloadFormatIndicator, p.payload_is_utf8, s);
    long(Id::MessageExpiryInterval, p.message_expiry_seconds, s);
    text(Id::ResponseTopic, p.response_topic.as_deref(), s)?;
    binary(Id::CorrelationData, p.correlation_data.as_deref(), s)?;
    UserProperties(&p.user_properties).write(s)?;
    text(Id::ContentType, p.content_type.as_deref(), s)
}

fn byte<S: Sink>(id: Id, value: Option<u8>, s: &mut S) {
    if let Some(value) = value {
        s.u8(id.as_u8());
        s.u8(value);
    }
}

fn boolean<S: Sink>(id: Id, value: Option<bool>, s: &mut S) {
    byte(id, value.map(u8::from), s);
}

fn short<S: Sink>(id: Id, value: Option<u16>, s: &mut S) {
    if let Some(value) = value {
        s.u8(id.as_u8());
        s.u16(value);
    }
}

fn long<S: Sink>(id: Id, value: Option<u32>, s: &mut S) {
    if let Some(value) = value {
        s.u8(id.as_u8());
        s.u32(value);
    }
}

fn text<S: Sink>(id: Id, value: Option<&str>, s: &mut S) -> Result<(), EncodeError> {
    binary(id, value.map(str::as_bytes), s)
}

fn binary<S: Sink>(id: Id, value: Option<&[u8]>, s: &mut S) -> Result<(), EncodeError> {
    if let Some(value) = value {
        s.u8(id.as_u8());
        s.binary(value)?;
    }
    Ok(())
}

fn subscription_identifier<S: Sink>(identifier: u32, s: &mut S) -> Result<(), EncodeError> {
    s.u8(Id::SubscriptionIdentifier.as_u8());
    s.variable(usize::try_from(identifier).map_err(|_| EncodeError::TooLong)?)
}

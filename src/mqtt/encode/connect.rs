//! CONNECT and CONNACK.

use super::section;
use crate::mqtt::scalar::Sink;
use crate::mqtt::{ConnAck, Connect, EncodeError, ProtocolVersion, ReasonCode};

pub(super) fn connect<S: Sink>(connect: &Connect, s: &mut S) -> Result<(), EncodeError> {
    let version = connect.version;
    let (name, level) = match version {
        ProtocolVersion::V3_1 => ("MQIsdp", 3),
        ProtocolVersion::V3_1_1 => ("MQTT", 4),
        ProtocolVersion::V5 => ("MQTT", 5),
    };
    s.text(name)?;
    s.u8(level);
    s.u8(flags(connect));
    s.u16(connect.keep_alive_seconds);
    if version.is_v5() {
        section(&connect.properties, s)?;
    }
    s.text(connect.client_id.as_str())?;
    if let Some(will) = &connect.will {
        if version.is_v5() {
            section(&will.properties, s)?;
        }
        s.text(will.topic.as_str())?;
        s.binary(&will.payload)?;
    }
    if let Some(user_name) = &connect.user_name {
        s.text(user_name)?;
    }
    if let Some(password) = &connect.password {
        // [MQTT-3.1.2-22] of 3.1.1
        if !version.is_v5() && connect.user_name.is_none() {
            return Err(EncodeError::NotInVersion);
        }
        s.binary(password)?;
    }
    Ok(())
}

fn flags(connect: &Connect) -> u8 {
    let will = connect
        .will
        .as_ref()
        .map_or(0, |will| 0b0000_0100 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    u8::from(connect.clean_start) << 1
        | will
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.user_name.is_some()) << 7
}

pub(super) fn connack<S: Sink>(
    connack: &ConnAck,
    version: ProtocolVersion,
    s: &mut S,
) -> Result<(), EncodeError> {
    // [MQTT-3.2.2-6]; 3.1 has no Session Present.
    let present = connack.session_present
        && connack.reason == ReasonCode::Success
        && version != ProtocolVersion::V3_1;
    s.u8(u8::from(present));
    if version.is_v5() {
        s.u8(connack.reason.as_u8());
        return section(&connack.properties, s);
    }
    s.u8(return_code(connack.reason));
    Ok(())
}

/// The return code of 3.x that comes nearest. Only five reasons exist there; all others become
/// "server unavailable", which promises nothing.
fn return_code(reason: ReasonCode) -> u8 {
    match reason {
        ReasonCode::Success => 0,
        ReasonCode::UnsupportedProtocolVersion => 1,
        ReasonCode::ClientIdentifierNotValid => 2,
        ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => 4,
        ReasonCode::NotAuthorized | ReasonCode::Banned => 5,
        _ => 3,
    }
}

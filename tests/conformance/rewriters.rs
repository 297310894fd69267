//! Two more codecs, asked in a way that needs no table of types: they read our bytes and write
//! what they understood, and we read that.

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{
    PacketBuildResult, PacketBuilder, PacketData, RawPacket,
};
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use rumqttc::mqttbytes::v4 as rumqttc_4;
use rumqttc::v5::mqttbytes::v5 as rumqttc_5;

use avow::mqtt::ProtocolVersion;
use bytes::BytesMut;

use crate::packets::PACKET_BYTES_MAX;
use crate::rumqttd_differential::quietly;

/// The codec that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Codec {
    /// mqtt-protocol-core 0.7, on which our devices run.
    Core,
    /// rumqttc 0.25.
    Rumqttc,
}

/// What it made of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// It read a packet, and writes it so.
    Packet(Vec<u8>),
    /// It read a packet and refuses to write it.
    NotWritten,
    Incomplete,
    Refused,
    Panicked,
}

impl Codec {
    /// Has `bytes` read and written.
    pub(crate) fn rewrite(self, bytes: &[u8], version: ProtocolVersion) -> Rewritten {
        let rewritten = quietly(|| match self {
            Self::Core => core(bytes, version),
            Self::Rumqttc if version.is_v5() => rumqttc_v5(bytes),
            Self::Rumqttc => rumqttc_v4(bytes),
        });
        rewritten.unwrap_or(Rewritten::Panicked)
    }
}

fn rumqttc_v5(bytes: &[u8]) -> Rewritten {
    use rumqttc::v5::mqttbytes::Error;
    let (mut stream, mut out) = (BytesMut::from(bytes), BytesMut::new());
    match rumqttc_5::Packet::read(&mut stream, Some(PACKET_BYTES_MAX as u32)) {
        Ok(packet) => match packet.write(&mut out, None) {
            Ok(_) => Rewritten::Packet(out.to_vec()),
            Err(_) => Rewritten::NotWritten,
        },
        Err(Error::InsufficientBytes(_)) => Rewritten::Incomplete,
        Err(_) => Rewritten::Refused,
    }
}

fn rumqttc_v4(bytes: &[u8]) -> Rewritten {
    use rumqttc::mqttbytes::Error;
    let (mut stream, mut out) = (BytesMut::from(bytes), BytesMut::new());
    match rumqttc_4::Packet::read(&mut stream, PACKET_BYTES_MAX) {
        Ok(packet) => match packet.write(&mut out, usize::MAX) {
            Ok(_) => Rewritten::Packet(out.to_vec()),
            Err(_) => Rewritten::NotWritten,
        },
        Err(Error::InsufficientBytes(_)) => Rewritten::Incomplete,
        Err(_) => Rewritten::Refused,
    }
}

fn core(bytes: &[u8], version: ProtocolVersion) -> Rewritten {
    let mut builder = PacketBuilder::with_maximum_packet_size(PACKET_BYTES_MAX as u32);
    let built = match builder.feed(&mut Cursor::new(bytes)) {
        PacketBuildResult::Complete(raw) if version.is_v5() => core_v5(&raw),
        PacketBuildResult::Complete(raw) => core_v4(&raw),
        PacketBuildResult::Incomplete => return Rewritten::Incomplete,
        PacketBuildResult::Error(_) => return Rewritten::Refused,
    };
    built.map_or(Rewritten::Refused, Rewritten::Packet)
}

/// Reads the body as the packet `$kind`, to its last byte, as the library's connection does.
macro_rules! again {
    ($raw:expr, $kind:ty) => {
        $raw.parse_exact(<$kind>::parse).map(|packet| packet.to_continuous_buffer())
    };
}

macro_rules! again_publish {
    ($raw:expr, $kind:ty) => {
        match &$raw.data {
            PacketData::Publish(body) => <$kind>::parse($raw.flags(), body.clone())
                .map(|(packet, _)| packet.to_continuous_buffer()),
            PacketData::Normal(_) => Err(MqttError::MalformedPacket),
        }
    };
}

fn core_v5(raw: &RawPacket) -> Result<Vec<u8>, MqttError> {
    match raw.packet_type() {
        1 => again!(raw, v5_0::Connect),
        2 => again!(raw, v5_0::Connack),
        3 => again_publish!(raw, v5_0::Publish),
        4 => again!(raw, v5_0::Puback),
        5 => again!(raw, v5_0::Pubrec),
        6 => again!(raw, v5_0::Pubrel),
        7 => again!(raw, v5_0::Pubcomp),
        8 => again!(raw, v5_0::Subscribe),
        9 => again!(raw, v5_0::Suback),
        10 => again!(raw, v5_0::Unsubscribe),
        11 => again!(raw, v5_0::Unsuback),
        12 => again!(raw, v5_0::Pingreq),
        13 => again!(raw, v5_0::Pingresp),
        14 => again!(raw, v5_0::Disconnect),
        15 => again!(raw, v5_0::Auth),
        _ => Err(MqttError::MalformedPacket),
    }
}

fn core_v4(raw: &RawPacket) -> Result<Vec<u8>, MqttError> {
    match raw.packet_type() {
        1 => again!(raw, v3_1_1::Connect),
        2 => again!(raw, v3_1_1::Connack),
        3 => again_publish!(raw, v3_1_1::Publish),
        4 => again!(raw, v3_1_1::Puback),
        5 => again!(raw, v3_1_1::Pubrec),
        6 => again!(raw, v3_1_1::Pubrel),
        7 => again!(raw, v3_1_1::Pubcomp),
        8 => again!(raw, v3_1_1::Subscribe),
        9 => again!(raw, v3_1_1::Suback),
        10 => again!(raw, v3_1_1::Unsubscribe),
        11 => again!(raw, v3_1_1::Unsuback),
        12 => again!(raw, v3_1_1::Pingreq),
        13 => again!(raw, v3_1_1::Pingresp),
        14 => again!(raw, v3_1_1::Disconnect),
        _ => Err(MqttError::MalformedPacket),
    }
}

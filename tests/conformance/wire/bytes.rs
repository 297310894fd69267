//! Packets by hand. Nothing here is shared with the codec that is tested.

/// The protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V3_1,
    V3_1_1,
    V5,
}

pub(super) use Version::{V3_1, V3_1_1, V5};

/// What the end of the connection looks like to `Client::next`.
pub(super) const CLOSED: &[u8] = b"";
pub(super) const PINGREQ: &[u8] = b"\xC0\x00";
pub(super) const PINGRESP: &[u8] = b"\xD0\x00";

pub(super) const CLEAN: u8 = 0x02;
pub(super) const WILL: u8 = 0x04;

/// A Control Packet: first byte, Remaining Length, the parts.
pub(super) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut packet = vec![first];
    packet.extend(variable(body.len()));
    packet.extend(body);
    packet
}

/// A Variable Byte Integer.
pub(super) fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value % 128).unwrap();
        value /= 128;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

/// A string or binary field with its length.
pub(super) fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// Properties with their length; nothing in 3.x.
pub(super) fn properties(version: Version, properties: &[u8]) -> Vec<u8> {
    match version {
        V3_1 | V3_1_1 => Vec::new(),
        V5 => [variable(properties.len()), properties.to_vec()].concat(),
    }
}

/// A User Property.
pub(super) fn user_property(name: &str, value: &str) -> Vec<u8> {
    [b"\x26".to_vec(), field(name), field(value)].concat()
}

/// A CONNECT with a Keep Alive of a minute; `rest` follows the Client Identifier.
pub(super) fn connect(version: Version, flags: u8, props: &[u8], rest: &[&[u8]]) -> Vec<u8> {
    connect_keep_alive(version, flags, 60, props, rest)
}

/// As [`connect`], with a Keep Alive in seconds.
pub(super) fn connect_keep_alive(
    version: Version,
    flags: u8,
    keep_alive: u16,
    props: &[u8],
    rest: &[&[u8]],
) -> Vec<u8> {
    let (name, level) = match version {
        V3_1 => ("MQIsdp", 3),
        V3_1_1 => ("MQTT", 4),
        V5 => ("MQTT", 5),
    };
    let head = [&field(name)[..], &[level, flags], &keep_alive.to_be_bytes()].concat();
    packet(0x10, &[&head, &properties(version, props), &rest.concat()])
}

/// A CONNACK of 3.x.
pub(super) fn connack(session_present: bool, code: u8) -> Vec<u8> {
    packet(0x20, &[&[u8::from(session_present), code]])
}

/// A PUBLISH; `id` 0 leaves the Packet Identifier out.
pub(super) fn publish(
    version: Version,
    first: u8,
    topic: &str,
    id: u16,
    props: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let id = if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    packet(first, &[&field(topic), &id, &properties(version, props), payload])
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70) that says yes.
pub(super) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()])
}

/// An acknowledgement of 5.0 with a Reason Code.
pub(super) fn ack_reason(first: u8, id: u16, reason: u8) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes(), &[reason]])
}

/// A SUBSCRIBE to one filter.
pub(super) fn subscribe(version: Version, id: u16, filter: &str, options: u8) -> Vec<u8> {
    subscribe_with(version, id, b"", &[(filter, options)])
}

/// A SUBSCRIBE with properties.
pub(super) fn subscribe_with(
    version: Version,
    id: u16,
    props: &[u8],
    filters: &[(&str, u8)],
) -> Vec<u8> {
    let pair = |(filter, options): &(&str, u8)| [field(filter), vec![*options]].concat();
    let filters: Vec<u8> = filters.iter().flat_map(pair).collect();
    packet(0x82, &[&id.to_be_bytes(), &properties(version, props), &filters])
}

/// A SUBACK without properties.
pub(super) fn suback(version: Version, id: u16, reasons: &[u8]) -> Vec<u8> {
    packet(0x90, &[&id.to_be_bytes(), &properties(version, b""), reasons])
}

/// An UNSUBSCRIBE.
pub(super) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(field).collect();
    packet(0xA2, &[&id.to_be_bytes(), &properties(version, b""), &filters])
}

/// An UNSUBACK without properties; 3.x has no Reason Codes in it.
pub(super) fn unsuback(version: Version, id: u16, reasons: &[u8]) -> Vec<u8> {
    let reasons = if version == V5 { reasons } else { &[] };
    packet(0xB0, &[&id.to_be_bytes(), &properties(version, b""), reasons])
}

/// A DISCONNECT of 5.0 with a Reason Code.
pub(super) fn disconnect(reason: u8) -> Vec<u8> {
    packet(0xE0, &[&[reason]])
}

/// The DISCONNECT of a client that calls its Will off.
pub(super) const GOODBYE: &[u8] = b"\xE0\x00";

//! The few MQTT 5.0 packets that the generator needs, by hand and apart from Avow's own codec.

/// First byte of a CONNACK.
pub(crate) const CONNACK: u8 = 0x20;
/// First byte of a SUBACK.
pub(crate) const SUBACK: u8 = 0x90;
/// First byte of a PUBACK.
pub(crate) const PUBACK: u8 = 0x40;
/// First byte of a PUBLISH at QoS 0, not retained.
pub(crate) const PUBLISH: u8 = 0x30;

/// CONNECT with Clean Start; Keep Alive 1,200 s, so that nothing but the load is sent.
pub(crate) fn connect(client_id: &str, session_expiry_seconds: u32) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05\x02\x04\xb0\x05\x11".to_vec();
    body.extend_from_slice(&session_expiry_seconds.to_be_bytes());
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// SUBSCRIBE to one Topic Filter.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    text(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// Appends the PUBACK of a PUBLISH at QoS 1 with this body; `None` if it has no Packet Identifier.
pub(crate) fn acknowledge(body: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (length, rest) = body.split_first_chunk()?;
    let id = rest.get(usize::from(u16::from_be_bytes(*length))..)?.first_chunk::<2>()?;
    out.extend_from_slice(&[PUBACK, 2]);
    out.extend_from_slice(id);
    Some(())
}

/// PUBLISH, with a Packet Identifier if it is of QoS 1.
pub(crate) fn publish(topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if let Some(id) = packet_id {
        body.extend_from_slice(&id.to_be_bytes());
    }
    body.push(0);
    body.extend_from_slice(payload);
    packet(if packet_id.is_some() { PUBLISH | 2 } else { PUBLISH }, &body)
}

/// PUBLISH at QoS 1 with one user property.
pub(crate) fn publish_with(
    topic: &str,
    packet_id: u16,
    (name, value): (&str, &str),
    payload: &[u8],
) -> Vec<u8> {
    let mut property = vec![0x26];
    text(&mut property, name);
    text(&mut property, value);
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend_from_slice(&packet_id.to_be_bytes());
    push_length(&mut body, property.len());
    body.extend_from_slice(&property);
    body.extend_from_slice(payload);
    packet(PUBLISH | 2, &body)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    push_length(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

/// A Variable Byte Integer.
fn push_length(out: &mut Vec<u8>, mut rest: usize) {
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest >>= 7;
        out.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            break;
        }
    }
}

/// One packet from the front of `bytes`: its first byte, its body, and what follows. Nothing
/// while it is not whole.
pub(crate) fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (body, rest) = rest.split_at_checked(length)?;
    Some((first, body, rest))
}

/// The Packet Identifier and Reason Code in the body of a PUBACK or SUBACK without properties.
pub(crate) fn acknowledged(body: &[u8]) -> Option<(u16, u8)> {
    match body {
        [high, low] => Some((u16::from_be_bytes([*high, *low]), 0)),
        [high, low, code, ..] => Some((u16::from_be_bytes([*high, *low]), *code)),
        _ => None,
    }
}

//! What was decoded can be encoded, and is the same packet again.
//!
//! An input is `mode, stream…`. Invariants: the encoding has the length that was announced, it is
//! read back as an equal packet, writing that gives the same bytes, and the copies of a PUBLISH
//! that is encoded once differ from it in nothing. What goes from a publisher to the log and to
//! subscribers of any version can be encoded too.

use avow::mqtt::{
    Decoded, Decoder, Packet, ProtocolVersion, Publish, decode_forwarded, encode, encode_forwarded,
    encode_publish, encoded_len,
};

use super::decode::decoder;

const PACKET_BYTES_MAX: usize = 1 << 20;

fn encoded(packet: &Packet, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = vec![0xAA];
    encode(packet, version, &mut bytes).expect("what was decoded can be encoded");
    let bytes = bytes.split_off(1);
    assert_eq!(encoded_len(packet, version), Ok(bytes.len()));
    bytes
}

fn check(before: &Decoder, packet: &Packet) {
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => before.version().expect("a decoder that has read a packet knows the version"),
    };
    let bytes = encoded(packet, version);
    let mut stream = bytes.clone();
    stream.extend_from_slice(&[0xC0, 0x00]);
    match before.clone().decode(&stream) {
        Ok(Decoded::Packet { packet: again, consumed }) => {
            assert_eq!((&again, consumed), (packet, bytes.len()));
            assert_eq!(encoded(&again, version), bytes);
        }
        other => panic!("{packet:?} became {other:?}"),
    }
    if let Packet::Publish(publish) = packet {
        check_copies(publish, version, &bytes);
    }
}

fn check_copies(publish: &Publish, version: ProtocolVersion, bytes: &[u8]) {
    let once = encode_publish(publish, version).expect("what was decoded can be encoded");
    let mut copy = Vec::new();
    once.write_to(publish.dup, publish.packet_id, &mut copy);
    assert_eq!((once.len(), &copy[..]), (bytes.len(), bytes));

    let kept = encode_forwarded(&publish.properties).expect("what was decoded can be kept");
    let mut forwarded = publish.clone();
    forwarded.properties = decode_forwarded(&kept).expect("what was kept can be read");
    let mut stripped = publish.properties.clone();
    stripped.topic_alias = None;
    stripped.subscription_identifiers.clear();
    assert_eq!(forwarded.properties, stripped);
    if publish.topic.is_none() {
        return;
    }
    for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let mut bytes = Vec::new();
        let once = encode_publish(&forwarded, version).expect("a subscriber of any version");
        once.write_to(publish.dup, publish.packet_id, &mut bytes);
        match Decoder::client(version, PACKET_BYTES_MAX).decode(&bytes) {
            Ok(Decoded::Packet { packet: Packet::Publish(read), consumed }) => {
                assert_eq!((&read.payload, &read.topic), (&publish.payload, &publish.topic));
                assert_eq!(consumed, bytes.len());
            }
            other => panic!("a subscriber reads {other:?}"),
        }
    }
}

/// One input.
pub(crate) fn run(data: &[u8]) {
    let Some((&mode, mut stream)) = data.split_first() else { return };
    let mut decoder = decoder(mode, PACKET_BYTES_MAX);
    loop {
        let before = decoder.clone();
        let Ok(Decoded::Packet { packet, consumed }) = decoder.decode(stream) else { return };
        check(&before, &packet);
        stream = &stream[consumed..];
    }
}

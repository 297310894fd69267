//! What we encode we decode to the same packet, from any number of bytes at a time; no bytes
//! panic.

use avow::mqtt::{
    Decoded, Decoder, Packet, PacketId, ProtocolVersion, PublishProperties, QoS, encode_publish,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packets::{self, PACKET_BYTES_MAX, VERSIONS, connected, encoded};

fn whole(decoder: &mut Decoder, bytes: &[u8]) -> (Packet, usize) {
    match decoder.decode(bytes).unwrap() {
        Decoded::Packet { packet, consumed } => (packet, consumed),
        Decoded::Incomplete { needed } => panic!("needs {needed} of {} bytes", bytes.len()),
    }
}

/// Every prefix is incomplete and asks for no more than the packet; the whole, with more behind
/// it, is `packet` again.
fn check_round_trip(decoder: &Decoder, packet: &Packet, bytes: &[u8]) {
    // Long payloads are cut at every length near both ends only.
    let cuts = (0..bytes.len()).filter(|cut| *cut < 300 || cut + 20 > bytes.len());
    let mut trickled = decoder.clone();
    for cut in cuts {
        match trickled.decode(&bytes[..cut]) {
            Ok(Decoded::Incomplete { needed }) => {
                assert!(cut < needed && needed <= bytes.len(), "{needed} after {cut}");
            }
            other => panic!("{other:?} after {cut} of {} bytes", bytes.len()),
        }
    }
    let mut stream = bytes.to_vec();
    stream.extend_from_slice(&[0xC0, 0x00]);
    for decoder in [&mut decoder.clone(), &mut trickled] {
        assert_eq!(whole(decoder, &stream), (packet.clone(), bytes.len()));
    }
}

proptest! {
    #[test]
    fn connect(
        (version, packet) in packets::version().prop_flat_map(|v| (Just(v), packets::connect(v))),
    ) {
        let decoder = Decoder::server(PACKET_BYTES_MAX);
        check_round_trip(&decoder, &packet, &encoded(&packet, version));
    }

    #[test]
    fn what_a_client_sends(
        (version, packet) in
            packets::version().prop_flat_map(|v| (Just(v), packets::from_client(v))),
    ) {
        check_round_trip(&connected(version), &packet, &encoded(&packet, version));
    }

    #[test]
    fn what_a_server_sends(
        (version, packet) in
            packets::version().prop_flat_map(|v| (Just(v), packets::from_server(v))),
    ) {
        let decoder = Decoder::client(version, PACKET_BYTES_MAX);
        check_round_trip(&decoder, &packet, &encoded(&packet, version));
    }

    #[test]
    fn a_publish_encoded_once_is_every_copy(
        (version, packet) in
            packets::version().prop_flat_map(|v| (Just(v), packets::from_server(v))),
        dup in any::<bool>(),
        id in 1..=u16::MAX,
    ) {
        let Packet::Publish(mut publish) = packet else { return Ok(()) };
        let once = encode_publish(&publish, version).unwrap();
        let mut copy = vec![0xAA];
        once.write_to(dup, PacketId::new(id), &mut copy);
        publish.dup = dup && publish.qos != QoS::AtMostOnce;
        publish.packet_id = PacketId::new(id).filter(|_| publish.qos != QoS::AtMostOnce);
        let alone = encoded(&Packet::Publish(publish), version);
        prop_assert_eq!(once.len(), alone.len());
        prop_assert_eq!(&copy[1..], &alone[..]);
    }

    #[test]
    fn a18_a_property_taken_from_a_publisher_reaches_a_subscriber_of_any_version(
        packet in packets::from_client(ProtocolVersion::V5),
        identifier in 1_u32..=268_435_455,
    ) {
        let Packet::Publish(mut publish) = packet else { return Ok(()) };
        let Some(topic) = publish.topic.clone() else { return Ok(()) };
        publish.properties.topic_alias = None;
        publish.properties.subscription_identifiers = vec![identifier];
        for version in VERSIONS {
            let mut out = Vec::new();
            encode_publish(&publish, version).unwrap().write_to(publish.dup, None, &mut out);
            let mut subscriber = Decoder::client(version, PACKET_BYTES_MAX);
            let (Packet::Publish(received), len) = whole(&mut subscriber, &out) else {
                panic!("no PUBLISH")
            };
            prop_assert_eq!(len, out.len());
            prop_assert_eq!(received.topic.as_ref(), Some(&topic));
            prop_assert_eq!(&received.payload, &publish.payload);
            let carried = if version.is_v5() {
                publish.properties.clone()
            } else {
                PublishProperties::default()
            };
            prop_assert_eq!(received.properties, carried);
        }
    }

    #[test]
    fn no_bytes_panic_and_none_ask_for_more_than_the_bound(
        bytes in vec(any::<u8>(), 0..64),
        packet_bytes_max in 0_usize..100,
    ) {
        let mut decoders = vec![Decoder::server(packet_bytes_max)];
        for version in VERSIONS {
            decoders.push(Decoder::client(version, packet_bytes_max));
            let mut decoder = connected(version);
            decoder.set_packet_bytes_max(packet_bytes_max);
            decoders.push(decoder);
        }
        for mut decoder in decoders {
            if let Ok(Decoded::Incomplete { needed }) = decoder.decode(&bytes) {
                prop_assert!(needed <= packet_bytes_max.max(5));
            }
        }
    }

    #[test]
    fn what_is_decoded_from_damaged_packets_can_be_encoded_and_is_the_same_again(
        (version, packet) in
            packets::version().prop_flat_map(|v| (Just(v), packets::from_client(v))),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&packet, version);
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        if let Ok(Decoded::Packet { packet, .. }) = connected(version).decode(&bytes) {
            let again = encoded(&packet, version);
            prop_assert_eq!(whole(&mut connected(version), &again).0, packet);
        }
    }
}

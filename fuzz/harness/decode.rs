//! Any bytes, in any pieces, to the decoder of either side and every version.
//!
//! An input is `mode, bound, n, n chunk lengths, stream…`. Invariants: no panic; an incomplete
//! packet asks for more than there is and for no more than the bound; how the stream was cut
//! changes neither the packets nor the violation; a violation repeats itself.

use avow::mqtt::{Decoded, Decoder, Packet, ProtocolVersion, Violation};

/// Longest fixed header.
const FIXED_HEADER_BYTES_MAX: usize = 5;

const CONNECT_3_1: &[u8] = b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c";
const CONNECT_3_1_1: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c";
const CONNECT_5: &[u8] = b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c";

/// A decoder in the state that `mode` names: before CONNECT, after it, or a client's.
pub(crate) fn decoder(mode: u8, packet_bytes_max: usize) -> Decoder {
    let connect = match mode % 7 {
        1 => CONNECT_3_1,
        2 => CONNECT_3_1_1,
        3 => CONNECT_5,
        4 => return Decoder::client(ProtocolVersion::V3_1, packet_bytes_max),
        5 => return Decoder::client(ProtocolVersion::V3_1_1, packet_bytes_max),
        6 => return Decoder::client(ProtocolVersion::V5, packet_bytes_max),
        _ => return Decoder::server(packet_bytes_max),
    };
    let mut decoder = Decoder::server(connect.len());
    assert!(matches!(decoder.decode(connect), Ok(Decoded::Packet { .. })));
    decoder.set_packet_bytes_max(packet_bytes_max);
    decoder
}

/// How a stream ended.
type End = Result<usize, Violation>;

/// Reads `stream` in pieces of `chunks` (over and over; all at once if there are none).
fn read(
    mut decoder: Decoder,
    stream: &[u8],
    chunks: &[u8],
    packet_bytes_max: usize,
) -> (Vec<Packet>, End) {
    let mut packets = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut chunks = chunks.iter().cycle();
    while end < stream.len() {
        let chunk = chunks.next().map_or(stream.len(), |chunk| usize::from(*chunk) + 1);
        end = stream.len().min(end.saturating_add(chunk));
        loop {
            match decoder.decode(&stream[start..end]) {
                Ok(Decoded::Packet { packet, consumed }) => {
                    assert!(consumed > 0 && start + consumed <= end, "consumed {consumed}");
                    start += consumed;
                    packets.push(packet);
                }
                Ok(Decoded::Incomplete { needed }) => {
                    assert!(needed > end - start, "needs {needed} of {}", end - start);
                    assert!(needed <= packet_bytes_max.max(FIXED_HEADER_BYTES_MAX), "{needed}");
                    break;
                }
                Err(violation) => {
                    assert_eq!(decoder.decode(&stream[start..end]), Err(violation.clone()));
                    assert_eq!(decoder.decode(&[]), Err(violation.clone()));
                    return (packets, Err(violation));
                }
            }
        }
    }
    (packets, Ok(start))
}

/// One input.
pub(crate) fn run(data: &[u8]) {
    let Some((&[mode, bound, count], rest)) = data.split_first_chunk() else { return };
    let Some((chunks, stream)) = rest.split_at_checked(usize::from(count % 16)) else { return };
    let packet_bytes_max = if bound < 128 { usize::from(bound) } else { 1 << (bound % 21) };
    let whole = read(decoder(mode, packet_bytes_max), stream, &[], packet_bytes_max);
    let pieces = read(decoder(mode, packet_bytes_max), stream, chunks, packet_bytes_max);
    let bytes = read(decoder(mode, packet_bytes_max), stream, &[0], packet_bytes_max);
    assert_eq!(whole, pieces);
    assert_eq!(whole, bytes);
}

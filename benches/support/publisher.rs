//! A publishing client: its packets are encoded once, and only a number in the payload changes.

use std::time::Instant;

use super::failure::Failure;
use super::link::Link;
use super::wire;

/// 128 bytes that satisfy the shipped telemetry schema; the digits of `seq` are counted up.
const PAYLOAD: &[u8; 128] = b"{\"ts\":1795000000000,\"seq\":10000000,\
    \"values\":{\"force\":1000.25,\"rms\":2.81,\"peak\":6.5},\"unit\":\"kN\",\"operator\":{\"name\":\"R. Kimura\"}}";
const COUNTER: &[u8] = b"\"seq\":";
const COUNTER_DIGITS: usize = 8;

/// A publishing client.
pub(crate) struct Publisher {
    pub(crate) link: Link,
    /// One packet for each place in the send quota. The Packet Identifier is the place plus one,
    /// and free again once it was acknowledged.
    packets: Vec<Vec<u8>>,
    sent_at: Vec<Option<Instant>>,
    free: Vec<u16>,
    counter_at: usize,
    counter: u32,
    /// Whether packets that leave in one write share a TLS record.
    packs: bool,
    out: Vec<u8>,
}

impl Publisher {
    /// A client of `topic`; `in_flight_max` messages wait for a PUBACK, or QoS 0 if that is 0.
    /// Each message has a TLS record of its own, as clients send them, unless it `packs`.
    pub(crate) fn new(link: Link, topic: &str, in_flight_max: u16, packs: bool) -> Self {
        let packets: Vec<Vec<u8>> = if in_flight_max == 0 {
            vec![wire::publish(topic, None, PAYLOAD)]
        } else {
            (1..=in_flight_max).map(|id| wire::publish(topic, Some(id), PAYLOAD)).collect()
        };
        let at = PAYLOAD.windows(COUNTER.len()).position(|window| window == COUNTER);
        let length = packets.first().map_or(0, Vec::len);
        Self {
            link,
            packets,
            sent_at: vec![None; usize::from(in_flight_max)],
            free: (0..in_flight_max).rev().collect(),
            counter_at: length - PAYLOAD.len() + at.unwrap_or(0) + COUNTER.len(),
            counter: 10_000_000,
            packs,
            out: Vec::new(),
        }
    }

    /// Sends up to `messages` as far as the quota goes, in one write; says how many.
    pub(crate) fn publish(&mut self, messages: usize, now: Instant) -> Result<u64, Failure> {
        let mut sent = 0;
        self.out.clear();
        while sent < messages {
            let place = if self.sent_at.is_empty() { Some(0) } else { self.free.pop() };
            let Some(place) = place.map(usize::from) else { break };
            let Some(packet) = self.packets.get_mut(place) else { break };
            if let Some(at) = self.sent_at.get_mut(place) {
                *at = Some(now);
            }
            self.counter += 1;
            let digits = packet.get_mut(self.counter_at..self.counter_at + COUNTER_DIGITS);
            let mut rest = self.counter;
            for digit in digits.unwrap_or_default().iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
                rest /= 10;
            }
            if self.packs {
                self.out.extend_from_slice(packet);
            } else {
                self.link.queue(packet)?;
            }
            sent += 1;
        }
        if sent > 0 {
            self.link.queue(&self.out)?;
            self.link.flush()?;
        }
        Ok(u64::try_from(sent).unwrap_or(u64::MAX))
    }

    /// Reads the acknowledgements that came; `on_ack` hears when each message was sent.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        mut on_ack: impl FnMut(Instant),
    ) -> Result<(), Failure> {
        let (sent_at, free) = (&mut self.sent_at, &mut self.free);
        self.link.receive(buffer, |first, body| {
            if first != wire::PUBACK {
                return Err(Failure::Unexpected("not a PUBACK"));
            }
            let (id, code) = wire::acknowledged(body).ok_or(Failure::Unexpected("a PUBACK"))?;
            if code >= 0x80 {
                return Err(Failure::Refused("PUBLISH", code));
            }
            let place = id.wrapping_sub(1);
            let sent = sent_at.get_mut(usize::from(place)).and_then(Option::take);
            on_ack(sent.ok_or(Failure::Unexpected("a PUBACK for nothing"))?);
            free.push(place);
            Ok(())
        })
    }
}

//! What a session remembers of the messages it received: QoS 2 Packet Identifiers between PUBLISH
//! and PUBREL (section 4.3.3).

use std::collections::BTreeSet;

use crate::mqtt::PacketId;

/// The receiver's half of QoS 2. Bounded by the Receive Maximum of the connection; of a 3.x client,
/// which has none, by the number of identifiers there are: reading it no more would keep its
/// PUBRELs out too.
#[derive(Debug, Default)]
pub struct Inbound {
    unreleased: BTreeSet<PacketId>,
}

impl Inbound {
    /// Notes a QoS 2 PUBLISH; false if its identifier is still unreleased, so that it is a resend.
    /// [MQTT-4.3.3-10]
    pub fn receive(&mut self, id: PacketId) -> bool {
        self.unreleased.insert(id)
    }

    /// Whether `id` is in use.
    pub fn contains(&self, id: PacketId) -> bool {
        self.unreleased.contains(&id)
    }

    /// Carries out a PUBREL, or frees the identifier of a PUBLISH that was refused; false if the
    /// identifier was not in use. [MQTT-4.3.3-11], [MQTT-4.3.3-12]
    pub fn release(&mut self, id: PacketId) -> bool {
        self.unreleased.remove(&id)
    }

    /// The identifiers in use, in order.
    pub fn iter(&self) -> impl Iterator<Item = PacketId> {
        self.unreleased.iter().copied()
    }

    /// Number of identifiers in use.
    pub fn len(&self) -> usize {
        self.unreleased.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.unreleased.is_empty()
    }
}

//! Copies of a PUBLISH to a client: the one way to [`Output::Deliver`].
//!
//! Here a copy gets its Topic Alias, in the order in which copies leave: the client must be told
//! what an alias stands for before the alias stands alone. The invariant: no copy larger than the
//! client's Maximum Packet Size leaves, its alias included, and `outstanding_bytes` counts what the
//! shell will say it wrote. [MQTT-3.1.2-24]

use std::collections::VecDeque;

use super::connection::Connection;
use super::durable::Change;
use super::effect::Effect;
use super::input::ConnectionId;
use super::ledger::Ledger;
use super::output::Output;
use crate::mqtt::{EncodedPublish, PacketId};
use crate::routing::SessionKey;

/// One copy of a PUBLISH.
pub(super) struct Copy {
    pub(super) publish: EncodedPublish,
    pub(super) packet_id: Option<PacketId>,
    pub(super) dup: bool,
}

/// Whether the client takes a packet of this size: as it is, or with the alias that it knows for
/// the topic. [MQTT-3.1.2-25]
pub(super) fn fits(connection: &Connection, publish: &EncodedPublish) -> bool {
    let max = connection.packet_bytes_max;
    publish.len() <= max || shortened(connection, publish).is_some_and(|short| short.len() <= max)
}

/// Hands a copy to the shell, now. The caller has asked [`fits`].
pub(super) fn hand_over(
    outputs: &mut VecDeque<Output>,
    connection: &mut Connection,
    id: ConnectionId,
    copy: Copy,
) {
    let Copy { publish, packet_id, dup } = copy;
    let publish = with_alias(connection, publish);
    connection.outstanding_bytes += publish.len();
    outputs.push_back(Output::Deliver { connection: id, publish, dup, packet_id });
}

/// A new copy, which may have to wait for the disk.
pub(super) struct Handing {
    pub(super) id: ConnectionId,
    pub(super) key: SessionKey,
    pub(super) publish: EncodedPublish,
    pub(super) packet_id: Option<PacketId>,
    /// What must be on disk before it leaves.
    pub(super) record: Option<Change>,
    /// Whether what was recorded before must be, too.
    pub(super) waits: bool,
}

/// Hands a copy to the shell, at once or behind its record. While it waits it counts as handed
/// over, at its full length; its alias is chosen when it leaves.
pub(super) fn hand_over_recorded(
    outputs: &mut VecDeque<Output>,
    ledger: &mut Ledger,
    connection: &mut Connection,
    handing: Handing,
) {
    let Handing { id, key, publish, packet_id, record, waits } = handing;
    let waits = waits || record.is_some();
    if let Some(change) = record {
        ledger.note(None, |out| change.encode(out));
    }
    if waits {
        connection.outstanding_bytes += publish.len();
        ledger.wait(Effect::Deliver { connection: id, session: key, publish, packet_id });
    } else {
        hand_over(outputs, connection, id, Copy { publish, packet_id, dup: false });
    }
}

/// The copy with the alias that its topic has, or gets with it.
fn with_alias(connection: &mut Connection, publish: EncodedPublish) -> EncodedPublish {
    if connection.outbound_aliases.is_off() {
        return publish;
    }
    if let Some(short) = shortened(connection, &publish) {
        return short;
    }
    let Some(alias) = connection.outbound_aliases.free(publish.topic()) else { return publish };
    match publish.with_alias(alias) {
        Some(copy) if copy.len() <= connection.packet_bytes_max => {
            connection.outbound_aliases.set(publish.topic(), alias);
            copy
        }
        Some(_) | None => publish,
    }
}

/// The copy without its topic, if the client knows an alias for that.
fn shortened(connection: &Connection, publish: &EncodedPublish) -> Option<EncodedPublish> {
    if connection.outbound_aliases.is_off() {
        return None;
    }
    publish.with_alias(connection.outbound_aliases.known(publish.topic())?)
}

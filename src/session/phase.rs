//! Which packet may come when: one table.

use crate::mqtt::Packet;

/// Where a Network Connection stands, seen from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// When the handshake is done and CONNECT has not come.
    AwaitingConnect,
    /// When CONNECT was decided and its entry is not yet on disk.
    Connecting,
    /// When CONNACK was sent.
    Connected,
    /// When we have asked the shell to close it: whatever still comes is ignored.
    Closing,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 4] =
        [Self::AwaitingConnect, Self::Connecting, Self::Connected, Self::Closing];
}

/// The kinds of packet that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// CONNECT.
    Connect,
    /// PUBLISH.
    Publish,
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Acknowledgement,
    /// SUBSCRIBE or UNSUBSCRIBE.
    Subscription,
    /// PINGREQ.
    Ping,
    /// DISCONNECT.
    Disconnect,
    /// AUTH.
    Auth,
    /// A packet that only a server sends.
    ServerOnly,
}

impl Arrival {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Publish,
        Self::Acknowledgement,
        Self::Subscription,
        Self::Ping,
        Self::Disconnect,
        Self::Auth,
        Self::ServerOnly,
    ];

    /// The kind of `packet`.
    pub const fn of(packet: &Packet) -> Self {
        match packet {
            Packet::Connect(_) => Self::Connect,
            Packet::Publish(_) => Self::Publish,
            Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => {
                Self::Acknowledgement
            }
            Packet::Subscribe(_) | Packet::Unsubscribe(_) => Self::Subscription,
            Packet::PingReq => Self::Ping,
            Packet::Disconnect(_) => Self::Disconnect,
            Packet::Auth(_) => Self::Auth,
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Self::ServerOnly
            }
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is handled.
    Handle,
    /// It is dropped: the connection is already being closed.
    Ignore,
    /// It is a Protocol Error.
    Violation(&'static str),
}

impl Phase {
    /// The table.
    pub const fn judge(self, arrival: Arrival) -> Verdict {
        use Arrival as A;
        use Verdict::{Handle, Ignore, Violation};
        match (self, arrival) {
            // [MQTT-3.1.4-6], [MQTT-3.14.4-1]
            (Self::Closing, _) => Ignore,
            (Self::AwaitingConnect, A::Connect) => Handle,
            // [MQTT-3.1.0-1]
            (Self::AwaitingConnect, _) => Violation("the first packet must be CONNECT"),
            // [MQTT-3.1.0-2]
            (Self::Connecting | Self::Connected, A::Connect) => Violation("a second CONNECT"),
            (_, A::ServerOnly) => Violation("only a server sends this packet"),
            // The shell reads nothing between CONNECT and CONNACK, so only a bug of ours gets here.
            (Self::Connecting, _) => Violation("a packet before CONNACK"),
            // No method was agreed on in CONNECT, so none can be used. [MQTT-4.12.0-1]
            (Self::Connected, A::Auth) => Violation("AUTH without an Authentication Method"),
            (
                Self::Connected,
                A::Publish | A::Acknowledgement | A::Subscription | A::Ping | A::Disconnect,
            ) => Handle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        let rows: Vec<String> = Phase::ALL
            .into_iter()
            .flat_map(|phase| {
                Arrival::ALL.into_iter().map(move |arrival| {
                    format!("{phase:?} + {arrival:?} -> {:?}", phase.judge(arrival))
                })
            })
            .collect();
        insta::assert_snapshot!(rows.join("\n"), @r#"
        AwaitingConnect + Connect -> Handle
        AwaitingConnect + Publish -> Violation("the first packet must be CONNECT")
        AwaitingConnect + Acknowledgement -> Violation("the first packet must be CONNECT")
        AwaitingConnect + Subscription -> Violation("the first packet must be CONNECT")
        AwaitingConnect + Ping -> Violation("the first packet must be CONNECT")
        AwaitingConnect + Disconnect -> Violation("the first packet must be CONNECT")
        AwaitingConnect + Auth -> Violation("the first packet must be CONNECT")
        AwaitingConnect + ServerOnly -> Violation("the first packet must be CONNECT")
        Connecting + Connect -> Violation("a second CONNECT")
        Connecting + Publish -> Violation("a packet before CONNACK")
        Connecting + Acknowledgement -> Violation("a packet before CONNACK")
        Connecting + Subscription -> Violation("a packet before CONNACK")
        Connecting + Ping -> Violation("a packet before CONNACK")
        Connecting + Disconnect -> Violation("a packet before CONNACK")
        Connecting + Auth -> Violation("a packet before CONNACK")
        Connecting + ServerOnly -> Violation("only a server sends this packet")
        Connected + Connect -> Violation("a second CONNECT")
        Connected + Publish -> Handle
        Connected + Acknowledgement -> Handle
        Connected + Subscription -> Handle
        Connected + Ping -> Handle
        Connected + Disconnect -> Handle
        Connected + Auth -> Violation("AUTH without an Authentication Method")
        Connected + ServerOnly -> Violation("only a server sends this packet")
        Closing + Connect -> Ignore
        Closing + Publish -> Ignore
        Closing + Acknowledgement -> Ignore
        Closing + Subscription -> Ignore
        Closing + Ping -> Ignore
        Closing + Disconnect -> Ignore
        Closing + Auth -> Ignore
        Closing + ServerOnly -> Ignore
        "#);
    }
}

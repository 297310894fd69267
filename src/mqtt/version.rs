//! Protocol versions.

/// The protocol of one Network Connection, told by its CONNECT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1 (`MQIsdp`, level 3).
    V3_1,
    /// MQTT 3.1.1 (`MQTT`, level 4).
    V3_1_1,
    /// MQTT 5.0 (`MQTT`, level 5).
    V5,
}

impl ProtocolVersion {
    /// Whether packets carry properties and acknowledgements carry Reason Codes.
    pub const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }

    /// As people write it: `3.1`, `3.1.1`, `5.0`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

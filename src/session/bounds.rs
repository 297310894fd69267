//! The bounds of sessions and of what they send: plain integers, unit last.
//!
//! Nothing here reads configuration: `config` produces a [`Bounds`], the core obeys it. The
//! invariant: no field means "unlimited", and every default is the one of the abuse catalogue.

/// What one broker allows. `config` checks that every value lies in its range; the core may rely
/// on nothing but the types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Largest Control Packet accepted, in bytes, fixed header included: the Maximum Packet Size
    /// of CONNACK. Larger ones are a violation (0x95).
    pub packet_bytes_max: u32,
    /// Largest CONNECT accepted, in bytes, fixed header included: what an unauthenticated peer
    /// may make us hold.
    pub connect_bytes_max: u32,
    /// Longest Client Identifier, in bytes.
    pub client_id_bytes_max: u16,
    /// Most levels of a Topic Name or Topic Filter.
    pub topic_levels_max: u16,
    /// Longest Topic Name, in bytes.
    pub topic_bytes_max: u16,
    /// Longest Topic Filter, in bytes, share prefix included.
    pub filter_bytes_max: u16,
    /// Most subscriptions of one session.
    pub subscriptions_max: u32,
    /// Most filters of one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_per_subscribe_max: u32,
    /// Most User Properties of one packet.
    pub user_properties_max: u32,
    /// Most messages waiting in one session's queue, the unacknowledged ones not counted.
    pub queue_messages_max: u32,
    /// Most bytes (topic, properties, payload) kept for one session: in its queue, and sent to it
    /// and not acknowledged.
    pub queue_bytes_max: u64,
    /// Most QoS 1 and 2 messages sent to one client and not yet acknowledged; the client's own
    /// Receive Maximum may be smaller.
    pub send_window_messages_max: u16,
    /// Most QoS 1 and 2 messages of one client not yet acknowledged by us: the Receive Maximum of
    /// CONNACK. Exceeding it is a violation (0x93). A 3.x client cannot be told: with so many that
    /// have neither PUBACK nor PUBREC it is not read.
    pub receive_maximum: u16,
    /// Most Topic Aliases a client may set: the Topic Alias Maximum of CONNACK.
    pub topic_alias_maximum: u16,
    /// Most Topic Aliases we set towards one client; its own Topic Alias Maximum may be smaller.
    pub topic_alias_outbound_max: u16,
    /// Shortest Keep Alive granted, in seconds (5.0: announced as Server Keep Alive).
    pub keep_alive_seconds_min: u16,
    /// Longest Keep Alive granted, in seconds (5.0: announced as Server Keep Alive).
    pub keep_alive_seconds_max: u16,
    /// Longest silence of a 3.x client whose Keep Alive is 0, in seconds.
    pub idle_seconds_max: u32,
    /// Longest Session Expiry Interval granted, in seconds; also what a 3.x client with Clean
    /// Session 0 gets.
    pub session_expiry_seconds_max: u32,
    /// Longest Message Expiry Interval kept for a queued message, in seconds; also what a message
    /// without one gets.
    pub message_expiry_seconds_max: u32,
    /// Longest Will Delay Interval granted, in seconds; never beyond the session's expiry.
    pub will_delay_seconds_max: u32,
    /// Most retained messages in the broker.
    pub retained_messages_max: u32,
    /// Most bytes (topic, properties, payload) of retained messages in the broker.
    pub retained_bytes_max: u64,
    /// Most sessions in the broker, with and without a connection.
    pub sessions_total_max: u32,
    /// Most subscriptions in the broker.
    pub subscriptions_total_max: u32,
    /// Most messages waiting in all queues of the broker together.
    pub queue_total_messages_max: u64,
    /// Most bytes in all queues of the broker together, what is not acknowledged included.
    pub queue_total_bytes_max: u64,
    /// Most bytes handed to one connection and not yet written: beyond it, QoS 0 is dropped and
    /// the rest waits in the queue.
    pub outbound_bytes_max: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        const KIB: u32 = 1024;
        const MIB: u64 = 1024 * 1024;
        const DAY: u32 = 24 * 60 * 60;
        Self {
            packet_bytes_max: 128 * KIB,
            connect_bytes_max: 32 * KIB,
            client_id_bytes_max: 128,
            topic_levels_max: 16,
            topic_bytes_max: 256,
            filter_bytes_max: 256,
            subscriptions_max: 50,
            filters_per_subscribe_max: 8,
            user_properties_max: 16,
            queue_messages_max: 1_000,
            queue_bytes_max: 8 * MIB,
            send_window_messages_max: 64,
            receive_maximum: 64,
            topic_alias_maximum: 16,
            topic_alias_outbound_max: 16,
            keep_alive_seconds_min: 5,
            keep_alive_seconds_max: 1_200,
            idle_seconds_max: 1_800,
            session_expiry_seconds_max: 7 * DAY,
            message_expiry_seconds_max: 7 * DAY,
            will_delay_seconds_max: DAY,
            retained_messages_max: 100_000,
            retained_bytes_max: 256 * MIB,
            sessions_total_max: 50_000,
            subscriptions_total_max: 500_000,
            queue_total_messages_max: 1_000_000,
            queue_total_bytes_max: 1024 * MIB,
            outbound_bytes_max: 256 * KIB,
        }
    }
}

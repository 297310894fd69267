//! `avow sub`.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::ClientFailure;
use super::arguments::ConnectionArguments;
use super::connection::Connection;
use crate::cli::show;
use crate::mqtt::{
    Ack, Packet, PacketId, Publish, QoS, ReasonCode, SubAck, Subscribe, SubscribeFilter,
    SubscriptionOptions, TopicFilter, TopicName,
};

/// Subscribe and print messages.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(in crate::cli) struct SubscribeArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    /// Topic Filter; may be repeated
    #[arg(short, long, required = true)]
    topic: Vec<String>,
    /// Maximum Quality of Service: 0, 1 or 2
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// End after this many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this many seconds; with -C, fewer messages are a failure
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Print the topic before each message
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object per message
    #[arg(long)]
    json: bool,
}

/// Subscribes, prints until told to stop, unsubscribes by disconnecting.
pub(in crate::cli) fn run(arguments: &SubscribeArguments) -> Result<(), ClientFailure> {
    for topic in &arguments.topic {
        TopicFilter::parse(topic).map_err(|source| ClientFailure::Topic {
            topic: topic.clone(),
            doing: "subscribe to",
            source,
        })?;
    }
    let target = arguments.connection.target("sub")?;
    target.runtime()?.block_on(async {
        let connection = Connection::open(&target, &arguments.connection).await?;
        let subscriber = Subscriber { arguments, connection, received: 0, held: HashSet::new() };
        subscriber.run().await
    })
}

struct Subscriber<'a> {
    arguments: &'a SubscribeArguments,
    connection: Connection,
    received: u64,
    /// QoS 2 messages that were printed and not yet released.
    held: HashSet<PacketId>,
}

impl Subscriber<'_> {
    async fn run(mut self) -> Result<(), ClientFailure> {
        let options = SubscriptionOptions {
            qos: QoS::from_bits(self.arguments.qos).unwrap_or_default(),
            ..SubscriptionOptions::default()
        };
        let filters = self.arguments.topic.iter().cloned();
        let subscribe = Subscribe {
            packet_id: PacketId::ONE,
            subscription_identifier: None,
            user_properties: Vec::new(),
            filters: filters.map(|filter| SubscribeFilter { filter, options }).collect(),
        };
        self.connection.send(&Packet::Subscribe(Box::new(subscribe))).await?;
        let keep_alive = self.connection.server.server_keep_alive_seconds;
        let keep_alive = keep_alive.unwrap_or(self.arguments.connection.keepalive);
        // Three quarters, so that a ping under way is not late; no Keep Alive, no ping.
        let ping_every = match keep_alive {
            0 => Duration::from_secs(365 * 86_400),
            seconds => Duration::from_millis(u64::from(seconds) * 750),
        };
        let mut ping_at = Instant::now() + ping_every;
        let forever = Duration::from_secs(365 * 86_400);
        let end = self.arguments.timeout.map_or(forever, Duration::from_secs);
        let end_at = Instant::now() + end;
        loop {
            tokio::select! {
                packet = self.connection.receive() => {
                    if self.take(packet?).await? {
                        return self.connection.close().await;
                    }
                }
                () = sleep_until(ping_at) => {
                    self.connection.send(&Packet::PingReq).await?;
                    ping_at = Instant::now() + ping_every;
                }
                () = sleep_until(end_at) => break,
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        let (received, wanted) = (self.received, self.arguments.count);
        self.connection.close().await?;
        match wanted {
            Some(wanted) => Err(ClientFailure::TooFew { received, wanted }),
            None => Ok(()),
        }
    }

    /// Acts on one packet; true when enough messages have come.
    async fn take(&mut self, packet: Packet) -> Result<bool, ClientFailure> {
        match packet {
            Packet::SubAck(ack) => self.subscribed(&ack)?,
            Packet::PubRel(release) => {
                self.held.remove(&release.packet_id);
                let done = Ack::new(release.packet_id, ReasonCode::Success);
                self.connection.send(&Packet::PubComp(done)).await?;
            }
            Packet::Publish(publish) => {
                let again = publish.qos == QoS::ExactlyOnce
                    && publish.packet_id.is_some_and(|id| !self.held.insert(id));
                if !again {
                    self.print(&publish);
                    self.received += 1;
                }
                if let Some(packet_id) = publish.packet_id {
                    let ack = Ack::new(packet_id, ReasonCode::Success);
                    let answer = match publish.qos {
                        QoS::ExactlyOnce => Packet::PubRec(ack),
                        QoS::AtLeastOnce | QoS::AtMostOnce => Packet::PubAck(ack),
                    };
                    self.connection.send(&answer).await?;
                }
                return Ok(self.arguments.count.is_some_and(|count| self.received >= count));
            }
            _ => {}
        }
        Ok(false)
    }

    /// One refused filter ends the program: nobody wants half of what they asked for unseen.
    fn subscribed(&self, ack: &SubAck) -> Result<(), ClientFailure> {
        for (topic, reason) in self.arguments.topic.iter().zip(&ack.reasons) {
            if reason.is_error() {
                return Err(ClientFailure::Refused {
                    what: format!("SUBSCRIBE to `{}`", show::escape(topic)),
                    reason: *reason,
                    text: ack.properties.reason_string.clone(),
                });
            }
        }
        Ok(())
    }

    fn print(&self, publish: &Publish) {
        let topic = publish.topic.as_ref().map_or("", TopicName::as_str);
        if self.arguments.json {
            return show::json(&as_json(topic, publish));
        }
        if show::stdout_is_terminal() {
            let payload = show::escape_bytes(&publish.payload);
            let topic = show::escape(topic);
            return show::line(&if self.arguments.verbose {
                format!("{topic} {payload}")
            } else {
                payload
            });
        }
        let mut bytes = Vec::new();
        if self.arguments.verbose {
            bytes.extend_from_slice(topic.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&publish.payload);
        bytes.push(b'\n');
        show::write_out(&bytes);
    }
}

/// A message as JSON: `payload` if it is UTF-8, else `payload_base64`.
fn as_json(topic: &str, publish: &Publish) -> serde_json::Value {
    let properties = &publish.properties;
    let user: Vec<_> =
        properties.user_properties.iter().map(|p| json!([p.name, p.value])).collect();
    let mut value = json!({
        "topic": topic,
        "qos": publish.qos as u8,
        "retain": publish.retain,
        "dup": publish.dup,
        "content_type": properties.content_type,
        "response_topic": properties.response_topic,
        "message_expiry_seconds": properties.message_expiry_seconds,
        "user_properties": user,
    });
    let payload = match std::str::from_utf8(&publish.payload) {
        Ok(text) => ("payload", json!(text)),
        Err(_) => {
            let text = base64::engine::general_purpose::STANDARD.encode(&publish.payload);
            ("payload_base64", json!(text))
        }
    };
    if let Some(object) = value.as_object_mut() {
        object.insert(payload.0.to_owned(), payload.1);
    }
    value
}

//! `avow pub`.
#![expect(clippy::disallowed_methods, reason = "a client reads files and standard input")]

use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;

use super::ClientFailure;
use super::arguments::ConnectionArguments;
use super::connection::Connection;
use super::receipt::Awaited;
use crate::cli::show::escape;
use crate::mqtt::{Ack, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, TopicName};

/// Publish messages.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(in crate::cli) struct PublishArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    /// Topic Name
    #[arg(short, long)]
    topic: String,
    /// Quality of Service: 0, 1 or 2
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Retain the message
    #[arg(short, long)]
    retain: bool,
    /// Ask for a receipt and store it here. Before 5.0 nobody can ask: the rule must say so
    #[arg(long, value_name = "FILE", conflicts_with = "stdin_line")]
    receipt: Option<PathBuf>,
    /// Write over a receipt that is there
    #[arg(long, requires = "receipt")]
    force: bool,
    #[command(flatten)]
    source: Source,
}

/// Where messages come from.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Source {
    /// The message
    #[arg(short, long, allow_hyphen_values = true)]
    message: Option<String>,
    /// A file: one message
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Standard input: one message per line
    #[arg(short = 'l', long)]
    stdin_line: bool,
    /// The empty message
    #[arg(short, long)]
    null_message: bool,
    /// Standard input: one message
    #[arg(short = 's', long)]
    stdin_file: bool,
}

/// Publishes every message, in order, each acknowledged before the next.
pub(in crate::cli) fn run(arguments: &PublishArguments) -> Result<(), ClientFailure> {
    let topic = TopicName::parse(&arguments.topic).map_err(|source| ClientFailure::Topic {
        topic: arguments.topic.clone(),
        doing: "publish to",
        source,
    })?;
    let mut target = arguments.connection.target("pub")?;
    let mut receipt = arguments.receipt.as_deref().map(|path| Awaited::new(path, arguments.force));
    if let Some(receipt) = &mut receipt {
        receipt.ask(&mut target)?;
    }
    let mut messages = messages(&arguments.source)?;
    target.runtime()?.block_on(async {
        let mut connection = Connection::open(&target, &arguments.connection).await?;
        if let Some(receipt) = &receipt {
            receipt.listen(&mut connection).await?;
        }
        let mut packet_id = PacketId::ONE;
        while let Some(payload) = messages.recv().await {
            let qos = QoS::from_bits(arguments.qos).unwrap_or_default();
            let publish = Publish {
                dup: false,
                qos,
                retain: arguments.retain,
                topic: Some(topic.clone()),
                packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
                properties: PublishProperties::default(),
                payload,
            };
            connection.send(&Packet::Publish(Box::new(publish))).await?;
            acknowledged(&mut connection, qos, packet_id, &topic, receipt.as_mut()).await?;
            packet_id = packet_id.next();
        }
        if let Some(receipt) = receipt {
            receipt.store(&mut connection).await?;
        }
        connection.close().await
    })
}

/// Waits until the message of `packet_id` is acknowledged as its QoS says.
async fn acknowledged(
    connection: &mut Connection,
    qos: QoS,
    packet_id: PacketId,
    topic: &TopicName,
    mut receipt: Option<&mut Awaited>,
) -> Result<(), ClientFailure> {
    let refused = |ack: Ack| ClientFailure::Refused {
        what: format!("PUBLISH to `{}`", escape(topic.as_str())),
        reason: ack.reason,
        text: ack.properties.and_then(|properties| properties.reason_string),
    };
    if qos == QoS::AtMostOnce {
        return Ok(());
    }
    loop {
        let packet = connection.answer("acknowledgement").await?;
        if let Some(receipt) = receipt.as_deref_mut() {
            receipt.look(&packet);
        }
        match packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack)
                if ack.packet_id == packet_id && ack.reason.is_error() =>
            {
                return Err(refused(ack));
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) if ack.packet_id == packet_id => {
                return Ok(());
            }
            Packet::PubRec(ack) if ack.packet_id == packet_id => {
                let release = Packet::PubRel(Ack::new(packet_id, ReasonCode::Success));
                connection.send(&release).await?;
            }
            // A session that was resumed may bring messages; they are not ours to take.
            _ => {}
        }
    }
}

/// The messages, one by one; lines come as they are typed.
fn messages(source: &Source) -> Result<mpsc::Receiver<Bytes>, ClientFailure> {
    let (sender, receiver) = mpsc::channel(16);
    let stdin = |source| ClientFailure::File { path: "-".into(), source };
    let one = if let Some(message) = &source.message {
        message.clone().into_bytes()
    } else if let Some(path) = &source.file {
        std::fs::read(path).map_err(|source| ClientFailure::File { path: path.clone(), source })?
    } else if source.stdin_file {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(stdin)?;
        bytes
    } else if source.stdin_line {
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().split(b'\n') {
                let Ok(mut line) = line else { return };
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                if sender.blocking_send(line.into()).is_err() {
                    return;
                }
            }
        });
        return Ok(receiver);
    } else {
        Vec::new()
    };
    // The channel has room: this is its first message.
    let _ = sender.try_send(one.into());
    Ok(receiver)
}

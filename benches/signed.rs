//! Signed messages: what level A2 costs beside the bare signature checks, and whether unsigned
//! clients notice.
//!
//! 32 mutual-TLS devices publish 128 bytes at QoS 1, one message in flight each, as fast as the broker
//! answers: first unsigned, then each message with its statement, which was made before the clock runs. The figures: the CPU that signing adds to
//! the broker, per message, against the CPU of as many bare checks of the same signatures in this
//! process; and the PUBACK latency of one unsigned client beside the signed load. P-256 and Ed25519.

#![expect(clippy::disallowed_methods, reason = "a bench owns clocks")]

#[expect(dead_code, reason = "shared with benches of rivals")]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avow::identity::{DeviceKey, KeyKind};
use avow_signer::{Message, STATEMENT_PROPERTY, Signer, SignerOptions, SigningKey};
use mio::{Events, Poll};
use rustls::ClientConfig;
use serde_json::json;

use support::arguments::Arguments;
use support::broker::{Broker, Kind, Permits};
use support::failure::{Failure, io};
use support::link::Link;
use support::pki::{Issued, new_key};
use support::process::{own_cpu_micros, raise_open_files};
use support::report::{Latencies, Report};
use support::wire;

const DEVICES: usize = 32;
/// Signed messages per second of all devices together that are made at most.
const RATE_MAX: u32 = 20_000;
/// Messages per second of the client beside them.
const BESIDE_RATE: u32 = 100;
const PAYLOAD: &[u8; 128] = &[b'x'; 128];
/// Checks that one bare measurement makes.
const BARE_CHECKS: u32 = 20_000;
const READ_BYTES: usize = 256 * 1024;

const PERMITS: Permits = Permits {
    policy: "\n[[permit]]\nid = \"bench\"\nwho = [\"device\"]\npublish = [\"bench/${device}\"]\n\
             schema = \"none\"\n",
    acl: "",
};

fn main() -> ExitCode {
    let columns = [
        "key",
        "messages/s",
        "CPU µs/message, unsigned",
        "CPU µs/message, signed",
        "bare check µs",
        "signing adds ÷ bare",
        "unsigned client alone p50 / p99 ms",
        "beside unsigned load",
        "beside signed load",
    ];
    let mut report = Report::new("Signed messages: 32 devices, QoS 1, 128 B", &columns);
    let outcome = raise_open_files().and_then(|()| Arguments::read(8)).and_then(|arguments| {
        for _ in 0..arguments.rounds {
            for kind in [KeyKind::P256, KeyKind::Ed25519] {
                measure(kind, &arguments, &mut report)?;
            }
        }
        Ok(arguments.json)
    });
    report.remark(format!(
        "{BESIDE_RATE} messages a second of the unsigned client; nothing is pinned; debug \
         assertions: {}",
        cfg!(debug_assertions)
    ));
    report.print(matches!(outcome, Ok(true)));
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// One kind of key: alone, unsigned, signed.
fn measure(kind: KeyKind, arguments: &Arguments, report: &mut Report) -> Result<(), Failure> {
    let Some(mut broker) = Kind::Avow.start(false, 1, PERMITS)? else { return Ok(()) };
    let bare = bare_check_micros(kind)?;
    let time = arguments.measured;
    let alone = Field::open(&broker, kind, 0, false, time)?.run(&broker, time)?;
    let unsigned = Field::open(&broker, kind, DEVICES, false, time)?.run(&broker, time)?;
    let signed = Field::open(&broker, kind, DEVICES, true, time)?.run(&broker, time)?;
    broker.require_running()?;
    let adds = signed.micros_per_message - unsigned.micros_per_message;
    let shown = |seen: &Seen| {
        format!("{:.2} / {:.2}", seen.beside.percentile_ms(50), seen.beside.percentile_ms(99))
    };
    let name = match kind {
        KeyKind::P256 => "P-256",
        KeyKind::Ed25519 => "Ed25519",
    };
    let row = vec![
        name.to_owned(),
        format!("{:.0}", signed.per_second),
        format!("{:.1}", unsigned.micros_per_message),
        format!("{:.1}", signed.micros_per_message),
        format!("{bare:.1}"),
        format!("**{:.2}**", adds / bare),
        shown(&alone),
        shown(&unsigned),
        shown(&signed),
    ];
    let figures = json!({
        "key": name,
        "messages_per_second": signed.per_second,
        "cpu_micros_unsigned": unsigned.micros_per_message,
        "cpu_micros_signed": signed.micros_per_message,
        "bare_check_micros": bare,
        "signing_adds_to_bare": adds / bare,
        "beside_p99_ms": {
            "alone": alone.beside.percentile_ms(99),
            "unsigned": unsigned.beside.percentile_ms(99),
            "signed": signed.beside.percentile_ms(99),
        },
    });
    report.row(row, figures);
    broker.stop(alone.published + unsigned.published + signed.published)
}

/// CPU of one check of one signature, in microseconds, in this process.
fn bare_check_micros(kind: KeyKind) -> Result<f64, Failure> {
    let pair = new_key(kind)?;
    let (key, message) = (SigningKey::from_pkcs8(&pair.serialize_der())?, [7; 320]);
    let signature = key.sign(&message)?;
    let public = DeviceKey::new(kind, pair.public_key_raw());
    let begin = own_cpu_micros()?;
    for _ in 0..BARE_CHECKS {
        if !std::hint::black_box(&public).verifies(&message, &signature) {
            return Err(Failure::Unexpected("a signature that does not verify"));
        }
    }
    let spent = u32::try_from(own_cpu_micros()? - begin).unwrap_or(u32::MAX);
    Ok(f64::from(spent) / f64::from(BARE_CHECKS))
}

/// One publisher: its packets were made before.
struct Device {
    link: Link,
    /// One that is sent again and again, or as many as there are.
    packets: Vec<Vec<u8>>,
    next: usize,
    sent_at: Option<Instant>,
}

/// What a run showed.
struct Seen {
    published: u64,
    per_second: f64,
    micros_per_message: f64,
    beside: Latencies,
}

/// The devices of a run, and one unsigned client beside them, which is the last.
struct Field {
    poll: Poll,
    devices: Vec<Device>,
    acknowledged: u64,
    published: u64,
    beside: Latencies,
    buffer: Vec<u8>,
}

impl Field {
    fn open(
        broker: &Broker,
        kind: KeyKind,
        count: usize,
        signs: bool,
        time: Duration,
    ) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(io("make an epoll"))?;
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let each =
            u32::try_from(count).ok().and_then(|count| (RATE_MAX * seconds).checked_div(count));
        let mut devices = Vec::new();
        for index in 0..=count {
            let is_beside = index == count;
            let name = format!("{}{index}-{kind:?}", if signs { "signer-" } else { "plain-" });
            let issued = broker.pki().issue(kind, &name)?;
            let statements = (signs && !is_beside).then_some(each.unwrap_or(0));
            let packets = packets(broker, &issued, &name, statements)?;
            let config: Arc<ClientConfig> = broker.pki().connect_as(&issued.credential)?;
            let mut link = Link::open(broker.address(), config, &name, None)?;
            link.register(&poll, index)?;
            devices.push(Device { link, packets, next: 0, sent_at: None });
        }
        let (beside, buffer) = (Latencies::default(), vec![0; READ_BYTES]);
        Ok(Self { poll, devices, acknowledged: 0, published: 0, beside, buffer })
    }

    /// Publishes for `time`: each device when its last message is acknowledged, the client beside them at
    /// its pace.
    fn run(mut self, broker: &Broker, time: Duration) -> Result<Seen, Failure> {
        let mut events = Events::with_capacity(256);
        let loaded = self.devices.len().saturating_sub(1);
        let (begin, cpu) = (Instant::now(), broker.process().cpu_micros()?);
        let mut beside = 0_u128;
        for index in 0..loaded {
            self.publish(index)?;
        }
        while begin.elapsed() < time {
            let micros = begin.elapsed().as_micros();
            if beside < micros * u128::from(BESIDE_RATE) / 1_000_000 {
                self.publish(loaded)?;
                beside += 1;
            }
            self.turn(&mut events, Duration::from_millis(1), true)?;
        }
        let (spent, seconds) =
            (broker.process().cpu_micros()? - cpu, begin.elapsed().as_secs_f64());
        let acknowledged = u32::try_from(self.acknowledged).unwrap_or(u32::MAX);
        let until = Instant::now() + Duration::from_secs(10);
        while self.acknowledged < self.published && Instant::now() < until {
            self.turn(&mut events, Duration::from_millis(10), false)?;
        }
        if self.acknowledged < self.published {
            return Err(Failure::Unexpected("messages without an acknowledgement"));
        }
        Ok(Seen {
            published: self.published,
            per_second: f64::from(acknowledged) / seconds,
            micros_per_message: f64::from(u32::try_from(spent).unwrap_or(u32::MAX))
                / f64::from(acknowledged.max(1)),
            beside: self.beside,
        })
    }

    fn publish(&mut self, index: usize) -> Result<(), Failure> {
        let Some(device) = self.devices.get_mut(index) else { return Ok(()) };
        if device.sent_at.is_some() {
            // The last one is not answered yet: this turn is passed over.
            return Ok(());
        }
        let Some(packet) = device.packets.get(device.next) else { return Ok(()) };
        device.next += usize::from(device.packets.len() > 1);
        device.sent_at = Some(Instant::now());
        self.published += 1;
        device.link.queue(packet)?;
        device.link.flush()
    }

    fn turn(&mut self, events: &mut Events, wait: Duration, goes_on: bool) -> Result<(), Failure> {
        match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(io("wait for events"))?,
        }
        let last = self.devices.len().saturating_sub(1);
        for event in &*events {
            let Some(device) = self.devices.get_mut(event.token().0) else { continue };
            let (acknowledged, beside) = (&mut self.acknowledged, &mut self.beside);
            let (sent_at, is_beside) = (&mut device.sent_at, event.token().0 == last);
            device.link.flush()?;
            device.link.receive(&mut self.buffer, |first, body| {
                let (_, code) = wire::acknowledged(body).ok_or(Failure::Unexpected("a PUBACK"))?;
                if first != wire::PUBACK || code != 0 {
                    return Err(Failure::Refused("PUBLISH", code));
                }
                let sent = sent_at.take().ok_or(Failure::Unexpected("a PUBACK for nothing"))?;
                *acknowledged += 1;
                if is_beside {
                    beside.add(sent.elapsed());
                }
                Ok(())
            })?;
            if goes_on && !is_beside {
                self.publish(event.token().0)?;
            }
        }
        Ok(())
    }
}

/// The packets of one device: so many with `statements`, or one without.
fn packets(
    broker: &Broker,
    issued: &Issued,
    name: &str,
    statements: Option<u32>,
) -> Result<Vec<Vec<u8>>, Failure> {
    let topic = format!("bench/{name}");
    let Some(count) = statements else {
        return Ok(vec![wire::publish(&topic, Some(1), PAYLOAD)]);
    };
    let origin = broker.origin()?;
    let mut signer = Signer::new(SignerOptions {
        key: SigningKey::from_pkcs8(&issued.key.serialize_der())?,
        certificate_der: &issued.certificate_der,
        identity: &format!("spiffe://plant.example/device/{name}"),
        audience: &origin,
        epoch: 1,
    });
    let message = Message { topic: &topic, payload: PAYLOAD, qos: 1, retain: false };
    let now = support::pki::unix_now().as_seconds();
    let mut packets = Vec::new();
    for _ in 0..count {
        let value = signer.sign(&message, now)?.property();
        let property = (STATEMENT_PROPERTY, value.as_str());
        packets.push(wire::publish_with(&topic, 1, property, PAYLOAD));
    }
    Ok(packets)
}

//! Other people's clients: each connects with mutual TLS, publishes and subscribes at QoS 0, 1 and
//! 2, in 3.1.1 and in 5.0.
//!
//! A device publishes on its sealed topic, a dashboard subscribes with QoS 2; every message must
//! arrive once, in order, unchanged and with the QoS it was sent with, and stand in the log. A
//! client that is not installed is skipped aloud, or fails the test with `AVOW_REQUIRE_CLIENTS=1`.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::harness::{Broker, Bundle, Plant, beside_this, run};
use crate::raw::Version;

/// Messages per QoS: below every limit of the shipped configuration.
pub(crate) const COUNT: usize = 20;
pub(crate) const HOST: &str = "127.0.0.1";

/// A plant that serves, with one device and one dashboard.
pub(crate) struct Stage {
    pub(crate) plant: Plant,
    pub(crate) broker: Broker,
    pub(crate) device: Bundle,
    pub(crate) dashboard: Bundle,
    pub(crate) topic: String,
}

impl Stage {
    fn new() -> Self {
        Self::of(Plant::new())
    }

    /// Serves `plant`.
    pub(crate) fn of(plant: Plant) -> Self {
        let (device, dashboard) = (plant.device("press-7"), plant.dashboard("wall"));
        let broker = plant.serve();
        let topic = format!("plant/{}/sealed/stranger", device.name);
        Self { plant, broker, device, dashboard, topic }
    }

    /// Every message stands in the log, with its QoS, as accepted; and the log verifies.
    fn stands_recorded(self) {
        // In order, so that the last checkpoint covers every entry.
        assert!(self.broker.stop().success());
        let entries = self.plant.query(&["--topic", &self.topic, "--limit", "1000"]);
        let accepted = entries.iter().filter(|e| e["type"] == "publish" && e["result"] == "allow");
        let mut counts = [0; 3];
        for entry in accepted {
            assert_eq!(entry["who"], "device/press-7", "{entry}");
            counts[usize::try_from(entry["qos"].as_u64().unwrap()).unwrap()] += 1;
        }
        assert_eq!(counts, [COUNT; 3]);
        self.plant.audit_verify().exits(0);
    }

    /// Runs a client's script, which must say that everything arrived. `more` are arguments of its own.
    pub(crate) fn runs(self, command: &mut Command, version: Version, more: &[&str]) {
        command.args([level(version), HOST, &self.plant.port.to_string()]);
        command.arg(&self.device.dir).arg(&self.dashboard.dir);
        command.args([&self.topic, &COUNT.to_string()]).args(more);
        self.succeeds(command);
    }

    /// Runs a command, which must say that everything arrived.
    pub(crate) fn succeeds(self, command: &mut Command) {
        let said = run(command.stdin(Stdio::null()));
        assert_eq!(said.code, Some(0), "{said:#?}\n{}", self.broker.said());
        let arrived: serde_json::Value = serde_json::from_str(said.out.trim()).unwrap();
        assert_eq!(arrived["arrived"], serde_json::json!([COUNT, COUNT, COUNT]));
        self.stands_recorded();
    }
}

/// The protocol level, as the clients' scripts are told it.
pub(crate) fn level(version: Version) -> &'static str {
    match version {
        Version::V3 => "4",
        Version::V5 => "5",
    }
}

/// Whether the client is there. Says aloud that it is not; where it must be, fails.
pub(crate) fn is_there(client: &str, probe: &mut Command, why: &str) -> bool {
    let probe = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return true;
    }
    let required = std::env::var_os("AVOW_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
    assert!(!required, "{client}: {why}, and AVOW_REQUIRE_CLIENTS=1 wants it");
    say_skipped(client, why);
    false
}

/// Past the capture of the test runner, which keeps what a passing test prints to itself.
pub(crate) fn say_skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}

// --- mosquitto_pub and mosquitto_sub ------------------------------------------------------------

fn mosquitto(version: Version) {
    let why = "mosquitto_pub and mosquitto_sub are not installed (Debian: mosquitto-clients)";
    let mut probe = Command::new("sh");
    probe.args(["-c", "command -v mosquitto_pub && command -v mosquitto_sub"]);
    if !is_there("mosquitto", &mut probe, why) {
        return;
    }
    let stage = Stage::new();
    let client = |program: &str, bundle: &Bundle| {
        let mut command = Command::new(program);
        command.args(["-h", HOST, "-p", &stage.plant.port.to_string(), "-i", &bundle.name]);
        for (flag, file) in [("--cafile", "ca.pem"), ("--cert", "cert.pem"), ("--key", "key.pem")] {
            command.args([flag, &bundle.path(file)]);
        }
        command.args(["-V", if version == Version::V5 { "mqttv5" } else { "mqttv311" }]);
        command.args(["-t", &stage.topic]);
        command
    };
    let mut subscriber = client("mosquitto_sub", &stage.dashboard);
    let (wanted, format) = ((3 * COUNT).to_string(), "%q %t %p");
    subscriber.args(["-q", "2", "-C", &wanted, "-W", "30", "-F", format]).stdin(Stdio::null());
    let subscriber = std::thread::spawn(move || run(&mut subscriber));
    stage.broker.wait_for_metric("avow_subscriptions", 1);
    let mut expected = Vec::new();
    for qos in ["0", "1", "2"] {
        let lines: Vec<String> = (0..COUNT).map(|n| format!("{qos}-{n}")).collect();
        let file = stage.plant.beside(&format!("lines-{qos}"));
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let mut publisher = client("mosquitto_pub", &stage.device);
        publisher.args(["-q", qos, "-l"]).stdin(File::open(file).unwrap());
        run(&mut publisher).exits(0);
        expected.extend(lines.iter().map(|line| format!("{qos} {} {line}", stage.topic)));
    }
    let said = subscriber.join().unwrap().exits(0);
    assert_eq!(said.out.lines().collect::<Vec<_>>(), expected, "{}", said.err);
    stage.stands_recorded();
}

#[test]
fn mosquitto_speaks_3_1_1() {
    mosquitto(Version::V3);
}

#[test]
fn mosquitto_speaks_5_0() {
    mosquitto(Version::V5);
}

// --- paho-mqtt, Python --------------------------------------------------------------------------

/// The script, if what it runs on is there.
pub(crate) fn paho_script() -> Option<Command> {
    python_script("paho_client.py")
}

/// One of the scripts for paho-mqtt, if that is there.
pub(crate) fn python_script(name: &str) -> Option<Command> {
    let python = std::env::var("AVOW_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let why = "Python's paho-mqtt 2 is not installed (PyPI: paho-mqtt)";
    let mut probe = Command::new(&python);
    if !is_there("paho-mqtt", probe.args(["-c", "import paho.mqtt.enums"]), why) {
        return None;
    }
    let mut script = Command::new(python);
    script.arg(beside_this("clients").join(name));
    Some(script)
}

fn paho(version: Version) {
    if let Some(mut script) = paho_script() {
        Stage::new().runs(&mut script, version, &[]);
    }
}

#[test]
fn paho_speaks_3_1_1() {
    paho(Version::V3);
}

#[test]
fn paho_speaks_5_0() {
    paho(Version::V5);
}

// --- MQTT.js, Node ------------------------------------------------------------------------------

/// Whether Node has the module.
pub(crate) fn js_is_there(module: &str) -> bool {
    let why = "it is not installed (npm ci in tests/end_to_end/clients/js)";
    let mut probe = Command::new("node");
    probe.args(["-e", &format!("require('{module}')")]).current_dir(beside_this("clients/js"));
    is_there(module, &mut probe, why)
}

/// One of the scripts, if what it runs on is there.
pub(crate) fn js_script(name: &str) -> Option<Command> {
    if !js_is_there("mqtt") {
        return None;
    }
    let mut script = Command::new("node");
    script.arg(beside_this("clients/js").join(name));
    Some(script)
}

fn mqtt_js(version: Version) {
    if let Some(mut script) = js_script("client.js") {
        Stage::new().runs(&mut script, version, &[]);
    }
}

#[test]
fn mqtt_js_speaks_3_1_1() {
    mqtt_js(Version::V3);
}

#[test]
fn mqtt_js_speaks_5_0() {
    mqtt_js(Version::V5);
}

// --- rumqttc, Rust ------------------------------------------------------------------------------

/// The same driver for both of rumqttc's modules, whose types have the same names and nothing else
/// in common.
macro_rules! rumqttc_driver {
    () => {
        use std::time::Duration;

        use rumqttc::{Outgoing, TlsConfiguration, Transport};

        use super::{COUNT, HOST, Stage};
        use crate::harness::Bundle;
        use crate::raw::tls;

        async fn connect(stage: &Stage, bundle: &Bundle) -> (AsyncClient, EventLoop) {
            let mut options = MqttOptions::new(&bundle.name, HOST, stage.plant.port);
            let tls = TlsConfiguration::Rustls(tls(bundle, Some(bundle)));
            options.set_transport(Transport::tls_with_config(tls));
            options.set_keep_alive(Duration::from_secs(30));
            let (client, mut events) = AsyncClient::new(options, COUNT);
            let first = events.poll().await.unwrap();
            assert!(matches!(first, Event::Incoming(Packet::ConnAck(_))), "{first:?}");
            (client, events)
        }

        pub(super) async fn drive(stage: &Stage) {
            let (dashboard, mut arrivals) = connect(stage, &stage.dashboard).await;
            dashboard.subscribe(&stage.topic, QoS::ExactlyOnce).await.unwrap();
            loop {
                if let Event::Incoming(Packet::SubAck(_)) = arrivals.poll().await.unwrap() {
                    break;
                }
            }
            let (device, mut answers) = connect(stage, &stage.device).await;
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let payload = |n: usize| format!("{qos:?}-{n}").into_bytes();
                let sending = async {
                    for n in 0..COUNT {
                        device.publish(&stage.topic, qos, false, payload(n)).await.unwrap();
                    }
                    let mut answered = 0;
                    while answered < COUNT {
                        let is_answer = match answers.poll().await.unwrap() {
                            Event::Outgoing(Outgoing::Publish(0)) => qos == QoS::AtMostOnce,
                            Event::Incoming(Packet::PubAck(_)) => qos == QoS::AtLeastOnce,
                            Event::Incoming(Packet::PubComp(_)) => qos == QoS::ExactlyOnce,
                            _ => false,
                        };
                        answered += usize::from(is_answer);
                    }
                };
                let receiving = async {
                    let mut received = 0;
                    while received < COUNT {
                        let event = arrivals.poll().await.unwrap();
                        let Event::Incoming(Packet::Publish(message)) = event else { continue };
                        let topic: &[u8] = message.topic.as_ref();
                        assert_eq!(topic, stage.topic.as_bytes());
                        assert_eq!(
                            (message.qos, &message.payload[..]),
                            (qos, &payload(received)[..])
                        );
                        received += 1;
                    }
                };
                tokio::join!(sending, receiving);
            }
        }
    };
}

mod rumqttc_v4 {
    use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

    rumqttc_driver!();
}

mod rumqttc_v5 {
    use rumqttc::v5::mqttbytes::{QoS, v5::Packet};
    use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

    rumqttc_driver!();
}

fn rumqttc(drive: impl AsyncFnOnce(&Stage)) {
    let stage = Stage::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let within = std::time::Duration::from_secs(30);
        let done = tokio::time::timeout(within, drive(&stage)).await;
        assert!(done.is_ok(), "not done within {within:?}:\n{}", stage.broker.said());
    });
    stage.stands_recorded();
}

#[test]
fn rumqttc_speaks_3_1_1() {
    rumqttc(rumqttc_v4::drive);
}

#[test]
fn rumqttc_speaks_5_0() {
    rumqttc(rumqttc_v5::drive);
}

//! The devices against somebody else's broker: Debian's Mosquitto on loopback, with mutual TLS.
//!
//! What holds here is the client side's own merit, so a failure against Avow is Avow's. Prints
//! SKIPPED where Mosquitto is not installed, and fails instead when `AVOW_REQUIRE_CLIENTS` is set.

#![expect(clippy::disallowed_methods, reason = "a test starts a broker and waits for it")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use avow_devices::client::{Message, Messages, Qos, Version};
use avow_devices::{
    Client, ClientError, ConnectOptions, Credentials, DashboardSpec, DeviceSpec, Endpoint, Plant,
    PlantOptions, PlantReport, Profile,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const OWN_TOPICS_ONLY: &str = "user dashboard\ntopic read #\npattern write plant/%u/#\n";
const EVERYTHING: &str = "pattern readwrite #\n";

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

struct Mosquitto {
    child: Child,
    addr: SocketAddr,
    authority: Authority,
    _dir: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Mosquitto {
    /// Starts one; `None` when it is not installed.
    fn start(acl: &str) -> Option<Self> {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];
        let Some(program) = program.into_iter().find(|path| fs::exists(path).unwrap()) else {
            assert!(std::env::var_os("AVOW_REQUIRE_CLIENTS").is_none(), "mosquitto is missing");
            println!("SKIPPED: mosquitto is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (cert, key) = authority.issue("localhost");
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n\
             require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n\
             acl_file {}\npersistence false\nuser root\n",
            at("ca.pem"),
            at("cert.pem"),
            at("key.pem"),
            at("acl"),
        );
        let files = [
            ("ca.pem", authority.pem.as_str()),
            ("cert.pem", &cert),
            ("key.pem", &key),
            ("acl", acl),
            ("mosquitto.conf", &config),
        ];
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let child = Command::new(program)
            .args(["-c", &at("mosquitto.conf")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let broker = Self { child, addr, authority, _dir: dir };
        let began = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(broker)
    }

    fn credentials(&self, name: &str) -> Credentials {
        self.issued_by(&self.authority, name)
    }

    /// Credentials that trust this broker, issued by any authority.
    fn issued_by(&self, authority: &Authority, name: &str) -> Credentials {
        let (cert, key) = authority.issue(name);
        Credentials {
            ca_pem: self.authority.pem.clone().into(),
            cert_pem: cert.into(),
            key_pem: key.into(),
        }
    }

    fn endpoint(&self, credentials: Credentials) -> Endpoint {
        Endpoint { addr: self.addr, server_name: "localhost".to_owned(), credentials }
    }

    /// One device of each profile, named after it and its place.
    fn plant(&self, profiles: &[&str]) -> PlantOptions {
        let stranger_ca = Authority::new();
        let devices = profiles.iter().enumerate().map(|(index, profile)| {
            let name = format!("{profile}-{index}");
            let profile = Profile::named(profile).unwrap();
            let authority = if profile.expect.connects { &self.authority } else { &stranger_ca };
            let credentials = self.issued_by(authority, &name);
            DeviceSpec { name, profile, credentials }
        });
        PlantOptions {
            addr: self.addr,
            server_name: "localhost".to_owned(),
            devices: devices.collect(),
            dashboard: DashboardSpec {
                name: "dashboard".to_owned(),
                credentials: self.credentials("dashboard"),
            },
            signing: None,
            seed: 1,
        }
    }

    async fn connect(&self, version: Version, name: &str) -> (Client, Messages) {
        let endpoint = self.endpoint(self.credentials(name));
        Client::connect(&endpoint, &ConnectOptions::new(version, name)).await.unwrap()
    }
}

async fn run_plant(broker: &Mosquitto, profiles: &[&str], length: Duration) -> PlantReport {
    let plant = Plant::new(broker.plant(profiles)).unwrap();
    let mut live = plant.live();
    let report = plant.run(tokio::time::sleep(length)).await.unwrap();
    live.mark_unchanged();
    assert_eq!(*live.borrow_and_update(), report, "the last live report is the report");
    for expectation in report.expectations() {
        println!("{expectation:?}");
    }
    report
}

#[tokio::test(flavor = "current_thread")]
async fn good_devices_deliver_and_bad_ones_are_refused() {
    let Some(broker) = Mosquitto::start(OWN_TOPICS_ONLY) else { return };
    let profiles = ["press", "pump", "furnace", "meter", "trespasser", "stranger", "press"];
    let report = run_plant(&broker, &profiles, Duration::from_secs(5)).await;
    let failed = report.expectations().into_iter().filter(|expectation| !expectation.held);
    assert_eq!(failed.collect::<Vec<_>>(), []);
    assert!(report.all_held());
    for device in report.devices.iter().filter(|device| device.expect.connects) {
        assert!(device.proper.sent >= 3, "{device:?}");
        assert_eq!(device.proper.unanswered() + device.improper.unanswered(), 0, "{device:?}");
        assert!(device.p50() <= device.p99() && device.p99().is_some(), "{device:?}");
        assert!(!device.connected, "{device:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_broker_without_policy_breaks_the_expectations() {
    let Some(broker) = Mosquitto::start(EVERYTHING) else { return };
    let profiles = ["press", "trespasser", "broken", "flooder"];
    let report = run_plant(&broker, &profiles, Duration::from_secs(5)).await;
    let failed = report.expectations().into_iter().filter(|expectation| !expectation.held);
    let failed = failed.map(|expectation| expectation.device).collect::<Vec<_>>();
    assert_eq!(failed, ["trespasser-1", "broken-2", "flooder-3"]);
    let flood = &report.devices[3].proper;
    assert!(flood.sent > 400, "{flood:?}");
    assert!(report.devices[2].improper.delivered >= 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_broker_that_dies_shows_in_the_report_and_does_not_hold_the_plant_up() {
    let Some(mut broker) = Mosquitto::start(EVERYTHING) else { return };
    let plant = Plant::new(broker.plant(&["press", "meter"])).unwrap();
    let began = Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        broker.child.kill().unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    };
    let report = plant.run(stop).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(report.dashboard.ended.is_some() && !report.all_held(), "{report:?}");
    for device in &report.devices {
        assert_eq!((device.connects, device.disconnects.values().sum()), (1, 1), "{device:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn every_qos_of_both_versions_arrives_in_order() {
    let Some(broker) = Mosquitto::start(EVERYTHING) else { return };
    for version in [Version::V3_1_1, Version::V5_0] {
        let (reader, mut messages) = broker.connect(version, "reader").await;
        let filters = vec![("t/#".to_owned(), Qos::ExactlyOnce)];
        assert_eq!(reader.subscribe(filters).await.unwrap(), [2]);
        let (writer, _) = broker.connect(version, "writer").await;
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let mut in_flight = Vec::new();
            for n in 0..100_u32 {
                let message = Message {
                    topic: format!("t/{n}"),
                    payload: n.to_be_bytes().to_vec(),
                    qos,
                    retain: false,
                    statement: None,
                };
                in_flight.push(writer.send(message).await.unwrap());
            }
            for answer in in_flight {
                assert!(answer.acknowledged().await.unwrap().accepted());
            }
            for n in 0..100_u32 {
                let received = messages.next().await.unwrap();
                assert_eq!((received.payload, received.qos), (n.to_be_bytes().to_vec(), qos));
            }
        }
        writer.disconnect().await;
        reader.disconnect().await;
        assert_eq!(messages.next().await, None);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn publishing_to_nobody_goes_on_at_every_qos() {
    let Some(broker) = Mosquitto::start(EVERYTHING) else { return };
    let (writer, _) = broker.connect(Version::V5_0, "writer").await;
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce] {
        let (topic, payload) = ("nobody/listens".to_owned(), b"1".to_vec());
        let answer = writer
            .publish(Message { topic, payload, qos, retain: false, statement: None })
            .await
            .unwrap();
        // Mosquitto says 0x10 (no matching subscribers) in PUBACK and 0x00 in PUBCOMP.
        assert!(answer.accepted(), "{qos:?} {answer:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_idle_connection_is_kept_alive_and_a_dropped_one_leaves_its_will() {
    let Some(broker) = Mosquitto::start(EVERYTHING) else { return };
    let (reader, mut messages) = broker.connect(Version::V5_0, "reader").await;
    reader.subscribe(vec![("will".to_owned(), Qos::AtLeastOnce)]).await.unwrap();
    let mut options = ConnectOptions::new(Version::V3_1_1, "idler");
    options.keep_alive_secs = 1;
    options.will = Some(Message {
        topic: "will".to_owned(),
        payload: b"gone".to_vec(),
        qos: Qos::AtLeastOnce,
        retain: false,
        statement: None,
    });
    let endpoint = broker.endpoint(broker.credentials("idler"));
    let (idler, _) = Client::connect(&endpoint, &options).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(4), idler.ended()).await;
    assert!(ended.is_err(), "{ended:?}");
    drop(idler);
    let will = tokio::time::timeout(Duration::from_secs(5), messages.next()).await.unwrap();
    assert_eq!(will.unwrap().payload, b"gone");
}

#[tokio::test(flavor = "current_thread")]
async fn each_way_not_to_connect_has_its_own_error() {
    let Some(broker) = Mosquitto::start(EVERYTHING) else { return };
    let options = ConnectOptions::new(Version::V5_0, "probe");
    let connect = async |endpoint: Endpoint| {
        Client::connect(&endpoint, &options).await.map(|_| ()).unwrap_err()
    };
    let stranger = broker.issued_by(&Authority::new(), "probe");
    let error = connect(broker.endpoint(stranger)).await;
    assert!(matches!(error, ClientError::TlsRefused { .. }), "{error}");

    let mut distrustful = broker.credentials("probe");
    distrustful.ca_pem = Authority::new().pem.into();
    let error = connect(broker.endpoint(distrustful)).await;
    assert!(matches!(error, ClientError::ServerNotTrusted { .. }), "{error}");

    let mut other_name = broker.endpoint(broker.credentials("probe"));
    other_name.server_name = "example.org".to_owned();
    let error = connect(other_name).await;
    assert!(matches!(error, ClientError::ServerNotTrusted { .. }), "{error}");

    let mut keyless = broker.credentials("probe");
    keyless.key_pem = b"no key".to_vec();
    let error = connect(broker.endpoint(keyless)).await;
    assert!(matches!(error, ClientError::Credentials { .. }), "{error}");

    let mut nowhere = broker.endpoint(broker.credentials("probe"));
    nowhere.addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = connect(nowhere).await;
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

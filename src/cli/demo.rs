//! `avow serve --demo`: a plant in a scratch directory, served, used, judged.
//!
//! The devices are `devices/`'s, on somebody else's MQTT. What they saw is held against what
//! their profiles expect; then the log is verified and one entry proven. The invariant: the
//! answer is yes only if every expectation held and the log verifies; nothing is counted that did
//! not come back over the wire.

mod evidence;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use avow_devices::{
    Credentials, DashboardSpec, DeviceSpec, Plant, PlantError, PlantOptions, PlantReport, Profile,
    ProfileError, Signing,
};

use super::plant::{IssuingDesk, Plan};
use super::record::{Recorder, log_key};
use super::serve::Serving;
use super::show::{self, Tone, paint};
use super::{Answer, CliFailure};
use crate::config::Config;
use crate::identity::Role;
use crate::storage::{Reader, RealDisk, Until, verify};

/// The devices of the demo: a name, and the profile that says what it does.
const DEVICES: [(&str, &str); 11] = [
    ("press-1", "press"),
    ("press-2", "press"),
    ("pump-1", "pump"),
    ("meter-1", "meter"),
    (evidence::SIGNER, "signer"),
    (evidence::BATCHER, "batch"),
    ("furnace-1", "furnace"),
    ("trespasser", "trespasser"),
    ("broken", "broken"),
    ("flooder", "flooder"),
    ("stranger", "stranger"),
];
const TRUST_DOMAIN: &str = "demo.example";
const DASHBOARD: &str = "control-room";
/// The device whose certificate another CA signs.
const STRANGER: &str = "stranger";

/// Why the demo could not run.
#[derive(Debug, thiserror::Error)]
pub enum DemoFault {
    /// The plant.
    #[error(transparent)]
    Plant(#[from] PlantError),
    /// A profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The system refused a runtime.
    #[error("cannot start the devices: {0}")]
    Runtime(#[source] std::io::Error),
}

pub(super) fn run(duration: Option<Duration>, break_trespass: bool) -> Result<Answer, CliFailure> {
    let dir = scratch()?;
    let (config, credentials) = make(&dir, break_trespass)?;
    let serving = Serving::start(&config, false)?;
    show::line(&format!(
        "ready: {} serves {} on {}{}",
        paint(Tone::Good, "avow"),
        dir.display(),
        serving.running.local_addr(),
        serving
            .running
            .metrics_addr()
            .map(|address| format!(", metrics on http://{address}/metrics"))
            .unwrap_or_default(),
    ));
    let plant = PlantOptions {
        addr: serving.running.local_addr(),
        server_name: "localhost".to_owned(),
        devices: credentials.devices,
        dashboard: credentials.dashboard,
        signing: Some(Signing {
            trust_domain: TRUST_DOMAIN.to_owned(),
            origin: config.evidence.origin.clone(),
        }),
        seed: 1,
    };
    let plant = Plant::new(plant).map_err(DemoFault::Plant)?;
    let mut live = table::Live::new(plant.live());
    let runtime = super::runtime().map_err(DemoFault::Runtime)?;
    let report = runtime.block_on(async {
        let ended = async {
            tokio::select! {
                () = after(duration) => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        tokio::select! {
            report = plant.run(ended) => report,
            () = live.show() => std::future::pending().await,
        }
    });
    drop(runtime);
    live.clear();
    serving.running.stop();
    serving.wait()?;
    conclude(&config, &report.map_err(DemoFault::Plant)?)
}

/// Prints the summary, verifies the log, proves an entry; yes if all of it is as it should be.
fn conclude(config: &Config, report: &PlantReport) -> Result<Answer, CliFailure> {
    show::line(&table::summary(report));
    let expectations = report.expectations();
    let held = expectations.iter().filter(|expectation| expectation.held).count();
    for missed in expectations.iter().filter(|expectation| !expectation.held) {
        let word = paint(Tone::Bad, "did not hold");
        let (device, what) = (&missed.device, &missed.what);
        show::line(&format!("{word}: {device}: {what}; seen: {}", show::escape(&missed.seen)));
    }
    show::line(&format!("{held} of {} expectations held", expectations.len()));
    let key = log_key(config)?;
    let verified = verify(&config.evidence.directory, key.verifier(), &mut |_| {})?;
    show::line(&format!(
        "the log verifies: {} entries give the signed root hash, {} checkpoints, unsigned tail: {} \
         entries",
        verified.signed_entries, verified.checkpoints, verified.unsigned_tail_entries
    ));
    let disk = RealDisk::new(&config.evidence.directory);
    let reader = Reader::open(disk, key.verifier(), Until::Checkpoint)?;
    let index = verified.signed_entries / 2;
    let (is_signed, signed_lines) = evidence::judge(&reader, report)?;
    let mut lines = Vec::new();
    let proven = match reader.entry(index)? {
        Some(entry) => {
            let proof = reader.prove(index).map_err(super::audit::answer::AnswerFault::from)?;
            lines.push(super::audit::describe(index, &entry.json));
            proof.verify(&entry.json, key.verifier()).is_ok()
        }
        None => false,
    };
    let word = if proven { "is proven to be in it" } else { "is NOT proven to be in it" };
    lines.insert(0, format!("entry {index} {word}:"));
    lines.splice(0..0, signed_lines);
    lines.push(look(&config.dir, index));
    show::line(&lines.join("\n"));
    let all_held = held == expectations.len();
    Ok(if all_held && proven && is_signed { Answer::Yes } else { Answer::No })
}

/// How to look at the evidence oneself.
fn look(dir: &Path, index: u64) -> String {
    let dir = super::bundle::quote(&dir.display().to_string());
    format!(
        "\nlook at the evidence:\n  avow --dir {dir} audit query --decision deny\n  \
         avow --dir {dir} audit query --device trespasser\n  \
         avow --dir {dir} audit show {index}\n  \
         avow --dir {dir} audit prove {index}\n  \
         avow --dir {dir} audit verify\nand serve the same plant again:\n  avow --dir {dir} serve"
    )
}

/// Whom the plant has.
struct Cast {
    devices: Vec<DeviceSpec>,
    dashboard: DashboardSpec,
}

/// Makes the plant's directory, and a certificate for everyone in it.
fn make(dir: &Path, break_trespass: bool) -> Result<(Config, Cast), CliFailure> {
    let now = super::unix_now();
    let issued = plan().make(dir, now)?;
    if break_trespass {
        permit_trespass(dir)?;
    }
    let config = super::configuration(dir)?;
    let mut recorder = Recorder::open(&config)?;
    for issued in &issued {
        recorder.record("certificate.issue", &issued.subject, &issued.facts)?;
    }
    let desk = IssuingDesk::open(&config)?;
    // The stranger shows a certificate that is right in every way but for who signed it.
    let elsewhere = dir.join("elsewhere");
    plan().make(&elsewhere, now)?;
    let stranger_desk = IssuingDesk::open(&super::configuration(&elsewhere)?)?;
    let mut credentials = |desk: &IssuingDesk, role, name: &str| {
        let issued = desk.issue(role, name, None, now)?;
        recorder.record("certificate.issue", &issued.subject, &issued.facts)?;
        Ok::<_, CliFailure>(issued.credential)
    };
    let pem = |credential: crate::identity::authority::Credential| Credentials {
        ca_pem: desk.ca_pem().as_bytes().to_vec(),
        cert_pem: credential.certificate_pem.into_bytes(),
        key_pem: credential.key_pem.into_bytes(),
    };
    let mut devices = Vec::new();
    for (name, profile) in DEVICES {
        let credential = if name == STRANGER {
            stranger_desk.issue(Role::Device, name, None, now)?.credential
        } else {
            credentials(&desk, Role::Device, name)?
        };
        devices.push(DeviceSpec {
            name: name.to_owned(),
            profile: Profile::named(profile).map_err(DemoFault::Profile)?,
            credentials: pem(credential),
        });
    }
    let dashboard = DashboardSpec {
        name: DASHBOARD.to_owned(),
        credentials: pem(credentials(&desk, Role::Dashboard, DASHBOARD)?),
    };
    recorder.close()?;
    Ok((config, Cast { devices, dashboard }))
}

fn plan() -> Plan {
    Plan {
        name: "demo".to_owned(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        hosts: Vec::new(),
        listen: "127.0.0.1:0".to_owned(),
        metrics: "127.0.0.1:0".to_owned(),
    }
}

/// Really permits what the trespasser tries, so that an expectation really fails.
fn permit_trespass(dir: &Path) -> Result<(), CliFailure> {
    use std::io::Write as _;
    let path = dir.join("policy.toml");
    let rule = "\n[[permit]]\nid = \"trespass\"\nwho = [\"device/trespasser\"]\n\
                publish = [\"plant/+/telemetry/#\"]\nqos_max = 2\n";
    let opened = std::fs::OpenOptions::new().append(true).open(&path);
    let written = opened.and_then(|mut file| file.write_all(rule.as_bytes()));
    Ok(written.map_err(super::files::io("append to", &path))?)
}

/// A directory of our own below the system's one for temporary files. It stays, so that the
/// evidence can be looked at.
fn scratch() -> Result<PathBuf, CliFailure> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CliFailure::Randomness)?;
    Ok(std::env::temp_dir().join(format!("avow-demo-{:08x}", u32::from_ne_bytes(bytes))))
}

#[expect(clippy::disallowed_methods, reason = "the demo ends after a time")]
async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

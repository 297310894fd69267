//! `avow init DIR`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::CliFailure;
use super::add::{Issue, issue};
use super::bundle::quote;
use super::files::require_absent;
use super::plant::{Layout, Plan};
use super::privacy::keys::PseudonymKeys;
use super::record::Recorder;
use super::show;
use crate::identity::Role;
use crate::identity::name::{check_name, check_trust_domain};

/// Name of the first device.
const DEVICE: &str = "device-1";
/// Name of the first operator.
const OPERATOR: &str = "operator-1";

/// Make the directory of a new broker
#[derive(Args, Debug)]
pub(super) struct InitArguments {
    /// Directory to make; what is in it is never overwritten
    #[arg(id = "target", value_name = "DIR")]
    dir: PathBuf,
    /// Name of the broker
    #[arg(long, default_value = "plant-1")]
    name: String,
    /// Host or address that clients connect to, besides localhost; may be repeated
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Trust domain of the names that are issued
    #[arg(long, default_value = "plant.example", value_name = "DOMAIN")]
    trust_domain: String,
    /// Address to listen on [default: 127.0.0.1:8883, or 0.0.0.0:8883 with --host]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

pub(super) fn run(arguments: &InitArguments) -> Result<(), CliFailure> {
    check_name(&arguments.name)?;
    check_trust_domain(&arguments.trust_domain)?;
    let default = if arguments.host.is_empty() { "127.0.0.1:8883" } else { "0.0.0.0:8883" };
    let listen = arguments.listen.as_deref().unwrap_or(default);
    if listen.parse::<SocketAddr>().is_err() {
        return Err(CliFailure::Address(listen.to_owned()));
    }
    let dir = &arguments.dir;
    let plan = Plan {
        name: arguments.name.clone(),
        trust_domain: arguments.trust_domain.clone(),
        hosts: arguments.host.clone(),
        listen: listen.to_owned(),
        metrics: "127.0.0.1:9464".to_owned(),
    };
    require_absent([&Layout(dir).clients()])?;
    let now = super::unix_now();
    let issued = plan.make(dir, now)?;
    let config = super::configuration(dir)?;
    PseudonymKeys::open(&config.privacy.keys)?.newest(now)?;
    let mut recorder = Recorder::open(&config)?;
    for issued in &issued {
        recorder.record("certificate.issue", &issued.subject, &issued.facts)?;
    }
    for (role, name) in [(Role::Device, DEVICE), (Role::Operator, OPERATOR)] {
        let out = Layout(dir).clients().join(name);
        let wanted = Issue { role, name, days: None, out: &out };
        issue(&config, &mut recorder, &wanted)?;
    }
    recorder.close()?;
    show::line(&next_steps(dir));
    Ok(())
}

fn next_steps(dir: &Path) -> String {
    let shown = quote(&dir.display().to_string());
    let client = |name: &str| quote(&dir.join("clients").join(name).display().to_string());
    let (device, operator) = (client(DEVICE), client(OPERATOR));
    format!(
        "{shown} is ready. certs/ca.key signs nothing more unless the issuing CA is replaced: \
         keep it elsewhere.\n\n\
         start it         avow --dir {shown} serve\n\
         listen to it     avow sub --connect {operator}/connect.json -v -t 'plant/#'\n\
         send something   avow pub --connect {device}/connect.json -q 1 -t plant/{DEVICE}/sealed/hello \
         -m hello\n\
         another device   avow --dir {shown} device add press-7 --out press-7\n\
         a screen's token avow --dir {shown} token issue wall-1\n\
         what it did      avow --dir {shown} audit tail\n\
         that it is so    avow --dir {shown} audit verify"
    )
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests look at what was written")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::add::{self, AddArguments, Registry};
    use crate::cli::files::FileFault;
    use crate::evidence::VerifierKey;
    use crate::storage::verify;

    fn arguments(dir: &Path) -> InitArguments {
        InitArguments {
            dir: dir.to_owned(),
            name: "mill".to_owned(),
            host: vec!["mill.local".to_owned()],
            trust_domain: "mill.example".to_owned(),
            listen: None,
        }
    }

    fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            visit(&path);
            if path.is_dir() {
                walk(&path, visit);
            }
        }
    }

    #[test]
    fn a_new_directory_is_whole_private_and_recorded() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("mill");
        run(&arguments(&dir)).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        let mut keys = 0;
        walk(&dir, &mut |path| {
            if path.is_file() && std::fs::read(path).unwrap().starts_with(b"-----BEGIN PRIVATE") {
                keys += 1;
                assert_eq!(mode(path), 0o600, "{}", path.display());
                assert_eq!(mode(path.parent().unwrap()), 0o700, "{}", path.display());
            }
        });
        let pseudonyms = dir.join("certs/pseudonyms/00000001.key");
        assert_eq!(mode(&pseudonyms), 0o600);
        // Root, issuing, server, log, receipts, tokens, device, operator.
        assert_eq!(keys, 8);
        let config = crate::config::load(&dir).unwrap();
        assert_eq!(config.listen.mqtt.to_string(), "0.0.0.0:8883");
        assert_eq!(config.evidence.origin, "mill.example/mill");
        let key = std::fs::read_to_string(dir.join("log.vkey")).unwrap();
        let key: VerifierKey = key.trim().parse().unwrap();
        let report = verify(&config.evidence.directory, &key, &mut |_| {}).unwrap();
        assert_eq!((report.signed_entries, report.unsigned_tail_entries), (5, 0));
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_half_made() {
        let scratch = tempfile::tempdir().unwrap();
        let policy = scratch.path().join("policy.toml");
        std::fs::write(&policy, "mine").unwrap();
        let refused = run(&arguments(scratch.path())).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(matches!(refused, CliFailure::File(FileFault::Exists(path)) if path == policy));
        assert_eq!(std::fs::read_to_string(&policy).unwrap(), "mine");
        assert_eq!(scratch.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_port_that_changed_is_in_new_bundles_and_noted_for_old_ones() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("mill");
        run(&arguments(&dir)).unwrap();
        let clients = Layout(&dir).clients();
        assert!(crate::cli::bundle::stale(&clients, 8883).is_empty());
        let path = dir.join("avow.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("0.0.0.0:8883", "0.0.0.0:18883")).unwrap();
        let out = clients.join("press-7");
        let arguments = AddArguments { name: "press-7".to_owned(), out, days: None, json: true };
        add::run(&dir, Role::Device, &Registry::Add(arguments)).unwrap();
        let notes = crate::cli::bundle::stale(&clients, 18883);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("device-1/connect.json") && notes[0].contains("18883"));
    }

    #[test]
    fn a_bundle_is_added_once() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("mill");
        run(&arguments(&dir)).unwrap();
        let out = scratch.path().join("press-7");
        let add = |name: &str, days| {
            let (name, out) = (name.to_owned(), out.clone());
            let arguments = AddArguments { name, out, days, json: true };
            add::run(&dir, Role::Device, &Registry::Add(arguments))
        };
        assert!(matches!(add("press/7", None), Err(CliFailure::Name(_))));
        assert!(matches!(add("press-7", Some(9_999)), Err(CliFailure::Days(9_999))));
        assert!(!out.exists());
        add("press-7", Some(1)).unwrap();
        let connect = std::fs::read_to_string(out.join("connect.json")).unwrap();
        let connect: crate::cli::bundle::ConnectFile = serde_json::from_str(&connect).unwrap();
        assert_eq!((connect.host.as_str(), connect.port), ("mill.local", 8883));
        assert_eq!(connect.identity, "spiffe://mill.example/device/press-7");
        assert!(matches!(add("press-7", None), Err(CliFailure::File(FileFault::Exists(_)))));
    }
}

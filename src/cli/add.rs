//! `avow device|dashboard|operator|auditor add NAME --out PATH`: works while the broker serves and while
//! it does not.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::CliFailure;
use super::bundle::{self, Bundle};
use super::files::require_absent;
use super::plant::IssuingDesk;
use super::record::Recorder;
use super::show;
use crate::config::Config;
use crate::identity::Role;

#[derive(Debug, Subcommand)]
pub(super) enum Registry {
    /// Issue a certificate and write a bundle: key.pem cert.pem ca.pem connect.json
    Add(AddArguments),
}

#[derive(Args, Debug)]
pub(super) struct AddArguments {
    /// Its name: A-Z a-z 0-9 . - _
    pub(super) name: String,
    /// Directory for the bundle; nothing in it is overwritten
    #[arg(long, value_name = "PATH")]
    pub(super) out: PathBuf,
    /// Lifetime of the certificate in days [default: the profile's]
    #[arg(long, value_name = "N")]
    pub(super) days: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A bundle that is wanted.
pub(super) struct Issue<'a> {
    pub(super) role: Role,
    pub(super) name: &'a str,
    pub(super) days: Option<u32>,
    pub(super) out: &'a Path,
}

/// What was handed out.
pub(super) struct Handed {
    pub(super) identity: String,
    pub(super) index: u64,
    pub(super) mosquitto: String,
}

pub(super) fn run(dir: &Path, role: Role, verb: &Registry) -> Result<(), CliFailure> {
    let Registry::Add(arguments) = verb;
    let config = super::configuration(dir)?;
    let mut recorder = Recorder::open(&config)?;
    let out = &arguments.out;
    let wanted = Issue { role, name: &arguments.name, days: arguments.days, out };
    let handed = issue(&config, &mut recorder, &wanted)?;
    recorder.close()?;
    if arguments.json {
        show::json(&json!({
            "identity": handed.identity,
            "index": handed.index,
            "bundle": out.display().to_string(),
            "mosquitto": handed.mosquitto,
        }));
    } else {
        show::line(&format!(
            "{} in {}, recorded as entry {}\n\n{}",
            handed.identity,
            out.display(),
            handed.index,
            handed.mosquitto
        ));
    }
    Ok(())
}

/// Issues a certificate, records it, and only then hands it out.
pub(super) fn issue(
    config: &Config,
    recorder: &mut Recorder,
    wanted: &Issue<'_>,
) -> Result<Handed, CliFailure> {
    require_absent(&bundle::paths(wanted.out))?;
    let desk = IssuingDesk::open(config)?;
    let identity = desk.identity(wanted.role, wanted.name)?;
    let issued = desk.issue(wanted.role, wanted.name, wanted.days, super::unix_now())?;
    let index = recorder.record("certificate.issue", &issued.subject, &issued.facts)?;
    let bundle = Bundle {
        role: wanted.role,
        name: wanted.name,
        identity: identity.uri(),
        host: desk.host(),
        port: desk.port(),
        credential: &issued.credential,
        ca_pem: desk.ca_pem(),
    };
    bundle.write(wanted.out)?;
    let mosquitto = bundle.mosquitto_line(wanted.out);
    Ok(Handed { identity: identity.uri().to_owned(), index, mosquitto })
}

//! `avow init DIR`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::CliFailure;
use super::add::{Issue, issue};
use super::bundle::quote;
use super::files::require_absent;
use super::plant::{Layout, Plan};
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
         what it did      avow --dir {shown} audit tail\n\
         that it is so    avow --dir {shown} audit verify"
    )
}

//! The witnesses that `avow.toml` names: their policy, and whom the broker asks.
//!
//! The invariant: a broker that starts with `[evidence.witness]` asks at least one witness, about
//! the log that it has.

use std::sync::Arc;

use rustls::ClientConfig;

use super::CliFailure;
use super::setting;
use crate::broker::Administration;
use crate::config::{Config, Setting, WitnessConfig};
use crate::evidence::{VerifierKey, WitnessPolicy};
use crate::server::tls::{Pem, TlsFault, https_client_config};
use crate::server::witness::{Courier, CourierOptions, SubmissionUrl, UrlProblem, WitnessTarget};
use crate::server::{Clock, Fault, Running};

/// What can be wrong with the witnesses, where each thing by itself reads well.
#[derive(Clone, Debug, thiserror::Error, miette::Diagnostic)]
pub enum WitnessesProblem {
    /// The policy knows logs, and this is none of them.
    #[error("`policy`: no `log` line has the key of this log")]
    #[diagnostic(help("write into it: log {verifier}"))]
    OtherLog {
        /// The key of this log.
        verifier: VerifierKey,
    },
    /// Nobody can be asked.
    #[error("`policy`: no witness has a URL, so nobody is asked")]
    #[diagnostic(help(
        "write it behind the key: witness NAME VKEY https://…; without witnesses, remove \
         [evidence.witness]"
    ))]
    Nobody,
    /// A URL that cannot be asked.
    #[error("`policy`: the URL of witness `{name}`: {problem}")]
    #[diagnostic(help(
        "it is the submission prefix, without `/add-checkpoint`: https://witness.example/"
    ))]
    Url {
        /// The witness.
        name: String,
        /// What is wrong.
        problem: UrlProblem,
    },
    /// Nobody says which certificates are believed.
    #[error("`ca` is missing, and witness `{name}` is behind https")]
    #[diagnostic(help(
        "name a PEM file with the CA of its certificate; the system's is \
         /etc/ssl/certs/ca-certificates.crt on Debian"
    ))]
    NoCa {
        /// The witness.
        name: String,
    },
    /// The anchors.
    #[error("`ca`: {0}")]
    #[diagnostic(help("name a PEM file with the certificate of the CA"))]
    Ca(Arc<TlsFault>),
}

/// The witnesses of a broker.
pub(super) struct Witnesses {
    pub(super) policy: WitnessPolicy,
    pub(super) targets: Vec<WitnessTarget>,
    tls: Option<Arc<ClientConfig>>,
}

/// Reads what `[evidence.witness]` names; `None` without that section.
pub(super) fn load(config: &Config, log: &VerifierKey) -> Result<Option<Witnesses>, CliFailure> {
    let Some(section) = &config.evidence.witness else { return Ok(None) };
    let policy = policy_of(config, section)?;
    let at_policy = |problem| config.problem_at(Setting::WitnessPolicy, problem);
    if !policy.logs().is_empty() && !policy.logs().iter().any(|known| known.key == *log) {
        return Err(at_policy(WitnessesProblem::OtherLog { verifier: log.clone() }).into());
    }
    let mut targets = Vec::new();
    for witness in policy.witnesses() {
        let Some(url) = &witness.url else { continue };
        let name = witness.name.clone();
        let url = SubmissionUrl::parse(url)
            .map_err(|problem| at_policy(WitnessesProblem::Url { name: name.clone(), problem }))?;
        targets.push(WitnessTarget { name, key: witness.key.clone(), url });
    }
    if targets.is_empty() {
        return Err(at_policy(WitnessesProblem::Nobody).into());
    }
    let tls = match (&section.ca, targets.iter().find(|target| target.url.is_https)) {
        (Some(path), _) => {
            let text = setting::read(config, Setting::WitnessCa, path)?;
            let file = path.display().to_string();
            let tls = https_client_config(Pem { file: &file, text: &text }).map_err(|fault| {
                config.problem_at(Setting::WitnessCa, WitnessesProblem::Ca(Arc::new(fault)))
            })?;
            Some(tls)
        }
        (None, Some(target)) => {
            let problem = WitnessesProblem::NoCa { name: target.name.clone() };
            return Err(config.problem_at(Setting::WitnessCa, problem).into());
        }
        (None, None) => None,
    };
    Ok(Some(Witnesses { policy, targets, tls }))
}

/// The policy that `section` names.
pub(super) fn policy_of(
    config: &Config,
    section: &WitnessConfig,
) -> Result<WitnessPolicy, CliFailure> {
    let text = setting::read(config, Setting::WitnessPolicy, &section.policy)?;
    Ok(WitnessPolicy::parse(&section.policy.display().to_string(), &text)?)
}

impl Witnesses {
    /// Begins to ask them. Each alarm is an entry of the log.
    pub(super) fn start(
        self,
        config: &Config,
        log: VerifierKey,
        clock: Clock,
        running: &Running,
    ) -> Result<Option<Courier>, CliFailure> {
        let Some(section) = &config.evidence.witness else { return Ok(None) };
        let handle = running.handle();
        let board = handle.witnesses().clone();
        let alarmed = move |name: &str, alarm| {
            let facts = vec![("text", format!("{alarm}"))];
            let subject = format!("witness/{name}");
            let act = Administration { ticket: 0, act: "witness.alarm", subject, facts };
            if let Err(error) = handle.record(act) {
                tracing::error!(%error, "the alarm of a witness is not recorded");
            }
        };
        let options = CourierOptions {
            directory: config.evidence.directory.clone(),
            verifier: log,
            policy: self.policy,
            targets: self.targets,
            tls: self.tls,
            interval: section.interval,
            timeout: section.timeout,
            clock,
            board,
            alarmed: Box::new(alarmed),
        };
        let started = Courier::start(options);
        let started =
            started.map_err(|source| Fault::System { doing: "start the courier", source })?;
        Ok(Some(started))
    }
}

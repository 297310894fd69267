//! `avow config check`: every file, every problem.

use std::path::Path;
use std::sync::Arc;

use clap::Subcommand;

use super::bundle;
use super::files::{self, FileFault};
use super::plant::Layout;
use super::setting::{self, SettingError, SettingProblem};
use super::{Answer, CliFailure, show};
use crate::config::{ClientCertificate, Config, Setting};
use crate::identity::{Issuer, Issuers};
use crate::schema::Schemas;
use crate::server::tls::{self, Pem, TlsFault, certificates, server_config, websocket_config};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Read avow.toml, the policy, the schemas, the certificates; report every problem
    Check,
}

pub(super) fn run(dir: &Path, verb: &ConfigVerb) -> Result<Answer, CliFailure> {
    let ConfigVerb::Check = verb;
    let config = super::configuration(dir)?;
    let good = |path: &Path, what: &str| {
        show::line(&format!("{}: good{what}", path.display()));
    };
    good(&dir.join(crate::config::FILE_NAME), "");
    // The files do not depend on each other: all of them are read, the first problem is the
    // result and the others are printed here.
    let policy = super::policy::of(&config).map(|policy| {
        let what = format!(", {} rules, their tests pass", policy.rule_count());
        good(&config.files.policy, &what);
    });
    let schemas = load_schemas(&config).map(|schemas| {
        good(&config.files.schemas, &format!(", {} schemas", schemas.count()));
    });
    let tls = load_tls(&config).map(|_| {
        good(&config.tls.certificate, ", belongs to its key");
        for issuer in &config.issuers {
            good(&issuer.anchors, "");
        }
    });
    let key = super::record::log_key(&config).and_then(|key| {
        if let Some(witnesses) = super::witnesses::load(&config, key.verifier())? {
            show::line(&format!("[evidence.witness]: good, {} witnesses", witnesses.targets.len()));
        }
        Ok(())
    });
    let receipts = super::receipt::signer(&config).map(|_| ());
    let tokens = super::token::keys(&config).map(|_| {
        for token_key in &config.tokens.keys {
            show::line(&format!("{}: good, for tokens", token_key.public_key));
        }
    });
    stale_bundles(&config);
    let mut failures =
        [policy, schemas, tls, tokens, key, receipts].into_iter().filter_map(Result::err);
    let first = failures.next();
    for failure in failures {
        super::failure::report(&failure);
    }
    first.map_or(Ok(Answer::Yes), Err)
}

/// Names the bundles in `DIR/clients` that lead elsewhere: `init` wrote them, and an operator may
/// have changed the address since. The broker is not the worse for it, so this is no problem.
fn stale_bundles(config: &Config) {
    for note in bundle::stale(&Layout(&config.dir).clients(), config.listen.mqtt.port()) {
        show::line(&note);
    }
}

/// Reads the schemas of `config`.
pub(super) fn load_schemas(config: &Config) -> Result<Schemas, CliFailure> {
    let directory = &config.files.schemas;
    let path = directory.join("registry.toml");
    let text = setting::read(config, Setting::Schemas, &path)?;
    let read = |name: &str| -> Result<String, FileFault> { files::read(&directory.join(name)) };
    Ok(Schemas::parse(&path.display().to_string(), &text, read)?)
}

/// TLS of every listener, and whom it trusts.
pub(super) struct ListenerTls {
    pub(super) mqtt: Arc<rustls::ServerConfig>,
    pub(super) websocket: Option<Arc<rustls::ServerConfig>>,
    pub(super) audit_api: Option<Arc<rustls::ServerConfig>>,
    pub(super) issuers: Arc<Issuers>,
}

/// Reads the issuers and makes the TLS configurations.
pub(super) fn load_tls(config: &Config) -> Result<ListenerTls, CliFailure> {
    let mut issuers = Vec::new();
    for (number, issuer) in config.issuers.iter().enumerate() {
        let setting = Setting::Anchors(number);
        let text = setting::read(config, setting, &issuer.anchors)?;
        let file = issuer.anchors.display().to_string();
        let anchors = certificates(Pem { file: &file, text: &text })
            .map_err(|fault| tls_problem(config, setting, fault))?;
        let (id, domain, prefix) = (&issuer.id, &issuer.trust_domain, &issuer.name_prefix);
        let made = Issuer::new(id, domain, &issuer.roles, prefix, &anchors);
        issuers
            .push(made.map_err(|fault| config.problem_at(setting, SettingProblem::Issuer(fault)))?);
    }
    let issuers = Arc::new(Issuers::new(issuers).map_err(setting::of_issuers(config))?);
    let chain = setting::read(config, Setting::Certificate, &config.tls.certificate)?;
    let key = setting::read_secret(config, Setting::TlsKey, &config.tls.key)?;
    let chain_name = config.tls.certificate.display().to_string();
    let key_name = config.tls.key.to_string();
    let chain = Pem { file: &chain_name, text: &chain };
    let key = Pem { file: &key_name, text: &key };
    let problem = |fault| {
        let is_key = match &fault {
            TlsFault::NoPrivateKey { .. } | TlsFault::Credential { .. } => true,
            TlsFault::Pem { file, .. } => *file == key_name,
            _ => false,
        };
        let setting = if is_key { Setting::TlsKey } else { Setting::Certificate };
        tls_problem(config, setting, fault)
    };
    let websocket = config.listen.websocket.as_ref().map(|websocket| {
        let client_certificate = match websocket.client_certificate {
            ClientCertificate::Required => tls::ClientCertificate::Required,
            ClientCertificate::Optional => tls::ClientCertificate::Optional,
            ClientCertificate::None => tls::ClientCertificate::None,
        };
        websocket_config(chain, key, Arc::clone(&issuers), client_certificate)
    });
    let audit_api = config.audit_api.as_ref().map(|_| {
        let required = tls::ClientCertificate::Required;
        websocket_config(chain, key, Arc::clone(&issuers), required)
    });
    Ok(ListenerTls {
        audit_api: audit_api.transpose().map_err(problem)?,
        mqtt: server_config(chain, key, Arc::clone(&issuers)).map_err(problem)?,
        websocket: websocket.transpose().map_err(problem)?,
        issuers,
    })
}

fn tls_problem(config: &Config, setting: Setting, fault: TlsFault) -> SettingError {
    config.problem_at(setting, SettingProblem::Tls { field: setting.field(), fault })
}

//! `avow config check`: every file, every problem.

use std::path::Path;
use std::sync::Arc;

use clap::Subcommand;

use super::files::{self, FileFault};
use super::{Answer, CliFailure, show};
use crate::config::{ClientCertificate, Config};
use crate::identity::{Issuer, Issuers};
use crate::schema::Schemas;
use crate::server::tls::{self, Pem, certificates, server_config, websocket_config};

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
    let policy = super::policy::load(&config.files.policy).map(|policy| {
        let what = format!(", {} rules, their tests pass", policy.rule_count());
        good(&config.files.policy, &what);
    });
    let schemas = load_schemas(&config.files.schemas).map(|schemas| {
        good(&config.files.schemas, &format!(", {} schemas", schemas.count()));
    });
    let tls = load_tls(&config).map(|_| {
        good(&config.tls.certificate, ", belongs to its key");
        for issuer in &config.issuers {
            good(&issuer.anchors, "");
        }
    });
    let key = super::record::log_key(&config).map(|_| ());
    let mut failures = [policy, schemas, tls, key].into_iter().filter_map(Result::err);
    let first = failures.next();
    for failure in failures {
        super::failure::report(&failure);
    }
    first.map_or(Ok(Answer::Yes), Err)
}

/// Reads the schemas in `directory`.
pub(super) fn load_schemas(directory: &Path) -> Result<Schemas, CliFailure> {
    let path = directory.join("registry.toml");
    let text = files::read(&path)?;
    let read = |name: &str| -> Result<String, FileFault> { files::read(&directory.join(name)) };
    Ok(Schemas::parse(&path.display().to_string(), &text, read)?)
}

/// TLS of every listener, and whom it trusts.
pub(super) struct ListenerTls {
    pub(super) mqtt: Arc<rustls::ServerConfig>,
    pub(super) websocket: Option<Arc<rustls::ServerConfig>>,
    pub(super) issuers: Arc<Issuers>,
}

/// Reads the issuers and makes the TLS configurations.
pub(super) fn load_tls(config: &Config) -> Result<ListenerTls, CliFailure> {
    let mut issuers = Vec::new();
    for issuer in &config.issuers {
        let text = files::read(&issuer.anchors)?;
        let file = issuer.anchors.display().to_string();
        let anchors = certificates(Pem { file: &file, text: &text })?;
        issuers.push(Issuer::new(
            &issuer.id,
            &issuer.trust_domain,
            &issuer.roles,
            &issuer.name_prefix,
            &anchors,
        )?);
    }
    let issuers = Arc::new(Issuers::new(issuers)?);
    let chain = files::read(&config.tls.certificate)?;
    let key = config.tls.key.read()?;
    let names = (config.tls.certificate.display().to_string(), format!("{:?}", config.tls.key));
    let chain = Pem { file: &names.0, text: &chain };
    let key = Pem { file: &names.1, text: &key };
    let websocket = config.listen.websocket.as_ref().map(|websocket| {
        let client_certificate = match websocket.client_certificate {
            ClientCertificate::Required => tls::ClientCertificate::Required,
            ClientCertificate::Optional => tls::ClientCertificate::Optional,
            ClientCertificate::None => tls::ClientCertificate::None,
        };
        websocket_config(chain, key, Arc::clone(&issuers), client_certificate)
    });
    Ok(ListenerTls {
        mqtt: server_config(chain, key, Arc::clone(&issuers))?,
        websocket: websocket.transpose()?,
        issuers,
    })
}

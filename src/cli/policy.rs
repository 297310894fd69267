//! `avow policy explain` and `avow policy check`.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::show::{self, Tone, escape, paint};
use super::{Answer, CliFailure, files};
use crate::config::Config;
use crate::identity::{Identity, Role};
use crate::mqtt::{ClientId, QoS};
use crate::policy::{Decision, Explanation, Operation, Policy, Query, RuleSite};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Why NAME may or may not do this: the rule, its line, the closest miss (exit 0 or 1)
    Explain(ExplainArguments),
    /// Read the policy and run its own tests
    Check,
}

#[derive(Args, Debug)]
pub(super) struct ExplainArguments {
    /// Name in the certificate
    name: String,
    /// What it wants to do
    #[arg(value_enum)]
    operation: OperationArgument,
    /// Topic Name, or Topic Filter to subscribe to
    topic: String,
    /// Quality of Service of the publish
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// The publish is retained
    #[arg(short, long)]
    retain: bool,
    /// The publish is empty and retained: it clears a retained message
    #[arg(long, requires = "retain")]
    clear: bool,
    /// Role in the certificate
    #[arg(long, default_value = "device", value_parser = role)]
    role: Role,
    /// Client Identifier [default: the name]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Issuer of the certificate [default: the first of avow.toml]
    #[arg(long, value_name = "ID")]
    issuer: Option<String>,
    /// Ask this policy instead: "what if"
    #[arg(long, value_name = "FILE")]
    with: Option<std::path::PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OperationArgument {
    Publish,
    Subscribe,
    Receive,
}

fn role(text: &str) -> Result<Role, &'static str> {
    Role::parse(text).ok_or("expected device, dashboard or operator")
}

pub(super) fn run(dir: &Path, verb: &PolicyVerb) -> Result<Answer, CliFailure> {
    let config = super::configuration(dir)?;
    match verb {
        PolicyVerb::Explain(arguments) => explain(&config, arguments),
        PolicyVerb::Check => {
            let policy = load(&config.files.policy)?;
            show::line(&format!(
                "{}: {} rules, their tests pass",
                config.files.policy.display(),
                policy.rule_count()
            ));
            Ok(Answer::Yes)
        }
    }
}

/// Reads a policy and runs its tests.
pub(super) fn load(path: &Path) -> Result<Policy, CliFailure> {
    let text = files::read(path)?;
    Ok(Policy::parse(&path.display().to_string(), &text)?)
}

fn explain(config: &Config, arguments: &ExplainArguments) -> Result<Answer, CliFailure> {
    let policy = load(arguments.with.as_deref().unwrap_or(&config.files.policy))?;
    let first = config.issuers.first().map_or("", |issuer| issuer.id.as_str());
    let issuer = arguments.issuer.as_deref().unwrap_or(first);
    let (domain, name) = (&config.node.trust_domain, &arguments.name);
    let identity = Identity::new(domain, arguments.role, name, issuer)?;
    let client_id = ClientId::new(arguments.client_id.as_deref().unwrap_or(name));
    let operation = match arguments.operation {
        OperationArgument::Publish => Operation::Publish,
        OperationArgument::Subscribe => Operation::Subscribe,
        OperationArgument::Receive => Operation::Receive,
    };
    let explanation = policy.explain_query(&Query {
        identity: &identity,
        client_id: &client_id,
        operation,
        topic: &arguments.topic,
        qos: QoS::from_bits(arguments.qos).unwrap_or_default(),
        retain: arguments.retain,
        clear: arguments.clear,
    });
    if arguments.json {
        show::json(&serde_json::to_value(&explanation).unwrap_or(json!(null)));
    } else {
        show::line(&story(&explanation));
    }
    Ok(match explanation.decision {
        Decision::Allow => Answer::Yes,
        Decision::Deny => Answer::No,
    })
}

fn story(explanation: &Explanation) -> String {
    let verdict = match explanation.decision {
        Decision::Allow => paint(Tone::Good, "allowed"),
        Decision::Deny => paint(Tone::Bad, "denied"),
    };
    let mut lines = vec![format!("{verdict}: {}", escape(&explanation.reason))];
    if let Some(rule) = &explanation.rule {
        lines.push(format!("rule: {}", site(rule)));
    }
    if let Some(miss) = &explanation.closest {
        lines.push(format!("closest: {}: {}", site(&miss.rule), escape(&miss.wanted)));
    }
    lines.push(format!("next: {}", escape(&explanation.next)));
    lines.join("\n")
}

fn site(rule: &RuleSite) -> String {
    format!("`{}` at {}:{}", rule.id.as_str(), rule.file, rule.line)
}

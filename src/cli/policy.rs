//! `avow policy explain` and `avow policy check`.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::bundle::quote;
use super::show::{self, Tone, escape, paint};
use super::{Answer, CliFailure, files, setting};
use crate::config::{Config, Setting, TokenKeyConfig};
use crate::identity::{Grants, Identity, Role};
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
    /// Role in the certificate [default: device, or dashboard with --token-role or --var]
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// A role that its token grants; may be repeated
    #[arg(long, value_name = "ROLE")]
    token_role: Vec<String>,
    /// A topic variable of its token; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::token::variable)]
    var: Vec<(String, String)>,
    /// Client Identifier [default: the name]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Issuer of the certificate, or `token:ISS` [default: the first of avow.toml]
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
        PolicyVerb::Explain(arguments) => explain(dir, &config, arguments),
        PolicyVerb::Check => {
            let policy = of(&config)?;
            show::line(&format!(
                "{}: {} rules, their tests pass",
                config.files.policy.display(),
                policy.rule_count()
            ));
            Ok(Answer::Yes)
        }
    }
}

/// Reads the policy of `config` and runs its tests.
pub(super) fn of(config: &Config) -> Result<Policy, CliFailure> {
    let path = &config.files.policy;
    let text = setting::read(config, Setting::Policy, path)?;
    Ok(Policy::parse(&path.display().to_string(), &text)?)
}

/// Reads a policy that the configuration does not name.
fn load(path: &Path) -> Result<Policy, CliFailure> {
    let text = files::read(path)?;
    Ok(Policy::parse(&path.display().to_string(), &text)?)
}

fn explain(
    dir: &Path,
    config: &Config,
    arguments: &ExplainArguments,
) -> Result<Answer, CliFailure> {
    let policy = match &arguments.with {
        Some(path) => load(path)?,
        None => of(config)?,
    };
    let issuer = issuer(config, arguments)?;
    let (domain, name) = (&config.node.trust_domain, &arguments.name);
    let identity = Identity::new(domain, arguments.role(), name, &issuer)?;
    let client_id = ClientId::new(arguments.client_id.as_deref().unwrap_or(name));
    let grants = super::token::grants(&arguments.token_role, &arguments.var)?;
    let mut explanation = policy.explain_query(&query(arguments, &identity, &client_id, &grants));
    explanation.next = next(dir, arguments, &explanation.next);
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

impl ExplainArguments {
    fn has_token(&self) -> bool {
        !(self.token_role.is_empty() && self.var.is_empty())
    }

    fn role(&self) -> Role {
        let default = if self.has_token() { Role::Dashboard } else { Role::Device };
        self.role.unwrap_or(default)
    }
}

/// Who vouches for the identity: an issuer of certificates, or one of tokens as the policy calls
/// it.
fn issuer(config: &Config, arguments: &ExplainArguments) -> Result<String, CliFailure> {
    let certificates = || config.issuers.iter().map(|issuer| issuer.id.clone());
    let tokens = || config.tokens.keys.iter().map(TokenKeyConfig::identity_issuer);
    let first = || if arguments.has_token() { tokens().next() } else { certificates().next() };
    let issuer = arguments.issuer.clone().or_else(first).unwrap_or_default();
    if !certificates().chain(tokens()).any(|id| id == issuer) {
        let known = certificates().chain(tokens()).collect();
        return Err(CliFailure::UnknownIssuer { id: issuer, known });
    }
    Ok(issuer)
}

fn query<'a>(
    arguments: &'a ExplainArguments,
    identity: &'a Identity,
    client_id: &'a ClientId,
    grants: &'a Grants,
) -> Query<'a> {
    Query {
        identity,
        client_id,
        grants,
        operation: match arguments.operation {
            OperationArgument::Publish => Operation::Publish,
            OperationArgument::Subscribe => Operation::Subscribe,
            OperationArgument::Receive => Operation::Receive,
        },
        topic: &arguments.topic,
        qos: QoS::from_bits(arguments.qos).unwrap_or_default(),
        retain: arguments.retain,
        clear: arguments.clear,
    }
}

/// The command that the policy suggests, with what only the command line knows of.
fn next(dir: &Path, arguments: &ExplainArguments, suggested: &str) -> String {
    let mut next = suggested.to_owned();
    let shown = |path: &Path| quote(&path.display().to_string());
    if next.starts_with("avow policy ") {
        if let Some(issuer) = &arguments.issuer {
            next.push_str(&format!(" --issuer {}", quote(issuer)));
        }
        if let Some(path) = arguments.with.as_deref().filter(|_| !next.contains(" --with ")) {
            next.push_str(&format!(" --with {}", shown(path)));
        }
    }
    match next.strip_prefix("avow ") {
        Some(rest) if dir != Path::new(".") && !rest.starts_with("sub ") => {
            format!("avow --dir {} {rest}", shown(dir))
        }
        _ => next,
    }
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
    format!("`{}` at {rule}", rule.id.as_str())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    const POLICY: &str = r#"
version = 1
[[permit]]
id = "own"
who = ["device"]
publish = ["plant/${device}/#"]
qos_max = 1
[[permit]]
id = "wall"
who = ["dashboard"]
publish = ["plant/wall/#"]
subscribe = ["plant/wall/#"]
"#;

    /// The words of a line that quotes with `'` and `"` only.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in line.chars() {
            match (c, quote) {
                (c, Some(q)) if c == q => quote = None,
                ('\'' | '"', None) => quote = Some(c),
                (' ', None) => words.push(std::mem::take(&mut word)),
                (c, _) => word.push(c),
            }
        }
        words.push(word);
        words
    }

    #[test]
    fn what_is_suggested_parses_and_asks_the_same_but_for_what_is_mended() {
        let policy = Policy::parse("policy.toml", POLICY).unwrap();
        let dir = Path::new("/srv/my plant");
        let asked = [
            "wall subscribe plant/wal/# --role dashboard --client-id w-1",
            "wall subscribe elsewhere --role dashboard --issuer plant",
            "press-7 publish plant/press-8/\"it's\" -q 1 --retain --client-id b",
            "press-7 publish plant/press-7/x -q 2",
            "press-7 publish plant/press-7/x --retain",
            "press-7 publish x --retain --clear --with what-if.toml",
            "wall receive $SYS/x --role dashboard",
            "wall publish plant/wall/x --role dashboard",
            "wall subscribe plant/x --token-role viewer --var hall=3",
        ];
        let mut suggested = Vec::new();
        for line in asked {
            let arguments = parse(&words(&format!("avow policy explain {line}")));
            let (identity, client_id) = whom(&arguments);
            let grants =
                super::super::token::grants(&arguments.token_role, &arguments.var).unwrap();
            let query = query(&arguments, &identity, &client_id, &grants);
            let explanation = policy.explain_query(&query);
            let next = next(dir, &arguments, &explanation.next);
            let parsed =
                Cli::try_parse_from(words(&next)).unwrap_or_else(|e| panic!("{next}: {e}"));
            if let Verb::Policy(PolicyVerb::Explain(again)) = parsed.verb {
                assert_eq!(again.role(), arguments.role(), "{next}");
                assert_eq!(again.token_role, arguments.token_role, "{next}");
                assert_eq!(again.var, arguments.var, "{next}");
                assert_eq!(again.issuer, arguments.issuer, "{next}");
                assert_eq!(whom(&again).1, client_id, "{next}");
            }
            suggested.push(next);
        }
        insta::assert_snapshot!(suggested.join("\n"), @r#"
        avow --dir '/srv/my plant' policy explain wall subscribe 'plant/wall/#' --role dashboard --client-id 'w-1'
        avow --dir '/srv/my plant' policy explain wall subscribe 'plant' --role dashboard --issuer plant
        avow --dir '/srv/my plant' policy explain press-7 publish 'plant/press-7/it'"'"'s' --client-id 'b' --qos 1 --retain
        avow --dir '/srv/my plant' policy explain press-7 publish 'plant/press-7/x'
        avow --dir '/srv/my plant' policy explain press-7 publish 'plant/press-7/x'
        avow --dir '/srv/my plant' policy explain press-7 publish 'plant' --retain --clear --with what-if.toml
        avow --dir '/srv/my plant' policy explain wall receive 'plant/x' --role dashboard
        avow --dir '/srv/my plant' audit query --who dashboard/wall --topic 'plant/wall/x'
        avow --dir '/srv/my plant' policy explain wall subscribe 'plant/wall' --role dashboard --token-role viewer --var 'hall=3'
        "#);
    }

    fn parse(words: &[String]) -> ExplainArguments {
        match Cli::try_parse_from(words).unwrap().verb {
            Verb::Policy(PolicyVerb::Explain(arguments)) => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn whom(arguments: &ExplainArguments) -> (Identity, ClientId) {
        let name = &arguments.name;
        let identity = Identity::new("plant.example", arguments.role(), name, "plant").unwrap();
        (identity, ClientId::new(arguments.client_id.as_deref().unwrap_or(name)))
    }
}

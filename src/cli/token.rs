//! `avow token issue NAME` and `avow token show TOKEN`.
//!
//! The invariant: a token is printed only after the broker's own rules accept it and its entry
//! stands in the log. The entry names it by `kid` and `jti`; the token itself is printed once, on
//! standard output, and kept nowhere.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::plant::hex;
use super::record::Recorder;
use super::setting::{self, SettingProblem};
use super::show::{self, Tone, escape, paint};
use super::{Answer, CliFailure};
use crate::config::{Config, Setting, TokenKeyConfig};
use crate::identity::grants::{Grants, is_grant_name};
use crate::identity::token::{NewToken, TokenFacts, TokenKey, TokenKeys, TokenSigner};
use crate::time::UnixNanos;

/// Lifetime of a token if none is asked for; shorter where its key gives less.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Random bytes of a `jti`.
const JTI_BYTES: usize = 12;

#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Sign a token, record that, and print it
    Issue(IssueArguments),
    /// Explain a token: whether it is valid, whom it names, until when (exit 0 or 1)
    Show(ShowArguments),
}

#[derive(Args, Debug)]
pub(super) struct IssueArguments {
    /// Whom it names: A-Z a-z 0-9 . - _
    name: String,
    /// A role that it grants; may be repeated
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// A topic variable, `${claim.NAME}` in the policy; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    var: Vec<(String, String)>,
    /// How long it lasts: 30s, 15m, 1h [default: 15m, or as long as its key gives]
    #[arg(long = "for", value_name = "TIME", value_parser = lifetime)]
    lifetime: Option<Duration>,
    /// The key, by its kid [default: the first [[token_key]] with a signing_key]
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
    /// Print JSON: the token and what it says
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ShowArguments {
    /// The token, or `-` to read it from standard input, where no list of processes shows it
    token: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads `NAME=VALUE`.
pub(super) fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if is_grant_name(name) => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, with a NAME of 1 to 32 of a-z 0-9 - _"),
    }
}

fn lifetime(text: &str) -> Result<Duration, &'static str> {
    let read = crate::config::parse_duration(text).filter(|read| read.as_secs() > 0);
    read.ok_or("expected 30s, 15m or 1h")
}

/// What a token with these roles and variables grants.
pub(super) fn grants(
    roles: &[String],
    variables: &[(String, String)],
) -> Result<Grants, CliFailure> {
    let roles = roles.iter().map(String::as_str);
    let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Ok(Grants::new(roles, variables)?)
}

/// The keys of `config`, read.
pub(super) fn keys(config: &Config) -> Result<TokenKeys, CliFailure> {
    let mut keys = Vec::new();
    for (number, key) in config.tokens.keys.iter().enumerate() {
        let setting = Setting::TokenKey(number);
        let pem = setting::read_secret(config, setting, &key.public_key)?;
        let made = TokenKey::new(&key.spec(&pem));
        let at = |fault| config.problem_at(setting, SettingProblem::TokenKey(fault));
        keys.push(made.map_err(at)?);
    }
    let bytes_max = usize::try_from(config.tokens.bytes_max).unwrap_or(usize::MAX);
    // The configuration has counted the keys, and compared their names.
    let keys = TokenKeys::new(keys, bytes_max, config.tokens.leeway.as_secs());
    keys.map_err(setting::of_token_keys(config))
}

pub(super) fn run(dir: &Path, verb: &TokenVerb) -> Result<Answer, CliFailure> {
    let config = super::configuration(dir)?;
    match verb {
        TokenVerb::Issue(arguments) => issue(&config, arguments).map(|()| Answer::Yes),
        TokenVerb::Show(arguments) => explain(&config, arguments),
    }
}

fn issue(config: &Config, arguments: &IssueArguments) -> Result<(), CliFailure> {
    let (number, key) = signing_key(config, arguments.kid.as_deref())?;
    let grants = grants(&arguments.role, &arguments.var)?;
    // Such a value would be granted, and never stand in a topic.
    let useless = |value: &str| value.is_empty() || value.contains(['+', '#', '/', '\0']);
    if let Some((name, _)) = arguments.var.iter().find(|(_, value)| useless(value)) {
        return Err(CliFailure::TokenVariable(name.clone()));
    }
    let signer = signer(config, number, key)?;
    let mut random = [0; JTI_BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| CliFailure::Randomness)?;
    let longest = Duration::from_secs(key.lifetime_seconds_max);
    let now = super::unix_now();
    let token = signer
        .sign(&NewToken {
            name: &arguments.name,
            jti: &hex(&random),
            issued: now,
            lifetime_seconds: arguments.lifetime.unwrap_or(LIFETIME.min(longest)).as_secs(),
            grants: &grants,
        })
        .map_err(|fault| at_signing_key(config, number, SettingProblem::SigningKey(fault)))?;
    // The rules of the broker judge it before anybody has it: the name, the lifetime, its length,
    // and whether the two halves of the key belong together.
    let facts = keys(config)?.verify(token.as_bytes(), now)?;
    let mut recorder = Recorder::open(config)?;
    let index = recorder.record("token.issue", &subject(&facts), &facts_of(&facts))?;
    recorder.close()?;
    if arguments.json {
        let mut said = told(&facts);
        if let Some(said) = said.as_object_mut() {
            said.insert("token".to_owned(), token.into());
            said.insert("index".to_owned(), index.into());
        }
        show::json(&said);
    } else {
        show::line(&token);
    }
    Ok(())
}

fn signing_key<'c>(
    config: &'c Config,
    kid: Option<&str>,
) -> Result<(usize, &'c TokenKeyConfig), CliFailure> {
    let signs = |key: &TokenKeyConfig| match kid {
        Some(kid) => key.kid == kid,
        None => key.signing_key.is_some(),
    };
    let found = config.tokens.keys.iter().enumerate().find(|(_, key)| signs(key));
    found.ok_or_else(|| CliFailure::NoTokenKey(kid.map(str::to_owned)))
}

fn signer(config: &Config, number: usize, key: &TokenKeyConfig) -> Result<TokenSigner, CliFailure> {
    let none = || CliFailure::NoTokenKey(Some(key.kid.clone()));
    let secret = key.signing_key.as_ref().ok_or_else(none)?;
    let pem = setting::read_secret(config, Setting::TokenSigningKey(number), secret)?;
    let made = TokenSigner::new(&key.spec(""), &pem);
    made.map_err(|fault| at_signing_key(config, number, SettingProblem::SigningKey(fault)))
}

fn at_signing_key(config: &Config, number: usize, problem: SettingProblem) -> CliFailure {
    config.problem_at(Setting::TokenSigningKey(number), problem).into()
}

fn subject(facts: &TokenFacts) -> String {
    let identity = facts.identity();
    format!("{}/{}", identity.role().as_str(), identity.name())
}

/// What the entry says: which token, never the token.
fn facts_of(facts: &TokenFacts) -> Vec<(&'static str, String)> {
    let roles: Vec<&str> = facts.grants().roles().collect();
    let mut said = vec![
        ("identity", facts.identity().uri().to_owned()),
        ("issuer", facts.identity().issuer().to_owned()),
        ("kid", facts.kid().to_owned()),
        ("jti", facts.jti().unwrap_or_default().to_owned()),
        ("not_before", facts.issued().as_seconds().to_string()),
        ("not_after", facts.expires().as_seconds().to_string()),
    ];
    if !roles.is_empty() {
        said.push(("roles", roles.join(" ")));
    }
    said
}

fn explain(config: &Config, arguments: &ShowArguments) -> Result<Answer, CliFailure> {
    let token = match arguments.token.as_str() {
        "-" => read_token()?,
        token => token.to_owned(),
    };
    let now = super::unix_now();
    match keys(config)?.verify(token.trim().as_bytes(), now) {
        Ok(facts) => {
            if arguments.json {
                show::json(&told(&facts));
            } else {
                show::line(&story(&facts, now));
            }
            Ok(Answer::Yes)
        }
        Err(refusal) => {
            let claim = refusal.claim().map(crate::refusal::Claim::as_str);
            if arguments.json {
                let (name, reason) = (refusal.name(), refusal.to_string());
                show::json(&json!({
                    "valid": false, "refusal": name, "claim": claim, "reason": reason,
                }));
            } else {
                let verdict = paint(Tone::Bad, "refused");
                show::line(&format!("{verdict}: {refusal} ({})", refusal.name()));
            }
            Ok(Answer::No)
        }
    }
}

fn read_token() -> Result<String, CliFailure> {
    let mut text = String::new();
    let bytes_max = crate::identity::token::TOKEN_BYTES_LIMIT as u64 + 2;
    let read = std::io::stdin().lock().take(bytes_max).read_to_string(&mut text);
    read.map_err(CliFailure::Stdin)?;
    Ok(text)
}

fn told(facts: &TokenFacts) -> serde_json::Value {
    let grants = facts.grants();
    json!({
        "valid": true,
        "identity": facts.identity().uri(),
        "issuer": facts.identity().issuer(),
        "kid": facts.kid(),
        "jti": facts.jti(),
        "issued": time_text(facts.issued()),
        "expires": time_text(facts.expires()),
        "roles": grants.roles().collect::<Vec<_>>(),
        "vars": grants.variables().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn story(facts: &TokenFacts, now: UnixNanos) -> String {
    let left = Duration::from_secs(facts.expires().since(now).as_secs());
    let mut lines = vec![
        format!("{}: it names {}", paint(Tone::Good, "valid"), subject(facts)),
        format!("identity: {}", facts.identity().uri()),
        format!("issuer: {}", escape(facts.identity().issuer())),
        format!(
            "until: {} (another {})",
            time_text(facts.expires()),
            crate::config::format_duration(left)
        ),
        format!("kid: {}", facts.kid()),
    ];
    if let Some(jti) = facts.jti() {
        lines.push(format!("jti: {}", escape(jti)));
    }
    for role in facts.grants().roles() {
        lines.push(format!("role: {role}"));
    }
    for (name, value) in facts.grants().variables() {
        lines.push(format!("var: {name}={}", escape(value)));
    }
    lines.join("\n")
}

fn time_text(time: UnixNanos) -> String {
    use ::time::OffsetDateTime;
    use ::time::format_description::well_known::Rfc3339;
    let seconds = i64::try_from(time.as_seconds()).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.unwrap_or_else(|| time.as_seconds().to_string())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests change what was written")]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};
    use crate::refusal::TokenRefusal;

    fn verb(line: &str) -> TokenVerb {
        match Cli::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::Token(verb) => verb,
            other => panic!("{other:?}"),
        }
    }

    fn run_line(dir: &Path, line: &str) -> Result<Answer, CliFailure> {
        run(dir, &verb(&format!("avow token {line}")))
    }

    fn new_broker() -> (tempfile::TempDir, std::path::PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("mill");
        let init = format!("avow init {}", dir.display());
        Cli::try_parse_from(init.split(' ')).unwrap().run().unwrap();
        (scratch, dir)
    }

    #[test]
    fn a_token_is_issued_by_the_rules_of_the_broker() {
        let (_scratch, dir) = new_broker();
        let issue = |line: &str| run_line(&dir, &format!("issue {line}"));
        assert_eq!(issue("wall --role viewer --var hall=3 --for 5m").unwrap(), Answer::Yes);
        assert_eq!(issue("wall --json").unwrap(), Answer::Yes);
        let refused = |line: &str| issue(line).unwrap_err();
        assert!(matches!(refused("wall --var hall=a/b"), CliFailure::TokenVariable(_)));
        assert!(matches!(refused("wall --role Viewer"), CliFailure::Grants(_)));
        assert!(matches!(refused("wall --kid 2"), CliFailure::NoTokenKey(Some(_))));
        let lifetime = refused("wall --for 16m");
        assert!(matches!(lifetime, CliFailure::Token(TokenRefusal::Lifetime)), "{lifetime:?}");
        let name = refused("wall/1");
        assert!(matches!(name, CliFailure::Token(TokenRefusal::Subject)), "{name:?}");
        assert_eq!(name.exit_code(), 2);
    }

    #[test]
    fn a_token_is_shown_or_refused() {
        let (_scratch, dir) = new_broker();
        let config = crate::config::load(&dir).unwrap();
        let (number, key) = signing_key(&config, None).unwrap();
        let signer = signer(&config, number, key).unwrap();
        let now = crate::cli::unix_now();
        let sign = |issued| {
            let new = NewToken {
                name: "wall",
                jti: "1",
                issued,
                lifetime_seconds: 60,
                grants: Grants::NONE,
            };
            signer.sign(&new).unwrap()
        };
        let good = sign(now);
        assert_eq!(run_line(&dir, &format!("show {good}")).unwrap(), Answer::Yes);
        assert_eq!(run_line(&dir, &format!("show --json {good}")).unwrap(), Answer::Yes);
        let old = sign(UnixNanos::from_seconds(now.as_seconds() - 3_600));
        assert_eq!(run_line(&dir, &format!("show {old}")).unwrap(), Answer::No);
        assert_eq!(run_line(&dir, "show --json hunter2").unwrap(), Answer::No);
    }

    #[test]
    fn c15_a_key_that_does_not_fit_is_reported_at_its_line() {
        let (_scratch, dir) = new_broker();
        let path = dir.join("avow.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"ES256\"", "\"EdDSA\"")).unwrap();
        let failure = run_line(&dir, "show hunter2").unwrap_err();
        let CliFailure::Setting(problem) = failure else { panic!("{failure:?}") };
        let plain = problem.plain();
        assert!(plain.contains("`public_key`: it is not a key for EdDSA"), "{plain}");
        std::fs::write(&path, text.replace("file:certs/token.pub", "file:none")).unwrap();
        assert_eq!(run_line(&dir, "show hunter2").unwrap_err().exit_code(), 2);
    }
}

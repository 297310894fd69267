//! `[token]` and each `[[token_key]]`: whose tokens are accepted, and how they are bounded.

use std::path::Path;
use std::time::Duration;

use super::problem::ConfigProblem;
use super::section::Section;
use super::sections::{At, Found, TRUST_DOMAIN, narrow};
use super::{Node, Secret};
use crate::identity::Role;
use crate::identity::name::{check_name, check_trust_domain};
use crate::identity::token::{
    AUDIENCE_BYTES_MAX, TOKEN_BYTES_LIMIT, TOKEN_ISSUER_PREFIX, TOKEN_KEYS_MAX,
    TOKEN_LIFETIME_SECONDS_MAX, TokenAlgorithm, TokenKeySpec,
};

pub(super) const TOKEN: &[&str] = &["bytes_max", "leeway"];
pub(super) const TOKEN_KEY: &[&str] = &[
    "kid",
    "algorithm",
    "public_key",
    "signing_key",
    "issuer",
    "audience",
    "names",
    "trust_domain",
    "name_prefix",
    "lifetime_max",
];

/// What the file says of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Longest token, in bytes.
    pub bytes_max: u32,
    /// How far the clock of an issuer may be ahead of ours.
    pub leeway: Duration,
    /// The keys; none: no token is accepted.
    pub keys: Vec<TokenKeyConfig>,
}

/// A key of tokens, and what it may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeyConfig {
    /// Its name in the header of a token.
    pub kid: String,
    /// How it signs.
    pub algorithm: TokenAlgorithm,
    /// PEM: the public half.
    pub public_key: Secret,
    /// PEM: the private half, if `avow token issue` may sign with it.
    pub signing_key: Option<Secret>,
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` that they must name.
    pub audience: String,
    /// The role that it may name: a dashboard or an operator.
    pub names: Role,
    /// The trust domain that it may name.
    pub trust_domain: String,
    /// What the names must begin with; empty: any name.
    pub name_prefix: String,
    /// The longest lifetime of its tokens, in seconds.
    pub lifetime_seconds_max: u64,
}

impl TokenKeyConfig {
    /// What the policy calls the issuer of its identities.
    pub fn identity_issuer(&self) -> String {
        format!("{TOKEN_ISSUER_PREFIX}{}", self.issuer)
    }

    /// The key, with its public half.
    pub fn spec<'a>(&'a self, public_key_pem: &'a str) -> TokenKeySpec<'a> {
        TokenKeySpec {
            kid: &self.kid,
            algorithm: self.algorithm,
            issuer: &self.issuer,
            audience: &self.audience,
            trust_domain: &self.trust_domain,
            role: self.names,
            name_prefix: &self.name_prefix,
            lifetime_seconds_max: self.lifetime_seconds_max,
            public_key_pem,
        }
    }
}

pub(super) fn read(
    (table, span): At<'_>,
    at_keys: &[At<'_>],
    node: &Node,
    dir: &Path,
    problems: &mut Found,
) -> Tokens {
    let mut s = Section::new(table, span, "[token]", TOKEN, problems);
    let bytes = 256..=TOKEN_BYTES_LIMIT as u64;
    let mut tokens = Tokens {
        bytes_max: narrow(s.bytes("bytes_max", 4096, bytes)),
        leeway: Duration::from_secs(s.seconds("leeway", 5, 0..=60)),
        keys: Vec::new(),
    };
    if let Some((_, span)) = at_keys.get(TOKEN_KEYS_MAX) {
        problems.push(span.clone(), ConfigProblem::TokenKeyCount);
    }
    for (table, span) in at_keys.iter().take(TOKEN_KEYS_MAX) {
        let mut s = Section::new(table, span.clone(), "[[token_key]]", TOKEN_KEY, problems);
        let key = key(&mut s, node, dir);
        if tokens.keys.iter().any(|other| other.kid == key.kid) && !key.kid.is_empty() {
            s.report(s.span_of("kid"), ConfigProblem::TokenKeyTwice { kid: key.kid.clone() });
        }
        tokens.keys.push(key);
    }
    tokens
}

fn key(s: &mut Section<'_, '_>, node: &Node, dir: &Path) -> TokenKeyConfig {
    const NAME: &str = "1 to 128 of A-Z a-z 0-9 . - _";
    const PRINTABLE: &str = "1 to 128 printable characters";
    let printable = |text: &str| {
        (1..=AUDIENCE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let algorithms = TokenAlgorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
    let roles = [Role::Dashboard, Role::Operator].map(|role| (role.as_str(), role));
    let trust_domain = s.text("trust_domain", TRUST_DOMAIN, "\"plant.example\"", |text| {
        check_trust_domain(text).is_ok()
    });
    let name_prefix = s.text("name_prefix", "the beginning of a name", "\"wall-\"", |text| {
        text.is_empty() || check_name(&format!("{text}x")).is_ok()
    });
    let signing_key = s.place_of("signing_key").is_some();
    TokenKeyConfig {
        kid: s.required_text("kid", NAME, "\"1\"", |text| check_name(text).is_ok()),
        algorithm: s.choice("algorithm", TokenAlgorithm::Es256, &algorithms),
        public_key: s.secret("public_key", "certs/token.pub", dir),
        signing_key: signing_key.then(|| s.secret("signing_key", "certs/token.key", dir)),
        issuer: s.required_text("issuer", PRINTABLE, "\"plant-1\"", printable),
        audience: s.required_text("audience", PRINTABLE, "\"plant-1\"", printable),
        names: s.choice("names", Role::Dashboard, &roles),
        trust_domain: trust_domain.unwrap_or_else(|| node.trust_domain.clone()),
        name_prefix: name_prefix.unwrap_or_default(),
        lifetime_seconds_max: s.seconds("lifetime_max", 900, 10..=TOKEN_LIFETIME_SECONDS_MAX),
    }
}

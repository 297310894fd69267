//! A token (JWT) to an identity, read strictly.
//!
//! A token names somebody only where no certificate does; where that is so is the core's to say.
//! [`TokenKeys::verify`] is the only way to a [`TokenFacts`], so that whoever holds one holds a
//! token that passed every check at the time given there. The form and the signature are
//! `jsonwebtoken`'s; the claims are read here, because a library that skips a claim it cannot read
//! treats it as absent, and because time is an argument.
//!
//! Invariants: the algorithm is the key's, never the header's; every token ends, within the
//! longest lifetime of its key; its identity's issuer is `token:` and `iss`, which no issuer of
//! certificates can be called, so that a token never names a peer that a certificate names.
//!
//! Specification: RFC 7519 (JWT), RFC 8725 (its best current practices).

mod key;
mod sign;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use serde_json::Value;

pub use key::{
    AUDIENCE_BYTES_MAX, TOKEN_KEYS_MAX, TOKEN_LIFETIME_SECONDS_MAX, TokenAlgorithm, TokenKey,
    TokenKeyFault, TokenKeySpec,
};
pub use sign::{NewToken, SignFault, TokenKeyPair, TokenSigner};

use super::grants::{Grants, GrantsError};
use super::name::Identity;
use crate::refusal::{Claim, TokenRefusal};
use crate::time::UnixNanos;

/// What stands before `iss` in the issuer of a token's identity. No issuer of certificates has a
/// `:` in its id.
pub const TOKEN_ISSUER_PREFIX: &str = "token:";
/// Longest token that any configuration allows, in bytes.
pub const TOKEN_BYTES_LIMIT: usize = 16 * 1024;
/// Longest `jti`, in bytes.
const JTI_BYTES_MAX: usize = 128;
/// Most audiences of one token.
const AUDIENCES_MAX: usize = 16;

/// What a verified token says: the head of the line where there is no certificate. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFacts(Arc<Facts>);

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    identity: Identity,
    kid: Arc<str>,
    jti: Option<Box<str>>,
    issued: UnixNanos,
    expires: UnixNanos,
    grants: Arc<Grants>,
}

impl TokenFacts {
    /// Who it names.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Which key signed it.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// Its own name, as its issuer chose it: escape before showing.
    pub fn jti(&self) -> Option<&str> {
        self.0.jti.as_deref()
    }

    /// When it was made, in whole seconds.
    pub fn issued(&self) -> UnixNanos {
        self.0.issued
    }

    /// When it ends, in whole seconds, and a session with it.
    pub fn expires(&self) -> UnixNanos {
        self.0.expires
    }

    /// What it grants besides the name.
    pub fn grants(&self) -> &Arc<Grants> {
        &self.0.grants
    }
}

/// The keys whose tokens are accepted.
#[derive(Debug)]
pub struct TokenKeys {
    keys: Vec<TokenKey>,
    bytes_max: usize,
    leeway_seconds: u64,
}

/// The claims as they come: present or not, of whatever type. A claim that is there twice refuses
/// the token, because two readers could understand it differently.
#[derive(Deserialize)]
struct Claims {
    iss: Option<Value>,
    sub: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
    jti: Option<Value>,
    roles: Option<Value>,
    vars: Option<Value>,
}

impl TokenKeys {
    /// Accepts tokens of `keys` that have at most `bytes_max` bytes. `leeway_seconds` is how far
    /// an issuer's clock may be ahead of ours: it widens `nbf` and `iat`, never `exp`.
    ///
    /// # Errors
    /// [`TokenKeyFault::Count`], [`TokenKeyFault::KidTwice`] or [`TokenKeyFault::Shared`].
    pub fn new(
        keys: Vec<TokenKey>,
        bytes_max: usize,
        leeway_seconds: u64,
    ) -> Result<Self, TokenKeyFault> {
        if keys.len() > TOKEN_KEYS_MAX {
            return Err(TokenKeyFault::Count(keys.len()));
        }
        for (at, key) in keys.iter().enumerate() {
            for other in keys.iter().take(at) {
                if other.kid() == key.kid() {
                    return Err(TokenKeyFault::KidTwice(key.kid().to_owned()));
                }
                if other.is_same(key) {
                    let (first, second) = (other.kid().to_owned(), key.kid().to_owned());
                    return Err(TokenKeyFault::Shared { first, second });
                }
            }
        }
        Ok(Self { keys, bytes_max: bytes_max.min(TOKEN_BYTES_LIMIT), leeway_seconds })
    }

    /// No keys: every token is refused.
    pub fn none() -> Self {
        Self { keys: Vec::new(), bytes_max: 0, leeway_seconds: 0 }
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Verifies `token` at `now`.
    ///
    /// # Errors
    /// The first [`TokenRefusal`] of: its length, form, key, algorithm, signature, and then its
    /// claims.
    pub fn verify(&self, token: &[u8], now: UnixNanos) -> Result<TokenFacts, TokenRefusal> {
        if token.is_empty() {
            return Err(TokenRefusal::Missing);
        }
        if self.is_empty() {
            return Err(TokenRefusal::UnknownKey);
        }
        if token.len() > self.bytes_max {
            return Err(TokenRefusal::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenRefusal::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenRefusal::Critical);
        }
        let key = header.kid.as_deref().and_then(|kid| self.keys.iter().find(|k| k.kid() == kid));
        let key = key.ok_or(TokenRefusal::UnknownKey)?;
        if header.alg != key.algorithm().library() {
            return Err(TokenRefusal::Algorithm);
        }
        let claims = key.decode::<Claims>(token).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenRefusal::Signature,
            ErrorKind::InvalidAlgorithm => TokenRefusal::Algorithm,
            // The closed list of the library is open: whatever else, it is no token.
            _ => TokenRefusal::Malformed,
        })?;
        self.judge(key, &claims, now)
    }

    fn judge(
        &self,
        key: &TokenKey,
        claims: &Claims,
        now: UnixNanos,
    ) -> Result<TokenFacts, TokenRefusal> {
        if text(Claim::Iss, claims.iss.as_ref())? != key.issuer() {
            return Err(TokenRefusal::Issuer);
        }
        if !is_for(key.audience(), claims.aud.as_ref())? {
            return Err(TokenRefusal::Audience);
        }
        let expires = seconds(Claim::Exp, claims.exp.as_ref())?;
        let begins = seconds(Claim::Nbf, claims.nbf.as_ref())?;
        let issued = seconds(Claim::Iat, claims.iat.as_ref())?;
        let latest = now.as_seconds().saturating_add(self.leeway_seconds);
        if begins > latest || issued > latest {
            return Err(TokenRefusal::NotYetValid);
        }
        // `exp` is when it has ended, not its last moment (RFC 7519, 4.1.4), and nothing widens it:
        // the session ends at the same moment.
        if expires <= now.as_seconds() {
            return Err(TokenRefusal::Expired);
        }
        match expires.checked_sub(issued) {
            Some(lifetime) if lifetime <= key.lifetime_seconds_max() => {}
            Some(_) | None => return Err(TokenRefusal::Lifetime),
        }
        let identity = key.name(text(Claim::Sub, claims.sub.as_ref())?)?;
        Ok(TokenFacts(Arc::new(Facts {
            identity,
            kid: key.shared_kid(),
            jti: jti(claims.jti.as_ref())?,
            issued: UnixNanos::from_seconds(issued),
            expires: UnixNanos::from_seconds(expires),
            grants: Arc::new(grants(claims)?),
        })))
    }
}

fn present(claim: Claim, value: Option<&Value>) -> Result<&Value, TokenRefusal> {
    value.ok_or(TokenRefusal::ClaimMissing(claim))
}

fn text(claim: Claim, value: Option<&Value>) -> Result<&str, TokenRefusal> {
    present(claim, value)?.as_str().ok_or(TokenRefusal::ClaimInvalid(claim))
}

/// A time in whole seconds. RFC 7519 allows fractions; nobody's tokens have them, and a number
/// that is not an integer is refused rather than rounded.
fn seconds(claim: Claim, value: Option<&Value>) -> Result<u64, TokenRefusal> {
    present(claim, value)?.as_u64().ok_or(TokenRefusal::ClaimInvalid(claim))
}

/// Whether `aud`, one text or several, has ours in it.
fn is_for(ours: &str, aud: Option<&Value>) -> Result<bool, TokenRefusal> {
    let invalid = TokenRefusal::ClaimInvalid(Claim::Aud);
    match present(Claim::Aud, aud)? {
        Value::String(one) => Ok(one == ours),
        Value::Array(several) if several.len() <= AUDIENCES_MAX => {
            let texts = several.iter().map(|one| one.as_str().ok_or(invalid));
            Ok(texts.collect::<Result<Vec<_>, _>>()?.contains(&ours))
        }
        _ => Err(invalid),
    }
}

fn jti(value: Option<&Value>) -> Result<Option<Box<str>>, TokenRefusal> {
    let Some(value) = value else { return Ok(None) };
    let jti = value.as_str().filter(|jti| jti.len() <= JTI_BYTES_MAX);
    jti.map(|jti| Some(jti.into())).ok_or(TokenRefusal::ClaimInvalid(Claim::Jti))
}

fn grants(claims: &Claims) -> Result<Grants, TokenRefusal> {
    let invalid = TokenRefusal::ClaimInvalid;
    let roles = claims.roles.as_ref().map(|roles| {
        let roles = roles.as_array().ok_or(invalid(Claim::Roles))?;
        let role = |role| Value::as_str(role).ok_or(invalid(Claim::Roles));
        roles.iter().map(role).collect::<Result<Vec<_>, _>>()
    });
    let variables = claims.vars.as_ref().map(|vars| {
        let vars = vars.as_object().ok_or(invalid(Claim::Vars))?;
        let variable = |(name, value)| {
            let value: Option<&str> = Value::as_str(value);
            Ok((String::as_str(name), value.ok_or(invalid(Claim::Vars))?))
        };
        vars.iter().map(variable).collect::<Result<Vec<_>, TokenRefusal>>()
    });
    let roles = roles.transpose()?.unwrap_or_default();
    let variables = variables.transpose()?.unwrap_or_default();
    Grants::new(roles, variables).map_err(|error| match error {
        GrantsError::Roles => invalid(Claim::Roles),
        GrantsError::Variables => invalid(Claim::Vars),
    })
}

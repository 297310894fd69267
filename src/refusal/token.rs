//! Every way to say no to a token.
//!
//! A refusal names a claim at most, never what stands in it: a token is a credential, and nothing
//! of one that was refused is worth a place in the log.

/// Why a token is no credential. A closed list: entries and metrics use its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum TokenRefusal {
    /// None was given, and there is no other credential.
    #[error("no token was given")]
    Missing,
    /// More bytes than a token may have; not even its header was read.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64url, or a part that is not the JSON object it should be.
    #[error("this is not a token (three parts of base64url, of JSON)")]
    Malformed,
    /// The header demands an extension, and none is known here.
    #[error("the token's header demands an extension (`crit`)")]
    Critical,
    /// The header names no key that is configured.
    #[error("the token's `kid` names no configured key")]
    UnknownKey,
    /// The header's algorithm is not the one of its key, or is none at all.
    #[error("the token's `alg` is not the algorithm of its key")]
    Algorithm,
    /// Its key did not sign it.
    #[error("the token's signature is not of its key")]
    Signature,
    /// A claim that every token needs is not there.
    #[error("the token has no `{}`", .0.as_str())]
    ClaimMissing(Claim),
    /// A claim is there and of another type, or beyond a bound.
    #[error("the token's `{}` is not what it must be", .0.as_str())]
    ClaimInvalid(Claim),
    /// `iss` is not the issuer of the key.
    #[error("the token's `iss` is not the issuer of its key")]
    Issuer,
    /// `aud` is not this broker's.
    #[error("the token's `aud` is for somebody else")]
    Audience,
    /// `exp` has come.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// From `iat` to `exp` is longer than its key may give.
    #[error("the token's lifetime, `iat` to `exp`, is longer than its key may give")]
    Lifetime,
    /// `sub` is no name, or one that the key may not give.
    #[error("the token's `sub` is no name that its key may give")]
    Subject,
    /// It was to renew a session, and is somebody else's.
    #[error("the token is not of the identity whose session it should renew")]
    OtherIdentity,
}

/// A claim that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// Who made it.
    Iss,
    /// Whom it speaks of.
    Sub,
    /// Whom it is for.
    Aud,
    /// When it ends.
    Exp,
    /// When it begins.
    Nbf,
    /// When it was made.
    Iat,
    /// Its own name.
    Jti,
    /// Roles.
    Roles,
    /// Topic variables.
    Vars,
}

impl Claim {
    /// Its name in the token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Iss => "iss",
            Self::Sub => "sub",
            Self::Aud => "aud",
            Self::Exp => "exp",
            Self::Nbf => "nbf",
            Self::Iat => "iat",
            Self::Jti => "jti",
            Self::Roles => "roles",
            Self::Vars => "vars",
        }
    }
}

impl TokenRefusal {
    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "token.missing",
            Self::TooLong => "token.bytes",
            Self::Malformed => "token.malformed",
            Self::Critical => "token.crit",
            Self::UnknownKey => "token.kid",
            Self::Algorithm => "token.alg",
            Self::Signature => "token.signature",
            Self::ClaimMissing(_) => "token.claim_missing",
            Self::ClaimInvalid(_) => "token.claim_invalid",
            Self::Issuer => "token.iss",
            Self::Audience => "token.aud",
            Self::Expired => "token.expired",
            Self::NotYetValid => "token.not_yet_valid",
            Self::Lifetime => "token.lifetime",
            Self::Subject => "token.sub",
            Self::OtherIdentity => "token.other_identity",
        }
    }

    /// The claim that it is about, where the name does not say which.
    pub const fn claim(self) -> Option<Claim> {
        match self {
            Self::ClaimMissing(claim) | Self::ClaimInvalid(claim) => Some(claim),
            Self::Missing
            | Self::TooLong
            | Self::Malformed
            | Self::Critical
            | Self::UnknownKey
            | Self::Algorithm
            | Self::Signature
            | Self::Issuer
            | Self::Audience
            | Self::Expired
            | Self::NotYetValid
            | Self::Lifetime
            | Self::Subject
            | Self::OtherIdentity => None,
        }
    }
}

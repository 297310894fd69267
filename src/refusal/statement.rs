//! Every way to say no to a device's statement about its message.
//!
//! All of them are answered Not authorized (0x87), but for a bound of ours: a message without a good
//! statement is one that its author may not publish there. Which it was stands in the entry.

/// Why a statement does not carry its message. A closed list: entries and metrics use its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatementRefusal {
    /// The rule asks for one, and there is none.
    Missing,
    /// More than one stands in the user properties.
    Repeated,
    /// More bytes than a statement may have.
    TooLong,
    /// Not base64url, or not the COSE_Sign1 object in its one encoding.
    Malformed,
    /// A header label or claim that is not known here, or one that is needed and not there.
    Label,
    /// `alg` is not the algorithm of the certificate's key, or that key cannot sign statements.
    Algorithm,
    /// It is not a statement about a message, or not over a SHA-256 of bytes.
    Type,
    /// `x5t` is not the certificate of the connection, or that has none.
    Certificate,
    /// `iss` is not the identity of the connection.
    Issuer,
    /// `sub` is not the Topic Name.
    Topic,
    /// `aud` is not the origin of our log.
    Audience,
    /// QoS or RETAIN are not those of the PUBLISH.
    Manner,
    /// What was signed is not the hash of salt and payload, or not the head over the batch.
    Commitment,
    /// The key of the certificate did not sign it.
    Signature,
    /// `iat` is too far from our clock, and the rule does not take that.
    Clock,
    /// An epoch below the highest seen.
    Epoch,
    /// A sequence number that was left behind: it cannot be told from one that was used.
    Replay,
    /// A second message under a sequence number that was used for another one.
    Conflict,
    /// A batch whose messages did not all come, or that has none.
    Gap,
    /// The device has left messages without a cover: for too long, or too many.
    Uncovered,
    /// More devices sign, or more messages wait for their covers, than the bound.
    Signers,
}

impl StatementRefusal {
    /// Every one, as in the enum.
    pub const ALL: [Self; 21] = [
        Self::Missing,
        Self::Repeated,
        Self::TooLong,
        Self::Malformed,
        Self::Label,
        Self::Algorithm,
        Self::Type,
        Self::Certificate,
        Self::Issuer,
        Self::Topic,
        Self::Audience,
        Self::Manner,
        Self::Commitment,
        Self::Signature,
        Self::Clock,
        Self::Epoch,
        Self::Replay,
        Self::Conflict,
        Self::Gap,
        Self::Uncovered,
        Self::Signers,
    ];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "statement.missing",
            Self::Repeated => "statement.repeated",
            Self::TooLong => "statement.bytes",
            Self::Malformed => "statement.malformed",
            Self::Label => "statement.label",
            Self::Algorithm => "statement.alg",
            Self::Type => "statement.typ",
            Self::Certificate => "statement.x5t",
            Self::Issuer => "statement.iss",
            Self::Topic => "statement.sub",
            Self::Audience => "statement.aud",
            Self::Manner => "statement.manner",
            Self::Commitment => "statement.commitment",
            Self::Signature => "statement.signature",
            Self::Clock => "statement.iat",
            Self::Epoch => "statement.epoch",
            Self::Replay => "statement.replay",
            Self::Conflict => "statement.conflict",
            Self::Gap => "statement.gap",
            Self::Uncovered => "statement.uncovered",
            Self::Signers => "statement.signers",
        }
    }

    /// Whether a bound of ours says so, and not the statement.
    pub const fn is_quota(self) -> bool {
        matches!(self, Self::Signers | Self::Uncovered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_has_a_name_of_its_own() {
        let mut names = StatementRefusal::ALL.map(StatementRefusal::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), StatementRefusal::ALL.len());
    }
}

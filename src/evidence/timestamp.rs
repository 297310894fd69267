//! RFC 3161 time-stamps over checkpoints: the request, and what must hold of the reply.
//!
//! A time-stamping authority (TSA) signs the hash of a checkpoint's note together with its own
//! clock. It is asked by whoever carries the files to it: nothing here reaches a network. The
//! invariant: a [`Stamped`] comes only out of [`TimeStamp::verify`], so the hash was that of the
//! note, the signature that of a certificate for time-stamping alone, and its path led to an
//! anchor of the caller's at the time that it states. RFC 3161, RFC 5816 (SHA-256 in ESSCertIDv2),
//! RFC 5652.

mod asn1;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use cms::cert::CertificateChoices;
use cms::cert::x509::Certificate;
use cms::cert::x509::ext::pkix::SubjectKeyIdentifier;
use cms::cert::x509::spki::AlgorithmIdentifierOwned;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{Int, ObjectIdentifier, OctetString};
use der::{Decode, Encode, Tag, Tagged};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use time::{Date, Month, PrimitiveDateTime, Time};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs as algorithm};

use self::asn1::{
    CONTENT_TYPE, ECDSA_SHA_256, ECDSA_SHA_384, ECDSA_SHA_512, ED25519, MESSAGE_DIGEST,
    MessageImprint, RSA, RSA_SHA_256, RSA_SHA_384, RSA_SHA_512, SHA_256, SHA_384, SHA_512,
    SIGNED_DATA, SIGNING_CERTIFICATE, SIGNING_CERTIFICATE_V2, SigningCertificate,
    SigningCertificateV2, TST_INFO, TimeStampReq, TimeStampResp, TstInfo,
};
use crate::time::UnixNanos;

/// Longest reply, in bytes: a token with the certificates of its authority.
pub const TIMESTAMP_BYTES_MAX: usize = 64 << 10;
/// Length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 8;

/// id-kp-timeStamping, as the content of its OID.
const TIME_STAMPING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];

/// A reply that was read, and not believed yet.
#[derive(Clone, Debug)]
pub struct TimeStamp {
    /// The bytes that the signature is about.
    content: Vec<u8>,
    info: TstInfo,
    signer: SignerInfo,
    certificates: Vec<Certificate>,
}

/// What a time-stamp proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The authority's time.
    pub time: UnixNanos,
    /// How far that may be from the true one, if the authority says so.
    pub accuracy: Option<Duration>,
    /// The authority's number of this stamp, in hex.
    pub serial: String,
    /// The subject of the authority's certificate.
    pub authority: String,
    /// The policy that it stamps under, as an OID.
    pub policy: String,
}

/// Why a time-stamp is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Longer than any reply.
    #[error("it is longer than {TIMESTAMP_BYTES_MAX} bytes")]
    TooLong,
    /// It is no reply.
    #[error("this is no time-stamp reply in DER: {0}")]
    Der(#[from] der::Error),
    /// The authority refused.
    #[error("the authority did not stamp: status {status}{text}")]
    Refused {
        /// PKIStatus.
        status: u8,
        /// What it says, with `: ` before it.
        text: String,
    },
    /// It is CMS, and no time-stamp.
    #[error("the signed content is no time-stamp")]
    NotATimestamp,
    /// Not one signer, or without signed attributes.
    #[error("it is not signed in the way of RFC 3161")]
    Signer,
    /// A hash that nobody should rest on.
    #[error("its hash algorithm {0} is not SHA-256, SHA-384 or SHA-512")]
    Hash(ObjectIdentifier),
    /// The stamp is over something else.
    #[error("it is a stamp over something else")]
    Imprint,
    /// The request had another nonce.
    #[error("its nonce is not that of the request")]
    Nonce,
    /// The certificate of the signer is not in it.
    #[error("the certificate of the authority is not in it: ask with certReq")]
    NoCertificate,
    /// The signed attributes name another certificate, or none.
    #[error("it does not name the certificate that signed it")]
    OtherCertificate,
    /// The signed attributes are not about this content.
    #[error("its signed attributes are not those of its content")]
    Attributes,
    /// The signature.
    #[error("its signature does not hold: {0}")]
    Signature(webpki::Error),
    /// No path to an anchor, at its time, for time-stamping.
    #[error("no path from the authority's certificate to the given CA: {0}")]
    Path(webpki::Error),
    /// Its time is none.
    #[error("its time is not a time")]
    Time,
    /// An extension that must be understood.
    #[error("it has a critical extension that is not known here")]
    Extension,
}

/// The request to stamp `note`, in DER: `openssl ts` takes it as it is. The nonce should be random.
///
/// # Errors
/// Never in practice: the encoding is of a fixed form.
pub fn request(note: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>, TimestampError> {
    let imprint = OctetString::new(digest::digest(&SHA256, note).as_ref())?;
    let request = TimeStampReq {
        version: 1,
        message_imprint: MessageImprint {
            hash_algorithm: AlgorithmIdentifierOwned { oid: SHA_256, parameters: None },
            hashed_message: imprint,
        },
        policy: None,
        nonce: Some(positive(nonce)?),
        cert_req: true,
    };
    Ok(request.to_der()?)
}

/// As an INTEGER that is positive and as long as it looks.
fn positive(mut nonce: [u8; NONCE_BYTES]) -> Result<Int, der::Error> {
    if let Some(first) = nonce.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Int::new(&nonce)
}

impl TimeStamp {
    /// Reads a reply (`.tsr`), or the bare token in it.
    ///
    /// # Errors
    /// [`TimestampError`] if it is none, or a refusal.
    pub fn parse(reply: &[u8]) -> Result<Self, TimestampError> {
        if reply.len() > TIMESTAMP_BYTES_MAX {
            return Err(TimestampError::TooLong);
        }
        let token = match ContentInfo::from_der(reply) {
            Ok(token) => token,
            Err(_) => granted(TimeStampResp::from_der(reply)?)?,
        };
        if token.content_type != SIGNED_DATA {
            return Err(TimestampError::NotATimestamp);
        }
        let signed: SignedData = token.content.decode_as()?;
        if signed.encap_content_info.econtent_type != TST_INFO {
            return Err(TimestampError::NotATimestamp);
        }
        let content = signed.encap_content_info.econtent.ok_or(TimestampError::NotATimestamp)?;
        let content = content.decode_as::<OctetString>()?.as_bytes().to_vec();
        let info = TstInfo::from_der(&content)?;
        let mut signers = signed.signer_infos.0.into_vec().into_iter();
        let (Some(signer), None) = (signers.next(), signers.next()) else {
            return Err(TimestampError::Signer);
        };
        let certificates = signed.certificates.map(|set| set.0.into_vec()).unwrap_or_default();
        let certificates = certificates.into_iter().filter_map(|choice| match choice {
            CertificateChoices::Certificate(certificate) => Some(certificate),
            CertificateChoices::Other(_) => None,
        });
        Ok(Self { content, info, signer, certificates: certificates.collect() })
    }

    /// Whether it is over these bytes, as far as it says so itself.
    pub fn is_over(&self, note: &[u8]) -> bool {
        let imprint = &self.info.message_imprint;
        hash(imprint.hash_algorithm.oid, note)
            .is_ok_and(|hash| hash.as_ref() == imprint.hashed_message.as_bytes())
    }

    /// Whether it answers the request in `request`: the same hash and the same nonce.
    ///
    /// # Errors
    /// [`TimestampError::Imprint`], [`TimestampError::Nonce`], or what is wrong with the request.
    pub fn answers(&self, request: &[u8]) -> Result<(), TimestampError> {
        let request = TimeStampReq::from_der(request)?;
        let asked = &request.message_imprint;
        let told = &self.info.message_imprint;
        let is_same = asked.hash_algorithm.oid == told.hash_algorithm.oid
            && asked.hashed_message == told.hashed_message;
        if !is_same {
            return Err(TimestampError::Imprint);
        }
        if request.nonce != self.info.nonce { Err(TimestampError::Nonce) } else { Ok(()) }
    }

    /// Checks that it is a stamp over `note` by an authority that one of `anchors` vouched for at
    /// that time. Revocation is not looked at: RFC 3161 leaves it to whoever has the lists.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(
        &self,
        note: &[u8],
        anchors: &[CertificateDer<'_>],
    ) -> Result<Stamped, TimestampError> {
        let imprint = &self.info.message_imprint;
        let hash = hash(imprint.hash_algorithm.oid, note)?;
        if hash.as_ref() != imprint.hashed_message.as_bytes() {
            return Err(TimestampError::Imprint);
        }
        let extensions = self.info.extensions.as_deref().unwrap_or_default();
        if self.info.version != 1 || extensions.iter().any(|extension| extension.critical) {
            return Err(TimestampError::Extension);
        }
        let time = generalized_time(&self.info.time).ok_or(TimestampError::Time)?;
        let certificate = self.certificate().ok_or(TimestampError::NoCertificate)?;
        let der = CertificateDer::from(certificate.to_der()?);
        let end_entity = EndEntityCert::try_from(&der).map_err(TimestampError::Path)?;
        self.check_signature(&end_entity, &der)?;
        self.check_path(&end_entity, anchors, time)?;
        let serial = self.info.serial.as_bytes().iter().map(|byte| format!("{byte:02x}"));
        Ok(Stamped {
            time,
            accuracy: self.info.accuracy.as_ref().map(|accuracy| {
                let micros = u64::from(accuracy.millis.unwrap_or(0)) * 1_000
                    + u64::from(accuracy.micros.unwrap_or(0));
                let seconds = u64::from(accuracy.seconds.unwrap_or(0));
                Duration::from_secs(seconds) + Duration::from_micros(micros)
            }),
            serial: serial.collect(),
            authority: certificate.tbs_certificate.subject.to_string(),
            policy: self.info.policy.to_string(),
        })
    }

    /// The certificate that the signer names.
    fn certificate(&self) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| {
            let tbs = &certificate.tbs_certificate;
            match &self.signer.sid {
                SignerIdentifier::IssuerAndSerialNumber(named) => {
                    tbs.issuer == named.issuer && tbs.serial_number == named.serial_number
                }
                SignerIdentifier::SubjectKeyIdentifier(named) => tbs
                    .get::<SubjectKeyIdentifier>()
                    .is_ok_and(|found| found.is_some_and(|(_, found)| found == *named)),
            }
        })
    }

    fn check_signature(
        &self,
        end_entity: &EndEntityCert<'_>,
        certificate: &[u8],
    ) -> Result<(), TimestampError> {
        let attributes = self.signer.signed_attrs.as_ref().ok_or(TimestampError::Signer)?;
        let one = |oid| {
            let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
            // Each stands there once, with one value.
            let (Some(attribute), None) = (found.next(), found.next()) else { return None };
            attribute.values.get(0).filter(|_| attribute.values.len() == 1)
        };
        let content_type = one(CONTENT_TYPE).ok_or(TimestampError::Attributes)?;
        let message_digest = one(MESSAGE_DIGEST).ok_or(TimestampError::Attributes)?;
        let is_about = content_type.decode_as::<ObjectIdentifier>()? == TST_INFO
            && message_digest.decode_as::<OctetString>()?.as_bytes()
                == hash(self.signer.digest_alg.oid, &self.content)?.as_ref();
        if !is_about {
            return Err(TimestampError::Attributes);
        }
        let names_it = match (one(SIGNING_CERTIFICATE_V2), one(SIGNING_CERTIFICATE)) {
            (Some(value), _) => {
                let named: SigningCertificateV2 = value.decode_as()?;
                let first = named.certs.first().ok_or(TimestampError::OtherCertificate)?;
                let oid = first.hash_algorithm.as_ref().map_or(SHA_256, |algorithm| algorithm.oid);
                first.hash.as_bytes() == hash(oid, certificate)?.as_ref()
            }
            (None, Some(value)) => {
                let named: SigningCertificate = value.decode_as()?;
                let first = named.certs.first().ok_or(TimestampError::OtherCertificate)?;
                // SHA-1 names the certificate here and no more: the signature covers the name.
                let hash = digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate);
                first.hash.as_bytes() == hash.as_ref()
            }
            (None, None) => false,
        };
        if !names_it {
            return Err(TimestampError::OtherCertificate);
        }
        let (message, signature) = (attributes.to_der()?, self.signer.signature.as_bytes());
        let mut failed = webpki::Error::InvalidSignatureForPublicKey;
        for algorithm in self.algorithms() {
            match end_entity.verify_signature(*algorithm, &message, signature) {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(TimestampError::Signature(failed))
    }

    /// What may verify the signature; the key of the certificate decides among them.
    fn algorithms(&self) -> Algorithms {
        let (signature, hash) = (self.signer.signature_algorithm.oid, self.signer.digest_alg.oid);
        match signature {
            RSA_SHA_256 => RSA_256,
            RSA_SHA_384 => RSA_384,
            RSA_SHA_512 => RSA_512,
            RSA if hash == SHA_256 => RSA_256,
            RSA if hash == SHA_384 => RSA_384,
            RSA if hash == SHA_512 => RSA_512,
            ECDSA_SHA_256 => ECDSA_256,
            ECDSA_SHA_384 => ECDSA_384,
            ECDSA_SHA_512 => ECDSA_512,
            ED25519 => EDWARDS,
            _ => &[],
        }
    }

    fn check_path(
        &self,
        end_entity: &EndEntityCert<'_>,
        anchors: &[CertificateDer<'_>],
        time: UnixNanos,
    ) -> Result<(), TimestampError> {
        let anchors: Vec<TrustAnchor<'_>> = anchors
            .iter()
            .map(anchor_from_trusted_cert)
            .collect::<Result<_, _>>()
            .map_err(TimestampError::Path)?;
        let sent = self.certificates.iter().map(|one| Ok(CertificateDer::from(one.to_der()?)));
        let sent = sent.collect::<Result<Vec<_>, der::Error>>()?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(time.as_seconds()));
        let usage = KeyUsage::required(TIME_STAMPING);
        end_entity
            .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &sent, at, usage, None, None)
            .map(|_| ())
            .map_err(TimestampError::Path)
    }
}

type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];
const RSA_256: Algorithms = &[algorithm::RSA_PKCS1_2048_8192_SHA256];
const RSA_384: Algorithms = &[algorithm::RSA_PKCS1_2048_8192_SHA384];
const RSA_512: Algorithms = &[algorithm::RSA_PKCS1_2048_8192_SHA512];
const EDWARDS: Algorithms = &[algorithm::ED25519];
const ECDSA_256: Algorithms =
    &[algorithm::ECDSA_P256_SHA256, algorithm::ECDSA_P384_SHA256, algorithm::ECDSA_P521_SHA256];
const ECDSA_384: Algorithms =
    &[algorithm::ECDSA_P256_SHA384, algorithm::ECDSA_P384_SHA384, algorithm::ECDSA_P521_SHA384];
const ECDSA_512: Algorithms =
    &[algorithm::ECDSA_P256_SHA512, algorithm::ECDSA_P384_SHA512, algorithm::ECDSA_P521_SHA512];

fn granted(reply: TimeStampResp) -> Result<ContentInfo, TimestampError> {
    let status = reply.status.status;
    match reply.token {
        // Granted, or granted with modifications.
        Some(token) if status <= 1 => Ok(token),
        _ => {
            let text = reply.status.text.unwrap_or_default().join("; ");
            let text: String = text.chars().take(200).flat_map(char::escape_debug).collect();
            let text = if text.is_empty() { text } else { format!(": {text}") };
            Err(TimestampError::Refused { status, text })
        }
    }
}

fn hash(oid: ObjectIdentifier, bytes: &[u8]) -> Result<digest::Digest, TimestampError> {
    let algorithm = match oid {
        SHA_256 => &SHA256,
        SHA_384 => &SHA384,
        SHA_512 => &SHA512,
        other => return Err(TimestampError::Hash(other)),
    };
    Ok(digest::digest(algorithm, bytes))
}

/// `YYYYMMDDhhmmss[.f…]Z`, after 1970.
fn generalized_time(value: &der::Any) -> Option<UnixNanos> {
    if value.tag() != Tag::GeneralizedTime {
        return None;
    }
    let text = std::str::from_utf8(value.value()).ok()?.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = whole.len() == 14
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
        && fraction.len() <= 9
        && (fraction.is_empty() != text.contains('.'));
    if !is_plain {
        return None;
    }
    let number = |range: std::ops::Range<usize>| whole.get(range)?.parse::<u16>().ok();
    let small = |range| u8::try_from(number(range)?).ok();
    let month = Month::try_from(small(4..6)?).ok()?;
    let date = Date::from_calendar_date(number(0..4)?.into(), month, small(6..8)?).ok()?;
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    let time = Time::from_hms_nano(small(8..10)?, small(10..12)?, small(12..14)?, nanos).ok()?;
    let nanos = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp_nanos();
    u64::try_from(nanos).ok().map(UnixNanos::new)
}

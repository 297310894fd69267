//! A device's statement about a batch of its messages (level A1).
//!
//! The bytes are those of `devices/signer/BATCH.md`, in their one encoding. What it is over is
//! [`crate::evidence::chain`]'s to say. The invariant: a [`Cover`] that was bound says the same as the
//! connection does.

use bytes::Bytes;

use super::cbor::Reader;
use super::{
    CTI_BYTES, DEVICE_SIGNATURE_BYTES, R, STATEMENT_BYTES_MAX, TAG_SIGN1, VerifyJob, expect_label,
    expect_pairs, read_algorithm, read_number, read_x5t, sig_structure,
};
use crate::evidence::chain::Batch;
use crate::identity::{DeviceKey, KeyKind};

/// `typ` of a statement about a batch.
pub const COVER_TYPE: &str = "application/avow-cover+cose";

/// A statement about a batch, read and not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    protected: Bytes,
    signature: [u8; DEVICE_SIGNATURE_BYTES],
    head: [u8; 32],
    kind: KeyKind,
    x5t: [u8; 32],
    issuer: Bytes,
    audience: Bytes,
    issued_at: u64,
    cti: Bytes,
    batch: Batch,
}

impl Cover {
    /// Reads a COSE_Sign1 object.
    ///
    /// # Errors
    /// [`R::Malformed`], [`R::TooLong`], [`R::Label`], [`R::Type`], [`R::Algorithm`].
    pub fn parse(object: &Bytes) -> Result<Self, R> {
        if object.len() > STATEMENT_BYTES_MAX {
            return Err(R::TooLong);
        }
        let mut r = Reader::new(object);
        let begins = r.tag() == Some(TAG_SIGN1) && r.array() == Some(4);
        let protected = r.bytes().filter(|_| begins).ok_or(R::Malformed)?;
        expect_pairs(&mut r, 0)?;
        let head = r.array_of().ok_or(R::Malformed)?;
        let signature = r.array_of().filter(|_| r.is_at_end()).ok_or(R::Malformed)?;
        let mut r = Reader::new(&protected);
        expect_pairs(&mut r, 4)?;
        let kind = read_algorithm(&mut r)?;
        expect_label(&mut r, 15)?;
        expect_pairs(&mut r, 7)?;
        let mut text = |label| {
            expect_label(&mut r, label)?;
            r.text().ok_or(R::Malformed)
        };
        let (issuer, audience) = (text(1)?, text(3)?);
        let issued_at = read_number(&mut r, 6)?;
        expect_label(&mut r, 7)?;
        let cti = r.bytes().filter(|cti| CTI_BYTES.contains(&cti.len())).ok_or(R::Malformed)?;
        let batch = Batch {
            epoch: read_number(&mut r, -65_537)?,
            first: read_number(&mut r, -65_540)?,
            last: read_number(&mut r, -65_541)?,
        };
        expect_label(&mut r, 16)?;
        if r.text().ok_or(R::Malformed)? != COVER_TYPE {
            return Err(R::Type);
        }
        let x5t = read_x5t(&mut r)?;
        if !r.is_at_end() {
            return Err(R::Malformed);
        }
        Ok(Self { protected, signature, head, kind, x5t, issuer, audience, issued_at, cti, batch })
    }

    /// Holds the statement against the connection that it came on. What is left to see are the
    /// signature and the chain.
    ///
    /// # Errors
    /// The first that differs.
    pub fn bind(
        &self,
        identity: &str,
        certificate: Option<(&[u8; 32], &DeviceKey)>,
        audience: &str,
    ) -> Result<(), R> {
        let Some((x5t, key)) = certificate else { return Err(R::Certificate) };
        if self.x5t != *x5t {
            return Err(R::Certificate);
        }
        if self.kind != key.kind() {
            return Err(R::Algorithm);
        }
        if self.issuer != identity {
            return Err(R::Issuer);
        }
        if self.audience != audience {
            return Err(R::Audience);
        }
        Ok(())
    }

    /// The work of checking the signature under `key`. `ticket` comes back with the verdict.
    pub fn verify_job(&self, ticket: u64, key: &DeviceKey) -> VerifyJob {
        let message = sig_structure(&self.protected, &self.head);
        VerifyJob { ticket, key: key.clone(), message, signature: self.signature }
    }

    /// Which messages it is over.
    pub fn batch(&self) -> Batch {
        self.batch
    }

    /// The head of their chain.
    pub fn head(&self) -> &[u8; 32] {
        &self.head
    }

    /// The protected header, as it was signed.
    pub fn protected(&self) -> &[u8] {
        &self.protected
    }

    /// The signature; see [`super::Statement::signature`].
    pub fn signature(&self) -> &[u8; DEVICE_SIGNATURE_BYTES] {
        &self.signature
    }

    /// When the device says that it signed, in seconds since 1970.
    pub fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// The nonce.
    pub fn cti(&self) -> &[u8] {
        &self.cti
    }
}

#[cfg(test)]
mod tests;

//! A PUBLISH on `$cover`: a device's signature over messages that it sent before.
//!
//! ```text
//!  Received ─► examine ─► UnverifiedCover + VerifyJob ═ any thread ═ Verified ─► confirm ─► CoverSigned
//! ```
//!
//! The invariant: a [`CoverSigned`] says what its connection does, and the key of its certificate has
//! signed it. Whether it is over what that device sent, its chain says.

use super::attested::Surroundings;
use super::statement::{Cover, Verified, VerifyJob};
use crate::mqtt::QoS;
use crate::refusal::StatementRefusal as R;
use crate::session::Received;

/// A cover whose signature is being checked.
#[derive(Clone, Debug)]
pub struct UnverifiedCover {
    received: Received,
    cover: Cover,
    ticket: u64,
}

/// A cover that its device has signed. Made only by [`UnverifiedCover::confirm`].
#[derive(Clone, Debug)]
pub struct CoverSigned {
    received: Received,
    cover: Cover,
}

/// What an examination came to: a cover to be believed, and the work that says whether.
pub type Examination = (Box<UnverifiedCover>, VerifyJob);

/// A PUBLISH on `$cover` that is refused, and why.
pub type RefusedCover = (Received, R);

impl UnverifiedCover {
    /// Reads a cover, and holds it against its connection.
    ///
    /// # Errors
    /// The message, and why it is refused.
    pub fn examine(
        received: Received,
        around: &Surroundings<'_>,
    ) -> Result<Examination, Box<RefusedCover>> {
        let publish = received.publish();
        // It is for us: nobody gets it later, and QoS 2 would say no more than QoS 1.
        if publish.retain || publish.qos == QoS::ExactlyOnce {
            return Err(Box::new((received, R::Manner)));
        }
        let bound = Cover::parse(&publish.payload).and_then(|cover| {
            let identity = received.author().identity().uri();
            cover.bind(identity, around.certificate, around.audience)?;
            let (_, key) = around.certificate.ok_or(R::Certificate)?;
            Ok((cover.verify_job(around.ticket, key), cover))
        });
        match bound {
            Ok((job, cover)) => {
                Ok((Box::new(Self { received, cover, ticket: around.ticket }), job))
            }
            Err(refusal) => Err(Box::new((received, refusal))),
        }
    }

    /// Takes the verdict.
    ///
    /// # Errors
    /// The message, and why it is refused.
    ///
    /// # Panics
    /// If the verdict is on another job: to go on would believe a signature that nobody checked. A
    /// Fault: the process must stop.
    pub fn confirm(self, verified: &Verified) -> Result<CoverSigned, Box<RefusedCover>> {
        assert_eq!(self.ticket, verified.ticket(), "a verdict came for another signature");
        let Self { received, cover, .. } = self;
        match verified.is_good() {
            true => Ok(CoverSigned { received, cover }),
            false => Err(Box::new((received, R::Signature))),
        }
    }
}

impl CoverSigned {
    /// What was signed.
    pub fn cover(&self) -> &Cover {
        &self.cover
    }

    /// The PUBLISH that it came in.
    pub fn received(&self) -> &Received {
        &self.received
    }

    /// Gives both back, for an entry about a refusal.
    pub fn into_parts(self) -> (Received, Cover) {
        (self.received, self.cover)
    }
}

//! The fifth proof value of the line: a message whose evidence is what its rule asks for.
//!
//! ```text
//!  Conforming ─► examine ─► no statement, none asked for ──────────────────────────► Attested, A0
//!                        ├► a link ─► not in its chain ─────────────────────────────► Attested, A0, to be covered
//!                        └► Unverified + VerifyJob ═ any thread ═ Verified ─► attest ─► Attested, A2
//! ```
//!
//! The statement is read and held against connection and PUBLISH at once; the signature alone is
//! work for others. The window is asked last, by a message whose signature is good, so that nobody
//! else can move it. The invariant: a message with a statement is attested only by the verdict on
//! its own job, and only if its window had not seen it.

use super::chain::{ChainBounds, Chains, Link, Linking, link_digest};
use super::statement::{Binding, STATEMENT_PROPERTY, Statement, Verified, VerifyJob};
use super::window::{Sequence, Sighting, Windows};
use super::{SALT_BYTES, commitment};
use crate::identity::DeviceKey;
use crate::mqtt::Publish;
use crate::policy::{ClockRule, EvidenceRule};
use crate::refusal::{Refused, StatementRefusal};
use crate::schema::Conforming;
use crate::session::Received;
use crate::time::UnixNanos;

/// A message that is to be recorded. Made only by this file.
#[derive(Clone, Debug)]
pub struct Attested {
    conforming: Conforming,
    origin: Option<Box<Origin>>,
    link: Option<Box<LinkOrigin>>,
}

/// Where a message stands in a batch that its device will sign for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOrigin {
    link: Link,
    c: [u8; 32],
    digest: [u8; 32],
    missing: u64,
}

/// What a device's own statement says of a message, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    statement: Statement,
    /// Whether its clock is further from ours than is usual.
    clock: bool,
    /// Whether a higher sequence number came before it.
    late: bool,
    /// Sequence numbers left out before it.
    missing: u64,
}

/// A message whose statement says what it must, and whose signature is being checked.
#[derive(Clone, Debug)]
pub struct Unverified {
    conforming: Conforming,
    statement: Statement,
    ticket: u64,
    clock: bool,
}

/// What an examination came to.
#[derive(Debug)]
pub enum Examined {
    /// There is nothing to be checked.
    Attested(Attested),
    /// This is to be checked; [`Unverified::attest`] takes the verdict.
    Unverified(Box<Unverified>, VerifyJob),
    /// It was linked before: a resend, to be answered as the first was, and to go nowhere.
    Relinked(Conforming, Sequence),
}

/// What a verdict came to.
#[derive(Debug)]
pub enum Resolved {
    /// It goes on.
    Attested(Attested),
    /// It is a resend of one that went on: to be answered as that was, and to go nowhere.
    Resent {
        /// The message.
        conforming: Conforming,
        /// Which it is.
        sequence: Sequence,
        /// Index of the entry of the first, if that is on disk.
        first: Option<u64>,
    },
}

/// A message that is refused for its evidence.
#[derive(Debug)]
pub struct Unattested {
    /// The message.
    pub conforming: Conforming,
    /// Why.
    pub refused: Refused,
    /// What its device signed, if the signature is good: a conflict is evidence too.
    pub origin: Option<Box<Origin>>,
}

/// What an examination looks at beside the message.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// SHA-256 and key of the certificate of the connection, if it has one.
    pub certificate: Option<(&'a [u8; 32], &'a DeviceKey)>,
    /// The origin of our log.
    pub audience: &'a str,
    /// What time it is.
    pub now: UnixNanos,
    /// How far `iat` may be from that, in seconds.
    pub clock_seconds: u32,
    /// Names the job, if there is one; must not be used twice.
    pub ticket: u64,
}

impl Attested {
    /// A message without a statement.
    ///
    /// # Errors
    /// If its rule asks for one.
    pub fn asserted(conforming: Conforming) -> Result<Self, Box<Unattested>> {
        match conforming.admitted().authorized().evidence_rule() {
            EvidenceRule::Asserted => Ok(Self { conforming, origin: None, link: None }),
            EvidenceRule::Batched | EvidenceRule::Signed => {
                Err(refuse(conforming, StatementRefusal::Missing, None))
            }
        }
    }

    /// Reads the statement of a message, if it has one or its rule asks for one.
    ///
    /// # Errors
    /// The message, and why it is refused.
    pub fn examine(
        conforming: Conforming,
        around: &Surroundings<'_>,
        (chains, bounds): (&Chains, ChainBounds),
    ) -> Result<Examined, Box<Unattested>> {
        let authorized = conforming.admitted().authorized();
        let received = authorized.received();
        let statement = match find(received) {
            Ok(Some(statement)) => statement,
            Ok(None) => return Self::link(conforming, around, (chains, bounds)),
            Err(refusal) => return Err(refuse(conforming, refusal, None)),
        };
        if let Err(refusal) = statement.bind(&binding(received, around)) {
            return Err(refuse(conforming, refusal, None));
        }
        let apart = around.now.as_seconds().abs_diff(statement.issued_at());
        let clock = apart > u64::from(around.clock_seconds);
        match authorized.clock_rule() {
            ClockRule::Refuse if clock => {
                return Err(refuse(conforming, StatementRefusal::Clock, None));
            }
            ClockRule::Refuse | ClockRule::Flag => {}
        }
        // It was bound to a certificate, so there is one.
        let Some((_, key)) = around.certificate else {
            return Err(refuse(conforming, StatementRefusal::Certificate, None));
        };
        let ticket = around.ticket;
        let job = statement.verify_job(ticket, key);
        let unverified = Unverified { conforming, statement, ticket, clock };
        Ok(Examined::Unverified(Box::new(unverified), job))
    }

    /// A message that its device will sign for, or one that it will not.
    fn link(
        conforming: Conforming,
        around: &Surroundings<'_>,
        (chains, bounds): (&Chains, ChainBounds),
    ) -> Result<Examined, Box<Unattested>> {
        let authorized = conforming.admitted().authorized();
        let received = authorized.received();
        let publish = received.publish();
        let link = match Link::find(publish) {
            Ok(Some(link)) => link,
            Ok(None) => return Self::asserted(conforming).map(Examined::Attested),
            Err(refusal) => return Err(refuse(conforming, refusal, None)),
        };
        let identity = received.author().identity();
        match authorized.evidence_rule() {
            EvidenceRule::Asserted => {}
            EvidenceRule::Batched if chains.is_overdue(identity, around.now, bounds) => {
                return Err(refuse(conforming, StatementRefusal::Uncovered, None));
            }
            EvidenceRule::Batched => {}
            EvidenceRule::Signed => return Self::asserted(conforming).map(Examined::Attested),
        }
        let c = commitment(&link.salt, &publish.payload);
        let manner = (publish.qos, publish.retain);
        let digest = link_digest(link.sequence.seq, manner, received.topic(), &c);
        match chains.judge(identity, link.sequence, &digest, bounds) {
            Ok(Linking::New { missing }) => {
                let link = Some(Box::new(LinkOrigin::new(link, c, digest, missing)));
                Ok(Examined::Attested(Self { conforming, origin: None, link }))
            }
            Ok(Linking::Resend) => Ok(Examined::Relinked(conforming, link.sequence)),
            Err(refusal) => Err(refuse(conforming, refusal, None)),
        }
    }

    /// The message, with everything that was decided before.
    pub fn conforming(&self) -> &Conforming {
        &self.conforming
    }

    /// Where it stands in a batch; none if its device will not sign for it, or has.
    pub fn linked(&self) -> Option<&LinkOrigin> {
        self.link.as_deref()
    }

    /// What its device signed; none if it rests on the broker's word.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// Field `lvl` of its entry.
    pub fn level(&self) -> &'static str {
        match self.origin {
            None => "A0",
            Some(_) => "A2",
        }
    }
}

impl LinkOrigin {
    /// A message that its chain has not seen.
    pub fn new(link: Link, c: [u8; 32], digest: [u8; 32], missing: u64) -> Self {
        Self { link, c, digest, missing }
    }

    /// Which message of its device it is.
    pub fn sequence(&self) -> Sequence {
        self.link.sequence
    }

    /// Salt of its commitment.
    pub fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.link.salt
    }

    /// Its commitment.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.c
    }

    /// What it adds to the chain.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Numbers left out right before it.
    pub fn missing(&self) -> u64 {
        self.missing
    }
}

impl Origin {
    /// What was signed.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Which message of its device it is.
    pub fn sequence(&self) -> Sequence {
        Sequence { epoch: self.statement.epoch(), seq: self.statement.seq() }
    }

    /// Sequence numbers left out right before it.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Names of what stands out, for the entry.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let flags = [("clock", self.clock), ("gap", self.missing > 0), ("late", self.late)];
        flags.into_iter().filter_map(|(name, is_set)| is_set.then_some(name))
    }
}

impl Unverified {
    /// The message.
    pub fn received(&self) -> &Received {
        self.conforming.admitted().authorized().received()
    }

    /// Gives the message back, for an entry about a refusal.
    pub fn into_conforming(self) -> Conforming {
        self.conforming
    }

    /// Takes the verdict, and enters the message into the window of its device.
    ///
    /// # Errors
    /// The message, and why it is refused.
    ///
    /// # Panics
    /// If the verdict is on another job: to go on would believe a signature that nobody checked. A
    /// Fault: the process must stop.
    pub fn attest(
        self,
        verified: &Verified,
        windows: &mut Windows,
        signers_max: u32,
    ) -> Result<Resolved, Box<Unattested>> {
        assert_eq!(self.ticket, verified.ticket(), "a verdict came for another signature");
        let Self { conforming, statement, clock, .. } = self;
        if !verified.is_good() {
            return Err(refuse(conforming, StatementRefusal::Signature, None));
        }
        let sequence = Sequence { epoch: statement.epoch(), seq: statement.seq() };
        let c = *statement.commitment();
        let mut origin = Box::new(Origin { statement, clock, late: false, missing: 0 });
        let identity = conforming.admitted().authorized().received().author().identity().clone();
        match windows.judge(&identity, sequence, &c, signers_max) {
            Ok(Sighting::Fresh { missing, late }) => {
                (origin.missing, origin.late) = (missing, late);
                windows.enter(&identity, sequence, c, None);
                Ok(Resolved::Attested(Attested { conforming, origin: Some(origin), link: None }))
            }
            Ok(Sighting::Resend { first }) => Ok(Resolved::Resent { conforming, sequence, first }),
            Err(refusal) => Err(refuse(conforming, refusal, Some(origin))),
        }
    }
}

fn refuse(
    conforming: Conforming,
    refusal: StatementRefusal,
    origin: Option<Box<Origin>>,
) -> Box<Unattested> {
    Box::new(Unattested { conforming, refused: refusal.into(), origin })
}

/// The statement that a message came with: in its property, or around its payload.
fn find(received: &Received) -> Result<Option<Statement>, StatementRefusal> {
    if let Some(object) = received.embedding() {
        return Statement::parse_embedding(object).map(|(statement, _)| Some(statement));
    }
    find_property(received.publish())
        .map_or(Ok(None), |value| Statement::parse_property(value?).map(Some))
}

/// The value of the one user property that carries a statement.
fn find_property(publish: &Publish) -> Option<Result<&str, StatementRefusal>> {
    let properties = publish.properties.user_properties.iter();
    let mut found = properties.filter(|property| property.name == STATEMENT_PROPERTY);
    let first = found.next()?;
    Some(if found.next().is_some() { Err(StatementRefusal::Repeated) } else { Ok(&first.value) })
}

fn binding<'a>(received: &'a Received, around: &Surroundings<'a>) -> Binding<'a> {
    let publish = received.publish();
    Binding {
        identity: received.author().identity().uri(),
        certificate: around.certificate,
        audience: around.audience,
        topic: received.topic().as_str(),
        qos: publish.qos,
        retain: publish.retain,
        payload: &publish.payload,
    }
}

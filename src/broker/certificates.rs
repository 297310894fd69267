//! `cert` entries: which certificates named the clients, what vouched for them, and how far that was
//! checked.
//!
//! A certificate is logged once in a run, before the first `connect` entry that rests on it; that
//! and every later one name its index. So the first CONNECT under a certificate waits for one sync
//! more. What was logged is remembered for this run only: after a start, or once so many others came
//! that it was forgotten, a certificate is logged again, and nothing is wrong with two such entries.
//! The invariant: a `connect` entry names the `cert` entry of its own certificate, which is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Broker;
use super::effect::Effect;
use super::input::{Certified, ConnectionId};
use crate::evidence::{Decision, EntryType, EntryWriter};
use crate::identity::CertificationPath;
use crate::identity::certificate::sha256;
use crate::mqtt::Connect;
use crate::session::Phase;
use crate::time::Now;

/// Certificates that are remembered as logged; beyond it the one logged first is forgotten.
const REMEMBERED_MAX: usize = 16_384;
/// Longest DER of a whole path that an entry holds, in bytes of its text: an entry has at most
/// 65,535. Of a longer path the hashes stand there.
const PATH_TEXT_BYTES_MAX: usize = 60_000;

/// What was asked of whether a certificate was revoked. No list is kept here yet, and an entry says
/// so rather than nothing.
const REVOCATION: &str = "unchecked";

/// The index of a certificate's entry; none while that is on its way to the disk.
type Index = Option<u64>;

/// What was logged in this run.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// By the hash of the certificate.
    logged: BTreeMap<[u8; 32], Index>,
    /// In the order in which they were logged.
    order: VecDeque<[u8; 32]>,
}

impl Certificates {
    fn note(&mut self, x5t: [u8; 32]) {
        if self.order.len() >= REMEMBERED_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.logged.remove(&first);
        }
        self.logged.insert(x5t, None);
        self.order.push_back(x5t);
    }
}

impl Broker {
    /// A CONNECT has come: decided at once, unless the certificate behind it must be logged first.
    pub(super) fn handle_connect(&mut self, now: Now, id: ConnectionId, connect: Box<Connect>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.phase = Phase::Connecting;
        self.connect_certified(now, id, connect);
    }

    /// Decides a CONNECT whose connection has not ended while it waited.
    pub(super) fn connect_certified(&mut self, now: Now, id: ConnectionId, connect: Box<Connect>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.phase != Phase::Connecting {
            return;
        }
        let certified = connection.facts.certificate.as_ref();
        let logged =
            certified.map(|certified| (certified, self.certificates.logged.get(&certified.x5t)));
        match logged {
            Some((_, Some(Some(index)))) => connection.certificate_index = Some(*index),
            Some((_, Some(None))) => {
                return self.ledger.wait(Effect::Connect { connection: id, connect });
            }
            Some((Certified { path: Some(path), .. }, None)) => {
                let path = Arc::clone(path);
                self.log_certificate(now, id, &path);
                return self.ledger.wait(Effect::Connect { connection: id, connect });
            }
            Some((Certified { path: None, .. }, None)) | None => {}
        }
        // Kilobytes that nobody asks for again, and a connection may stay for months.
        if let Some(certified) = &mut Arc::make_mut(&mut connection.facts).certificate {
            certified.path = None;
        }
        self.decide_connect(now, id, connect);
    }

    /// The entry of a certificate is on disk.
    pub(super) fn certificate_logged(&mut self, x5t: &[u8; 32], index: u64) {
        if let Some(known) = self.certificates.logged.get_mut(x5t) {
            *known = Some(index);
        }
    }

    fn log_certificate(&mut self, now: Now, id: ConnectionId, path: &CertificationPath) {
        let Some(known) = self.connections.get(&id) else { return };
        let Some(certified) = known.facts.certificate.clone() else { return };
        let decision = self.decide();
        // A crash before this is on disk forgets the CONNECT too, which waits for it.
        let offset = self.record(now, EntryType::Cert, &decision, |entry| {
            let entry = entry
                .who(&certified.identity)
                .decision(Decision::Allow)
                .text("trust", certified.identity.issuer())
                .hash("x5t", &certified.x5t)
                .plain("revocation", REVOCATION);
            path_fields(entry, path)
        });
        self.certificates.note(certified.x5t);
        self.ledger.wait(Effect::CertificateLogged { x5t: certified.x5t, offset });
    }
}

/// The path: end entity first, anchor apart. As DER where it has room, else by its hashes.
fn path_fields<'a>(entry: EntryWriter<'a>, path: &CertificationPath) -> EntryWriter<'a> {
    let chain = || std::iter::once(path.end_entity()).chain(path.intermediates());
    let encode = |der: &[u8]| URL_SAFE_NO_PAD.encode(der);
    let text_bytes: usize =
        chain().chain([path.anchor()]).map(|der| der.len().div_ceil(3) * 4).sum();
    if text_bytes <= PATH_TEXT_BYTES_MAX {
        return entry.plains("chain", chain().map(encode)).plain("anchor", &encode(path.anchor()));
    }
    entry
        .plains("chain_sha256", chain().map(|der| encode(&sha256(der))))
        .hash("anchor_sha256", &sha256(path.anchor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_logged_first_is_forgotten_past_the_bound() {
        let mut certificates = Certificates::default();
        let x5t = |number: usize| *sha256(&number.to_be_bytes()).first_chunk().unwrap();
        (0..REMEMBERED_MAX).for_each(|number| certificates.note(x5t(number)));
        assert!(certificates.logged.contains_key(&x5t(0)));
        certificates.note(x5t(REMEMBERED_MAX));
        assert!(!certificates.logged.contains_key(&x5t(0)));
        assert!(certificates.logged.contains_key(&x5t(1)));
        assert_eq!(certificates.logged.len(), REMEMBERED_MAX);
    }
}

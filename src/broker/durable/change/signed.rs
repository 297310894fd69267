//! Signed messages in State records: which were seen of each device, and which wait for a signature.
//!
//! Part of [`super`]'s format, and under its invariant.

use super::{Change, Reader, Writer};
use crate::evidence::Sequence;
use crate::evidence::chain::{BATCH_MESSAGES_MAX, Chain, Linked, RESENDS_MAX};
use crate::evidence::window::{Seen, WINDOW_NUMBERS, Window};
use crate::identity::Identity;
use crate::time::UnixNanos;

/// The records of the log about devices that sign.
pub(super) fn write_of_signer(w: &mut Writer<'_>, change: &Change) {
    match change {
        Change::Signed { identity, sequence, c } => write_signed(w, identity, *sequence, c),
        Change::Linked { identity, epoch, linked } => write_linked(w, identity, *epoch, linked),
        Change::Settled { identity, sequence } => write_settled(w, identity, *sequence),
        // All others are of somebody else.
        _ => {}
    }
}

fn write_signed(w: &mut Writer<'_>, identity: &Identity, sequence: Sequence, c: &[u8; 32]) {
    write_identity(w, identity);
    w.number(sequence.epoch);
    w.number(sequence.seq);
    w.hash(c);
}

pub(super) fn read_signed(r: &mut Reader<'_>) -> Option<(Identity, Sequence, [u8; 32])> {
    let identity = read_identity(r)?;
    let sequence = Sequence { epoch: r.number()?, seq: r.number()? };
    Some((identity, sequence, r.hash()?))
}

pub(super) fn write_window(w: &mut Writer<'_>, identity: &Identity, window: &Window) {
    write_identity(w, identity);
    w.number(window.epoch());
    w.number(window.seen().len() as u64);
    for seen in window.seen() {
        w.number(seen.seq);
        w.maybe(seen.index);
        w.hash(&seen.c);
    }
}

pub(super) fn read_window(r: &mut Reader<'_>) -> Option<(Identity, Window)> {
    let identity = read_identity(r)?;
    let epoch = r.number()?;
    let count = r.number().filter(|count| *count <= WINDOW_NUMBERS)?;
    let mut all = Vec::new();
    for _ in 0..count {
        let (seq, index) = (r.number()?, r.maybe()?);
        all.push(Seen { seq, c: r.hash()?, index });
    }
    Some((identity, Window::restored(epoch, all)?))
}

fn write_linked(w: &mut Writer<'_>, identity: &Identity, epoch: u64, linked: &Linked) {
    write_identity(w, identity);
    w.number(epoch);
    write_one(w, linked);
}

pub(super) fn read_linked(r: &mut Reader<'_>) -> Option<(Identity, u64, Linked)> {
    Some((read_identity(r)?, r.number()?, read_one(r)?))
}

fn write_settled(w: &mut Writer<'_>, identity: &Identity, sequence: Sequence) {
    write_identity(w, identity);
    w.number(sequence.epoch);
    w.number(sequence.seq);
}

pub(super) fn read_settled(r: &mut Reader<'_>) -> Option<(Identity, Sequence)> {
    Some((read_identity(r)?, Sequence { epoch: r.number()?, seq: r.number()? }))
}

pub(super) fn write_chain(w: &mut Writer<'_>, identity: &Identity, chain: &Chain) {
    write_settled(w, identity, chain.settled());
    w.number(chain.links().len() as u64);
    chain.links().for_each(|linked| write_one(w, linked));
}

pub(super) fn read_chain(r: &mut Reader<'_>) -> Option<(Identity, Chain)> {
    let (identity, settled) = read_settled(r)?;
    const LINKS_MAX: u64 = (BATCH_MESSAGES_MAX + RESENDS_MAX) as u64;
    let count = r.number().filter(|count| *count <= LINKS_MAX)?;
    let mut links = Vec::new();
    for _ in 0..count {
        links.push(read_one(r)?);
    }
    Some((identity, Chain::restored(settled.epoch, settled.seq, links)?))
}

fn write_one(w: &mut Writer<'_>, linked: &Linked) {
    w.number(linked.seq);
    w.number(linked.at.as_nanos());
    w.hash(&linked.digest);
}

fn read_one(r: &mut Reader<'_>) -> Option<Linked> {
    let (seq, at) = (r.number()?, UnixNanos::new(r.number()?));
    Some(Linked { seq, at, digest: r.hash()? })
}

fn write_identity(w: &mut Writer<'_>, identity: &Identity) {
    w.text(identity.uri());
    w.text(identity.issuer());
}

fn read_identity(r: &mut Reader<'_>) -> Option<Identity> {
    Identity::parse(r.text()?, r.text()?).ok()
}

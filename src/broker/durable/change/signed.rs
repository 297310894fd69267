//! Signed messages in State records: which were seen of each device.
//!
//! Part of [`super`]'s format, and under its invariant.

use super::{Reader, Writer};
use crate::evidence::Sequence;
use crate::evidence::window::{Seen, WINDOW_NUMBERS, Window};
use crate::identity::Identity;

pub(super) fn write_signed(
    w: &mut Writer<'_>,
    identity: &Identity,
    sequence: Sequence,
    c: &[u8; 32],
) {
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

fn write_identity(w: &mut Writer<'_>, identity: &Identity) {
    w.text(identity.uri());
    w.text(identity.issuer());
}

fn read_identity(r: &mut Reader<'_>) -> Option<Identity> {
    Identity::parse(r.text()?, r.text()?).ok()
}

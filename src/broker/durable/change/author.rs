//! Authors in State records: who, under which Client Identifier, and what a token grants besides.
//!
//! Part of [`super`]'s format, and under its invariant.

use std::sync::Arc;

use super::{Reader, Writer};
use crate::identity::{Grants, Identity};
use crate::mqtt::{ClientId, ProtocolVersion};
use crate::session::Author;

/// In the byte of the version: roles and variables of a token follow.
const GRANTS: u8 = 0x80;

/// Who a session is of, with what a token grants it; a certificate grants nothing more.
pub(super) fn write_author(w: &mut Writer<'_>, author: &Author) {
    w.text(author.identity().uri());
    w.text(author.identity().issuer());
    w.text(author.client_id().as_str());
    let version = match author.version() {
        ProtocolVersion::V3_1 => 3,
        ProtocolVersion::V3_1_1 => 4,
        ProtocolVersion::V5 => 5,
    };
    let has_grants = author.grants() != Grants::NONE;
    w.byte(version | if has_grants { GRANTS } else { 0 });
    if has_grants {
        write_grants(w, author.grants());
    }
}

pub(super) fn write_grants(w: &mut Writer<'_>, grants: &Grants) {
    w.number(grants.roles().count() as u64);
    grants.roles().for_each(|role| w.text(role));
    w.number(grants.variables().count() as u64);
    for (name, value) in grants.variables() {
        w.text(name);
        w.text(value);
    }
}

pub(super) fn read_grants(r: &mut Reader<'_>) -> Option<Arc<Grants>> {
    // Every one takes a byte at least, and what are too many the room refuses.
    let mut roles = Vec::new();
    for _ in 0..r.number()? {
        roles.push(r.text()?);
    }
    let mut variables = Vec::new();
    for _ in 0..r.number()? {
        variables.push((r.text()?, r.text()?));
    }
    Grants::new(roles, variables).ok().map(Arc::new)
}

pub(super) fn read_author(r: &mut Reader<'_>) -> Option<Author> {
    let identity = Identity::parse(r.text()?, r.text()?).ok()?;
    let client_id = ClientId::new(r.text()?);
    let flags = r.byte()?;
    let version = match flags & !GRANTS {
        3 => ProtocolVersion::V3_1,
        4 => ProtocolVersion::V3_1_1,
        5 => ProtocolVersion::V5,
        _ => return None,
    };
    let grants = if flags & GRANTS > 0 { Some(read_grants(r)?) } else { None };
    Some(Author::new(identity, client_id, version).with_grants(grants))
}

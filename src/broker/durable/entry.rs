//! What replay needs of a log entry. Most entries change no session: they are told by their type and
//! not read any further.

use std::borrow::Cow;

use serde::Deserialize;

use super::change::BadRecord;
use crate::evidence::{ENTRY_VERSION, EntryType};

/// The fields of an entry that say what a message was. The others are for people.
#[derive(Debug, Deserialize)]
pub(super) struct Fields<'a> {
    /// When it happened, in nanoseconds since 1970.
    pub(super) t: u64,
    /// Index of the `connect` entry.
    #[serde(default)]
    pub(super) conn: Option<u64>,
    /// Running number within the connection; a Will has none.
    #[serde(default)]
    pub(super) n: Option<u64>,
    /// `role/name` of its author.
    #[serde(borrow, default)]
    pub(super) who: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) topic: Cow<'a, str>,
    #[serde(default)]
    pub(super) qos: u8,
    #[serde(default)]
    pub(super) retain: bool,
    #[serde(default)]
    pub(super) pid: Option<u16>,
    /// Length of the payload, which may be erased by now.
    #[serde(default)]
    pub(super) len: u64,
    /// The number that its payload states, if its schema asked for one.
    #[serde(default)]
    pub(super) pseq: Option<u64>,
    /// Where a message goes that did not conform.
    #[serde(borrow, default)]
    pub(super) quarantine: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) why: Option<Cow<'a, str>>,
}

/// The type of an entry, if it may matter to sessions.
pub(super) fn entry_type(head: &[u8]) -> Option<EntryType> {
    const BEGIN: &[u8] = br#"{"v":1,"type":""#;
    const { assert!(ENTRY_VERSION == 1, "another version, another beginning") };
    let rest = head.strip_prefix(BEGIN)?;
    let length = rest.iter().position(|byte| *byte == b'"')?;
    let name = rest.get(..length)?;
    let matters = [
        EntryType::Start,
        EntryType::Publish,
        EntryType::PublishRefused,
        EntryType::Will,
        EntryType::RetainClear,
    ];
    matters.into_iter().find(|kind| kind.as_str().as_bytes() == name)
}

impl<'a> Fields<'a> {
    pub(super) fn read(head: &'a [u8]) -> Result<Self, BadRecord> {
        serde_json::from_slice(head).map_err(|_| BadRecord)
    }
}

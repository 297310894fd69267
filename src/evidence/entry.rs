//! One log entry: a JSON object with short names in a fixed order, written by hand so that the
//! stored bytes are the hashed bytes and no canonical form is needed.
//!
//! Field names and their order are part of the log's format (version 1): a change of either needs
//! a new `v`.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::SALT_BYTES;
use crate::identity::Identity;
use crate::time::UnixNanos;

/// Version of the entry format, field `v`.
pub const ENTRY_VERSION: u64 = 1;

/// What an entry is about, field `type`. A closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryType {
    /// The broker began to serve.
    Start,
    /// The broker ended in order.
    Stop,
    /// A CONNECT was accepted.
    Connect,
    /// A handshake or a CONNECT was refused.
    ConnectRefused,
    /// A session was to be renewed by a new token.
    Reauth,
    /// A session lost its connection.
    Disconnect,
    /// A filter of a SUBSCRIBE was decided.
    Subscribe,
    /// A filter of an UNSUBSCRIBE was carried out.
    Unsubscribe,
    /// A PUBLISH was accepted (or quarantined).
    Publish,
    /// A PUBLISH was refused, or a number of them by a limit.
    PublishRefused,
    /// A QoS 2 PUBLISH was a resend.
    PublishDup,
    /// A Will was published, or refused at publication.
    Will,
    /// A retained message was set.
    RetainSet,
    /// A retained message was cleared.
    RetainClear,
    /// The configuration in force.
    Config,
    /// The policy in force.
    Policy,
    /// The schemas in force.
    Schema,
    /// An operator's act.
    Admin,
    /// A certificate was seen for the first time, or in a new state.
    Cert,
    /// A device signed for earlier messages of its own.
    Cover,
    /// A device's messages have a gap in their sequence.
    Gap,
    /// The log was read.
    Query,
    /// A part of the log left the house.
    Export,
    /// Payloads and salts were erased.
    Erased,
    /// The log's key was replaced.
    KeyRotate,
    /// Something outside vouches for a checkpoint: a time-stamp.
    Anchor,
    /// The wall clock was set.
    TimeStep,
}

impl EntryType {
    /// Every type, as in the enum.
    pub const ALL: [Self; 27] = [
        Self::Start,
        Self::Stop,
        Self::Connect,
        Self::ConnectRefused,
        Self::Reauth,
        Self::Disconnect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::PublishRefused,
        Self::PublishDup,
        Self::Will,
        Self::RetainSet,
        Self::RetainClear,
        Self::Config,
        Self::Policy,
        Self::Schema,
        Self::Admin,
        Self::Cert,
        Self::Cover,
        Self::Gap,
        Self::Query,
        Self::Export,
        Self::Erased,
        Self::KeyRotate,
        Self::Anchor,
        Self::TimeStep,
    ];

    /// The type of the entry that an operator's act leaves: most are [`Self::Admin`], what touches the
    /// evidence itself has a type of its own, so that it can be searched for.
    pub fn of_act(act: &str) -> Self {
        match act {
            "log.read" | "pseudonym.resolve" => Self::Query,
            "log.export" => Self::Export,
            "body.erase" | "pseudonym.erase" => Self::Erased,
            "key.rotate" => Self::KeyRotate,
            "checkpoint.anchor" => Self::Anchor,
            _ => Self::Admin,
        }
    }

    /// The name in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Connect => "connect",
            Self::ConnectRefused => "connect.refused",
            Self::Reauth => "reauth",
            Self::Disconnect => "disconnect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::PublishRefused => "publish.refused",
            Self::PublishDup => "publish.dup",
            Self::Will => "will",
            Self::RetainSet => "retain.set",
            Self::RetainClear => "retain.clear",
            Self::Config => "config",
            Self::Policy => "policy",
            Self::Schema => "schema",
            Self::Admin => "admin",
            Self::Cert => "cert",
            Self::Cover => "cover",
            Self::Gap => "gap",
            Self::Query => "query",
            Self::Export => "export",
            Self::Erased => "erased",
            Self::KeyRotate => "key.rotate",
            Self::Anchor => "anchor",
            Self::TimeStep => "time.step",
        }
    }
}

/// How a request was decided, field `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Carried out.
    Allow,
    /// Refused.
    Deny,
}

impl Decision {
    /// The name in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Writes one entry into a buffer. The object is closed by [`EntryWriter::finish`].
#[must_use]
pub struct EntryWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> EntryWriter<'a> {
    /// Begins an entry with the fields that every entry has: `v type t node id`.
    pub fn begin(
        out: &'a mut Vec<u8>,
        kind: EntryType,
        time: UnixNanos,
        node: &str,
        decision_id: &str,
    ) -> Self {
        out.extend_from_slice(b"{\"v\":");
        push_number(out, ENTRY_VERSION);
        Self { out }
            .plain("type", kind.as_str())
            .number("t", time.as_nanos())
            .text("node", node)
            .plain("id", decision_id)
    }

    /// A string that may hold anything: escaped as JSON wants.
    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        self.name(name);
        // Writing to a Vec cannot fail, and a &str always has a JSON form.
        let _ = serde_json::to_writer(&mut *self.out, value);
        self
    }

    /// A string of our own, known to need no escape.
    pub fn plain(mut self, name: &'static str, value: &str) -> Self {
        debug_assert!(value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\'));
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
        self
    }

    /// A list of strings of our own, known to need no escape.
    pub fn plains(mut self, name: &'static str, values: impl Iterator<Item = String>) -> Self {
        self.name(name);
        self.out.push(b'[');
        for (number, value) in values.enumerate() {
            debug_assert!(value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\'));
            self.out.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        }
        self.out.push(b']');
        self
    }

    /// `role/name` of an identity, field `who`. Its characters need no escape by construction.
    pub fn who(mut self, identity: &Identity) -> Self {
        self.name("who");
        self.out.push(b'"');
        self.out.extend_from_slice(identity.role().as_str().as_bytes());
        self.out.push(b'/');
        self.out.extend_from_slice(identity.name().as_bytes());
        self.out.push(b'"');
        self
    }

    /// A non-negative whole number.
    pub fn number(mut self, name: &'static str, value: u64) -> Self {
        self.name(name);
        push_number(self.out, value);
        self
    }

    /// A truth value; entries leave false ones out, so that absence means false.
    pub fn flag(mut self, name: &'static str, value: bool) -> Self {
        if !value {
            return self;
        }
        self.name(name);
        self.out.extend_from_slice(b"true");
        self
    }

    /// A list of words of our own, known to need no escape; entries leave an empty one out.
    pub fn words(mut self, name: &'static str, words: impl Iterator<Item = &'static str>) -> Self {
        let mut separator = b'[';
        for word in words {
            if separator == b'[' {
                self.name(name);
            }
            self.out.extend_from_slice(&[separator, b'"']);
            self.out.extend_from_slice(word.as_bytes());
            self.out.push(b'"');
            separator = b',';
        }
        if separator == b',' {
            self.out.push(b']');
        }
        self
    }

    /// 32 bytes, base64url without padding.
    pub fn hash(mut self, name: &'static str, value: &[u8; 32]) -> Self {
        let mut text = [0_u8; 43];
        let written = URL_SAFE_NO_PAD.encode_slice(value, &mut text).unwrap_or_default();
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(text.get(..written).unwrap_or_default());
        self.out.push(b'"');
        self
    }

    /// Any bytes, base64url without padding.
    pub fn bytes(self, name: &'static str, value: &[u8]) -> Self {
        self.plain(name, &URL_SAFE_NO_PAD.encode(value))
    }

    /// The decision, field `result`.
    pub fn decision(self, decision: Decision) -> Self {
        self.plain("result", decision.as_str())
    }

    /// Closes the object.
    pub fn finish(self) {
        self.out.push(b'}');
    }

    fn name(&mut self, name: &'static str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

fn push_number(out: &mut Vec<u8>, value: u64) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(value).as_bytes());
}

/// The commitment of a payload: SHA-256(salt ‖ payload). It hides the payload from whoever has
/// the entry alone, and binds it for whoever has salt and payload.
pub fn commitment(salt: &[u8; SALT_BYTES], payload: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(payload);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Names decisions: `<run>-<number>`, the number in base 36. The run differs from start to start,
/// so an id is never given twice.
#[derive(Clone, Debug)]
pub struct DecisionIds {
    run: Box<str>,
    next: u64,
}

impl DecisionIds {
    /// Ids of one run of one shard. `seed` should be random: six characters are made of it.
    pub fn new(seed: u64, shard: u16) -> Self {
        let mut digits = String::new();
        push_base36(&mut digits, seed % 36_u64.pow(6));
        let mut run = format!("{digits:0>6}");
        if shard > 0 {
            run = format!("{run}.{shard}");
        }
        Self { run: run.into(), next: 0 }
    }

    /// The next one.
    pub fn issue(&mut self) -> String {
        let number = self.next;
        self.next += 1;
        let mut id = String::with_capacity(self.run.len() + 1 + BASE36_DIGITS_MAX);
        id.push_str(&self.run);
        id.push('-');
        push_base36(&mut id, number);
        id
    }
}

/// Digits of the largest number in base 36.
const BASE36_DIGITS_MAX: usize = 13;

/// Made for every decision, so without an allocation of its own.
fn push_base36(out: &mut String, mut number: u64) {
    let mut digits = ['0'; BASE36_DIGITS_MAX];
    let mut count = 0;
    for place in &mut digits {
        let digit = u32::try_from(number % 36).unwrap_or_default();
        *place = char::from_digit(digit, 36).unwrap_or('0');
        count += 1;
        number /= 36;
        if number == 0 {
            break;
        }
    }
    out.extend(digits.iter().take(count).rev());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_json_object_in_the_order_written() {
        let mut out = Vec::new();
        let who = Identity::parse("spiffe://p/device/press-7", "p").unwrap();
        EntryWriter::begin(&mut out, EntryType::Publish, UnixNanos::new(7), "plant", "r-1")
            .who(&who)
            .decision(Decision::Allow)
            .text("topic", "a\"b\u{1}")
            .flag("retain", false)
            .flag("dup", true)
            .words("none", [].into_iter())
            .words("flags", ["late", "gap"].into_iter())
            .hash("c", &[0xff; 32])
            .finish();
        let text = String::from_utf8(out).unwrap();
        insta::assert_snapshot!(text, @r#"{"v":1,"type":"publish","t":7,"node":"plant","id":"r-1","who":"device/press-7","result":"allow","topic":"a\"b\u0001","dup":true,"flags":["late","gap"],"c":"__________________________________________8"}"#);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["topic"], "a\"b\u{1}");
    }

    #[test]
    fn decision_ids_differ_within_and_between_runs() {
        let mut one = DecisionIds::new(1, 0);
        let mut two = DecisionIds::new(2, 0);
        let ids = [one.issue(), one.issue(), two.issue(), DecisionIds::new(1, 3).issue()];
        assert_eq!(ids, ["000001-0", "000001-1", "000002-0", "000001.3-0"]);
    }

    #[test]
    fn the_commitment_is_sha256_of_salt_and_payload() {
        // SHA-256 of sixteen zero bytes and "abc", by `printf` and `sha256sum`.
        let hex: String =
            commitment(&[0; 16], b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "277e7ff6d232b9763f4a66e8d05d210da32dac9c6dbce1026ad4cc98acb5fefe");
    }
}

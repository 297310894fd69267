//! What a search knows of an entry: the fields by which one can ask for it.
//!
//! Entries are read by the million, so a flat object as [`crate::evidence::EntryWriter`] writes it is
//! read in one pass over its bytes; what is not of that form (an escape in a field that is looked
//! for, a nested value, a space) goes to the JSON parser. No judgement in here: whether the entry is
//! what was signed is for [`super::verify`]. The invariant: of what an `EntryWriter` wrote, both
//! ways give the same facts.

use std::borrow::Cow;

use memchr::memchr2;

/// The fields of an entry that a query looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Facts<'a> {
    /// The type of the entry.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// When, by the broker's clock, in nanoseconds since 1970.
    pub t: u64,
    /// Whose act it was, `<role>/<name>`.
    #[serde(borrow)]
    pub who: Option<Cow<'a, str>>,
    /// `allow` or `deny`.
    #[serde(borrow)]
    pub result: Option<Cow<'a, str>>,
    /// Why it was refused, or the session ended.
    #[serde(borrow)]
    pub why: Option<Cow<'a, str>>,
    /// The level of evidence.
    #[serde(borrow)]
    pub lvl: Option<Cow<'a, str>>,
    /// The Topic Name.
    #[serde(borrow)]
    pub topic: Option<Cow<'a, str>>,
    /// Whom or what an operator's act was about.
    #[serde(borrow)]
    pub subject: Option<Cow<'a, str>>,
    /// Length of the payload, in bytes.
    pub len: Option<u64>,
    /// How many events the entry counts, where it stands for more than one.
    pub count: Option<u64>,
}

impl<'a> Facts<'a> {
    /// Reads an entry.
    pub fn read(json: &'a [u8]) -> Option<Self> {
        Self::read_flat(json).or_else(|| Self::parse(json))
    }

    /// Reads a flat object; `None` is for [`Self::parse`].
    fn read_flat(json: &'a [u8]) -> Option<Self> {
        let mut facts = Self::default();
        let mut rest = json.strip_prefix(b"{")?;
        loop {
            let (name, value, after) = field(rest)?;
            facts.take(name, value)?;
            rest = match after {
                b"}" => break,
                [b',', more @ ..] => more,
                _ => return None,
            };
        }
        // Both have to be there.
        (facts.t > 0 && !facts.kind.is_empty()).then_some(facts)
    }

    fn take(&mut self, name: &[u8], value: Raw<'a>) -> Option<()> {
        let text = match name {
            b"type" => {
                self.kind = value.text()?;
                return Some(());
            }
            b"t" => {
                self.t = value.number()?;
                return Some(());
            }
            b"len" => {
                self.len = Some(value.number()?);
                return Some(());
            }
            b"count" => {
                self.count = Some(value.number()?);
                return Some(());
            }
            b"who" => &mut self.who,
            b"result" => &mut self.result,
            b"why" => &mut self.why,
            b"lvl" => &mut self.lvl,
            b"topic" => &mut self.topic,
            b"subject" => &mut self.subject,
            _ => return value.is_flat().then_some(()),
        };
        *text = Some(value.text()?);
        Some(())
    }

    /// Reads any entry.
    fn parse(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// A value as it stands in the bytes.
#[derive(Clone, Copy, Debug)]
enum Raw<'a> {
    /// A string without escapes.
    Plain(&'a [u8]),
    /// A string with escapes.
    Escaped,
    /// Anything but a string.
    Bare(&'a [u8]),
}

impl<'a> Raw<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Plain(text) => std::str::from_utf8(text).ok().map(Cow::Borrowed),
            Self::Escaped | Self::Bare(_) => None,
        }
    }

    fn number(self) -> Option<u64> {
        match self {
            Self::Bare(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
            Self::Plain(_) | Self::Escaped => None,
        }
    }

    /// Whether it can hold no field of its own.
    fn is_flat(self) -> bool {
        match self {
            Self::Plain(_) | Self::Escaped => true,
            Self::Bare(value) => value.first().is_some_and(u8::is_ascii_alphanumeric),
        }
    }
}

/// The name and the value of the field that `at` begins with, and what follows.
fn field(at: &[u8]) -> Option<(&[u8], Raw<'_>, &[u8])> {
    let (Raw::Plain(name), after) = string(at.strip_prefix(b"\"")?)? else { return None };
    let value = after.strip_prefix(b":")?;
    if let Some(text) = value.strip_prefix(b"\"") {
        let (text, after) = string(text)?;
        return Some((name, text, after));
    }
    let (bare, after) = value.split_at_checked(memchr2(b',', b'}', value)?)?;
    Some((name, Raw::Bare(bare), after))
}

/// The string that `text` begins with, behind its first quote, and what follows its last.
fn string(text: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let end = memchr2(b'"', b'\\', text)?;
    let (plain, mut rest) = text.split_at_checked(end)?;
    if let Some(after) = rest.strip_prefix(b"\"") {
        return Some((Raw::Plain(plain), after));
    }
    loop {
        // A backslash, and what it escapes.
        rest = rest.get(2..)?;
        rest = rest.get(memchr2(b'"', b'\\', rest)?..)?;
        if let Some(after) = rest.strip_prefix(b"\"") {
            return Some((Raw::Escaped, after));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evidence::{Decision, EntryType, EntryWriter};
    use crate::identity::Identity;
    use crate::time::UnixNanos;

    fn written(node: &str, topic: &str, decision: Decision, is_result_last: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let who = Identity::parse("spiffe://p/device/press-7", "p").unwrap();
        let kind = EntryType::PublishRefused;
        let time = UnixNanos::new(u64::MAX);
        let entry = EntryWriter::begin(&mut out, kind, time, node, "r-1").who(&who);
        let entry = entry.number("conn", 7).flag("dup", true).plain("lvl", "A0");
        let entry = entry.plain("why", "limit.rate").number("len", 12);
        if is_result_last {
            entry.text("topic", topic).decision(decision).finish();
        } else {
            entry.decision(decision).text("topic", topic).finish();
        }
        out
    }

    #[test]
    fn a_written_entry_reads_alike_both_ways() {
        let hostile = [
            "plant/press-7/temp",
            r#","result":"deny"#,
            r#"x","result":"deny","y":""#,
            r#"\","result":"deny"#,
            r#"\\","result":"deny"#,
            "\u{1}\u{7f}\u{e9}\u{1f980},{}",
            "",
        ];
        for topic in hostile {
            for decision in [Decision::Allow, Decision::Deny] {
                for is_result_last in [false, true] {
                    let json = written("plant", topic, decision, is_result_last);
                    let facts = Facts::read(&json).unwrap();
                    assert_eq!(Some(&facts), Facts::parse(&json).as_ref(), "{topic:?}");
                    assert_eq!(facts.result.as_deref(), Some(decision.as_str()));
                    assert_eq!(facts.topic.as_deref(), Some(topic));
                    assert_eq!((facts.t, facts.len, facts.count), (u64::MAX, Some(12), None));
                    assert_eq!(facts.who.as_deref(), Some("device/press-7"));
                    assert_eq!(facts.why.as_deref(), Some("limit.rate"));
                    assert_eq!(facts.lvl.as_deref(), Some("A0"));
                }
            }
        }
        let plain = written("plant", "plant/press-7/temp", Decision::Allow, false);
        assert!(Facts::read_flat(&plain).is_some(), "the common case needs no parser");
    }

    #[test]
    fn what_was_written_otherwise_is_left_to_the_parser() {
        for json in [
            &written("plant", "a\"b", Decision::Allow, false)[..],
            br#"{"type":"x","t":1,"origin":{"why":"nested"}}"#,
            br#"{"type":"x","t":1,"origin":["why"]}"#,
            br#"{"type": "x","t":1}"#,
            br#"{"type":"x","t":1,"wh\u006f":"a"}"#,
        ] {
            assert_eq!(Facts::read_flat(json), None);
            let facts = Facts::read(json).unwrap();
            assert!(facts.why.is_none() || facts.lvl.is_some(), "{facts:?}");
        }
        assert_eq!(Facts::read(br#"{"type":"x","t":1,"wh\u006f":"a"}"#).unwrap().who.unwrap(), "a");
        for json in [
            &b""[..],
            b"{}",
            br#"{"type":"x"}"#,
            br#"{"t":1}"#,
            br#"{"type":"x","t":-1}"#,
            br#"{"type":"x","t":1"#,
            br#"{"type":"x","t":1}}"#,
            br#"{"type":"x","t":1,"a":"\"#,
            br#"{"type":"x","t":1,"who":7}"#,
        ] {
            assert_eq!(Facts::read(json), None, "{}", String::from_utf8_lossy(json));
        }
    }

    proptest! {
        #[test]
        fn no_topic_and_no_node_changes_what_is_read(
            node in ".{0,8}", topic in r#"[\\",:a-z{}\PC]{0,24}"#, is_result_last: bool,
        ) {
            let json = written(&node, &topic, Decision::Allow, is_result_last);
            let parsed = Facts::parse(&json);
            prop_assert!(parsed.is_some());
            prop_assert_eq!(Facts::read(&json), parsed);
        }
    }
}

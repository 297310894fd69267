//! The properties of an Application Message that go on to its subscribers, as bytes to be kept:
//! beside the payload in the log, where the entry's `props` commits to them.
//!
//! ```text
//! nothing                    no such property
//! version 1 | property …     else; each as in a PUBLISH of 5.0 (section 2.2.2.2), no length before
//! ```
//!
//! They stand in the order Payload Format Indicator, Message Expiry Interval (as published),
//! Response Topic, Correlation Data, User Properties (in theirs), Content Type. A Topic Alias and
//! Subscription Identifiers are of one connection and one subscription: never here. The bound is
//! that of the packet they came in. Invariant: reading what was written gives the same properties,
//! and a message without any takes no byte.

use super::{EncodeError, PublishProperties, Violation, decode, encode};

/// The version of this encoding: the first byte.
const VERSION: u8 = 1;

/// The bytes of what is forwarded of `properties`; empty if nothing is.
///
/// # Errors
/// When a value is longer than its length field can say, which no decoded one is.
pub fn encode_forwarded(properties: &PublishProperties) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![VERSION];
    encode::forwarded(properties, &mut bytes)?;
    if bytes.len() == 1 {
        bytes.clear();
    }
    Ok(bytes)
}

/// Reads what [`encode_forwarded`] wrote.
///
/// # Errors
/// When `bytes` are of another version, or no properties that are forwarded.
pub fn decode_forwarded(bytes: &[u8]) -> Result<PublishProperties, Violation> {
    match bytes.split_first() {
        None => Ok(PublishProperties::default()),
        Some((&VERSION, rest)) => decode::forwarded(rest),
        Some(_) => Err(Violation::PROPERTY_UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::UserProperty;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn user(name: &str, value: &str) -> UserProperty {
        UserProperty { name: name.to_owned(), value: value.to_owned() }
    }

    /// The vectors of the format: whoever reads a log can check a reader of their own by them.
    #[test]
    fn vectors() {
        let vectors = [
            (PublishProperties::default(), ""),
            (PublishProperties { payload_is_utf8: Some(false), ..Default::default() }, "010100"),
            (
                PublishProperties { message_expiry_seconds: Some(60), ..Default::default() },
                "01020000003c",
            ),
            (
                PublishProperties {
                    payload_is_utf8: Some(true),
                    message_expiry_seconds: Some(1),
                    response_topic: Some("r/1".into()),
                    correlation_data: Some(Bytes::from_static(&[0, 0xff])),
                    user_properties: vec![user("b", "2"), user("a", ""), user("b", "1")],
                    content_type: Some("text".into()),
                    ..Default::default()
                },
                "01 0101 0200000001 080003722f31 09000200ff 26000162000132 260001610000 \
                 26000162000131 03000474657874",
            ),
        ];
        for (properties, expected) in vectors {
            let expected: String = expected.split_whitespace().collect();
            let bytes = encode_forwarded(&properties).unwrap();
            assert_eq!(hex(&bytes), expected);
            assert_eq!(decode_forwarded(&bytes), Ok(properties));
        }
    }

    #[test]
    fn what_belongs_to_one_connection_is_neither_written_nor_read() {
        let properties = PublishProperties {
            topic_alias: Some(1),
            subscription_identifiers: vec![7],
            ..Default::default()
        };
        assert_eq!(encode_forwarded(&properties), Ok(Vec::new()));
        for bad in [&[1, 0x23, 0, 1][..], &[1, 0x0b, 7], &[1, 0x0b], &[2, 1, 0], &[0]] {
            assert!(decode_forwarded(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_value_is_taken_and_one_byte_more_is_not() {
        let of = |bytes: usize| PublishProperties {
            correlation_data: Some(vec![7; bytes].into()),
            ..Default::default()
        };
        let longest = of(usize::from(u16::MAX));
        let bytes = encode_forwarded(&longest).unwrap();
        assert_eq!(decode_forwarded(&bytes), Ok(longest));
        assert_eq!(encode_forwarded(&of(usize::from(u16::MAX) + 1)), Err(EncodeError::TooLong));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            payload_is_utf8 in any::<Option<bool>>(),
            message_expiry_seconds in any::<Option<u32>>(),
            response_topic in prop::option::of("[a-z/é]{1,12}"),
            correlation_data in prop::option::of(any::<Vec<u8>>()),
            user_properties in prop::collection::vec(("[^\0]{0,9}", "[^\0]{0,9}"), 0..4),
            content_type in prop::option::of("[^\0]{0,12}"),
        ) {
            let properties = PublishProperties {
                payload_is_utf8,
                message_expiry_seconds,
                response_topic,
                correlation_data: correlation_data.map(Bytes::from),
                user_properties: user_properties.iter().map(|(n, v)| user(n, v)).collect(),
                content_type,
                ..Default::default()
            };
            let bytes = encode_forwarded(&properties).unwrap();
            prop_assert_eq!(decode_forwarded(&bytes), Ok(properties));
        }
    }
}

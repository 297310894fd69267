use proptest::prelude::*;

use super::*;
use crate::evidence::window::Seen;
use crate::identity::Identity;
use crate::mqtt::{ClientId, ProtocolVersion, PublishProperties, UserProperty};

fn author(version: ProtocolVersion) -> Author {
    let identity = Identity::parse("spiffe://p/device/press-7", "field-ca").unwrap();
    Author::new(identity, ClientId::new("press-7-a"), version)
}

/// A dashboard that a token grants a role and a variable.
fn granted() -> Author {
    let identity = Identity::parse("spiffe://p/dashboard/wall", "token:issuer").unwrap();
    let author = Author::new(identity, ClientId::new("wall-1"), ProtocolVersion::V5);
    author.with_grants(Some(Arc::new(Grants::new(["viewer"], [("hall", "3")]).unwrap())))
}

#[test]
fn what_a_token_grants_stays_with_its_session() {
    let attached = Attached {
        key: KEY,
        connect_index: None,
        author: granted(),
        clean: false,
        expiry_seconds: 60,
        will: None,
    };
    let grants = Arc::new(Grants::new(["viewer"], [("hall", "3")]).unwrap());
    let none = Arc::new(Grants::default());
    for change in [
        Change::Attached(Box::new(attached)),
        Change::Granted { key: KEY, grants },
        Change::Granted { key: KEY, grants: none },
    ] {
        let mut bytes = Vec::new();
        change.encode(&mut bytes);
        assert_eq!(Change::decode(&bytes, None), Ok(change));
        for cut in 0..bytes.len() {
            assert_eq!(Change::decode(&bytes[..cut], None), Err(BadRecord), "{cut}");
        }
    }
    let grants = Arc::new(Grants::new(["viewer"], [("hall", "3")]).unwrap());
    let renewed = hex(&Change::Granted { key: KEY, grants });
    assert_eq!(renewed, "010eac020106766965776572010468616c6c0133");
}

fn will(delay_seconds: Option<u32>, payload: &[u8], user: Option<(String, String)>) -> Will {
    let user_properties =
        user.into_iter().map(|(name, value)| UserProperty { name, value }).collect();
    let publish = PublishProperties { user_properties, ..Default::default() };
    Will {
        topic: TopicName::parse("plant/press-7/gone").unwrap(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: WillProperties { delay_seconds, publish },
    }
}

fn hex(change: &Change) -> String {
    let mut bytes = Vec::new();
    change.encode(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn copy(index: u64, identifiers: Vec<u32>) -> CopyOf {
    CopyOf { index, qos: QoS::ExactlyOnce, retain: true, identifiers }
}

const KEY: SessionKey = SessionKey(300);

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

/// The vectors of the format: whoever reads a log can check a reader of their own by them.
#[test]
fn vectors() {
    let all = vectors_of_sessions().into_iter().chain(vectors_of_copies());
    for (change, expected) in all.chain(vectors_of_signed()) {
        let expected: String = expected.split_whitespace().collect();
        assert_eq!(hex(&change), expected, "{change:?}");
        assert_eq!(round_trip(&change), Ok(change));
    }
}

fn vectors_of_signed() -> Vec<(Change, &'static str)> {
    let identity = Identity::parse("spiffe://p/device/a", "ca").unwrap();
    let seen = |seq, index| Seen { seq, c: [1; 32], index };
    let window = Window::restored(2, vec![seen(7, Some(300)), seen(9, None)]).unwrap();
    let sequence = Sequence { epoch: 2, seq: 300 };
    let linked = Linked { seq: 7, digest: [2; 32], at: UnixNanos::new(1_000) };
    let chain = Chain::restored(2, 3, vec![linked]).unwrap();
    vec![
        (
            Change::Linked { identity: identity.clone(), epoch: 2, linked },
            "0119 13 7370696666653a2f2f702f6465766963652f61 02 6361 02 07 e807 \
             0202020202020202020202020202020202020202020202020202020202020202",
        ),
        (
            Change::Settled { identity: identity.clone(), sequence },
            "011a 13 7370696666653a2f2f702f6465766963652f61 02 6361 02 ac02",
        ),
        (
            Change::Chain { identity: identity.clone(), chain },
            "0131 13 7370696666653a2f2f702f6465766963652f61 02 6361 02 03 01 07 e807 \
             0202020202020202020202020202020202020202020202020202020202020202",
        ),
        (
            Change::Signed { identity: identity.clone(), sequence, c: [1; 32] },
            "0118 13 7370696666653a2f2f702f6465766963652f61 02 6361 02 ac02 \
             0101010101010101010101010101010101010101010101010101010101010101",
        ),
        (
            Change::Window { identity, window },
            "0130 13 7370696666653a2f2f702f6465766963652f61 02 6361 02 02 07 ad02 \
             0101010101010101010101010101010101010101010101010101010101010101 09 00 \
             0101010101010101010101010101010101010101010101010101010101010101",
        ),
    ]
}

fn vectors_of_sessions() -> Vec<(Change, &'static str)> {
    let subscription = Subscription {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        identifier: Some(7),
    };
    let attached = Attached {
        key: KEY,
        connect_index: None,
        author: author(ProtocolVersion::V5),
        clean: true,
        expiry_seconds: 60,
        will: Some(will(Some(0), b"", None)),
    };
    vec![
        (
            Change::Attached(Box::new(attached)),
            "0101 ac02 00 19 7370696666653a2f2f702f6465766963652f70726573732d37 08 6669656c642d6361 \
             09 70726573732d372d61 05 03 3c 12 706c616e742f70726573732d372f676f6e65 05 01",
        ),
        (
            Change::Detached {
                key: KEY,
                connect_index: 5,
                at: UnixNanos::new(1),
                expiry_seconds: 2,
                publishes_will: true,
            },
            "0102 ac02 05 01 02 01",
        ),
        (Change::Ended { key: KEY, connect_index: 5 }, "0103 ac02 05"),
        (
            Change::Subscribed {
                key: KEY,
                filter: filter("$share/g/a/+"),
                subscription,
                handling: RetainHandling::DoNotSend,
            },
            "0104 ac02 0c 2473686172652f672f612f2b 2d 08",
        ),
        (Change::Unsubscribed { key: KEY, filter: filter("#") }, "0105 ac02 01 23"),
        (Change::Walked { key: KEY, filter: filter("a/#") }, "010d ac02 03 612f23"),
    ]
}

fn vectors_of_copies() -> Vec<(Change, &'static str)> {
    let packet_id = PacketId::new(0x1234).unwrap();
    vec![
        (
            Change::Sent { key: KEY, packet_id, source: Source::Routed, copy: copy(9, vec![]) },
            "0106 ac02 b424 06 09",
        ),
        (
            Change::Sent {
                key: KEY,
                packet_id,
                source: Source::Retained(TopicName::parse("a").unwrap()),
                copy: copy(9, vec![1, 200]),
            },
            "0106 ac02 b424 36 09 02 01 c801 01 61",
        ),
        (Change::Acked { key: KEY, packet_id }, "0107 ac02 b424"),
        (Change::Receipted { key: KEY, packet_id }, "0108 ac02 b424"),
        (Change::Released { key: KEY, packet_id }, "0109 ac02 b424"),
        (
            Change::Queued {
                key: KEY,
                group: Some(filter("$share/g/a")),
                is_lasting: true,
                copy: copy(9, vec![]),
            },
            "010a ac02 0e 09 0a 2473686172652f672f61",
        ),
        (Change::Skipped { key: KEY, index: 128 }, "010b ac02 8001"),
        (Change::Full { key: KEY, index: 128 }, "010c ac02 8001"),
        (
            Change::Left { group: filter("$share/g/a"), message: Box::new(left()) },
            "010f 09 01 61 05 ad02 02 0a 2473686172652f672f61",
        ),
    ]
}

fn left() -> StoredMessage {
    StoredMessage {
        index: 9,
        topic: TopicName::parse("a").unwrap(),
        qos: QoS::AtLeastOnce,
        retain: true,
        author: Some(KEY),
        received: UnixNanos::new(2),
        payload: Bytes::from_static(b"x"),
        properties: PublishProperties::default(),
        is_erased: false,
    }
}

fn round_trip(change: &Change) -> Result<Change, BadRecord> {
    let mut head = Vec::new();
    change.encode(&mut head);
    let body = change.body();
    Change::decode(&head, body.as_ref().map(|(payload, properties)| (&**payload, &**properties)))
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    prop::sample::select(vec!["a", "a/+/b", "#", "$share/g/a/#", "$SYS/x"])
        .prop_map(|text| TopicFilter::parse(text).unwrap())
}

fn any_topic() -> impl Strategy<Value = TopicName> {
    "[a-z/]{1,20}".prop_map(|text| TopicName::parse(&text).unwrap())
}

fn any_copy() -> impl Strategy<Value = CopyOf> {
    let identifiers = prop::collection::vec(any::<u32>(), 0..4);
    (any::<u64>(), 0..3_u8, any::<bool>(), identifiers).prop_map(
        |(index, qos, retain, identifiers)| {
            let qos = QoS::from_bits(qos).unwrap();
            CopyOf { index, qos, retain, identifiers }
        },
    )
}

fn any_subscription() -> impl Strategy<Value = Subscription> {
    (0..3_u8, any::<bool>(), any::<bool>(), any::<Option<u32>>()).prop_map(
        |(qos, no_local, retain_as_published, identifier)| Subscription {
            qos: QoS::from_bits(qos).unwrap(),
            no_local,
            retain_as_published,
            identifier,
        },
    )
}

fn any_version() -> impl Strategy<Value = ProtocolVersion> {
    use ProtocolVersion::{V3_1, V3_1_1, V5};
    prop::sample::select(vec![V3_1, V3_1_1, V5])
}

fn any_will() -> impl Strategy<Value = Will> {
    let payload = prop::collection::vec(any::<u8>(), 0..50);
    (any::<Option<u32>>(), payload, any::<Option<(String, String)>>())
        .prop_map(|(delay, payload, user)| will(delay, &payload, user))
}

fn any_of_log() -> impl Strategy<Value = Change> {
    let key = any::<u64>().prop_map(SessionKey);
    let id = (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap());
    let will = prop::option::of(any_will());
    let attached =
        (any::<u64>(), prop::option::of(0..u64::MAX), any_version(), any::<bool>(), will).prop_map(
            |(key, connect_index, version, clean, will)| {
                let (key, author) = (SessionKey(key), author(version));
                let expiry_seconds = 7;
                let attached = Attached { key, connect_index, author, clean, expiry_seconds, will };
                Change::Attached(Box::new(attached))
            },
        );
    let source = prop_oneof![
        Just(Source::Routed),
        any_filter().prop_map(Source::Shared),
        any_topic().prop_map(Source::Retained)
    ];
    prop_oneof![
        attached,
        (key.clone(), any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>()).prop_map(
            |(key, connect_index, at, expiry_seconds, publishes_will)| {
                let at = UnixNanos::new(at);
                Change::Detached { key, connect_index, at, expiry_seconds, publishes_will }
            }
        ),
        (key.clone(), any_filter(), any_subscription()).prop_map(|(key, filter, subscription)| {
            let handling = RetainHandling::SendIfNew;
            Change::Subscribed { key, filter, subscription, handling }
        }),
        (key.clone(), id, source, any_copy()).prop_map(|(key, packet_id, source, copy)| {
            Change::Sent { key, packet_id, source, copy }
        }),
        (key, prop::option::of(any_filter()), any::<bool>(), any_copy()).prop_map(
            |(key, group, is_lasting, copy)| Change::Queued { key, group, is_lasting, copy }
        ),
        (any_filter(), any_message())
            .prop_map(|(group, message)| Change::Left { group, message: Box::new(message) }),
    ]
}

fn any_message() -> impl Strategy<Value = StoredMessage> {
    let payload = prop::collection::vec(any::<u8>(), 0..50);
    let owner = prop::option::of((0..u64::MAX).prop_map(SessionKey));
    (any::<u64>(), any_topic(), 0..3_u8, any::<bool>(), owner, payload).prop_map(
        |(index, topic, qos, retain, author, payload)| StoredMessage {
            index,
            topic,
            qos: QoS::from_bits(qos).unwrap(),
            retain,
            author,
            received: UnixNanos::new(index),
            payload: payload.into(),
            properties: PublishProperties::default(),
            is_erased: false,
        },
    )
}

fn any_of_snapshot() -> impl Strategy<Value = Change> {
    let key = any::<u64>().prop_map(SessionKey);
    let id = (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap());
    prop_oneof![
        any_message().prop_map(|message| Change::Message(Box::new(message))),
        (any::<u64>(), any::<u64>())
            .prop_map(|(index, next_session)| Change::Position { index, next_session }),
        (key.clone(), any_filter(), any_subscription(), prop::option::of(any_topic())).prop_map(
            |(key, filter, subscription, after)| {
                Change::Walking { key, filter, subscription, after, until: 3 }
            }
        ),
        (key.clone(), any::<u64>(), any_version(), any_will()).prop_map(
            |(key, connect_index, version, will)| {
                let author = author(version);
                Change::Owed(Box::new(OwedWill { connect_index, key, author, will }))
            }
        ),
        (any::<u64>(), any_filter(), any::<u64>(), prop::option::of((key, id))).prop_map(
            |(index, group, since, sent)| Change::Unassigned { index, group, since, sent }
        ),
        (any::<u64>(), any::<u64>()).prop_map(|(index, since)| Change::Nameable { index, since }),
        ("[a-z]{1,9}", "[a-z/]{1,9}", any::<u64>(), any::<u64>()).prop_map(
            |(who, topic, highest, seen)| {
                let (who, topic) = (who.into(), topic.into());
                Change::Numbered(StoredWindow { who, topic, highest, seen: seen | 1 })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn reading_what_was_written_gives_the_same_change(
        change in prop_oneof![any_of_log(), any_of_snapshot()],
    ) {
        prop_assert_eq!(round_trip(&change), Ok(change));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        head in prop::collection::vec(any::<u8>(), 0..64),
        tag in 0..48_u8,
        body in prop::option::of(prop::collection::vec(any::<u8>(), 0..8)),
    ) {
        let body = body.as_ref().map(|body| (&body[..], &body[..]));
        let _ = Change::decode(&head, body);
        let _ = Change::decode(&[&[VERSION, tag][..], &head].concat(), body);
    }
}

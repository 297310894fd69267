use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::identity::Role;

const WIRE: &str = include_str!("../../../devices/signer/BATCH.md");
const AUDIENCE: &str = "plant.example/plant-1";

fn block(heading: &str) -> String {
    let (_, rest) = WIRE.split_once(&format!("\n```{heading}\n")).unwrap();
    rest.split_once("\n```").unwrap().0.replace('\n', "")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn press() -> Identity {
    Identity::new("plant.example", Role::Device, "press-7", "i").unwrap()
}

fn bounds() -> ChainBounds {
    ChainBounds { devices_max: 2, links_max: 2_000, cover_within: Duration::from_secs(60) }
}

fn linked(seq: u64, digest: u8) -> Linked {
    Linked { seq, digest: [digest; 32], at: UnixNanos::from_seconds(seq) }
}

fn at(epoch: u64, seq: u64) -> Sequence {
    Sequence { epoch, seq }
}

/// Judges and, if it is new, enters.
fn link(chains: &mut Chains, sequence: Sequence, digest: u8) -> Result<Linking, R> {
    let linking = chains.judge(&press(), sequence, &[digest; 32], bounds())?;
    if let Linking::New { .. } = linking {
        chains.enter(&press(), sequence.epoch, linked(sequence.seq, digest));
    }
    Ok(linking)
}

/// The head that a device signs for.
fn signed(epoch: u64, first: u64, digests: &[u8]) -> [u8; 32] {
    let begun = begin(press().uri(), AUDIENCE, epoch, first);
    digests.iter().fold(begun, |head, digest| behind(&head, &[*digest; 32]))
}

#[test]
fn the_bytes_are_those_of_the_device() {
    let topic = TopicName::parse("plant/press-7/telemetry/torque").unwrap();
    let mut head = begin(press().uri(), AUDIENCE, 41, 1);
    assert_eq!(hex(&head), block("hex head-0"));
    for (seq, payload, manner) in [
        (1, br#"{"t":21.5}"#, (QoS::AtLeastOnce, false)),
        (2, br#"{"t":21.6}"#, (QoS::AtMostOnce, true)),
    ] {
        let link = Link::parse(&block(&format!("text link-{seq}"))).unwrap();
        assert_eq!(link.sequence, at(41, seq));
        let c = crate::evidence::commitment(&link.salt, payload);
        let digest = link_digest(seq, manner, &topic, &c);
        assert_eq!(hex(&digest), block(&format!("hex link-{seq}-digest")));
        head = behind(&head, &digest);
        assert_eq!(hex(&head), block(&format!("hex head-{seq}")));
    }
}

#[test]
fn only_the_one_form_of_a_link_is_read() {
    let good = block("text link-1");
    assert!(Link::parse(&good).is_some());
    for bad in ["", &good[1..], &format!("{good}A"), &format!("{good}="), &good.replace('A', "+")] {
        assert_eq!(Link::parse(bad), None, "{bad}");
    }
    // Bits behind the last byte.
    assert_eq!(Link::parse(&(good[..42].to_owned() + "9")), None);
}

#[test]
fn the_whole_table_of_messages() {
    let mut chains = Chains::default();
    let history =
        [(2, 5, 1), (2, 6, 2), (2, 6, 2), (2, 6, 3), (2, 9, 4), (2, 8, 5), (2, 4, 6), (1, 9, 7)];
    let mut rows: Vec<String> = history
        .iter()
        .map(|(epoch, seq, digest)| {
            let said = link(&mut chains, at(*epoch, *seq), *digest);
            format!("{epoch}.{seq} link {digest}: {said:?}")
        })
        .collect();
    chains.settle(&press(), 2, 6);
    for (epoch, seq, digest) in [(2, 6, 2), (2, 10, 8), (3, 1, 9), (3, 1, 9), (2, 11, 1)] {
        let said = link(&mut chains, at(epoch, seq), digest);
        rows.push(format!("{epoch}.{seq} link {digest}, 2.6 settled: {said:?}"));
    }
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn the_whole_table_of_covers() {
    let mut rows = Vec::new();
    let mut cover = |name: &str, covered: bool, epoch, first, last, head: [u8; 32]| {
        let mut chains = Chains::default();
        for (seq, digest) in [(1, 1), (2, 2), (3, 3), (5, 5)] {
            link(&mut chains, at(2, seq), digest).unwrap();
        }
        if covered {
            chains.settle(&press(), 2, 2);
        }
        let batch = Batch { epoch, first, last };
        let said = chains.judge_cover(&press(), AUDIENCE, batch, &head);
        rows.push(format!("{name}{}: {said:?}", if covered { ", 1 and 2 covered" } else { "" }));
    };
    let good = signed(2, 1, &[1, 2]);
    for covered in [false, true] {
        cover("1 to 2", covered, 2, 1, 2, good);
        cover("1 to 2, another head", covered, 2, 1, 2, [9; 32]);
        cover("1 to 2, begun elsewhere", covered, 2, 1, 2, signed(2, 2, &[1, 2]));
        cover("1 to 2, in another order", covered, 2, 1, 2, signed(2, 1, &[2, 1]));
        cover("1 to 3", covered, 2, 1, 3, signed(2, 1, &[1, 2, 3]));
        cover("3 to 3", covered, 2, 3, 3, signed(2, 3, &[3]));
        cover("3 to 5", covered, 2, 3, 5, signed(2, 3, &[3, 5]));
        cover("5 to 6", covered, 2, 5, 6, signed(2, 5, &[5, 6]));
        cover("2 to 1", covered, 2, 2, 1, signed(2, 2, &[]));
        cover("0 to 0", covered, 2, 0, 0, signed(2, 0, &[]));
        cover("0 to the last there can be", covered, 2, 0, u64::MAX, good);
        cover("epoch 1", covered, 1, 1, 2, good);
        cover("epoch 3", covered, 3, 1, 2, good);
    }
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn bounds_hold_at_the_bound_and_one_past_it() {
    let mut chains = Chains::default();
    for seq in 1..=BATCH_MESSAGES_MAX as u64 {
        assert!(link(&mut chains, at(1, seq), 1).is_ok());
    }
    let next = BATCH_MESSAGES_MAX as u64 + 1;
    assert_eq!(link(&mut chains, at(1, next), 1), Err(R::Uncovered));
    assert_eq!(link(&mut chains, at(1, next - 1), 1), Ok(Linking::Resend));
    chains.settle(&press(), 1, next - 1);
    assert!(link(&mut chains, at(1, next), 1).is_ok());
    assert_eq!(chains.links, RESENDS_MAX + 1, "what is covered is remembered for a while");
    assert_eq!(link(&mut chains, at(1, next - RESENDS_MAX as u64), 1), Ok(Linking::Resend));
    assert_eq!(link(&mut chains, at(1, next - RESENDS_MAX as u64 - 1), 1), Err(R::Replay));
    let other = |name| Identity::new("plant.example", Role::Device, name, "i").unwrap();
    let judged =
        |chains: &Chains, name, bounds| chains.judge(&other(name), at(1, 1), &[1; 32], bounds);
    assert!(judged(&chains, "b", bounds()).is_ok());
    chains.enter(&other("b"), 1, linked(1, 1));
    assert_eq!(judged(&chains, "c", bounds()), Err(R::Signers));
    let full = ChainBounds { links_max: chains.links, devices_max: 9, ..bounds() };
    assert_eq!(judged(&chains, "c", full), Err(R::Signers));
    assert!(judged(&chains, "c", ChainBounds { links_max: chains.links + 1, ..full }).is_ok());
}

#[test]
fn a_device_is_overdue_with_its_oldest_message() {
    let mut chains = Chains::default();
    for seq in 10..13 {
        link(&mut chains, at(1, seq), 1).unwrap();
    }
    let overdue = |chains: &Chains, seconds| {
        chains.is_overdue(&press(), UnixNanos::from_seconds(seconds), bounds())
    };
    assert_eq!([overdue(&chains, 70), overdue(&chains, 71)], [false, true]);
    chains.settle(&press(), 1, 11);
    assert_eq!([overdue(&chains, 72), overdue(&chains, 73)], [false, true]);
    chains.settle(&press(), 1, u64::MAX);
    assert!(!overdue(&chains, 1_000));
    assert!(link(&mut chains, at(1, 13), 1).is_ok(), "nothing was settled ahead");
}

proptest! {
    /// Whatever was linked and settled: the head of every batch is that of a device which sent the
    /// same, a snapshot gives the chain again, and the count of links is right.
    #[test]
    fn heads_are_those_of_a_device_that_sent_the_same(
        steps in prop::collection::vec((0_u64..3, any::<u8>(), 0_u8..8), 1..200),
    ) {
        let (mut chains, mut sent) = (Chains::default(), BTreeMap::new());
        let mut seq = 0;
        for (ahead, digest, what) in steps {
            seq += ahead;
            if let Ok(Linking::New { .. }) = link(&mut chains, at(1, seq), digest) {
                sent.insert(seq, digest);
            }
            if what == 0 {
                chains.settle(&press(), 1, seq.saturating_sub(3));
            }
            for (_, chain) in chains.iter() {
                let links = chain.links().copied().collect();
                let settled = chain.settled();
                let again = Chain::restored(settled.epoch, settled.seq, links);
                prop_assert_eq!(again.as_ref(), Some(chain));
                prop_assert_eq!(chains.links, chain.links().len());
            }
            let first = seq.saturating_sub(2);
            let digests: Vec<u8> = sent.range(first..=seq).map(|(_, digest)| *digest).collect();
            let head = signed(1, first, &digests);
            let batch = Batch { epoch: 1, first, last: seq };
            let said = chains.judge_cover(&press(), AUDIENCE, batch, &head);
            let whole = digests.len() as u64 == seq - first + 1;
            let settled = chains.iter().next().map_or(0, |(_, chain)| chain.settled().seq);
            if whole && first > settled {
                prop_assert_eq!(said, Ok(Covering::Covers(seq - first + 1)));
            } else if first > settled {
                prop_assert_eq!(said, Err(R::Gap));
            }
        }
    }
}

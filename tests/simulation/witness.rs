//! A witness on a disk that forgets: whatever it cosigned, it never cosigns the other side of a
//! fork of it, wherever the power goes off.

use std::collections::BTreeMap;

use avow::evidence::tree::{Hash, consistency_proof, leaf_hash, root_of};
use avow::evidence::witness::{AddCheckpoint, WitnessRefusal};
use avow::evidence::{Checkpoint, LogKey, WitnessKey};
use avow::storage::witness_store::{COSIGNED_DIR, KnownLog, NoCosignature, WitnessFault};

use crate::disk::{Accident, Op, Random, SimDisk};

const ORIGIN: &str = "plant.example/log";
const CRASH_POINTS: u64 = 600;

/// The log's side: a key, and two trees that part at `fork`.
struct Forked {
    key: LogKey,
    fork: u64,
}

impl Forked {
    fn leaves(&self, size: u64, is_other: bool) -> Vec<Hash> {
        let leaf = |n: u64| leaf_hash(&[u8::from(is_other && n >= self.fork), n as u8]);
        (0..size).map(leaf).collect()
    }

    fn request(&self, old_size: u64, size: u64, is_other: bool) -> AddCheckpoint {
        let leaves = self.leaves(size, is_other);
        let root_hash = root_of(&leaves);
        let checkpoint = Checkpoint { origin: ORIGIN.into(), tree_size: size, root_hash };
        let proof = consistency_proof(old_size, &leaves).unwrap();
        AddCheckpoint { old_size, proof, note: self.key.sign(&checkpoint) }
    }
}

fn open(disk: &SimDisk, key: &LogKey) -> Result<KnownLog<SimDisk>, WitnessFault> {
    KnownLog::open(disk.clone(), ORIGIN, vec![key.verifier().clone()])
}

/// Every root that was cosigned, by size.
type Cosigned = BTreeMap<u64, Hash>;

/// A witness that dies several times while a forked log asks it for both of its trees.
fn one_history(seed: u64, has_sync: bool) -> Result<u64, String> {
    let mut random = Random::new(seed);
    let disk = SimDisk::new(seed);
    if !has_sync {
        disk.take_sync_out();
    }
    let log =
        Forked { key: LogKey::from_seed(ORIGIN, &[7; 32]).unwrap(), fork: 1 + random.below(4) };
    let key = WitnessKey::from_seed("w.example/1", &[8; 32]).unwrap();
    let mut cosigned = Cosigned::new();
    for life in 0..4 {
        disk.plan(None, random.below(24), Accident::PowerLoss);
        if let Ok(mut known) = open(&disk, &log.key) {
            live(&mut random, &log, &mut known, &key, &mut cosigned);
        }
        disk.crash();
        let known = open(&disk, &log.key).map_err(|fault| format!("life {life}: {fault}"))?;
        // What was cosigned is kept: that, or something larger that contains it.
        let kept = known.newest().map_or(0, |newest| newest.tree_size);
        let promised = cosigned.keys().next_back().copied().unwrap_or(0);
        if kept < promised {
            return Err(format!("life {life}: {promised} was cosigned and {kept} is kept"));
        }
    }
    one_tree(&log, &cosigned)?;
    Ok(cosigned.len() as u64)
}

/// Asks for both trees, whichever comes, until the power goes.
fn live(
    random: &mut Random,
    log: &Forked,
    known: &mut KnownLog<SimDisk>,
    key: &WitnessKey,
    cosigned: &mut Cosigned,
) {
    for step in 0..40 {
        let old = known.newest().map_or(0, |newest| newest.tree_size);
        let (size, is_other) = (old + random.below(4), random.below(2) == 1);
        let request = log.request(old, size.max(1), is_other);
        match known.cosign(&request, key, step) {
            Ok(line) => {
                assert!(line.starts_with("\u{2014} w.example/1 "), "{line}");
                let root = known.newest().unwrap().root_hash;
                cosigned.insert(known.newest().unwrap().tree_size, root);
            }
            Err(NoCosignature::Refused(refusal)) => {
                assert!(matches!(refusal.status(), 409 | 422), "{refusal}");
            }
            Err(NoCosignature::Fault(_)) => return,
        }
    }
}

/// Fails unless all that was cosigned is of one of the two trees.
fn one_tree(log: &Forked, cosigned: &Cosigned) -> Result<(), String> {
    let is_of = |is_other| {
        cosigned.iter().all(|(size, root)| root_of(&log.leaves(*size, is_other)) == *root)
    };
    if is_of(false) || is_of(true) { Ok(()) } else { Err("both sides of a fork".to_owned()) }
}

#[test]
fn a_witness_never_cosigns_both_sides_of_a_fork() {
    let mut cosigned = 0;
    for seed in 0..CRASH_POINTS / 4 {
        match one_history(seed, true) {
            Ok(count) => cosigned += count,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    assert!(cosigned > 300, "only {cosigned} cosignatures: nothing was tried");
}

#[test]
fn the_same_check_fails_when_the_sync_is_taken_out() {
    let failed = (0..60).filter(|seed| one_history(*seed, false).is_err()).count();
    assert!(failed > 20, "only {failed} of 60 witnesses without sync were caught");
}

#[test]
fn after_a_failed_write_nothing_is_signed_until_a_restart() {
    let log = Forked { key: LogKey::from_seed(ORIGIN, &[7; 32]).unwrap(), fork: 3 };
    let key = WitnessKey::from_seed("w.example/1", &[8; 32]).unwrap();
    let kinds = [Op::Write, Op::Sync, Op::Other];
    for accident in [Accident::Eio, Accident::EioButDone, Accident::Enospc] {
        for (op, count) in kinds.iter().flat_map(|op| (0..2).map(move |count| (*op, count))) {
            let disk = SimDisk::new(count);
            let mut known = open(&disk, &log.key).unwrap();
            known.cosign(&log.request(0, 5, false), &key, 1).unwrap();
            disk.plan(Some(op), count, accident);
            let what = format!("{accident:?} at {op:?} {count}");
            let failed = known.cosign(&log.request(5, 7, false), &key, 2);
            if failed.is_ok() {
                continue; // There is no such operation any more.
            }
            // The other tree fits what the memory knows, and must not be signed.
            let other = known.cosign(&log.request(5, 7, true), &key, 3);
            let is_poisoned = matches!(other, Err(NoCosignature::Fault(WitnessFault::Poisoned)));
            assert!(is_poisoned, "{what}: {other:?}");
            let mut known = open(&disk, &log.key).unwrap();
            let size = known.newest().unwrap().tree_size;
            assert!(size == 5 || size == 7, "{what}: {size}");
            known.cosign(&log.request(size, 9, false), &key, 4).unwrap();
        }
    }
}

#[test]
fn what_is_damaged_is_not_begun_anew() {
    let log = Forked { key: LogKey::from_seed(ORIGIN, &[7; 32]).unwrap(), fork: 3 };
    let key = WitnessKey::from_seed("w.example/1", &[8; 32]).unwrap();
    let disk = SimDisk::new(1);
    open(&disk, &log.key).unwrap().cosign(&log.request(0, 5, false), &key, 1).unwrap();
    let (file, bytes) = disk.files(COSIGNED_DIR).into_iter().next().unwrap();
    for place in 0..bytes {
        disk.flip(&file, place, 1);
        let opened = open(&disk, &log.key);
        assert!(matches!(opened, Err(WitnessFault::Damaged { .. })), "byte {place}: {opened:?}");
        disk.flip(&file, place, 1);
    }
    // A key that is no longer listed is said to be missing, and the old state is not forgotten.
    let other = LogKey::from_seed(ORIGIN, &[9; 32]).unwrap();
    let refused = open(&disk, &other).unwrap_err();
    assert!(refused.to_string().contains("keep the old one"), "{refused}");
    let mut known = open(&disk, &log.key).unwrap();
    let again = known.cosign(&log.request(0, 4, true), &key, 2).unwrap_err();
    let expected = WitnessRefusal::OtherSize { known: 5 };
    assert!(matches!(again, NoCosignature::Refused(refusal) if refusal == expected), "{again}");
}

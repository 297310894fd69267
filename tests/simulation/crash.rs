//! Power loss at every kind of moment, and disks that fail: nothing that was promised is missing
//! afterwards, and nothing is promised that failed.

use avow::storage::StorageFault;

use crate::disk::{Accident, Op};
use crate::world::{Up, World};

const CRASH_POINTS: u64 = 1_200;
const LIVES: u64 = 3;

/// One log that dies `LIVES` times, each time somewhere else.
fn one_history(seed: u64, has_sync: bool) -> Result<(), String> {
    let mut world = World::new(seed);
    if !has_sync {
        world.disk.take_sync_out();
    }
    let (mut up, _) = world.open().map_err(|fault| fault.to_string())?;
    for life in 0..LIVES {
        let operations = world.random.below(120);
        world.disk.plan(None, operations, Accident::PowerLoss);
        live(&mut world, &mut up);
        world.disk.crash();
        // One start in two dies as well, and the next one must mend what it left.
        if world.random.below(2) == 0 {
            world.disk.plan(None, world.random.clone().below(14), Accident::PowerLoss);
            let _ = world.open();
            world.disk.crash();
        }
        up = world.restart().map_err(|what| format!("life {life}: {what}"))?;
    }
    Ok(())
}

/// Works until the power goes.
fn live(world: &mut World, up: &mut Up) {
    loop {
        let done = match world.random.below(5) {
            0 => world.checkpoint(up),
            _ => world.append(up),
        };
        if done.is_err() {
            return;
        }
    }
}

#[test]
fn what_was_promised_survives_power_loss_at_any_moment() {
    for seed in 0..CRASH_POINTS / LIVES {
        if let Err(what) = one_history(seed, true) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn the_same_check_fails_when_the_sync_is_taken_out() {
    let failed = (0..40).filter(|seed| {
        let history = std::panic::catch_unwind(|| one_history(*seed, false));
        !matches!(history, Ok(Ok(())))
    });
    assert!(failed.count() > 20, "a log without sync must be caught");
}

/// A first life with something in it.
fn begun(seed: u64) -> (World, Up) {
    let mut world = World::new(seed);
    let (mut up, _) = world.open().unwrap();
    for _ in 0..5 {
        world.append(&mut up).unwrap();
    }
    world.checkpoint(&mut up).unwrap();
    (world, up)
}

/// After `accident`, nothing more is promised, and the next start finds what was. With
/// `power_loss` the machine restarts too, otherwise only the process.
fn fails_and_recovers(op: Op, accident: Accident, power_loss: bool) {
    for seed in 0..40 {
        let (mut world, mut up) = begun(seed);
        world.disk.plan(Some(op), world.random.clone().below(12), accident);
        let fault = loop {
            if let Err(fault) = world.append(&mut up) {
                break fault;
            }
        };
        assert!(matches!(fault, StorageFault::Io { .. }), "seed {seed}: {fault}");
        let again = world.append(&mut up).unwrap_err();
        assert!(matches!(again, StorageFault::Poisoned), "seed {seed}: {again}");
        if power_loss {
            world.disk.crash();
        }
        let mut up = world.restart().unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        world.append(&mut up).unwrap();
        // What the second start relied on must be on disk, not only in memory.
        world.disk.crash();
        world.restart().unwrap_or_else(|what| panic!("seed {seed}, second start: {what}"));
    }
}

#[test]
fn failed_write_nothing_persisted() {
    fails_and_recovers(Op::Write, Accident::Eio, false);
    fails_and_recovers(Op::Write, Accident::Eio, true);
}

#[test]
fn failed_write_but_persisted() {
    fails_and_recovers(Op::Write, Accident::EioButDone, false);
    fails_and_recovers(Op::Write, Accident::EioButDone, true);
}

#[test]
fn failed_sync_nothing_persisted() {
    fails_and_recovers(Op::Sync, Accident::Eio, false);
    fails_and_recovers(Op::Sync, Accident::Eio, true);
}

#[test]
fn failed_sync_but_persisted() {
    fails_and_recovers(Op::Sync, Accident::EioButDone, false);
    fails_and_recovers(Op::Sync, Accident::EioButDone, true);
}

#[test]
fn no_space_left() {
    fails_and_recovers(Op::Write, Accident::Enospc, false);
    fails_and_recovers(Op::Write, Accident::Enospc, true);
}

#[test]
fn a_checkpoint_that_could_not_be_kept_is_not_published() {
    for (op, count) in [(Op::Write, 0), (Op::Sync, 0), (Op::Write, 1), (Op::Sync, 1)] {
        for accident in [Accident::Eio, Accident::EioButDone, Accident::PowerLoss] {
            let (mut world, mut up) = begun(9);
            world.append(&mut up).unwrap();
            world.disk.plan(Some(op), count, accident);
            assert!(world.checkpoint(&mut up).is_err());
            world.disk.crash();
            world.see_checkpoint();
            world.restart().unwrap();
        }
    }
}

#[test]
fn a_batch_longer_than_a_segment_gets_a_longer_segment() {
    let mut world = World::new(3);
    world.segment_bytes = 256;
    let (mut up, _) = world.open().unwrap();
    for _ in 0..20 {
        world.append(&mut up).unwrap();
    }
    assert!(world.disk.operations() > 40);
    world.disk.crash();
    world.restart().unwrap();
}

//! Every moment of a fixed life of the log, one after the other: at each operation of the disk the
//! power goes before it or behind it, with eight different remains of what was not synced, or the
//! operation fails, done or not. Afterwards the log starts again, and nothing that was promised is
//! missing: no record whose batch was released, no root that anybody saw signed.
//!
//! Nothing here is left to chance, so that a failure is found again at the same place: it names the
//! operation, what befell it and what was kept. `try_point` replays it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use avow::broker::{LogRecord, Replay, Settings};
use avow::evidence::tile::{EntryTooLong, Tile, TileEdge};
use avow::evidence::tree::{Frontier, leaf_hash};
use avow::evidence::{Batch, BatchId, Body, Checkpoint, RecordKind};
use avow::storage::snapshot::{restore, take};
use avow::storage::{Log, LogOptions, Recovery, StorageFault};
use avow::time::{Instant, Now, UnixNanos};
use bytes::Bytes;

use crate::disk::{Accident, Kept, SimDisk};
use crate::sessions::{settings, what_a_broker_wrote};
use crate::world::{Record, World};

/// Short, so that a life has many of them.
const SEGMENT_BYTES: u64 = 4096;
const APPENDS: usize = 60;
/// Fewest points that the test must have tried.
const POINTS_MIN: usize = 10_000;
/// Every so many points, each moment of the start after it is tried as well.
const STARTS_TRIED_EVERY: usize = 24;
const BEGIN: Now =
    Now { instant: Instant::from_nanos(1 << 60), unix: UnixNanos::from_seconds(1_000_000) };

/// A record as a broker wrote it.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) kind: RecordKind,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Option<Body>,
}

/// The log while it is up: what the writer has, and what the integrator has.
pub(crate) struct Up {
    log: Log<SimDisk>,
    pub(crate) recovery: Recovery<SimDisk>,
}

/// What happens in the life, in order.
pub(crate) enum Step {
    /// The writer: these records, as one append.
    Append(Vec<Piece>),
    /// The integrator: sign what is on disk.
    Sign,
    /// The thread of the snapshots.
    Snapshot,
}

/// Where and how the life is disturbed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) operation: u64,
    pub(crate) accident: Accident,
    /// What is left if the power goes; otherwise only the process restarts.
    pub(crate) kept: Option<Kept>,
}

/// Everything that does not change from point to point.
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    settings: Settings,
    pub(crate) points: Vec<Point>,
    /// Files that the disk lies about, to see whether the points would notice.
    lie: Option<&'static str>,
}

/// Records that were promised, and roots that somebody saw.
#[derive(Clone, Default)]
pub(crate) struct Promised {
    pub(crate) appends: usize,
    pub(crate) roots: BTreeMap<u64, [u8; 32]>,
}

impl Script {
    pub(crate) fn new() -> Self {
        let (steps, settings, points) = (steps(), settings(1), Vec::new());
        let mut script = Self { steps, settings, points, lie: None };
        let world = new_world();
        let mut promised = Promised::default();
        let (mut up, _) = open(&world).unwrap();
        script.live(&world, &mut up, &mut promised, 0).unwrap();
        assert_eq!(promised.appends, APPENDS);
        for operation in 0..world.disk.operations() {
            script.points.extend(points_of(operation));
        }
        script
    }

    /// Goes on with the life behind its first `appends` appends, until something fails.
    fn live(
        &self,
        world: &World,
        up: &mut Up,
        promised: &mut Promised,
        appends: usize,
    ) -> Result<(), StorageFault> {
        let mut done = 0;
        for step in &self.steps {
            match step {
                Step::Append(pieces) => {
                    done += 1;
                    if done > appends {
                        let appended = append(up, pieces, done);
                        // Nothing is promised after a failure, whatever is tried.
                        let is_closed = matches!(up.log.append(&[]), Err(StorageFault::Poisoned));
                        assert_eq!(is_closed, appended.is_err());
                        appended?;
                        promised.appends = done;
                    }
                }
                _ if done < appends || done == 0 => {}
                Step::Sign => sign(world, up, promised)?,
                Step::Snapshot => self.take_snapshot(world)?,
            }
        }
        Ok(())
    }

    fn take_snapshot(&self, world: &World) -> Result<(), StorageFault> {
        match take(&world.disk, &options(world), &|| self.empty()) {
            Ok(_) => Ok(()),
            Err(avow::storage::SnapshotFault::Storage(fault)) => Err(fault),
            Err(avow::storage::SnapshotFault::Record(bad)) => panic!("{bad}"),
        }
    }

    fn empty(&self) -> Replay {
        Replay::new(self.settings.clone(), BEGIN)
    }

    /// One point: disturbs a life, starts again, compares, lives on, and loses the power once more.
    /// With `starts`, each moment of the start is disturbed as well. The number of points tried.
    fn try_point(&self, point: Point, starts: bool) -> Result<usize, String> {
        let (world, promised) = self.disturbed(point, self.lie);
        let tried = self.start_and_go_on(&world, promised.clone())?;
        if !starts {
            return Ok(tried);
        }
        let mut tried = tried;
        for operation in 0.. {
            let (world, promised) = self.disturbed(point, self.lie);
            world.disk.plan(None, operation, Accident::PowerLossBefore);
            if open(&world).is_ok() {
                break;
            }
            world.disk.crash_keeping(Kept::ALL[tried % Kept::ALL.len()]);
            let at = |what| format!("power lost at operation {operation} of the start: {what}");
            tried += self.start_and_go_on(&world, promised).map_err(at)?;
        }
        Ok(tried)
    }

    /// A world that met its accident, and is switched on again. Its disk may lie about the syncs of
    /// some files.
    pub(crate) fn disturbed(&self, point: Point, lie: Option<&str>) -> (World, Promised) {
        let world = new_world();
        if let Some(files) = lie {
            world.disk.lie_about(files);
        }
        let mut promised = Promised::default();
        world.disk.plan(None, point.operation, point.accident);
        if let Ok((mut up, _)) = open(&world) {
            let ended = self.live(&world, &mut up, &mut promised, 0);
            assert!(ended.is_err(), "{point:?} befell nobody");
        }
        see(&world, &mut promised);
        match point.kept {
            Some(kept) => world.disk.crash_keeping(kept),
            None => world.disk.plan(None, u64::MAX, Accident::Eio),
        }
        (world, promised)
    }

    /// Starts, compares with what was promised, goes on to the end of the life, loses the power with
    /// all that was not synced, and compares again.
    fn start_and_go_on(&self, world: &World, mut promised: Promised) -> Result<usize, String> {
        let (mut up, appends) = self.start(world, &promised)?;
        promised.appends = appends;
        see(world, &mut promised);
        self.live(world, &mut up, &mut promised, appends).map_err(|fault| fault.to_string())?;
        if promised.appends != APPENDS {
            return Err(format!("the life went on to append {} only", promised.appends));
        }
        world.disk.crash_keeping(Kept::Nothing);
        self.start(world, &promised).map_err(|what| format!("second start: {what}"))?;
        Ok(1)
    }

    /// Starts; how many appends are there.
    fn start(&self, world: &World, promised: &Promised) -> Result<(Up, usize), String> {
        let (up, found) = open(world).map_err(|fault| format!("does not start: {fault}"))?;
        let mut left = found.as_slice();
        let mut appends = 0;
        let mut frontier = Frontier::default();
        let mut roots = BTreeMap::new();
        for pieces in self.appends() {
            let Some((these, rest)) = left.split_at_checked(pieces.len()) else { break };
            for (piece, (is_entry, head, payload)) in pieces.iter().zip(these) {
                let body = piece.body.as_ref().map(|body| body.payload.to_vec());
                let kind = if *is_entry { RecordKind::Entry } else { RecordKind::State };
                if (piece.kind, &piece.head, &body) != (kind, head, payload) {
                    return Err(format!("append {appends} is not what was written"));
                }
                if *is_entry {
                    frontier.push(leaf_hash(head));
                    roots.insert(frontier.tree_size(), frontier.root());
                }
            }
            (left, appends) = (rest, appends + 1);
        }
        if !left.is_empty() {
            return Err(format!("{} records that nobody wrote", left.len()));
        }
        if appends < promised.appends {
            return Err(format!("{} appends were promised, {appends} are there", promised.appends));
        }
        check_roots(world, promised, &roots)?;
        check_tiles(world, found.iter().filter(|(is_entry, ..)| *is_entry))?;
        self.check_views(world, &found.len())?;
        Ok((up, appends))
    }

    pub(crate) fn appends(&self) -> impl Iterator<Item = &Vec<Piece>> {
        self.steps.iter().filter_map(|step| match step {
            Step::Append(pieces) => Some(pieces),
            Step::Sign | Step::Snapshot => None,
        })
    }

    /// The log verifies to its end, and snapshot and log say together what the log says alone.
    fn check_views(&self, world: &World, records: &usize) -> Result<(), String> {
        let report = world.verify().map_err(|fault| format!("does not verify: {fault}"))?;
        if let Some(defect) = report.tail_defect {
            return Err(format!("the start left damage behind: {defect}"));
        }
        let restored = restore(&world.disk, &options(world), &|| self.empty());
        let (by_snapshot, place, useless) = restored.map_err(|fault| fault.to_string())?;
        if !useless.is_empty() {
            return Err(format!("snapshots of no use: {useless:?}"));
        }
        let covered = place.map_or(0, |place| place.records);
        let taken: Vec<_> = self.appends().flatten().take(*records).collect();
        let with = apply(by_snapshot, &taken, covered)?;
        if with != apply(self.empty(), &taken, 0)? {
            return Err(format!("the snapshot of {covered} records says something else"));
        }
        Ok(())
    }
}

/// The image of `replay` after the records behind the first `covered`.
fn apply(mut replay: Replay, records: &[&Piece], covered: u64) -> Result<Vec<Vec<u8>>, String> {
    let mut index = 0;
    for (place, piece) in (0..).zip(records) {
        if place >= covered {
            let body = piece.body.as_ref().map(|body| (&*body.payload, &*body.properties));
            let record = LogRecord { kind: piece.kind, index, head: &piece.head, body };
            replay.apply(record).map_err(|bad| bad.to_string())?;
        }
        index += u64::from(piece.kind == RecordKind::Entry);
    }
    let mut image = Vec::new();
    replay.image(&mut |head, body| {
        image.push(head.to_vec());
        if let Some((payload, properties)) = body {
            image.push([payload, b"|", properties].concat());
        }
    });
    Ok(image)
}

/// No root that was seen is lost or has another beside it, and the published checkpoint never goes
/// back.
fn check_roots(
    world: &World,
    promised: &Promised,
    roots: &BTreeMap<u64, [u8; 32]>,
) -> Result<(), String> {
    for (size, root) in &promised.roots {
        if roots.get(size) != Some(root) {
            return Err(format!("the root signed at size {size} is not that of the log"));
        }
    }
    let published = published(world).map_or(0, |checkpoint| checkpoint.tree_size);
    let newest = promised.roots.last_key_value().map_or(0, |(size, _)| *size);
    if published < newest {
        return Err(format!("the checkpoint went back from {newest} to {published}"));
    }
    Ok(())
}

/// The tiles of the published checkpoint are there, and what its entries give.
fn check_tiles<'a>(world: &World, entries: impl Iterator<Item = &'a Record>) -> Result<(), String> {
    let size = published(world).map_or(0, |checkpoint| checkpoint.tree_size);
    let (mut edge, mut tree) = (TileEdge::default(), Frontier::default());
    let mut tiles = BTreeMap::new();
    for (_, entry, _) in entries.take(size as usize) {
        let mut take = |tile: Tile, bytes: &[u8]| {
            tiles.insert(tile, bytes.to_vec());
            Ok::<(), EntryTooLong>(())
        };
        edge.push(&mut tree, entry, &mut take).unwrap();
    }
    tiles.extend(edge.partial().map(|(tile, bytes)| (tile, bytes.to_vec())));
    for (tile, expected) in tiles {
        let path = tile.path();
        let full = tile.full().path();
        let is_right = match (world.disk.bytes(&path), world.disk.bytes(&full)) {
            (Some(found), _) => found == expected,
            // Entries that nobody signed yet filled the place.
            (None, full) => full.is_some_and(|full| full.starts_with(&expected)),
        };
        if !is_right {
            return Err(format!("{path} is missing or wrong"));
        }
    }
    Ok(())
}

fn published(world: &World) -> Option<Checkpoint> {
    let note = String::from_utf8(world.disk.bytes("checkpoint")?).unwrap();
    Some(Checkpoint::open(&note, world.key.verifier()).unwrap())
}

/// Looks at the published checkpoint as a stranger would.
fn see(world: &World, promised: &mut Promised) {
    if let Some(seen) = published(world) {
        let root = promised.roots.entry(seen.tree_size).or_insert(seen.root_hash);
        assert_eq!(*root, seen.root_hash, "two roots at size {}", seen.tree_size);
    }
}

/// Starts the log; the records that it found.
pub(crate) fn open(world: &World) -> Result<(Up, Vec<Record>), StorageFault> {
    let mut found = Vec::new();
    let (log, recovery) = Log::open(world.disk.clone(), options(world), &mut |record| {
        let body = record.body.map(|body| body.payload.to_vec());
        found.push((record.kind == RecordKind::Entry, record.head.to_vec(), body));
    })?;
    Ok((Up { log, recovery }, found))
}

fn new_world() -> World {
    let mut world = World::new(5);
    world.segment_bytes = SEGMENT_BYTES;
    world
}

fn options(world: &World) -> LogOptions {
    LogOptions { verifier: world.key.verifier().clone(), segment_bytes: SEGMENT_BYTES, tiles: true }
}

/// What the writer does with one append, and the integrator with its entries.
fn append(up: &mut Up, pieces: &[Piece], number: usize) -> Result<(), StorageFault> {
    let mut batch = Batch::default();
    for piece in pieces {
        batch.push(piece.kind, piece.body.clone(), |out| out.extend_from_slice(&piece.head));
    }
    let synced = up.log.append(&[(BatchId { shard: 0, number: number as u64 }, batch)])?;
    assert_eq!(synced.len(), 1);
    let mut entries = pieces.iter().filter(|piece| piece.kind == RecordKind::Entry);
    entries.try_for_each(|piece| up.recovery.integrate(&piece.head))
}

fn sign(world: &World, up: &mut Up, promised: &mut Promised) -> Result<(), StorageFault> {
    let signed = up.recovery.sign(&world.key).map(|_| ());
    see(world, promised);
    signed
}

/// A life: what a broker with sessions wrote, cut into appends, signed and snapshot in between.
fn steps() -> Vec<Step> {
    let pieces = pieces_of(&what_a_broker_wrote(3));
    let mut steps = Vec::new();
    let mut left = pieces.as_slice();
    for number in 0..APPENDS {
        let (these, rest) = left.split_at(1 + number % 5);
        left = rest;
        steps.push(Step::Append(these.to_vec()));
        if number % 4 == 3 {
            steps.push(Step::Sign);
        }
        if number % 7 == 6 {
            steps.push(Step::Snapshot);
        }
    }
    steps
}

fn pieces_of(disk: &SimDisk) -> Vec<Piece> {
    let world = World::new(0);
    let mut pieces = Vec::new();
    Log::open(disk.clone(), options(&world), &mut |record| {
        let body = record.body.map(|body| Body {
            salt: *body.salt,
            payload: Bytes::copy_from_slice(body.payload),
            properties: Bytes::copy_from_slice(body.properties),
        });
        pieces.push(Piece { kind: record.kind, head: record.head.to_vec(), body });
    })
    .unwrap();
    pieces
}

/// What can befall one operation.
fn points_of(operation: u64) -> impl Iterator<Item = Point> {
    let power = [Accident::PowerLossBefore, Accident::PowerLossAfter]
        .into_iter()
        .flat_map(|accident| Kept::ALL.map(|kept| (accident, Some(kept))));
    let failures = [Accident::Eio, Accident::EioButDone].into_iter().flat_map(|accident| {
        [None, Some(Kept::Nothing), Some(Kept::Everything)].map(|kept| (accident, kept))
    });
    let full = [(Accident::Enospc, None)];
    let all = power.chain(failures).chain(full);
    all.map(move |(accident, kept)| Point { operation, accident, kept })
}

/// Tries all points of `script` on two threads; how many were tried.
fn try_all(script: &Script) -> usize {
    let (next, tried) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(point) = script.points.get(number) else { return };
                    let starts = number.is_multiple_of(STARTS_TRIED_EVERY);
                    let count = script
                        .try_point(*point, starts)
                        .unwrap_or_else(|what| panic!("{point:?}: {what}"));
                    tried.fetch_add(count, Ordering::Relaxed);
                }
            });
        }
    });
    tried.into_inner()
}

#[test]
fn nothing_that_was_promised_is_missing_whatever_befalls_any_operation() {
    let script = Script::new();
    let tried = try_all(&script);
    println!("{tried} crash points, {} of them while the log was alive", script.points.len());
    assert!(tried >= POINTS_MIN, "only {tried} points were tried");
}

#[test]
fn the_same_points_find_a_log_without_syncs() {
    for lie in ["segments", "state", "history", "checkpoint"] {
        let mut script = Script::new();
        script.lie = Some(lie);
        let lost = |point: &&Point| point.kept == Some(Kept::Nothing);
        let points = script.points.iter().filter(lost).step_by(10);
        let found = points.clone().filter(|point| script.try_point(**point, false).is_err());
        let (found, tried) = (found.count(), points.count());
        println!("a lie about {lie}: {found} of {tried} points find it");
        assert!(found > 0, "nobody noticed that {lie} is not synced");
    }
}

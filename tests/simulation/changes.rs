//! A hundred thousand changes to a log at rest: bits flipped, bytes overwritten, files cut, records,
//! batches, segments and signed tree heads exchanged or taken out. Verification finds each of them and
//! names the right place: the file, a byte of the very record (or header, trailer, unused space) that
//! was changed, and the index of the entry there.
//!
//! The changes follow from a seed, which is printed; `AVOW_SEED=N` plays them again. What
//! verification cannot find by definition stands in [`crate::unfound`], with the reason.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use avow::evidence::{LogKey, RecordKind};
use avow::storage::checkpoint_store::HISTORY_RECORD_BYTES;
use avow::storage::segment::{
    BATCH_HEADER_BYTES, BATCH_TRAILER_BYTES, BatchHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
    records,
};
use avow::storage::verify::verify_disk;
use avow::storage::{Damage, Defect, StorageFault, VerifyFault, VerifyReport};

use crate::disk::{Random, SimDisk};
use crate::tamper::at_rest;

const CHANGES: usize = 100_000;
const SEGMENT_BYTES: u64 = 3072;
const APPENDS: u32 = 16;

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A part of a file that a defect can name.
#[derive(Clone, Debug)]
struct Unit {
    what: What,
    start: usize,
    end: usize,
    /// Index of the entry there, or of the next one.
    index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Header,
    BatchHeader,
    Record,
    BatchTrailer,
    Unused,
}

/// The log as it was written.
pub(crate) struct Clean {
    pub(crate) files: Files,
    units: BTreeMap<String, Vec<Unit>>,
    pub(crate) key: LogKey,
    pub(crate) report: VerifyReport,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    FlipBit,
    Overwrite,
    Zero,
    Cut,
    DropBytes,
    DropRecord,
    DropBatch,
    DropSegment,
    DropTreeHead,
    SwapRecords,
    SwapBatches,
    SwapSegments,
    SwapTreeHeads,
}

impl Change {
    /// Whether whole bytes stand elsewhere afterwards.
    fn moves(self) -> bool {
        !matches!(self, Self::FlipBit | Self::Overwrite | Self::Zero | Self::Cut)
    }

    const ALL: [Self; 13] = [
        Self::FlipBit,
        Self::Overwrite,
        Self::Zero,
        Self::Cut,
        Self::DropBytes,
        Self::DropRecord,
        Self::DropBatch,
        Self::DropSegment,
        Self::DropTreeHead,
        Self::SwapRecords,
        Self::SwapBatches,
        Self::SwapSegments,
        Self::SwapTreeHeads,
    ];
}

impl Clean {
    pub(crate) fn new() -> Self {
        let world = at_rest(SEGMENT_BYTES, APPENDS);
        let report = world.verify().unwrap();
        let files = world.files();
        let segments = files.iter().filter(|(name, _)| name.starts_with("segments/"));
        let units: BTreeMap<_, _> =
            segments.map(|(name, bytes)| (name.clone(), units_of(bytes))).collect();
        assert!(units.len() >= 3 && report.tail_defect.is_none(), "{report:?}");
        assert!(report.unsigned_tail_entries > 0 && report.checkpoints > 1, "{report:?}");
        Self { files, units, key: world.key, report }
    }

    pub(crate) fn verify(&self, files: &Files) -> Result<VerifyReport, VerifyFault> {
        verify_disk(&SimDisk::of_files(files), self.key.verifier(), &mut |_| {})
    }

    /// The segment in which the tree has `size` leaves, and the first byte past the batch that they
    /// end with.
    pub(crate) fn end_of(&self, size: u64) -> (String, usize) {
        let trailers = |units: &Vec<Unit>| {
            let of_batch = units.iter().filter(|unit| unit.what == What::BatchTrailer);
            of_batch.filter(|unit| unit.index == size).map(|unit| unit.end).next_back()
        };
        let mut found =
            self.units.iter().filter_map(|(name, units)| Some((name.clone(), trailers(units)?)));
        found.next_back().unwrap()
    }

    /// One change, which is a change; never one of those that are not found.
    fn changed(&self, random: &mut Random) -> (Change, Files) {
        loop {
            let change = Change::ALL[random.below(Change::ALL.len() as u64) as usize];
            let mut files = self.files.clone();
            self.apply(change, &mut files, random);
            if files != self.files {
                return (change, files);
            }
        }
    }

    fn apply(&self, change: Change, files: &mut Files, random: &mut Random) {
        let pick = |count: usize, random: &mut Random| random.below(count as u64) as usize;
        let any = self.files.keys().nth(pick(self.files.len(), random)).unwrap().clone();
        let segment = self.units.keys().nth(pick(self.units.len(), random)).unwrap().clone();
        let other = self.units.keys().nth(pick(self.units.len(), random)).unwrap().clone();
        match change {
            Change::FlipBit => {
                let bytes = files.get_mut(&any).unwrap();
                let place = pick(bytes.len(), random);
                bytes[place] ^= 1 << random.below(8);
            }
            Change::Overwrite | Change::Zero => {
                let bytes = files.get_mut(&any).unwrap();
                let start = pick(bytes.len(), random);
                let end = (start + 1 + pick(64, random)).min(bytes.len());
                let fill = |byte: &mut u8| match change {
                    Change::Zero => *byte = 0,
                    _ => *byte = random.next() as u8,
                };
                bytes[start..end].iter_mut().for_each(fill);
            }
            Change::Cut => {
                let bytes = files.get_mut(&any).unwrap();
                let kept = pick(bytes.len(), random);
                bytes.truncate(kept);
            }
            Change::DropBytes => {
                let bytes = files.get_mut(&any).unwrap();
                let start = pick(bytes.len(), random);
                let end = (start + 1 + pick(32, random)).min(bytes.len());
                take_out(bytes, start, end);
            }
            Change::DropRecord | Change::DropBatch => {
                let parts = self.parts(&segment, change == Change::DropBatch);
                let (start, end) = parts[pick(parts.len(), random)];
                take_out(files.get_mut(&segment).unwrap(), start, end);
            }
            Change::DropSegment => drop(files.remove(&segment)),
            Change::SwapRecords | Change::SwapBatches => {
                let parts = self.parts(&segment, change == Change::SwapBatches);
                let (one, two) = (pick(parts.len(), random), pick(parts.len(), random));
                swap(files.get_mut(&segment).unwrap(), parts[one.min(two)], parts[one.max(two)]);
            }
            Change::SwapSegments => {
                files.insert(segment.clone(), self.files[&other].clone());
                files.insert(other, self.files[&segment].clone());
            }
            Change::DropTreeHead | Change::SwapTreeHeads => {
                let history = files.get_mut("history").unwrap();
                let count = history.len() / HISTORY_RECORD_BYTES;
                let head = |number: usize| {
                    (number * HISTORY_RECORD_BYTES, (number + 1) * HISTORY_RECORD_BYTES)
                };
                let (one, two) = (pick(count, random), pick(count, random));
                match change {
                    // The newest; for the others see `crate::unfound`.
                    Change::DropTreeHead => history.truncate(head(count - 1).0),
                    _ => swap(history, head(one.min(two)), head(one.max(two))),
                }
            }
        }
    }

    /// Where the records, or the batches, of a segment stand.
    fn parts(&self, segment: &str, batches: bool) -> Vec<(usize, usize)> {
        let units = &self.units[segment];
        if !batches {
            let records = units.iter().filter(|unit| unit.what == What::Record);
            return records.map(|unit| (unit.start, unit.end)).collect();
        }
        let starts = units.iter().filter(|unit| unit.what == What::BatchHeader);
        let ends = units.iter().filter(|unit| unit.what == What::BatchTrailer);
        starts.zip(ends).map(|(start, end)| (start.start, end.end)).collect()
    }

    /// Fails unless the change was found, at the right place.
    fn judge(
        &self,
        files: &Files,
        verified: Result<VerifyReport, VerifyFault>,
        moves: bool,
    ) -> Result<(), String> {
        match verified {
            Err(VerifyFault::Defect(defect)) => self.judge_place(files, &defect, moves),
            // A note that is not believed is named by its file: it has one line of each kind.
            Err(VerifyFault::Fault(StorageFault::Checkpoint { file, .. })) => {
                let is_right = self.first_change(files, file).is_some();
                if is_right { Ok(()) } else { Err(format!("{file} was not changed")) }
            }
            Err(VerifyFault::Fault(fault)) => Err(format!("no defect: {fault}")),
            Ok(report) => self.judge_tail(files, &report, moves),
        }
    }

    /// What is past the newest checkpoint is reported, not judged.
    fn judge_tail(&self, files: &Files, report: &VerifyReport, moves: bool) -> Result<(), String> {
        if report.signed_entries != self.report.signed_entries {
            return Err(format!("another range: {report:?}"));
        }
        let Some((file, first)) = self.first_change_of_segments(files) else {
            return Err("unseen".to_owned());
        };
        let unit = self.unit_at(&file, first);
        if unit.index < report.signed_entries {
            return Err(format!("unseen below the checkpoint: {file}, byte {first}"));
        }
        match &report.tail_defect {
            Some(defect) => self.judge_place(files, defect, moves),
            None if report.unsigned_tail_entries < self.report.unsigned_tail_entries => Ok(()),
            // State records leave no count behind when they are the last.
            None if report.records < self.report.records => Ok(()),
            None => Err(format!("unseen in the tail: {file}, byte {first}")),
        }
    }

    fn judge_place(&self, files: &Files, defect: &Defect, moves: bool) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what}: {defect}"));
        if defect.file == "history" {
            if self.first_change(files, "history").is_none() {
                // The entries do not give the root: then they were changed.
                return match defect.damage {
                    Damage::Root if self.first_change_of_segments(files).is_some() => Ok(()),
                    _ => wrong("the history was not changed"),
                };
            }
            // Of two tree heads out of order, either may be the wrong one.
            let off_by_max = usize::from(moves);
            let named = defect.offset as usize / HISTORY_RECORD_BYTES;
            let is_changed = |number: usize| {
                let record = number * HISTORY_RECORD_BYTES..(number + 1) * HISTORY_RECORD_BYTES;
                files["history"].get(record.clone()) != self.files["history"].get(record)
            };
            let is_right = (named.saturating_sub(off_by_max)..=named + off_by_max).any(is_changed);
            return if is_right { Ok(()) } else { wrong("another tree head") };
        }
        let Some((file, first)) = self.first_change_of_segments(files) else {
            return wrong("the segments were not changed");
        };
        let unit = self.unit_at(&file, first);
        if defect.damage == Damage::EntriesMissing {
            let is_right = defect.index == unit.index;
            return if is_right { Ok(()) } else { wrong("another number of entries") };
        }
        if defect.file != file {
            return wrong(&format!("{file} was changed"));
        }
        let offset = defect.offset as usize;
        if matches!(defect.damage, Damage::FileLength | Damage::Missing) {
            let whole = offset == first || offset == 0;
            return if whole { Ok(()) } else { wrong("the file was cut elsewhere") };
        }
        let (named, changed) = (self.unit_at(&file, offset), &files[&file]);
        let (start, end, indices) = self.batch_around(&file, unit);
        let is_right = match moves {
            // Records that were moved fit each other no more; their batch says so at its end.
            // An entry from elsewhere may be counted there.
            true => {
                let indices = *indices.start()..=indices.end() + 1;
                (start..end).contains(&offset) && indices.contains(&defect.index)
            }
            // Bodies are looked at when the form of the whole batch is right. What was overwritten
            // with zeroes looks like unused space, which ends behind it.
            false => {
                let zeroes = changed[first..].iter().take_while(|byte| **byte == 0).count();
                let range = named.start..named.end;
                let is_changed = changed.get(range.clone()) != self.files[&file].get(range);
                (is_changed && defect.index == named.index && start <= named.start)
                    || (offset == first + zeroes && indices.contains(&defect.index))
            }
        };
        if is_right { Ok(()) } else { wrong(&format!("byte {first} was changed, of {unit:?}")) }
    }

    /// Where the batch that has `unit` begins and ends, and the indices in it; or of the unit, if it
    /// is in none.
    fn batch_around(&self, file: &str, unit: &Unit) -> (usize, usize, RangeInclusive<u64>) {
        let of_batch = |place: &&Unit| matches!(place.what, What::BatchHeader | What::BatchTrailer);
        let mut around = self.units[file].iter().filter(of_batch).collect::<Vec<_>>();
        around.dedup_by_key(|place| place.what);
        let mut batches = around.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        let found =
            batches.find(|(header, trailer)| header.start <= unit.start && unit.end <= trailer.end);
        let (first, last) = found.unwrap_or((unit, unit));
        (first.start, last.end, first.index..=last.index)
    }

    fn first_change_of_segments(&self, files: &Files) -> Option<(String, usize)> {
        let mut segments = self.units.keys();
        segments.find_map(|name| Some((name.clone(), self.first_change(files, name)?)))
    }

    /// The first byte of a file that is not what it was.
    fn first_change(&self, files: &Files, name: &str) -> Option<usize> {
        let clean = &self.files[name];
        let Some(bytes) = files.get(name) else { return Some(0) };
        let differs = clean.iter().zip(bytes).position(|(was, is)| was != is);
        let length = (clean.len() != bytes.len()).then(|| clean.len().min(bytes.len()));
        differs.or(length)
    }

    fn unit_at(&self, file: &str, offset: usize) -> &Unit {
        let units = &self.units[file];
        units.iter().find(|unit| offset < unit.end).unwrap_or(units.last().unwrap())
    }
}

/// Takes bytes out of a file, whose length stays.
fn take_out(bytes: &mut Vec<u8>, start: usize, end: usize) {
    let length = bytes.len();
    bytes.drain(start..end);
    bytes.resize(length, 0);
}

/// Exchanges two parts of a file; the first stands before the second.
fn swap(bytes: &mut Vec<u8>, one: (usize, usize), two: (usize, usize)) {
    if one == two {
        return;
    }
    let parts = [
        &bytes[..one.0],
        &bytes[two.0..two.1],
        &bytes[one.1..two.0],
        &bytes[one.0..one.1],
        &bytes[two.1..],
    ];
    *bytes = parts.concat();
}

/// The parts of a segment, in order.
fn units_of(bytes: &[u8]) -> Vec<Unit> {
    let header = SegmentHeader::decode(bytes).unwrap();
    let mut index = header.first_index;
    let mut units = vec![Unit { what: What::Header, start: 0, end: SEGMENT_HEADER_BYTES, index }];
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Ok(batch) = BatchHeader::decode(&bytes[offset..], &header.marker) {
        let end = offset + batch.bytes as usize;
        let trailer = end - BATCH_TRAILER_BYTES;
        let start = offset;
        units.push(Unit {
            what: What::BatchHeader,
            start,
            end: offset + BATCH_HEADER_BYTES,
            index,
        });
        let mut starts: Vec<_> =
            records(&bytes[offset..end]).map(|it| (offset + it.offset, it.kind)).collect();
        starts.push((trailer, RecordKind::State));
        for pair in starts.windows(2) {
            let ((start, kind), (end, _)) = (pair[0], pair[1]);
            units.push(Unit { what: What::Record, start, end, index });
            index += u64::from(kind == RecordKind::Entry);
        }
        units.push(Unit { what: What::BatchTrailer, start: trailer, end, index });
        offset = end;
    }
    units.push(Unit { what: What::Unused, start: offset, end: bytes.len(), index });
    units
}

fn seed() -> u64 {
    let given = std::env::var("AVOW_SEED").ok().map(|text| text.parse().expect("a number"));
    given.unwrap_or(20_261_130)
}

#[test]
fn f04_a_hundred_thousand_changes_are_found_and_located() {
    let seed = seed();
    println!("AVOW_SEED={seed}");
    let clean = Clean::new();
    let found = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (clean, found) = (&clean, &found);
            scope.spawn(move || {
                let mut random = Random::new(seed ^ thread);
                let mut kinds = BTreeMap::new();
                for number in 0..CHANGES / 2 {
                    let (change, files) = clean.changed(&mut random);
                    let verified = clean.verify(&files);
                    if let Err(what) = clean.judge(&files, verified, change.moves()) {
                        panic!("AVOW_SEED={seed}, thread {thread}, {number}, {change:?}: {what}");
                    }
                    *kinds.entry(change).or_insert(0) += 1;
                    found.fetch_add(1, Ordering::Relaxed);
                }
                println!("{kinds:?}");
                assert_eq!(kinds.len(), Change::ALL.len());
            });
        }
    });
    assert_eq!(found.into_inner(), CHANGES);
}

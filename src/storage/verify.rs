//! Re-derives the whole log from its bytes and compares it with everything that was signed.
//!
//! Reads only, and may run while the log is being written: then it judges up to the newest
//! checkpoint, and what lies past it is a tail. It cannot see that the whole directory was
//! replaced by an older copy; that takes a witness. The invariant: if it answers with a report,
//! every byte that a signed checkpoint depends on, and every byte around, is as it was written.

use super::checkpoint_store::{
    CHECKPOINT_FILE, HISTORY_FILE, HISTORY_RECORD_BYTES, History, read_published,
};
use super::disk::{Disk, RealDisk};
use super::erasure::Coverage;
use super::fault::{Damage, Defect, Doing, StorageFault};
use super::recovery::is_unused;
use super::scan::{Expected, ScanFault, SegmentScan, segment_numbers, segment_path};
use super::segment::{Link, records};
use crate::evidence::tree::{Frontier, leaf_hash};
use crate::evidence::{Checkpoint, RecordKind, VerifierKey};

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Entries covered by a signed checkpoint: the validated range is `0..signed_entries`.
    pub signed_entries: u64,
    /// Entries past it that are whole but not signed yet.
    pub unsigned_tail_entries: u64,
    /// Damage past the last signed entry: a batch that was being written, or tampering with what
    /// nothing protects yet. While no broker runs, it should not be there.
    pub tail_defect: Option<Defect>,
    /// Records of every kind.
    pub records: u64,
    /// Bytes of segments that were read and judged.
    pub bytes: u64,
    /// Segments in use.
    pub segments: u64,
    /// Checkpoints whose signature and root were checked.
    pub checkpoints: u64,
    /// Bodies that were erased, as entries say.
    pub erased_bodies: u64,
    /// Erasures that began and are not done.
    pub unfinished_erasures: u64,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Entries so far.
    pub entries: u64,
    /// Entries that the newest checkpoint covers.
    pub signed_entries: u64,
    /// Bytes so far.
    pub bytes: u64,
}

impl From<Defect> for VerifyFault {
    fn from(defect: Defect) -> Self {
        Self::Defect(defect)
    }
}

/// Why a log does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyFault {
    /// Tampered with or damaged, and where.
    #[error("the log does not verify: {0}")]
    Defect(Defect),
    /// It cannot be read, or its newest checkpoint is not believed.
    #[error(transparent)]
    Fault(#[from] StorageFault),
}

/// Verifies the log in the directory `dir`; see [`verify_disk`].
pub fn verify(
    dir: &std::path::Path,
    key: &VerifierKey,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, VerifyFault> {
    verify_against(&RealDisk::new(dir), key, None, progress)
}

/// Verifies a log, calling `progress` after every batch.
///
/// # Errors
/// At the first defect below the newest checkpoint, or in any checkpoint.
pub fn verify_disk<D: Disk>(
    disk: &D,
    key: &VerifierKey,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, VerifyFault> {
    verify_against(disk, key, None, progress)
}

/// The same; `older`, a checkpoint of this log that somebody kept, must be a prefix of it.
///
/// # Errors
/// Likewise, and if it is not.
pub fn verify_against<D: Disk>(
    disk: &D,
    key: &VerifierKey,
    older: Option<&Checkpoint>,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, VerifyFault> {
    let history = match disk.open(HISTORY_FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(StorageFault::io(Doing::Open, HISTORY_FILE))?),
    };
    // The published checkpoint is read first: the history is never behind it.
    let published = published(disk, key)?;
    let history = history.as_ref().map(|file| History::open(file, key.name())).transpose()?;
    let signatures = Signatures::new(history, key, published.clone())?;
    let report = VerifyReport {
        signed_entries: signatures.signed_entries,
        unsigned_tail_entries: 0,
        tail_defect: None,
        records: 0,
        bytes: 0,
        segments: 0,
        checkpoints: 0,
        erased_bodies: 0,
        unfinished_erasures: 0,
        checkpoint: published,
    };
    let coverage = Coverage::new(disk)?;
    let tree = Frontier::default();
    let mut walk = Walk { report, tree, signatures, older, coverage, progress };
    walk.check_older().map_err(VerifyFault::Defect)?;
    match walk.segments(disk, key) {
        Ok(()) => {}
        Err(ScanFault::Disk(fault)) => return Err(fault.into()),
        Err(ScanFault::Defect(defect)) => walk.judge(defect)?,
    }
    walk.finish()
}

pub(super) fn published<D: Disk>(
    disk: &D,
    key: &VerifierKey,
) -> Result<Option<Checkpoint>, StorageFault> {
    let note = read_published(disk)?;
    let opened = note.as_deref().map(|note| Checkpoint::open(note, key)).transpose();
    opened.map_err(|source| StorageFault::Checkpoint { file: CHECKPOINT_FILE, source })
}

struct Walk<'a, D: Disk> {
    report: VerifyReport,
    tree: Frontier,
    signatures: Signatures<'a, D>,
    older: Option<&'a Checkpoint>,
    coverage: Coverage,
    progress: &'a mut dyn FnMut(VerifyProgress),
}

impl<D: Disk> Walk<'_, D> {
    fn segments(&mut self, disk: &D, key: &VerifierKey) -> Result<(), ScanFault> {
        let numbers = segment_numbers(disk)?;
        let options =
            super::log::LogOptions { verifier: key.clone(), segment_bytes: 0, tiles: false };
        let origin = options.origin_hash();
        let mut expected = Expected { origin, first_index: 0, link: Link::default() };
        for (number, found) in (0..).zip(&numbers) {
            let is_last = numbers.last() == Some(found);
            if number == *found && is_last && is_unused(disk, number)? {
                return Ok(());
            }
            let mut scan = SegmentScan::open(disk, number, Some(&expected))?;
            self.report.segments += 1;
            self.batches(&mut scan)?;
            self.report.bytes += scan.header().bytes;
            expected.first_index = scan.next_index();
            expected.link = scan.link();
        }
        Ok(())
    }

    fn batches(&mut self, scan: &mut SegmentScan<D::File>) -> Result<(), ScanFault> {
        while let Some(span) = scan.peek()? {
            if let Some(defect) = self.coverage.take(scan, &span, false)? {
                return Err(ScanFault::Defect(defect));
            }
            for record in records(scan.bytes(&span)?) {
                self.report.records += 1;
                if record.kind == RecordKind::Entry {
                    self.tree.push(leaf_hash(&record.head));
                    self.signatures.check(&self.tree)?;
                    self.check_older().map_err(ScanFault::Defect)?;
                }
            }
            scan.advance(&span.header, span.crc);
            (self.progress)(VerifyProgress {
                entries: self.tree.tree_size(),
                signed_entries: self.report.signed_entries,
                bytes: self.report.bytes + scan.offset(),
            });
        }
        match scan.unused_space_defect()? {
            Some(defect) => Err(ScanFault::Defect(defect)),
            None => Ok(()),
        }
    }

    /// Compares the tree with the older checkpoint, if it is of this size.
    fn check_older(&self) -> Result<(), Defect> {
        match self.older.filter(|older| older.tree_size == self.tree.tree_size()) {
            Some(older) if older.root_hash != self.tree.root() => Err(Defect {
                file: CHECKPOINT_FILE.to_owned(),
                offset: 0,
                index: older.tree_size,
                damage: Damage::NotAPrefix,
            }),
            _ => Ok(()),
        }
    }

    /// Below the newest checkpoint a defect is the end; past it, it is reported.
    fn judge(&mut self, defect: Defect) -> Result<(), VerifyFault> {
        let is_signed = self.tree.tree_size() < self.report.signed_entries
            || matches!(
                defect.damage,
                Damage::NotAPrefix | Damage::Root | Damage::History | Damage::HistorySignature
            );
        if is_signed {
            return Err(VerifyFault::Defect(defect));
        }
        self.report.tail_defect = Some(defect);
        Ok(())
    }

    fn finish(mut self) -> Result<VerifyReport, VerifyFault> {
        let entries = self.tree.tree_size();
        let kept = self.older.map_or(0, |older| older.tree_size);
        if entries < self.report.signed_entries.max(kept) {
            return Err(VerifyFault::Defect(Defect {
                file: segment_path(self.report.segments),
                offset: 0,
                index: entries,
                damage: Damage::EntriesMissing,
            }));
        }
        self.report.unsigned_tail_entries = entries - self.report.signed_entries;
        self.report.checkpoints = self.signatures.checked;
        self.report.erased_bodies = self.coverage.erased;
        match self.coverage.finish() {
            Ok(unfinished) => self.report.unfinished_erasures = unfinished.len() as u64,
            Err(defect) if defect.index < self.report.signed_entries => {
                return Err(VerifyFault::Defect(defect));
            }
            // Past what is signed: a batch that was being written.
            Err(defect) => self.report.tail_defect = self.report.tail_defect.or(Some(defect)),
        }
        Ok(self.report)
    }
}

/// Every checkpoint that was signed, met in order of size while the tree grows.
struct Signatures<'a, D: Disk> {
    history: Option<History<'a, D::File>>,
    key: &'a VerifierKey,
    /// Entries that the newest checkpoint covers.
    signed_entries: u64,
    /// The next record of the history.
    next: u64,
    /// The next size to compare at, with its root.
    due: Option<Checkpoint>,
    checked: u64,
}

impl<'a, D: Disk> Signatures<'a, D> {
    fn new(
        history: Option<History<'a, D::File>>,
        key: &'a VerifierKey,
        published: Option<Checkpoint>,
    ) -> Result<Self, VerifyFault> {
        let signed_entries = published.as_ref().map_or(0, |signed| signed.tree_size);
        let mut signatures = Self { history, key, signed_entries, next: 0, due: None, checked: 0 };
        signatures.check_published(published.as_ref())?;
        signatures.load(0).map_err(|fault| match fault {
            ScanFault::Defect(defect) => VerifyFault::Defect(defect),
            ScanFault::Disk(fault) => VerifyFault::Fault(fault),
        })?;
        Ok(signatures)
    }

    /// The published checkpoint must be the last of the history, or the last but those that were
    /// signed since it was read.
    fn check_published(&mut self, published: Option<&Checkpoint>) -> Result<(), VerifyFault> {
        let mut number = self.history.as_ref().map_or(0, |history| history.count);
        let mut newer = 0;
        while let (Some(history), Some(before)) = (&self.history, number.checked_sub(1)) {
            number = before;
            match history.read(number)? {
                Some(last) if Some(&last.checkpoint) == published => {
                    self.signed_entries = self.signed_entries.max(newer);
                    return Ok(());
                }
                Some(last) if last.checkpoint.tree_size > self.signed_entries => {
                    newer = newer.max(last.checkpoint.tree_size);
                }
                // The last record may be one that is being written.
                None if number + 1 == history.count => {}
                // The published one should stand behind this one, unless this one stands wrong.
                Some(last) if last.checkpoint.tree_size < self.signed_entries => {
                    let before = number.checked_sub(1).map(|before| history.read(before));
                    let before = before.transpose()?.flatten();
                    let size = before.map_or(0, |before| before.checkpoint.tree_size);
                    number += u64::from(size < last.checkpoint.tree_size);
                    break;
                }
                _ => break,
            }
        }
        if published.is_none() && number == 0 {
            self.signed_entries = newer;
            return Ok(());
        }
        Err(VerifyFault::Defect(self.defect(number, Damage::History)))
    }

    /// Compares the tree with the checkpoint of its size, if there is one.
    fn check(&mut self, tree: &Frontier) -> Result<(), ScanFault> {
        while let Some(due) = self.due.as_ref().filter(|due| due.tree_size == tree.tree_size()) {
            if due.root_hash != tree.root() {
                return Err(ScanFault::Defect(self.defect(self.next - 1, Damage::Root)));
            }
            self.checked += 1;
            self.load(tree.tree_size())?;
        }
        Ok(())
    }

    /// Takes the next record of the history and checks its signature.
    fn load(&mut self, after: u64) -> Result<(), ScanFault> {
        self.due = None;
        let Some(history) = &self.history else { return Ok(()) };
        if self.next >= history.count {
            return Ok(());
        }
        let record = history.read(self.next)?;
        let damage = match &record {
            // Nothing that was published can be torn.
            None if self.next + 1 == history.count && after >= self.signed_entries => {
                return Ok(());
            }
            None => Some(Damage::History),
            Some(signed) if signed.checkpoint.tree_size <= after => Some(Damage::History),
            Some(signed) => {
                let verified = self.key.verify(&signed.checkpoint, &signed.signature).is_ok();
                let is_ours = signed.key_id == self.key.id() && verified;
                (!is_ours).then_some(Damage::HistorySignature)
            }
        };
        if let Some(damage) = damage {
            return Err(ScanFault::Defect(self.defect(self.next, damage)));
        }
        self.next += 1;
        self.due = record.map(|signed| signed.checkpoint);
        Ok(())
    }

    fn defect(&self, number: u64, damage: Damage) -> Defect {
        let index = self.due.as_ref().map_or(self.signed_entries, |due| due.tree_size);
        let offset = number * HISTORY_RECORD_BYTES as u64;
        Defect { file: HISTORY_FILE.to_owned(), offset, index, damage }
    }
}

//! A broker's log on a simulated disk, with a memory of everything that was promised.

use std::collections::BTreeMap;
use std::sync::Arc;

use avow::broker::{Certified, ConnectionFacts};
use avow::evidence::tree::{Frontier, leaf_hash};
use avow::evidence::{Batch, BatchId, Body, Checkpoint, LogKey, RecordKind};
use avow::identity::{Identity, Role};
use avow::storage::checkpoint_store::CheckpointStore;
use avow::storage::segment::commitment_of;
use avow::storage::verify::verify_disk;
use avow::storage::{Log, LogOptions, Reader, StorageFault, Until, VerifyReport};
use avow::time::UnixNanos;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use crate::disk::{Random, SimDisk};

pub(crate) const ORIGIN: &str = "plant.example/log";

/// One record as it was handed in: whether it is an entry, its head, its payload.
pub(crate) type Record = (bool, Vec<u8>, Option<Vec<u8>>);

/// What a handshake tells of a client with a certificate that outlasts every history.
pub(crate) fn facts(role: Role, name: &str) -> Arc<ConnectionFacts> {
    Arc::new(ConnectionFacts {
        certificate: Some(Certified {
            identity: Identity::new("plant", role, name, "plant").unwrap(),
            x5t: [0; 32],
            spki_sha256: [0; 32],
            key: None,
            issuer_name: String::new(),
            serial: String::new(),
            not_before: UnixNanos::new(0),
            not_after: UnixNanos::from_seconds(2_000_000),
            path: None,
        }),
        peer: "127.0.0.1:9".parse().unwrap(),
        tls_version: "1.3",
        tls_suite: String::new(),
        exporter_sha256: [0; 32],
    })
}

/// The log while it is up.
pub(crate) struct Up {
    pub(crate) log: Log<SimDisk>,
    pub(crate) checkpoints: CheckpointStore<SimDisk>,
    pub(crate) tree: Frontier,
}

/// The disk and what was promised over it.
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) random: Random,
    pub(crate) key: LogKey,
    pub(crate) segment_bytes: u64,
    /// Records of every batch whose `Synced` was handed out.
    pub(crate) promised: Vec<Record>,
    /// Every checkpoint that anybody may have seen.
    pub(crate) roots: BTreeMap<u64, [u8; 32]>,
    batches: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(seed),
            random: Random::new(seed),
            key: LogKey::from_seed(ORIGIN, &[7; 32]).unwrap(),
            segment_bytes: 8192,
            promised: Vec::new(),
            roots: BTreeMap::new(),
            batches: 0,
        }
    }

    /// Starts the log; the records that it found.
    pub(crate) fn open(&self) -> Result<(Up, Vec<Record>), StorageFault> {
        let verifier = self.key.verifier().clone();
        let options = LogOptions { verifier, segment_bytes: self.segment_bytes, tiles: false };
        let mut found = Vec::new();
        let (log, recovery) = Log::open(self.disk.clone(), options, &mut |record| {
            let body = record.body.map(|body| body.payload.to_vec());
            found.push((record.kind == RecordKind::Entry, record.head.to_vec(), body));
        })?;
        let (checkpoints, tree) = (recovery.checkpoints, recovery.tree);
        Ok((Up { log, checkpoints, tree }, found))
    }

    /// Appends one to three batches in one go.
    pub(crate) fn append(&mut self, up: &mut Up) -> Result<(), StorageFault> {
        let mut batches = Vec::new();
        let mut records = Vec::new();
        for _ in 0..=self.random.below(3) {
            let id = BatchId { shard: 0, number: self.batches };
            self.batches += 1;
            batches.push((id, self.batch(&mut records)));
        }
        let first = up.log.next_index();
        let synced = up.log.append(&batches)?;
        let ids: Vec<_> = synced.iter().map(|synced| synced.batch()).collect();
        assert!(ids.iter().eq(batches.iter().map(|(id, _)| id)), "every batch has its token");
        assert_eq!(synced[0].first_index(), first);
        for (is_entry, head, _) in &records {
            if *is_entry {
                up.tree.push(leaf_hash(head));
            }
        }
        assert_eq!(up.tree.tree_size(), up.log.next_index());
        self.promised.append(&mut records);
        Ok(())
    }

    fn batch(&mut self, records: &mut Vec<Record>) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..=self.random.below(4) {
            let number = self.random.next();
            let payload = vec![number as u8; self.random.below(700) as usize];
            // Never zeroes, as no salt is: a body of zeroes is one that was erased.
            let salt = [number as u8 | 1; 16];
            let c = URL_SAFE_NO_PAD.encode(commitment_of(&salt, &payload));
            let (is_entry, has_body) = (!number.is_multiple_of(5), !number.is_multiple_of(3));
            let properties = match number.is_multiple_of(7) {
                true => vec![1, 1, (number % 2) as u8],
                false => Vec::new(),
            };
            let props = URL_SAFE_NO_PAD.encode(commitment_of(&salt, &properties));
            let head = match has_body {
                true if properties.is_empty() => {
                    format!(r#"{{"v":1,"type":"publish","t":{number},"c":"{c}"}}"#)
                }
                true => {
                    format!(
                        r#"{{"v":1,"type":"publish","t":{number},"c":"{c}","props":"{props}"}}"#
                    )
                }
                false => format!(r#"{{"v":1,"type":"disconnect","t":{number}}}"#),
            };
            let kind = if is_entry { RecordKind::Entry } else { RecordKind::State };
            let body = has_body.then(|| Body {
                salt,
                payload: Bytes::from(payload.clone()),
                properties: Bytes::from(properties),
            });
            batch.push(kind, body, |bytes| bytes.extend_from_slice(head.as_bytes()));
            records.push((is_entry, head.into_bytes(), has_body.then_some(payload)));
        }
        batch
    }

    /// Signs what is on disk.
    pub(crate) fn checkpoint(&mut self, up: &mut Up) -> Result<(), StorageFault> {
        let (origin, tree_size) = (ORIGIN.to_owned(), up.tree.tree_size());
        if tree_size == 0 {
            return Ok(());
        }
        let published = up
            .checkpoints
            .publish(&self.key, Checkpoint { origin, tree_size, root_hash: up.tree.root() });
        self.see_checkpoint();
        published
    }

    /// Remembers what stands in `checkpoint`; there must never be another root at its size.
    pub(crate) fn see_checkpoint(&mut self) {
        let Some(note) = self.disk.bytes("checkpoint") else { return };
        let note = String::from_utf8(note).unwrap();
        let seen = Checkpoint::open(&note, self.key.verifier()).unwrap();
        let root = *self.roots.entry(seen.tree_size).or_insert(seen.root_hash);
        assert_eq!(root, seen.root_hash, "two roots at size {}", seen.tree_size);
    }

    /// Every file on the disk.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.disk.files("").into_iter();
        names.map(|(name, _)| (name.clone(), self.disk.bytes(&name).unwrap())).collect()
    }

    pub(crate) fn verify(&self) -> Result<VerifyReport, avow::storage::VerifyFault> {
        verify_disk(&self.disk, self.key.verifier(), &mut |_| {})
    }

    pub(crate) fn reader(&self, until: Until) -> Reader<SimDisk> {
        Reader::open(self.disk.clone(), self.key.verifier(), until).unwrap()
    }

    /// Starts again after an accident and compares with what was promised. The found records
    /// become the promised ones: from now on they must stay.
    pub(crate) fn restart(&mut self) -> Result<Up, String> {
        let (mut up, found) = self.open().map_err(|fault| format!("does not start: {fault}"))?;
        if !found.starts_with(&self.promised) {
            let (promised, found) = (self.promised.len(), found.len());
            return Err(format!("{promised} records were promised, {found} are there or differ"));
        }
        self.promised = found;
        let report = self.verify().map_err(|fault| format!("does not verify: {fault}"))?;
        if let Some(defect) = report.tail_defect {
            return Err(format!("the start left damage behind: {defect}"));
        }
        for (size, root) in &self.roots {
            let leaves: Vec<_> = self.leaves().take(*size as usize).collect();
            if leaves.len() as u64 != *size || avow::evidence::tree::root_of(&leaves) != *root {
                return Err(format!("the checkpoint of size {size} is no prefix of the log"));
            }
        }
        self.checkpoint(&mut up).map_err(|fault| format!("cannot sign: {fault}"))?;
        Ok(up)
    }

    fn leaves(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
        let entries = self.promised.iter().filter(|(is_entry, ..)| *is_entry);
        entries.map(|(_, head, _)| leaf_hash(head))
    }
}

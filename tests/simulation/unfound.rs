//! What verification cannot find, because the log is then one that could have been written. Each row
//! is done here, and says what is reported instead and what does find it.

use avow::evidence::Checkpoint;
use avow::storage::checkpoint_store::HISTORY_RECORD_BYTES;

use crate::changes::{Clean, Files};
use crate::disk::SimDisk;
use crate::world::{ORIGIN, World};

/// One change that is no defect.
struct Unfound {
    what: &'static str,
    /// Makes the change; the number of entries that are reported as signed then.
    change: fn(&Clean, &mut Files) -> u64,
    /// Why it is none, and what shows it.
    why: &'static str,
}

/// The whole table.
const NOT_FOUND: [Unfound; 9] = [
    Unfound {
        what: "the file `checkpoint` is missing",
        change: |clean, files| {
            files.remove("checkpoint");
            clean.report.signed_entries
        },
        why: "the history has it: the same range is verified, and the next start publishes it again",
    },
    Unfound {
        what: "an older checkpoint of this log stands in its place",
        change: |clean, files| {
            files.insert("checkpoint".into(), clean.note_of(0));
            clean.report.signed_entries
        },
        why: "as above",
    },
    Unfound {
        what: "a tree head is taken out of the middle of the history",
        change: |clean, files| {
            let history = files.get_mut("history").unwrap();
            history.drain(HISTORY_RECORD_BYTES..2 * HISTORY_RECORD_BYTES);
            clean.report.signed_entries
        },
        why: "the later ones cover what it did; whoever keeps the checkpoint can still prove it",
    },
    Unfound {
        what: "less than a whole record stands behind the history",
        change: |clean, files| {
            files.get_mut("history").unwrap().extend([7; HISTORY_RECORD_BYTES - 1]);
            clean.report.signed_entries
        },
        why: "it is what a crash leaves of a tree head that nobody saw; the next one overwrites it",
    },
    Unfound {
        what: "a segment that was never begun stands behind the last",
        change: |clean, files| {
            let name = format!("segments/{:08}.seg", clean.report.segments);
            files.insert(name, vec![0; 4096]);
            clean.report.signed_entries
        },
        why: "it is made ahead while the broker runs, and taken away at the next start",
    },
    Unfound {
        what: "a file that is none of ours stands among the segments",
        change: |clean, files| {
            files.insert("segments/notes.txt".into(), b"hello".to_vec());
            clean.report.signed_entries
        },
        why: "nothing reads it",
    },
    Unfound {
        what: "other entries stand past the newest checkpoint",
        change: |clean, files| {
            *files = clean.with_another_tail();
            clean.report.signed_entries
        },
        why: "nothing signed covers them yet: they are reported as the unsigned tail, a second's worth",
    },
    Unfound {
        what: "the newest tree heads are gone, from the history and from `checkpoint`",
        change: |clean, files| {
            files.get_mut("history").unwrap().truncate(HISTORY_RECORD_BYTES);
            files.insert("checkpoint".into(), clean.note_of(0));
            clean.head(0).tree_size
        },
        why: "a shorter signed range and a longer unsigned tail are reported; a witness, a receipt or \
              a kept checkpoint shows that more was signed",
    },
    Unfound {
        what: "the whole directory is an older copy of itself",
        change: |clean, files| {
            *files = clean.older();
            clean.head(0).tree_size
        },
        why: "it is a whole log; a witness, a receipt or a kept checkpoint shows that there was more",
    },
];

impl Clean {
    /// The tree head of a record of the history.
    fn head(&self, number: usize) -> Checkpoint {
        let record = &self.files["history"][number * HISTORY_RECORD_BYTES..];
        Checkpoint {
            origin: ORIGIN.to_owned(),
            tree_size: u64::from_le_bytes(record[..8].try_into().unwrap()),
            root_hash: record[8..40].try_into().unwrap(),
        }
    }

    fn note_of(&self, number: usize) -> Vec<u8> {
        self.key.sign(&self.head(number)).into_bytes()
    }

    /// The log of another life that was the same up to the newest checkpoint.
    fn with_another_tail(&self) -> Files {
        let mut world = World::new(77);
        let mut files = self.files.clone();
        let (segment, place) = self.end_of(self.report.signed_entries);
        files.retain(|name, _| !name.starts_with("segments/") || *name <= segment);
        files.get_mut(&segment).unwrap()[place..].fill(0);
        world.disk = SimDisk::of_files(&files);
        world.segment_bytes = 3072;
        let (mut up, _) = world.open().unwrap();
        world.append(&mut up).unwrap();
        drop(up);
        world.files()
    }

    /// The directory as it was when the first tree head was signed.
    fn older(&self) -> Files {
        let mut files = self.files.clone();
        let (segment, place) = self.end_of(self.head(0).tree_size);
        files.retain(|name, _| !name.starts_with("segments/") || *name <= segment);
        files.get_mut(&segment).unwrap()[place..].fill(0);
        files.get_mut("history").unwrap().truncate(HISTORY_RECORD_BYTES);
        files.insert("checkpoint".into(), self.note_of(0));
        files
    }
}

#[test]
fn what_is_not_found_is_a_closed_table_and_each_row_is_so() {
    let clean = Clean::new();
    for Unfound { what, change, why } in NOT_FOUND {
        let mut files = clean.files.clone();
        let signed = change(&clean, &mut files);
        assert_ne!(files, clean.files, "{what}: nothing was changed");
        let report = clean.verify(&files).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        assert_eq!((report.signed_entries, report.tail_defect), (signed, None), "{what}: {why}");
    }
}

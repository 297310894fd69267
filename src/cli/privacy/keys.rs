//! The keys of pseudonyms, one file each, so that one can be destroyed alone.
//!
//! ```text
//! DIR/certs/pseudonyms/00000003.key   0600; second since 1970 it was made in, space, base64url
//! ```
//!
//! The newest one is in use. Nothing is recorded here: whoever rotates or destroys does that. The
//! invariant: a key that was read is whole, and one that was destroyed is zeroes on disk before
//! its name is gone.
#![expect(clippy::disallowed_methods, reason = "the files of keys")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::PrivacyFault;
use crate::cli::files::{Access, create, create_dir, io};
use crate::evidence::{PSEUDONYM_KEY_BYTES, PseudonymKey};
use crate::time::UnixNanos;

const SUFFIX: &str = ".key";

/// The keys of a broker, oldest first.
#[derive(Debug)]
pub(in crate::cli) struct PseudonymKeys {
    directory: PathBuf,
    keys: Vec<StoredKey>,
    /// Destroyed, and not known to be recorded.
    destroyed: Vec<u32>,
}

/// One key.
#[derive(Clone, Debug)]
pub(in crate::cli) struct StoredKey {
    /// When it was made.
    pub(in crate::cli) made: UnixNanos,
    /// The key.
    pub(in crate::cli) key: Arc<PseudonymKey>,
}

impl PseudonymKeys {
    /// Reads the keys in `directory`; none if it is not there.
    ///
    /// # Errors
    /// If a file cannot be read, or is no key.
    pub(in crate::cli) fn open(directory: &Path) -> Result<Self, PrivacyFault> {
        let mut keys = Self { directory: directory.to_owned(), keys: vec![], destroyed: vec![] };
        let names = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(keys),
            names => names.map_err(io("list", directory))?,
        };
        let mut ids = Vec::new();
        for name in names {
            let name = name.map_err(io("list", directory))?.file_name();
            let number = |name: &str| name.strip_suffix(SUFFIX)?.parse::<u32>().ok();
            let id = name.to_str().and_then(number);
            ids.extend(id);
        }
        ids.sort_unstable();
        for id in ids {
            let path = keys.path(id);
            let bytes = std::fs::read(&path).map_err(io("read", &path))?;
            match bytes.iter().all(|byte| *byte == 0) {
                true => keys.destroyed.push(id),
                false => keys.keys.push(parse(id, &bytes).ok_or(PrivacyFault::NoKey(path))?),
            }
        }
        Ok(keys)
    }

    /// All of them, oldest first.
    pub(in crate::cli) fn all(&self) -> &[StoredKey] {
        &self.keys
    }

    /// The one in use; the first is made if there is none.
    pub(in crate::cli) fn newest(&mut self, now: UnixNanos) -> Result<StoredKey, PrivacyFault> {
        match self.keys.last() {
            Some(newest) => Ok(newest.clone()),
            None => self.make(now),
        }
    }

    /// A new one, if the newest has been used for `rotate`.
    pub(in crate::cli) fn rotate(
        &mut self,
        now: UnixNanos,
        rotate: Duration,
    ) -> Result<Option<StoredKey>, PrivacyFault> {
        let is_over = self.keys.last().is_some_and(|newest| after(newest.made, rotate) <= now);
        if is_over { self.make(now).map(Some) } else { Ok(None) }
    }

    /// Those that have not been used for `kept`, oldest first.
    pub(in crate::cli) fn expired(&self, now: UnixNanos, kept: Duration) -> Vec<u32> {
        let pairs = self.keys.iter().zip(self.keys.iter().skip(1));
        let is_over = |next: &StoredKey| after(next.made, kept) <= now;
        pairs.filter(|(_, next)| is_over(next)).map(|(key, _)| key.key.id()).collect()
    }

    /// Replaces a key by zeroes, on disk.
    pub(in crate::cli) fn destroy(&mut self, id: u32) -> Result<(), PrivacyFault> {
        let path = self.path(id);
        let zero = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            let bytes = usize::try_from(file.metadata()?.len()).unwrap_or_default();
            // A crash before the sync returns leaves the key or zeroes: the next look finds it
            // expired again, or destroyed and not recorded.
            file.write_all_at(&vec![0; bytes], 0)?;
            file.sync_all()
        };
        zero().map_err(io("destroy", &path))?;
        self.keys.retain(|key| key.key.id() != id);
        self.destroyed.push(id);
        Ok(())
    }

    /// Those that were destroyed and whose files are still there, so that it may not be recorded.
    pub(in crate::cli) fn destroyed(&self) -> &[u32] {
        &self.destroyed
    }

    /// Takes the file of a destroyed key away: its end stands in the log.
    pub(in crate::cli) fn forget(&mut self, id: u32) -> Result<(), PrivacyFault> {
        let path = self.path(id);
        // A crash before the name is gone on disk has its end recorded a second time.
        std::fs::remove_file(&path).map_err(io("remove", &path))?;
        self.sync_directory()?;
        self.destroyed.retain(|destroyed| *destroyed != id);
        Ok(())
    }

    fn make(&mut self, now: UnixNanos) -> Result<StoredKey, PrivacyFault> {
        let last = self.keys.last().map(|key| key.key.id()).into_iter();
        // Numbers of destroyed keys are known from the newer ones: the newest is never destroyed.
        let id = last.chain(self.destroyed.iter().copied()).max().unwrap_or_default() + 1;
        let mut bytes = [0; PSEUDONYM_KEY_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PrivacyFault::Randomness)?;
        let made = now.as_nanos() / 1_000_000_000;
        create_dir(&self.directory)?;
        let text = format!("{made} {}\n", URL_SAFE_NO_PAD.encode(bytes));
        // A crash leaves a part of the file: `open` names it, and nothing was made with it.
        create(&self.path(id), Access::Private, text.as_bytes())?;
        self.sync_directory()?;
        let made = UnixNanos::from_seconds(made);
        let stored = StoredKey { made, key: Arc::new(PseudonymKey::new(id, &bytes)) };
        self.keys.push(stored.clone());
        Ok(stored)
    }

    fn path(&self, id: u32) -> PathBuf {
        self.directory.join(format!("{id:08}{SUFFIX}"))
    }

    fn sync_directory(&self) -> Result<(), PrivacyFault> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        Ok(synced.map_err(io("sync", &self.directory))?)
    }
}

fn parse(id: u32, bytes: &[u8]) -> Option<StoredKey> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (made, digits) = text.split_once(' ')?;
    let bytes = URL_SAFE_NO_PAD.decode(digits).ok()?;
    let key = PseudonymKey::new(id, bytes.as_slice().try_into().ok()?);
    let made = made.parse().ok().filter(|_| id > 0)?;
    Some(StoredKey { made: UnixNanos::from_seconds(made), key: Arc::new(key) })
}

fn after(time: UnixNanos, duration: Duration) -> UnixNanos {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    UnixNanos::new(time.as_nanos().saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn day(count: u64) -> UnixNanos {
        UnixNanos::from_seconds(count * 86_400)
    }

    #[test]
    fn keys_rotate_and_are_destroyed_when_their_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("pseudonyms");
        let mut keys = PseudonymKeys::open(&directory).unwrap();
        let first = keys.newest(day(10)).unwrap();
        assert_eq!(first.key.id(), 1);
        assert!(keys.rotate(day(39), 30 * DAY).unwrap().is_none());
        assert_eq!(keys.rotate(day(40), 30 * DAY).unwrap().unwrap().key.id(), 2);
        assert_eq!(keys.expired(day(129), 90 * DAY), [0_u32; 0]);
        assert_eq!(keys.expired(day(130), 90 * DAY), [1]);
        let path = directory.join("00000001.key");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let secret = std::fs::read(&path).unwrap();
        keys.destroy(1).unwrap();
        // What a crash here leaves: zeroes, which the next start knows.
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; secret.len()]);
        let mut keys = PseudonymKeys::open(&directory).unwrap();
        assert_eq!((keys.destroyed(), keys.all().len()), (&[1][..], 1));
        keys.forget(1).unwrap();
        assert!(!path.exists());
        assert_eq!(keys.rotate(day(90), DAY).unwrap().unwrap().key.id(), 3);
        // The clock went back: the newest stays in use.
        assert!(keys.rotate(day(1), DAY).unwrap().is_none());
    }

    #[test]
    fn what_is_read_is_what_was_made_and_nothing_else_is_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = PseudonymKeys::open(dir.path()).unwrap();
        let made = keys.newest(day(1)).unwrap();
        let read = PseudonymKeys::open(dir.path()).unwrap().newest(day(2)).unwrap();
        assert_eq!(read.made, day(1));
        assert_eq!(read.key.of_client("x"), made.key.of_client("x"));
        for bad in ["86400 AAAA\n", "x\n", "86400\n", "-1 AA\n"] {
            std::fs::write(dir.path().join("00000007.key"), bad).unwrap();
            let fault = PseudonymKeys::open(dir.path()).unwrap_err();
            assert!(matches!(fault, PrivacyFault::NoKey(path) if path.ends_with("00000007.key")));
        }
    }
}

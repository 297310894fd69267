//! The thread that keeps what `[privacy]` promises while the broker serves: it changes the key of
//! pseudonyms and destroys old ones.
//!
//! It acts through the broker like an operator, so that everything it does is an entry. What fails
//! is said in the log of the process and tried again at the next look. The invariant: a key is
//! destroyed only when it is not in use, and its file is gone only when the log says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::PrivacyFault;
use super::keys::PseudonymKeys;
use crate::broker::Administration;
use crate::config;
use crate::server::{Clock, Fault, Handle, NotServing};
use crate::time::UnixNanos;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Why a look was not finished.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Keys(#[from] PrivacyFault),
    #[error(transparent)]
    NotServing(#[from] NotServing),
}

impl Keeper {
    /// Starts the thread `avow-privacy`, which looks at once and then once a minute.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(in crate::cli) fn start(
        privacy: config::Privacy,
        mut keys: PseudonymKeys,
        clock: Clock,
        broker: Handle,
    ) -> Result<Self, Fault> {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let work = move || {
            while !is_over.load(Ordering::Relaxed) {
                if let Err(fault) = look(&privacy, &mut keys, clock.now().unix, &broker) {
                    tracing::warn!(%fault, "the keys of pseudonyms could not be looked after");
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("avow-privacy".into()).spawn(work);
        let thread = thread.map_err(|source| Fault::System { doing: "start a thread", source })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn look(
    privacy: &config::Privacy,
    keys: &mut PseudonymKeys,
    now: UnixNanos,
    broker: &Handle,
) -> Result<(), Unfinished> {
    if let Some(newest) = keys.rotate(now, privacy.rotate)? {
        // A crash before the entry leaves a key that the next start uses without one.
        broker.set_pseudonym_key(&newest.key);
        record(broker, "pseudonym.rotate", newest.key.id(), vec![])?;
        tracing::info!(key = newest.key.id(), "pseudonyms have another key");
    }
    for id in keys.expired(now, privacy.connection_facts) {
        keys.destroy(id)?;
    }
    for id in keys.destroyed().to_vec() {
        let kept = config::format_duration(privacy.connection_facts);
        let reason = vec![("reason", format!("connection_facts = {kept}"))];
        record(broker, "pseudonym.erase", id, reason)?;
        keys.forget(id)?;
        tracing::info!(key = id, "a key of pseudonyms was destroyed");
    }
    Ok(())
}

fn record(
    broker: &Handle,
    act: &'static str,
    id: u32,
    facts: Vec<(&'static str, String)>,
) -> Result<u64, NotServing> {
    broker.record(Administration { ticket: 0, act, subject: format!("pseudonym/k{id}"), facts })
}

//! What the process says about itself: structured log lines, counters, health.
//!
//! None of it is evidence: that is the log of [`crate::evidence`], which is durable and signed.
//! Here nothing may block a shard and nothing a peer does may buy disk or memory: lines are
//! bounded per kind and second, label values come from closed lists, a full pipe drops lines and
//! counts them. Payloads and keys never come here.

mod escape;
mod event;
mod http;
mod metrics;
mod sink;

pub use escape::escaped;
pub use event::{EventLog, LINES_PER_SECOND_MAX, log_event};
pub(crate) use http::{Health, HealthSource, serve};
pub use metrics::{MetricsSnapshot, encode_metrics};
pub use sink::{LINES_QUEUED_MAX, SinkGuard};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is not one.
    #[error("the log filter `{filter}`: {source}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process has a subscriber already.
    #[error(transparent)]
    Taken(#[from] TryInitError),
    /// The thread that writes lines could not be started.
    #[error("cannot start the thread that writes log lines: {0}")]
    Thread(#[source] std::io::Error),
}

/// Sends log lines that pass `filter` (as in `RUST_LOG`: `info`, `avow=debug`) to standard error,
/// from a thread of their own. Keep the guard until the process ends: it writes out what is
/// queued.
///
/// # Errors
/// If the filter is none, or if it was called before.
pub fn init(format: Format, filter: &str) -> Result<SinkGuard, InitError> {
    let env_filter = EnvFilter::try_new(filter)
        .map_err(|source| InitError::Filter { filter: filter.to_owned(), source })?;
    let (sink, guard) = sink::start().map_err(InitError::Thread)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(env_filter)
        .with_writer(move || sink.line())
        .with_ansi(format == Format::Text && std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        Format::Text => builder.with_target(false).finish().try_init()?,
        Format::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(guard)
}

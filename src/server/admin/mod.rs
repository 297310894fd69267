//! `DIR/lock` and `DIR/admin.sock`: one broker per directory, and the command line's way in.
//!
//! Whoever holds the lock owns the directory: a broker that serves, or a command that changes
//! something while none does. While the broker holds it, commands ask it over the socket: one
//! JSON request a line, answered by JSON lines, the last one `{"end":true}` or `{"error":…}`.
//!
//! The socket has the rights of its file, 0600: whoever may open it may read the directory
//! anyway. Every read of the log over it stands in the log. Requests run on threads of their
//! own, so a slow one costs no shard anything. Invariant: clients and the bytes of a request are
//! bounded.

mod client;
mod filter;
mod lock;
mod protocol;
mod serve;

pub use client::{Client, ClientError};
pub use filter::{LogFilter, LogOrder, LogPeriod};
pub use lock::{Lock, LockError};
pub use protocol::{ACTS, EraseRequest, FACTS, LogRequest, RecordRequest, Request, RequestError};
pub use serve::{Admin, AdminError, AdminOptions, AnswerErase, AnswerLog, Answers, Gone};

/// The socket's name in its directory.
pub const SOCKET_NAME: &str = "admin.sock";
/// Longest line of a request or an answer, in bytes.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Longest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Clients at once; the next one is told so.
pub const CLIENTS_MAX: usize = 16;

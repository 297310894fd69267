//! Privacy at the command line: the keys of pseudonyms who stands behind one, and the
//! thread that keeps what the configuration promises.

pub(super) mod erase;
pub(super) mod keeper;
pub(super) mod keys;
pub(super) mod who_is;

use std::path::PathBuf;

use super::files::FileFault;
use crate::server::NotServing;
use crate::storage::StorageFault;

/// Why something about privacy could not be done.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum PrivacyFault {
    /// A file of a key that cannot be read, made or destroyed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileFault),
    /// A file that holds no key.
    #[error("{} is not the key of a pseudonym", .0.display())]
    #[diagnostic(help(
        "its one line is the second since 1970 it was made in, a space, and 32 bytes in \
         base64url; restore it from a copy, or take it away: then its pseudonyms are nobody's"
    ))]
    NoKey(PathBuf),
    /// The system gave no randomness.
    #[error("the system gives no randomness")]
    Randomness,
    /// Neither a peer, nor a subject, nor entries, or more than one of them.
    #[error("say whose bodies: exactly one of --device, --who, --subject and --index")]
    Whose,
    /// No reason, or a long one.
    #[error("a reason has 1 to {} bytes", erase::REASON_BYTES_MAX)]
    Reason,
    /// The log.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The running broker.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// What was done could not be recorded.
    #[error(transparent)]
    Record(Box<super::CliFailure>),
    /// Not a pseudonym.
    #[error("`{0}` is not a pseudonym")]
    #[diagnostic(help(
        "a pseudonym looks like k3.TZYfuGQxA1qtJv8rfGjgmw: field `peer` or `client`"
    ))]
    NoPseudonym(String),
    /// The key of a pseudonym is not there.
    #[error("the key k{0} is not there: it was destroyed, or belongs to another broker")]
    #[diagnostic(help(
        "`avow audit query --type erased` says when it was destroyed; nobody can tell any more \
         whose its pseudonyms were"
    ))]
    KeyGone(u32),
    /// Nothing that a pseudonym could be compared with.
    #[error("a pseudonym cannot be turned back: say what to compare it with")]
    #[diagnostic(help("add --peer ADDRESS, --in NETWORK or --client-id ID"))]
    NothingToCompare,
    /// A block that is none, or has too many addresses to try.
    #[error("`{0}` is not a block of at most 2^24 addresses")]
    #[diagnostic(help("write 10.0.0.0/8, 192.168.0.0/16 or 2001:db8::/104, or one address"))]
    Network(String),
}

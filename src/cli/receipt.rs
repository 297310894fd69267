//! The key that signs receipts: made by `init`, or by `avow audit receipt-key` for a broker that was
//! made before there were any.
//!
//! The private half stands where `[evidence] receipt_key` says, the public half in
//! `certs/receipt.pub`, as PEM that openssl reads. The invariant: a key that is there is never
//! written over, because receipts in other people's hands are checked with it.

use std::path::{Path, PathBuf};

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{PemObject as _, SectionKind};

use super::files::{Access, create, require_absent};
use super::plant::{Layout, pem};
use super::record::Recorder;
use super::setting::{self, SettingProblem};
use super::{Answer, CliFailure, files, show};
use crate::config::{Config, Secret, Setting};
use crate::evidence::receipt::{ReceiptError, ReceiptVerifier};
use crate::evidence::{ReceiptKey, ReceiptSigner};
use crate::identity::certificate::sha256;

/// Why there is no receipt, or no key for receipts.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ReceiptFailure {
    /// A file that holds no key.
    #[error("{}: {source}", path.display())]
    #[diagnostic(help("the public half that `avow init` made is DIR/certs/receipt.pub"))]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ReceiptError,
    },
    /// A file that holds no receipt.
    #[error("{}: {source}", path.display())]
    #[diagnostic(help("`avow pub --receipt FILE` stores one, as docs/receipts.md has it"))]
    NotOne {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ReceiptError,
    },
    /// Nothing signed says yet whether the promise is kept.
    #[error("entry {index} is not yet under a checkpoint, which covers {covered} entries")]
    #[diagnostic(help(
        "a running broker signs one at the latest {} after an entry (`checkpoint_interval`): ask \
         again then. If that is long ago, the log has lost entries: keep the receipt",
        crate::config::format_duration(*interval)
    ))]
    NotYet {
        /// The entry.
        index: u64,
        /// How many entries are covered.
        covered: u64,
        /// The longest time from an entry to its checkpoint.
        interval: std::time::Duration,
    },
    /// No key could be made.
    #[error("no key for receipts: {0}")]
    Make(#[source] ReceiptError),
    /// The configuration has the key in the environment, where nothing can be put.
    #[error("`receipt_key` is not in a file, so no key can be put there")]
    #[diagnostic(help("write `receipt_key = \"file:certs/receipt.key\"` in [evidence]"))]
    NotAFile,
}

/// Both halves of a new key.
pub(super) struct KeyPair {
    pub(super) private_pem: String,
    pub(super) public_pem: String,
    /// SHA-256 of the public half as SubjectPublicKeyInfo, for the log.
    pub(super) spki_sha256: [u8; 32],
}

/// Makes a key.
pub(super) fn generate() -> Result<KeyPair, ReceiptFailure> {
    let key = ReceiptKey::generate().map_err(ReceiptFailure::Make)?;
    let spki = key.verifier().to_spki();
    let private = key.to_pkcs8().map_err(ReceiptFailure::Make)?;
    Ok(KeyPair {
        private_pem: pem("PRIVATE KEY", &private),
        public_pem: pem("PUBLIC KEY", &spki),
        spki_sha256: sha256(&spki),
    })
}

/// What signs the receipts of `config`'s log.
pub(super) fn signer(config: &Config) -> Result<ReceiptSigner, CliFailure> {
    let secret = &config.evidence.receipt_key;
    let problem = |problem| config.problem_at(Setting::ReceiptKey, problem);
    if let Secret::File(path) = secret
        && files::read_if_there(path)?.is_none()
    {
        let (path, dir) = (path.clone(), config.dir.clone());
        return Err(problem(SettingProblem::ReceiptKeyMissing { path, dir }).into());
    }
    let text = setting::read_secret(config, Setting::ReceiptKey, secret)?;
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| ReceiptError::PrivateKey);
    let key = der.and_then(|der| ReceiptKey::from_pkcs8(der.secret_der()));
    let key = key.map_err(|fault| problem(SettingProblem::NoReceiptKey(fault)))?;
    Ok(ReceiptSigner::new(&config.evidence.origin, key))
}

/// The public half: from `path`, or `DIR/certs/receipt.pub`.
pub(super) fn verifier(dir: &Path, path: Option<&Path>) -> Result<ReceiptVerifier, CliFailure> {
    let path = path.map_or_else(|| Layout(dir).receipt_verifier(), Path::to_owned);
    let text = files::read(&path)?;
    let found = rustls_pki_types::pem::from_buf(&mut text.as_bytes()).ok().flatten();
    let spki = found.filter(|(kind, _)| *kind == SectionKind::PublicKey).map(|(_, der)| der);
    let key = spki.ok_or(ReceiptError::PublicKey).and_then(|der| ReceiptVerifier::from_spki(&der));
    key.map_err(|source| ReceiptFailure::Key { path, source }.into())
}

/// `avow audit receipt-key`.
pub(super) fn make(dir: &Path) -> Result<Answer, CliFailure> {
    let config = super::configuration(dir)?;
    let public: PathBuf = Layout(dir).receipt_verifier();
    let Secret::File(private) = &config.evidence.receipt_key else {
        return Err(ReceiptFailure::NotAFile.into());
    };
    require_absent([private, &public])?;
    let pair = generate()?;
    create(private, Access::Private, pair.private_pem.as_bytes())?;
    create(&public, Access::Public, pair.public_pem.as_bytes())?;
    let facts = [("spki_sha256", base64url(&pair.spki_sha256))];
    let mut recorder = Recorder::open(&config)?;
    recorder.record("certificate.issue", "receipt", &facts)?;
    recorder.close()?;
    show::line(&format!("{} and {} are made", private.display(), public.display()));
    Ok(Answer::Yes)
}

fn base64url(bytes: &[u8]) -> String {
    super::plant::base64url(bytes)
}

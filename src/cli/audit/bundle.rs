//! `avow audit bundle INDEX --out DIR`: everything that a dispute about one entry needs, to be checked
//! without us.
//!
//! It reads the files of the log as far as the newest checkpoint covers them, also beside a running
//! broker, and trusts them no more than a stranger would: every proof is verified before it is handed
//! out. The invariant: a bundle leaves only after its `export` entry is on disk. What binds which
//! file is in `docs/bundle_VERIFY.md`; `docs/bundle_verify.py` is the checker that goes with it.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use clap::Args;
use serde_json::{Value, json};

use super::statement::{self, decoded};
use crate::cli::files::{Access, create, create_dir, require_absent};
use crate::cli::plant::{hex, pem};
use crate::cli::record::{Recorder, verifier_key};
use crate::cli::{Answer, CliFailure, receipt, setting, show};
use crate::config::Config;
use crate::evidence::tree::leaf_hash;
use crate::evidence::{Receipt, VerifierKey};
use crate::storage::{Entry, Reader, RealDisk};
use crate::time::UnixNanos;

/// Form of the bundle, in its manifest.
const FORMAT: &str = "avow-bundle-1";
const MANIFEST: &str = "MANIFEST.json";
const VERIFY_TEXT: &str = include_str!("../../../docs/bundle_VERIFY.md");
const VERIFY_SCRIPT: &str = include_str!("../../../docs/bundle_verify.py");

#[derive(Args, Debug)]
pub(in crate::cli) struct BundleArguments {
    /// Index of the entry
    index: u64,
    /// Directory to make the bundle in
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &Path, arguments: &BundleArguments) -> Result<Answer, CliFailure> {
    let index = arguments.index;
    let config = crate::cli::configuration(dir)?;
    let verifier = verifier_key(dir, None)?;
    let reader = super::answer::open_reader(&config.evidence.directory, &verifier)
        .map_err(setting::of_log(&config))?;
    let covered = reader.checkpoint().map_or(0, |signed| signed.tree_size);
    let Some(entry) = reader.entry(index)? else {
        return Err(match is_written(&reader, index)? {
            true => {
                let interval = config.evidence.checkpoint_interval;
                CliFailure::NotCovered { index, covered, interval }
            }
            false => CliFailure::NoEntry(index),
        });
    };
    let mut bundle = Bundle::default();
    Making { config: &config, reader: &reader, verifier: &verifier }.fill(&mut bundle, &entry)?;
    let manifest = bundle.manifest(index, verifier.name());
    let digest = hex(digest(&SHA256, manifest.as_bytes()).as_ref());
    let paths: Vec<PathBuf> =
        bundle.names().chain([MANIFEST]).map(|name| arguments.out.join(name)).collect();
    require_absent(&paths)?;
    let mut recorder = Recorder::open(&config)?;
    let facts = [("index", index.to_string()), ("sha256", digest.clone())];
    recorder.record("log.export", "bundle", &facts)?;
    recorder.close()?;
    create_dir(&arguments.out)?;
    for (name, content) in &bundle.files {
        create(&arguments.out.join(name), Access::Public, content)?;
    }
    create(&arguments.out.join(MANIFEST), Access::Public, manifest.as_bytes())?;
    let out = arguments.out.display();
    if arguments.json {
        let files: Vec<&str> = bundle.names().collect();
        show::json(&json!({ "index": index, "out": out.to_string(), "files": files,
            "manifest_sha256": digest }));
    } else {
        show::line(&format!(
            "entry {index} and all that belongs to it are in {out}\nMANIFEST.json {digest}\n\
             check it: python3 {out}/verify.py --manifest-sha256 {digest}"
        ));
    }
    Ok(Answer::Yes)
}

/// Whether an entry is there that no checkpoint covers yet.
fn is_written(reader: &Reader<RealDisk>, index: u64) -> Result<bool, CliFailure> {
    let mut reader = reader.clone();
    reader.set_until(crate::storage::Until::Written);
    Ok(reader.entry(index)?.is_some())
}

/// Files by name, and reasons for those that are not there.
#[derive(Default)]
pub(super) struct Bundle {
    files: Vec<(&'static str, Vec<u8>)>,
    absent: Vec<(&'static str, &'static str)>,
}

impl Bundle {
    pub(super) fn add(&mut self, name: &'static str, content: impl Into<Vec<u8>>) {
        self.files.push((name, content.into()));
    }

    pub(super) fn lacks(&mut self, names: &[&'static str], why: &'static str) {
        self.absent.extend(names.iter().map(|name| (*name, why)));
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.files.iter().map(|(name, _)| *name)
    }

    /// One form for one content: names sorted, two spaces of indentation, a line break at the end.
    fn manifest(&self, index: u64, origin: &str) -> String {
        let sorted = |mut pairs: Vec<(&str, String)>| {
            pairs.sort();
            let pairs = pairs.into_iter().map(|(name, of)| (name.to_owned(), Value::from(of)));
            Value::Object(pairs.collect())
        };
        let sums = self
            .files
            .iter()
            .map(|(name, content)| (*name, hex(digest(&SHA256, content).as_ref())));
        let absent = self.absent.iter().map(|(name, why)| (*name, (*why).to_owned()));
        let manifest = json!({
            "absent": sorted(absent.collect()),
            "files": sorted(sums.collect()),
            "format": FORMAT,
            "index": index,
            "origin": origin,
        });
        format!("{manifest:#}\n")
    }
}

/// What it takes to fill a bundle.
struct Making<'m> {
    config: &'m Config,
    reader: &'m Reader<RealDisk>,
    verifier: &'m VerifierKey,
}

impl Making<'_> {
    fn fill(&self, bundle: &mut Bundle, entry: &Entry) -> Result<(), CliFailure> {
        let fields = fields(entry);
        let checkpoint = self.prove(bundle, entry, ["entry.json", "entry.tlog-proof"])?;
        bundle.add("checkpoint", checkpoint);
        bundle.add("policy.txt", format!("log {}\n", self.verifier));
        bundle.add("VERIFY.md", VERIFY_TEXT);
        bundle.add("verify.py", VERIFY_SCRIPT);
        bundle.lacks(&["crl.pem"], "revocation-unchecked");
        let names = ["connect.json", "connect.tlog-proof"];
        let connect = self.named(bundle, &fields, ("connect", "conn"), names, "no-connection")?;
        let names = ["cert-entry.json", "cert-entry.tlog-proof"];
        let behind = connect.as_ref().unwrap_or(&Value::Null);
        let cert = match is(&fields, "cert") {
            true => self.named(bundle, &fields, ("cert", "cert"), names, "is-entry")?,
            false => self.named(bundle, behind, ("cert", "cert"), names, "no-certificate")?,
        };
        certificates(bundle, cert.as_ref());
        body(bundle, entry);
        statement::add(bundle, &fields, entry);
        self.receipt(bundle, entry, &fields)
    }

    /// Adds the entry that `from` names in a field, with its proof: what it says. An entry of that
    /// type speaks for itself.
    fn named(
        &self,
        bundle: &mut Bundle,
        from: &Value,
        (kind, field): (&str, &str),
        names: [&'static str; 2],
        why: &'static str,
    ) -> Result<Option<Value>, CliFailure> {
        if is(from, kind) {
            bundle.lacks(&names, "is-entry");
            return Ok(Some(from.clone()));
        }
        let Some(index) = from.get(field).and_then(Value::as_u64) else {
            bundle.lacks(&names, why);
            return Ok(None);
        };
        let entry = self.reader.entry(index)?.ok_or(CliFailure::NoEntry(index))?;
        self.prove(bundle, &entry, names)?;
        Ok(Some(fields(&entry)))
    }

    /// Adds an entry and its proof, which holds; the checkpoint of it.
    fn prove(
        &self,
        bundle: &mut Bundle,
        entry: &Entry,
        [json, proof]: [&'static str; 2],
    ) -> Result<String, CliFailure> {
        let found = self.reader.prove(entry.index).map_err(super::answer::AnswerFault::from)?;
        let verified = found.verify(&entry.json, self.verifier);
        verified.map_err(super::answer::AnswerFault::from)?;
        bundle.add(json, entry.json.clone());
        bundle.add(proof, found.to_string());
        Ok(found.checkpoint)
    }

    /// The receipt of a message: the signature is deterministic, so it is the one that its author
    /// was given, or would have been.
    fn receipt(
        &self,
        bundle: &mut Bundle,
        entry: &Entry,
        fields: &Value,
    ) -> Result<(), CliFailure> {
        const NAMES: [&str; 2] = ["receipt.cose", "receipt.pub"];
        if !is(fields, "publish") {
            bundle.lacks(&NAMES, "no-message");
            return Ok(());
        }
        if self.config.evidence.receipt_key.read().is_err() {
            bundle.lacks(&NAMES, "no-receipt-key");
            return Ok(());
        }
        let signer = receipt::signer(self.config)?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let promised = Receipt {
            origin: signer.origin().to_owned(),
            index: entry.index,
            leaf_hash: leaf_hash(&entry.json),
            time: UnixNanos::new(fields.get("t").and_then(Value::as_u64).unwrap_or_default()),
            level: text("lvl").to_owned(),
            cti: fields.get("cti").and_then(Value::as_str).and_then(decoded),
        };
        let signed = signer.key().sign(&promised);
        bundle.add("receipt.cose", signed.map_err(receipt::ReceiptFailure::Make)?);
        bundle.add("receipt.pub", pem("PUBLIC KEY", &signer.key().verifier().to_spki()));
        Ok(())
    }
}

/// The certificates of a `cert` entry as files.
fn certificates(bundle: &mut Bundle, cert: Option<&Value>) {
    const NAMES: [&str; 3] = ["device.pem", "chain.pem", "root.pem"];
    let Some(cert) = cert else { return bundle.lacks(&NAMES, "no-certificate") };
    let chain = cert.get("chain").and_then(Value::as_array);
    let chain: Option<Vec<_>> =
        chain.and_then(|chain| chain.iter().map(|der| decoded(der.as_str()?)).collect());
    let anchor = cert.get("anchor").and_then(Value::as_str).and_then(decoded);
    let (Some(chain), Some(anchor)) = (chain, anchor) else {
        return bundle.lacks(&NAMES, "hashes-only");
    };
    let Some((device, between)) = chain.split_first() else {
        return bundle.lacks(&NAMES, "hashes-only");
    };
    bundle.add("device.pem", pem("CERTIFICATE", device));
    match between.is_empty() {
        true => bundle.lacks(&["chain.pem"], "no-intermediates"),
        false => {
            let chain: String = between.iter().map(|der| pem("CERTIFICATE", der)).collect();
            bundle.add("chain.pem", chain);
        }
    }
    bundle.add("root.pem", pem("CERTIFICATE", &anchor));
}

/// Payload, salt and properties. What is erased is zeroes, salt and all.
fn body(bundle: &mut Bundle, entry: &Entry) {
    const NAMES: [&str; 3] = ["payload.bin", "salt.bin", "properties.bin"];
    let Some(body) = &entry.body else { return bundle.lacks(&NAMES, "no-body") };
    if is_erased(entry) {
        return bundle.lacks(&NAMES, "erased");
    }
    bundle.add("payload.bin", body.payload.to_vec());
    bundle.add("salt.bin", body.salt.to_vec());
    match body.properties.is_empty() {
        true => bundle.lacks(&["properties.bin"], "no-properties"),
        false => bundle.add("properties.bin", body.properties.to_vec()),
    }
}

/// Whether nothing is left of the body of an entry.
pub(super) fn is_erased(entry: &Entry) -> bool {
    let zeroes = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    entry.body.as_ref().is_some_and(|body| zeroes(&body.salt) && zeroes(&body.payload))
}

fn fields(entry: &Entry) -> Value {
    serde_json::from_slice(&entry.json).unwrap_or_default()
}

fn is(fields: &Value, kind: &str) -> bool {
    fields.get("type").and_then(Value::as_str) == Some(kind)
}

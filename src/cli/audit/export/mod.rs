//! `avow audit export`: entries for other programs, one line each, as many as there are.
//!
//! Entries never hold payloads, so nothing that a schema calls sensitive is in an export. That the
//! log left the house stands in it, as an `export` entry, before the first line is written. Memory is
//! that of one line: what is read is written.

#![expect(clippy::disallowed_methods, reason = "writes the file that was asked for")]

mod csv;
mod ocsf;

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::value::RawValue;

use super::filter::FilterArguments;
use super::read::read;
use crate::cli::files::FileFault;
use crate::cli::record::Recorder;
use crate::cli::show;
use crate::cli::{Answer, CliFailure};
use crate::server::admin::{Client, LogRequest};

#[derive(Args, Debug)]
pub(in crate::cli) struct ExportArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// How entries are written
    #[arg(long, value_enum)]
    format: Format,
    /// The file to make; nothing is overwritten
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print JSON about the export
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line: index, and the entry as it is
    Ndjson,
    /// RFC 4180 with a header, safe to open in a spreadsheet
    Csv,
    /// Events of the Open Cybersecurity Schema Framework, one a line
    Ocsf,
}

impl Format {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Ocsf => "ocsf",
        }
    }

    /// What stands before the first entry.
    fn header(self) -> String {
        match self {
            Self::Ndjson | Self::Ocsf => String::new(),
            Self::Csv => csv::header(),
        }
    }

    /// One entry, with the end of its line.
    fn line(self, index: u64, entry: &str) -> Result<String, serde_json::Error> {
        match self {
            Self::Ndjson => {
                let entry: &RawValue = serde_json::from_str(entry)?;
                Ok(format!("{{\"index\":{index},\"entry\":{entry}}}\n"))
            }
            Self::Csv => Ok(csv::row(index, entry)),
            Self::Ocsf => Ok(format!("{}\n", ocsf::event(index, entry))),
        }
    }
}

pub(super) fn run(dir: &Path, arguments: &ExportArguments) -> Result<Answer, CliFailure> {
    let (format, path) = (arguments.format, &arguments.out);
    let filter = arguments.filter.filter(crate::cli::unix_now())?;
    let request = LogRequest::Export { filter, format: format.as_str().to_owned() };
    let mut out = create(path)?;
    let written = record_alone(dir, &request).and_then(|()| write(dir, request, format, &mut out));
    let written = written.and_then(|entries| {
        let synced = out.flush().and_then(|()| out.get_ref().sync_all());
        synced.map(|()| entries).map_err(|source| failed(path, source))
    });
    let entries = match written {
        Ok(entries) => entries,
        Err(fault) => {
            // Half an export looks like a whole one.
            let _ = std::fs::remove_file(path);
            return Err(fault);
        }
    };
    if arguments.json {
        let out = path.display().to_string();
        let format = format.as_str();
        show::json(&serde_json::json!({ "entries": entries, "out": out, "format": format }));
    } else {
        show::line(&format!("{entries} entries in {}", path.display()));
    }
    Ok(if entries > 0 { Answer::Yes } else { Answer::No })
}

/// Leaves the trace of an export while no broker runs that would. A copy of a log that may only be
/// read is exported without.
fn record_alone(dir: &Path, request: &LogRequest) -> Result<(), CliFailure> {
    if Client::connect(dir)?.is_some() {
        return Ok(());
    }
    let config = crate::cli::configuration(dir)?;
    let mut recorder = match Recorder::open(&config) {
        Ok(recorder) => recorder,
        Err(CliFailure::Lock(fault)) => {
            eprintln!("note: this export leaves no entry in the log: {fault}");
            return Ok(());
        }
        Err(fault) => return Err(fault),
    };
    let text = serde_json::to_string(request).unwrap_or_default();
    recorder.record("log.export", "admin", &[("request", text)])?;
    recorder.close()
}

fn write(
    dir: &Path,
    request: LogRequest,
    format: Format,
    out: &mut BufWriter<File>,
) -> Result<u64, CliFailure> {
    let mut entries = 0;
    let mut written = out.write_all(format.header().as_bytes());
    read(dir, request, &mut |line| {
        if written.is_ok() {
            let text = format.line(line.index, &line.entry).map_err(std::io::Error::from);
            written = text.and_then(|text| out.write_all(text.as_bytes()));
            entries += 1;
        }
    })?;
    written.map(|()| entries).map_err(|source| failed(Path::new("the export"), source))
}

fn create(path: &Path) -> Result<BufWriter<File>, FileFault> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map(BufWriter::new).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => FileFault::Exists(path.to_owned()),
        _ => FileFault::Io { doing: "create", path: path.to_owned(), source },
    })
}

fn failed(path: &Path, source: std::io::Error) -> CliFailure {
    FileFault::Io { doing: "write", path: path.to_owned(), source }.into()
}

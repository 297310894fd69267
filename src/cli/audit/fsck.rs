//! `avow audit fsck`: are the views of the log those of its segments?
//!
//! Without `--repair` it reads only, also beside a running broker. With it, it takes the lock of
//! the directory: a broker that runs writes the same files.

use std::path::Path;

use serde_json::json;

use super::FsckArguments;
use super::answer::open_reader;
use crate::cli::record::verifier_key;
use crate::cli::show::{self, Tone, paint};
use crate::cli::{Answer, CliFailure};
use crate::server::admin::Lock;
use crate::storage::fsck::{TilesCheck, check_tiles, mend_tiles};
use crate::storage::{Index, RealDisk};

pub(super) fn run(dir: &Path, arguments: &FsckArguments) -> Result<Answer, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let key = verifier_key(dir, None)?;
    let directory = &config.evidence.directory;
    let disk = RealDisk::new(directory);
    let _lock = arguments.repair.then(|| Lock::acquire(dir)).transpose()?;
    if !config.evidence.tiles {
        eprintln!("note: `tiles = false` in avow.toml: no broker keeps the tiles up");
    }
    let found = check_tiles(&disk, &key)?;
    if !arguments.repair {
        tell(&found, None, arguments.json);
        return Ok(if found.differing == 0 { Answer::Yes } else { Answer::No });
    }
    let written = mend_tiles(&disk, &key)?;
    let applied = Index::rebuild(directory, &open_reader(directory, &key)?)?.applied_upto()?;
    tell(&found, Some((written, applied)), arguments.json);
    Ok(Answer::Yes)
}

fn tell(found: &TilesCheck, mended: Option<(u64, u64)>, as_json: bool) {
    let named: Vec<String> = found.named.iter().map(ToString::to_string).collect();
    if as_json {
        return show::json(&json!({
            "entries": found.entries,
            "tiles": found.tiles,
            "differing": found.differing,
            "named": named,
            "written": mended.map(|(written, _)| written),
            "indexed": mended.map(|(_, applied)| applied),
        }));
    }
    let (tone, word) =
        if found.differing == 0 { (Tone::Good, "fine") } else { (Tone::Bad, "differs") };
    let mut lines = vec![format!(
        "{}: {} of {} tiles of {} entries are missing or differ from the segments",
        paint(tone, word),
        found.differing,
        found.tiles,
        found.entries,
    )];
    lines.extend(named.iter().map(|name| format!("  {name}")));
    if found.differing > named.len() as u64 {
        lines.push(format!("  and {} more", found.differing - named.len() as u64));
    }
    match mended {
        Some((written, applied)) => lines.push(format!(
            "repaired: {written} tiles were written from the segments, and the query index was \
             built again; {applied} entries are in whole blocks of it"
        )),
        None if found.differing > 0 => {
            lines.push("`avow audit fsck --repair` writes them again".to_owned());
        }
        None => {}
    }
    show::line(&lines.join("\n"));
}

//! Texts with units: sizes, durations, secrets. Pure.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a secret stands. The configuration never holds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

impl Secret {
    /// Reads `file:PATH` (relative to `dir`) or `env:NAME`; `None` is anything else.
    pub fn parse(text: &str, dir: &Path) -> Option<Self> {
        if let Some(path) = text.strip_prefix("file:") {
            return (!path.is_empty()).then(|| Self::File(dir.join(path)));
        }
        let name = text.strip_prefix("env:")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        (!name.is_empty() && name.bytes().all(plain)).then(|| Self::Env(name.to_owned()))
    }
}

/// Where it is, never what it is.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => write!(f, "the environment variable {name}"),
        }
    }
}

/// Reads `64 MiB`, `128KiB`, `512 B` or `512`, in bytes. `MB` and the like are refused: nobody
/// agrees what they mean.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.replace('_', "").parse().ok()?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Writes a size as [`parse_bytes`] reads it, in the largest unit that divides it.
pub fn format_bytes(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// Reads `10s`, `500ms`, `7d`, `1h 30m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// Writes a duration as [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    // Months of 30.44 days would leave hours over that nobody wrote.
    match (duration.as_secs() / DAY, duration.as_secs() % DAY, duration.subsec_nanos()) {
        (days @ 2.., 0, 0) => format!("{days}days"),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// The first 64 characters of a text from a file, escaped: it may be long and hostile.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_binary_units_only() {
        assert_eq!(parse_bytes("64 MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("128KiB"), Some(128 << 10));
        assert_eq!(parse_bytes("1_000"), Some(1000));
        for bad in ["", "MiB", "1 MB", "-1", "1.5 MiB", "17000000 TiB", "1 KiB KiB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_is_a_place() {
        let dir = Path::new("/d");
        assert_eq!(Secret::parse("file:a/b", dir), Some(Secret::File("/d/a/b".into())));
        assert_eq!(Secret::parse("env:KEY_1", dir), Some(Secret::Env("KEY_1".into())));
        for bad in ["hunter2", "file:", "env:", "env:A B", "-----BEGIN PRIVATE KEY-----"] {
            assert_eq!(Secret::parse(bad, dir), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes in 0u64..1 << 50, seconds in 0u64..1 << 32) {
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Some(bytes));
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }
    }
}

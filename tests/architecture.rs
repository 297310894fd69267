//! The border between the rooms, as a test: who may import whom, what the core may not name, how
//! long a file may be.
//!
//! It reads the text of `src/` and nothing else, so it costs no build and needs no parser: comments
//! and the insides of strings are blanked first, test code is cut out, and what is left is searched
//! for names. It does not see through a re-export or a macro; clippy (`clippy.toml`) holds the
//! methods, the types hold the line, and this file holds the arrows. Every check is run on a bad
//! sample too, because a check that cannot fail holds nothing.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest file of a room, in lines.
const FILE_LINES_MAX: usize = 600;

/// The core, in the order of the line: each room may import the rooms before it.
const CORE: [&str; 12] = [
    "time", "source", "mqtt", "refusal", "identity", "session", "policy", "limits", "schema",
    "evidence", "routing", "broker",
];

/// The shell, and which shell rooms each room may import; all of them may import the core.
/// `server` and `telemetry` know each other: one serves what the other shows.
const SHELL: [(&str, &[&str]); 5] = [
    ("storage", &[]),
    ("server", &["storage", "telemetry"]),
    ("telemetry", &["server"]),
    ("config", &[]),
    ("cli", &["storage", "server", "telemetry", "config"]),
];

/// What the core may not name: the world outside comes in as an argument.
const OUTSIDE: [&str; 17] = [
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::sync::mpsc",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::time::Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "tokio::",
    "tracing::",
    "rustix::",
];

/// Rooms of the core that may not take randomness from the system either. (`identity` makes keys
/// and `evidence` the key of the log; both hand them out as values.)
const SEEDED: [&str; 6] = ["session", "policy", "limits", "schema", "routing", "broker"];

const RANDOMNESS: [&str; 5] = ["SystemRandom", "rand::fill", "OsRng", "getrandom", "thread_rng"];

/// What would stop the process on a peer's word.
const PANICS: [&str; 6] =
    [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "dbg!("];

/// Where a `Synced` is made: after the one `fdatasync` of a batch, and nowhere else.
const ASSERTIONS: [(&str, usize); 1] = [("storage/log.rs", 1)];

/// Where a message is made that no client sent: what the broker says of itself, and what it promises.
const OWN_MESSAGES: [(&str, usize); 2] = [("broker/receipts.rs", 1), ("broker/sys.rs", 1)];

/// Where the core walks a hashed map. The order is that of the hashes, so nothing that leaves the
/// core may depend on it: `stop`, images and the end of a replay sort, `sys` counts, a replay looks
/// for the one holder of a copy, the limits judge each entry by itself. What `grants` walks is a
/// `BTreeMap` that shares its name with a map of JSON.
const HASHED_WALKS: [(&str, usize); 7] = [
    ("broker/disconnect.rs", 1),
    ("broker/durable/image.rs", 1),
    ("broker/durable/replay.rs", 2),
    ("broker/sys.rs", 1),
    ("identity/grants.rs", 1),
    ("limits/address.rs", 1),
    ("limits/admit.rs", 2),
];

/// What walks a map.
const WALKS: [&str; 11] = [
    "iter(",
    "iter_mut(",
    "keys(",
    "values(",
    "values_mut(",
    "into_iter(",
    "into_keys(",
    "into_values(",
    "drain(",
    "retain(",
    "extract_if(",
];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.what)
    }
}

/// One file of `src/`, as written and as the checks see it.
struct Source {
    /// Relative to `src/`, with `/`.
    file: String,
    text: String,
    /// Without comments, insides of strings, and test code; the lines are where they were.
    code: String,
}

impl Source {
    fn new(file: &str, text: &str) -> Self {
        let blanked = blank(text);
        let code = if is_test_file(file) { String::new() } else { cut_tests(&blanked) };
        Self { file: file.to_owned(), text: text.to_owned(), code }
    }

    /// The directory or file right under `src/`.
    fn room(&self) -> &str {
        let first = self.file.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn breach(&self, line: usize, what: impl Into<String>) -> Breach {
        Breach { file: self.file.clone(), line, what: what.into() }
    }

    /// A breach at every line of code that has one of `words`.
    fn naming(&self, words: &[&str], what: &str) -> Vec<Breach> {
        let lines = (1..).zip(self.code.lines());
        let hits = lines.flat_map(|(line, code)| {
            let found = words.iter().filter(move |word| code.contains(**word));
            found.map(move |word| (line, *word))
        });
        hits.map(|(line, word)| self.breach(line, format!("{what} `{word}`"))).collect()
    }
}

fn is_test_file(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    stem == "testing" || stem == "tests" || stem.ends_with("_tests") || file.contains("/tests/")
}

// --- The checks ---------------------------------------------------------------------------------

fn check_imports(source: &Source) -> Vec<Breach> {
    let room = source.room();
    let may = |other: &str| {
        let place = |name: &str| CORE.iter().position(|core| *core == name);
        let shell = SHELL.iter().find(|(name, _)| *name == room);
        match (place(room), place(other), shell) {
            _ if other == room => true,
            (Some(room), Some(other), _) => other < room,
            (None, Some(_), Some(_)) => true,
            (None, None, Some((_, others))) => others.contains(&other),
            (None, _, None) => room == "main" || room == "lib",
            (Some(_), None, _) => false,
        }
    };
    let mut breaches = Vec::new();
    for (line, code) in (1..).zip(source.code.lines()) {
        let imported = code.split("crate::").skip(1).flat_map(imported_rooms);
        for other in imported.filter(|other| !may(other)) {
            breaches.push(source.breach(line, format!("`{room}` must not import `{other}`")));
        }
    }
    breaches
}

/// The rooms named by what follows a `crate::`.
fn imported_rooms(after: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_');
    if let Some(list) = after.strip_prefix('{') {
        // `use crate::{a::X, b}`: names at depth one; the house writes one `use` per room.
        let list = list.split('}').next().unwrap_or(list);
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        return names.map(|name| &name[..word(name).unwrap_or(name.len())]).collect();
    }
    let name = &after[..word(after).unwrap_or(after.len())];
    // `crate::Thing` would be a re-export at the front door: no room is named.
    let is_room = name.starts_with(|c: char| c.is_ascii_lowercase());
    if is_room { vec![name] } else { Vec::new() }
}

fn check_known(source: &Source) -> Vec<Breach> {
    let room = source.room();
    let known = CORE.contains(&room) || SHELL.iter().any(|(name, _)| *name == room);
    if known || ["main", "lib"].contains(&room) {
        return Vec::new();
    }
    vec![source.breach(1, format!("`{room}` is a room that tests/architecture.rs does not know"))]
}

fn check_outside(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if CORE.contains(&source.room()) {
        breaches.extend(source.naming(&OUTSIDE, "the core names"));
    }
    if SEEDED.contains(&source.room()) {
        breaches.extend(source.naming(&RANDOMNESS, "seeds come in at construction; this names"));
    }
    breaches
}

fn check_panics(source: &Source) -> Vec<Breach> {
    source.naming(&PANICS, "outside tests there is no")
}

fn check_allows(source: &Source) -> Vec<Breach> {
    source.naming(&["#[allow(", "#![allow("], "write `expect` with its reason, not")
}

fn check_length(source: &Source) -> Vec<Breach> {
    let lines = source.text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![source.breach(lines, format!("{lines} lines, more than {FILE_LINES_MAX}"))]
}

fn check_heading(source: &Source) -> Vec<Breach> {
    if source.text.starts_with("//!") || is_test_file(&source.file) {
        return Vec::new();
    }
    vec![source.breach(1, "does not begin with `//!`: what it is for, and its invariant")]
}

/// Where a `Synced` is made, against where it may be.
fn check_assertions(sources: &[Source], allowed: &[(&str, usize)]) -> Vec<Breach> {
    let mut found = BTreeMap::<&str, usize>::new();
    for source in sources {
        let count = source.code.matches("Synced::assertion(").count();
        if count > 0 {
            found.insert(&source.file, count);
        }
    }
    let allowed: BTreeMap<&str, usize> = allowed.iter().copied().collect();
    if found == allowed {
        return Vec::new();
    }
    let what = format!("`Synced` is made in {found:?}, and may be made in {allowed:?}");
    vec![Breach { file: String::new(), line: 0, what }]
}

/// Where a message of the broker's own is made, against where it may be.
fn check_own_messages(sources: &[Source]) -> Vec<Breach> {
    let count = |source: &Source| source.code.matches("Message::of_broker(").count();
    compare("a message without an author is made", sources, count, &OWN_MESSAGES)
}

/// Where a hashed map of the core is walked, against where it may be.
fn check_hashed_walks(sources: &[Source]) -> Vec<Breach> {
    let core: Vec<&Source> =
        sources.iter().filter(|source| CORE.contains(&source.room())).collect();
    let count = |source: &Source| {
        let room = core.iter().filter(|other| other.room() == source.room());
        let mut names: Vec<String> = room.flat_map(|other| hashed(&other.code)).collect();
        names.sort();
        names.dedup();
        if CORE.contains(&source.room()) { walks(&source.code, &names) } else { 0 }
    };
    compare("a hashed map of the core is walked", sources, count, &HASHED_WALKS)
}

/// Names of what is declared as a hashed map or set.
fn hashed(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in code.lines() {
        let Some((before, after)) = line.split_once(": ") else { continue };
        let kind = after.trim_start_matches("&mut ").trim_start_matches('&');
        if ["Map<", "HashMap<", "HashSet<"].iter().any(|hashed| kind.starts_with(hashed)) {
            let name = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
            names.extend(name.map(str::to_owned));
        }
    }
    names
}

/// How often `code` walks one of `names`: by a method, or in a `for`.
fn walks(code: &str, names: &[String]) -> usize {
    let tight: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let of = |name: &String| {
        let methods = WALKS.iter().map(|walk| tight.matches(&format!(".{name}.{walk}")).count());
        let loops = ["in&self.", "in&mutself.", "inself."]
            .iter()
            .map(|of| tight.matches(&format!("{of}{name}{{")).count());
        methods.chain(loops).sum::<usize>()
    };
    names.iter().map(of).sum()
}

/// One breach unless `count` finds in the sources what is `allowed`.
fn compare(
    what: &str,
    sources: &[Source],
    count: impl Fn(&Source) -> usize,
    allowed: &[(&str, usize)],
) -> Vec<Breach> {
    let counts = sources.iter().map(|source| (source.file.as_str(), count(source)));
    let found: BTreeMap<&str, usize> = counts.filter(|(_, count)| *count > 0).collect();
    let allowed: BTreeMap<&str, usize> = allowed.iter().copied().collect();
    if found == allowed {
        return Vec::new();
    }
    let what = format!("{what} in {found:?}, and may be in {allowed:?}");
    vec![Breach { file: String::new(), line: 0, what }]
}

const CHECKS: [fn(&Source) -> Vec<Breach>; 7] = [
    check_imports,
    check_known,
    check_outside,
    check_panics,
    check_allows,
    check_length,
    check_heading,
];

// --- Reading ------------------------------------------------------------------------------------

/// `text` with comments and the insides of strings and characters as spaces.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let end = match (c, chars.get(at + 1)) {
            ('/', Some('/')) => end_of(&chars, at, |rest| rest.first() == Some(&'\n'), 0),
            ('/', Some('*')) => end_of(&chars, at + 2, |rest| rest.starts_with(&['*', '/']), 2),
            ('r', Some('"' | '#')) if !is_word(&chars, at) => raw_string_end(&chars, at),
            ('"', _) => string_end(&chars, at),
            ('\'', _) => char_end(&chars, at),
            _ => at + 1,
        };
        if end == at + 1 {
            out.push(c);
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        }
        at = end;
    }
    out
}

/// The end of what begins at `from` and ends where `is_end` holds, `extra` characters included.
fn end_of(chars: &[char], from: usize, is_end: fn(&[char]) -> bool, extra: usize) -> usize {
    let found = (from..chars.len()).find(|at| is_end(&chars[*at..]));
    found.map_or(chars.len(), |at| at + extra)
}

/// Whether the character before `at` makes it the middle of a word (`br"…"` begins at the `b`).
fn is_word(chars: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| chars.get(before));
    before.is_some_and(|c| (c.is_alphanumeric() && *c != 'b') || *c == '_')
}

fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at + 1; // A raw identifier.
    }
    let closes = |from: usize| {
        chars[from] == '"' && chars[from + 1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    (open + 1..chars.len()).find(|from| closes(*from)).map_or(chars.len(), |q| q + 1 + hashes)
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a character literal; one further for a lifetime, which is code.
fn char_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => end_of(chars, at + 3, |rest| rest.first() == Some(&'\''), 1),
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// Blanked code with every item under `#[cfg(test)]` blanked too.
fn cut_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let (before, item) = rest.split_at(at);
        let end = item_end(item);
        out.push_str(before);
        out.extend(item[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[end..];
    }
    out + rest
}

/// The end of the first item: its `;` or the brace that closes its first one.
fn item_end(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    item.len()
}

#[expect(clippy::disallowed_methods, reason = "this test reads the sources")]
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read = |path: &PathBuf| {
        let file = path.strip_prefix(&root).unwrap().display().to_string().replace('\\', "/");
        Source::new(&file, &std::fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

// --- The tests ----------------------------------------------------------------------------------

#[test]
fn every_file_keeps_to_its_room() {
    let sources = sources();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    let breaches = sources.iter().flat_map(|source| CHECKS.iter().flat_map(|check| check(source)));
    let breaches: Vec<String> = breaches.map(|breach| breach.to_string()).collect();
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

#[test]
fn synced_is_made_only_where_the_disk_has_answered() {
    let breaches = check_assertions(&sources(), &ASSERTIONS);
    assert!(breaches.is_empty(), "{}", breaches[0]);
}

#[test]
fn only_sys_makes_messages_that_no_client_sent() {
    let breaches = check_own_messages(&sources());
    assert!(breaches.is_empty(), "{}", breaches[0]);
    let another = Source::new("broker/will.rs", "//! x\nMessage::of_broker(topic, payload, now)");
    assert_eq!(check_own_messages(&[another]).len(), 1);
}

#[test]
fn nothing_that_leaves_the_core_has_the_order_of_a_hashed_map() {
    let breaches = check_hashed_walks(&sources());
    assert!(breaches.is_empty(), "{}", breaches[0]);
    let declared = "//! x\nstruct A {\n    pub(super) seen: HashMap<u8, u8>,\n}";
    for walked in [
        "fn f(&self) { self.seen\n    .values().next() }",
        "fn f(&mut self) { self.seen.retain(|_, _| true) }",
        "fn f(&self) { for (a, b) in &self.seen { g(a, b) } }",
    ] {
        let sources = [Source::new("broker/a.rs", declared), Source::new("broker/b.rs", walked)];
        let breach = check_hashed_walks(&sources).remove(0);
        assert!(breach.what.contains("broker/b.rs"), "{breach}");
    }
    let names = ["seen".to_owned()];
    assert_eq!(walks("self.seen.get(&1); self.seen.len(); self.unseen.iter();", &names), 0);
    assert_eq!(
        hashed("let seen: BTreeMap<u8, u8> = x;\nfn f(a: u8) -> HashMap<u8, u8> {"),
        [""; 0]
    );
}

#[test]
fn the_front_door_lists_every_room() {
    let sources = sources();
    let lib = sources.iter().find(|source| source.file == "lib.rs").unwrap();
    let rooms = CORE.iter().chain(SHELL.iter().map(|(name, _)| name));
    for room in rooms {
        let listed = lib.code.lines().any(|line| line.trim() == format!("pub mod {room};"));
        assert!(listed, "src/lib.rs does not list `{room}`");
    }
}

#[test]
fn an_arrow_against_the_line_is_seen() {
    let check = |file: &str, text: &str| {
        let breaches = check_imports(&Source::new(file, text));
        breaches.into_iter().map(|breach| (breach.line, breach.what)).collect::<Vec<_>>()
    };
    let bad = [
        ("policy/rule.rs", "use crate::broker::Broker;", "broker"),
        ("mqtt/decode.rs", "fn f(t: crate::time::Now) {} use crate::session::X;", "session"),
        ("broker/publish.rs", "use crate::storage::Log;", "storage"),
        ("storage/log.rs", "use crate::server::Server;", "server"),
        ("config/load.rs", "use crate::{time::Now, cli::Cli};", "cli"),
        ("time.rs", "use crate::mqtt::QoS;", "mqtt"),
    ];
    for (file, text, other) in bad {
        let room = file.split(['/', '.']).next().unwrap();
        let expected = (1, format!("`{room}` must not import `{other}`"));
        assert!(check(file, text).contains(&expected), "{file}: {text}");
    }
    let good = [
        ("broker/publish.rs", "use crate::policy::Policy;\nuse crate::broker::X;"),
        ("cli/serve.rs", "use crate::server::Server; use crate::broker::Broker;"),
        ("mqtt/mod.rs", "//! See [`crate::broker`].\nconst X: &str = \"crate::cli::Y\";"),
        ("mqtt/mod.rs", "#[cfg(test)]\nmod tests {\n use crate::broker::X;\n}"),
        ("mqtt/decode/tests.rs", "use crate::broker::X;"),
    ];
    for (file, text) in good {
        assert_eq!(check(file, text), [], "{file}: {text}");
    }
}

#[test]
fn what_a_file_may_not_say_is_seen() {
    let seen = |file: &str, text: &str| {
        let source = Source::new(file, text);
        CHECKS.iter().flat_map(|check| check(&source)).map(|b| b.line).collect::<Vec<_>>()
    };
    let long = "//! x\n".repeat(FILE_LINES_MAX + 1);
    let bad = [
        ("broker/mod.rs", "//! x\nuse std::fs;", 2),
        ("broker/mod.rs", "//! x\nlet now = std::time::Instant::now();", 2),
        ("policy/mod.rs", "//! x\nuse tokio::sync::Mutex;", 2),
        ("broker/mod.rs", "//! x\naws_lc_rs::rand::fill(&mut seed);", 2),
        ("server/mod.rs", "//! x\n\nlet x = y.unwrap();", 3),
        ("server/mod.rs", "//! x\ny.expect(\"a reason\");", 2),
        ("server/mod.rs", "//! x\npanic!(\"no\");", 2),
        ("server/mod.rs", "//! x\n#[allow(dead_code)]\nfn f() {}", 2),
        ("server/mod.rs", "// A comment, not a heading.", 1),
        ("kitchen/mod.rs", "//! x", 1),
        ("server/mod.rs", &long, FILE_LINES_MAX + 1),
        // Code after a test module is code.
        ("server/mod.rs", "//! x\n#[cfg(test)]\nmod tests { fn f() { {} } }\na.unwrap();", 4),
    ];
    for (file, text, line) in bad {
        let head: String = text.chars().take(80).collect();
        assert_eq!(seen(file, text), [line], "{file}: {head}");
    }
    let good = [
        ("broker/mod.rs", "//! Not std::fs.\nlet text = \"std::fs\"; // .unwrap()"),
        ("server/mod.rs", "//! x\n#[cfg(test)]\nmod tests { fn f() { a.unwrap() } }"),
        ("server/mod.rs", "//! x\n#[cfg(test)]\nmod tests;\nfn f() { a.unwrap_or(b) }"),
        ("server/mod.rs", "//! x\n#[expect(dead_code, reason = \"x\")]\nfn f() {}"),
        ("storage/disk.rs", "//! x\nuse std::fs::File;"),
        ("evidence/checkpoint.rs", "//! x\nuse aws_lc_rs::rand::SystemRandom;"),
    ];
    for (file, text) in good {
        assert_eq!(seen(file, text), [0; 0], "{file}: {text}");
    }
}

#[test]
fn a_second_hand_that_makes_synced_is_seen() {
    let allowed = Source::new("storage/log.rs", "//! x\nSynced::assertion(id, first)");
    let another = Source::new("broker/publish.rs", "//! x\nSynced::assertion(id, 0)");
    let comment = Source::new("broker/mod.rs", "//! x\n// Synced::assertion(id, 0)");
    let sources = [allowed, comment];
    assert_eq!(check_assertions(&sources, &ASSERTIONS), []);
    assert_eq!(check_assertions(&[another], &ASSERTIONS).len(), 1);
    assert_eq!(check_assertions(&[], &ASSERTIONS).len(), 1, "and where it must be, it is missed");
}

#[test]
fn blanking_keeps_code_and_lines() {
    let text = "a\"b\\\"c\"d // e\n'f' 'g: r#\"h\"i\"# /* j\nk */ l br\"m\" '\\'' n b'o' p";
    let kept: String = blank(text).chars().filter(|c| *c != ' ').collect();
    assert_eq!(kept, "ad\n'g:\nlbnbp");
    assert_eq!(blank(text).chars().count(), text.chars().count());
}

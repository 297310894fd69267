//! Counts the normative statements: each stands in `statements.toml` with tests that exist, or in
//! `exceptions.toml` with a reason; and no other number is cited anywhere.
//!
//! The list of numbers below is a copy of its own, so that a statement cannot go by deleting its
//! table.

#![expect(clippy::disallowed_methods, reason = "the sources are what is tested")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Sections of 3.1.1 (appendix B) and the numbers of their statements.
const V3_1_1: &str = "1.5.3:1-3 2.2.2:1-2 2.3.1:1-7 3.1.0:1-2 3.1.2:1-24 3.1.3:1-11 3.1.4:1-5 \
    3.2.0:1 3.2.2:1-6 3.3.1:1-12 3.3.2:1-3 3.3.4:1 3.3.5:1-2 3.6.1:1 3.8.1:1 3.8.3:1-4 3.8.4:1-6 \
    3.9.3:1-2 3.10.1:1 3.10.3:1-2 3.10.4:1-6 3.12.4:1 3.14.1:1 3.14.4:1-3 4.1.0:1-2 4.3.1:1 \
    4.3.2:1-2 4.3.3:1-2 4.4.0:1 4.5.0:1-2 4.6.0:1-6 4.7.1:1-3 4.7.2:1 4.7.3:1-4 4.8.0:1-2 \
    6.0.0:1-4 7.0.0:1-2 7.1.1:1 7.1.2:1";

/// Sections of 5.0 (appendix B) and the numbers of their statements.
const V5: &str = "1.5.4:1-3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:2-6 2.2.2:1 3.1.0:1-2 3.1.2:1-30 \
    3.1.3:1-12 3.1.4:1-6 3.2.0:1-2 3.2.2:1-22 3.3.1:1-13 3.3.2:1-20 3.3.4:1-10 3.4.2:1-3 3.5.2:1-3 \
    3.6.1:1 3.6.2:1-3 3.7.2:1-3 3.8.1:1 3.8.3:1-5 3.8.4:1-8 3.9.2:1-2 3.9.3:1-2 3.10.1:1 \
    3.10.3:1-2 3.10.4:1-6 3.11.2:1-2 3.11.3:1-2 3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:1-4 3.14.4:1-3 \
    3.15.1:1 3.15.2:1-3 4.1.0:1-2 4.2.0:1 4.3.1:1 4.3.2:1-5 4.3.3:1-13 4.4.0:1-2 4.5.0:1-2 \
    4.6.0:1-6 4.7.0:1 4.7.1:1-2 4.7.2:1 4.7.3:1-4 4.8.2:1-6 4.9.0:1-3 4.12.0:1-7 4.12.1:1-2 \
    4.13.1:1 4.13.2:1 6.0.0:1-4";

/// Rules of 3.1 that the later documents do not have.
const V3_1_COUNT: usize = 6;

/// Shortest reason that can say something, in characters.
const REASON_CHARS_MIN: usize = 40;

/// A version and a number.
type Key = (String, String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statements {
    #[serde(rename = "statement")]
    statements: Vec<Statement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    id: String,
    version: String,
    side: Side,
    says: String,
    tests: Vec<String>,
}

/// Whom a statement binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Client,
    Server,
    Both,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(rename = "exception")]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    id: String,
    version: String,
    kind: Kind,
    reason: String,
}

/// Why no test proves a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Client,
    None,
    Open,
}

fn beside_this(file: &str) -> String {
    let path = root().join("tests/conformance").join(file);
    std::fs::read_to_string(path).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read() -> (Vec<Statement>, Vec<Exception>) {
    let statements: Statements = toml::from_str(&beside_this("statements.toml")).unwrap();
    let exceptions: Exceptions = toml::from_str(&beside_this("exceptions.toml")).unwrap();
    (statements.statements, exceptions.exceptions)
}

/// The numbers of one document.
fn numbers(sections: &str) -> Vec<String> {
    let mut numbers = Vec::new();
    for section in sections.split_whitespace() {
        let (section, range) = section.split_once(':').unwrap();
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for number in first.parse::<u8>().unwrap()..=last.parse().unwrap() {
            numbers.push(format!("MQTT-{section}-{number}"));
        }
    }
    numbers
}

fn all() -> BTreeSet<Key> {
    let of = |version: &str, ids: Vec<String>| -> Vec<Key> {
        ids.into_iter().map(|id| (version.to_owned(), id)).collect()
    };
    let v3_1 = (1..=V3_1_COUNT).map(|number| format!("MQTT31-{number}")).collect();
    [of("3.1", v3_1), of("3.1.1", numbers(V3_1_1)), of("5.0", numbers(V5))]
        .concat()
        .into_iter()
        .collect()
}

/// What is wrong with the two lists as lists of numbers.
fn misplaced(all: &BTreeSet<Key>, listed: &[Key]) -> Vec<String> {
    let mut places: BTreeMap<&Key, usize> = all.iter().map(|key| (key, 0)).collect();
    let mut wrong = Vec::new();
    for key in listed {
        match places.get_mut(key) {
            Some(count) => *count += 1,
            None => wrong.push(format!("{key:?} does not exist")),
        }
    }
    for (key, count) in places {
        if count != 1 {
            wrong.push(format!("{key:?} stands in {count} places, not in one"));
        }
    }
    wrong
}

/// Whether `text` has a test called `name`.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let start = format!("fn {name}(");
    lines.iter().enumerate().filter(|(_, line)| line.starts_with(&start)).any(|(at, _)| {
        let above = lines[..at].iter().rev();
        above
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .any(|line| *line == "#[test]")
    })
}

/// Looks for a test, `crate::module::…::name`, in the sources below `root`.
fn exists(root: &Path, test: &str) -> bool {
    let parts: Vec<&str> = test.split("::").collect();
    let [package, modules @ .., name] = &parts[..] else { return false };
    let sources = match *package {
        "avow" => root.join("src"),
        other => root.join("tests").join(other),
    };
    // A last module that has no file of its own is inside the file before.
    let inside = modules.split_last().map_or(&[][..], |(_, before)| before);
    [modules, inside].into_iter().any(|modules| {
        let module = sources.join(modules.join("/"));
        [module.with_extension("rs"), module.join("mod.rs")]
            .iter()
            .any(|file| std::fs::read_to_string(file).is_ok_and(|text| has_test(&text, name)))
    })
}

#[test]
fn every_statement_stands_in_one_of_the_two_files() {
    let (statements, exceptions) = read();
    let proven = statements.iter().map(|one| (one.version.clone(), one.id.clone()));
    let excepted = exceptions.iter().map(|one| (one.version.clone(), one.id.clone()));
    let listed: Vec<Key> = proven.chain(excepted).collect();
    let wrong = misplaced(&all(), &listed);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    assert_eq!((numbers(V3_1_1).len(), numbers(V5).len()), (141, 251));
    for version in ["3.1", "3.1.1", "5.0"] {
        let of = |side| {
            let one = |one: &&Statement| one.version == version && one.side == side;
            statements.iter().filter(one).count()
        };
        let not = |kind| {
            let one = |one: &&Exception| one.version == version && one.kind == kind;
            exceptions.iter().filter(one).count()
        };
        println!(
            "MQTT {version}: proven by tests {} (server {}, both sides {}, client {}); \
             clients only {}, never arises {}, open {}",
            of(Side::Server) + of(Side::Both) + of(Side::Client),
            of(Side::Server),
            of(Side::Both),
            of(Side::Client),
            not(Kind::Client),
            not(Kind::None),
            not(Kind::Open),
        );
    }
}

#[test]
fn a_list_that_lacks_repeats_or_invents_one_is_wrong() {
    let all = all();
    let mut listed: Vec<Key> = all.iter().cloned().collect();
    assert_eq!(misplaced(&all, &listed), [] as [String; 0]);
    let gone = listed.pop().unwrap();
    assert_eq!(misplaced(&all, &listed).len(), 1);
    listed.extend([gone.clone(), gone]);
    assert_eq!(misplaced(&all, &listed).len(), 1);
    listed.pop();
    listed.push(("5.0".to_owned(), "MQTT-2.2.1-1".to_owned()));
    assert_eq!(misplaced(&all, &listed).len(), 1);
}

#[test]
fn every_test_that_is_named_exists() {
    let (statements, _) = read();
    let mut tests = BTreeSet::new();
    for statement in &statements {
        assert!(!statement.tests.is_empty(), "{} names no test", statement.id);
        assert!(statement.says.len() > 15, "{} says nothing", statement.id);
        tests.extend(statement.tests.iter().map(String::as_str));
    }
    let missing: Vec<&str> = tests.iter().copied().filter(|test| !exists(&root(), test)).collect();
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
    println!("{} tests prove {} statements", tests.len(), statements.len());
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    let here = "conformance::statements::a_test_that_is_not_there_is_missed";
    assert!(exists(&root(), here));
    assert!(exists(&root(), "avow::session::phase::tests::the_whole_table"));
    for wrong in [
        "conformance::statements::misplaced",
        "conformance::statements::no_such_test",
        "conformance::no_such_module::a_test_that_is_not_there_is_missed",
        "avow::session::phase::the_whole",
        "the_whole_table",
    ] {
        assert!(!exists(&root(), wrong), "{wrong}");
    }
}

#[test]
fn every_exception_has_a_reason() {
    let (_, exceptions) = read();
    for exception in &exceptions {
        let chars = exception.reason.chars().count();
        assert!(chars >= REASON_CHARS_MIN, "{}: {}", exception.id, exception.reason);
    }
}

#[test]
fn every_number_in_the_sources_is_one_of_the_documents() {
    let known: BTreeSet<String> = all().into_iter().map(|(_, id)| id).collect();
    let mut cited = BTreeSet::new();
    let mut waiting = vec![root().join("src"), root().join("tests")];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "statements.rs")
        {
            cited.extend(cited_in(&std::fs::read_to_string(&path).unwrap()));
        }
    }
    let unknown: Vec<&String> = cited.difference(&known).collect();
    assert!(unknown.is_empty(), "no such statements: {unknown:?}");
    assert!(cited.len() > 100, "{}", cited.len());
}

/// Every `MQTT-x.y.z-n` in a text.
fn cited_in(text: &str) -> impl Iterator<Item = String> {
    text.match_indices("MQTT-").filter_map(|(at, _)| {
        let number =
            text[at + 5..].split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).next()?;
        let (section, number) = number.split_once('-')?;
        let dots = section.matches('.').count();
        (dots == 2 && !number.is_empty()).then(|| format!("MQTT-{section}-{number}"))
    })
}

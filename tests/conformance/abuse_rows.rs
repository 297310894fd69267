//! Every row of the abuse catalogue that is this has a test of its name.

#![expect(clippy::disallowed_methods, reason = "the sources are files")]

use std::path::Path;

/// Rows: letter, how many.
const ROWS: [(char, u32); 3] = [('a', 23), ('b', 11), ('d', 3)];

/// Appends the text of every Rust file below `directory`.
fn read_into(text: &mut String, directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_into(text, &path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_row_is_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    read_into(&mut text, &root.join("src"));
    read_into(&mut text, &root.join("tests"));
    let rows = ROWS.iter().flat_map(|(letter, count)| (1..=*count).map(move |n| (*letter, n)));
    let missing: Vec<String> = rows
        .map(|(letter, number)| format!("fn {letter}{number:02}_"))
        // Behind `#[test]`, or inside `proptest!` where the attribute stands above it too.
        .filter(|name| {
            !text.match_indices(&name[..]).any(|(at, _)| {
                let before = text[..at].trim_end();
                before.ends_with("#[test]") || before.ends_with(']')
            })
        })
        .collect();
    assert_eq!(missing, [""; 0], "rows without a test");
}

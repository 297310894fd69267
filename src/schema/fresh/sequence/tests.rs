use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn sequences(topics_max: usize, device_topics_max: usize) -> Sequences {
    Sequences::new(SequenceBounds { topics_max, device_topics_max }, &[7; 32])
}

fn numbered(number: u64, print: u64, dup: bool) -> Numbered {
    Numbered { number, print, dup }
}

#[test]
fn the_whole_table() {
    let mut table = sequences(9, 9);
    let history = [
        (5, 1, false),
        (6, 2, false),
        (6, 2, true),
        (6, 2, false),
        (6, 3, false),
        (6, 3, true),
        (6, 0, true),
        (9, 4, false),
        (7, 5, false),
        (7, 5, true),
        (4, 6, false),
        (72, 7, false),
        (9, 4, true),
        (8, 8, true),
        (71, 9, false),
        (500, 10, false),
        (499, 11, false),
        (437, 12, true),
        (436, 13, true),
        (u64::MAX, 14, false),
        (u64::MAX, 14, true),
        (0, 15, false),
    ];
    let rows = history.map(|(number, print, dup)| {
        let sighting = table.see(("device/a", "t"), numbered(number, print, dup), WINDOW_MAX);
        format!("{number} payload {print}{}: {sighting:?}", if dup { " dup" } else { "" })
    });
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn a_window_of_one_takes_rising_numbers_only() {
    let mut table = sequences(9, 9);
    let mut see = |number| table.see(("a", "t"), numbered(number, 1, false), 1);
    assert_eq!(
        [see(3), see(5), see(4)],
        [Sighting::First, Sighting::Gap { missing: 1 }, Sighting::Replay]
    );
}

#[test]
fn each_device_and_each_topic_counts_for_itself() {
    let mut table = sequences(9, 9);
    let mut see = |who, topic| table.see((who, topic), numbered(1, 1, false), 64);
    assert_eq!([see("a", "t"), see("b", "t"), see("a", "u")], [Sighting::First; 3]);
    assert_eq!(see("b", "t"), Sighting::Replay);
}

#[test]
fn at_a_bound_the_oldest_topic_makes_room_of_the_same_device_first() {
    let names = |table: &Sequences| {
        table.stored().map(|it| format!("{}:{}", it.who, it.topic)).collect::<Vec<_>>().join(" ")
    };
    let mut table = sequences(4, 2);
    let see = |table: &mut Sequences, who, topic, number| {
        table.see((who, topic), numbered(number, 1, false), 64)
    };
    for (who, topic) in [("b", "1"), ("a", "1"), ("a", "2")] {
        see(&mut table, who, topic, 1);
    }
    see(&mut table, "a", "1", 2);
    assert_eq!(names(&table), "b:1 a:2 a:1", "what has news goes to the end");
    see(&mut table, "a", "3", 1);
    assert_eq!(names(&table), "b:1 a:1 a:3", "one past a device's bound");
    see(&mut table, "c", "1", 1);
    assert_eq!(names(&table), "b:1 a:1 a:3 c:1", "at the bound of all");
    see(&mut table, "d", "1", 1);
    assert_eq!(names(&table), "a:1 a:3 c:1 d:1", "one past it");
    assert_eq!(see(&mut table, "b", "1", 1), Sighting::First, "forgotten, and said so");
    assert_eq!((table.len(), table.windows.values().map(BTreeMap::len).sum()), (4, 4));
}

#[test]
fn what_a_snapshot_holds_knows_the_numbers_and_not_the_payloads() {
    let mut table = sequences(9, 9);
    for (topic, number) in [("t", 10), ("u", 3), ("t", 12), ("t", 9)] {
        table.see(("a", topic), numbered(number, 1, false), 64);
    }
    let stored: Vec<StoredWindow> = table.stored().collect();
    let mut again = sequences(9, 9);
    stored.iter().cloned().for_each(|window| again.restore(window));
    assert_eq!(again.stored().collect::<Vec<_>>(), stored);
    let mut see = |number, print, dup| again.see(("a", "t"), numbered(number, print, dup), 64);
    assert_eq!(see(11, 1, false), Sighting::Fills);
    assert_eq!(see(9, 2, true), Sighting::Resend, "another payload, which nobody knows");
    assert_eq!(see(9, 1, false), Sighting::Replay);
    assert_eq!(see(13, 1, false), Sighting::InOrder);
}

#[test]
fn a_payload_is_known_by_a_print_that_differs_from_start_to_start() {
    let other = Sequences::new(SequenceBounds::default(), &[8; 32]);
    let table = sequences(1, 1);
    assert_eq!(table.print(b"x"), table.print(b"x"));
    assert_ne!(table.print(b"x"), table.print(b"y"));
    assert_ne!(table.print(b"x"), other.print(b"x"));
}

proptest! {
    /// Against a model that forgets nothing.
    #[test]
    fn it_says_what_a_longer_memory_says(
        history in prop::collection::vec((0_u64..150, 1_u64..3, any::<bool>()), 1..300),
        width in 1_u64..=WINDOW_MAX,
        restart in 0_usize..300,
    ) {
        let mut table = sequences(1, 1);
        let mut all: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        for (step, (number, print, dup)) in history.into_iter().enumerate() {
            if step == restart {
                let stored: Vec<StoredWindow> = table.stored().collect();
                table = sequences(1, 1);
                stored.into_iter().for_each(|window| table.restore(window));
                all.values_mut().for_each(|print| *print = None);
            }
            let highest = all.keys().next_back().copied();
            let expected = match (highest, all.get(&number)) {
                (None, _) => Sighting::First,
                (Some(highest), _) if number == highest + 1 => Sighting::InOrder,
                (Some(highest), _) if number > highest => {
                    Sighting::Gap { missing: number - highest - 1 }
                }
                (Some(highest), _) if highest - number >= width => Sighting::Replay,
                (Some(_), None) => Sighting::Fills,
                (Some(_), Some(Some(known))) if *known != print => Sighting::Conflict,
                (Some(_), Some(_)) if dup => Sighting::Resend,
                (Some(_), Some(_)) => Sighting::Replay,
            };
            let seen = table.see(("a", "t"), numbered(number, print, dup), width);
            prop_assert_eq!(seen, expected);
            if !matches!(seen, Sighting::Resend | Sighting::Replay | Sighting::Conflict) {
                all.insert(number, Some(print));
            }
        }
    }
}

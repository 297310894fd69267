use super::*;
use crate::evidence::{LogKey, WitnessKey};

fn log() -> LogKey {
    LogKey::from_seed("plant.example/log", &[7; 32]).unwrap()
}

fn witness(number: u8) -> WitnessKey {
    WitnessKey::from_seed(&format!("w.example/{number}"), &[number; 32]).unwrap()
}

fn vkey(number: u8) -> String {
    witness(number).verifier().to_string()
}

/// A checkpoint that these witnesses cosigned.
fn note(by: &[u8]) -> String {
    let checkpoint =
        Checkpoint { origin: "plant.example/log".into(), tree_size: 42, root_hash: [9; 32] };
    let lines =
        by.iter().map(|n| witness(*n).cosign_text(&checkpoint.to_string(), 1_000 + u64::from(*n)));
    lines.fold(log().sign(&checkpoint), |note, line| note + &line)
}

/// The example of the specification, with keys: two of three here, and one of three there.
fn two_organisations() -> WitnessPolicy {
    let mut text = format!("# ours\nlog {}\n\n", log().verifier());
    for number in 1..=3 {
        text += &format!("witness X{number} {}\n", vkey(number));
    }
    text += "group X-witnesses 2 X1 X2 X3\n\n";
    for number in 4..=6 {
        text += &format!("witness\tY{number}  {} https://y.example/{number}\n", vkey(number));
    }
    text += "group Y-witnesses any Y4 Y5 Y6\n\ngroup X-and-Y all X-witnesses Y-witnesses\n";
    WitnessPolicy::parse("w.policy", &(text + "  quorum X-and-Y \n")).unwrap()
}

fn problems(text: &str) -> String {
    WitnessPolicy::parse("w.policy", text).unwrap_err().plain()
}

#[test]
fn the_published_example_asks_for_both_organisations() {
    let policy = two_organisations();
    assert_eq!((policy.logs().len(), policy.witnesses().len()), (1, 6));
    assert_eq!(policy.witnesses()[5].url.as_deref(), Some("https://y.example/6"));
    for (by, is_enough) in [
        (&[1, 2, 4][..], true),
        (&[1, 3, 6], true),
        (&[1, 2, 3, 4, 5, 6], true),
        (&[], false),
        (&[1, 2, 3], false),
        (&[4, 5, 6], false),
        (&[1, 4, 5, 6], false),
        // Twice the same witness is one.
        (&[1, 1, 4], false),
        // Nobody whom the policy knows.
        (&[1, 7, 4], false),
    ] {
        let witnessed = policy.judge(&note(by)).unwrap();
        assert_eq!(witnessed.is_enough, is_enough, "{by:?}");
    }
    let witnessed = policy.judge(&note(&[2, 4])).unwrap();
    assert_eq!(witnessed.cosigned, [("X2".to_owned(), 1_002), ("Y4".to_owned(), 1_004)]);
    assert_eq!(witnessed.missing, ["X1", "X3", "Y5", "Y6"]);
}

#[test]
fn a_false_cosignature_is_no_missing_one() {
    let policy = two_organisations();
    let true_note = note(&[1, 2, 4]);
    let line = true_note.lines().find(|line| line.contains("w.example/2")).unwrap();
    let forged = line.replacen("AAAAA", "AAAAB", 1);
    assert_ne!(forged, line);
    let judged = policy.judge(&true_note.replace(line, &forged));
    assert_eq!(judged, Err(NoteError::BadSignature));
    assert_eq!(policy.judge("no note"), Err(NoteError::Malformed));
}

#[test]
fn a_checkpoint_opens_if_one_of_the_logs_signed_it() {
    let policy = two_organisations();
    assert_eq!(policy.open(&note(&[])).unwrap().0.tree_size, 42);
    let other = LogKey::from_seed("plant.example/log", &[8; 32]).unwrap();
    let (checkpoint, _) = policy.open(&note(&[])).unwrap();
    assert_eq!(policy.open(&other.sign(&checkpoint)), Err(PolicyRefusal::UnknownLog));
    // After a rotation both keys of one origin stand there.
    let text = format!("log {}\nlog {}\nquorum none\n", log().verifier(), other.verifier());
    let both = WitnessPolicy::parse("w.policy", &text).unwrap();
    assert_eq!(both.open(&other.sign(&checkpoint)).unwrap().1.key, *other.verifier());
    assert!(both.judge(&note(&[])).unwrap().is_enough, "quorum none");
}

#[test]
fn every_problem_is_told_with_its_line_and_fix() {
    let (one, two) = (vkey(1), vkey(2));
    let log = log().verifier().to_string();
    let text = format!(
        "lag {log}\nlog {one}\nlog\nwitness w1 {one}\nwitness w1 {two}\nwitness w2 {one}\n\
         witness none {log}\ngroup g 2 w1\ngroup h any w1 w9\ngroup i all w1\nquorum j\nquorum w1\n\
         witness w3 {} a b\r\n",
        vkey(3),
    );
    insta::assert_snapshot!(problems(&text), @r"
    w.policy:1:1: `lag` is none of `log`, `witness`, `group`, `quorum`
        help: a line is one of: log VKEY [URL]; witness NAME VKEY [URL]; group NAME all|any|K MEMBER…; quorum NAME|none; or begins with #
    w.policy:2:5: this is not the verifier key of a log
        help: it stands in DIR/log.vkey: NAME+8 hex digits+base64, type Ed25519
    w.policy:3:1: `log` does not have the words that it needs
        help: write `log VKEY [URL]`
    w.policy:5:9: the name `w1` is taken
        help: witnesses and groups share their names, and `none` is nobody's: choose another
    w.policy:6:12: this key stands in line 4 already
        help: a key counts once: remove one of the two lines
    w.policy:7:9: the name `none` is taken
        help: witnesses and groups share their names, and `none` is nobody's: choose another
    w.policy:7:14: this is not the verifier key of a witness
        help: `avow witness init` prints it: NAME+8 hex digits+base64, of the type cosignature/v1; the key of a log will not do
    w.policy:8:9: `2` is no threshold of a group of 1
        help: write `all`, `any`, or a number from 1 to 1
    w.policy:9:13: `w1` is a member already
        help: each name may be a member once, so that nobody counts twice
    w.policy:9:16: `w9` is neither a witness nor a group of a line above
        help: define it above this line
    w.policy:10:13: `w1` is a member already
        help: each name may be a member once, so that nobody counts twice
    w.policy:11:8: `j` is neither a witness nor a group of a line above
        help: define it above this line
    w.policy:12:1: a second `quorum` line
        help: remove one of the two
    w.policy:13:1: `witness` does not have the words that it needs
        help: write `witness NAME VKEY [URL]`
    w.policy:13:81: a control character
        help: between words stand spaces and tabs, and lines end with a line feed alone
    ");
    insta::assert_snapshot!(problems("# nobody\n"), @r"
    w.policy:1:1: there is no `quorum` line
        help: end the file with `quorum NAME`, or `quorum none` to ask for no witness
    ");
}

#[test]
fn numbers_have_bounds() {
    let lines = |count: u8| {
        let witnesses = (1..=count).map(|n| format!("witness w{n} {}\n", vkey(n)));
        let groups = (1..=count).map(|n| format!("group g{n} 1 w{n}\n"));
        let logs = (1..=count).map(|n| {
            let key = LogKey::from_seed(&format!("log/{n}"), &[n; 32]).unwrap();
            format!("log {}\n", key.verifier())
        });
        logs.chain(witnesses).chain(groups).collect::<String>() + "quorum g1\n"
    };
    assert_eq!(POLICY_WITNESSES_MAX, 32);
    assert!(WitnessPolicy::parse("w.policy", &lines(32)).is_ok());
    let past = problems(&lines(33));
    for keyword in ["log", "witness", "group"] {
        assert!(past.contains(&format!("more than 32 lines `{keyword}`")), "{past}");
    }
    let policy = |threshold: &str| {
        let text = format!(
            "witness a {}\nwitness b {}\ngroup g {threshold} a b\nquorum g\n",
            vkey(1),
            vkey(2)
        );
        WitnessPolicy::parse("w.policy", &text)
    };
    for good in ["1", "2", "any", "all"] {
        assert!(policy(good).is_ok(), "{good}");
    }
    for bad in ["0", "3", "01", "+1", "some", "-1"] {
        assert!(policy(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_list_of_logs_holds_logs_alone() {
    let line = format!("  # one\nlog {} https://plant.example/\n", log().verifier());
    let logs = parse_logs("logs", &line).unwrap();
    assert_eq!(logs[0].key, *log().verifier());
    assert!(parse_logs("logs", "").unwrap().is_empty());
    let refused = parse_logs("logs", &format!("{line}quorum none\n")).unwrap_err();
    assert_eq!((refused.count(), refused.iter().next().unwrap().line()), (1, 3));
}

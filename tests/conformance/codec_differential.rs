//! exploration
use std::collections::BTreeMap;
use std::cell::RefCell;
use avow::mqtt::*;
use proptest::prelude::*;
use proptest::test_runner::{TestRunner, Config};
use crate::packets::encoded;
use crate::rewriters::*;
use crate::rumqttd_differential::{LAXER, damage, damaged, decoder, packet};

fn kind(p: &Packet) -> String { format!("{p:?}").chars().take_while(|c| c.is_alphanumeric()).collect() }

#[test]
#[ignore]
fn explore() {
    let seen = RefCell::new(BTreeMap::<String, (usize, Vec<u8>, String)>::new());
    let note = |key: String, bytes: &[u8], detail: String| {
        let mut seen = seen.borrow_mut();
        let e = seen.entry(key).or_insert((0, bytes.to_vec(), detail.clone()));
        e.0 += 1;
        if bytes.len() < e.1.len() { e.1 = bytes.to_vec(); e.2 = detail; }
    };
    let judge = |tag: &str, codec: Codec, peer, version: ProtocolVersion, bytes: &[u8]| {
        let ours = decoder(peer, version).decode(bytes);
        let theirs = codec.rewrite(bytes, version);
        let v = version.as_str();
        match (ours, theirs) {
            (Ok(Decoded::Packet { packet, consumed }), Rewritten::Packet(again)) => {
                match decoder(peer, version).decode(&again) {
                    Ok(Decoded::Packet { packet: p2, consumed: c2 }) if p2 == packet && c2 == again.len() => {}
                    other => note(format!("{tag} {codec:?} {v} {} REWRITES DIFFERENTLY", kind(&packet)), &bytes[..consumed], format!("{packet:?}\n      -> {again:02x?}\n      -> {other:?}")),
                }
            }
            (Ok(Decoded::Packet { packet, consumed }), t) => note(format!("{tag} {codec:?} {v} {} ACCEPTED by us, {t:?}", kind(&packet)), &bytes[..consumed], format!("{packet:?}")),
            (Err(violation), Rewritten::Packet(_) | Rewritten::NotWritten | Rewritten::Panicked) => note(format!("{tag} {codec:?} {v} LAXER {} ", violation.what), bytes, format!("{peer:?}")),
            (Ok(Decoded::Incomplete { .. }), Rewritten::Incomplete) => {}
            (Ok(Decoded::Incomplete { .. }), t) => note(format!("{tag} {codec:?} {v} we wait, {t:?}"), bytes, String::new()),
            _ => {}
        }
    };
    for codec in [Codec::Core, Codec::Rumqttc] {
        let mut runner = TestRunner::new(Config { cases: 30_000, failure_persistence: None, ..Config::default() });
        runner.run(&(packet(), damage(), any::<bool>()), |((version, peer, packet), damage, framed)| {
            let bytes = encoded(&packet, version);
            judge("valid", codec, peer, version, &bytes);
            judge("damaged", codec, peer, version, &damaged(bytes, &damage, framed));
            Ok(())
        }).unwrap();
        for l in LAXER { judge("witness", codec, l.peer, l.version, l.witness); }
    }
    for (k, (n, b, d)) in seen.borrow().iter() { println!("{k} x{n}\n    {b:02x?}\n    {d}"); }
}

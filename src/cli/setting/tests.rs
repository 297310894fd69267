//! Each problem at the line that names the thing.

#![expect(clippy::disallowed_methods, reason = "the tests break files")]

use super::*;
use crate::cli::plant::Plan;
use crate::cli::record::{Recorder, log_key};

/// A broker's directory, whose log has one signed entry.
pub(in crate::cli) fn plant() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan {
        name: "mill".to_owned(),
        trust_domain: "mill.example".to_owned(),
        hosts: Vec::new(),
        listen: "127.0.0.1:8883".to_owned(),
        metrics: "127.0.0.1:9464".to_owned(),
    };
    plan.make(dir.path(), crate::cli::unix_now()).unwrap();
    let mut recorder = Recorder::open(&crate::config::load(dir.path()).unwrap()).unwrap();
    recorder.record("note", "x", &[]).unwrap();
    recorder.close().unwrap();
    dir
}

/// The configuration with `from` replaced by `to`, and the line of the latter, from 1.
fn changed(dir: &Path, from: &str, to: &str) -> (Config, usize) {
    let path = dir.join("avow.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "no {from}");
    let text = text.replacen(from, to, 1);
    std::fs::write(&path, &text).unwrap();
    let line = text.lines().position(|line| line.contains(to)).unwrap() + 1;
    (crate::config::load(dir).unwrap(), line)
}

/// What `failed` says, which must be a problem of `line`.
fn said<T>(failed: Result<T, CliFailure>, line: usize) -> String {
    let Err(CliFailure::Setting(errors)) = failed else { panic!("not a setting") };
    assert_eq!(errors.iter().next().unwrap().line(), line, "{errors}");
    errors.plain()
}

#[test]
fn another_origin_or_key_than_the_log_s_is_told_with_line_field_and_fix() {
    let dir = plant();
    let (config, line) = changed(dir.path(), "\"mill.example/mill\"", "\"mill.example/b\"");
    let text = said(log_key(&config), line);
    assert!(text.contains("`origin` is `mill.example/b`"), "{text}");
    assert!(text.contains("write `origin = \"mill.example/mill\"`"), "{text}");
    assert!(said(Recorder::open(&config).map(|_| ()), line).contains("checkpoint"));

    let dir = plant();
    let other = plant();
    let key = other.path().join("certs/log.key").display().to_string();
    let to = format!("file:{key}");
    let (config, line) = changed(dir.path(), "file:certs/log.key", &to);
    let text = said(log_key(&config), line);
    assert!(text.contains("`key` is not the key of this log"), "{text}");
    assert!(text.contains("put back the key"), "{text}");
    // A new log needs its verifier key beside it too.
    let (config, _) = changed(dir.path(), "directory = \"log\"", "directory = \"new\"");
    let text = said(log_key(&config), line);
    assert!(text.contains("log.vkey"), "{text}");
}

#[test]
fn what_cannot_be_read_is_told_at_the_line_that_names_it() {
    let dir = plant();
    let (config, line) = changed(dir.path(), "file:certs/log.key", "env:AVOW_NO_SUCH");
    let text = said(log_key(&config), line);
    assert!(text.contains("set AVOW_NO_SUCH where `avow` runs"), "{text}");
    let (config, line) = changed(dir.path(), "\"policy.toml\"", "\"polcy.toml\"");
    let text = said(crate::cli::policy::of(&config), line);
    assert!(text.contains("polcy.toml") && text.contains("No such file"), "{text}");
    let load = |config: &Config| crate::cli::check::load_tls(config).map(|_| ());
    let (config, line) = changed(dir.path(), "file:certs/server.key", "file:certs/ca.pem");
    let text = said(load(&config), line);
    assert!(text.contains("holds no private key") && !text.contains("File("), "{text}");
    let (config, line) = changed(dir.path(), "\"certs/server.pem\"", "\"certs/none.pem\"");
    assert!(said(load(&config), line).contains("certs/none.pem"));
}

#[test]
fn a_ca_of_two_issuers_and_a_key_of_two_token_keys_are_told_with_both_places() {
    let dir = plant();
    let path = dir.path().join("avow.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let line_of = |text: &str, field: &str, nth: usize| {
        let lines = (1..).zip(text.lines());
        lines.filter(|(_, line)| line.starts_with(field)).nth(nth).unwrap().0
    };
    let again = "\n[[issuer]]\nid = \"other\"\nanchors = \"certs/ca.pem\"\n\
        trust_domain = \"mill.example\"\nroles = [\"device\"]\n";
    let twice = text.clone() + again;
    std::fs::write(&path, &twice).unwrap();
    let config = crate::config::load(dir.path()).unwrap();
    let loaded = crate::cli::check::load_tls(&config).map(|_| ());
    let told = said(loaded, line_of(&twice, "anchors", 1));
    assert!(told.contains("`other` trusts a CA that issuer `plant`"), "{told}");
    assert!(told.contains(&format!("(line {})", line_of(&twice, "anchors", 0))), "{told}");
    assert!(told.contains("take the certificate out"), "{told}");

    let again = "\n[[token_key]]\nkid = \"2\"\npublic_key = \"file:certs/token.pub\"\n\
        issuer = \"mill\"\naudience = \"mill\"\nnames = \"operator\"\n";
    let twice = text + again;
    std::fs::write(&path, &twice).unwrap();
    let config = crate::config::load(dir.path()).unwrap();
    let loaded = crate::cli::token::keys(&config).map(|_| ());
    let told = said(loaded, line_of(&twice, "public_key", 1));
    assert!(told.contains("key `2` is the same as key `1`"), "{told}");
    assert!(told.contains(&format!("(line {})", line_of(&twice, "public_key", 0))), "{told}");
    assert!(told.contains("remove one of the two"), "{told}");
}

#[test]
fn a_port_that_is_taken_is_told_at_its_line() {
    let dir = plant();
    let (config, line) = changed(dir.path(), "127.0.0.1:9464", "127.0.0.1:9465");
    let address = config.metrics.as_ref().unwrap().address;
    let source = io::Error::from(ErrorKind::AddrInUse);
    let failed: Result<(), _> = Err(of_server(&config)(Fault::Listen { address, source }));
    let text = said(failed, line);
    assert!(text.contains("write another port in `address`"), "{text}");
}

use std::time::Duration;

use super::super::{Client, ClientError, Lock};
use super::*;
use crate::server::handle::tests::scripted_handle;

/// A service whose log has the indices 0, 1 and 2.
fn service() -> Arc<Service> {
    let log: AnswerLog = Arc::new(|request, answers| match request {
        LogRequest::Show { index } if *index < 3 => {
            answers.line(&json!({ "index": index }).to_string())?;
            Ok(())
        }
        LogRequest::Show { index } => Err(AdminError::Log(format!("no entry {index}"))),
        LogRequest::Tail { .. } => loop {
            answers.line("{\"tick\":1}")?;
            answers.wait(Duration::from_millis(10))?;
        },
        _ => {
            for index in 0..1_000 {
                answers.line(&json!({ "index": index, "pad": "x".repeat(200) }).to_string())?;
            }
            Ok(())
        }
    });
    let erase: AnswerErase = Arc::new(|_, _, _| Err(AdminError::Log("nothing".to_owned())));
    Arc::new(Service { handle: scripted_handle(), listen: "[::1]:8883".to_owned(), log, erase })
}

fn lines(client: &mut Client, request: &Request) -> Result<Vec<String>, ClientError> {
    let mut lines = Vec::new();
    client.ask(request, |line| {
        lines.push(line.to_owned());
        Ok(())
    })?;
    Ok(lines)
}

#[test]
fn a_command_asks_a_running_broker() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Client::connect(directory.path()).unwrap().is_none(), "nobody serves");
    let _lock = Lock::acquire(directory.path()).unwrap();
    let admin = Admin::serve(directory.path(), service()).unwrap();
    let mode = std::fs::metadata(directory.path().join("admin.sock")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    let mut client = Client::connect(directory.path()).unwrap().unwrap();
    let shown = lines(&mut client, &Request::Log(LogRequest::Show { index: 2 })).unwrap();
    assert_eq!(shown, ["{\"index\":2}"]);
    let refused = lines(&mut client, &Request::Log(LogRequest::Show { index: 3 })).unwrap_err();
    assert_eq!(refused.to_string(), "no entry 3");
    let many = lines(&mut client, &Request::Log(LogRequest::Prove { index: 0, witnessed: false }))
        .unwrap();
    assert_eq!(many.len(), 1_000);
    let status = lines(&mut client, &Request::Status).unwrap();
    assert!(status.concat().contains("\"listen\":\"[::1]:8883\""));
    let record = RecordRequest { act: "note".to_owned(), subject: "x".to_owned(), facts: vec![] };
    let recorded = lines(&mut client, &Request::Record(record)).unwrap();
    assert_eq!(recorded, ["{\"index\":41}"]);
    drop(admin);
    assert!(!directory.path().join("admin.sock").exists());
}

#[test]
fn a_follower_that_goes_and_a_stop_end_its_thread() {
    let directory = tempfile::tempdir().unwrap();
    let _lock = Lock::acquire(directory.path()).unwrap();
    let admin = Admin::serve(directory.path(), service()).unwrap();
    let follow =
        Request::Log(LogRequest::Tail { filter: Default::default(), last: 0, follow: true });
    let mut client = Client::connect(directory.path()).unwrap().unwrap();
    let mut seen = 0;
    let stopped = client.ask(&follow, |_| {
        seen += 1;
        if seen < 3 { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    });
    assert!(stopped.is_err());
    drop(client);
    let mut client = Client::connect(directory.path()).unwrap().unwrap();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| client.ask(&follow, |_| Ok(())));
        std::thread::sleep(Duration::from_millis(50));
        drop(admin);
        assert!(follower.join().unwrap().is_err(), "the broker broke off");
    });
}

#[test]
fn what_is_no_request_is_answered_and_what_is_too_long_ends_the_conversation() {
    let directory = tempfile::tempdir().unwrap();
    let _lock = Lock::acquire(directory.path()).unwrap();
    let _admin = Admin::serve(directory.path(), service()).unwrap();
    let mut stream = UnixStream::connect(directory.path().join("admin.sock")).unwrap();
    stream.write_all(b"{\"request\":\"reboot\"}\n").unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"error\":\"not a request"), "{line}");
    let long = vec![b'x'; REQUEST_BYTES_MAX + 2];
    stream.write_all(&long).unwrap();
    line.clear();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("longer than"), "{line}");
    line.clear();
    // An end, or a reset because of bytes that were not read.
    assert_eq!(reader.read_line(&mut line).unwrap_or(0), 0);
}

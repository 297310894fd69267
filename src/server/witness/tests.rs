//! A courier and witnesses over real sockets on loopback, and logs on a real disk.
#![expect(clippy::disallowed_methods, reason = "the tests wait, and speak to a socket")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::*;
use crate::evidence::tree::leaf_hash;
use crate::evidence::verdict::WitnessAlarm;
use crate::evidence::witness_policy::parse_logs;
use crate::evidence::{
    Batch, BatchId, Checkpoint, EntryType, EntryWriter, LogKey, RecordKind, WitnessKey,
    WitnessPolicy,
};
use crate::server::Clock;
use crate::storage::cosigned::read_cosigned;
use crate::storage::{Log, LogOptions, RealDisk, Recovery};
use crate::time::UnixNanos;

const ORIGIN: &str = "plant.example/log";
const WITHIN: Duration = Duration::from_secs(20);

fn log_key() -> LogKey {
    LogKey::from_seed(ORIGIN, &[7; 32]).unwrap()
}

fn witness_key(number: u8) -> WitnessKey {
    WitnessKey::from_seed(&format!("w.example/{number}"), &[number; 32]).unwrap()
}

/// A log that grows when told.
struct Growing {
    log: Log<RealDisk>,
    recovery: Recovery<RealDisk>,
    salt: u64,
}

impl Growing {
    fn open(dir: &Path, salt: u64) -> Self {
        let options = LogOptions {
            verifier: log_key().verifier().clone(),
            segment_bytes: 1 << 20,
            tiles: true,
        };
        let (log, recovery) = Log::open(RealDisk::new(dir), options, &mut |_| {}).unwrap();
        Self { log, recovery, salt }
    }

    /// Appends entries and publishes the checkpoint over them.
    fn grow(&mut self, entries: u64) -> u64 {
        for _ in 0..entries {
            let number = self.log.next_index();
            let mut head = Vec::new();
            let now = UnixNanos::from_seconds(number);
            EntryWriter::begin(&mut head, EntryType::Start, now, "n", "d")
                .number("salt", self.salt)
                .finish();
            let mut batch = Batch::default();
            batch.push(RecordKind::Entry, None, |out| out.extend_from_slice(&head));
            self.log.append(&[(BatchId { shard: 0, number }, batch)]).unwrap();
            self.recovery.tree.push(leaf_hash(&head));
        }
        let tree = &self.recovery.tree;
        let (tree_size, root_hash) = (tree.tree_size(), tree.root());
        let checkpoint = Checkpoint { origin: ORIGIN.into(), tree_size, root_hash };
        self.recovery.checkpoints.publish(&log_key(), checkpoint).unwrap();
        tree_size
    }
}

/// A witness that serves until dropped.
struct Serving {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Serving {
    fn start(dir: &Path, number: u8, port: u16) -> Self {
        let logs = format!("log {}\n", log_key().verifier());
        let logs = parse_logs("logs", &logs).unwrap();
        let disk = RealDisk::new(dir);
        let witness = Witness::open(&disk, witness_key(number), &logs, Clock::start()).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (bound, address) = channel();
        let thread = std::thread::Builder::new().spawn(move || {
            let runtime = runtime().unwrap();
            runtime.block_on(async {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                let listener = crate::server::bind(address).await.unwrap().0;
                bound.send(listener.local_addr().unwrap()).unwrap();
                let stopped = async {
                    let _ = stopped.await;
                };
                serve(listener, None, std::sync::Arc::new(witness), stopped).await;
            });
        });
        let address = address.recv().unwrap();
        Self { address, stop: Some(stop), thread: Some(thread.unwrap()) }
    }

    fn policy_line(&self, number: u8) -> String {
        let key = witness_key(number);
        format!("witness w{number} {} http://{}/\n", key.verifier(), self.address)
    }

    /// Sends bytes as they are, and reads to the end.
    fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect_timeout(&self.address, WITHIN).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        // It may answer and close before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A courier, its board, and the alarms that it told.
fn courier(dir: &Path, policy: &str) -> (Courier, WitnessBoard, Receiver<WitnessAlarm>) {
    let policy = WitnessPolicy::parse("w.policy", policy).unwrap();
    let targets = policy.witnesses().iter().map(|witness| WitnessTarget {
        name: witness.name.clone(),
        key: witness.key.clone(),
        url: SubmissionUrl::parse(witness.url.as_deref().unwrap()).unwrap(),
    });
    let (alarms, told) = channel();
    let board = WitnessBoard::default();
    let options = CourierOptions {
        directory: dir.to_owned(),
        verifier: log_key().verifier().clone(),
        targets: targets.collect(),
        policy,
        tls: None,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        clock: Clock::start(),
        board: board.clone(),
        alarmed: Box::new(move |_, alarm| alarms.send(alarm).unwrap()),
    };
    (Courier::start(options).unwrap(), board, told)
}

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < WITHIN, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The size of the cosigned checkpoint, and how many cosigned it; it must be signed by the log.
fn published(dir: &Path, policy: &str) -> Option<(u64, usize)> {
    let note = read_cosigned(&RealDisk::new(dir)).unwrap()?;
    let checkpoint = Checkpoint::open(&note, log_key().verifier()).unwrap();
    let judged = WitnessPolicy::parse("w.policy", policy).unwrap().judge(&note).unwrap();
    Some((checkpoint.tree_size, judged.cosigned.len()))
}

#[test]
fn each_checkpoint_comes_home_with_the_cosignatures_of_all() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = |name: &str| {
        let dir = scratch.path().join(name);
        std::fs::DirBuilder::new().create(&dir).unwrap();
        dir
    };
    let (log_dir, one_dir, two_dir) = (dir("log"), dir("one"), dir("two"));
    let one = Serving::start(&one_dir, 1, 0);
    let two = Serving::start(&two_dir, 2, 0);
    let port = two.address.port();
    let policy = one.policy_line(1) + &two.policy_line(2) + "group both all w1 w2\nquorum both\n";
    let mut log = Growing::open(&log_dir, 0);
    let first = log.grow(5);
    let (courier_one, board, _alarms) = courier(&log_dir, &policy);
    wait_for("both cosign 5", || published(&log_dir, &policy) == Some((first, 2)));
    let second = log.grow(3);
    wait_for("both cosign 8", || published(&log_dir, &policy) == Some((second, 2)));
    let rows = board.rows();
    assert!(
        rows.iter().all(|row| row.cosigned_entries == Some(8) && row.failures == 0),
        "{rows:?}"
    );

    // One of them is away: what was enough stays, and is not replaced by what is not.
    drop(two);
    let third = log.grow(1);
    wait_for("w1 cosigns 9", || board.rows()[0].cosigned_entries == Some(third));
    wait_for("w2 is missed", || board.rows()[1].failures > 0);
    assert_eq!(published(&log_dir, &policy), Some((second, 2)));
    let trouble = board.rows()[1].trouble.clone().unwrap();
    assert!(trouble.starts_with("no connection"), "{trouble}");
    // Back again, it continues from what it has kept.
    let two = Serving::start(&two_dir, 2, port);
    wait_for("both cosign 9", || published(&log_dir, &policy) == Some((third, 2)));
    assert_eq!(board.rows()[1].trouble, None);

    // The last checkpoint of a log that stops is brought as well.
    drop(courier_one);
    let (courier_two, board, _alarms) = courier(&log_dir, &policy);
    assert_eq!(board.rows().len(), 2);
    let fourth = log.grow(1);
    courier_two.finish();
    assert_eq!(published(&log_dir, &policy), Some((fourth, 2)));
    drop((one, two));
}

#[test]
fn a_log_that_was_forked_or_rolled_back_is_refused_and_told_once() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = |name: &str| {
        let dir = scratch.path().join(name);
        std::fs::DirBuilder::new().create(&dir).unwrap();
        dir
    };
    let witness = Serving::start(&dir("w"), 1, 0);
    let policy = witness.policy_line(1) + "quorum w1\n";
    let (true_dir, forked_dir, short_dir) = (dir("true"), dir("forked"), dir("short"));
    Growing::open(&true_dir, 0).grow(5);
    let (honest, board, alarms) = courier(&true_dir, &policy);
    wait_for("the true log is cosigned", || board.rows()[0].cosigned_entries == Some(5));
    drop(honest);
    assert!(alarms.try_recv().is_err());

    // Another tree of the same size, then larger: one alarm, and no cosignature.
    let mut forked = Growing::open(&forked_dir, 1);
    forked.grow(5);
    let (lying, board, alarms) = courier(&forked_dir, &policy);
    let alarm = alarms.recv_timeout(WITHIN).unwrap();
    assert_eq!(alarm, WitnessAlarm::Forked { size: 5 });
    forked.grow(2);
    wait_for("it is asked on", || board.rows()[0].alarms >= 3);
    assert!(alarms.try_recv().is_err(), "told once");
    assert_eq!((published(&forked_dir, &policy), board.rows()[0].cosignatures), (None, 0));
    drop(lying);

    // Fewer entries than the witness knows.
    Growing::open(&short_dir, 0).grow(3);
    let (rolled_back, board, alarms) = courier(&short_dir, &policy);
    let alarm = alarms.recv_timeout(WITHIN).unwrap();
    assert_eq!(alarm, WitnessAlarm::RolledBack { theirs: 5, ours: 3 });
    assert!(board.rows()[0].trouble.as_ref().unwrap().contains("rolled back"));
    drop(rolled_back);
}

#[test]
fn a_witness_bounds_what_it_reads() {
    let scratch = tempfile::tempdir().unwrap();
    let witness = Serving::start(scratch.path(), 1, 0);
    let post = |path: &str, body: &str| {
        let length = body.len();
        witness.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(status(&post("/add-checkpoint", "nothing")), "400");
    assert_eq!(status(&post("/add-checkpoint", "old 0\n\nnote\n1\nAAAA\n\n")), "400");
    assert_eq!(status(&post("/add-checkpoint/x", "")), "404");
    let other = LogKey::from_seed("other/log", &[9; 32]).unwrap();
    let note =
        other.sign(&Checkpoint { origin: "other/log".into(), tree_size: 1, root_hash: [0; 32] });
    assert_eq!(status(&post("/add-checkpoint", &format!("old 0\n\n{note}"))), "404");
    let get = "GET /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&witness.raw(get)), "405");
    // At the bound it is read (and is no request), one byte past it is not.
    let most = crate::evidence::witness::REQUEST_BYTES_MAX;
    assert_eq!(status(&post("/add-checkpoint", &"x".repeat(most))), "400");
    assert_eq!(status(&post("/add-checkpoint", &"x".repeat(most + 1))), "413");
    let header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(serve::HEADER_BYTES_MAX));
    assert_eq!(status(&witness.raw(&header)), "431");
}

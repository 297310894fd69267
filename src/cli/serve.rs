//! `avow serve`: files to a running broker, and its end.
//!
//! Everything that can be wrong with the configuration is found before the listener opens; while the
//! log is read, it answers Server busy. The wiring stands here and nowhere else: which bound, which
//! file and which key reaches which room.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use clap::Args;

use super::audit::answer::{AnswerFault, Lines, LogReader, open_reader};
use super::privacy::erase;
use super::privacy::keeper::Keeper;
use super::privacy::keys::PseudonymKeys;
use super::{Answer, CliFailure, audit, check, files, record, setting};
use crate::broker::{Backlog, Broker, LogRecord, Replay, Settings, StatementBounds};
use crate::config::{ClientCertificate, Config, FILE_NAME, LogFormat, Proxy, ProxyProtocol};
use crate::evidence::{LogKey, Privacy, PseudonymKey, VerifierKey};
use crate::limits::AddressLimiter;
use crate::schema::Schemas;
use crate::server::admin::{
    Admin, AdminError, AdminOptions, AnswerErase, AnswerLog, Answers, Lock,
};
use crate::server::audit_api::{AuditApi, AuditApiOptions};
use crate::server::witness::Courier;
use crate::server::{
    Bounds, Clock, Core, Fault, MetricsOptions, ProxyOptions, ProxyVersion, Running, RunningWriter,
    Server, ServerOptions, StartWriter, WebSocketOptions, WriterEvents, raise_open_files,
};
use crate::storage::snapshot::restore;
use crate::storage::{
    Index, IndexFeed, IndexState, Log, LogOptions, Reader, RealDisk, Recovered, Recovery,
    SnapshotFault, SnapshotPlace, Snapshots, Until, Writer, WriterOptions,
};
use crate::telemetry::{self, Format};
use crate::time::Instant;

/// Serve until SIGINT or SIGTERM
#[derive(Args, Debug)]
pub(super) struct ServeArguments {
    /// Make a plant in a scratch directory, serve it, and run simulated devices against it
    #[cfg(feature = "demo")]
    #[arg(long)]
    demo: bool,
    /// End the demo after this time, counted from ready
    #[cfg(feature = "demo")]
    #[arg(long = "for", value_name = "TIME", requires = "demo",
        value_parser = |text: &str| crate::config::parse_duration(text).ok_or("write 20s or 5m"))]
    duration: Option<Duration>,
    /// Break one expectation of the demo, to see that it notices
    #[cfg(feature = "demo")]
    #[arg(long, hide = true, requires = "demo", value_parser = ["trespass"])]
    demo_break: Option<String>,
}

pub(super) fn run(dir: &Path, arguments: &ServeArguments) -> Result<Answer, CliFailure> {
    #[cfg(feature = "demo")]
    if arguments.demo {
        return super::demo::run(arguments.duration, arguments.demo_break.is_some());
    }
    #[cfg(not(feature = "demo"))]
    let _ = arguments;
    let config = super::configuration(dir)?;
    let format = match config.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let _lines = telemetry::init(format, config.log.level.as_str())?;
    let serving = Serving::start(&config, true)?;
    let shown = |address: Option<std::net::SocketAddr>| {
        address.map_or_else(|| "off".to_owned(), |address| address.to_string())
    };
    tracing::info!(
        listen = %serving.running.local_addr(),
        websocket = %shown(serving.running.websocket_addr()),
        metrics = %shown(serving.running.metrics_addr()),
        audit_api = %shown(serving.audit_api.as_ref().map(AuditApi::local_addr)),
        node = %config.node.name,
        "ready"
    );
    serving.wait()?;
    Ok(Answer::Yes)
}

/// A broker that serves.
pub(super) struct Serving {
    pub(super) running: Running,
    admin: Admin,
    audit_api: Option<AuditApi>,
    _keeper: Keeper,
    courier: Option<Courier>,
    _snapshots: Snapshots,
    _lock: Lock,
}

impl Serving {
    /// Takes the directory's lock, reads every file, opens the listener, recovers the log, and lets
    /// clients in.
    pub(super) fn start(config: &Config, handle_signals: bool) -> Result<Self, CliFailure> {
        let lock = Lock::acquire(&config.dir)?;
        let mut tls = check::load_tls(config)?;
        let verifier = record::log_key(config)?.verifier().clone();
        let witnesses = super::witnesses::load(config, &verifier)?;
        let schemas = Arc::new(check::load_schemas(config)?);
        let clock = Clock::start();
        let mut keys = PseudonymKeys::open(&config.privacy.keys)?;
        let key = keys.newest(clock.now().unix)?.key;
        let settings = settings(config, Arc::clone(&schemas), key)?;
        if let Err(error) = raise_open_files() {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
        let opened = Server::open(listeners(config, &mut tls, clock, handle_signals));
        let starting = opened.map_err(setting::of_server(config))?;
        let of_replay = settings.clone();
        let empty = move || Replay::new(of_replay.clone(), clock.now());
        let (log, replay) = OpenLog::open(config, clock, &empty)?;
        let snapshots = log.snapshots(config, empty)?;
        let answer = log.answerer(config, Arc::clone(&schemas))?;
        let erase = log.eraser(config, schemas, clock);
        let unfinished = log.recovery.unfinished_erasures.clone();
        let replay = Mutex::new(Some(replay));
        let core = Core {
            broker: Arc::new(move |shard, now| {
                // The one shard that there is has all sessions.
                match replay.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    Some(replay) => replay.finish(now),
                    None => Broker::new(Settings { shard, ..settings.clone() }, now),
                }
            }),
            writer: log.starter(config),
        };
        let running = starting.serve(core).map_err(setting::of_server(config))?;
        let courier = witnesses.map(|witnesses| witnesses.start(config, verifier, clock, &running));
        let courier = courier.transpose()?.flatten();
        let options = AdminOptions { lock: &lock, server: &running, log: answer, erase };
        let admin = Admin::start(options)
            .map_err(|source| Fault::System { doing: "make admin.sock", source })?;
        let audit_api = audit_api(config, &mut tls, clock, &running)?;
        let handle = running.handle();
        let disk = RealDisk::new(&config.evidence.directory);
        erase::end_unfinished(&disk, &unfinished, &mut erase::Acts::Broker(&handle))?;
        let keeper = Keeper::start(config.privacy.clone(), keys, clock, handle)?;
        Ok(Self {
            running,
            admin,
            audit_api,
            courier,
            _keeper: keeper,
            _snapshots: snapshots,
            _lock: lock,
        })
    }

    /// Waits until the broker has stopped, as it was asked to or by a fault.
    pub(super) fn wait(self) -> Result<(), CliFailure> {
        let ended = self.running.wait();
        if let (Ok(()), Some(courier)) = (&ended, self.courier) {
            courier.finish();
        }
        drop((self.admin, self.audit_api));
        Ok(ended?)
    }
}

/// What a broker is made of, as the files say it.
fn settings(
    config: &Config,
    schemas: Arc<Schemas>,
    key: Arc<PseudonymKey>,
) -> Result<Settings, CliFailure> {
    let config_text = files::read(&config.dir.join(FILE_NAME))?;
    Ok(Settings {
        node: Arc::from(config.node.name.as_str()),
        shard: 0,
        bounds: config.bounds,
        backlog: Backlog {
            records_max: usize_of(u64::from(config.evidence.backlog_entries_max)),
            bytes_max: usize_of(config.evidence.backlog_bytes_max),
        },
        tokens: Arc::new(super::token::keys(config)?),
        receipts: Some(Arc::new(super::receipt::signer(config)?)),
        policy: Arc::new(super::policy::of(config)?),
        schemas,
        limits: config.limits.clone(),
        privacy: Privacy {
            peer_address: config.privacy.peer_address,
            client_id: config.privacy.client_id,
            key: Some(key),
        },
        about: config.about.clone(),
        statements: statement_bounds(config),
        config_sha256: digest(&SHA256, config_text.as_bytes())
            .as_ref()
            .first_chunk()
            .copied()
            .unwrap_or_default(),
        seed: random()?,
    })
}

/// The log, recovered and not yet written to.
struct OpenLog {
    log: Log<RealDisk>,
    recovery: Recovery<RealDisk>,
    key: LogKey,
    index: Index,
    reader: Reader<RealDisk>,
}

impl OpenLog {
    /// Recovers the log, and from it and the newest snapshot the state of the broker. `empty` makes a
    /// replay that knows nothing yet.
    fn open(
        config: &Config,
        clock: Clock,
        empty: &dyn Fn() -> Replay,
    ) -> Result<(Self, Replay), CliFailure> {
        let key = record::log_key(config)?;
        let directory = &config.evidence.directory;
        let options = LogOptions {
            verifier: key.verifier().clone(),
            segment_bytes: config.evidence.segment_bytes,
            tiles: config.evidence.tiles,
        };
        let disk = RealDisk::new(directory);
        let (mut replay, snapshot, useless) = restore(&disk, &options, empty)?;
        for file in useless {
            tracing::warn!(file, "a snapshot was of no use; an older one or the log is read");
        }
        let covered = snapshot.map_or(0, |place| place.records);
        let (mut seen, mut replayed) = (0, Ok(()));
        let mut progress = Progress { clock, told: clock.instant(), records: 0 };
        // All of the log is checked; what the snapshot knows is not replayed.
        let opened = Log::open(disk, options, &mut |record| {
            seen += 1;
            progress.tell(seen, record.progress);
            if seen > covered && replayed.is_ok() {
                let at = record.index;
                replayed = replay.apply(log_record(&record)).map_err(|bad| (at, bad));
            }
        });
        let (log, recovery) = opened.map_err(setting::of_log(config))?;
        replayed.map_err(|(index, source)| CliFailure::Replay { index, source })?;
        if !recovery.unfinished_erasures.is_empty() {
            // A crash was faster than an erasure: nobody is let in before it is done.
            let ranges = erase::ranges_of(&recovery.unfinished_erasures);
            crate::storage::erasure::erase(&RealDisk::new(directory), &ranges)?;
            replay.erase(&ranges);
            tracing::info!(entries = ranges.len(), "an erasure that a crash left was finished");
        }
        let replayed = recovery.records.saturating_sub(covered);
        tracing::info!(records = recovery.records, replayed, "the log was read");
        if let Some(cut) = &recovery.cut {
            tracing::warn!(%cut, "a torn last batch, never acknowledged, was cut off");
        }
        let unsigned = recovery.unsigned_tail_entries();
        if unsigned > 0 {
            tracing::info!(unsigned, "unsigned tail: the next checkpoint covers it");
        }
        let mut reader = open_reader(directory, key.verifier())?;
        reader.set_until(Until::Synced(log.next_index()));
        if let Some(index) = log.next_index().checked_sub(1)
            && let Some(newest) = reader.entry(index)?
        {
            let told = replay.ended_with(&newest.json);
            told.map_err(|source| CliFailure::Replay { index, source })?;
        }
        let (index, state) = Index::open(directory, &reader)?;
        if let IndexState::Rebuilt(cause) = state {
            tracing::warn!(%cause, "the query index was of no use and was built again");
        }
        Ok((Self { log, recovery, key, index, reader }, replay))
    }

    /// Takes snapshots while the broker runs.
    fn snapshots(
        &self,
        config: &Config,
        empty: impl Fn() -> Replay + Send + 'static,
    ) -> Result<Snapshots, CliFailure> {
        let disk = RealDisk::new(&config.evidence.directory);
        let told = |taken: Result<SnapshotPlace, SnapshotFault>| match taken {
            Ok(place) => {
                tracing::info!(segment = place.segment, records = place.records, "snapshot taken");
            }
            Err(fault) => tracing::warn!(%fault, "no more snapshots: starts read more of the log"),
        };
        Ok(Snapshots::start(disk, self.log.options().clone(), empty, told)?)
    }

    /// What the admin socket reads the log with.
    fn answerer(&self, config: &Config, schemas: Arc<Schemas>) -> Result<AnswerLog, CliFailure> {
        let verifier: VerifierKey = self.key.verifier().clone();
        let reader = open_reader(&config.evidence.directory, &verifier)?;
        let index = Some(self.index.clone());
        let log = LogReader { reader, verifier, index, schemas: Some(schemas) };
        Ok(Arc::new(move |request, answers: &mut Answers<'_>| {
            log.clone().answer(request, answers).map_err(|fault| match fault {
                AnswerFault::Gone => AdminError::Gone(crate::server::admin::Gone),
                fault => AdminError::Log(fault.to_string()),
            })
        }))
    }

    /// What the admin socket erases with.
    fn eraser(&self, config: &Config, schemas: Arc<Schemas>, clock: Clock) -> AnswerErase {
        let finder = erase::finder(config, self.key.verifier().clone(), schemas);
        Arc::new(move |request, broker, answers| {
            let answer = audit::erase::answer(&finder, request, broker, clock.now().unix);
            let answer = answer.map_err(|fault| AdminError::Log(fault.to_string()))?;
            Ok(answers.line(&answer.to_string())?)
        })
    }

    fn starter(self, config: &Config) -> StartWriter {
        let options = WriterOptions {
            queue_records_max: usize_of(u64::from(config.evidence.backlog_entries_max)),
            queue_bytes_max: usize_of(config.evidence.backlog_bytes_max),
            checkpoint_interval: config.evidence.checkpoint_interval,
        };
        Box::new(move |events| self.start(options, events))
    }

    fn start(self, options: WriterOptions, events: WriterEvents) -> Result<RunningWriter, Fault> {
        let Self { log, recovery, key, index, reader } = self;
        let feed = IndexFeed::new(index, reader, key.verifier().clone());
        let (hooks, durations) = events.hooks();
        let writer = Writer::start(log, recovery, key, options, hooks, Some(feed))
            .map_err(|fault| Fault::Writer(fault.to_string()))?;
        Ok(RunningWriter::new(writer, durations))
    }
}

impl Lines for Answers<'_> {
    fn line(&mut self, line: &str) -> Result<(), AnswerFault> {
        Answers::line(self, line).map_err(|_| AnswerFault::Gone)
    }

    fn wait(&mut self, duration: Duration) -> Result<(), AnswerFault> {
        Answers::wait(self, duration).map_err(|_| AnswerFault::Gone)
    }
}

/// Says once a second how far a start has read.
struct Progress {
    clock: Clock,
    told: Instant,
    records: u64,
}

impl Progress {
    fn tell(&mut self, records: u64, progress: f64) {
        const LOOK_EVERY: u64 = 4_096;
        if !records.is_multiple_of(LOOK_EVERY) {
            return;
        }
        let now = self.clock.instant();
        let passed = now.since(self.told);
        if passed >= Duration::from_secs(1) {
            let per_second = (records - self.records) as f64 / passed.as_secs_f64();
            let percent = (progress * 100.0).floor();
            let per_second = per_second.round();
            tracing::info!(records, per_second, percent, "reading the log");
            (self.told, self.records) = (now, records);
        }
    }
}

/// What is asked of devices that sign.
fn statement_bounds(config: &Config) -> StatementBounds {
    StatementBounds {
        audience: Arc::from(config.evidence.origin.as_str()),
        clock_seconds: u32::try_from(config.evidence.device_clock_tolerance.as_secs())
            .unwrap_or(u32::MAX),
        signers_max: config.evidence.signers_max,
        links_max: config.evidence.links_max,
        cover_within_seconds: u32::try_from(config.evidence.cover_within.as_secs())
            .unwrap_or(u32::MAX),
    }
}

/// A record as the core knows it.
fn log_record<'a>(record: &Recovered<'a>) -> LogRecord<'a> {
    LogRecord {
        kind: record.kind,
        index: record.index,
        head: record.head,
        body: record
            .body
            .filter(|body| !body.is_erased())
            .map(|body| (body.payload, body.properties)),
    }
}

/// What the server needs before it has a core.
fn listeners(
    config: &Config,
    tls: &mut check::ListenerTls,
    clock: Clock,
    handle_signals: bool,
) -> ServerOptions {
    ServerOptions {
        listen: config.listen.mqtt,
        websocket: websocket(config, tls),
        tls: Arc::clone(&tls.mqtt),
        issuers: Arc::clone(&tls.issuers),
        proxy: config.listen.proxy.as_ref().map(proxy),
        address_limiter: AddressLimiter::new(&config.limits),
        shards: 1,
        bounds: bounds(config),
        clock,
        metrics: config.metrics.as_ref().map(|metrics| MetricsOptions {
            listen: metrics.address,
            // The configuration has asked already.
            allow_non_loopback: true,
        }),
        handle_signals,
    }
}

/// The read API for auditors, if it is wanted.
fn audit_api(
    config: &Config,
    tls: &mut check::ListenerTls,
    clock: Clock,
    running: &Running,
) -> Result<Option<AuditApi>, CliFailure> {
    let Some((api, tls_of_api)) = config.audit_api.as_ref().zip(tls.audit_api.take()) else {
        return Ok(None);
    };
    let options = AuditApiOptions {
        listen: api.address,
        tls: tls_of_api,
        issuers: Arc::clone(&tls.issuers),
        directory: config.evidence.directory.clone(),
        clock,
        connections_max: usize_of(u64::from(api.connections_max)),
        requests_per_second: api.requests_per_second,
    };
    let started = AuditApi::start(options, running.handle());
    let fault = |source| Fault::Listen { address: api.address, source };
    started.map(Some).map_err(|source| setting::of_server(config)(fault(source)))
}

/// The WebSocket listener, if there is one.
fn websocket(config: &Config, tls: &mut check::ListenerTls) -> Option<WebSocketOptions> {
    let (websocket, tls) = config.listen.websocket.as_ref().zip(tls.websocket.take())?;
    Some(WebSocketOptions {
        listen: websocket.address,
        tls,
        path: websocket.path.clone(),
        origins: websocket.origins.clone(),
        allow_no_origin: websocket.allow_no_origin,
        // TLS sees to it already; without a key there is no token that could name anybody.
        takes_tokens: websocket.client_certificate != ClientCertificate::Required
            && !config.tokens.keys.is_empty(),
        message_bytes_max: usize_of(u64::from(websocket.message_bytes_max)),
        proxy: websocket.proxy.as_ref().map(proxy),
    })
}

fn proxy(proxy: &Proxy) -> ProxyOptions {
    let version = match proxy.protocol {
        ProxyProtocol::V1 => ProxyVersion::V1,
        ProxyProtocol::V2 => ProxyVersion::V2,
    };
    ProxyOptions { version, trusted: proxy.trusted.clone() }
}

/// The shell's bounds, as far as the configuration names them.
fn bounds(config: &Config) -> Bounds {
    let default = Bounds::default();
    let outbound = usize_of(u64::from(config.bounds.outbound_bytes_max));
    let packet = usize_of(u64::from(config.bounds.packet_bytes_max));
    Bounds {
        connections_max: usize_of(u64::from(config.listen.connections_max)),
        handshakes_max: usize_of(u64::from(config.listen.handshakes_max)),
        connect_max: config.listen.connect_timeout,
        connect_bytes_max: usize_of(u64::from(config.bounds.connect_bytes_max)),
        packet_bytes_max: packet,
        verify_threads: config.evidence.verify_threads,
        // Room for what the core may hand over, and for its last packets beside that.
        out_bytes_max: default.out_bytes_max.max(2 * outbound + 2 * packet),
        ..default
    }
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn random() -> Result<[u8; 32], CliFailure> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| CliFailure::Randomness)?;
    Ok(seed)
}

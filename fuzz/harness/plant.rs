//! A broker core, its log on a simulated disk, and nothing else: what a history is played to.
//!
//! A restart loses what was not synced, as power loss does, and replays the rest.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use avow::broker::{
    About, Backlog, Broker, Certified, ConnectionFacts, ConnectionId, Input, LogRecord, Output,
    Replay, Settings,
};
use avow::evidence::{Batch, BatchId, LogKey, VerifierKey};
use avow::identity::token::{
    NewToken, TokenAlgorithm, TokenKey, TokenKeySpec, TokenKeys, TokenSigner,
};
use avow::identity::{Grants, Identity, Role};
use avow::limits::LimitsConfig;
use avow::policy::Policy;
use avow::schema::Schemas;
use avow::session::Bounds;
use avow::storage::{Log, LogOptions};
use avow::time::{Instant, Now, UnixNanos};

use super::disk::SimDisk;

const POLICY: &str = r#"
version = 1
[[permit]]
id = "ids"
who = ["device", "dashboard"]
client_id = "${device}*"
[[permit]]
id = "publish"
who = ["device", "dashboard"]
publish = ["t/#"]
schema = "none"
qos_max = 2
retain = true
clear_retained = true
[[permit]]
id = "read"
who = ["device", "dashboard"]
subscribe = ["t/#"]
[[forbid]]
id = "secret"
who = ["dashboard"]
receive = ["t/secret/#"]
"#;

/// The example of RFC 8410, sections 10.1 and 10.3: Ed25519, whose signatures need no randomness.
const TOKEN_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";
const TOKEN_PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const TOKEN_KEY: TokenKeySpec<'_> = TokenKeySpec {
    kid: "1",
    algorithm: TokenAlgorithm::EdDsa,
    issuer: "idp",
    audience: "plant",
    trust_domain: "plant",
    role: Role::Dashboard,
    name_prefix: "",
    lifetime_seconds_max: 900,
    public_key_pem: TOKEN_PUBLIC_KEY,
};

const SEGMENT_BYTES: u64 = 8192;

/// Small, so that a short history reaches them.
pub(crate) fn bounds() -> Bounds {
    Bounds {
        subscriptions_max: 3,
        queue_messages_max: 4,
        queue_bytes_max: 300,
        send_window_messages_max: 3,
        receive_maximum: 4,
        topic_alias_maximum: 2,
        session_expiry_seconds_max: 100,
        will_delay_seconds_max: 10,
        retained_messages_max: 2,
        sessions_total_max: 3,
        subscriptions_total_max: 5,
        outbound_bytes_max: 200,
        ..Bounds::default()
    }
}

fn settings(life: u8) -> Settings {
    static READ: OnceLock<(Arc<Policy>, Arc<Schemas>, Arc<TokenKeys>)> = OnceLock::new();
    let (policy, schemas, tokens) = READ.get_or_init(|| {
        let none = |name: &str| Err::<String, _>(format!("no {name}"));
        let policy = Policy::parse("policy.toml", POLICY).expect("the policy above is right");
        let schemas = Schemas::parse("registry.toml", "version = 1", none);
        let schemas = schemas.expect("an empty registry is right");
        let key = TokenKey::new(&TOKEN_KEY).expect("the key above is right");
        let tokens = TokenKeys::new(vec![key], 1_024, 0).expect("one key is not too many");
        (Arc::new(policy), Arc::new(schemas), Arc::new(tokens))
    });
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1_000_000;
    limits.default.messages_burst = 1_000_000;
    limits.default.bytes_per_second = 1_000_000_000;
    limits.default.bytes_burst = 1_000_000_000;
    limits.default.subscribes_per_second = 1_000_000;
    limits.default.subscribes_burst = 1_000_000;
    limits.connects_per_second = 1_000_000;
    limits.connects_burst = 1_000_000;
    Settings {
        node: "plant".into(),
        shard: 0,
        bounds: bounds(),
        backlog: Backlog::default(),
        policy: Arc::clone(policy),
        schemas: Arc::clone(schemas),
        tokens: Arc::clone(tokens),
        limits,
        privacy: avow::evidence::Privacy::PLAIN,
        about: About { sys_interval_seconds: 0, server_reference: None },
        statements: Default::default(),
        receipts: None,
        config_sha256: [0; 32],
        seed: [life; 32],
    }
}

fn log_options() -> LogOptions {
    static KEY: OnceLock<VerifierKey> = OnceLock::new();
    let key = || LogKey::from_seed("plant.example/log", &[7; 32]).expect("a seed of 32 bytes");
    let verifier = KEY.get_or_init(|| key().verifier().clone()).clone();
    LogOptions { verifier, segment_bytes: SEGMENT_BYTES, tiles: false }
}

/// The broker, its disk and the time.
pub(crate) struct Plant {
    pub(crate) broker: Broker,
    pub(crate) now: Now,
    disk: SimDisk,
    log: Log<SimDisk>,
    waiting: VecDeque<(BatchId, Batch)>,
    /// Payloads that are on disk with their entries.
    pub(crate) synced: BTreeSet<Vec<u8>>,
    /// Batches asked for, and batches on disk, in this life.
    pub(crate) batches: (u64, u64),
    next_connection: u64,
    lives: u8,
}

impl Plant {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Now { instant: Instant::ZERO, unix: UnixNanos::from_seconds(1_000_000) };
        let disk = SimDisk::new(seed);
        let (log, _) = Log::open(disk.clone(), log_options(), &mut |_| {}).expect("an empty disk");
        Self {
            broker: Broker::new(settings(0), now),
            now,
            disk,
            log,
            waiting: VecDeque::new(),
            synced: BTreeSet::new(),
            batches: (0, 0),
            next_connection: 0,
            lives: 0,
        }
    }

    /// Power off and on: the broker that the log makes. Connections are gone.
    pub(crate) fn restart(&mut self) {
        self.disk.crash();
        self.waiting.clear();
        self.batches = (0, 0);
        self.lives = self.lives.wrapping_add(1);
        let mut replay = Replay::new(settings(self.lives), self.now);
        let opened = Log::open(self.disk.clone(), log_options(), &mut |record| {
            let body = record.body.map(|body| (body.payload, body.properties));
            let (kind, index, head) = (record.kind, record.index, record.head);
            replay.apply(LogRecord { kind, index, head, body }).expect("our own record");
        });
        self.log = opened.expect("a log that was cut by power loss opens").0;
        self.broker = replay.finish(self.now);
    }

    /// A connection whose handshake is done; `identity` is that of its certificate, if it showed one.
    pub(crate) fn open(&mut self, identity: Option<&Identity>) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let facts = ConnectionFacts {
            certificate: identity.map(|identity| Certified {
                identity: identity.clone(),
                x5t: [0; 32],
                spki_sha256: [0; 32],
                key: None,
                issuer_name: String::new(),
                serial: String::new(),
                not_before: UnixNanos::new(0),
                not_after: UnixNanos::from_seconds(2_000_000),
                path: None,
            }),
            peer: "127.0.0.1:9".parse().expect("an address"),
            tls_version: "1.3",
            tls_suite: String::new(),
            exporter_sha256: [0; 32],
        };
        let connect_deadline = self.now.instant.after(Duration::from_secs(10));
        self.input(Input::Opened { connection, facts: Arc::new(facts), connect_deadline });
        connection
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.broker.handle(self.now, input);
    }

    /// A token for `name` from now on, and when it ends.
    pub(crate) fn token(&self, name: &str, lifetime_seconds: u64) -> (String, UnixNanos) {
        static SIGNER: OnceLock<TokenSigner> = OnceLock::new();
        let signer = SIGNER
            .get_or_init(|| TokenSigner::new(&TOKEN_KEY, TOKEN_PRIVATE_KEY).expect("its key"));
        let issued = self.now.unix;
        let new = NewToken { name, jti: "1", issued, lifetime_seconds, grants: Grants::NONE };
        let end = UnixNanos::from_seconds(issued.as_seconds() + lifetime_seconds);
        (signer.sign(&new).expect("a token"), end)
    }

    /// Lets time pass, timers fire one after the other.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now.instant.after(duration);
        for _ in 0..64 {
            let due = self.broker.poll_timeout().map_or(end, |due| due.min(end));
            let due = due.max(self.now.instant);
            let passed = due.since(self.now.instant);
            let unix = self.now.unix.as_nanos() + u64::try_from(passed.as_nanos()).unwrap_or(0);
            self.now = Now { instant: due, unix: UnixNanos::new(unix) };
            self.broker.handle_timeout(self.now);
            if due == end {
                return;
            }
        }
    }

    /// Ends a round; what the broker asks for, batches apart.
    pub(crate) fn round(&mut self) -> Vec<Output> {
        self.broker.finish_round(self.now);
        let mut outputs = Vec::new();
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Sequence { id, batch } => {
                    assert_eq!(id.number, self.batches.0, "batches are numbered without gaps");
                    self.batches.0 += 1;
                    self.waiting.push_back((id, batch));
                }
                other => outputs.push(other),
            }
        }
        outputs
    }

    /// Brings everything that waits to disk, as the writer would; false if nothing waited.
    pub(crate) fn sync(&mut self) -> bool {
        let batches: Vec<(BatchId, Batch)> = self.waiting.drain(..).collect();
        if batches.is_empty() {
            return false;
        }
        let synced = self.log.append(&batches).expect("a disk without accidents");
        for record in batches.iter().flat_map(|(_, batch)| batch.iter()) {
            self.synced.extend(record.body.map(|body| body.payload.to_vec()));
        }
        for synced in synced {
            self.batches.1 += 1;
            self.input(Input::Sequenced(synced));
        }
        true
    }
}

/// The two clients' identities, by certificate or by token.
pub(crate) fn identity(number: usize, by_token: bool) -> Identity {
    let role = [Role::Device, Role::Dashboard][number % 2];
    let issuer = if by_token { "token:idp" } else { "plant" };
    Identity::new("plant", role, "x", issuer).expect("a name that is one")
}

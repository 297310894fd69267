//! One simulated device: connects, publishes what its profile says, reconnects, stops.
//!
//! It does not judge what happens to it; it enters everything into the [`Ledger`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Client, ClientError, ConnectOptions, Endpoint, Message, Qos};
use crate::generator::Signal;
use crate::ledger::Ledger;
use crate::payload::{Operator, Reading, status};
use crate::profile::{Form, Intent, Profile, Sign, State, Status, Stream};
use crate::random::Random;
use crate::seal::SealKey;
use crate::signing::{Signers, Signing};

/// From one attempt to connect to the next.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);

/// How long the acknowledgements of the last messages may take.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Publishes in flight of one device, in messages.
const WINDOW_MESSAGES_MAX: u16 = 32;

/// Everything one device needs.
pub(crate) struct Device {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) victim: String,
    pub(crate) profile: Profile,
    pub(crate) endpoint: Endpoint,
    pub(crate) seed: u64,
    pub(crate) start_after: Duration,
    pub(crate) key: Option<Arc<SealKey>>,
    pub(crate) signing: Option<Signing>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// A stream in motion.
struct Lane {
    stream: Stream,
    topic: String,
    signals: Vec<(String, Signal)>,
    due: Instant,
    last_at: Instant,
    began: Instant,
    /// Of the next message.
    seq: u64,
    invalid_sent: usize,
}

/// A status machine in motion.
struct Machine {
    status: Status,
    topic: String,
    state: State,
    due: Instant,
}

/// What to hand to the connection.
struct Outgoing {
    message: Message,
    intent: Intent,
    sign: Option<Sign>,
}

impl Device {
    /// Runs until the plant stops.
    pub(crate) async fn run(self) {
        let mut stop = self.stop.clone();
        let mut random = Random::new(self.seed, &self.name);
        if pause(self.start_after, &mut stop).await {
            return;
        }
        let mut lanes = self.lanes(&mut random);
        let mut signers = self.signers();
        while !*stop.borrow() {
            let options = self.options();
            let connected = tokio::select! {
                connected = Client::connect(&self.endpoint, &options) => connected,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match connected {
                Ok((client, _messages)) => {
                    self.ledger.connected(self.index);
                    let ended =
                        self.serve(client, &mut lanes, &mut signers, &mut random, &mut stop).await;
                    self.ledger.disconnected(self.index, ended.as_ref());
                }
                Err(error) => self.ledger.connect_failed(self.index, &error),
            }
            if pause(RECONNECT_AFTER, &mut stop).await {
                return;
            }
        }
    }

    /// Publishes until the plant stops (`None`) or the connection ends.
    async fn serve(
        &self,
        client: Client,
        lanes: &mut [Lane],
        signers: &mut Option<Signers>,
        random: &mut Random,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<ClientError> {
        let mut answers = JoinSet::new();
        let mut machine = self.machine();
        let mut ended = None;
        while ended.is_none() && !*stop.borrow() {
            let due = lanes.iter().map(|lane| lane.due);
            let due = due.chain(machine.as_ref().map(|machine| machine.due)).min();
            tokio::select! {
                () = until(due) => {}
                _ = stop.wait_for(|stop| *stop) => break,
                reason = client.ended() => {
                    ended = Some(reason);
                    break;
                }
            }
            let now = Instant::now();
            let mut batch = Vec::new();
            for lane in lanes.iter_mut().filter(|lane| lane.due <= now) {
                lane.turn(now, random, self.key.as_deref(), &mut batch);
            }
            batch.extend(machine.as_mut().and_then(|machine| machine.turn(now, random)));
            for mut outgoing in batch {
                if !outgoing.is_stated(signers.as_mut()) {
                    continue;
                }
                if let Err(reason) = self.send(&client, outgoing, &mut answers, stop).await {
                    ended = Some(reason);
                    break;
                }
            }
            let cover = signers.as_mut().and_then(|signers| signers.cover(unix_ms() / 1_000));
            if let (None, Some(cover)) = (&ended, cover) {
                ended = send_cover(&client, cover, &mut answers).await.err();
            }
            while answers.try_join_next().is_some() {}
        }
        if let (None, Some(machine)) = (&ended, machine) {
            // The last word: the plant stops in order. If it cannot be said, the Will says it.
            let _ = client_send(&client, machine.stopped(), self, &mut answers).await;
        }
        let answered = async { while answers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWERS_WITHIN, answered).await;
        if ended.is_none() {
            client.disconnect().await;
        }
        ended
    }

    /// Sends one message unless the plant stops first.
    async fn send(
        &self,
        client: &Client,
        outgoing: Outgoing,
        answers: &mut JoinSet<()>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        tokio::select! {
            sent = client_send(client, outgoing, self, answers) => sent,
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    }

    /// What signs its messages, if it does that.
    fn signers(&self) -> Option<Signers> {
        let signing = self.signing.as_ref().filter(|_| self.profile.signs())?;
        let credentials = &self.endpoint.credentials;
        // No memory outlives a plant, but the clock goes on: each run has a higher epoch.
        Signers::new(credentials, &self.name, signing, unix_ms() / 1_000).ok()
    }

    fn options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new(self.profile.version, &self.name);
        options.keep_alive_secs = self.profile.keep_alive_secs;
        options.window_messages_max = WINDOW_MESSAGES_MAX;
        options.will = self.profile.status.as_ref().map(|machine| Message {
            topic: self.topic(&machine.topic),
            payload: status(State::Fault, unix_ms()),
            qos: Qos::AtLeastOnce,
            retain: true,
            statement: None,
        });
        options
    }

    fn lanes(&self, random: &mut Random) -> Vec<Lane> {
        let now = Instant::now();
        let lane = |stream: &Stream| {
            // Streams of one period must not all speak at once.
            #[expect(clippy::cast_precision_loss, reason = "a period is small")]
            let first = random.between(0.0, stream.period_ms as f64 / 1_000.0);
            Lane::new(stream, self.topic(&stream.topic), now, Duration::from_secs_f64(first))
        };
        self.profile.streams.iter().map(lane).collect()
    }

    fn machine(&self) -> Option<Machine> {
        let status = self.profile.status.clone()?;
        let topic = self.topic(&status.topic);
        Some(Machine { topic, state: status.first, due: Instant::now(), status })
    }

    fn topic(&self, template: &str) -> String {
        template.replace("{name}", &self.name).replace("{victim}", &self.victim)
    }
}

impl Lane {
    fn new(stream: &Stream, topic: String, now: Instant, first_after: Duration) -> Self {
        let signals = stream.values.iter();
        Self {
            topic,
            signals: signals.map(|(name, by)| (name.clone(), Signal::new(by))).collect(),
            due: now + first_after,
            last_at: now,
            began: now,
            seq: 0,
            invalid_sent: 0,
            stream: stream.clone(),
        }
    }

    /// Makes the messages that are due and sets the next time.
    fn turn(
        &mut self,
        now: Instant,
        random: &mut Random,
        key: Option<&SealKey>,
        batch: &mut Vec<Outgoing>,
    ) {
        let period = Duration::from_millis(self.stream.period_ms);
        // What a stalled connection delayed is not caught up: a sensor has no past to send.
        self.due = (self.due + period).max(now);
        if !self.is_active(now) {
            return;
        }
        for _ in 0..self.stream.burst {
            if let Some(outgoing) = self.message(now, random, key) {
                batch.push(outgoing);
            }
        }
    }

    fn is_active(&self, now: Instant) -> bool {
        self.stream.active.as_ref().is_none_or(|active| {
            let cycle = active.rest_secs + active.for_secs;
            let within = now.duration_since(self.began).as_secs().checked_rem(cycle).unwrap_or(0);
            within >= active.rest_secs
        })
    }

    fn message(
        &mut self,
        now: Instant,
        random: &mut Random,
        key: Option<&SealKey>,
    ) -> Option<Outgoing> {
        let ts = unix_ms() - 1_000 * u64::from(self.stream.stored_secs);
        #[expect(clippy::cast_precision_loss, reason = "seconds of day need no 53 bits")]
        let now_secs = ts as f64 / 1_000.0;
        let elapsed_secs = now.duration_since(self.last_at).as_secs_f64();
        self.last_at = now;
        let values = self
            .signals
            .iter_mut()
            .map(|(name, signal)| (name.as_str(), signal.next(now_secs, elapsed_secs, random)));
        let reading = Reading {
            ts,
            seq: self.seq,
            values: values.collect(),
            unit: self.stream.unit.as_deref(),
            operator: self.stream.operator.as_deref().map(|name| Operator { name }),
        };
        let fault = self.stream.faults.as_ref().and_then(|faults| {
            let due = (self.seq + 1).checked_rem(faults.every) == Some(0);
            due.then(|| faults.kinds.iter().cycle().nth(self.invalid_sent % faults.kinds.len()))?
        });
        let (json, intent) = match fault {
            Some(fault) => (reading.invalid(*fault), Intent::Improper),
            None => (reading.valid(), self.stream.intent),
        };
        self.invalid_sent += usize::from(fault.is_some());
        self.seq += 1;
        let payload = match self.stream.form {
            Form::Json => json,
            // Without a key nothing may leave in the clear.
            Form::Sealed => key?.seal(&self.topic, json).ok()?,
        };
        let topic = self.topic.clone();
        let qos = self.stream.qos;
        let message = Message { topic, payload, qos, retain: false, statement: None };
        Some(Outgoing { message, intent, sign: self.stream.sign })
    }
}

impl Outgoing {
    /// Signs it if it is to be signed; false if it cannot be sent.
    fn is_stated(&mut self, signers: Option<&mut Signers>) -> bool {
        let Some(sign) = self.sign else { return true };
        let now_seconds = unix_ms() / 1_000;
        signers.is_some_and(|signers| signers.state(sign, &mut self.message, now_seconds))
    }
}

impl Machine {
    /// Says the state and chooses when and how it goes on; `None` when it is not time.
    fn turn(&mut self, now: Instant, random: &mut Random) -> Option<Outgoing> {
        if now < self.due {
            return None;
        }
        let said = self.say(self.state);
        let Some(dwell) = self.status.states.get(&self.state) else {
            // A state that leads nowhere is said again every hour.
            self.due = now + Duration::from_secs(3_600);
            return Some(said);
        };
        let stay = random.between(f64::from(dwell.min_ms), f64::from(dwell.max_ms));
        self.due = now + Duration::from_secs_f64(stay / 1_000.0);
        let mut left = random.between(0.0, dwell.next.values().sum());
        for (state, weight) in &dwell.next {
            self.state = *state;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        Some(said)
    }

    fn stopped(&self) -> Outgoing {
        self.say(State::Stopped)
    }

    fn say(&self, state: State) -> Outgoing {
        let message = Message {
            topic: self.topic.clone(),
            payload: status(state, unix_ms()),
            qos: Qos::AtLeastOnce,
            retain: true,
            statement: None,
        };
        Outgoing { message, intent: Intent::Proper, sign: None }
    }
}

/// Enters one message into the books, sends it, and leaves a task to enter its answer.
async fn client_send(
    client: &Client,
    outgoing: Outgoing,
    device: &Device,
    answers: &mut JoinSet<()>,
) -> Result<(), ClientError> {
    let room = client.room().await?;
    let sending = device.ledger.sending(device.index, &outgoing.message, outgoing.intent);
    let Some(digest) = sending else { return Ok(()) };
    let in_flight = room.send(outgoing.message);
    let ledger = Arc::clone(&device.ledger);
    answers.spawn(async move { ledger.answered(digest, &in_flight.acknowledged().await) });
    Ok(())
}

/// Sends a cover, which is for the broker: no dashboard gets it, so it is in no book.
async fn send_cover(
    client: &Client,
    cover: Message,
    answers: &mut JoinSet<()>,
) -> Result<(), ClientError> {
    let in_flight = client.send(cover).await?;
    answers.spawn(async move { drop(in_flight.acknowledged().await) });
    Ok(())
}

/// Waits; says whether the plant stops.
async fn pause(length: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    let stopped = stop.wait_for(|stop| *stop);
    // A plant that is gone has stopped as well.
    tokio::time::timeout(length, stopped).await.is_ok()
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// All messages of one stream in `secs` simulated seconds.
    fn messages(profile: &str, stream: usize, secs: u64) -> Vec<Outgoing> {
        let profile = Profile::named(profile).unwrap();
        let began = Instant::now();
        let key = SealKey::generate().unwrap();
        let mut random = Random::new(3, "test");
        let stream = &profile.streams[stream];
        let mut lane = Lane::new(stream, "t".to_owned(), began, Duration::ZERO);
        let mut batch = Vec::new();
        while lane.due < began + Duration::from_secs(secs) {
            lane.turn(lane.due, &mut random, Some(&key), &mut batch);
        }
        batch
    }

    #[test]
    fn every_proper_payload_has_the_shape_of_the_schema() {
        for profile in Profile::shipped().unwrap() {
            for index in 0..profile.streams.len() {
                let json = profile.streams[index].form == Form::Json;
                let sent = messages(&profile.name, index, 10);
                let proper = sent.iter().filter(|m| json && m.intent == Intent::Proper);
                for (before, outgoing) in proper.enumerate() {
                    let value: Value = serde_json::from_slice(&outgoing.message.payload).unwrap();
                    let fields = value.as_object().unwrap();
                    let known = ["ts", "seq", "values", "unit", "operator"];
                    assert!(fields.keys().all(|field| known.contains(&field.as_str())));
                    assert!(
                        fields["ts"].is_u64() && fields["seq"].as_u64().unwrap() >= before as u64
                    );
                    let values = fields["values"].as_object().unwrap();
                    assert!(
                        (1..=16).contains(&values.len()) && values.values().all(Value::is_number)
                    );
                }
            }
        }
    }

    #[test]
    fn each_third_payload_of_the_broken_device_is_invalid_each_in_its_way() {
        let sent = messages("broken", 0, 15);
        let intents = sent.iter().take(6).map(|outgoing| outgoing.intent).collect::<Vec<_>>();
        let (good, bad) = (Intent::Proper, Intent::Improper);
        assert_eq!(intents, [good, good, bad, good, good, bad]);
        let parsed = sent
            .iter()
            .filter(|outgoing| outgoing.intent == bad)
            .map(|outgoing| serde_json::from_slice::<Value>(&outgoing.message.payload).ok());
        let parsed = parsed.collect::<Vec<_>>();
        assert!(parsed[0].as_ref().unwrap()["values"]["torque"].is_string());
        assert!(parsed[1].as_ref().unwrap().get("seq").is_none());
        assert!(parsed[2].as_ref().unwrap().get("firmware").is_some());
        assert_eq!(parsed[3], None);
        assert!(parsed[4].as_ref().unwrap()["values"]["torque"].is_string());
    }

    #[test]
    fn a_flood_has_a_rate_and_an_end() {
        let sent = messages("flooder", 0, 6);
        assert_eq!(sent.len(), 4 * 500);
        assert!(messages("flooder", 0, 2).is_empty());
    }

    #[test]
    fn nothing_sealed_leaves_in_the_clear() {
        let sent = messages("meter", 0, 10);
        assert!(!sent.is_empty());
        assert!(sent.iter().all(|sent| !sent.message.payload.windows(4).any(|w| w == b"seq\"")));
        let profile = Profile::named("meter").unwrap();
        let now = Instant::now();
        let mut lane = Lane::new(&profile.streams[0], "t".to_owned(), now, Duration::ZERO);
        assert!(lane.message(now, &mut Random::new(1, ""), None).is_none());
    }

    #[test]
    fn a_machine_says_only_states_of_its_profile_and_stays_as_long_as_it_says() {
        let status = Profile::named("press").unwrap().status.unwrap();
        let mut now = Instant::now();
        let topic = "t".to_owned();
        let mut machine = Machine { topic, state: status.first, due: now, status };
        let mut random = Random::new(9, "machine");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let state = machine.state;
            let said = machine.turn(now, &mut random).unwrap();
            assert!(said.message.retain);
            let value: Value = serde_json::from_slice(&said.message.payload).unwrap();
            assert_eq!(value["state"], state.name());
            seen.insert(state);
            let dwell = &machine.status.states[&state];
            let stay = machine.due - now;
            assert!(stay >= Duration::from_millis(dwell.min_ms.into()));
            assert!(stay <= Duration::from_millis(dwell.max_ms.into()));
            assert!(dwell.next.contains_key(&machine.state));
            assert!(machine.turn(now, &mut random).is_none());
            now = machine.due;
        }
        assert_eq!(seen.len(), machine.status.states.len());
    }
}

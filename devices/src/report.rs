//! What a plant saw, and whether that is what its profiles expect.
//!
//! A report is a copy: the live one is the same type as the final one, only with messages still
//! on their way.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::client::Version;
pub use crate::latency::Latencies;
use crate::profile::{Expect, Intent, Profile};

/// What happened in a plant so far.
#[derive(Clone, Debug, PartialEq)]
pub struct PlantReport {
    /// Since the plant began.
    pub elapsed: Duration,
    /// In the order of the options.
    pub devices: Vec<DeviceReport>,
    /// The one subscriber.
    pub dashboard: DashboardReport,
}

/// What happened to one device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceReport {
    /// Its name.
    pub name: String,
    /// The name of its profile.
    pub profile: String,
    /// The MQTT version it speaks.
    pub version: Version,
    /// What must come of it.
    pub expect: Expect,
    /// Whether it is connected now.
    pub connected: bool,
    /// CONNACKs that said yes.
    pub connects: u64,
    /// Why connecting failed, and how often.
    pub connect_failures: BTreeMap<String, u64>,
    /// Connections that the broker ended before CONNACK.
    pub ended_before_connack: u64,
    /// Why connections ended against the device's will, and how often.
    pub disconnects: BTreeMap<String, u64>,
    /// The Reason Codes of the broker's DISCONNECTs.
    pub disconnect_codes: BTreeMap<u8, u64>,
    /// Messages that the device is entitled to send.
    pub proper: Tally,
    /// Messages that must be refused.
    pub improper: Tally,
    /// The newest refusal or error, in words.
    pub last_reason: Option<String>,
    /// From PUBLISH to its last acknowledgement, of accepted messages of QoS 1 and 2.
    pub latency: Latencies,
    /// Sealed payloads that the dashboard opened.
    pub sealed_opened: u64,
    /// Payloads on the device's sealed topics that the dashboard could not open.
    pub sealed_unopened: u64,
}

/// Counts of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handed to the connection.
    pub sent: u64,
    /// Acknowledged with a Reason Code below 0x80; of QoS 0: written.
    pub accepted: u64,
    /// Acknowledged with another one.
    pub refused: BTreeMap<Refused, u64>,
    /// Seen by the dashboard, each once.
    pub delivered: u64,
    /// Seen by the dashboard again.
    pub duplicates: u64,
    /// Accepted with QoS 1 or 2 and not yet seen by the dashboard.
    pub missing: u64,
}

/// A kind of refusal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// The Reason Code.
    pub reason_code: u8,
    /// The Reason String without what differs from one decision to the next; may be empty.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#04x}", self.reason_code)?;
        if self.reason.is_empty() { Ok(()) } else { write!(formatter, " {}", self.reason) }
    }
}

/// What the dashboard saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DashboardReport {
    /// Live messages.
    pub received: u64,
    /// Live messages that no device of this run sent: Wills, and whatever was altered.
    pub unknown: u64,
    /// Retained messages from before.
    pub retained: u64,
    /// Why its connection ended, if it did before the plant stopped.
    pub ended: Option<String>,
}

/// One expectation, held against a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The device, or `dashboard`.
    pub device: String,
    /// What was expected.
    pub what: String,
    /// Whether it held.
    pub held: bool,
    /// What was seen.
    pub seen: String,
}

impl Tally {
    /// All refusals.
    pub fn refused_total(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Refusals with one of these Reason Codes.
    pub fn refused_with(&self, reason_codes: &[u8]) -> u64 {
        let matching =
            self.refused.iter().filter(|(refused, _)| reason_codes.contains(&refused.reason_code));
        matching.map(|(_, count)| count).sum()
    }

    /// Neither accepted nor refused: still on their way, or lost with a connection.
    pub fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.accepted + self.refused_total())
    }
}

impl DeviceReport {
    pub(crate) fn new(name: &str, profile: &Profile) -> Self {
        Self {
            name: name.to_owned(),
            profile: profile.name.clone(),
            version: profile.version,
            expect: profile.expect.clone(),
            connected: false,
            connects: 0,
            connect_failures: BTreeMap::new(),
            ended_before_connack: 0,
            disconnects: BTreeMap::new(),
            disconnect_codes: BTreeMap::new(),
            proper: Tally::default(),
            improper: Tally::default(),
            last_reason: None,
            latency: Latencies::default(),
            sealed_opened: 0,
            sealed_unopened: 0,
        }
    }

    pub(crate) const fn tally_mut(&mut self, intent: Intent) -> &mut Tally {
        match intent {
            Intent::Proper => &mut self.proper,
            Intent::Improper => &mut self.improper,
        }
    }

    /// Median of PUBLISH to acknowledgement.
    pub fn p50(&self) -> Option<Duration> {
        self.latency.percentile(50)
    }

    /// 99th percentile of PUBLISH to acknowledgement.
    pub fn p99(&self) -> Option<Duration> {
        self.latency.percentile(99)
    }

    fn expectation(&self, what: impl Into<String>, held: bool, seen: String) -> Expectation {
        Expectation { device: self.name.clone(), what: what.into(), held, seen }
    }

    fn connects_as_expected(&self) -> Expectation {
        let seen = format!(
            "{} connects, {} ended before CONNACK{}",
            self.connects,
            self.ended_before_connack,
            listed(&self.connect_failures)
        );
        if self.expect.connects {
            return self.expectation("connects", self.connects > 0, seen);
        }
        let held = self.connects == 0 && self.ended_before_connack > 0;
        self.expectation("every connection ends before CONNACK", held, seen)
    }

    fn proper_accepted(&self) -> Expectation {
        let proper = &self.proper;
        let held = proper.sent > 0 && proper.accepted == proper.sent;
        let seen = format!(
            "{} of {} accepted, {} unanswered{}",
            proper.accepted,
            proper.sent,
            proper.unanswered(),
            listed(&proper.refused)
        );
        self.expectation("every proper message is accepted", held, seen)
    }

    fn proper_delivered(&self) -> Expectation {
        let proper = &self.proper;
        let held = proper.delivered > 0 && proper.missing == 0;
        let seen = format!("{} delivered unchanged, {} missing", proper.delivered, proper.missing);
        self.expectation("every accepted message reaches the dashboard", held, seen)
    }

    fn exactly_once(&self) -> Expectation {
        let seen = format!("{} duplicates", self.proper.duplicates);
        self.expectation("no message arrives twice", self.proper.duplicates == 0, seen)
    }

    fn improper_refused(&self, reason_code: u8) -> Expectation {
        let improper = &self.improper;
        let held = improper.sent > 0
            && improper.refused_with(&[reason_code]) == improper.sent
            && improper.delivered == 0;
        let seen = format!(
            "{} sent, {} accepted, {} delivered{}",
            improper.sent,
            improper.accepted,
            improper.delivered,
            listed(&improper.refused)
        );
        let what =
            format!("every improper message is refused with {reason_code:#04x}, none delivered");
        self.expectation(what, held, seen)
    }

    fn some_refused(&self) -> Expectation {
        let codes = &self.expect.some_refused_with;
        let ended =
            self.disconnect_codes.iter().filter(|(code, _)| codes.contains(code)).count() as u64;
        let refused = self.proper.refused_with(codes) + ended;
        let only = self.proper.refused_with(codes) == self.proper.refused_total();
        let held = self.proper.accepted > 0 && refused > 0 && only;
        let seen = format!(
            "{} of {} accepted{}{}",
            self.proper.accepted,
            self.proper.sent,
            listed(&self.proper.refused),
            listed(&self.disconnects)
        );
        let codes = codes.iter().map(|code| format!("{code:#04x}")).collect::<Vec<_>>();
        let what =
            format!("some messages are accepted, others refused with {}", codes.join(" or "));
        self.expectation(what, held, seen)
    }

    fn sealed_opens(&self) -> Expectation {
        let held = self.sealed_opened > 0 && self.sealed_unopened == 0;
        let seen = format!("{} opened, {} not", self.sealed_opened, self.sealed_unopened);
        self.expectation("every sealed payload opens at the dashboard", held, seen)
    }
}

impl PlantReport {
    /// Every expectation of every profile, held against this report. Meant for the final report:
    /// a message on its way is not yet accepted or delivered.
    ///
    /// None of them is about time: on a busy machine a latency says more about the machine than
    /// about the broker. That a flood harms nobody else is that every message of the others is
    /// accepted and delivered, which their own profiles expect.
    pub fn expectations(&self) -> Vec<Expectation> {
        let ended = self.dashboard.ended.as_deref();
        let mut all = vec![Expectation {
            device: "dashboard".to_owned(),
            what: "stays connected".to_owned(),
            held: ended.is_none(),
            seen: ended.unwrap_or("connected").to_owned(),
        }];
        for device in &self.devices {
            let expect = &device.expect;
            all.push(device.connects_as_expected());
            all.extend(expect.proper_accepted.then(|| device.proper_accepted()));
            all.extend(expect.proper_delivered.then(|| device.proper_delivered()));
            all.extend(expect.exactly_once.then(|| device.exactly_once()));
            all.extend(expect.improper_refused_with.map(|code| device.improper_refused(code)));
            all.extend((!expect.some_refused_with.is_empty()).then(|| device.some_refused()));
            all.extend(expect.sealed_opens.then(|| device.sealed_opens()));
        }
        all
    }

    /// Whether every expectation held.
    pub fn all_held(&self) -> bool {
        self.expectations().iter().all(|expectation| expectation.held)
    }
}

/// A Reason String without the words that differ from one decision to the next: `decision` and
/// identifiers (six or more hexadecimal digits with a decimal one among them, UUIDs and ULIDs
/// included), so that equal refusals count together.
pub fn reason_without_ids(reason: &str) -> String {
    // The broker's own form ends with the decision's id.
    let reason = reason.split_once("; decision ").map_or(reason, |(reason, _)| reason);
    let is_id = |word: &str| {
        let word = word.rsplit(['=', ':']).next().unwrap_or(word);
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let hex = word.chars().filter(|c| *c != '-').all(|c| c.is_ascii_hexdigit());
        let digits = word.chars().filter(char::is_ascii_digit).count();
        plain && digits > 0 && ((hex && word.len() >= 6) || word.len() >= 20)
            || word.eq_ignore_ascii_case("decision")
    };
    let words = reason.split_whitespace().filter(|word| !is_id(word));
    let joined = words.collect::<Vec<_>>().join(" ");
    joined.trim_end_matches([' ', '(', '[', ',', ';', ':']).to_owned()
}

/// Counted reasons for people: `; reason (n), reason (n)`.
fn listed<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let parts = counts.iter().map(|(key, count)| format!("{key} ({count})")).collect::<Vec<_>>();
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(profile: &str) -> DeviceReport {
        DeviceReport::new(profile, &Profile::named(profile).unwrap())
    }

    fn failed(devices: Vec<DeviceReport>) -> Vec<String> {
        let dashboard = DashboardReport::default();
        let plant = PlantReport { elapsed: Duration::ZERO, devices, dashboard };
        let failed = plant.expectations().into_iter().filter(|expectation| !expectation.held);
        failed.map(|expectation| format!("{} {}", expectation.device, expectation.what)).collect()
    }

    fn refused(reason_code: u8, count: u64) -> BTreeMap<Refused, u64> {
        BTreeMap::from([(Refused { reason_code, reason: String::new() }, count)])
    }

    #[test]
    fn silence_holds_no_expectation_of_a_device() {
        assert_eq!(failed(vec![report("pump")]).len(), 3);
        assert_eq!(failed(vec![report("stranger")]).len(), 1);
        assert_eq!(failed(vec![report("meter")]).len(), 4);
    }

    #[test]
    fn a_stranger_must_be_turned_away_before_connack() {
        let mut stranger = report("stranger");
        stranger.connect_failures.insert("no TCP connection".to_owned(), 3);
        assert_eq!(failed(vec![stranger.clone()]).len(), 1);
        stranger.ended_before_connack = 1;
        assert!(failed(vec![stranger.clone()]).is_empty());
        stranger.connects = 1;
        assert_eq!(failed(vec![stranger]).len(), 1);
    }

    #[test]
    fn one_accepted_or_delivered_improper_message_is_too_many() {
        let mut trespasser = report("trespasser");
        trespasser.connects = 1;
        trespasser.proper = Tally { sent: 2, accepted: 2, delivered: 2, ..Tally::default() };
        trespasser.improper = Tally { sent: 3, refused: refused(0x87, 3), ..Tally::default() };
        assert!(failed(vec![trespasser.clone()]).is_empty());
        let mut leaked = trespasser.clone();
        leaked.improper.delivered = 1;
        assert_eq!(failed(vec![leaked]).len(), 1);
        let mut other_code = trespasser.clone();
        other_code.improper.refused = refused(0x83, 3);
        assert_eq!(failed(vec![other_code]).len(), 1);
        trespasser.improper.sent = 4;
        assert_eq!(failed(vec![trespasser]).len(), 1);
    }

    #[test]
    fn a_flood_must_be_cut_and_must_cost_the_others_no_message() {
        let mut flooder = report("flooder");
        flooder.connects = 1;
        flooder.proper = Tally { sent: 900, accepted: 900, ..Tally::default() };
        assert_eq!(failed(vec![flooder.clone()]).len(), 1);
        flooder.proper =
            Tally { sent: 900, accepted: 100, refused: refused(0x97, 800), ..Tally::default() };
        assert!(failed(vec![flooder.clone()]).is_empty());
        let mut other = report("pump");
        other.connects = 1;
        other.proper = Tally { sent: 5, accepted: 5, delivered: 5, ..Tally::default() };
        // However late: a slow machine is no broken promise.
        other.latency.add(Duration::from_secs(9));
        assert!(failed(vec![flooder.clone(), other.clone()]).is_empty());
        other.proper = Tally { sent: 5, accepted: 4, refused: refused(0x97, 1), ..other.proper };
        assert_eq!(failed(vec![flooder, other]), ["pump every proper message is accepted"]);
    }

    #[test]
    fn a_reason_loses_its_decision_id_and_nothing_else() {
        for (reason, kept) in [
            ("policy.no_rule", "policy.no_rule"),
            ("policy.no_rule decision 01J9ZK3M7Q0V5T8X2Y4B6C1D3E", "policy.no_rule"),
            ("schema.mismatch (decision 0192f3ab-77c1-7000)", "schema.mismatch"),
            ("limit.messages decision=184467", "limit.messages"),
            ("schema.mismatch /values/rms type", "schema.mismatch /values/rms type"),
            ("", ""),
        ] {
            assert_eq!(reason_without_ids(reason), kept);
        }
    }
}

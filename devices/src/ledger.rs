//! What every device sent, how the broker answered, and what the dashboard got: the books that a
//! [`PlantReport`] is copied from.
//!
//! A message is found again by the SHA-256 of its topic and payload, so a delivery counts only
//! when it is identical, byte for byte. Messages that are done stay for a while, so that a second
//! delivery is seen; both sets are bounded.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest::{Context, SHA256};

use crate::client::{Acknowledgement, ClientError, Message, Qos};
use crate::profile::Intent;
use crate::report::{DashboardReport, DeviceReport, PlantReport, Refused, reason_without_ids};

/// Messages that are not yet both answered and delivered, for the whole plant.
const OPEN_MESSAGES_MAX: usize = 65_536;

/// Messages that are done and remembered.
const DONE_MESSAGES_MAX: usize = 16_384;

/// Distinct reasons counted per device.
const REASONS_MAX: usize = 32;

/// The name of a message: SHA-256 of its topic and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

/// The books.
pub(crate) struct Ledger(Mutex<Books>);

struct Books {
    began: Instant,
    devices: Vec<DeviceReport>,
    dashboard: DashboardReport,
    messages: HashMap<Digest, Entry>,
    done: VecDeque<Digest>,
}

struct Entry {
    device: usize,
    intent: Intent,
    qos: Qos,
    accepted: bool,
    deliveries: u32,
    done: bool,
}

impl Ledger {
    pub(crate) fn new(devices: Vec<DeviceReport>) -> Self {
        Self(Mutex::new(Books {
            began: Instant::now(),
            devices,
            dashboard: DashboardReport::default(),
            messages: HashMap::new(),
            done: VecDeque::new(),
        }))
    }

    pub(crate) fn report(&self) -> PlantReport {
        let books = self.books();
        PlantReport {
            elapsed: books.began.elapsed(),
            devices: books.devices.clone(),
            dashboard: books.dashboard.clone(),
        }
    }

    /// Enters a message before it is sent; `None` when too many are open, and it must not be sent.
    pub(crate) fn sending(
        &self,
        device: usize,
        message: &Message,
        intent: Intent,
    ) -> Option<Digest> {
        let mut books = self.books();
        if books.messages.len() >= OPEN_MESSAGES_MAX + DONE_MESSAGES_MAX {
            return None;
        }
        let digest = digest(&message.topic, &message.payload);
        let qos = message.qos;
        let entry = Entry { device, intent, qos, accepted: false, deliveries: 0, done: false };
        books.messages.insert(digest, entry);
        if let Some(report) = books.devices.get_mut(device) {
            report.tally_mut(intent).sent += 1;
        }
        Some(digest)
    }

    /// Enters the broker's answer, or why there is none.
    pub(crate) fn answered(&self, digest: Digest, answer: &Result<Acknowledgement, ClientError>) {
        let mut guard = self.books();
        let books = &mut *guard;
        let Some(entry) = books.messages.get_mut(&digest) else { return };
        let Some(report) = books.devices.get_mut(entry.device) else { return };
        let acknowledged = entry.qos != Qos::AtMostOnce;
        match answer {
            Ok(answer) if answer.accepted() => {
                entry.accepted = true;
                let missing = acknowledged && entry.deliveries == 0;
                let tally = report.tally_mut(entry.intent);
                tally.accepted += 1;
                tally.missing += u64::from(missing);
                if acknowledged {
                    report.latency.add(answer.latency);
                }
                if !missing {
                    books.finish(digest);
                }
            }
            Ok(answer) => {
                let reason = reason_without_ids(answer.reason.as_deref().unwrap_or(""));
                let refused = Refused { reason_code: answer.reason_code, reason };
                report.last_reason = Some(refused.to_string());
                count(&mut report.tally_mut(entry.intent).refused, refused);
                books.finish(digest);
            }
            Err(error) => {
                report.last_reason = Some(error.to_string());
                books.finish(digest);
            }
        }
    }

    /// Enters a message that the dashboard got; returns the device that sent exactly this.
    pub(crate) fn delivered(&self, topic: &str, payload: &[u8]) -> Option<usize> {
        let digest = digest(topic, payload);
        let mut guard = self.books();
        let books = &mut *guard;
        books.dashboard.received += 1;
        let Some(entry) = books.messages.get_mut(&digest) else {
            books.dashboard.unknown += 1;
            return None;
        };
        let device = entry.device;
        entry.deliveries += 1;
        let (first, accepted) = (entry.deliveries == 1, entry.accepted);
        let was_missing = first && accepted && entry.qos != Qos::AtMostOnce;
        if let Some(report) = books.devices.get_mut(device) {
            let tally = report.tally_mut(entry.intent);
            tally.delivered += u64::from(first);
            tally.duplicates += u64::from(!first);
            tally.missing = tally.missing.saturating_sub(u64::from(was_missing));
        }
        if was_missing {
            books.finish(digest);
        }
        Some(device)
    }

    /// Enters whether the dashboard could open a sealed payload.
    pub(crate) fn opened(&self, device: usize, opened: bool) {
        if let Some(report) = self.books().devices.get_mut(device) {
            report.sealed_opened += u64::from(opened);
            report.sealed_unopened += u64::from(!opened);
        }
    }

    pub(crate) fn retained(&self) {
        self.books().dashboard.retained += 1;
    }

    pub(crate) fn dashboard_ended(&self, reason: &ClientError) {
        self.books().dashboard.ended = Some(reason.to_string());
    }

    pub(crate) fn connected(&self, device: usize) {
        if let Some(report) = self.books().devices.get_mut(device) {
            report.connects += 1;
            report.connected = true;
        }
    }

    pub(crate) fn connect_failed(&self, device: usize, reason: &ClientError) {
        if let Some(report) = self.books().devices.get_mut(device) {
            let before_connack = matches!(reason, ClientError::TlsRefused { .. });
            report.ended_before_connack += u64::from(before_connack);
            report.last_reason = Some(reason.to_string());
            count(&mut report.connect_failures, reason.to_string());
        }
    }

    /// Enters the end of a connection; `reason` is `None` when the device ended it itself.
    pub(crate) fn disconnected(&self, device: usize, reason: Option<&ClientError>) {
        if let Some(report) = self.books().devices.get_mut(device) {
            report.connected = false;
            if let Some(reason) = reason {
                report.last_reason = Some(reason.to_string());
                if let ClientError::Disconnected { reason_code, .. } = reason {
                    count(&mut report.disconnect_codes, *reason_code);
                }
                count(&mut report.disconnects, reason.to_string());
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Counters stay usable whatever a panicking holder left half counted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn finish(&mut self, digest: Digest) {
        let Some(entry) = self.messages.get_mut(&digest) else { return };
        if std::mem::replace(&mut entry.done, true) {
            return;
        }
        self.done.push_back(digest);
        if self.done.len() > DONE_MESSAGES_MAX
            && let Some(oldest) = self.done.pop_front()
        {
            self.messages.remove(&oldest);
        }
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    if counts.len() < REASONS_MAX || counts.contains_key(&key) {
        *counts.entry(key).or_default() += 1;
    } else if let Some(mut last) = counts.last_entry() {
        // Sums stay right; only the words of the newest reasons are lost.
        *last.get_mut() += 1;
    }
}

fn digest(topic: &str, payload: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(topic.as_bytes());
    context.update(&[0]); // a Topic Name has no NUL, so this ends it
    context.update(payload);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Digest(digest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::profile::Profile;

    fn ledger() -> Ledger {
        Ledger::new(vec![DeviceReport::new("p", &Profile::named("pump").unwrap())])
    }

    fn message(payload: &str) -> Message {
        Message {
            topic: "plant/p/telemetry/flow".to_owned(),
            payload: payload.into(),
            qos: Qos::ExactlyOnce,
            retain: false,
            statement: None,
        }
    }

    fn answer(reason_code: u8, reason: &str) -> Result<Acknowledgement, ClientError> {
        let reason = Some(reason.to_owned());
        Ok(Acknowledgement { reason_code, reason, latency: Duration::from_millis(1) })
    }

    #[test]
    fn a_message_counts_once_in_whichever_order_answer_and_delivery_come() {
        let ledger = ledger();
        let first = ledger.sending(0, &message("1"), Intent::Proper).unwrap();
        let second = ledger.sending(0, &message("2"), Intent::Proper).unwrap();
        ledger.answered(first, &answer(0, ""));
        assert_eq!(ledger.report().devices[0].proper.missing, 1);
        assert_eq!(ledger.delivered("plant/p/telemetry/flow", b"1"), Some(0));
        ledger.delivered("plant/p/telemetry/flow", b"2");
        ledger.answered(second, &answer(0, ""));
        let proper = ledger.report().devices[0].proper.clone();
        assert_eq!((proper.sent, proper.accepted, proper.delivered), (2, 2, 2));
        assert_eq!((proper.missing, proper.duplicates), (0, 0));
    }

    #[test]
    fn a_second_delivery_a_changed_byte_and_another_topic_are_seen() {
        let ledger = ledger();
        let sent = ledger.sending(0, &message("1"), Intent::Proper).unwrap();
        ledger.answered(sent, &answer(0, ""));
        ledger.delivered("plant/p/telemetry/flow", b"1");
        ledger.delivered("plant/p/telemetry/flow", b"1");
        assert_eq!(ledger.delivered("plant/p/telemetry/flow", b"1 "), None);
        assert_eq!(ledger.delivered("plant/q/telemetry/flow", b"1"), None);
        let report = ledger.report();
        assert_eq!(report.devices[0].proper.duplicates, 1);
        assert_eq!((report.dashboard.received, report.dashboard.unknown), (4, 2));
    }

    #[test]
    fn a_refused_message_that_is_delivered_shows() {
        let ledger = ledger();
        let sent = ledger.sending(0, &message("1"), Intent::Improper).unwrap();
        ledger.answered(sent, &answer(0x87, "policy.no_rule decision 0192f3ab77c1"));
        ledger.delivered("plant/p/telemetry/flow", b"1");
        let report = ledger.report();
        let improper = &report.devices[0].improper;
        assert_eq!((improper.refused_total(), improper.delivered), (1, 1));
        assert_eq!(report.devices[0].last_reason.as_deref(), Some("0x87 policy.no_rule"));
    }

    #[test]
    fn the_books_stay_bounded() {
        let ledger = ledger();
        for n in 0..DONE_MESSAGES_MAX + OPEN_MESSAGES_MAX {
            let sent = ledger.sending(0, &message(&n.to_string()), Intent::Proper).unwrap();
            if n % 2 == 0 {
                ledger.answered(sent, &answer(0x97, &format!("reason{n}")));
            }
        }
        let report = ledger.report();
        assert!(report.devices[0].proper.refused.len() <= REASONS_MAX);
        assert_eq!(report.devices[0].proper.refused_total(), 40_960);
        for n in 0..OPEN_MESSAGES_MAX {
            let _ = ledger.sending(0, &message(&format!("more {n}")), Intent::Proper);
        }
        assert_eq!(ledger.sending(0, &message("last"), Intent::Proper), None);
        let books = ledger.books();
        assert_eq!(books.messages.len(), DONE_MESSAGES_MAX + OPEN_MESSAGES_MAX);
        assert!(books.done.len() <= DONE_MESSAGES_MAX);
    }
}

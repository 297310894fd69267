//! What the demo shows while it runs and when it ends.
#![expect(clippy::disallowed_methods, reason = "plain lines come at a slower pace")]

use std::fmt::Write as _;
use std::time::Duration;

use avow_devices::{DeviceReport, PlantReport};
use tokio::sync::watch;

use crate::cli::show::{self, escape};

/// From one plain line to the next, where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// The live table.
pub(super) struct Live {
    report: watch::Receiver<PlantReport>,
    /// Lines on the terminal that the next table replaces.
    lines: usize,
}

impl Live {
    pub(super) fn new(report: watch::Receiver<PlantReport>) -> Self {
        Self { report, lines: 0 }
    }

    /// Shows every new report; plain lines where nobody watches a terminal. Never ends before the
    /// plant does.
    pub(super) async fn show(&mut self) {
        while self.report.changed().await.is_ok() {
            let report = self.report.borrow_and_update().clone();
            if show::stdout_is_terminal() {
                let table = rows(&report);
                let erase = self.erase();
                self.lines = table.lines().count();
                show::write_out(format!("{erase}{table}").as_bytes());
            } else {
                show::line(&line(&report));
                tokio::time::sleep(PLAIN_EVERY).await;
            }
        }
    }

    /// Takes the last table off the terminal.
    pub(super) fn clear(&mut self) {
        let erase = self.erase();
        self.lines = 0;
        show::write_out(erase.as_bytes());
    }

    fn erase(&self) -> String {
        if self.lines == 0 { String::new() } else { format!("\x1b[{}F\x1b[J", self.lines) }
    }
}

/// The final table.
pub(super) fn summary(report: &PlantReport) -> String {
    format!("after {}\n\n{}", shown(report.elapsed), rows(report))
}

fn rows(report: &PlantReport) -> String {
    let rows = report.devices.iter().map(row);
    let header = ["device", "profile", "sent", "accepted", "refused", "delivered", "p99", "why"];
    show::table(&header, rows)
}

fn row(device: &DeviceReport) -> Vec<String> {
    let both = [&device.proper, &device.improper];
    let sum = |count: fn(&avow_devices::report::Tally) -> u64| {
        both.iter().map(|tally| count(tally)).sum::<u64>().to_string()
    };
    vec![
        device.name.clone(),
        device.profile.clone(),
        sum(|tally| tally.sent),
        sum(|tally| tally.accepted),
        sum(avow_devices::report::Tally::refused_total),
        sum(|tally| tally.delivered),
        device.p99().map_or_else(|| "-".to_owned(), shown),
        why(device),
    ]
}

/// Why something of a device was refused, the most frequent reason first.
fn why(device: &DeviceReport) -> String {
    if device.connects == 0 && device.ended_before_connack > 0 {
        return format!("{} handshakes refused", device.ended_before_connack);
    }
    let tallies = [&device.improper, &device.proper];
    let refused = tallies.iter().flat_map(|tally| &tally.refused);
    let most = refused.max_by_key(|(_, count)| **count);
    most.map(|(refused, _)| escape(&refused.to_string()).into_owned()).unwrap_or_default()
}

fn line(report: &PlantReport) -> String {
    let mut text = format!("{:>6}", shown(report.elapsed));
    for device in &report.devices {
        let accepted = device.proper.accepted + device.improper.accepted;
        let refused = device.proper.refused_total() + device.improper.refused_total();
        let refused = refused + device.ended_before_connack;
        // Writing to a String cannot fail.
        let _ = write!(text, "  {} {accepted}/{refused}", device.name);
    }
    text + "  (accepted/refused)"
}

fn shown(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1}ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1}s", duration.as_secs_f64())
    }
}

//! Fan-out: one publisher at QoS 0 and 500 messages a second to 100 subscribers at QoS 0.
//!
//! The figure: CPU of all broker threads per delivery.

#[expect(dead_code, reason = "shared with benches of sessions")]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::field::{Plan, Subscription, run};
use support::report::{Report, bench};

const SUBSCRIBERS: usize = 100;

fn main() -> ExitCode {
    let report = Report::of_loads("Fan-out: 1 publisher → 100 subscribers QoS 0, 128 B, 500/s");
    bench(10, report, SUBSCRIBERS, |broker, arguments, report| {
        let plan = Plan {
            publishers: 1,
            in_flight_max: 0,
            packs: false,
            subscribers: SUBSCRIBERS,
            subscription: Subscription::AtMostOnce,
            rate: Some(500),
            warm_up: Duration::from_secs(2),
            measured: arguments.measured,
        };
        let measured = run(broker, plan)?;
        report.add("500/s", &measured);
        let compared = vec![("CPU per delivery", measured.micros_per_delivery())];
        Ok((measured.total, compared))
    })
}

//! Fan-in: 100 mutual-TLS publishers at QoS 1, 8 messages of 128 bytes in flight each, to one
//! subscriber at QoS 0: as fast as the broker goes with a TLS record for each message, the same with
//! the messages of one write in one record ("packed"), and at 2,000 messages a second.
//!
//! The figure: CPU of all broker threads per published message. Avow does policy, limits, schema
//! and durable evidence in it, Mosquitto its access list; the aim is half of Mosquitto's.

#[expect(dead_code, reason = "shared with benches of sessions")]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::field::{Plan, Subscription, run};
use support::report::{Report, bench};

const SATURATED: Plan = Plan {
    publishers: 100,
    in_flight_max: 8,
    packs: false,
    subscribers: 1,
    subscription: Subscription::AtMostOnce,
    rate: None,
    warm_up: Duration::from_secs(2),
    measured: Duration::from_secs(10),
};

fn main() -> ExitCode {
    let report = Report::of_loads("Fan-in: 100 publishers QoS 1 → 1 subscriber QoS 0, 128 B");
    bench(10, report, 1, |broker, arguments, report| {
        let plan = Plan { measured: arguments.measured, ..SATURATED };
        let saturated = run(broker, plan)?;
        report.add("saturated", &saturated);
        let packed = run(broker, Plan { packs: true, ..plan })?;
        report.add("saturated, packed", &packed);
        let paced = run(broker, Plan { rate: Some(2_000), ..plan })?;
        report.add("2,000/s", &paced);
        let total = saturated.total + packed.total + paced.total;
        let compared = vec![
            ("CPU per message, saturated", saturated.micros_per_message()),
            ("CPU per message, saturated, packed", packed.micros_per_message()),
            ("CPU per message, 2,000/s", paced.micros_per_message()),
        ];
        Ok((total, compared))
    })
}

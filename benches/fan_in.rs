//! Fan-in: 100 mutual-TLS publishers at QoS 1, 8 messages of 128 bytes in flight each, to one
//! subscriber at QoS 0; once as fast as the broker goes, once at 2,000 messages a second.
//!
//! The figure: CPU of all broker threads per published message. Avow does policy, limits, schema
//! and durable evidence in it, Mosquitto its access list; the aim is half of Mosquitto's.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::field::{Plan, run};
use support::report::{Measured, Report, bench};

const SATURATED: Plan = Plan {
    publishers: 100,
    in_flight_max: 8,
    subscribers: 1,
    rate: None,
    warm_up: Duration::from_secs(2),
    measured: Duration::from_secs(10),
};

fn main() -> ExitCode {
    let report = Report::of_loads("Fan-in: 100 publishers QoS 1 → 1 subscriber QoS 0, 128 B");
    bench(
        10,
        report,
        1,
        |broker, arguments, report| {
            let plan = Plan { measured: arguments.measured, ..SATURATED };
            let saturated = run(broker, plan)?;
            report.add("saturated", &saturated);
            let paced = run(broker, Plan { rate: Some(2_000), ..plan })?;
            report.add("2,000/s", &paced);
            Ok((saturated.total + paced.total, (saturated, paced)))
        },
        |report, rival, avow| {
            let figure = |of: fn(&(Measured, Measured)) -> &Measured| {
                (
                    rival.map(|runs| of(runs).micros_per_message()),
                    avow.map(|runs| of(runs).micros_per_message()),
                )
            };
            let (rival_saturated, avow_saturated) = figure(|runs| &runs.0);
            report.compare("CPU per message, saturated", rival_saturated, avow_saturated);
            let (rival_paced, avow_paced) = figure(|runs| &runs.1);
            report.compare("CPU per message, 2,000/s", rival_paced, avow_paced);
        },
    )
}

//! What a durable session costs: 100 mutual-TLS publishers at QoS 1 to one subscriber at QoS 1, 128
//! bytes, whose session ends with its connection ("transient"), and then one whose session outlives
//! it ("lasting"), in the same run.
//!
//! The figure: CPU of all broker threads per published message, lasting ÷ transient. In Avow a copy
//! for a lasting session is a record that it was sent, one more sync before it is, and a record that
//! it was acknowledged; Mosquitto runs without persistence, so its ratio shows what a session costs
//! that a crash forgets.

#[expect(dead_code, reason = "shared with benches at QoS 0")]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::field::{Plan, Subscription, run};
use support::report::{Report, bench};

const RATES: [(u32, &str, &str); 2] = [
    (2_000, "2,000/s, transient", "2,000/s, lasting"),
    (5_000, "5,000/s, transient", "5,000/s, lasting"),
];

fn main() -> ExitCode {
    let report = Report::of_loads("Durable session: 100 publishers QoS 1 → 1 subscriber QoS 1");
    bench(10, report, 1, |broker, arguments, report| {
        let plan = Plan {
            publishers: 100,
            in_flight_max: 8,
            packs: false,
            subscribers: 1,
            subscription: Subscription::Transient,
            rate: None,
            warm_up: Duration::from_secs(2),
            measured: arguments.measured,
        };
        let (mut total, mut compared) = (0, Vec::new());
        for (rate, transient_load, lasting_load) in RATES {
            let plan = Plan { rate: Some(rate), ..plan };
            // Clean Start ends the session of the run before: nothing queues for it meanwhile.
            let transient = run(broker, plan)?;
            report.add(transient_load, &transient);
            let lasting = run(broker, Plan { subscription: Subscription::Lasting, ..plan })?;
            report.add(lasting_load, &lasting);
            let ratio = lasting.micros_per_message() / transient.micros_per_message();
            let name = broker.name();
            report.remark(format!(
                "{name}, {rate}/s, CPU per message, lasting ÷ transient: {ratio:.2}"
            ));
            total += transient.total + lasting.total;
            compared.push((transient_load, transient.micros_per_message()));
            compared.push((lasting_load, lasting.micros_per_message()));
        }
        Ok((total, compared))
    })
}

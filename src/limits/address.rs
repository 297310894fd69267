//! Connections per address, before TLS.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::bucket::{Bucket, Drawn, DrivenClock};
use super::config::{LimitsConfig, positive};
use crate::time::{Instant, Now};

/// Counts the connections of each address, before a byte of theirs is read.
///
/// An IPv6 address stands for its /64 network, because one host has all of that. When the table
/// is full of active addresses, further ones share one bucket: a flood from many networks slows
/// newcomers, and neither locks them out nor grows the table.
#[derive(Debug)]
pub struct AddressLimiter {
    per_second: u32,
    burst: u32,
    addresses_max: usize,
    clock: DrivenClock,
    /// Std's keyed hash: clients choose their addresses.
    table: HashMap<IpAddr, Bucket>,
    others: Bucket,
    sweep_at: Instant,
}

const SWEEP_PERIOD: Duration = Duration::from_secs(1);

impl AddressLimiter {
    /// A limiter with `connects_per_second`, `connects_burst` and `addresses_max` of `config`.
    pub fn new(config: &LimitsConfig) -> Self {
        let clock = DrivenClock::default();
        let (per_second, burst) = (config.connects_per_second, config.connects_burst);
        Self {
            per_second,
            burst,
            addresses_max: usize::try_from(config.addresses_max).unwrap_or(usize::MAX),
            others: Bucket::new(positive(per_second), positive(burst), &clock),
            clock,
            table: HashMap::new(),
            sweep_at: Instant::ZERO,
        }
    }

    /// Counts a connection from `address`; false if it is one too many and should be closed.
    pub fn admit(&mut self, now: Now, address: IpAddr) -> bool {
        self.clock.set(now.instant);
        let network = network(address);
        if let Some(bucket) = self.table.get_mut(&network) {
            return bucket.draw(1) == Drawn::Taken;
        }
        if self.table.len() >= self.addresses_max && now.instant >= self.sweep_at {
            self.sweep_at = now.instant.after(SWEEP_PERIOD);
            self.table.retain(|_, bucket| bucket.full_at() > now.instant);
        }
        if self.table.len() >= self.addresses_max {
            return self.others.draw(1) == Drawn::Taken;
        }
        let mut bucket = Bucket::new(positive(self.per_second), positive(self.burst), &self.clock);
        let admitted = bucket.draw(1) == Drawn::Taken;
        self.table.insert(network, bucket);
        admitted
    }

    /// How many addresses are remembered; at most `addresses_max`.
    pub fn address_count(&self) -> usize {
        self.table.len()
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

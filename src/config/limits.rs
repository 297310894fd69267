//! `[limits]`, `[limits.default]` and each `[[limits.class]]`.
//!
//! What a limit means is [`crate::limits`]'s. The invariant: whatever comes out is positive,
//! bounded, and lets the largest packet pass.

use std::ops::Range;

use toml::de::DeTable;

use super::problem::ConfigProblem;
use super::section::Section;
use super::sections::{At, Found, narrow};
use super::value::format_bytes;
use crate::limits::{
    ClassConfig, ClassLimits, LimitsConfig, OnLimit, PAUSE_SECONDS_MAX, RATE_MAX, TABLE_MAX,
};
use crate::policy::Who;

const LIMITS: &[&str] = &[
    "identities_max",
    "addresses_max",
    "connects_per_second",
    "connects_burst",
    "pause_seconds_max",
    "default",
    "class",
];
const DEFAULT: &[&str] = &[
    "messages_per_second",
    "messages_burst",
    "bytes_per_second",
    "bytes_burst",
    "subscribes_per_second",
    "subscribes_burst",
    "sessions_max",
    "on_limit",
];
const CLASS: &[&str] = &[
    "who",
    "messages_per_second",
    "messages_burst",
    "bytes_per_second",
    "bytes_burst",
    "subscribes_per_second",
    "subscribes_burst",
    "sessions_max",
    "on_limit",
];

/// Every field, for the test that the shipped file shows them all.
#[cfg(test)]
pub(super) const EVERY_FIELD: [&[&str]; 2] = [LIMITS, DEFAULT];

/// The largest packet in bytes, and where it is written.
type Largest = (u32, Option<Range<usize>>);

/// Reads `[limits]`; all of it is the default where there is none.
pub(super) fn read(at: Option<At<'_>>, largest: Largest, problems: &mut Found) -> LimitsConfig {
    let empty = DeTable::new();
    let (table, span) = at.unwrap_or((&empty, 0..0));
    let mut s = Section::new(table, span, "[limits]", LIMITS, problems);
    let base = LimitsConfig::default();
    let rates = 1..=u64::from(RATE_MAX);
    let tables = 1..=u64::from(TABLE_MAX);
    let pauses = 1..=u64::from(PAUSE_SECONDS_MAX);
    let mut count = |field, default: u32, range| narrow(s.count(field, default.into(), range));
    let limits = LimitsConfig {
        identities_max: count("identities_max", base.identities_max, tables.clone()),
        addresses_max: count("addresses_max", base.addresses_max, tables),
        connects_per_second: count("connects_per_second", base.connects_per_second, rates.clone()),
        connects_burst: count("connects_burst", base.connects_burst, rates),
        pause_seconds_max: count("pause_seconds_max", base.pause_seconds_max, pauses),
        ..base
    };
    let (at_default, at_classes) = (s.table("default"), s.tables("class"));
    let default = at_default.unwrap_or((&empty, s.span_of("default")));
    let mut s = Section::new(default.0, default.1, "[limits.default]", DEFAULT, problems);
    let default = class_limits(&mut s, "[limits.default]", &largest);
    let classes = at_classes.into_iter().map(|at| class(at, &largest, problems)).collect();
    LimitsConfig { default, classes, ..limits }
}

fn class((table, span): At<'_>, largest: &Largest, problems: &mut Found) -> ClassConfig {
    const NAME: &str = "[[limits.class]]";
    let mut s = Section::new(table, span, NAME, CLASS, problems);
    let mut who = Vec::new();
    let texts = s.texts("who");
    if texts.is_empty() {
        s.report(s.span_of("who"), ConfigProblem::ClassNobody);
    }
    for text in texts {
        match Who::parse(text.get_ref()) {
            Ok(named) => who.push(named),
            Err(error) => s.report(text.span(), error),
        }
    }
    ClassConfig { who, limits: class_limits(&mut s, NAME, largest) }
}

fn class_limits(s: &mut Section<'_, '_>, table: &'static str, largest: &Largest) -> ClassLimits {
    let base = ClassLimits::default();
    let rates = || 1..=u64::from(RATE_MAX);
    let mut count = |field, default: u32| narrow(s.count(field, default.into(), rates()));
    let limits = ClassLimits {
        messages_per_second: count("messages_per_second", base.messages_per_second),
        messages_burst: count("messages_burst", base.messages_burst),
        subscribes_per_second: count("subscribes_per_second", base.subscribes_per_second),
        subscribes_burst: count("subscribes_burst", base.subscribes_burst),
        sessions_max: count("sessions_max", base.sessions_max),
        bytes_per_second: narrow(s.bytes(
            "bytes_per_second",
            base.bytes_per_second.into(),
            rates(),
        )),
        bytes_burst: narrow(s.bytes("bytes_burst", base.bytes_burst.into(), rates())),
        on_limit: s.choice(
            "on_limit",
            OnLimit::Refuse,
            &[
                ("refuse", OnLimit::Refuse),
                ("slow", OnLimit::Slow),
                ("disconnect", OnLimit::Disconnect),
            ],
        ),
    };
    let (packet_bytes_max, at_packet) = largest;
    if limits.bytes_burst < *packet_bytes_max {
        // Where the burst is not written, the packet size is what does not fit.
        let at = s.place_of("bytes_burst").or_else(|| at_packet.clone());
        let problem = ConfigProblem::BurstBelowPacket {
            table,
            burst: format_bytes(limits.bytes_burst.into()),
            packet: format_bytes((*packet_bytes_max).into()),
            packet_bytes_max: *packet_bytes_max,
        };
        s.report(at.unwrap_or_else(|| s.span_of("bytes_burst")), problem);
    }
    limits
}

//! What one can ask of the log, and whether an entry answers it.
//!
//! Pure: an entry's JSON in, a yes or no out. The invariant: an entry that cannot be read, or
//! lacks a field that is asked for, does not fit.

use super::facts::Facts;
use super::posting::Field;
use crate::mqtt::{TopicFilter, TopicName};
use crate::time::UnixNanos;

/// Whether it was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The entry says `allow`.
    Allow,
    /// The entry says `deny`.
    Deny,
}

/// Which end of the log comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The newest entry first.
    #[default]
    NewestFirst,
    /// The oldest entry first.
    OldestFirst,
}

/// What to look for; an entry must fit everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The peer, `<role>/<name>`.
    pub who: Option<String>,
    /// The peer, or whom an operator's act was about: whatever concerns that identity.
    pub about: Option<String>,
    /// The Topic Name of the entry must match.
    pub topic: Option<TopicFilter>,
    /// The type of the entry.
    pub kind: Option<String>,
    /// The result.
    pub outcome: Option<Outcome>,
    /// Why: a name, or a family of names (`limit.*`).
    pub why: Option<String>,
    /// The level of evidence.
    pub level: Option<String>,
    /// Not before this time.
    pub since: Option<UnixNanos>,
    /// Before this time.
    pub until: Option<UnixNanos>,
    /// Behind the entry of this index.
    pub after: Option<u64>,
    /// Before the entry of this index.
    pub before: Option<u64>,
    /// Most entries to answer with.
    pub limit: usize,
    /// Which come first.
    pub order: Order,
}

/// What a value of an entry must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'q> {
    /// This.
    Is(&'q str),
    /// Something that begins so.
    Begins(&'q str),
    /// A Topic Name that this matches.
    Matches(&'q TopicFilter),
}

/// One of the fields must have a value as wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition<'q> {
    pub(super) fields: &'static [Field],
    pub(super) wanted: Wanted<'q>,
}

/// A query, in the form in which entries are held against it.
#[derive(Clone, Debug)]
pub(super) struct Conditions<'q> {
    pub(super) each: Vec<Condition<'q>>,
    since: u64,
    until: Option<u64>,
    /// The first index that fits.
    pub(super) from: u64,
    /// The first index past those that fit.
    pub(super) to: u64,
}

impl Query {
    /// What an entry must fit.
    pub(super) fn conditions(&self) -> Conditions<'_> {
        fn is<'q>(
            fields: &'static [Field],
            text: Option<&'q str>,
        ) -> Option<(&'static [Field], Wanted<'q>)> {
            Some((fields, Wanted::Is(text?)))
        }
        let why = self.why.as_deref().map(|why| match why.strip_suffix('*') {
            Some(family) => Wanted::Begins(family),
            None => Wanted::Is(why),
        });
        let conditions = [
            is(&[Field::Who], self.who.as_deref()),
            is(&[Field::Who, Field::Subject], self.about.as_deref()),
            is(&[Field::Kind], self.kind.as_deref()),
            is(&[Field::Result], self.outcome.map(Outcome::as_str)),
            why.map(|why| (&[Field::Why][..], why)),
            is(&[Field::Level], self.level.as_deref()),
            self.topic.as_ref().map(|filter| (&[Field::Topic][..], Wanted::Matches(filter))),
        ];
        let condition = |(fields, wanted)| Condition { fields, wanted };
        Conditions {
            each: conditions.into_iter().flatten().map(condition).collect(),
            since: self.since.map_or(0, UnixNanos::as_nanos),
            until: self.until.map(UnixNanos::as_nanos),
            from: self.after.map_or(0, |after| after.saturating_add(1)),
            to: self.before.unwrap_or(u64::MAX),
        }
    }

    /// Whether the entry `json`, which stands at `index`, fits everything that is given.
    pub fn fits(&self, index: u64, json: &[u8]) -> bool {
        let conditions = self.conditions();
        (conditions.from..conditions.to).contains(&index) && conditions.fit(json)
    }
}

impl Conditions<'_> {
    /// Whether `json` is an entry that fits, wherever it stands.
    pub(super) fn fit(&self, json: &[u8]) -> bool {
        let Some(facts) = Facts::read(json) else { return false };
        self.may_fit(facts.t, facts.t)
            && self.each.iter().all(|condition| {
                let values = condition.fields.iter().filter_map(|field| field.of(&facts));
                values.into_iter().any(|value| condition.wanted.fits(value))
            })
    }

    /// Whether a time between these two is one that fits.
    pub(super) fn may_fit(&self, earliest: u64, latest: u64) -> bool {
        latest >= self.since && self.until.is_none_or(|until| earliest < until)
    }
}

impl<'q> Wanted<'q> {
    /// Whether `value` is as wanted.
    pub(super) fn fits(self, value: &str) -> bool {
        match self {
            Self::Is(text) => text == value,
            Self::Begins(text) => value.starts_with(text),
            Self::Matches(filter) => {
                TopicName::parse(value).is_ok_and(|topic| filter.matches(&topic))
            }
        }
    }

    /// What every value as wanted begins with, and whether it is nothing but that.
    pub(super) fn beginning(self) -> (&'q str, bool) {
        match self {
            Self::Is(text) => (text, true),
            Self::Begins(text) => (text, false),
            Self::Matches(filter) => {
                let text = filter.as_str();
                match text.find(['+', '#']) {
                    // `a/#` matches `a` as well.
                    Some(end) => {
                        let literal = text.get(..end).unwrap_or_default();
                        (literal.strip_suffix('/').unwrap_or(literal), false)
                    }
                    None => (text, true),
                }
            }
        }
    }
}

impl Outcome {
    /// As the entry says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &[u8] = br#"{"v":1,"type":"publish.refused","t":50,"who":"device/a","lvl":"A0","result":"deny","why":"limit.rate","topic":"plant/a/x"}"#;
    const ACT: &[u8] =
        br#"{"v":1,"type":"admin","t":60,"act":"certificate.issue","subject":"device/a"}"#;

    #[test]
    fn an_entry_fits_if_it_fits_everything_that_is_asked_for() {
        let text = |text: &str| Some(text.to_owned());
        let filter = |text: &str| Some(TopicFilter::parse(text).unwrap());
        let all = Query::default();
        let fitting = [
            Query { who: text("device/a"), ..all.clone() },
            Query { about: text("device/a"), ..all.clone() },
            Query { kind: text("publish.refused"), ..all.clone() },
            Query { outcome: Some(Outcome::Deny), ..all.clone() },
            Query { why: text("limit.rate"), ..all.clone() },
            Query { why: text("limit.*"), ..all.clone() },
            Query { level: text("A0"), ..all.clone() },
            Query { topic: filter("plant/+/x"), ..all.clone() },
            Query { since: Some(UnixNanos::new(50)), ..all.clone() },
            Query { until: Some(UnixNanos::new(51)), ..all.clone() },
            Query { after: Some(6), before: Some(8), ..all.clone() },
        ];
        for query in &fitting {
            assert!(query.fits(7, ENTRY), "{query:?}");
        }
        let others = [
            Query { who: text("device/b"), ..all.clone() },
            Query { about: text("device/b"), ..all.clone() },
            Query { kind: text("publish"), ..all.clone() },
            Query { outcome: Some(Outcome::Allow), ..all.clone() },
            Query { why: text("limit"), ..all.clone() },
            Query { why: text("policy.*"), ..all.clone() },
            Query { level: text("A2"), ..all.clone() },
            Query { topic: filter("plant/b/#"), ..all.clone() },
            Query { since: Some(UnixNanos::new(51)), ..all.clone() },
            Query { until: Some(UnixNanos::new(50)), ..all.clone() },
            Query { after: Some(7), ..all.clone() },
            Query { before: Some(7), ..all.clone() },
        ];
        for query in &others {
            assert!(!query.fits(7, ENTRY), "{query:?}");
        }
        // What was done to it concerns it, and is not its own act.
        assert!(fitting[1].fits(7, ACT) && !fitting[0].fits(7, ACT));
        assert!(all.fits(7, ACT) && !all.fits(7, b"{}"));
    }

    #[test]
    fn what_a_filter_matches_begins_with_its_levels_before_the_first_wildcard() {
        let beginning = |filter: &str| {
            let filter = TopicFilter::parse(filter).unwrap();
            let (text, is_all) = Wanted::Matches(&filter).beginning();
            (text.to_owned(), is_all)
        };
        assert_eq!(beginning("a/b"), ("a/b".to_owned(), true));
        assert_eq!(beginning("a/b/#"), ("a/b".to_owned(), false));
        assert_eq!(beginning("a/+/b"), ("a".to_owned(), false));
        assert_eq!(beginning("#"), (String::new(), false));
        assert_eq!(beginning("/#"), (String::new(), false));
    }
}

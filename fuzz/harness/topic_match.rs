//! Topic Filters and the subscription tree against a model that only lists.
//!
//! An input is lines: `+K filter` subscribes session K, `-K filter` unsubscribes it, anything else
//! is a Topic Name to be matched. Invariants: the same texts are valid, the same filters match,
//! each plain subscription is found once, of each shared subscription exactly one member of the
//! highest eligibility, in turn; nothing is left when all is removed.

use std::collections::{BTreeMap, BTreeSet};

use avow::mqtt::{QoS, TopicFilter, TopicName};
use avow::routing::{Eligibility, Interest, SessionKey, Subscription, SubscriptionTree};

/// The core refuses deeper topics before they come to the tree.
const LEVELS_MAX: usize = 64;

/// Share name (if any), filter levels, session.
type Entry = (Option<String>, Vec<String>, u64);

/// Section 4.7.1, by recursion over whole lists.
fn matches(filter: &[String], name: &[&str]) -> bool {
    match (filter, name) {
        ([], []) => true,
        ([last], _) if last == "#" => true,
        ([level, filter @ ..], [first, name @ ..]) => {
            (level == "+" || level == first) && matches(filter, name)
        }
        _ => false,
    }
}

fn model_matches(filter: &[String], name: &str) -> bool {
    let levels: Vec<&str> = name.split('/').collect();
    let wild = filter.first().is_some_and(|level| level == "+" || level == "#");
    !(wild && name.starts_with('$')) && matches(filter, &levels)
}

/// The share name and the levels of a text that is a Topic Filter.
fn model_filter(text: &str) -> Option<(Option<String>, Vec<String>)> {
    if text.is_empty() || text.contains('\0') || text.len() > 65_535 {
        return None;
    }
    let mut levels: Vec<String> = text.split('/').map(str::to_owned).collect();
    let mut share = None;
    if levels[0] == "$share" {
        if levels.len() < 3 || levels[1].is_empty() || levels[1].contains(['+', '#']) {
            return None;
        }
        share = Some(levels[1].clone());
        levels.drain(..2);
        if levels == [""] {
            return None;
        }
    }
    let last = levels.len() - 1;
    let legal = levels.iter().enumerate().all(|(place, level)| {
        !level.contains(['+', '#']) || level == "+" || (level == "#" && place == last)
    });
    legal.then_some((share, levels))
}

/// Session 3 may never read, session 2 is away.
fn eligibility(session: SessionKey) -> Eligibility {
    match session.0 {
        3 => Eligibility::Never,
        2 => Eligibility::Later,
        _ => Eligibility::Now,
    }
}

fn subscription(identifier: usize) -> Subscription {
    Subscription {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: Some(identifier as u32),
    }
}

#[derive(Default)]
struct Pair {
    tree: SubscriptionTree,
    model: BTreeMap<Entry, usize>,
    step: usize,
}

impl Pair {
    fn change(&mut self, adds: bool, session: u64, text: &str) {
        let (parsed, modelled) = (TopicFilter::parse(text), model_filter(text));
        assert_eq!(parsed.is_ok(), modelled.is_some(), "{text:?}: {parsed:?}");
        let (Ok(filter), Some((share, levels))) = (parsed, modelled) else { return };
        assert_eq!(filter.to_string(), text);
        assert_eq!(filter.share().map(|share| share.as_str().to_owned()), share);
        if levels.len() > LEVELS_MAX {
            return;
        }
        let entry = (share, levels, session);
        if adds {
            let new = self.tree.insert(&filter, SessionKey(session), subscription(self.step));
            assert_eq!(new, self.model.insert(entry, self.step).is_none());
        } else {
            let removed = self.tree.remove(&filter, SessionKey(session));
            assert_eq!(removed, self.model.remove(&entry).is_some());
        }
        assert_eq!(
            (self.tree.len(), self.tree.is_empty()),
            (self.model.len(), self.model.is_empty())
        );
    }

    fn publish(&mut self, text: &str) {
        let legal = !text.is_empty() && !text.contains(['+', '#', '\0']) && text.len() <= 65_535;
        let parsed = TopicName::parse(text);
        assert_eq!(parsed.is_ok(), legal, "{text:?}");
        let Ok(name) = parsed else { return };
        if name.levels().count() > LEVELS_MAX {
            return;
        }
        let mut plain: Vec<Interest> = Vec::new();
        let mut groups: BTreeMap<(&str, String), BTreeSet<(u64, usize)>> = BTreeMap::new();
        for ((share, levels, session), step) in &self.model {
            let filter = levels.join("/");
            let parsed = TopicFilter::parse(&filter);
            let matched = model_matches(levels, text);
            // Behind a share prefix stands what alone would be another prefix.
            if let Some(parsed) = parsed.ok().filter(|parsed| parsed.share().is_none()) {
                assert_eq!(parsed.matches(&name), matched, "{filter:?} and {text:?}");
            }
            if !matched {
                continue;
            }
            match share {
                None => plain.push(Interest {
                    session: SessionKey(*session),
                    subscription: subscription(*step),
                }),
                Some(share) => {
                    groups.entry((share, filter)).or_default().insert((*session, *step));
                }
            }
        }
        check_found(&mut self.tree, &name, &plain, &groups);
    }
}

fn check_found(
    tree: &mut SubscriptionTree,
    name: &TopicName,
    plain: &[Interest],
    groups: &BTreeMap<(&str, String), BTreeSet<(u64, usize)>>,
) {
    // As often as the largest group has members: everybody's turn comes.
    let turns = groups.values().map(BTreeSet::len).max().unwrap_or(1);
    let mut served: BTreeSet<(u64, usize)> = BTreeSet::new();
    for _ in 0..turns {
        let (mut found, mut shared) = (Vec::new(), Vec::new());
        tree.interested(name, &mut found, &mut shared);
        let named: BTreeSet<String> = shared.iter().map(TopicFilter::to_string).collect();
        let expected = groups.keys().map(|(share, filter)| format!("$share/{share}/{filter}"));
        assert_eq!((named, shared.len()), (expected.collect(), groups.len()));
        assert_eq!(found.len(), plain.len(), "found and not subscribed");
        found.extend(shared.iter().filter_map(|group| tree.choose(group, &eligibility)));
        for interest in plain {
            let at = found.iter().position(|seen| seen == interest);
            found.swap_remove(at.expect("a plain subscription that matches is found"));
        }
        for members in groups.values() {
            let best = members.iter().map(|(key, _)| eligibility(SessionKey(*key))).max();
            let at = found.iter().position(|seen| {
                let key = seen.session;
                let identifier = seen.subscription.identifier.map(|id| id as usize);
                members.iter().any(|(one, step)| *one == key.0 && Some(*step) == identifier)
            });
            match at {
                Some(at) => {
                    let chosen = found.swap_remove(at);
                    assert_eq!(Some(eligibility(chosen.session)), best);
                    let step = chosen.subscription.identifier.unwrap_or_default() as usize;
                    served.insert((chosen.session.0, step));
                }
                None => assert_eq!(best, Some(Eligibility::Never), "nobody was chosen"),
            }
        }
        assert_eq!(found, [], "found and not subscribed");
    }
    for members in groups.values() {
        for (key, step) in members.iter().filter(|(key, _)| *key < 2) {
            assert!(served.contains(&(*key, *step)), "the turn of {key} never came");
        }
    }
}

/// One input.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut pair = Pair::default();
    for line in text.split('\n').take(64) {
        pair.step += 1;
        match (line.as_bytes(), line.get(3..)) {
            ([sign @ (b'+' | b'-'), session @ b'0'..=b'3', b' ', ..], Some(filter)) => {
                pair.change(*sign == b'+', u64::from(session - b'0'), filter);
            }
            _ => pair.publish(line),
        }
    }
    for (share, levels, session) in pair.model.keys() {
        let levels = levels.join("/");
        let text =
            share.as_ref().map_or(levels.clone(), |share| format!("$share/{share}/{levels}"));
        let filter = TopicFilter::parse(&text).expect("it was parsed before");
        assert!(pair.tree.remove(&filter, SessionKey(*session)));
    }
    assert!(pair.tree.is_empty());
}

//! The subscription tree: from a Topic Name to everybody whose Topic Filter matches it.
//!
//! One node per level; `+` and `#` have places of their own, so matching walks at most three ways
//! at each level and never looks at filters that cannot match. Levels come from clients, so the
//! children are in a tree map: no hash to flood, no order to depend on. Recursion is bounded by
//! the bound on topic levels.

use std::collections::BTreeMap;

use crate::mqtt::{QoS, ShareName, TopicFilter, TopicName};

/// Names one session of this broker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// What a session asked for with one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Highest QoS of its copies.
    pub qos: QoS,
    /// Do not send what the session itself published.
    pub no_local: bool,
    /// Keep the RETAIN flag as published.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
}

/// One session's interest in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The session.
    pub session: SessionKey,
    /// The matching subscription.
    pub subscription: Subscription,
}

/// How well a member of a shared subscription could take a message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eligibility {
    /// It may not read the topic.
    Never,
    /// It is away or congested, or its send window is full: the message would wait in its queue.
    Later,
    /// It is connected and has room.
    Now,
}

/// All subscriptions of one shard.
#[derive(Debug, Default)]
pub struct SubscriptionTree {
    root: Node,
    len: usize,
    shared_len: usize,
}

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, Node>,
    single: Option<Box<Node>>,
    exact: Subscribers,
    multi: Subscribers,
}

#[derive(Debug, Default)]
struct Subscribers {
    each: Vec<Interest>,
    groups: Vec<Group>,
}

/// The members of one Shared Subscription, and whose turn it is.
#[derive(Debug)]
struct Group {
    /// With its Share Name.
    filter: TopicFilter,
    members: Vec<Interest>,
    turn: usize,
}

impl SubscriptionTree {
    /// Adds or replaces the subscription of `session` to `filter`; true if it is new.
    /// [MQTT-3.8.4-3]
    pub fn insert(
        &mut self,
        filter: &TopicFilter,
        session: SessionKey,
        subscription: Subscription,
    ) -> bool {
        let subscribers = self.root.place(filter);
        let members = match filter.share() {
            None => &mut subscribers.each,
            Some(name) => subscribers.group(name, filter),
        };
        let interest = Interest { session, subscription };
        if let Some(known) = members.iter_mut().find(|known| known.session == session) {
            *known = interest;
            return false;
        }
        members.push(interest);
        self.len += 1;
        self.shared_len += usize::from(filter.share().is_some());
        true
    }

    /// Removes the subscription of `session` to `filter`; false if there was none.
    pub fn remove(&mut self, filter: &TopicFilter, session: SessionKey) -> bool {
        let levels: Vec<&str> = filter.levels().collect();
        let removed = self.root.remove(&levels, filter.share(), session);
        self.len -= usize::from(removed);
        self.shared_len -= usize::from(removed && filter.share().is_some());
        removed
    }

    /// Appends to `out` who is to receive a message on `topic` for subscriptions of its own, once
    /// for each of them, and to `shared` every Shared Subscription that matches.
    pub fn interested(
        &self,
        topic: &TopicName,
        out: &mut Vec<Interest>,
        shared: &mut Vec<TopicFilter>,
    ) {
        let wildcards = !topic.is_dollar();
        self.root.collect(topic.as_str(), wildcards, &mut |subscribers| {
            out.extend_from_slice(&subscribers.each);
            shared.extend(subscribers.groups.iter().map(|group| group.filter.clone()));
        });
    }

    /// Chooses who receives a message of the Shared Subscription `group`: the one whose turn it is
    /// among those that `eligibility` puts highest. [MQTT-4.8.2-4]
    pub fn choose(
        &mut self,
        group: &TopicFilter,
        eligibility: &dyn Fn(SessionKey) -> Eligibility,
    ) -> Option<Interest> {
        let subscribers = self.root.find(group)?;
        let group = subscribers.groups.iter_mut().find(|known| known.filter == *group)?;
        group.pick(eligibility)
    }

    /// How many of them are to Shared Subscriptions.
    pub fn shared_len(&self) -> usize {
        self.shared_len
    }

    /// Whether there is a filter whose first level is `level`, literally.
    pub fn is_wanted(&self, level: &str) -> bool {
        self.root.children.contains_key(level)
    }

    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Node {
    /// Where the subscribers of `filter` stand, made if need be.
    fn place(&mut self, filter: &TopicFilter) -> &mut Subscribers {
        let mut node = self;
        for level in filter.levels() {
            node = match level {
                "#" => return &mut node.multi,
                "+" => node.single.get_or_insert_default(),
                level => node.children.entry(level.into()).or_default(),
            };
        }
        &mut node.exact
    }

    /// Removes a subscription and every node that it leaves empty.
    fn remove(&mut self, levels: &[&str], share: Option<&ShareName>, session: SessionKey) -> bool {
        match levels.split_first() {
            None => self.exact.remove(share, session),
            Some((&"#", _)) => self.multi.remove(share, session),
            Some((&"+", rest)) => {
                let Some(node) = self.single.as_mut() else { return false };
                let removed = node.remove(rest, share, session);
                if node.is_empty() {
                    self.single = None;
                }
                removed
            }
            Some((&level, rest)) => {
                let Some(node) = self.children.get_mut(level) else { return false };
                let removed = node.remove(rest, share, session);
                if node.is_empty() {
                    self.children.remove(level);
                }
                removed
            }
        }
    }

    /// Where the subscribers of `filter` stand, if there are any.
    fn find(&mut self, filter: &TopicFilter) -> Option<&mut Subscribers> {
        let mut node = self;
        for level in filter.levels() {
            node = match level {
                "#" => return Some(&mut node.multi),
                "+" => node.single.as_mut()?,
                level => node.children.get_mut(level)?,
            };
        }
        Some(&mut node.exact)
    }

    /// Shows `visit` the subscribers below this node for the levels left in `rest`. `wildcards` is
    /// false in the first level of a `$` topic. [MQTT-4.7.2-1]
    fn collect(&self, rest: &str, wildcards: bool, visit: &mut dyn FnMut(&Subscribers)) {
        if wildcards {
            visit(&self.multi);
        }
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let literal = self.children.get(level);
        let single = self.single.as_deref().filter(|_| wildcards);
        for node in literal.into_iter().chain(single) {
            match rest {
                Some(rest) => node.collect(rest, true, visit),
                None => {
                    visit(&node.exact);
                    // `a/#` matches `a` too.
                    visit(&node.multi);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.single.is_none()
            && self.exact.is_empty()
            && self.multi.is_empty()
    }
}

impl Subscribers {
    fn group(&mut self, name: &ShareName, filter: &TopicFilter) -> &mut Vec<Interest> {
        let at = self.groups.iter().position(|group| group.filter.share() == Some(name));
        let at = at.unwrap_or_else(|| {
            self.groups.push(Group { filter: filter.clone(), members: Vec::new(), turn: 0 });
            self.groups.len() - 1
        });
        // The position was found or made in the lines above.
        match self.groups.get_mut(at) {
            Some(group) => &mut group.members,
            None => &mut self.each,
        }
    }

    fn remove(&mut self, share: Option<&ShareName>, session: SessionKey) -> bool {
        let members = match share {
            None => &mut self.each,
            Some(name) => {
                match self.groups.iter_mut().find(|group| group.filter.share() == Some(name)) {
                    Some(group) => &mut group.members,
                    None => return false,
                }
            }
        };
        let before = members.len();
        members.retain(|member| member.session != session);
        let removed = members.len() < before;
        self.groups.retain(|group| !group.members.is_empty());
        removed
    }

    fn is_empty(&self) -> bool {
        self.each.is_empty() && self.groups.is_empty()
    }
}

impl Group {
    /// The first member, from the one whose turn it is, among the most eligible.
    fn pick(&mut self, eligibility: &dyn Fn(SessionKey) -> Eligibility) -> Option<Interest> {
        let count = self.members.len();
        let mut best: Option<(Eligibility, usize, Interest)> = None;
        for step in 0..count {
            let at = (self.turn + step) % count;
            let member = *self.members.get(at)?;
            let rank = eligibility(member.session);
            if best.is_none_or(|(seen, _, _)| rank > seen) {
                best = Some((rank, at, member));
            }
            if rank == Eligibility::Now {
                break;
            }
        }
        let (rank, at, member) = best?;
        self.turn = (at + 1) % count;
        (rank > Eligibility::Never).then_some(member)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Subscription = Subscription {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
    };

    fn matching(tree: &mut SubscriptionTree, topic: &str) -> Vec<u64> {
        let (mut out, mut shared) = (Vec::new(), Vec::new());
        let topic = TopicName::parse(topic).unwrap();
        tree.interested(&topic, &mut out, &mut shared);
        out.extend(shared.iter().filter_map(|group| tree.choose(group, &|_| Eligibility::Now)));
        let mut sessions: Vec<u64> = out.iter().map(|interest| interest.session.0).collect();
        sessions.sort_unstable();
        sessions
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x"])
    }

    fn filter_level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x", "+"])
    }

    fn filters() -> impl Strategy<Value = Vec<String>> {
        let one = (prop::collection::vec(filter_level(), 1..4), any::<bool>()).prop_map(
            |(mut levels, multi)| {
                if multi {
                    levels.push("#");
                }
                levels.join("/")
            },
        );
        prop::collection::vec(one.prop_filter("not empty", |text| !text.is_empty()), 1..12)
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_matching_one_filter_at_a_time(
            filters in filters(),
            topic in prop::collection::vec(level(), 1..4).prop_map(|levels| levels.join("/")),
            removed in any::<prop::sample::Index>(),
        ) {
            prop_assume!(!topic.is_empty());
            let name = TopicName::parse(&topic).unwrap();
            let filters: Vec<TopicFilter> =
                filters.iter().map(|text| TopicFilter::parse(text).unwrap()).collect();
            let mut tree = SubscriptionTree::default();
            for (at, filter) in filters.iter().enumerate() {
                tree.insert(filter, SessionKey(at as u64), PLAIN);
            }
            let naive = |without: Option<usize>| -> Vec<u64> {
                (0..filters.len())
                    .filter(|at| Some(*at) != without && filters[*at].matches(&name))
                    .map(|at| at as u64)
                    .collect()
            };
            prop_assert_eq!(matching(&mut tree, &topic), naive(None));
            let gone = removed.index(filters.len());
            prop_assert!(tree.remove(&filters[gone], SessionKey(gone as u64)));
            prop_assert_eq!(matching(&mut tree, &topic), naive(Some(gone)));
            for (at, filter) in filters.iter().enumerate().filter(|(at, _)| *at != gone) {
                prop_assert!(tree.remove(filter, SessionKey(at as u64)));
            }
            prop_assert!(tree.is_empty() && tree.root.is_empty());
        }
    }

    #[test]
    fn a_shared_subscription_takes_turns_and_prefers_who_can_take_it_now() {
        let mut tree = SubscriptionTree::default();
        let filter = TopicFilter::parse("$share/g/a/#").unwrap();
        for session in 0..3 {
            tree.insert(&filter, SessionKey(session), PLAIN);
        }
        let turns: Vec<u64> = (0..4).flat_map(|_| matching(&mut tree, "a/b")).collect();
        assert_eq!(turns, [0, 1, 2, 0]);

        let rank = |session: SessionKey| match session.0 {
            0 => Eligibility::Never,
            1 => Eligibility::Later,
            _ => Eligibility::Now,
        };
        assert_eq!(tree.choose(&filter, &rank).unwrap().session, SessionKey(2));
        assert_eq!(tree.choose(&filter, &|_| Eligibility::Never), None);
    }

    #[test]
    fn b04_a_shared_and_a_plain_subscription_are_two() {
        let mut tree = SubscriptionTree::default();
        let shared = TopicFilter::parse("$share/g/a").unwrap();
        let plain = TopicFilter::parse("a").unwrap();
        assert!(tree.insert(&shared, SessionKey(1), PLAIN));
        assert!(!tree.remove(&plain, SessionKey(1)));
        assert!(tree.insert(&plain, SessionKey(1), PLAIN));
        assert!(!tree.insert(&plain, SessionKey(1), PLAIN));
        assert!(tree.remove(&shared, SessionKey(1)));
        assert_eq!(matching(&mut tree, "a"), [1]);
    }
}

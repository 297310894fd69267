//! Patterns as a tree of levels, so that a decision looks only at rules whose patterns agree.
//!
//! A walk visits at most the nodes that the tree has and never goes deeper than
//! [`super::pattern::PATTERN_LEVELS_MAX`], whatever the topic is. It allocates nothing.

use std::collections::HashMap;
use std::ops::ControlFlow;

use foldhash::fast::FixedState;

use super::pattern::{Bindings, Level, Pattern, Variable};

/// What patterns lead to. Keys come from files of the operator, never from clients, so their hash
/// needs no secret seed.
#[derive(Clone, Debug)]
pub(crate) struct Trie<T> {
    root: Node<T>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    literals: HashMap<Box<str>, Node<T>, FixedState>,
    variables: Vec<(Variable, Node<T>)>,
    single: Option<Box<Node<T>>>,
    /// Of the patterns that end here.
    here: Vec<T>,
    /// Of the patterns that end here with `#`.
    below: Vec<T>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literals: HashMap::default(),
            variables: Vec::new(),
            single: None,
            here: Vec::new(),
            below: Vec::new(),
        }
    }
}

impl<T> Trie<T> {
    /// Lets `pattern` lead to `value`.
    pub(crate) fn insert(&mut self, pattern: &Pattern, value: T) {
        let mut node = &mut self.root;
        for level in pattern.levels() {
            node = match level {
                Level::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Level::Variable(variable) => node.variable(variable),
                Level::Single => node.single.get_or_insert_default(),
                Level::Multi => {
                    node.below.push(value);
                    return;
                }
            };
        }
        node.here.push(value);
    }

    /// Visits the value of every pattern that covers `topic` (a Topic Name or a Topic Filter
    /// without its share prefix), until `visit` breaks.
    ///
    /// The order is the one of specificity, compared level by level from the left: a literal or a
    /// variable before `+` before `#`; the end of a pattern before a `#` below it.
    pub(crate) fn walk<'t>(
        &'t self,
        topic: &str,
        bindings: &Bindings<'_>,
        visit: &mut impl FnMut(&'t T) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if topic.starts_with('$') {
            // Only a literal first level reaches a `$` topic. [MQTT-4.7.2-1]
            let (first, rest) = split(topic);
            return match self.root.literals.get(first) {
                Some(node) => node.walk(rest, bindings, visit),
                None => ControlFlow::Continue(()),
            };
        }
        self.root.walk(Some(topic), bindings, visit)
    }
}

impl<T> Node<T> {
    fn variable(&mut self, variable: &Variable) -> &mut Self {
        let known = self.variables.iter().position(|(name, _)| name == variable);
        let index = known.unwrap_or_else(|| {
            self.variables.push((variable.clone(), Self::default()));
            self.variables.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the index was found or made just above")]
        &mut self.variables[index].1
    }

    fn walk<'t>(
        &'t self,
        rest: Option<&str>,
        bindings: &Bindings<'_>,
        visit: &mut impl FnMut(&'t T) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(rest) = rest else {
            return self.here.iter().chain(&self.below).try_for_each(visit);
        };
        let (level, rest) = split(rest);
        // A filter's `#` stands for whole subtrees: only a `#` of ours covers it.
        if level != "#" {
            if let Some(node) = self.literals.get(level) {
                node.walk(rest, bindings, visit)?;
            }
            for (variable, node) in &self.variables {
                if bindings.value(variable) == Some(level) {
                    node.walk(rest, bindings, visit)?;
                }
            }
            if let Some(node) = &self.single {
                node.walk(rest, bindings, visit)?;
            }
        }
        self.below.iter().try_for_each(visit)
    }
}

fn split(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Grants;
    use crate::mqtt::{TopicFilter, TopicName};
    use proptest::prelude::*;

    const NOBODY: Bindings<'_> =
        Bindings { device: "d", issuer: "i", client_id: "#", grants: Grants::NONE };

    fn first(patterns: &[&str], topic: &str) -> Option<usize> {
        let mut trie = Trie::default();
        for (index, text) in patterns.iter().enumerate() {
            trie.insert(&Pattern::parse(text).unwrap(), index);
        }
        let mut found = None;
        let _ = trie.walk(topic, &NOBODY, &mut |index| {
            found = Some(*index);
            ControlFlow::Break(())
        });
        found
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let patterns = ["#", "a/#", "a/+", "a/b", "+/b", "a/b/#", "a/${device}"];
        assert_eq!(first(&patterns, "a/b"), Some(3));
        assert_eq!(first(&patterns, "a/d"), Some(6));
        assert_eq!(first(&patterns, "a/c"), Some(2));
        assert_eq!(first(&patterns, "a/b/c"), Some(5));
        assert_eq!(first(&patterns, "a"), Some(1));
        assert_eq!(first(&patterns, "c/b"), Some(4));
        assert_eq!(first(&patterns, "c"), Some(0));
        assert_eq!(first(&patterns, "$SYS/b"), None);
    }

    #[test]
    fn b01_a_topic_of_65000_slashes_walks_no_deeper_than_the_patterns() {
        let topic = "/".repeat(65_000);
        assert_eq!(first(&["/+/#", "a/b"], &topic), Some(0));
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "[abd]",
            2 => Just("+".to_owned()),
            1 => Just("${device}".to_owned()),
            1 => Just("${client_id}".to_owned()),
            1 => Just("${claim.plant}".to_owned()),
            1 => Just("${claim.none}".to_owned()),
            1 => Just(String::new()),
            1 => Just("$SYS".to_owned()),
        ]
    }

    fn pattern() -> impl Strategy<Value = String> {
        (prop::collection::vec(level(), 0..4), any::<bool>())
            .prop_map(|(mut levels, multi)| {
                if multi || levels.is_empty() {
                    levels.push("#".to_owned());
                }
                levels.join("/")
            })
            .prop_filter("not empty", |text| !text.is_empty())
    }

    /// What the variables of the tests stand for; `${claim.none}` for a text that no topic has.
    fn plain(pattern: &str) -> String {
        pattern
            .replace("${device}", "d")
            .replace("${client_id}", "c")
            .replace("${claim.plant}", "p")
            .replace("${claim.none}", "nobody")
    }

    fn filter() -> impl Strategy<Value = String> {
        pattern().prop_map(|text| plain(&text))
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop_oneof![4 => "[abcdpx]", 1 => "", 1 => Just("$SYS".to_owned())],
            1..5,
        )
        .prop_map(|levels| levels.join("/"))
        .prop_filter("not empty", |text| !text.is_empty())
    }

    proptest! {
        #[test]
        fn a_walk_finds_what_asking_each_pattern_finds(
            patterns in prop::collection::vec(pattern(), 0..12),
            topic in prop_oneof![name(), filter()],
        ) {
            let grants = Grants::new([], [("plant", "p")]).unwrap();
            let bindings =
                Bindings { device: "d", issuer: "i", client_id: "c", grants: &grants };
            let mut trie = Trie::default();
            let mut wanted = Vec::new();
            for (index, text) in patterns.iter().enumerate() {
                let pattern = Pattern::parse(text).unwrap();
                trie.insert(&pattern, index);
                if pattern.covers(&topic, &bindings).is_ok() {
                    wanted.push(index);
                }
            }
            let mut found = Vec::new();
            let _ = trie.walk(&topic, &bindings, &mut |index| {
                found.push(*index);
                ControlFlow::Continue(())
            });
            found.sort_unstable();
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn what_covers_a_filter_matches_every_topic_of_it(
            pattern in pattern(),
            filter in filter(),
            names in prop::collection::vec(name(), 64),
        ) {
            let grants = Grants::new([], [("plant", "p")]).unwrap();
            let bindings =
                Bindings { device: "d", issuer: "i", client_id: "c", grants: &grants };
            prop_assume!(!filter.contains("nobody") && !names.iter().any(|n| n.contains("nobody")));
            let covers = Pattern::parse(&pattern).unwrap().covers(&filter, &bindings).is_ok();
            // The same pattern as MQTT itself would match it.
            let plain = plain(&pattern);
            let (plain, asked) =
                (TopicFilter::parse(&plain).unwrap(), TopicFilter::parse(&filter).unwrap());
            for name in names {
                let name = TopicName::parse(&name).unwrap();
                if covers && asked.matches(&name) {
                    prop_assert!(plain.matches(&name), "{pattern} covers {filter} but not {name}");
                }
                let matched = Pattern::parse(&pattern).unwrap().covers(name.as_str(), &bindings);
                prop_assert_eq!(matched.is_ok(), plain.matches(&name), "{} and {}", pattern, name);
            }
        }
    }
}

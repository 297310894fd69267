//! Topic Names and Topic Filters (section 4.7): two types, made only by parsing.

use std::fmt;
use std::sync::Arc;

/// A Topic Name: what a PUBLISH carries. At least one character, no wildcard, no U+0000, at most
/// 65,535 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// A Topic Filter: what a SUBSCRIBE carries, with the `$share/<name>/` prefix taken off.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter {
    share: Option<ShareName>,
    filter: Arc<str>,
}

/// The ShareName of a Shared Subscription: no `/`, `+` or `#`, at least one character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName(Arc<str>);

/// Why a text is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("a topic has at least one character")]
    Empty,
    /// [MQTT-4.7.3-2]
    #[error("a topic must not hold U+0000")]
    Null,
    /// [MQTT-4.7.3-3]
    #[error("a topic has at most 65,535 bytes")]
    TooLong,
    /// [MQTT-3.3.2-2], [MQTT-4.7.0-1]
    #[error("a Topic Name must not hold `+` or `#`")]
    WildcardInName,
    /// [MQTT-4.7.1-1]
    #[error("`#` must be the last level and stand alone in it")]
    MultiLevelWildcard,
    /// [MQTT-4.7.1-2]
    #[error("`+` must stand alone in its level")]
    SingleLevelWildcard,
    /// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    #[error("a shared subscription is `$share/<name>/<filter>`, its name without `+` or `#`")]
    Share,
}

impl TopicName {
    /// Checks `text` and takes a copy of it.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        // One look at each byte, many in one step; which rule is broken is asked only then.
        let is_plain = |b: &u8| *b != 0 && *b != b'+' && *b != b'#';
        let plain = text.as_bytes().iter().fold(true, |so_far, byte| so_far & is_plain(byte));
        if !plain || text.is_empty() || text.len() > usize::from(u16::MAX) {
            check_common(text)?;
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, between the slashes; at least one, each possibly empty.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether the first level begins with `$`: wildcards in a first level do not match it.
    /// [MQTT-4.7.2-1]
    pub fn is_dollar(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl TopicFilter {
    /// Checks `text`, takes the share name off and takes a copy of the rest.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        let (share, filter) = match text.strip_prefix("$share/") {
            None if text == "$share" => return Err(TopicError::Share),
            None => (None, text),
            Some(rest) => {
                let (name, filter) = rest.split_once('/').ok_or(TopicError::Share)?;
                if name.is_empty() || filter.is_empty() || name.contains(['+', '#']) {
                    return Err(TopicError::Share);
                }
                (Some(ShareName(Arc::from(name))), filter)
            }
        };
        check_wildcards(filter)?;
        Ok(Self { share, filter: Arc::from(filter) })
    }

    /// The filter without its share prefix: what is matched, and what a policy judges.
    pub fn as_str(&self) -> &str {
        &self.filter
    }

    /// The share name, if this is a Shared Subscription.
    pub fn share(&self) -> Option<&ShareName> {
        self.share.as_ref()
    }

    /// The levels of the filter; each is a literal, `+`, or a last `#`.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.filter.split('/')
    }

    /// Whether a wildcard stands in it.
    pub fn has_wildcard(&self) -> bool {
        self.filter.contains(['+', '#'])
    }

    /// Whether this filter matches `name` (section 4.7), character by character. [MQTT-4.7.3-4]
    pub fn matches(&self, name: &TopicName) -> bool {
        if name.is_dollar() && self.filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = name.levels();
        for want in self.levels() {
            match (want, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (want, Some(level)) if want == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl ShareName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_common(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > usize::from(u16::MAX) {
        return Err(TopicError::TooLong);
    }
    if text.contains('\0') {
        return Err(TopicError::Null);
    }
    Ok(())
}

fn check_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevelWildcard);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevelWildcard);
        }
    }
    Ok(())
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(share) => write!(f, "$share/{}/{}", share.as_str(), self.filter),
            None => f.write_str(&self.filter),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).unwrap()
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }

    #[test]
    fn names_and_filters_have_one_to_65535_bytes_and_no_null() {
        let long = "é".repeat(32_767) + "a";
        assert_eq!(long.len(), 65_535);
        assert!(TopicName::parse(&long).is_ok());
        assert!(TopicFilter::parse(&long).is_ok());
        for (text, error) in [
            ("", TopicError::Empty),
            ("a\0b", TopicError::Null),
            (&*(long.clone() + "a"), TopicError::TooLong),
        ] {
            assert_eq!(TopicName::parse(text), Err(error));
            assert_eq!(TopicFilter::parse(text), Err(error));
        }
    }

    #[test]
    fn names_have_no_wildcards() {
        for text in ["+", "#", "a/+", "a/b#c"] {
            assert_eq!(TopicName::parse(text), Err(TopicError::WildcardInName));
        }
        for text in ["/", "//", " ", "$SYS/a", "$share/g/t", "a/b/"] {
            assert_eq!(name(text).as_str(), text);
        }
    }

    #[test]
    fn wildcards_stand_alone_in_their_level() {
        for text in ["#", "+", "a/#", "+/+", "/+", "+/#", "a/+/b", "//#"] {
            assert_eq!(filter(text).as_str(), text);
        }
        for text in ["a#", "#/a", "a/#/b", "##", "+#", "a/b#"] {
            assert_eq!(TopicFilter::parse(text), Err(TopicError::MultiLevelWildcard), "{text}");
        }
        for text in ["a+", "+a", "++", "a/b+/c"] {
            assert_eq!(TopicFilter::parse(text), Err(TopicError::SingleLevelWildcard), "{text}");
        }
    }

    #[test]
    fn shared_subscriptions_lose_their_prefix() {
        let shared = filter("$share/group/a/+/#");
        assert_eq!(shared.share().unwrap().as_str(), "group");
        assert_eq!(shared.as_str(), "a/+/#");
        assert_eq!(shared.to_string(), "$share/group/a/+/#");
        assert!(shared.matches(&name("a/b/c")));
        assert!(!shared.matches(&name("$share/group/a/b/c")));
        assert_eq!(filter("$share/g//a").as_str(), "/a");
        assert_eq!(filter("$shared/g/a").share(), None);
        for text in
            ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/a#/b"]
        {
            assert_eq!(TopicFilter::parse(text), Err(TopicError::Share), "{text}");
        }
        assert_eq!(TopicFilter::parse("$share/g/a#"), Err(TopicError::MultiLevelWildcard));
    }

    #[test]
    fn the_examples_of_the_specification_match() {
        for (text, yes, no) in [
            (
                "sport/tennis/player1/#",
                &["sport/tennis/player1", "sport/tennis/player1/ranking/x"][..],
                &["sport/tennis/player12", "sport/tennis"][..],
            ),
            ("sport/#", &["sport", "sport/"], &["sports"]),
            ("sport/tennis/+", &["sport/tennis/player1"], &["sport/tennis/player1/ranking"]),
            ("sport/+", &["sport/"], &["sport"]),
            ("+/+", &["/finance"], &["finance", "//finance"]),
            ("/+", &["/finance"], &["finance"]),
            ("+", &["finance"], &["/finance", "$SYS"]),
            ("#", &["a", "/", "a/b/"], &["$SYS", "$SYS/monitor"]),
            ("+/monitor/Clients", &["a/monitor/Clients"], &["$SYS/monitor/Clients"]),
            ("$SYS/#", &["$SYS", "$SYS/monitor"], &["SYS"]),
            ("$SYS/monitor/+", &["$SYS/monitor/Clients"], &[]),
            ("ACCOUNTS", &["ACCOUNTS"], &["Accounts", "ACCOUNTS/"]),
        ] {
            for topic in yes {
                assert!(filter(text).matches(&name(topic)), "{text} and {topic}");
            }
            for topic in no {
                assert!(!filter(text).matches(&name(topic)), "{text} and {topic}");
            }
        }
    }

    /// The rules of section 4.7 once more, by recursion over whole level lists.
    fn model(filter: &[&str], name: &[&str], first: bool) -> bool {
        let wild_allowed = !(first && name.first().is_some_and(|level| level.starts_with('$')));
        match (filter, name) {
            ([], []) => true,
            (["#"], _) => wild_allowed,
            (["+", filter @ ..], [_, name @ ..]) => wild_allowed && model(filter, name, false),
            ([want, filter @ ..], [level, name @ ..]) => {
                want == level && model(filter, name, false)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matches_as_the_model_does(
            name in vec(select(&["a", "b", "", "$", "$a"][..]), 1..5),
            filter in vec(select(&["a", "b", "", "$", "$a", "+", "+", "#"][..]), 1..5),
        ) {
            let (topic, text) = (name.join("/"), filter.join("/"));
            let (Ok(topic), Ok(parsed)) = (TopicName::parse(&topic), TopicFilter::parse(&text))
            else {
                return Ok(());
            };
            prop_assert_eq!(parsed.matches(&topic), model(&filter, &name, true));
        }

        #[test]
        fn a_parsed_filter_prints_as_it_was_written(
            text in "[a+#/$]{0,6}|\\$share/[a+/]{0,3}/[a+#/]{0,3}",
        ) {
            if let Ok(parsed) = TopicFilter::parse(&text) {
                prop_assert_eq!(parsed.to_string(), text.clone());
                prop_assert_eq!(TopicFilter::parse(&parsed.to_string()), Ok(parsed));
            }
            if let Ok(name) = TopicName::parse(&text) {
                prop_assert!(TopicFilter::parse("#").unwrap().matches(&name) != name.is_dollar());
                prop_assert_eq!(name.levels().count(), text.split('/').count());
            }
        }
    }
}

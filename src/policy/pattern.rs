//! Topic patterns of rules: Topic Filters in which a whole level may be a variable.

use std::fmt;
use std::sync::Arc;

use crate::identity::Grants;
use crate::identity::grants::is_grant_name;
use crate::mqtt::{TopicError, TopicFilter};

/// Most levels of a pattern.
pub const PATTERN_LEVELS_MAX: usize = 32;

/// What a level may stand for instead of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The name within the role, whatever the role is.
    Device,
    /// The id of the issuer that vouched for the identity.
    Issuer,
    /// The Client Identifier of the session.
    ClientId,
    /// A topic variable of the token, by its name.
    Claim(Box<str>),
}

/// What stands before the name of a topic variable of a token.
const CLAIM: &str = "claim.";

impl Variable {
    /// The variable with this name between `${` and `}`.
    fn parse(name: &str) -> Option<Self> {
        match name {
            "device" => Some(Self::Device),
            "issuer" => Some(Self::Issuer),
            "client_id" => Some(Self::ClientId),
            _ => {
                let claim = name.strip_prefix(CLAIM).filter(|claim| is_grant_name(claim))?;
                Some(Self::Claim(claim.into()))
            }
        }
    }
}

/// Its name between `${` and `}`.
impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("device"),
            Self::Issuer => f.write_str("issuer"),
            Self::ClientId => f.write_str("client_id"),
            Self::Claim(claim) => write!(f, "{CLAIM}{claim}"),
        }
    }
}

/// One level of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Literal(Box<str>),
    Single,
    Multi,
    Variable(Variable),
}

/// A pattern: literals, `+`, a last `#`, and variables that fill a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<str>,
    levels: Vec<Level>,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum PatternError {
    /// It would not be a Topic Filter.
    #[error("`{text}` is not a topic pattern: {error}")]
    #[diagnostic(help("write levels between slashes; `+` and a last `#` stand alone in theirs"))]
    Topic {
        /// The pattern.
        text: String,
        /// What the rules of MQTT say of it.
        error: TopicError,
    },
    /// A share prefix.
    #[error("a pattern has no `$share/<name>/` prefix")]
    #[diagnostic(help("rules judge the filter behind the prefix: leave `$share/<name>/` out"))]
    Share,
    /// A name that is no variable.
    #[error("`${{{name}}}` is not a variable")]
    #[diagnostic(help(
        "the variables are ${{device}} (the identity's name), ${{issuer}}, ${{client_id}} and \
         ${{claim.NAME}} (a topic variable of the token; NAME of a-z 0-9 - _)"
    ))]
    UnknownVariable {
        /// The name.
        name: String,
    },
    /// A variable that shares its level with a text.
    #[error("in `{level}` a variable fills only a part of the level")]
    #[diagnostic(help(
        "give the variable a level of its own, as in `plant/${{device}}/status`; in a part of a \
         level, the names `a` and `ab` could not be told apart"
    ))]
    PartialVariable {
        /// The level.
        level: String,
    },
    /// Too many levels.
    #[error("the pattern has {levels} levels, more than {PATTERN_LEVELS_MAX}")]
    #[diagnostic(help("end it earlier with `#`"))]
    TooDeep {
        /// Its levels.
        levels: usize,
    },
}

/// What the variables stand for in one decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bindings<'a> {
    pub(crate) device: &'a str,
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) grants: &'a Grants,
}

impl<'a> Bindings<'a> {
    /// What `variable` stands for. A topic variable that the token does not have stands for
    /// nothing; so does a value that is empty or has `+`, `#`, `/` or U+0000 in it: it could speak
    /// of a topic that is not its own.
    pub(crate) fn value(&self, variable: &Variable) -> Option<&'a str> {
        let value = match variable {
            Variable::Device => self.device,
            Variable::Issuer => self.issuer,
            Variable::ClientId => self.client_id,
            Variable::Claim(claim) => self.grants.variable(claim)?,
        };
        let plain = !value.is_empty() && !value.contains(['+', '#', '/', '\0']);
        plain.then_some(value)
    }
}

/// Where a topic leaves a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Miss {
    /// Levels that agreed before it, so also the index of the level that did not.
    pub(crate) level: usize,
    /// The level of the pattern; `None` when the topic goes on after its end.
    pub(crate) wanted: Option<String>,
    /// What a variable in that level stands for.
    pub(crate) value: Option<String>,
    /// The level of the topic; `None` when the pattern goes on after its end.
    pub(crate) found: Option<String>,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.starts_with("$share/") || text == "$share" {
            return Err(PatternError::Share);
        }
        TopicFilter::parse(text)
            .map_err(|error| PatternError::Topic { text: text.to_owned(), error })?;
        let levels = text.split('/').map(parse_level).collect::<Result<Vec<_>, _>>()?;
        if levels.len() > PATTERN_LEVELS_MAX {
            return Err(PatternError::TooDeep { levels: levels.len() });
        }
        Ok(Self { text: Arc::from(text), levels })
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn levels(&self) -> &[Level] {
        &self.levels
    }

    pub(crate) fn uses(&self, variable: &Variable) -> bool {
        self.variables().any(|used| used == variable)
    }

    /// The variables in it.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.levels.iter().filter_map(|level| match level {
            Level::Variable(variable) => Some(variable),
            Level::Literal(_) | Level::Single | Level::Multi => None,
        })
    }

    /// Whether every topic is matched that `topic` (a Topic Name or a Topic Filter without its
    /// share prefix) stands for; if not, where they part.
    ///
    /// One pattern is asked at a time: a filter that only several patterns together cover is not
    /// covered. This is the slow, plain form of [`super::index::Trie`], kept for explanations and
    /// as its model in tests.
    pub(crate) fn covers(&self, topic: &str, bindings: &Bindings<'_>) -> Result<(), Miss> {
        let mut found = topic.split('/');
        for (index, level) in self.levels.iter().enumerate() {
            let next = found.next();
            // Wildcards and variables in a first level do not reach `$` topics. [MQTT-4.7.2-1]
            let guarded = index == 0 && next.is_some_and(|text| text.starts_with('$'));
            let agrees = match (level, next) {
                (Level::Multi, _) if !guarded => return Ok(()),
                (Level::Single, Some(text)) => !guarded && text != "#",
                (Level::Literal(wanted), Some(text)) => **wanted == *text,
                (Level::Variable(variable), Some(text)) => {
                    !guarded && bindings.value(variable) == Some(text)
                }
                (Level::Multi, _) | (_, None) => false,
            };
            if !agrees {
                return Err(miss(index, Some(level), bindings, next));
            }
        }
        match found.next() {
            None => Ok(()),
            more => Err(miss(self.levels.len(), None, bindings, more)),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Single => f.write_str("+"),
            Self::Multi => f.write_str("#"),
            Self::Variable(variable) => write!(f, "${{{variable}}}"),
        }
    }
}

fn miss(index: usize, level: Option<&Level>, bindings: &Bindings<'_>, found: Option<&str>) -> Miss {
    let value = match level {
        Some(Level::Variable(variable)) => bindings.value(variable).map(str::to_owned),
        Some(Level::Literal(_) | Level::Single | Level::Multi) | None => None,
    };
    Miss {
        level: index,
        wanted: level.map(Level::to_string),
        value,
        found: found.map(str::to_owned),
    }
}

fn parse_level(level: &str) -> Result<Level, PatternError> {
    match level {
        "+" => return Ok(Level::Single),
        "#" => return Ok(Level::Multi),
        _ => {}
    }
    if !level.contains("${") {
        return Ok(Level::Literal(level.into()));
    }
    let name = level
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .filter(|name| !name.contains(['$', '{', '}']))
        .ok_or_else(|| PatternError::PartialVariable { level: level.to_owned() })?;
    Variable::parse(name)
        .map(Level::Variable)
        .ok_or_else(|| PatternError::UnknownVariable { name: name.to_owned() })
}

#[cfg(test)]
#[path = "pattern_tests.rs"]
mod tests;

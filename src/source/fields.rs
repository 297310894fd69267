//! Reading the fields of one TOML table: every wrong, missing or unknown one is a problem.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problems;

/// What can be wrong with a TOML file before anyone asks what it means.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum FieldProblem {
    /// Not TOML.
    #[error("this is not TOML: {0}")]
    #[diagnostic(help("see https://toml.io for the syntax; the rest of the file was not read"))]
    Syntax(String),
    /// A field that nothing reads.
    #[error("unknown field `{field}` in {table}")]
    #[diagnostic(help("{}", unknown_help(.closest, .known)))]
    Unknown {
        /// The field.
        field: String,
        /// Where it stands.
        table: &'static str,
        /// The known field that is spelled most like it.
        closest: Option<&'static str>,
        /// All known fields.
        known: &'static [&'static str],
    },
    /// A field that must be there is not.
    #[error("{table} has no `{field}`")]
    #[diagnostic(help("add `{field} = …`"))]
    Missing {
        /// The field.
        field: &'static str,
        /// Where it should stand.
        table: &'static str,
    },
    /// A value of another type.
    #[error("`{field}` must be {expected}, this is {found}")]
    #[diagnostic(help("write `{field} = {example}`"))]
    Type {
        /// The field.
        field: &'static str,
        /// The type it must have.
        expected: &'static str,
        /// The type it has.
        found: &'static str,
        /// A value of the right type.
        example: &'static str,
    },
    /// A number outside its bounds.
    #[error("`{field}` must be {}", range(*min, *max))]
    #[diagnostic(help("{}", range_help(field, *min, *max)))]
    Range {
        /// The field.
        field: &'static str,
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A word that is not one of the allowed ones.
    #[error("`{field}` cannot be `{found}`")]
    #[diagnostic(help("{}", choice_help(field, allowed)))]
    Choice {
        /// The field.
        field: &'static str,
        /// The word.
        found: String,
        /// The words it may be.
        allowed: Vec<String>,
    },
}

fn range(min: u64, max: u64) -> String {
    if min == max { min.to_string() } else { format!("{min} to {max}") }
}

fn range_help(field: &str, min: u64, max: u64) -> String {
    if min == max {
        return format!("write `{field} = {min}`");
    }
    format!("choose a value from {min} to {max}")
}

fn choice_help(field: &str, allowed: &[String]) -> String {
    match allowed {
        [only] => format!("write `{field} = \"{only}\"`"),
        several => {
            let several: Vec<_> = several.iter().map(|word| format!("`{word}`")).collect();
            format!("choose one of {}", several.join(", "))
        }
    }
}

fn unknown_help(closest: &Option<&'static str>, known: &[&'static str]) -> String {
    match closest {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known fields are {}", known.join(", ")),
    }
}

/// One table that is being read.
pub(crate) struct Fields<'t> {
    table: &'t DeTable<'t>,
    span: Range<usize>,
    name: &'static str,
}

impl<'t> Fields<'t> {
    /// Begins to read `table`, called `name` in messages; fields not in `known` are reported.
    pub(crate) fn new<P: From<FieldProblem>>(
        table: &'t DeTable<'t>,
        span: Range<usize>,
        name: &'static str,
        known: &'static [&'static str],
        problems: &mut Problems<P>,
    ) -> Self {
        for key in table.keys() {
            let field = key.get_ref().as_ref();
            if !known.contains(&field) {
                let closest = closest(field, known.iter().copied());
                let field = field.to_owned();
                let problem = FieldProblem::Unknown { field, table: name, closest, known };
                problems.push(key.span(), problem);
            }
        }
        Self { table, span, name }
    }

    /// Where the table is.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Where the value of `field` is, if it is there.
    pub(crate) fn span_of(&self, field: &str) -> Option<Range<usize>> {
        self.table.get(field).map(Spanned::span)
    }

    /// Reports that `field` is not there.
    pub(crate) fn missing<P: From<FieldProblem>>(
        &self,
        field: &'static str,
        problems: &mut Problems<P>,
    ) {
        problems.push(self.span(), FieldProblem::Missing { field, table: self.name });
    }

    pub(crate) fn string<P: From<FieldProblem>>(
        &self,
        field: &'static str,
        problems: &mut Problems<P>,
    ) -> Option<Spanned<&'t str>> {
        let value = self.table.get(field)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            wrong_type(field, "a string", "\"…\"", value, problems);
        }
        Some(Spanned::new(value.span(), text?))
    }

    /// `None` if the field is absent.
    pub(crate) fn strings<P: From<FieldProblem>>(
        &self,
        field: &'static str,
        problems: &mut Problems<P>,
    ) -> Option<Vec<Spanned<&'t str>>> {
        let value = self.table.get(field)?;
        let Some(items) = value.get_ref().as_array() else {
            wrong_type(field, "a list of strings", "[\"…\"]", value, problems);
            return Some(Vec::new());
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Spanned::new(item.span(), text)),
                None => wrong_type(field, "a list of strings", "[\"…\"]", item, problems),
            }
        }
        Some(texts)
    }

    pub(crate) fn boolean<P: From<FieldProblem>>(
        &self,
        field: &'static str,
        problems: &mut Problems<P>,
    ) -> Option<bool> {
        let value = self.table.get(field)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            wrong_type(field, "true or false", "true", value, problems);
        }
        flag
    }

    pub(crate) fn integer<P: From<FieldProblem>>(
        &self,
        field: &'static str,
        bounds: RangeInclusive<u64>,
        problems: &mut Problems<P>,
    ) -> Option<u64> {
        let value = self.table.get(field)?;
        let Some(integer) = value.get_ref().as_integer() else {
            wrong_type(field, "a whole number", "1", value, problems);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits = number.filter(|number| bounds.contains(number));
        if fits.is_none() {
            let (min, max) = (*bounds.start(), *bounds.end());
            problems.push(value.span(), FieldProblem::Range { field, min, max });
        }
        fits
    }

    pub(crate) fn choice<T: Copy, P: From<FieldProblem>>(
        &self,
        field: &'static str,
        choices: &[(&str, T)],
        problems: &mut Problems<P>,
    ) -> Option<T> {
        let word = self.string(field, problems)?;
        let chosen =
            choices.iter().find(|(name, _)| name == word.get_ref()).map(|(_, value)| *value);
        if chosen.is_none() {
            let allowed = choices.iter().map(|(name, _)| (*name).to_owned()).collect();
            let found = (*word.get_ref()).to_owned();
            let problem = FieldProblem::Choice { field, found, allowed };
            problems.push(word.span(), problem);
        }
        chosen
    }

    /// The table `field`.
    pub(crate) fn table<P: From<FieldProblem>>(
        &self,
        field: &'static str,
        problems: &mut Problems<P>,
    ) -> Option<(&'t DeTable<'t>, Range<usize>)> {
        let value = self.table.get(field)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            wrong_type(field, "a table", "{ … }", value, problems);
        }
        Some((table?, value.span()))
    }

    /// The tables of the array `field`; none if it is absent.
    pub(crate) fn tables<P: From<FieldProblem>>(
        &self,
        field: &'static str,
        problems: &mut Problems<P>,
    ) -> Vec<(&'t DeTable<'t>, Range<usize>)> {
        let Some(value) = self.table.get(field) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            wrong_type(field, "a list of tables", "[{ … }]", value, problems);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(table) => tables.push((table, item.span())),
                None => wrong_type(field, "a list of tables", "[{ … }]", item, problems),
            }
        }
        tables
    }
}

fn wrong_type<P: From<FieldProblem>>(
    field: &'static str,
    expected: &'static str,
    example: &'static str,
    value: &Spanned<DeValue<'_>>,
    problems: &mut Problems<P>,
) {
    let found = value.get_ref().type_str();
    problems.push(value.span(), FieldProblem::Type { field, expected, found, example });
}

/// The name that is spelled most like `text`, if one is close enough to be a slip.
pub(crate) fn closest(
    text: &str,
    names: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    let slips_max = text.chars().take(64).count() / 3 + 1;
    names
        .map(|name| (edit_distance(text, name), name))
        .filter(|(slips, _)| *slips <= slips_max)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, over at most 64 characters of either.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        let mut next = vec![before];
        for (b, above) in right.iter().zip(row.iter().skip(1)) {
            let change = diagonal + usize::from(a != *b);
            diagonal = *above;
            before = change.min(*above + 1).min(before + 1);
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_slips() {
        assert_eq!(edit_distance("publish", "publish"), 0);
        assert_eq!(edit_distance("publsh", "publish"), 1);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let names = || ["publish", "subscribe", "qos_max"].into_iter();
        assert_eq!(closest("publsih", names()), Some("publish"));
        assert_eq!(closest("max_qos", names()), None);
        assert_eq!(closest("colour", names()), None);
    }
}

//! What a credential grants besides a name: roles, and values for topics.
//!
//! Invariant: a [`Grants`] is within its bounds, whoever made it: a token ([`super::token`]), a
//! test of a policy, or a question on the command line. Whether a value may stand in a topic is
//! for the policy to say.

use std::collections::{BTreeMap, BTreeSet};

/// Most roles of one credential.
pub const ROLES_MAX: usize = 16;
/// Most topic variables of one credential.
pub const VARIABLES_MAX: usize = 16;
/// Longest name of a role or of a variable, in bytes.
pub const GRANT_NAME_BYTES_MAX: usize = 32;
/// Longest value of a variable, in bytes.
pub const VARIABLE_BYTES_MAX: usize = 128;

/// Roles and topic variables. A certificate grants none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    roles: BTreeSet<Box<str>>,
    variables: BTreeMap<Box<str>, Box<str>>,
}

/// Why these are no grants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantsError {
    /// Too many roles, or a name that is none.
    #[error("roles: at most {ROLES_MAX}, each 1 to {GRANT_NAME_BYTES_MAX} of a-z 0-9 - _")]
    Roles,
    /// Too many variables, a name that is none, or a value that is too long.
    #[error(
        "variables: at most {VARIABLES_MAX}, names 1 to {GRANT_NAME_BYTES_MAX} of a-z 0-9 - _, \
         values up to {VARIABLE_BYTES_MAX} bytes"
    )]
    Variables,
}

impl Grants {
    /// Nothing granted.
    pub const NONE: &'static Self = &Self { roles: BTreeSet::new(), variables: BTreeMap::new() };

    /// `roles` and `variables`; what comes twice counts once, the last value of a variable.
    ///
    /// # Errors
    /// A [`GrantsError`]: see the bounds of this room.
    pub fn new<'a>(
        roles: impl IntoIterator<Item = &'a str>,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, GrantsError> {
        let mut grants = Self::default();
        for role in roles {
            grants.roles.insert(role.into());
            if !is_grant_name(role) || grants.roles.len() > ROLES_MAX {
                return Err(GrantsError::Roles);
            }
        }
        for (name, value) in variables {
            grants.variables.insert(name.into(), value.into());
            let fits = is_grant_name(name) && value.len() <= VARIABLE_BYTES_MAX;
            if !fits || grants.variables.len() > VARIABLES_MAX {
                return Err(GrantsError::Variables);
            }
        }
        Ok(grants)
    }

    /// Whether `role` is granted.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// The value of the variable `name`.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(AsRef::as_ref)
    }

    /// The roles, in order.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(AsRef::as_ref)
    }

    /// The variables, in the order of their names.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

/// Whether `text` can name a role or a variable: 1 to [`GRANT_NAME_BYTES_MAX`] of `a-z 0-9 - _`.
pub fn is_grant_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    (1..=GRANT_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_bounded() {
        let long = "a".repeat(GRANT_NAME_BYTES_MAX);
        let value = "v".repeat(VARIABLE_BYTES_MAX);
        let grants = Grants::new([&*long, "viewer"], [("plant", &*value)]).unwrap();
        assert!(grants.has_role("viewer") && !grants.has_role("view"));
        assert_eq!((grants.variable("plant"), grants.variable("x")), (Some(&*value), None));
        for bad in ["", "Viewer", "a b", "a/b", &format!("{long}a")] {
            assert_eq!(Grants::new([bad], []), Err(GrantsError::Roles), "{bad}");
            assert_eq!(Grants::new([], [(bad, "x")]), Err(GrantsError::Variables), "{bad}");
        }
        let too_long = format!("{value}v");
        assert_eq!(Grants::new([], [("a", &*too_long)]), Err(GrantsError::Variables));
        let names: Vec<_> = (0..=ROLES_MAX).map(|n| format!("r{n}")).collect();
        let first = names.iter().take(ROLES_MAX).map(String::as_str);
        assert!(Grants::new(first.clone(), first.map(|name| (name, ""))).is_ok());
        let all = || names.iter().map(String::as_str);
        assert_eq!(Grants::new(all(), []), Err(GrantsError::Roles));
        assert_eq!(Grants::new([], all().map(|name| (name, ""))), Err(GrantsError::Variables));
    }
}

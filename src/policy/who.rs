//! Whom a rule (or a class of limits) speaks of: a role, or names within a role.

use std::fmt;

use crate::identity::{Identity, Role, name::check_name};

/// `device`, `device/press-7`, or `device/press-*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    role: Role,
    names: Names,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Names {
    All,
    One(Box<str>),
    Prefix(Box<str>),
}

/// Why a text names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum WhoError {
    /// The part before the slash is no role.
    #[error("`{role}` is not a role")]
    #[diagnostic(help(
        "the roles are device, dashboard, operator, auditor; a name follows as `device/name`"
    ))]
    Role {
        /// What stood there.
        role: String,
    },
    /// The part after the slash can be no certificate's name.
    #[error("`{name}` cannot be a name")]
    #[diagnostic(help(
        "a name has 1 to 128 characters of A-Z, a-z, 0-9, '.', '-', '_'; one `*` may end it"
    ))]
    Name {
        /// What stood there.
        name: String,
    },
}

impl Who {
    /// Reads `role`, `role/name`, `role/prefix*` or `role/*`.
    pub fn parse(text: &str) -> Result<Self, WhoError> {
        let (role, name) = match text.split_once('/') {
            Some((role, name)) => (role, Some(name)),
            None => (text, None),
        };
        let role = Role::parse(role).ok_or_else(|| WhoError::Role { role: role.to_owned() })?;
        let names = match name {
            None | Some("*") => Names::All,
            Some(name) => {
                let (stem, prefix) = match name.strip_suffix('*') {
                    Some(stem) => (stem, true),
                    None => (name, false),
                };
                // `.` and `..` are no names, but names may begin with them.
                let is_stem = prefix && stem.bytes().all(|b| b == b'.');
                if !is_stem && check_name(stem).is_err() {
                    return Err(WhoError::Name { name: name.to_owned() });
                }
                if prefix { Names::Prefix(stem.into()) } else { Names::One(stem.into()) }
            }
        };
        Ok(Self { role, names })
    }

    /// Everybody of a role.
    pub(super) fn all(role: Role) -> Self {
        Self { role, names: Names::All }
    }

    /// Whether it speaks of `identity`.
    pub fn matches(&self, identity: &Identity) -> bool {
        self.role == identity.role()
            && match &self.names {
                Names::All => true,
                Names::One(name) => **name == *identity.name(),
                Names::Prefix(prefix) => identity.name().starts_with(&**prefix),
            }
    }

    /// The role it speaks of.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The only name it speaks of, if it is one.
    pub(crate) fn only_name(&self) -> Option<&str> {
        match &self.names {
            Names::One(name) => Some(name),
            Names::All | Names::Prefix(_) => None,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.role.as_str())?;
        match &self.names {
            Names::All => Ok(()),
            Names::One(name) => write!(f, "/{name}"),
            Names::Prefix(prefix) => write!(f, "/{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(name: &str) -> Identity {
        Identity::new("plant.example", Role::Device, name, "plant").unwrap()
    }

    #[test]
    fn a_role_a_name_and_a_prefix_speak_of_those_only() {
        let speaks = |who: &str, name: &str| Who::parse(who).unwrap().matches(&press(name));
        assert!(speaks("device", "press-7"));
        assert!(speaks("device/*", "press-7"));
        assert!(speaks("device/press-7", "press-7"));
        assert!(speaks("device/press-*", "press-7"));
        assert!(!speaks("device/press-7", "press-70"));
        assert!(!speaks("device/press-*", "pres"));
        assert!(!speaks("dashboard/press-7", "press-7"));
    }

    #[test]
    fn other_forms_name_nobody() {
        for bad in ["", "*", "admin", "device/", "device/a/b", "device/*-7", "device/a**", "Device"]
        {
            assert!(Who::parse(bad).is_err(), "{bad} was accepted");
        }
    }
}

//! Operators' tools over MQTT: known by name and key, and compared without telling by the time it takes how much was right.

use std::sync::{Arc, PoisonError, RwLock};

use broker::{CredentialId, Operator};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// How the user name of an operator begins; that of a device made here has no colon.
pub const PREFIX: &str = "operator:";

/// The operators that are configured. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Operators(Arc<RwLock<Vec<Known>>>);

#[derive(Debug)]
struct Known {
    login: Login,
    operator: Operator,
}

/// SHA-256 of name and of key, so that a comparison does not tell a length either.
struct Login([u8; 64]);

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Login {
    fn of(name: &str, key: &[u8]) -> Self {
        let mut login = [0; 64];
        login[..32].copy_from_slice(&Sha256::digest(name));
        login[32..].copy_from_slice(&Sha256::digest(key));
        Self(login)
    }
}

impl Known {
    fn credential(&self) -> CredentialId {
        let username = format!("{PREFIX}{}", self.operator.name).into();
        CredentialId { username, mark: Sha256::digest(self.login.0).into() }
    }
}

impl Operators {
    /// Keeps what is needed of each operator and its key.
    #[must_use]
    pub fn new<'a>(operators: impl IntoIterator<Item = (Operator, &'a str)>) -> Self {
        let known = Self::default();
        known.replace(operators);
        known
    }

    /// Puts others in their place; whoever is connected with a key that has gone is judged when the door is told to.
    pub fn replace<'a>(&self, operators: impl IntoIterator<Item = (Operator, &'a str)>) {
        let known = |(operator, key): (Operator, &str)| Known {
            login: Login::of(&operator.name, key.as_bytes()),
            operator,
        };
        let operators = operators.into_iter().map(known).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = operators;
    }

    /// Whether a user name asks for an operator, and not for a device.
    #[must_use]
    pub fn is_asked(username: &str) -> bool {
        username.starts_with(PREFIX)
    }

    /// The operator of a user name `operator:name` with this key, and what it came with. Every one is looked at, whichever
    /// fits.
    #[must_use]
    pub fn find(&self, username: &str, key: &[u8]) -> Option<(Operator, CredentialId)> {
        let shown = Login::of(username.strip_prefix(PREFIX)?, key);
        let operators = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut position = u64::MAX;
        for (i, known) in (0_u64..).zip(operators.iter()) {
            let is_equal: Choice = known.login.0.ct_eq(&shown.0);
            position.conditional_assign(&i, is_equal);
        }
        let known = operators.get(usize::try_from(position).ok()?)?;
        Some((known.operator.clone(), known.credential()))
    }

    /// Whether a key that let an operator in would do so now.
    #[must_use]
    pub fn still_accept(&self, credential: &CredentialId) -> bool {
        let operators = self.0.read().unwrap_or_else(PoisonError::into_inner);
        operators.iter().any(|known| known.credential() == *credential)
    }
}

#[cfg(test)]
mod tests {
    use broker::Tenants;

    use super::*;

    #[test]
    fn an_operator_is_known_by_name_and_key_together() {
        let operator = |name: &str| Operator { name: name.into(), tenants: Tenants::All };
        let operators = Operators::new([(operator("ops"), "one"), (operator("console"), "two")]);
        let check = |username: &str, key: &str, expected: Option<&str>| {
            let found = operators.find(username, key.as_bytes()).map(|(operator, _)| operator.name);
            assert_eq!(found.as_deref(), expected, "{username} {key}");
        };
        check("operator:ops", "one", Some("ops"));
        check("operator:console", "two", Some("console"));
        check("operator:ops", "two", None);
        check("operator:ops", "", None);
        check("operator:", "one", None);
        check("ops", "one", None);
        assert_eq!(Operators::default().find("operator:ops", b"one"), None);
        let (_, credential) = operators.find("operator:ops", b"one").expect("it is known");
        assert!(operators.still_accept(&credential));
        let shared = operators.clone();
        shared.replace([(operator("ops"), "another"), (operator("new"), "one")]);
        assert!(!operators.still_accept(&credential), "its key was replaced");
        assert!(operators.find("operator:ops", b"another").is_some());
        shared.replace([(operator("ops"), "one")]);
        assert!(operators.still_accept(&credential));
        assert!(!format!("{operators:?}").contains("one\""), "{operators:?}");
    }
}

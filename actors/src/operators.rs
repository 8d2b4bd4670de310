//! Operators' tools over MQTT: known by name and key, and compared without telling by the time it takes how much was right.

use std::sync::Arc;

use broker::Operator;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// How the user name of an operator begins; that of a device made here has no colon.
pub const PREFIX: &str = "operator:";

/// The operators that are configured. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Operators(Arc<[Known]>);

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

impl Operators {
    /// Keeps what is needed of each operator and its key.
    #[must_use]
    pub fn new<'a>(operators: impl IntoIterator<Item = (Operator, &'a str)>) -> Self {
        let known = |(operator, key): (Operator, &str)| Known {
            login: Login::of(&operator.name, key.as_bytes()),
            operator,
        };
        Self(operators.into_iter().map(known).collect())
    }

    /// Whether a user name asks for an operator, and not for a device.
    #[must_use]
    pub fn is_asked(username: &str) -> bool {
        username.starts_with(PREFIX)
    }

    /// The operator of a user name `operator:name` with this key. Every one is looked at, whichever fits.
    #[must_use]
    pub fn find(&self, username: &str, key: &[u8]) -> Option<&Operator> {
        let shown = Login::of(username.strip_prefix(PREFIX)?, key);
        let mut position = u64::MAX;
        for (i, known) in (0_u64..).zip(self.0.iter()) {
            let is_equal: Choice = known.login.0.ct_eq(&shown.0);
            position.conditional_assign(&i, is_equal);
        }
        self.0.get(usize::try_from(position).ok()?).map(|known| &known.operator)
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
            let found = operators.find(username, key.as_bytes()).map(|operator| &*operator.name);
            assert_eq!(found, expected, "{username} {key}");
        };
        check("operator:ops", "one", Some("ops"));
        check("operator:console", "two", Some("console"));
        check("operator:ops", "two", None);
        check("operator:ops", "", None);
        check("operator:", "one", None);
        check("ops", "one", None);
        assert_eq!(Operators::default().find("operator:ops", b"one"), None);
        assert!(!format!("{operators:?}").contains("one\""), "{operators:?}");
    }
}

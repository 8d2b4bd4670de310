//! Operator keys: kept as hashes, and compared without telling by the time it takes how much of one was right.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::{Operator, Tenants};
use crate::config::OperatorKey;

/// The configured keys.
pub(in crate::http) struct Keys(Vec<(Hash, Operator)>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, operator)| operator)).finish()
    }
}

/// SHA-256 of a key. All hashes have one length, so that a comparison does not tell the length of a key either.
type Hash = [u8; 32];

impl Keys {
    /// Keeps what is needed of each key.
    #[must_use]
    pub(in crate::http) fn new(keys: &[OperatorKey]) -> Self {
        let entry = |(place, key): (usize, &OperatorKey)| {
            let name = key.name.clone().unwrap_or_else(|| format!("#{}", place + 1)).into();
            let operator = Operator { name, role: key.role, tenants: Tenants::of_key(&key.tenants) };
            (hash(key.key.expose().as_bytes()), operator)
        };
        Self(keys.iter().enumerate().map(entry).collect())
    }

    /// Whether no key is configured.
    #[must_use]
    pub(in crate::http) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The operator a key belongs to. Every key is looked at, whichever fits.
    #[must_use]
    pub(in crate::http) fn find(&self, key: &[u8]) -> Option<&Operator> {
        let shown = hash(key);
        let mut position = u64::MAX;
        for (i, (known, _)) in (0_u64..).zip(&self.0) {
            let is_equal: Choice = known.ct_eq(&shown);
            position.conditional_assign(&i, is_equal);
        }
        self.0.get(usize::try_from(position).ok()?).map(|(_, operator)| operator)
    }

    /// What is remembered of a key elsewhere: nobody can log in with it.
    #[must_use]
    #[expect(clippy::unused_self, reason = "marks belong to keys")]
    pub(in crate::http) fn mark(&self, key: &[u8]) -> [u8; 32] {
        mark(&hash(key))
    }

    /// The operator whose key is remembered so.
    #[must_use]
    pub(in crate::http) fn of_mark(&self, shown: &[u8; 32]) -> Option<&Operator> {
        self.0.iter().find(|(known, _)| mark(known) == *shown).map(|(_, operator)| operator)
    }
}

fn hash(key: &[u8]) -> Hash {
    Sha256::digest(key).into()
}

fn mark(known: &Hash) -> [u8; 32] {
    Sha256::digest(known).into()
}

//! The cloud's own digest of what it has: how many events of each hour, and a sum over their ids that does not depend on their
//! order. Written from the contract: it shares no code with the engine.

use std::collections::BTreeMap;

use schema::clock::Timestamp;
use schema::wire::time;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a hash that are summed up.
const DIGITS: u32 = 15;

/// What the cloud has of one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourDigest {
    /// Its first moment.
    pub hour: String,
    /// Events.
    pub events: u64,
    /// The sum over their ids, as a decimal number.
    pub hash: String,
}

/// Sums by tenant and hour.
#[derive(Debug, Default)]
pub(crate) struct Digest(BTreeMap<(String, i64), (u64, u128)>);

impl Digest {
    /// Enters an event that was taken.
    pub(crate) fn add(&mut self, tenant_id: &str, event_id: &str, occurred_at: Timestamp) {
        let (events, hash) = self.0.entry((tenant_id.to_owned(), hour(occurred_at))).or_default();
        *events += 1;
        *hash += part(event_id);
    }

    /// Takes an event back that was entered.
    pub(crate) fn remove(&mut self, tenant_id: &str, event_id: &str, occurred_at: Timestamp) {
        if let Some((events, hash)) = self.0.get_mut(&(tenant_id.to_owned(), hour(occurred_at))) {
            *events = events.saturating_sub(1);
            *hash = hash.saturating_sub(part(event_id));
        }
    }

    /// The hours of a tenant, in their order.
    pub(crate) fn hours(&self, tenant_id: &str) -> Vec<HourDigest> {
        let own = self.0.iter().filter(|((tenant, _), (events, _))| tenant == tenant_id && *events > 0);
        own.filter_map(|((_, hour), (events, hash))| {
            let at = chrono::DateTime::from_timestamp(hour * 3600, 0)?;
            Some(HourDigest { hour: time::format(at), events: *events, hash: hash.to_string() })
        })
        .collect()
    }
}

fn hour(at: Timestamp) -> i64 {
    at.timestamp().div_euclid(3600)
}

fn part(event_id: &str) -> u128 {
    let hash = Sha256::digest(event_id.to_lowercase().as_bytes());
    let (first, _) = hash.split_at(8);
    let number = first.iter().fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
    number >> (64 - 4 * DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_an_id_is_the_head_of_its_hash_as_a_number() {
        // printf %s be6ead4e-49b4-4366-a96b-edf9725f68bf | sha256sum
        assert_eq!(part("be6ead4e-49b4-4366-a96b-edf9725f68bf"), 945237642709585440);
        assert_eq!(part("BE6EAD4E-49B4-4366-A96B-EDF9725F68BF"), 945237642709585440);
    }

    #[test]
    fn an_event_that_was_taken_back_leaves_the_sums_as_they_were() {
        let at = |text| time::parse(text).expect("a time");
        let mut digest = Digest::default();
        digest.add("t", "a", at("2026-02-12T09:59:59.999Z"));
        let before = digest.hours("t");
        digest.add("t", "b", at("2026-02-12T09:00:00Z"));
        digest.add("t", "b", at("2026-02-12T10:00:00Z"));
        let hours: Vec<_> = digest.hours("t").into_iter().map(|hour| (hour.hour, hour.events)).collect();
        let hour = |text: &str, events| (text.to_owned(), events);
        assert_eq!(hours, [hour("2026-02-12T09:00:00.000Z", 2), hour("2026-02-12T10:00:00.000Z", 1)]);
        digest.remove("t", "b", at("2026-02-12T09:00:00Z"));
        digest.remove("t", "b", at("2026-02-12T10:00:00Z"));
        assert_eq!(digest.hours("t"), before);
        assert_eq!(digest.hours("other"), []);
    }
}

//! Room for clients: places for those that are not logged in, of which an address has its part, and places for those that
//! are, of which an owner has its part. So silence keeps nobody out, and one credential does not keep the others out.

use crate::door::settings::DoorSettings;
use crate::guesses::Source;
use crate::share::{Budget, Limit, Permit, Share, Spent};
use crate::store::Owner;

/// All places of a door.
#[derive(Debug)]
pub(crate) struct Room {
    handshakes: Share<Source>,
    /// What a person has set in place of an address's part.
    per_address_max: Option<usize>,
    places: Share<Owner>,
}

impl Room {
    pub(crate) fn new(settings: &DoorSettings) -> Self {
        let per_address_max = Some(settings.handshakes_per_address_max).filter(|max| *max > 0);
        let handshakes_max = DoorSettings::handshakes_max(settings.connections_max);
        Self {
            handshakes: Share::new(Budget::Handshakes, handshakes_max, per_address_max.unwrap_or(1)),
            per_address_max,
            places: Share::new(Budget::Connections, settings.connections_max, 1),
        }
    }

    /// Takes the place of a client that has just been accepted.
    pub(crate) fn come_in(&self, source: Source) -> Result<Permit<Source>, Spent> {
        let account = self.handshakes.account(&source);
        if self.per_address_max.is_some_and(|max| account.taken() >= max) {
            return Err(Spent { budget: Budget::Handshakes, limit: Limit::Share });
        }
        account.take(1)
    }

    /// Takes the place of a client that is logged in.
    pub(crate) fn take_place(&self, owner: &Owner) -> Result<Permit<Owner>, Spent> {
        match owner {
            // All clients without a credential are one owner, and at some doors there are no others.
            Owner::Anonymous => self.places.whole_account(owner).take(1),
            Owner::Device(_) | Owner::Operator(_) => self.places.take(owner, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn host(number: u8) -> Source {
        Source::of(Ipv4Addr::new(10, 0, 0, number).into())
    }

    fn room(connections_max: usize, handshakes_per_address_max: usize) -> Room {
        Room::new(&DoorSettings { connections_max, handshakes_per_address_max, ..DoorSettings::default() })
    }

    fn fill<P>(take: impl Fn() -> Result<P, Spent>) -> Vec<P> {
        std::iter::from_fn(|| take().ok()).collect()
    }

    #[test]
    fn addresses_that_say_nothing_leave_places_for_others_and_none_that_is_for_clients_who_are_in() {
        let room = room(1000, 0);
        let mut silent = Vec::new();
        for number in 0..8 {
            let places = fill(|| room.come_in(host(number)));
            assert!(!places.is_empty(), "address {number}");
            silent.push(places);
        }
        assert_eq!(silent[0].len(), 1000 / 3);
        assert!(room.come_in(host(100)).is_ok());
        assert!(room.take_place(&Owner::Operator("somebody".into())).is_ok());
    }

    #[test]
    fn one_owner_takes_a_third_of_the_places_and_leaves_some_to_others() {
        let room = room(1000, 0);
        let owner = |name: &str| Owner::Operator(name.into());
        let first = fill(|| room.take_place(&owner("first")));
        assert_eq!(first.len(), 333);
        let second = fill(|| room.take_place(&owner("second")));
        assert_eq!(second.len(), 222);
        drop(first);
        assert_eq!(fill(|| room.take_place(&owner("third"))).len(), 259);
        drop(second);
        assert_eq!(fill(|| room.take_place(&Owner::Anonymous)).len(), 1000, "nobody in particular");
    }

    #[test]
    fn a_person_may_set_what_an_address_gets() {
        let few = room(1000, 2);
        assert_eq!(fill(|| few.come_in(host(1))).len(), 2);
        let many = room(1000, 10_000);
        assert_eq!(fill(|| many.come_in(host(1))).len(), 1000);
    }
}

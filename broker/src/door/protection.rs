//! Protection against strangers: how many of one address may be on their way in, and how long a wrong credential waits
//! for its answer.
//!
//! Only refusals are slow. Whoever shows the right credential is let in at once, so that nobody can lock a device out by
//! guessing in its name or from behind its address; a guesser waits ever longer, and occupies one of the few places of
//! its address while it does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Addresses and user names whose wrong credentials are remembered; beyond that the longest quiet is forgotten.
const OFFENDERS_MAX: usize = 10_000;
/// Wrong credentials that an address has to its credit: many devices may share it, and each may err.
const ADDRESS_ERRORS_MAX: u32 = 10;
/// How long an offender must be quiet to be forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

/// Guards the way in. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Protection {
    limits: Limits,
    /// Clients that are not logged in, by address.
    waiting: Arc<Mutex<HashMap<Source, usize>>>,
    offenses: Arc<Mutex<HashMap<Offender, Offense>>>,
    /// Makes names short; nobody outside can foresee how.
    hasher: RandomState,
}

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Clients of one address that are not logged in.
    pub(crate) handshakes_per_address_max: usize,
    /// What the first wrong credential waits for its answer; each further one waits twice as long as the one before.
    pub(crate) refusal_delay: Duration,
    /// The longest wait.
    pub(crate) refusal_delay_max: Duration,
}

/// Whoever shares an address: a host, or a network of IPv6, whose hosts choose among its addresses as they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
        }
    }
}

/// Who is to blame for a wrong credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Offender {
    Address(Source),
    /// A user name, hashed: the table holds no texts of strangers.
    User(u64),
}

/// Wrong credentials in a row.
#[derive(Clone, Copy)]
struct Offense {
    count: u32,
    last_at: Instant,
}

/// A client that is not logged in; dropping it makes room for another.
pub(crate) struct Waiting {
    source: Source,
    waiting: Arc<Mutex<HashMap<Source, usize>>>,
}

impl Protection {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, waiting: Arc::default(), offenses: Arc::default(), hasher: RandomState::new() }
    }

    /// Takes a place for a client that begins its login; `None` when its address has as many as it may.
    pub(crate) fn begin(&self, address: IpAddr) -> Option<Waiting> {
        let source = Source::of(address);
        let mut waiting = lock(&self.waiting);
        let count = waiting.entry(source).or_default();
        if *count >= self.limits.handshakes_per_address_max {
            return None;
        }
        *count += 1;
        Some(Waiting { source, waiting: Arc::clone(&self.waiting) })
    }

    /// Notes a wrong credential; says how long its answer is to wait.
    pub(crate) fn wrong_credential(&self, address: IpAddr, user: Option<&str>, now: Instant) -> Duration {
        let mut offenses = lock(&self.offenses);
        let of_address = blame(&mut offenses, Offender::Address(Source::of(address)), now);
        let of_user = user.map(|name| blame(&mut offenses, Offender::User(self.hasher.hash_one(name)), now));
        self.limits.delay(of_address.saturating_sub(ADDRESS_ERRORS_MAX).max(of_user.unwrap_or_default()))
    }

    /// Forgives a user name its wrong credentials: it has shown the right one. Its address is not forgiven, for it may
    /// be that of a guesser who has one credential of his own.
    pub(crate) fn right_credential(&self, user: &str) {
        lock(&self.offenses).remove(&Offender::User(self.hasher.hash_one(user)));
    }
}

impl Limits {
    /// The wait after so many wrong credentials.
    fn delay(&self, count: u32) -> Duration {
        let doublings = count.saturating_sub(1).min(31);
        self.refusal_delay.saturating_mul(1 << doublings).min(self.refusal_delay_max)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        let Entry::Occupied(mut entry) = waiting.entry(self.source) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// Adds to the offenses of one offender; says how many there are in a row.
fn blame(offenses: &mut HashMap<Offender, Offense>, offender: Offender, now: Instant) -> u32 {
    let is_known = offenses.contains_key(&offender);
    if !is_known && offenses.len() >= OFFENDERS_MAX {
        make_room(offenses, now);
    }
    let offense = offenses.entry(offender).or_insert(Offense { count: 0, last_at: now });
    if now >= offense.last_at + FORGET_AFTER {
        offense.count = 0;
    }
    *offense = Offense { count: offense.count.saturating_add(1), last_at: now };
    offense.count
}

/// Forgets whoever is quiet for long enough, and the longest quiet in any case.
fn make_room(offenses: &mut HashMap<Offender, Offense>, now: Instant) {
    let quietest = offenses.iter().min_by_key(|(_, offense)| offense.last_at).map(|(offender, _)| *offender);
    offenses.retain(|_, offense| now < offense.last_at + FORGET_AFTER);
    if let Some(quietest) = quietest {
        offenses.remove(&quietest);
    }
}

/// Every change to a table is complete before anything can panic.
fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITS: Limits = Limits {
        handshakes_per_address_max: 2,
        refusal_delay: Duration::from_secs(1),
        refusal_delay_max: Duration::from_secs(16),
    };

    fn host(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
    }

    #[test]
    fn an_address_gets_its_places_back() {
        let protection = Protection::new(LIMITS);
        let first = protection.begin(host(1));
        let second = protection.begin(host(1));
        assert!(first.is_some() && second.is_some());
        assert!(protection.begin(host(1)).is_none());
        assert!(protection.begin(host(2)).is_some());
        drop(first);
        assert!(protection.begin(host(1)).is_some());
        drop(second);
        assert!(lock(&protection.waiting).is_empty(), "whoever left costs nothing");
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        assert_eq!(Source::of(mapped), Source::of(host(1)));
        let [one, neighbor, other] = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"]
            .map(|text| Source::of(text.parse().expect("an address")));
        assert_eq!(one, neighbor);
        assert_ne!(one, other);
    }

    #[test]
    fn each_wrong_credential_of_a_user_waits_twice_as_long_up_to_a_bound() {
        let protection = Protection::new(LIMITS);
        let now = Instant::now();
        let wait = |number, user| protection.wrong_credential(host(number), user, now).as_secs();
        assert_eq!([1, 1, 1, 2, 2, 2, 3].map(|number| wait(number, Some("d"))), [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(wait(1, Some("e")), 1, "another user of the same address");
        protection.right_credential("d");
        assert_eq!(wait(1, Some("d")), 1);
        let later = now + FORGET_AFTER;
        wait(1, Some("d"));
        assert_eq!(
            protection.wrong_credential(host(1), Some("d"), later).as_secs(),
            1,
            "it was quiet for long"
        );
    }

    #[test]
    fn an_address_that_errs_often_waits_whatever_the_user_name() {
        let protection = Protection::new(LIMITS);
        let now = Instant::now();
        let wait = |user: &str| protection.wrong_credential(host(1), Some(user), now).as_secs();
        assert!((0..ADDRESS_ERRORS_MAX).all(|number| wait(&number.to_string()) == 1));
        assert_eq!(["a", "b", "c", "d", "e", "f"].map(wait), [1, 2, 4, 8, 16, 16]);
        protection.right_credential("a");
        assert_eq!(wait("a"), 16, "one right credential does not pay for guesses");
        assert_eq!(protection.wrong_credential(host(2), Some("g"), now).as_secs(), 1);
    }

    #[test]
    fn many_offenders_cost_bounded_memory_and_the_quietest_goes() {
        let protection = Protection::new(LIMITS);
        let start = Instant::now();
        let at = |number: u32| start + Duration::from_millis(u64::from(number));
        let offenders = u32::try_from(OFFENDERS_MAX).expect("a small number");
        for number in 0..offenders {
            protection.wrong_credential(host(number), None, at(number));
        }
        protection.wrong_credential(host(0), None, at(offenders));
        for number in offenders..offenders + 10 {
            protection.wrong_credential(host(number), None, at(number));
        }
        let known =
            |number| lock(&protection.offenses).contains_key(&Offender::Address(Source::of(host(number))));
        assert_eq!(lock(&protection.offenses).len(), OFFENDERS_MAX);
        assert!(known(0), "it was not quiet");
        assert!(!known(1), "it was quiet for longest");
        let later = at(offenders + 10) + FORGET_AFTER;
        protection.wrong_credential(host(offenders + 20), None, later);
        assert_eq!(lock(&protection.offenses).len(), 1);
    }
}

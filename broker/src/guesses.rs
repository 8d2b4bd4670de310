//! Wrong credentials, and how long their answers wait, whichever port they come by.
//!
//! Only refusals are slow. Whoever shows the right credential is let in at once, so that nobody can lock a device out by
//! guessing in its name or from behind its address; a guesser waits ever longer, and occupies one of the few places of
//! its address while it does.

use std::collections::HashMap;
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

/// Whoever shares an address: a host, or a network of IPv6, whose hosts choose among its addresses as they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
        }
    }
}

/// How slow refusals are.
#[derive(Clone, Copy, Debug)]
pub struct GuessLimits {
    /// What the first wrong credential waits for its answer; each further one waits twice as long as the one before.
    pub delay: Duration,
    /// The longest wait.
    pub delay_max: Duration,
}

impl Default for GuessLimits {
    fn default() -> Self {
        Self { delay: Duration::from_secs(1), delay_max: Duration::from_secs(16) }
    }
}

/// Remembers who showed wrong credentials. Cloning shares the memory: what was guessed at one port counts at the other.
#[derive(Clone, Default)]
pub struct Guesses {
    limits: GuessLimits,
    offenses: Arc<Mutex<HashMap<Offender, Offense>>>,
    /// Makes names short; nobody outside can foresee how.
    hasher: RandomState,
}

/// Who is to blame for a wrong credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Offender {
    Address(Source),
    /// A user name, hashed: the table holds no texts of strangers.
    User(u64),
    /// A user name as it is used from one address: whoever else has the name, or the address, is not suspected.
    UserAt(Source, u64),
}

/// Wrong credentials in a row.
#[derive(Clone, Copy)]
struct Offense {
    count: u32,
    last_at: Instant,
}

impl Guesses {
    /// Nobody has erred yet.
    #[must_use]
    pub fn new(limits: GuessLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A short form of a user name, the same for all who share this memory.
    #[must_use]
    pub fn user(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Whether credentials of this user name that came from this address turned out wrong, or were never judged.
    #[must_use]
    pub fn is_suspect(&self, source: Source, user: &str) -> bool {
        lock(&self.offenses).contains_key(&Offender::UserAt(source, self.user(user)))
    }

    /// Notes a credential that is about to be checked. It counts as a guess unless it turns out to be right, so that
    /// nobody guesses for nothing by leaving before the answer.
    pub fn attempt(&self, source: Source, user: &str, now: Instant) {
        blame(&mut lock(&self.offenses), Offender::UserAt(source, self.user(user)), now);
    }

    /// Notes a wrong credential; says how long its answer is to wait.
    pub fn wrong_credential(&self, source: Source, user: Option<&str>, now: Instant) -> Duration {
        let mut offenses = lock(&self.offenses);
        let of_address = blame(&mut offenses, Offender::Address(source), now);
        let of_user = user.map(|name| blame(&mut offenses, Offender::User(self.user(name)), now));
        self.limits.delay(of_address.saturating_sub(ADDRESS_ERRORS_MAX).max(of_user.unwrap_or_default()))
    }

    /// Forgives a user name its wrong credentials: it has shown the right one. Its address is not forgiven, for it may
    /// be that of a guesser who has one credential of his own.
    pub fn right_credential(&self, source: Source, user: &str) {
        let user = self.user(user);
        let mut offenses = lock(&self.offenses);
        offenses.remove(&Offender::User(user));
        offenses.remove(&Offender::UserAt(source, user));
    }

    /// How long a refusal of this address would wait now that has nothing to do with its credential; not at all while
    /// the address has errors to its credit.
    #[must_use]
    pub fn wait_of(&self, source: Source, now: Instant) -> Duration {
        let offense = lock(&self.offenses).get(&Offender::Address(source)).copied();
        let recent = offense.filter(|offense| now < offense.last_at + FORGET_AFTER);
        match recent.map_or(0, |offense| offense.count.saturating_sub(ADDRESS_ERRORS_MAX)) {
            0 => Duration::ZERO,
            count => self.limits.delay(count),
        }
    }
}

impl GuessLimits {
    /// The wait after so many wrong credentials.
    fn delay(&self, count: u32) -> Duration {
        let doublings = count.saturating_sub(1).min(31);
        self.delay.saturating_mul(1 << doublings).min(self.delay_max)
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

/// Every change to the table is complete before anything can panic.
fn lock(table: &Mutex<HashMap<Offender, Offense>>) -> MutexGuard<'_, HashMap<Offender, Offense>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITS: GuessLimits =
        GuessLimits { delay: Duration::from_secs(1), delay_max: Duration::from_secs(16) };

    fn host(number: u32) -> Source {
        Source::of(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)))
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let of = |text: &str| Source::of(text.parse().expect("an address"));
        assert_eq!(of("::ffff:10.0.0.1"), host(1));
        let [one, neighbor, other] = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"].map(of);
        assert_eq!(one, neighbor);
        assert_ne!(one, other);
    }

    #[test]
    fn each_wrong_credential_of_a_user_waits_twice_as_long_up_to_a_bound() {
        let guesses = Guesses::new(LIMITS);
        let now = Instant::now();
        let wait = |number, user| guesses.wrong_credential(host(number), user, now).as_secs();
        assert_eq!([1, 1, 1, 2, 2, 2, 3].map(|number| wait(number, Some("d"))), [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(wait(1, Some("e")), 1, "another user of the same address");
        guesses.right_credential(host(1), "d");
        assert_eq!(wait(1, Some("d")), 1);
        let later = now + FORGET_AFTER;
        wait(1, Some("d"));
        let quiet_for_long = guesses.wrong_credential(host(1), Some("d"), later);
        assert_eq!(quiet_for_long.as_secs(), 1);
    }

    #[test]
    fn an_address_that_errs_often_waits_whatever_the_user_name() {
        let guesses = Guesses::new(LIMITS);
        let now = Instant::now();
        let wait = |user: &str| guesses.wrong_credential(host(1), Some(user), now).as_secs();
        assert!((0..ADDRESS_ERRORS_MAX).all(|number| wait(&number.to_string()) == 1));
        assert_eq!(guesses.wait_of(host(1), now), Duration::ZERO, "it has no errors to its credit left");
        assert_eq!(["a", "b", "c", "d", "e", "f"].map(wait), [1, 2, 4, 8, 16, 16]);
        assert_eq!(guesses.wait_of(host(1), now), LIMITS.delay_max);
        guesses.right_credential(host(1), "a");
        assert_eq!(wait("a"), 16, "one right credential does not pay for guesses");
        assert_eq!(guesses.wrong_credential(host(2), Some("g"), now).as_secs(), 1);
        assert_eq!(guesses.wait_of(host(1), now + FORGET_AFTER), Duration::ZERO);
    }

    #[test]
    fn a_credential_under_way_is_suspect_until_it_turns_out_right() {
        let guesses = Guesses::new(LIMITS);
        guesses.attempt(host(1), "d", Instant::now());
        assert!(guesses.is_suspect(host(1), "d"));
        assert!(!guesses.is_suspect(host(1), "e"), "another name at the same address");
        assert!(!guesses.is_suspect(host(2), "d"), "the same name elsewhere");
        guesses.right_credential(host(1), "d");
        assert!(!guesses.is_suspect(host(1), "d"));
    }

    #[test]
    fn many_offenders_cost_bounded_memory_and_the_quietest_goes() {
        let guesses = Guesses::new(LIMITS);
        let start = Instant::now();
        let at = |number: u32| start + Duration::from_millis(u64::from(number));
        let offenders = u32::try_from(OFFENDERS_MAX).expect("a small number");
        for number in 0..offenders {
            guesses.wrong_credential(host(number), None, at(number));
        }
        guesses.wrong_credential(host(0), None, at(offenders));
        for number in offenders..offenders + 10 {
            guesses.wrong_credential(host(number), None, at(number));
        }
        let known = |number| lock(&guesses.offenses).contains_key(&Offender::Address(host(number)));
        assert_eq!(lock(&guesses.offenses).len(), OFFENDERS_MAX);
        assert!(known(0), "it was not quiet");
        assert!(!known(1), "it was quiet for longest");
        let later = at(offenders + 10) + FORGET_AFTER;
        guesses.wrong_credential(host(offenders + 20), None, later);
        assert_eq!(lock(&guesses.offenses).len(), 1);
    }
}

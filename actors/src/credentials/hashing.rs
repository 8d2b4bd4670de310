//! Turns at hashing: so many hashes at once, and everybody else in a queue in which nobody is locked out by the number
//! of others.
//!
//! Addresses take turns, and so do the user names of an address: whoever logs in once waits for about one hash of each
//! address that guesses, however often it does. Logins over HTTP, and user names that have shown wrong passwords from the
//! same address before, leave one of the places to the others.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use argon2::password_hash::{Output, Salt};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, PasswordHasher, Version};
use broker::guesses::Source;
use rustix::process::setpriority_process;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Hashes computed at once: each takes a core, and the memory of its hash.
pub const HASHING_MAX: usize = 2;
/// Memory and passes of the hashes that are made here: of the settings that OWASP holds for equally strong (Password
/// Storage Cheat Sheet, argon2id), one that takes little memory, since a barn's box has little. Hashes of other settings
/// are checked by their own.
const MEMORY_KIB: u32 = 9 * 1024;
const PASSES: u32 = 4;
/// The nice value of a thread that hashes: while the cores are busy with commits, it gets a quarter of what they get.
const NICENESS: i32 = 5;
/// Bytes of the longest salt of a hash.
const SALT_BYTES_MAX: usize = 64;
/// Logins over HTTP that wait for their turn; one more is told to come again.
const HTTP_WAITING_MAX: usize = 128;
/// The share of the waiting places over HTTP that are free which one address may have: one in so many.
const SHARE_DIVISOR: usize = 3;

/// The port by which a login comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// MQTT.
    Mqtt,
    /// HTTP.
    Http,
}

/// Whoever wants a password checked.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Where it comes from.
    pub source: Source,
    /// By which port.
    pub port: Port,
    /// Nobody waits for the answer after that.
    pub deadline: Instant,
}

/// There is no turn in time: too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many logins wait for their turn")]
pub struct Busy;

/// The queue. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Hashing(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    hasher: RandomState,
}

/// The memory of one hash. It is handed on while somebody waits: the allocator gives memory of that size back to the system
/// later than the next hash needs it.
type Memory = Vec<Block>;

/// A turn at hashing. It lasts until it is dropped, so it goes along with the work.
pub(super) struct Turn {
    hashing: Hashing,
    lane: Lane,
    memory: Memory,
}

/// Whether a password is the one of a hash. The work has a thread of its own, since a thread that was made nice stays so;
/// whoever asked may have gone, so the turn ends with the work and not before.
pub(super) async fn verify(turn: Turn, hash: String, password: Vec<u8>) -> bool {
    let (tell, told) = oneshot::channel();
    let work = move || {
        let mut turn = turn;
        // Without this right it hashes like everybody else.
        let _ = setpriority_process(None, NICENESS);
        let is_match = is_of(&hash, &password, &mut turn.memory).unwrap_or(false);
        let _ = tell.send(is_match);
    };
    // A system that has no thread left drops the work, and with it the turn.
    drop(thread::Builder::new().name("hashing".to_owned()).spawn(work));
    told.await.unwrap_or(false)
}

/// Whether a password is the one of a hash; `None` when nothing can be the password of this text.
fn is_of(hash: &str, password: &[u8], memory: &mut Memory) -> Option<bool> {
    let hash = PasswordHash::new(hash).ok()?;
    let (salt, expected) = (hash.salt?, hash.hash?);
    let algorithm = Algorithm::try_from(hash.algorithm).ok()?;
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let mut salt_bytes = [0; SALT_BYTES_MAX];
    let salt = salt.decode_b64(&mut salt_bytes).ok()?;
    memory.resize(params.block_count(), Block::default());
    let mut bytes = [0; Output::MAX_LENGTH];
    let bytes = bytes.get_mut(..expected.len())?;
    let argon2 = Argon2::new(algorithm, version, params);
    argon2.hash_password_into_with_memory(password, salt, bytes, memory.as_mut_slice()).ok()?;
    // Outputs are compared in constant time.
    Some(Output::new(bytes).ok()? == expected)
}

/// The hash of a password, as it is stored.
///
/// # Panics
/// When the salt is no salt: shorter than eight bytes, or longer than 64.
#[must_use]
pub fn hash<'a>(password: &[u8], salt: impl Into<Salt<'a>>) -> String {
    let params = Params::new(MEMORY_KIB, PASSES, Params::DEFAULT_P_COST, None).expect("within the limits");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(password, salt).expect("a password and a salt of usual lengths").to_string()
}

/// Who waits side by side. Each lane gets its share of the turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Over MQTT.
    Mqtt,
    /// Over HTTP.
    Http,
    /// Whoever has shown a wrong password before, over either.
    Suspect,
}

impl Lane {
    const ALL: [Self; 3] = [Self::Mqtt, Self::Http, Self::Suspect];

    /// Whether it leaves the last turn to others.
    fn is_modest(self) -> bool {
        match self {
            Self::Mqtt => false,
            Self::Http | Self::Suspect => true,
        }
    }
}

impl Hashing {
    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Busy`] when too many wait, or there is none before the deadline.
    pub(super) async fn turn(&self, asker: Asker, username: &str, is_suspect: bool) -> Result<Turn, Busy> {
        let mut waiting = self.queue_up(asker, username, is_suspect)?;
        self.pass_on();
        let turn = timeout_at(asker.deadline, &mut waiting.turn).await;
        // Whoever gets a turn too late has nobody who waits for its answer.
        let is_in_time = Instant::now() < asker.deadline;
        turn.ok().and_then(Result::ok).filter(|_| is_in_time).ok_or(Busy)
    }

    fn queue_up(&self, asker: Asker, username: &str, is_suspect: bool) -> Result<Waiting, Busy> {
        let lane = match (is_suspect, asker.port) {
            (true, _) => Lane::Suspect,
            (false, Port::Mqtt) => Lane::Mqtt,
            (false, Port::Http) => Lane::Http,
        };
        let (grant, turn) = oneshot::channel();
        let mut queue = self.lock();
        if asker.port == Port::Http {
            queue.http.take(asker.source)?;
        }
        let place = Place { lane, asker, user: self.0.hasher.hash_one(username), number: queue.next_number };
        queue.next_number += 1;
        queue.lanes[lane as usize].push(&place, grant);
        Ok(Waiting { hashing: self.clone(), place, turn })
    }

    /// Gives turns to whoever is next, as long as there are any.
    fn pass_on(&self) {
        loop {
            // The lock is not held while a turn goes over, which may come back at once.
            let next = self.lock().begin_next();
            let Some((lane, grant, memory)) = next else { return };
            drop(grant.send(Turn { hashing: self.clone(), lane, memory }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change is complete before anything can panic.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.hashing.lock().end(self.lane, std::mem::take(&mut self.memory));
        self.hashing.pass_on();
    }
}

/// Where somebody stands.
struct Place {
    lane: Lane,
    asker: Asker,
    /// The user name, made short.
    user: u64,
    number: u64,
}

/// Somebody who waits for a turn, and leaves the queue when this is dropped.
struct Waiting {
    hashing: Hashing,
    place: Place,
    turn: oneshot::Receiver<Turn>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut queue = self.hashing.lock();
        queue.lanes[self.place.lane as usize].remove(&self.place);
        if self.place.asker.port == Port::Http {
            queue.http.give_back(self.place.asker.source);
        }
    }
}

type Grant = oneshot::Sender<Turn>;

#[derive(Default)]
struct Queue {
    lanes: [Ring; Lane::ALL.len()],
    /// Which lane is asked first: the one after that which was served last.
    first: usize,
    at_work: usize,
    /// Of these, from lanes that leave the last turn to others.
    modest_at_work: usize,
    /// What the next turns hash in.
    memory: Vec<Memory>,
    http: HttpPlaces,
    next_number: u64,
}

impl Queue {
    /// Takes whoever is next out of the queue, if there is a turn for it.
    fn begin_next(&mut self) -> Option<(Lane, Grant, Memory)> {
        if self.at_work >= HASHING_MAX {
            return None;
        }
        for position in self.first..self.first + Lane::ALL.len() {
            let lane = Lane::ALL[position % Lane::ALL.len()];
            if lane.is_modest() && self.modest_at_work + 1 >= HASHING_MAX {
                continue;
            }
            if let Some(grant) = self.lanes[lane as usize].pop() {
                self.first = position + 1;
                self.at_work += 1;
                self.modest_at_work += usize::from(lane.is_modest());
                return Some((lane, grant, self.memory.pop().unwrap_or_default()));
            }
        }
        None
    }

    fn end(&mut self, lane: Lane, memory: Memory) {
        self.at_work -= 1;
        self.modest_at_work -= usize::from(lane.is_modest());
        if self.lanes.iter().any(|lane| !lane.0.is_empty()) {
            self.memory.push(memory);
        } else if self.at_work == 0 {
            self.memory.clear();
        }
    }
}

/// Those who wait with one user name, in order of arrival, each by its number.
type Line = VecDeque<(u64, Grant)>;
/// The user names of an address, in turn.
type Users = VecDeque<(u64, Line)>;

/// Whoever waits in one lane: addresses in turn, of each its user names in turn, of each in order of arrival.
#[derive(Default)]
struct Ring(VecDeque<(Source, Users)>);

impl Ring {
    fn push(&mut self, place: &Place, grant: Grant) {
        let users = entry(&mut self.0, place.asker.source);
        entry(users, place.user).push_back((place.number, grant));
    }

    fn pop(&mut self) -> Option<Grant> {
        let (source, mut users) = self.0.pop_front()?;
        let (user, mut waiting) = users.pop_front().expect("an address without a user name is taken out");
        let (_, grant) = waiting.pop_front().expect("a user name nobody waits with is taken out");
        if !waiting.is_empty() {
            users.push_back((user, waiting));
        }
        if !users.is_empty() {
            self.0.push_back((source, users));
        }
        Some(grant)
    }

    fn remove(&mut self, place: &Place) {
        let Some((_, users)) = self.0.iter_mut().find(|(source, _)| *source == place.asker.source) else {
            return;
        };
        if let Some((_, waiting)) = users.iter_mut().find(|(user, _)| *user == place.user) {
            waiting.retain(|(number, _)| *number != place.number);
        }
        users.retain(|(_, waiting)| !waiting.is_empty());
        self.0.retain(|(_, users)| !users.is_empty());
    }
}

/// The entry of a key; a new one comes last.
fn entry<K: PartialEq, V: Default>(ring: &mut VecDeque<(K, V)>, key: K) -> &mut V {
    let position = ring.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        ring.push_back((key, V::default()));
        ring.len() - 1
    });
    &mut ring[position].1
}

/// Logins over HTTP that wait, by address.
#[derive(Default)]
struct HttpPlaces {
    all: usize,
    of: HashMap<Source, usize>,
}

impl HttpPlaces {
    /// Takes a place, of which an address may have its share of what the others leave.
    fn take(&mut self, source: Source) -> Result<(), Busy> {
        let own = self.of.get(&source).copied().unwrap_or_default();
        let left_by_others = HTTP_WAITING_MAX - (self.all - own);
        if self.all >= HTTP_WAITING_MAX || (own > 0 && own >= left_by_others / SHARE_DIVISOR) {
            return Err(Busy);
        }
        self.all += 1;
        *self.of.entry(source).or_default() += 1;
        Ok(())
    }

    fn give_back(&mut self, source: Source) {
        let Some(own) = self.of.get_mut(&source) else { return };
        *own -= 1;
        self.all -= 1;
        if *own == 0 {
            self.of.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::Ipv4Addr;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    fn host(number: u8) -> Source {
        Source::of(Ipv4Addr::new(10, 0, 0, number).into())
    }

    fn asker(host_number: u8, port: Port) -> Asker {
        Asker { source: host(host_number), port, deadline: Instant::now() + Duration::from_secs(3600) }
    }

    type Ask<'a> = Pin<Box<dyn Future<Output = Result<Turn, Busy>> + 'a>>;

    fn ask<'a>(hashing: &'a Hashing, host: u8, user: &'a str, port: Port, is_suspect: bool) -> Ask<'a> {
        let mut asking: Ask<'a> = Box::pin(hashing.turn(asker(host, port), user, is_suspect));
        // It queues up when it is first polled.
        if let Some(outcome) = poll(&mut asking) {
            return Box::pin(std::future::ready(outcome));
        }
        asking
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// Which of those who wait gets its turn first, and which next, until nobody waits.
    fn order(mut at_work: Vec<Turn>, mut asking: Vec<(&'static str, Ask<'_>)>) -> Vec<&'static str> {
        let mut order = Vec::new();
        while !asking.is_empty() {
            drop(at_work.pop());
            asking.retain_mut(|(name, ask)| match poll(ask) {
                Some(turn) => {
                    at_work.push(turn.expect("a turn"));
                    order.push(*name);
                    false
                }
                None => true,
            });
        }
        order
    }

    fn begin(hashing: &Hashing, port: Port) -> Turn {
        poll(&mut ask(hashing, 99, "at work", port, false)).expect("a turn").expect("a turn")
    }

    #[tokio::test]
    async fn addresses_take_turns_and_so_do_the_user_names_of_an_address() {
        let hashing = Hashing::default();
        let at_work = vec![begin(&hashing, Port::Mqtt), begin(&hashing, Port::Mqtt)];
        let mut asking = Vec::new();
        for (name, host, user) in [
            ("guess", 1, "a"),
            ("guess", 1, "a"),
            ("guess", 1, "a"),
            ("neighbor of the guesser", 1, "b"),
            ("guess", 1, "a"),
            ("elsewhere", 2, "a"),
        ] {
            asking.push((name, ask(&hashing, host, user, Port::Mqtt, false)));
        }
        assert_eq!(
            order(at_work, asking),
            ["guess", "elsewhere", "neighbor of the guesser", "guess", "guess", "guess"]
        );
    }

    #[tokio::test]
    async fn http_and_suspects_leave_the_last_turn_to_mqtt() {
        let hashing = Hashing::default();
        let _first = begin(&hashing, Port::Http);
        let mut http = ask(&hashing, 1, "a", Port::Http, false);
        let mut suspect = ask(&hashing, 2, "b", Port::Mqtt, true);
        assert!(poll(&mut http).is_none());
        assert!(poll(&mut suspect).is_none());
        let _second = begin(&hashing, Port::Mqtt);
        assert!(poll(&mut ask(&hashing, 3, "c", Port::Mqtt, false)).is_none(), "there are no more than two");
    }

    #[tokio::test]
    async fn suspects_wait_beside_the_others_and_get_their_share() {
        let hashing = Hashing::default();
        let at_work = vec![begin(&hashing, Port::Mqtt), begin(&hashing, Port::Mqtt)];
        let mut asking = Vec::new();
        for _ in 0..3 {
            asking.push(("suspect", ask(&hashing, 1, "a", Port::Mqtt, true)));
        }
        asking.push(("device", ask(&hashing, 1, "b", Port::Mqtt, false)));
        asking.push(("token", ask(&hashing, 1, "b", Port::Http, false)));
        let order = order(at_work, asking);
        assert!(order[..3].contains(&"device") && order[..3].contains(&"token"), "{order:?}");
        assert_eq!(order.len(), 5);
    }

    #[tokio::test]
    async fn whoever_leaves_the_queue_gets_no_turn_and_leaves_its_place_to_others() {
        let hashing = Hashing::default();
        let at_work = vec![begin(&hashing, Port::Mqtt), begin(&hashing, Port::Mqtt)];
        let gone = ask(&hashing, 1, "a", Port::Http, false);
        let stays = ask(&hashing, 2, "b", Port::Mqtt, false);
        drop(gone);
        assert_eq!(order(at_work, vec![("stays", stays)]), ["stays"]);
        let queue = hashing.lock();
        assert_eq!((queue.at_work, queue.http.all, queue.http.of.len()), (0, 0, 0));
        assert!(queue.lanes.iter().all(|lane| lane.0.is_empty()));
    }

    #[tokio::test]
    async fn a_turn_ends_with_the_work_and_the_work_is_nicer_than_the_rest() {
        use argon2::PasswordHasher;
        use argon2::password_hash::SaltString;

        let salt = SaltString::encode_b64(b"a salt of some length").expect("a salt");
        let hash = Argon2::default().hash_password(b"right", &salt).expect("a hash").to_string();
        let own = rustix::process::getpriority_process(None).expect("a priority");
        let hashing = Hashing::default();
        for (password, expected) in [(&b"right"[..], true), (b"wrong", false)] {
            let turn = begin(&hashing, Port::Mqtt);
            assert_eq!(verify(turn, hash.clone(), password.to_vec()).await, expected);
        }
        assert_eq!(rustix::process::getpriority_process(None).ok(), Some(own), "this thread is as it was");
        while hashing.lock().at_work > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_turn_that_comes_too_late_is_none() {
        let hashing = Hashing::default();
        let late = Asker { deadline: Instant::now(), ..asker(1, Port::Mqtt) };
        assert!(hashing.turn(late, "a", false).await.is_err());
        assert_eq!(hashing.lock().at_work, 0);
    }

    #[tokio::test]
    async fn an_address_has_a_share_of_the_places_over_http_and_not_all() {
        let hashing = Hashing::default();
        let _at_work = [begin(&hashing, Port::Mqtt), begin(&hashing, Port::Mqtt)];
        let mut waiting = Vec::new();
        let mut wait_from = |host: u8| {
            let before = waiting.len();
            loop {
                let mut asking = ask(&hashing, host, "a", Port::Http, false);
                if let Some(refused) = poll(&mut asking) {
                    assert!(refused.is_err());
                    return waiting.len() - before;
                }
                waiting.push(asking);
            }
        };
        let first = wait_from(1);
        assert_eq!(first, HTTP_WAITING_MAX / SHARE_DIVISOR);
        assert!(wait_from(2) < first, "of what the first has left");
        assert!((3..13).all(|host| wait_from(host) > 0), "there is always some left for one more");
    }
}

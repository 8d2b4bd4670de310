//! The credit: how many messages and bytes may be in the engine's hands at once, of all connections and of one owner.
//!
//! Whoever finds no credit waits in a queue. It is not a strict one: an owner that has its part waits for itself alone, and
//! small messages pass a large one for which there is no room yet. They do so for a while only, or it would wait for ever.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::share::{Budget, Limit, Permit, Share, Spent};
use crate::stats::DoorStats;
use crate::store::Owner;

/// Bytes a message costs beside its own: the places it is kept in on its way to the commit.
const OVERHEAD_BYTES: usize = 512;
/// The longest fixed header of a packet.
const FRAME_HEADER_BYTES_MAX: usize = 5;
/// Messages that may pass one which waits until all owners together leave room for it.
const PASSED_MAX: usize = 1000;

/// What one message takes from the credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    messages: usize,
    bytes: usize,
}

impl Cost {
    /// A published message of this many bytes on the wire.
    pub(crate) fn of_message(frame_bytes: usize) -> Self {
        Self { messages: 1, bytes: frame_bytes + OVERHEAD_BYTES }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }
}

/// The credit of all connections together. When it is spent no socket is read.
pub(crate) struct Credits {
    messages: Share<Owner>,
    bytes: Share<Owner>,
    stats: Arc<DoorStats>,
    queue: Mutex<Queue>,
    /// Somebody waits: one load, so that giving back costs nothing in ordinary times.
    is_waited_for: AtomicBool,
    /// Messages that passed the one which waits longest for what all owners leave.
    passed: AtomicUsize,
}

/// What one connection has of the credit of its owner.
#[derive(Debug)]
pub(crate) struct Purse {
    credits: Arc<Credits>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    messages: Permit<Owner>,
    bytes: Permit<Owner>,
}

#[derive(Debug, Default)]
struct Queue {
    next_number: u64,
    waiting: VecDeque<Waiter>,
    /// Which of those who wait has waited longest for what all owners leave.
    blocked: Option<u64>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    purse: Arc<Purse>,
    cost: Cost,
    tell: oneshot::Sender<Granted>,
}

/// Credit that was taken for somebody who waits, and is given back if nobody waits any more.
#[derive(Debug)]
struct Granted {
    purse: Arc<Purse>,
    cost: Cost,
}

/// Somebody who waits, and leaves the queue when this is dropped.
struct Waiting {
    credits: Arc<Credits>,
    number: u64,
    granted: oneshot::Receiver<Granted>,
}

impl Credits {
    /// A credit of so many messages and bytes, of which no owner takes more than its part. The bytes hold at least one
    /// message of the largest size, which every owner may have in hand.
    pub(crate) fn shared(
        messages_max: usize,
        bytes_max: usize,
        message_bytes_max: usize,
        stats: Arc<DoorStats>,
    ) -> Arc<Self> {
        let largest = Cost::of_message(message_bytes_max + FRAME_HEADER_BYTES_MAX);
        Self::new(messages_max.max(1), bytes_max.max(largest.bytes), largest, stats)
    }

    /// A credit that its owners do not share.
    fn whole(
        messages_max: usize,
        bytes_max: usize,
        message_bytes_max: usize,
        stats: Arc<DoorStats>,
    ) -> Arc<Self> {
        let largest = Cost::of_message(message_bytes_max + FRAME_HEADER_BYTES_MAX);
        let (messages_max, bytes_max) = (messages_max.max(1), bytes_max.max(largest.bytes));
        Self::new(messages_max, bytes_max, Cost { messages: messages_max, bytes: bytes_max }, stats)
    }

    fn new(messages_max: usize, bytes_max: usize, floor: Cost, stats: Arc<DoorStats>) -> Arc<Self> {
        Arc::new(Self {
            messages: Share::new(Budget::CreditMessages, messages_max, floor.messages),
            bytes: Share::new(Budget::CreditBytes, bytes_max, floor.bytes),
            stats,
            queue: Mutex::default(),
            is_waited_for: AtomicBool::new(false),
            passed: AtomicUsize::new(0),
        })
    }

    /// The purse of a connection of an owner.
    pub(crate) fn purse(self: &Arc<Self>, owner: &Owner) -> Arc<Purse> {
        let (messages, bytes) = match owner {
            // All clients without a credential are one owner, and at some doors there are no others.
            Owner::Anonymous => (self.messages.whole_account(owner), self.bytes.whole_account(owner)),
            Owner::Device(_) | Owner::Operator(_) => {
                (self.messages.account(owner), self.bytes.account(owner))
            }
        };
        let held = Held { messages: messages.take_anyway(0), bytes: bytes.take_anyway(0) };
        Arc::new(Purse { credits: Arc::clone(self), held: held.into() })
    }

    /// The messages and bytes that are free.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn free(&self) -> (usize, usize) {
        (self.messages.free(), self.bytes.free())
    }

    /// Whether the message that waits longest was passed often enough.
    fn is_closed(&self) -> bool {
        self.passed.load(Ordering::Relaxed) >= PASSED_MAX
    }

    /// Grants those who wait what has become free.
    fn pass_on(&self) {
        // Whoever begins to wait says so before it looks at what is free, and this looks after it gave back.
        fence(Ordering::SeqCst);
        if !self.is_waited_for.load(Ordering::Relaxed) {
            return;
        }
        let gone = self.grant(&mut self.lock());
        // Outside of the lock: dropping a grant gives it back, and comes here again.
        drop(gone);
    }

    /// Says what was granted to those who are gone.
    fn grant(&self, queue: &mut Queue) -> Vec<Granted> {
        let mut gone = Vec::new();
        let mut index = 0;
        let mut blocked = None;
        while let Some(waiter) = queue.waiting.get(index) {
            let taken = waiter.purse.lock().take(waiter.cost);
            match taken {
                Ok(()) => {
                    let Some(Waiter { purse, cost, tell, .. }) = queue.waiting.remove(index) else { break };
                    gone.extend(tell.send(Granted { purse, cost }).err());
                    if blocked.is_some() {
                        self.passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(Spent { limit: Limit::Share, .. }) => index += 1,
                Err(Spent { limit: Limit::Total, .. }) => {
                    let number = waiter.number;
                    if blocked.is_none() {
                        blocked = Some(number);
                        if queue.blocked != blocked {
                            self.passed.store(0, Ordering::Relaxed);
                        }
                    }
                    if self.is_closed() {
                        break;
                    }
                    index += 1;
                }
            }
        }
        queue.blocked = blocked;
        if blocked.is_none() {
            self.passed.store(0, Ordering::Relaxed);
        }
        self.is_waited_for.store(!queue.waiting.is_empty(), Ordering::Relaxed);
        gone
    }

    /// Every change to the queue is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Purse {
    /// A purse with a credit of its own; its bytes hold at least one message of the largest size.
    pub(crate) fn alone(
        messages_max: usize,
        bytes_max: usize,
        message_bytes_max: usize,
        stats: Arc<DoorStats>,
    ) -> Arc<Self> {
        Credits::whole(messages_max, bytes_max, message_bytes_max, stats).purse(&Owner::Anonymous)
    }

    /// Takes the cost if all of it is free now.
    pub(crate) fn try_take(&self, cost: Cost) -> bool {
        if self.credits.is_closed() || self.lock().take(cost).is_err() {
            return false;
        }
        if self.credits.is_waited_for.load(Ordering::Relaxed) {
            self.credits.passed.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Waits until the cost is free and takes it; dropping the future takes nothing.
    pub(crate) async fn take(self: &Arc<Self>, cost: Cost) {
        let mut waiting = self.queue_up(cost);
        self.credits.pass_on();
        let granted = (&mut waiting.granted).await.expect("whoever is in the queue is told");
        granted.keep();
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&self, cost: Cost) {
        if cost == Cost::default() {
            return;
        }
        self.lock().give_back(cost);
        self.credits.pass_on();
    }

    fn queue_up(self: &Arc<Self>, cost: Cost) -> Waiting {
        let spent = self.lock().take(cost);
        match spent {
            // It came free since it was last asked for.
            Ok(()) => self.lock().give_back(cost),
            Err(spent) => self.credits.stats.count_spent(spent),
        }
        let (tell, granted) = oneshot::channel();
        let mut queue = self.credits.lock();
        let number = queue.next_number;
        queue.next_number += 1;
        queue.waiting.push_back(Waiter { number, purse: Arc::clone(self), cost, tell });
        self.credits.is_waited_for.store(true, Ordering::Relaxed);
        Waiting { credits: Arc::clone(&self.credits), number, granted }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Purse {
    /// A connection that ended by a bug gives back what it had.
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        let left = Cost { messages: held.messages.amount(), bytes: held.bytes.amount() };
        if left != Cost::default() {
            held.give_back(left);
            self.credits.pass_on();
        }
    }
}

impl fmt::Debug for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, bytes, .. } = self;
        f.debug_struct("Credits").field("messages", messages).field("bytes", bytes).finish_non_exhaustive()
    }
}

impl Held {
    fn take(&mut self, cost: Cost) -> Result<(), Spent> {
        self.messages.grow(cost.messages)?;
        self.bytes.grow(cost.bytes).inspect_err(|_| self.messages.shrink(cost.messages))
    }

    fn give_back(&mut self, cost: Cost) {
        self.messages.shrink(cost.messages);
        self.bytes.shrink(cost.bytes);
    }
}

impl Granted {
    /// Whoever calls this gives the credit back.
    fn keep(mut self) {
        self.cost = Cost::default();
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.purse.give_back(self.cost);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut queue = self.credits.lock();
        let position = queue.waiting.iter().position(|waiter| waiter.number == self.number);
        let left = position.and_then(|position| queue.waiting.remove(position));
        drop(queue);
        if left.is_some() {
            // Others may have waited behind it.
            self.credits.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn operator(name: &str) -> Owner {
        Owner::Operator(name.into())
    }

    fn credits(messages_max: usize, bytes_max: usize) -> Arc<Credits> {
        Credits::shared(messages_max, bytes_max, 1024, Arc::default())
    }

    type Taking<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

    fn is_granted(taking: &mut Taking<'_>) -> bool {
        match pin!(taking).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => true,
            Poll::Pending => false,
        }
    }

    fn taking(purse: &Arc<Purse>, cost: Cost) -> Taking<'_> {
        let mut taking: Taking<'_> = Box::pin(purse.take(cost));
        assert!(!is_granted(&mut taking), "it is free");
        taking
    }

    #[test]
    fn both_limits_bind_and_what_is_given_back_can_be_taken_again() {
        let credits = Credits::whole(2, 4096, 1024, Arc::default());
        let purse = credits.purse(&Owner::Anonymous);
        let cost = Cost::of_message(1024);
        assert!(purse.try_take(cost));
        assert!(purse.try_take(cost));
        assert!(!purse.try_take(cost), "two messages are out");
        purse.give_back(cost);
        assert!(!purse.try_take(Cost::of_message(4096)), "so many bytes are not free");
        assert!(purse.try_take(cost), "a refusal took nothing");
    }

    #[test]
    fn the_credit_always_holds_one_message_of_the_largest_size() {
        assert!(credits(1, 1).purse(&Owner::Anonymous).try_take(Cost::of_message(1024)));
    }

    #[test]
    fn an_owner_who_takes_all_it_can_leaves_enough_for_others() {
        let credits = credits(300, 300 << 10);
        let [greedy, second] =
            ["greedy", "second"].map(|name| [(); 2].map(|()| credits.purse(&operator(name))));
        let small = Cost::of_message(100);
        let take_all =
            |purses: &[Arc<Purse>; 2]| (0..300).filter(|number| purses[number % 2].try_take(small)).count();
        let taken = take_all(&greedy);
        assert_eq!(taken, 100, "a third, over all of its connections together");
        assert_eq!(take_all(&second), (300 - taken) / 3);
        drop(greedy);
        drop(second);
        assert_eq!(credits.free(), (300, 300 << 10), "whoever is gone has nothing");
    }

    #[test]
    fn whoever_waits_for_its_own_part_holds_nobody_up() {
        let credits = credits(9, 1 << 20);
        let [greedy, other] = ["greedy", "other"].map(|name| credits.purse(&operator(name)));
        let cost = Cost::of_message(100);
        while greedy.try_take(cost) {}
        let mut waits = taking(&greedy, cost);
        assert!(other.try_take(cost));
        other.give_back(cost);
        assert!(!is_granted(&mut waits));
        greedy.give_back(cost);
        assert!(is_granted(&mut waits));
    }

    #[test]
    fn small_messages_pass_a_large_one_and_not_for_ever() {
        let credits = Credits::whole(1_000_000, 64 << 10, 1024, Arc::default());
        let [large, small] = ["large", "small"].map(|name| credits.purse(&operator(name)));
        let held = Cost::of_message(40 << 10);
        assert!(small.try_take(held));
        let mut waits = taking(&large, Cost::of_message(60 << 10));
        let cost = Cost::of_message(100);
        let mut passed = 0;
        while small.try_take(cost) {
            small.give_back(cost);
            passed += 1;
        }
        assert_eq!(passed, PASSED_MAX);
        let mut behind = taking(&small, cost);
        small.give_back(held);
        assert!(is_granted(&mut waits));
        assert!(is_granted(&mut behind));
        assert!(small.try_take(cost), "nobody waits any more");
    }

    #[test]
    fn whoever_stops_waiting_takes_nothing() {
        let credits = credits(1, 1 << 20);
        let purse = credits.purse(&Owner::Anonymous);
        let cost = Cost::of_message(1);
        let before = credits.free();
        assert!(purse.try_take(cost));
        let gone = taking(&purse, cost);
        let late = taking(&purse, cost);
        drop(gone);
        purse.give_back(cost);
        // It was granted and not told yet.
        drop(late);
        assert_eq!(credits.free(), before);
        assert!(!credits.is_waited_for.load(Ordering::Relaxed));
    }
}

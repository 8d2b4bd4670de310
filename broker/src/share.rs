//! Budgets that many owners use, where no owner takes more than a third of what the others leave.
//!
//! So whatever one owner does, something is left for the next one. A small part of a budget may be promised to every owner
//! as long as anything is free: a thousand devices with a connection each are not kept out because others have many.
//!
//! Taking and giving back are atomic counters. There is one lock for each budget; it is only needed to find the account of an
//! owner, so whoever takes often keeps the account.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// An owner may have one part in so many of what the others leave.
const OWNER_PART: usize = 3;

/// What is shared; the `budget` label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Budget {
    /// Connections of clients that are not logged in.
    Handshakes,
    /// Connections of clients that are logged in.
    Connections,
    /// Logins whose credential is being checked.
    Logins,
    /// Messages in the engine's hands.
    CreditMessages,
    /// Bytes of the messages in the engine's hands.
    CreditBytes,
    /// Bytes of last wills.
    Wills,
    /// Retained messages.
    RetainedMessages,
    /// Bytes of retained messages.
    RetainedBytes,
    /// Subscriptions whose retained messages are still to be sent.
    RetainedPending,
    /// Messages that wait for subscribers.
    QueuedMessages,
    /// Bytes of the messages that wait for subscribers.
    QueuedBytes,
}

impl Budget {
    /// Every budget.
    pub const ALL: [Self; 11] = [
        Self::Handshakes,
        Self::Connections,
        Self::Logins,
        Self::CreditMessages,
        Self::CreditBytes,
        Self::Wills,
        Self::RetainedMessages,
        Self::RetainedBytes,
        Self::RetainedPending,
        Self::QueuedMessages,
        Self::QueuedBytes,
    ];

    /// The `budget` label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Connections => "connections",
            Self::Logins => "logins",
            Self::CreditMessages => "credit_messages",
            Self::CreditBytes => "credit_bytes",
            Self::Wills => "wills",
            Self::RetainedMessages => "retained_messages",
            Self::RetainedBytes => "retained_bytes",
            Self::RetainedPending => "retained_pending",
            Self::QueuedMessages => "queued_messages",
            Self::QueuedBytes => "queued_bytes",
        }
    }
}

/// Which limit a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The owner has its part.
    Share,
    /// All owners together have everything.
    Total,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 2] = [Self::Share, Self::Total];

    /// The `limit` label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Total => "total",
        }
    }
}

/// A request that was refused: the budget, and which of its limits was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("budget {} is spent: {}", budget.as_str(), limit.as_str())]
pub struct Spent {
    /// What there is not enough of.
    pub budget: Budget,
    /// Whether the owner or everybody has used it up.
    pub limit: Limit,
}

/// A budget of a count or of bytes, and what each owner has of it. Cloning shares it.
pub struct Share<O: Eq + Hash>(Arc<Ledger<O>>);

/// What one owner has of a budget. Cloning shares it; it is forgotten when nobody holds it any more.
pub struct Account<O: Eq + Hash>(Arc<Entry<O>>);

/// What was taken from a budget. Dropping it gives all of it back.
pub struct Permit<O: Eq + Hash> {
    account: Account<O>,
    amount: usize,
}

struct Ledger<O: Eq + Hash> {
    budget: Budget,
    max: usize,
    /// What every owner may have as long as it is free at all.
    floor: usize,
    taken: AtomicUsize,
    accounts: Mutex<HashMap<O, Weak<Entry<O>>>>,
}

struct Entry<O: Eq + Hash> {
    ledger: Arc<Ledger<O>>,
    owner: O,
    /// What it may have whatever the others have.
    floor: usize,
    taken: AtomicUsize,
}

impl<O: Eq + Hash + Clone> Share<O> {
    /// A budget of `max`, of which every owner may have `floor` as long as it is free at all.
    #[must_use]
    pub fn new(budget: Budget, max: usize, floor: usize) -> Self {
        let accounts = Mutex::default();
        Self(Arc::new(Ledger { budget, max, floor, taken: AtomicUsize::new(0), accounts }))
    }

    /// The account of an owner.
    #[must_use]
    pub fn account(&self, owner: &O) -> Account<O> {
        self.account_with(owner, self.0.floor)
    }

    /// The account of somebody who is bound by the whole budget and by no part of it: of those who are nobody in particular.
    #[must_use]
    pub fn whole_account(&self, owner: &O) -> Account<O> {
        self.account_with(owner, self.0.max)
    }

    fn account_with(&self, owner: &O, floor: usize) -> Account<O> {
        let mut accounts = self.0.lock();
        if let Some(known) = accounts.get(owner).and_then(Weak::upgrade) {
            return Account(known);
        }
        let (ledger, owner, taken) = (Arc::clone(&self.0), owner.clone(), AtomicUsize::new(0));
        let entry = Arc::new(Entry { ledger, owner, floor, taken });
        accounts.insert(entry.owner.clone(), Arc::downgrade(&entry));
        Account(entry)
    }

    /// Takes from the budget for an owner.
    ///
    /// # Errors
    /// [`Spent`] when the owner has its part, or everything is taken.
    pub fn take(&self, owner: &O, amount: usize) -> Result<Permit<O>, Spent> {
        self.account(owner).take(amount)
    }
}

impl<O: Eq + Hash> Share<O> {
    /// What all owners have together.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// What is left for all owners together.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.max.saturating_sub(self.taken())
    }

    /// Owners that hold something.
    #[must_use]
    pub fn owners(&self) -> usize {
        self.0.lock().len()
    }
}

impl<O: Eq + Hash> Account<O> {
    /// Takes from the budget.
    ///
    /// # Errors
    /// [`Spent`] when the owner has its part, or everything is taken.
    pub fn take(&self, amount: usize) -> Result<Permit<O>, Spent> {
        self.0.reserve(amount)?;
        Ok(Permit { account: self.clone(), amount })
    }

    /// Takes from the budget even beyond its limits: what was stored is there, whatever the limits are now.
    #[must_use]
    pub fn take_anyway(&self, amount: usize) -> Permit<O> {
        let mut permit = Permit { account: self.clone(), amount: 0 };
        permit.grow_anyway(amount);
        permit
    }

    /// What the owner has.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }
}

impl<O: Eq + Hash> Permit<O> {
    /// How much was taken.
    #[must_use]
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Takes more.
    ///
    /// # Errors
    /// [`Spent`] when the owner has its part, or everything is taken; nothing changes then.
    pub fn grow(&mut self, by: usize) -> Result<(), Spent> {
        self.account.0.reserve(by)?;
        self.amount += by;
        Ok(())
    }

    /// Takes more, even beyond the limits.
    pub fn grow_anyway(&mut self, by: usize) {
        self.account.0.taken.fetch_add(by, Ordering::Relaxed);
        self.account.0.ledger.taken.fetch_add(by, Ordering::Relaxed);
        self.amount += by;
    }

    /// Takes more, even beyond the limits, or gives some back, so that this much is held.
    pub fn resize_anyway(&mut self, amount: usize) {
        if amount > self.amount {
            self.grow_anyway(amount - self.amount);
        } else {
            self.shrink(self.amount - amount);
        }
    }

    /// Gives some of it back.
    pub fn shrink(&mut self, by: usize) {
        assert!(by <= self.amount, "only what was taken is given back");
        self.amount -= by;
        self.account.0.give_back(by);
    }

    /// Takes more or gives some back, so that this much is held.
    ///
    /// # Errors
    /// [`Spent`] when more is wanted than there is; nothing changes then.
    pub fn resize(&mut self, amount: usize) -> Result<(), Spent> {
        match amount.checked_sub(self.amount) {
            Some(by) => self.grow(by),
            None => {
                self.shrink(self.amount - amount);
                Ok(())
            }
        }
    }
}

impl<O: Eq + Hash> Entry<O> {
    /// The owner's counter goes first, so that what is refused to one owner is never seen by another. Two requests of one
    /// owner at the same moment may together pass its part by a third of the smaller one; the total is exact.
    fn reserve(&self, amount: usize) -> Result<(), Spent> {
        let Ledger { budget, max, taken, .. } = &*self.ledger;
        if amount == 0 {
            return Ok(());
        }
        let within_part = |own: usize| {
            let others = taken.load(Ordering::Relaxed).saturating_sub(own);
            let part = (max.saturating_sub(others) / OWNER_PART).max(self.floor);
            own.checked_add(amount).filter(|own| *own <= part)
        };
        let within_total = |all: usize| all.checked_add(amount).filter(|all| all <= max);
        let spent = |limit| Spent { budget: *budget, limit };
        if within_total(taken.load(Ordering::Relaxed)).is_none() {
            return Err(spent(Limit::Total));
        }
        raise(&self.taken, within_part).ok_or(spent(Limit::Share))?;
        raise(taken, within_total).ok_or_else(|| {
            self.taken.fetch_sub(amount, Ordering::Relaxed);
            spent(Limit::Total)
        })
    }

    fn give_back(&self, amount: usize) {
        self.ledger.taken.fetch_sub(amount, Ordering::Relaxed);
        self.taken.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// Raises a counter to what `next` says; `None` when it says that it cannot be.
fn raise(counter: &AtomicUsize, next: impl FnMut(usize) -> Option<usize>) -> Option<()> {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(drop)
}

impl<O: Eq + Hash> Ledger<O> {
    /// Every change to the table is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, HashMap<O, Weak<Entry<O>>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Eq + Hash> Drop for Entry<O> {
    fn drop(&mut self) {
        let mut accounts = self.ledger.lock();
        // Another account may have been opened for the owner since the last holder of this one let go.
        if accounts.get(&self.owner).is_some_and(|known| known.strong_count() == 0) {
            accounts.remove(&self.owner);
        }
    }
}

impl<O: Eq + Hash> Drop for Permit<O> {
    fn drop(&mut self) {
        self.account.0.give_back(self.amount);
    }
}

impl<O: Eq + Hash> Clone for Share<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O: Eq + Hash> Clone for Account<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O: Eq + Hash> fmt::Debug for Share<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { budget, max, taken, .. } = &*self.0;
        f.debug_struct("Share").field("budget", budget).field("max", max).field("taken", taken).finish()
    }
}

impl<O: Eq + Hash> fmt::Debug for Account<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("taken", &self.0.taken).finish_non_exhaustive()
    }
}

impl<O: Eq + Hash> fmt::Debug for Permit<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("amount", &self.amount).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;

//! The inbound window of a client: its open deliveries in the order of arrival, over one connection after the other.
//!
//! A connection that takes over from another finds what that one left open, its last will among it, in front of its own
//! messages. So the retained set and the subscribers see the messages of a client in the order of their arrival.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::credits::Purse;
use crate::redelivery::Redelivery;
use crate::window::{Audience, Window};

/// The deliveries of one client.
pub(crate) struct Inbound {
    pub(crate) window: Arc<Window>,
    /// The credit of what is in hand.
    pub(crate) purse: Arc<Purse>,
    /// Deliveries that are not collected yet.
    open: AtomicUsize,
    kept: Mutex<Kept>,
    passed_on: Notify,
}

/// What belongs to the keeper: the last one who began to collect.
#[derive(Default)]
pub(crate) struct Kept {
    keeper: u64,
    pub(crate) redelivery: Redelivery,
    /// Of the oldest deliveries so many had a keeper that died, and are counted as abandoned.
    abandoned: usize,
}

impl Inbound {
    pub(crate) fn new(purse: Arc<Purse>, audience: Arc<dyn Audience>) -> Arc<Self> {
        Arc::new(Self {
            window: Window::new(Arc::clone(&purse), Some(audience)),
            purse,
            open: AtomicUsize::new(0),
            kept: Mutex::default(),
            passed_on: Notify::new(),
        })
    }

    /// Makes the caller the keeper, and says its number. Whoever was it stops at its next look.
    pub(crate) fn take_over(&self) -> u64 {
        let mut kept = self.lock();
        kept.keeper += 1;
        self.passed_on.notify_one();
        kept.keeper
    }

    /// What belongs to the keeper; `None` when another took over. As long as this is held no other can.
    pub(crate) fn keep(&self, keeper: u64) -> Option<MutexGuard<'_, Kept>> {
        Some(self.lock()).filter(|kept| kept.keeper == keeper)
    }

    /// Deliveries that are not collected yet. Those of a keeper that died do not count.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Notes that a delivery was opened.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until another may have taken over.
    pub(crate) async fn passed_on(&self) {
        self.passed_on.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Notes that so many deliveries were collected; says how many of them were not given up before.
    pub(crate) fn collected(&mut self, inbound: &Inbound, count: usize) -> usize {
        let abandoned = self.abandoned.min(count);
        self.abandoned -= abandoned;
        inbound.open.fetch_sub(count - abandoned, Ordering::Relaxed);
        count - abandoned
    }

    /// Gives up what is open, because its keeper dies; says how many deliveries that are.
    pub(crate) fn abandon(&mut self, inbound: &Inbound) -> usize {
        let count = inbound.open.swap(0, Ordering::Relaxed);
        self.abandoned += count;
        count
    }
}

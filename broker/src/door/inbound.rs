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
    collecting: Mutex<Collecting>,
    passed_on: Notify,
}

/// What belongs to the collector: the last connection that began to collect.
#[derive(Default)]
pub(crate) struct Collecting {
    collector: u64,
    pub(crate) redelivery: Redelivery,
    /// Of the oldest deliveries so many had a collector that died, and are counted as abandoned.
    abandoned: usize,
}

impl Inbound {
    pub(crate) fn new(purse: Arc<Purse>, audience: Arc<dyn Audience>) -> Arc<Self> {
        Arc::new(Self {
            window: Window::new(Arc::clone(&purse), Some(audience)),
            purse,
            open: AtomicUsize::new(0),
            collecting: Mutex::default(),
            passed_on: Notify::new(),
        })
    }

    /// Makes the caller the collector, and says its number. Whoever was it stops at its next look.
    pub(crate) fn take_over(&self) -> u64 {
        let mut collecting = self.lock();
        collecting.collector += 1;
        self.passed_on.notify_one();
        collecting.collector
    }

    /// What belongs to the collector; `None` when another took over. As long as this is held no other can.
    pub(crate) fn collecting(&self, collector: u64) -> Option<MutexGuard<'_, Collecting>> {
        Some(self.lock()).filter(|collecting| collecting.collector == collector)
    }

    /// Deliveries that are not collected yet. Those of a collector that died do not count.
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

    fn lock(&self) -> MutexGuard<'_, Collecting> {
        self.collecting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collecting {
    /// Notes that so many deliveries were collected; says how many of them were not given up before.
    pub(crate) fn collected(&mut self, inbound: &Inbound, count: usize) -> usize {
        let abandoned = self.abandoned.min(count);
        self.abandoned -= abandoned;
        inbound.open.fetch_sub(count - abandoned, Ordering::Relaxed);
        count - abandoned
    }

    /// Gives up what is open, because its collector dies; says how many deliveries that are.
    pub(crate) fn abandon(&mut self, inbound: &Inbound) -> usize {
        let count = inbound.open.swap(0, Ordering::Relaxed);
        self.abandoned += count;
        count
    }
}

//! The subscriptions of one session whose retained messages are still to be sent.
//!
//! They are looked up when there is room for them, so they are neither old nor in memory before.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use schema::clock::Timestamp;

use crate::door::queue::{Manner, Parcel};
use crate::door::retained::{Progress, Retained, Search};
use crate::message::Qos;
use crate::store::Subscription;

/// The retained messages of one subscription, as far as they are still to be sent.
#[derive(Debug)]
pub(crate) struct PendingRetained {
    search: Search,
    qos: Qos,
    subscription_id: Option<NonZeroU32>,
}

/// Those of one session, one for each filter.
#[derive(Debug, Default)]
pub(crate) struct Pending(VecDeque<PendingRetained>);

impl PendingRetained {
    pub(crate) fn new(search: Search, subscription: &Subscription) -> Self {
        Self { search, qos: subscription.qos, subscription_id: subscription.id }
    }
}

impl Pending {
    /// Whether nothing is to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the messages of a subscription. One of the same filter begins anew.
    pub(crate) fn put(&mut self, pending: PendingRetained) {
        self.remove(pending.search.filter());
        self.0.push_back(pending);
    }

    /// Forgets the messages of a subscription.
    pub(crate) fn remove(&mut self, filter: &str) {
        self.0.retain(|known| known.search.filter() != filter);
    }

    /// Forgets all but the messages of these subscriptions.
    pub(crate) fn keep_only(&mut self, subscriptions: &[Subscription]) {
        self.0.retain(|known| {
            subscriptions.iter().any(|subscription| *subscription.filter == *known.search.filter())
        });
        self.0.shrink_to_fit();
    }

    /// Hands the next messages to `take` until it says that it has no room for one, or so many were looked at that others
    /// come first.
    pub(crate) fn look_up(
        &mut self,
        retained: &Retained,
        now: Timestamp,
        mut take: impl FnMut(Parcel) -> bool,
    ) {
        let Some(PendingRetained { search, qos, subscription_id }) = self.0.front_mut() else { return };
        let progress = retained.look_up(search, now, |publication| {
            let manner = Manner {
                qos: publication.qos.min(*qos),
                retain: true,
                subscription_ids: subscription_id.iter().copied().collect(),
            };
            take(Parcel { publication: Arc::clone(publication), manner })
        });
        if progress == Progress::Over {
            self.0.pop_front();
        }
        if self.0.is_empty() {
            // An idle client costs nothing.
            self.0.shrink_to_fit();
        }
    }
}

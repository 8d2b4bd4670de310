//! Places for streams: so many in all, and so many of one caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::metrics;

use super::super::auth::{Call, Caller};
use super::super::error::{Code, Error};
use super::sync::Glances;

/// Streams at most.
pub(super) const STREAMS_MAX: usize = 64;
/// Streams of one key, one device, or one address without either.
pub(super) const STREAMS_PER_CALLER_MAX: usize = 16;
/// Seconds after which a caller that found no place may come again.
const RETRY_AFTER_SECONDS: u32 = 10;

/// The streams that are open. Cloning shares them.
#[derive(Clone)]
pub(in crate::http) struct Streams {
    holders: Arc<Mutex<HashMap<String, usize>>>,
    /// Tells the ids of this life of the engine from those of others.
    pub(super) epoch: u32,
    /// What is known of sending.
    pub(super) glances: Glances,
}

impl Default for Streams {
    fn default() -> Self {
        Self { holders: Arc::default(), epoch: rand::random(), glances: Glances::default() }
    }
}

/// A place, until it is dropped.
pub(super) struct Place {
    holders: Arc<Mutex<HashMap<String, usize>>>,
    holder: String,
}

impl Streams {
    /// A place for a caller.
    ///
    /// # Errors
    /// `RATE_LIMITED` when it has as many as one may have, `NOT_READY` when all are taken.
    pub(super) fn place(&self, call: &Call) -> Result<Place, Error> {
        let holder = holder(call);
        let mut holders = lock(&self.holders);
        let own = holders.get(&holder).copied().unwrap_or_default();
        if own >= STREAMS_PER_CALLER_MAX {
            metrics::stream_refused("caller").increment(1);
            let message = format!("one caller may have {STREAMS_PER_CALLER_MAX} streams");
            return Err(Error::new(Code::RateLimited, message).retry_after(RETRY_AFTER_SECONDS));
        }
        if holders.values().sum::<usize>() >= STREAMS_MAX {
            metrics::stream_refused("all").increment(1);
            let message = format!("all {STREAMS_MAX} streams are taken");
            return Err(Error::new(Code::NotReady, message).retry_after(RETRY_AFTER_SECONDS));
        }
        holders.insert(holder.clone(), own + 1);
        metrics::stream_open().increment(1.0);
        drop(holders);
        Ok(Place { holders: Arc::clone(&self.holders), holder })
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        lock(&self.holders).values().sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut holders = lock(&self.holders);
        match holders.get_mut(&self.holder) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => drop(holders.remove(&self.holder)),
        }
        metrics::stream_open().decrement(1.0);
    }
}

/// Whose place it is.
fn holder(call: &Call) -> String {
    match &call.caller {
        Caller::Operator(operator) => format!("operator:{}", operator.name),
        Caller::Device(scope) => format!("device:{}/{}", scope.tenant_id, scope.device_id),
        Caller::Anyone | Caller::Compat => {
            call.peer.map_or_else(|| "anyone".to_owned(), |peer| format!("address:{}", peer.ip()))
        }
    }
}

/// Every change is complete before anything can panic.
fn lock(holders: &Mutex<HashMap<String, usize>>) -> MutexGuard<'_, HashMap<String, usize>> {
    holders.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What calls over HTTP may have in the engine's hands, whether somebody still waits for them or not.
//!
//! A mailbox has no bound, and a call that gave up leaves its work there until somebody comes to it. So the work carries
//! its share of a budget, and gives it back when it is done or dropped. Messages of devices have the door's credits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Units of all calls together: readings, orders.
pub const UNITS_MAX: usize = 20_000;
/// Bytes of all calls together.
pub const BYTES_MAX: usize = 64 << 20;

/// The budget of all calls. Cloning shares it.
#[derive(Clone, Debug)]
pub struct CallBudget {
    units: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// A share of the budget, until it is dropped.
#[derive(Debug)]
pub struct Share {
    _units: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// The budget is spent: the database is slower than the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much that was called for is not done yet")]
pub struct Spent;

impl Default for CallBudget {
    fn default() -> Self {
        Self { units: Arc::new(Semaphore::new(UNITS_MAX)), bytes: Arc::new(Semaphore::new(BYTES_MAX)) }
    }
}

impl CallBudget {
    /// Takes a share for a call.
    ///
    /// # Errors
    /// [`Spent`] when there is not as much left.
    pub fn take(&self, units: usize, bytes: usize) -> Result<Share, Spent> {
        let take = |budget: &Arc<Semaphore>, count: usize| {
            let count = u32::try_from(count).map_err(|_| Spent)?;
            Arc::clone(budget).try_acquire_many_owned(count).map_err(|_| Spent)
        };
        Ok(Share { _units: take(&self.units, units)?, _bytes: take(&self.bytes, bytes)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_had_again_when_it_is_dropped() {
        let budget = CallBudget::default();
        let most = budget.take(UNITS_MAX, 1).expect("there is as much");
        assert_eq!(budget.take(1, 1).map(|_| ()), Err(Spent));
        drop(most);
        let _most = budget.take(1, BYTES_MAX).expect("there is as much");
        assert_eq!(budget.take(1, 1).map(|_| ()), Err(Spent));
        assert_eq!(budget.take(0, usize::MAX).map(|_| ()), Err(Spent));
    }
}

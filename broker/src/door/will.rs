//! Last wills: kept with their credit as long as their client is there, or may come back in time.

use std::sync::Arc;

use tokio::time::Instant;

use crate::credits::{Cost, Credits};
use crate::door::packet::Will;
use crate::door::session::Session;
use crate::gatekeeper::Principal;

/// A last will and the credit that is reserved for it, so that it can go out at once when its time comes.
#[derive(Debug)]
pub(crate) struct HeldWill {
    pub(crate) will: Will,
    pub(crate) reserved: Reserved,
}

/// Credit that is given back when nobody takes it.
#[derive(Debug)]
pub(crate) struct Reserved {
    cost: Cost,
    credits: Arc<Credits>,
}

/// A last will whose client may still come back.
pub(crate) struct DelayedWill {
    pub(crate) will: HeldWill,
    pub(crate) principal: Principal,
    /// The session it is of, for subscribers who do not want their own messages.
    pub(crate) session: Arc<Session>,
    pub(crate) due_at: Instant,
}

impl HeldWill {
    /// Reserves the credit of a will. Dropping the future reserves nothing.
    pub(crate) async fn hold(credits: &Arc<Credits>, will: Will) -> Self {
        let cost = Cost::of_will(will.topic.len() + will.payload.len() + will.properties.carried.len());
        credits.take(cost).await;
        Self { will, reserved: Reserved { cost, credits: Arc::clone(credits) } }
    }
}

impl Reserved {
    /// Takes the credit: whoever calls this gives it back.
    pub(crate) fn take(mut self) -> Cost {
        std::mem::take(&mut self.cost)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.credits.give_back(self.cost);
    }
}

//! Last wills: kept with their credit as long as their client is there, or may come back in time.

use std::sync::Arc;

use schema::clock::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::credits::{Cost, Credits};
use crate::door::packet::{MessageProperties, Will};
use crate::door::session::Session;
use crate::gatekeeper::Principal;
use crate::store::{Owner, WaitingWill};

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

/// A last will whose client may still come back. It is stored as long as it waits.
pub(crate) struct DelayedWill {
    /// Its key in the store.
    pub(crate) id: Uuid,
    pub(crate) will: HeldWill,
    pub(crate) principal: Principal,
    /// The session it is of, for subscribers who do not want their own messages.
    pub(crate) session: Arc<Session>,
    pub(crate) due_at: Instant,
}

impl DelayedWill {
    /// A will as it was stored; `None` for a client that cannot have one.
    pub(crate) fn restore(
        credits: &Arc<Credits>,
        stored: WaitingWill,
        session: Arc<Session>,
        now: Timestamp,
    ) -> Option<Self> {
        let WaitingWill { id, client, topic, payload, qos, retain, carried, expiry_seconds, due_at } = stored;
        let principal = match client.owner {
            Owner::Anonymous => Principal::Anonymous,
            Owner::Device(identity) => Principal::Device(identity),
            Owner::Operator(_) => return None,
        };
        let properties = MessageProperties { expiry_seconds, carried };
        let topic = topic.to_string();
        let will = Will { topic, payload, qos, retain, delay_seconds: 0, properties };
        // There are no more of them than sessions, and each was paid for when its client came.
        let reserved = Reserved { cost: Cost::default(), credits: Arc::clone(credits) };
        let due_at = Instant::now() + (due_at - now).to_std().unwrap_or_default();
        Some(Self { id, will: HeldWill { will, reserved }, principal, session, due_at })
    }

    /// The will as it is stored.
    pub(crate) fn to_stored(&self, due_at: Timestamp) -> WaitingWill {
        let Will { topic, payload, qos, retain, delay_seconds: _, properties } = &self.will.will;
        WaitingWill {
            id: self.id,
            client: self.session.client().clone(),
            topic: Arc::from(topic.as_str()),
            payload: payload.clone(),
            qos: *qos,
            retain: *retain,
            carried: properties.carried.clone(),
            expiry_seconds: properties.expiry_seconds,
            due_at,
        }
    }
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

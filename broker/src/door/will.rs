//! Last wills: kept within a budget of their own as long as their client is there, may come back in time, or the will is
//! under way.

use std::sync::Arc;

use schema::clock::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::door::packet::{MessageProperties, Will};
use crate::door::session::Session;
use crate::gatekeeper::Principal;
use crate::share::{Budget, Permit, Share, Spent};
use crate::store::{Owner, WaitingWill};

/// Bytes of all last wills together, if there are few clients.
const WILLS_BYTES_MIN: usize = 16 << 20;
/// Bytes a last will costs beside its own: the task that sees it through while its commit takes long.
const OVERHEAD_BYTES: usize = 8 << 10;
/// Bytes of a will of usual size, which every owner may have as long as any are free.
const USUAL_BYTES: usize = OVERHEAD_BYTES + (1 << 10);

/// A last will, and what it takes from the budget of all wills.
#[derive(Debug)]
pub(crate) struct HeldWill {
    pub(crate) will: Will,
    pub(crate) permit: Permit<Owner>,
}

/// The budget of all last wills: a will of usual size for each client that is connected or may come back fits into it.
pub(crate) fn budget(clients_max: usize) -> Share<Owner> {
    let bytes_max = clients_max.saturating_mul(USUAL_BYTES).max(WILLS_BYTES_MIN);
    Share::new(Budget::Wills, bytes_max, USUAL_BYTES)
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
        wills: &Share<Owner>,
        stored: WaitingWill,
        session: Arc<Session>,
        now: Timestamp,
    ) -> Option<Self> {
        let WaitingWill { id, client, topic, payload, qos, retain, carried, expiry_seconds, due_at } = stored;
        let account = wills.account(&client.owner);
        let principal = match client.owner {
            Owner::Anonymous => Principal::Anonymous,
            Owner::Device(identity) => Principal::Device(identity),
            Owner::Operator(_) => return None,
        };
        let properties = MessageProperties { expiry_seconds, carried };
        let topic = topic.to_string();
        let will = Will { topic, payload, qos, retain, delay_seconds: 0, properties };
        // It was promised to its client, whatever the limits are now.
        let permit = account.take_anyway(cost_bytes(&will));
        let due_at = Instant::now() + (due_at - now).to_std().unwrap_or_default();
        Some(Self { id, will: HeldWill { will, permit }, principal, session, due_at })
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
    /// Keeps a will within the budget, or says that there is no room for it.
    pub(crate) fn hold(wills: &Share<Owner>, owner: &Owner, will: Will) -> Result<Self, Spent> {
        let permit = wills.take(owner, cost_bytes(&will))?;
        Ok(Self { will, permit })
    }
}

fn cost_bytes(will: &Will) -> usize {
    will.topic.len() + will.payload.len() + will.properties.carried.len() + OVERHEAD_BYTES
}

//! Last wills: kept with their credit as long as their client is there, published through the same checks as any message.

use std::sync::Arc;

use tokio::time::Instant;

use crate::credits::{Cost, Credits};
use crate::delivery::{Message, Verdict};
use crate::door::inflow::Inflow;
use crate::door::packet::{Version, Will};
use crate::door::sessions::DelayedWill;
use crate::door::shared::Shared;
use crate::door::topics::{KnownTopic, Publisher};
use crate::gatekeeper::Principal;
use crate::stats::Refusal;
use crate::window::{Answer, Slot};

/// A last will and the credit that is reserved for it, so that it can go out at once when its time comes.
#[derive(Debug)]
pub(crate) struct HeldWill {
    pub(crate) will: Will,
    cost: Cost,
    credits: Arc<Credits>,
}

impl HeldWill {
    /// Reserves the credit of a will. Dropping the future reserves nothing.
    pub(crate) async fn hold(credits: &Arc<Credits>, will: Will) -> Self {
        let cost = Cost::of_will(will.topic.len() + will.payload.len() + will.properties.carried.len());
        credits.take(cost).await;
        Self { will, cost, credits: Arc::clone(credits) }
    }

    /// Hands the will in like a message that came over the connection `inflow` belongs to.
    pub(crate) fn publish(mut self, shared: &Shared, inflow: &mut Inflow, principal: &Principal) {
        let will = &mut self.will;
        let scope = principal.device().and_then(|identity| shared.gatekeeper.scope(identity));
        let topic = KnownTopic::judge(&will.topic, Publisher::of(principal, scope.as_ref()));
        if !topic.may_publish && shared.refuse(Refusal::Acl) {
            let device_id = principal.device().map(|identity| identity.device_id.as_str());
            tracing::info!(device_id, topic = &*topic.name, "last will refused: outside the scope");
        }
        let (received_at, arrived_at) = (Instant::now(), shared.clock.now());
        let slot = Slot {
            answer: Answer::None,
            // The credit belongs to the delivery from now on.
            cost: std::mem::take(&mut self.cost),
            echo: topic.echo(will.retain, std::mem::take(&mut will.properties), arrived_at),
            is_denied: !topic.may_publish,
            kind: topic.kind,
            received_at,
            epoch: 0,
        };
        let message = Message {
            topic: Arc::clone(&topic.name),
            payload: std::mem::take(&mut will.payload),
            qos: will.qos,
            retain: will.retain,
            received_at,
            arrived_at,
            identity: principal.device().cloned(),
            verdict: if topic.may_publish { Verdict::Admitted } else { Verdict::AclDenied },
        };
        inflow.deliver(message, slot);
    }
}

impl Drop for HeldWill {
    fn drop(&mut self) {
        self.credits.give_back(self.cost);
    }
}

/// Publishes a will whose client did not come back in time, and stays until it is settled.
pub(crate) async fn publish_delayed(shared: Arc<Shared>, delayed: DelayedWill) {
    let DelayedWill { will, principal, session, .. } = delayed;
    let mut inflow = Inflow::new(Arc::clone(&shared), session, Version::V4);
    will.publish(&shared, &mut inflow, &principal);
    inflow.finish().await;
}

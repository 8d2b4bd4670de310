//! The ingress: reads the address of each delivery and passes it to the actor of its device.
//!
//! Owns: nothing but the way.
//! Accepts: `Deliver` from the door or the link.
//! Sends: `Deliver` to the directory of devices, refusals to the telemetry writers.
//! Dies: with its supervisor.

pub mod stats;

use std::sync::Arc;

use broker::{Delivery, Intake, Verdict};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::store::reject::Refusal;
use schema::wire::reject::{Reason, Reject};
use schema::wire::topic::{Kind, Topic};
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::device::{self, DeviceContext, DeviceKey, Devices};
use crate::directory;
use crate::ingress::stats::IngressStats;
use crate::telemetry::TelemetryWriters;

/// The actor; see the head of this file.
pub struct Ingress;

/// What the ingress is told.
#[derive(Debug)]
pub enum Msg {
    /// A message has arrived.
    Deliver(Delivery),
}

/// What the ingress needs.
#[derive(Clone)]
pub struct Args {
    /// Shared with the devices.
    pub context: Arc<DeviceContext>,
    /// Where the devices live.
    pub devices: Address<directory::Msg<Devices>>,
}

impl Actor for Ingress {
    type Msg = Msg;
    type State = Args;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<Args, ActorProcessingErr> {
        Ok(args)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        Msg::Deliver(delivery): Msg,
        state: &mut Args,
    ) -> Result<(), ActorProcessingErr> {
        state.deliver(delivery);
        Ok(())
    }
}

impl Args {
    fn deliver(&self, delivery: Delivery) {
        match self.address(&delivery) {
            Ok((_, topic)) if takes_status_back(&topic, &delivery) => {
                self.context.stats.received(topic.kind(), self.context.clock.now());
                delivery.done();
            }
            Ok((key, topic)) => {
                self.context.stats.received(topic.kind(), self.context.clock.now());
                let message = device::Msg::Deliver { topic, delivery };
                // When nobody takes it, dropping the message hands the delivery back.
                self.devices.cast(directory::Msg::Send { key, message });
            }
            Err(reject) => {
                self.context.stats.received_unroutable(self.context.clock.now());
                self.context.refuse(delivery, reject, None);
            }
        }
    }

    fn address(&self, delivery: &Delivery) -> Result<(DeviceKey, Topic), Reject> {
        match delivery.verdict {
            Verdict::Admitted => {}
            Verdict::AclDenied => return Err(Reason::AclDenied.into()),
            Verdict::TooLarge { .. } => return Err(Reason::MessageTooLarge.into()),
        }
        if delivery.payload.len() > self.context.settings.message_bytes_max {
            return Err(Reason::MessageTooLarge.into());
        }
        let topic = Topic::parse(&delivery.topic)?;
        let key = DeviceKey { tenant_id: topic.place().tenant_id.clone(), source: topic.source() };
        Ok((key, topic))
    }
}

/// Whether a message says nothing but that a retained status is not to be kept any more: there is nothing to store.
fn takes_status_back(topic: &Topic, delivery: &Delivery) -> bool {
    topic.kind() == Kind::Status && delivery.retain && delivery.payload.is_empty()
}

/// Counts a refusal, has it recorded, and acknowledges the message then.
pub fn refuse(
    stats: &IngressStats,
    writers: &TelemetryWriters,
    delivery: Delivery,
    reject: Reject,
    event_id: Option<String>,
) {
    stats.refused(reject);
    tracing::debug!(reason = reject.reason.code(), field = reject.field, topic = %delivery.topic, "message refused");
    let topic = Topic::parse(&delivery.topic).ok();
    let size_bytes = match delivery.verdict {
        Verdict::TooLarge { size_bytes } => size_bytes,
        Verdict::Admitted | Verdict::AclDenied => delivery.payload.len(),
    };
    let refusal = Refusal {
        reject,
        topic: delivery.topic.to_string(),
        tenant_id: topic.as_ref().map(|topic| topic.place().tenant_id.to_string()),
        device_id: topic.as_ref().and_then(|topic| topic.device_id().map(|device_id| device_id.to_string())),
        event_id,
        size_bytes: i32::try_from(size_bytes).unwrap_or(i32::MAX),
        sha256: hex::encode(Sha256::digest(&delivery.payload)),
        rejected_at: delivery.arrived_at,
    };
    writers.refuse(refusal, delivery);
}

/// The mailbox of the ingress as the door and the link see it.
pub struct IngressIntake(pub Address<Msg>);

impl Intake for IngressIntake {
    fn take(&self, delivery: Delivery) {
        // While the ingress restarts, the message is dropped here and thereby handed back.
        self.0.cast(Msg::Deliver(delivery));
    }
}

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
use schema::wire::reject::{Reason, Reject};
use schema::wire::topic::{Kind, Topic};

use crate::address::Address;
use crate::device::{self, DeviceContext, DeviceKey, Devices};
use crate::directory;

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

/// The mailbox of the ingress as the door and the link see it.
pub struct IngressIntake(pub Address<Msg>);

impl Intake for IngressIntake {
    fn take(&self, delivery: Delivery) {
        // While the ingress restarts, the message is dropped here and thereby handed back.
        self.0.cast(Msg::Deliver(delivery));
    }
}

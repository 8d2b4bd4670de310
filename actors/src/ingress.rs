//! The ingress: reads the address of each delivery and passes it on to the actor of its device. It runs in the task that
//! took the message in, and keeps nothing.

pub mod stats;

use std::sync::Arc;

use broker::{Delivery, Intake, Verdict};
use schema::wire::reject::{Reason, Reject};
use schema::wire::topic::{Kind, Topic};

use crate::alarm::way::siren::{SIREN_EVENTS, SirenDesk};
use crate::device::{self, DeviceContext, DeviceKey, Devices};
use crate::directory::Children;

/// Where the door and the link hand messages in.
pub struct Ingress {
    /// Shared with the devices.
    pub context: Arc<DeviceContext>,
    /// Where the devices live.
    pub devices: Children<Devices>,
    /// Where sirens answer.
    pub sirens: SirenDesk,
}

impl Intake for Ingress {
    fn take(&self, delivery: Delivery) {
        if let (Verdict::Admitted, Some(topic)) = (&delivery.verdict, &delivery.parsed) {
            self.sirens.hear(topic, &delivery.payload, &self.context.clock);
        }
        self.deliver(delivery);
    }

    fn overhear(&self, topic: &str, payload: &[u8]) {
        if topic.contains(SIREN_EVENTS)
            && let Ok(topic) = Topic::parse(topic)
        {
            self.sirens.hear(&topic, payload, &self.context.clock);
        }
    }
}

impl Ingress {
    fn deliver(&self, delivery: Delivery) {
        match self.address(&delivery) {
            Ok((key, topic)) if takes_status_back(&topic, &delivery) => {
                self.context.stats.received(topic.kind(), self.context.clock.now());
                self.context.writers.remove(key.tenant_id.as_str(), delivery);
            }
            Ok((key, topic)) => {
                self.context.stats.received(topic.kind(), self.context.clock.now());
                let message = device::Msg::Deliver { topic, delivery };
                // When nobody takes it, dropping the message hands the delivery back.
                self.devices.send(key, message);
            }
            Err(reject) => {
                self.context.stats.received_unroutable(self.context.clock.now());
                self.context.refuse(delivery, reject, None);
            }
        }
    }

    fn address(&self, delivery: &Delivery) -> Result<(DeviceKey, Arc<Topic>), Reject> {
        match delivery.verdict {
            Verdict::Admitted => {}
            Verdict::AclDenied => return Err(Reason::AclDenied.into()),
            Verdict::TooLarge { .. } => return Err(Reason::MessageTooLarge.into()),
        }
        if delivery.payload.len() > self.context.settings.message_bytes_max {
            return Err(Reason::MessageTooLarge.into());
        }
        let topic = delivery.parsed.clone().ok_or(Reason::TopicInvalid)?;
        let key = DeviceKey { tenant_id: topic.place().tenant_id.clone(), source: topic.source() };
        Ok((key, topic))
    }
}

/// Whether a message says nothing but that a retained status is not to be kept any more: there is nothing to store.
fn takes_status_back(topic: &Topic, delivery: &Delivery) -> bool {
    topic.kind() == Kind::Status && delivery.retain && delivery.payload.is_empty()
}

//! A device: checks what it sends and turns it into units of work.
//!
//! Owns: when the device's sign of life was last written.
//! Accepts: `Deliver` from the ingress.
//! Sends: `Put` to the telemetry writer of the device, orders to weighing sessions.
//! Dies: when idle; the next message starts it again.

use std::sync::Arc;
use std::time::Duration;

use broker::Delivery;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::clock::Clock;
use schema::id::{self, SessionId, StationId, TenantId};
use schema::store::device::{Seen, StatusReport};
use schema::store::telemetry::{DeviceEvent, Reading};
use schema::wire::envelope::{Dialects, Envelope};
use schema::wire::payload::{self, Status};
use schema::wire::reject::{Reason, Reject};
use schema::wire::session::Step;
use schema::wire::topic::{Place, Source, Topic};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::allowlist::Allowlist;
use crate::directory::Keyed;
use crate::ingress::stats::IngressStats;
use crate::refusal;
use crate::session::Sessions;
use crate::session::order::{Command, Mark, Order};
use crate::telemetry::{Put, Receipt, TelemetryWriters, Unit};

pub mod trouble;

/// How long a message waits to be asked again after the allowlist could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How devices are treated.
#[derive(Clone, Debug)]
pub struct IngressSettings {
    /// Accepted dialects.
    pub dialects: Dialects,
    /// Bytes of a body at most.
    pub message_bytes_max: usize,
    /// Whether a weighvision message needs the row of its device, too.
    pub is_weighvision_device_required: bool,
    /// Event types of generic events that go to the cloud.
    pub forward_events: Vec<String>,
    /// Seconds between two writes of a device's sign of life.
    pub last_seen_write_seconds: u64,
    /// Whether the retain flag marks a broker's stored copy (external broker) and not a device's wish (our own door).
    pub is_retained_a_copy: bool,
}

/// What all devices share.
pub struct DeviceContext {
    /// Wall time.
    pub clock: Clock,
    /// Who may speak.
    pub allowlist: Allowlist,
    /// Where units of work go.
    pub writers: TelemetryWriters,
    /// Where steps of weighing sessions go.
    pub sessions: Sessions,
    /// Counters.
    pub stats: Arc<IngressStats>,
    /// How devices are treated.
    pub settings: IngressSettings,
}

/// Who speaks: a device, or a station on whose topics devices speak.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    /// Tenant.
    pub tenant_id: TenantId,
    /// Device or station.
    pub source: Source,
}

/// Makes device actors.
pub struct Devices(pub Arc<DeviceContext>);

impl Keyed for Devices {
    type Key = DeviceKey;
    type Child = DeviceActor;
    const KIND: &'static str = "device";

    fn make(&self, _: &DeviceKey) -> (DeviceActor, Arc<DeviceContext>) {
        (DeviceActor, Arc::clone(&self.0))
    }
}

/// The actor; see the head of this file.
pub struct DeviceActor;

/// What a device is told.
#[derive(Debug)]
pub enum Msg {
    /// It has sent a message.
    Deliver {
        /// Its parsed topic.
        topic: Arc<Topic>,
        /// The message.
        delivery: Delivery,
    },
}

/// What a device remembers.
pub struct State {
    context: Arc<DeviceContext>,
    seen_written_at: Option<Instant>,
}

impl Actor for DeviceActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<DeviceContext>;

    async fn pre_start(
        &self,
        _: ActorRef<Msg>,
        context: Arc<DeviceContext>,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { context, seen_written_at: None })
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Msg::Deliver { topic, delivery } = message;
        state.deliver(&topic, delivery).await;
        Ok(())
    }
}

impl State {
    async fn deliver(&mut self, topic: &Topic, delivery: Delivery) {
        if delivery.is_out_of_turn() {
            return;
        }
        let context = Arc::clone(&self.context);
        let hash = hex::encode(Sha256::digest(&delivery.payload));
        let decoded =
            Envelope::decode(topic, &delivery.payload, &hash, delivery.arrived_at, context.settings.dialects);
        let envelope = match decoded {
            Ok(envelope) => envelope,
            Err(reject) => return context.refuse(delivery, reject, None),
        };
        if let Err(reject) = context.allowed(topic, &envelope, delivery.received_at).await {
            return context.refuse(delivery, reject, Some(envelope.event_id));
        }
        if let Topic::WeighVision { place, station_id, session_id, event_type } = topic {
            let step = match Step::decode(event_type, &envelope.payload) {
                Ok(step) => step,
                Err(reject) => return context.refuse(delivery, reject, Some(envelope.event_id)),
            };
            context.stats.valid(topic.kind(), &envelope, delivery.arrived_at);
            let order = order(place, station_id, session_id, step, &envelope, &delivery, hash);
            let seen = self.sign_of_life(place, &envelope, &delivery, false);
            return context.sessions.deliver(order, seen, delivery);
        }
        match context.unit(topic, &envelope, &delivery, hash) {
            Ok(unit) => {
                context.stats.valid(topic.kind(), &envelope, delivery.arrived_at);
                let is_status = matches!(unit, Unit::Status(_));
                let seen = self.sign_of_life(topic.place(), &envelope, &delivery, is_status);
                context.writers.put(Put {
                    kind: topic.kind(),
                    units: vec![unit],
                    seen,
                    receipt: Receipt::Delivery(delivery),
                });
            }
            Err(reject) => context.refuse(delivery, reject, Some(envelope.event_id)),
        }
    }

    /// A live message shows that the device lives; it is written down at intervals. A status message says it by itself.
    fn sign_of_life(
        &mut self,
        place: &Place,
        envelope: &Envelope,
        delivery: &Delivery,
        is_status: bool,
    ) -> Option<Seen> {
        let is_copy = delivery.retain && self.context.settings.is_retained_a_copy;
        let interval = Duration::from_secs(self.context.settings.last_seen_write_seconds);
        let is_due = self.seen_written_at.is_none_or(|at| at.elapsed() >= interval);
        if is_status || is_copy || !is_due {
            return None;
        }
        self.seen_written_at = Some(Instant::now());
        Some(Seen {
            tenant_id: place.tenant_id.to_string(),
            device_id: envelope.device_id.to_string(),
            at: delivery.arrived_at,
            topic: delivery.topic.to_string(),
        })
    }
}

impl DeviceContext {
    /// Counts a refusal, has it recorded, and acknowledges the message then.
    pub fn refuse(&self, delivery: Delivery, reject: Reject, event_id: Option<String>) {
        refusal::refuse(&self.stats, &self.writers, delivery, reject, event_id);
    }

    /// Step 8: the allowlists. While they cannot be read the message waits, since a failure is not a refusal.
    async fn allowed(&self, topic: &Topic, envelope: &Envelope, asked_at: Instant) -> Result<(), Reject> {
        loop {
            match self.try_allowed(topic, envelope, asked_at).await {
                Ok(judgement) => return judgement,
                Err(error) => {
                    self.stats.processing_failed();
                    tracing::debug!(%error, "allowlist could not be read, asking again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn try_allowed(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        asked_at: Instant,
    ) -> Result<Result<(), Reject>, schema::store::StoreError> {
        let place = topic.place();
        let device_id = envelope.device_id.as_str();
        let Source::Station(station_id) = topic.source() else {
            return Ok(self.allowlist.device(place, device_id, asked_at).await?.map(drop));
        };
        if let Err(reject) = self.allowlist.station(place, station_id.as_str(), asked_at).await? {
            return Ok(Err(reject));
        }
        let is_known = self.allowlist.known_device(place.tenant_id.as_str(), device_id).is_some();
        if is_known || self.settings.is_weighvision_device_required {
            return Ok(self.allowlist.device(place, device_id, asked_at).await?.map(drop));
        }
        Ok(Ok(()))
    }

    /// Step 9: what the message amounts to.
    fn unit(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        delivery: &Delivery,
        hash: String,
    ) -> Result<Unit, Reject> {
        match topic {
            Topic::Telemetry { place, metric, .. } => {
                let reading = payload::Reading::decode(&envelope.payload)?;
                Ok(Unit::Reading(self.reading(place, metric, envelope, delivery, reading, hash)))
            }
            Topic::Event { place, .. } => Ok(Unit::Event(self.event(place, envelope, delivery, hash)?)),
            // Sessions take these themselves.
            Topic::WeighVision { .. } => Err(Reason::NoRoute.into()),
            Topic::Status { place, device_id } => Ok(Unit::Status(StatusReport {
                tenant_id: place.tenant_id.to_string(),
                device_id: device_id.to_string(),
                topic: delivery.topic.to_string(),
                status: Status::decode(&envelope.payload),
                hash,
                occurred_at: envelope.occurred_at,
                received_at: delivery.arrived_at,
                is_retained_copy: delivery.retain && self.settings.is_retained_a_copy,
            })),
        }
    }

    fn reading(
        &self,
        place: &Place,
        metric: &str,
        envelope: &Envelope,
        delivery: &Delivery,
        reading: payload::Reading,
        hash: String,
    ) -> Reading {
        Reading {
            id: id::new_id(),
            outbox_id: id::outbox_id(place.tenant_id.as_str(), &envelope.event_id),
            tenant_id: place.tenant_id.to_string(),
            farm_id: place.farm_id.to_string(),
            barn_id: place.barn_id.to_string(),
            device_id: envelope.device_id.to_string(),
            event_id: envelope.event_id.clone(),
            metric: metric.to_owned(),
            value: reading.value,
            unit: reading.unit,
            occurred_at: envelope.occurred_at,
            trace_id: trace_id(envelope),
            topic: delivery.topic.to_string(),
            hash,
        }
    }

    fn event(
        &self,
        place: &Place,
        envelope: &Envelope,
        delivery: &Delivery,
        hash: String,
    ) -> Result<DeviceEvent, Reject> {
        Ok(DeviceEvent {
            id: id::new_id(),
            tenant_id: place.tenant_id.to_string(),
            farm_id: place.farm_id.to_string(),
            barn_id: place.barn_id.to_string(),
            device_id: envelope.device_id.to_string(),
            event_id: envelope.event_id.clone(),
            event_type: envelope.event_type.clone(),
            occurred_at: envelope.occurred_at,
            trace_id: trace_id(envelope),
            payload_json: payload::event_json(&delivery.payload)?,
            topic: delivery.topic.to_string(),
            hash,
            is_forwarded: self.settings.forward_events.contains(&envelope.event_type),
        })
    }
}

fn order(
    place: &Place,
    station_id: &StationId,
    session_id: &SessionId,
    step: Step,
    envelope: &Envelope,
    delivery: &Delivery,
    hash: String,
) -> Order {
    let (device_id, station_id) = (envelope.device_id.as_str(), station_id.as_str());
    Order {
        tenant_id: place.tenant_id.to_string(),
        session_id: session_id.to_string(),
        event_id: envelope.event_id.clone(),
        station_id: Some(station_id.to_owned()),
        device_id: Some(device_id.to_owned()),
        farm_id: Some(place.farm_id.to_string()),
        barn_id: Some(place.barn_id.to_string()),
        occurred_at: envelope.occurred_at,
        received_at: delivery.arrived_at,
        trace_id: trace_id(envelope),
        command: Command::of(step, place.farm_id.as_str(), place.barn_id.as_str(), device_id, station_id),
        mark: Some(Mark { topic: delivery.topic.to_string(), hash }),
        letter_id: None,
    }
}

fn trace_id(envelope: &Envelope) -> String {
    envelope.trace_id.clone().unwrap_or_else(|| id::new_id().to_string())
}

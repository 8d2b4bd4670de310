//! What a session is told to do, by whom, and under which key.

use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::store::session::Sender;
use schema::wire::event::{IMAGE_CAPTURED, SESSION_CREATED, SESSION_FINALIZED, WEIGHT_RECORDED};
use schema::wire::session::Step;
use serde::{Deserialize, Serialize};

/// A command for one session. As JSON it is the body of parked finalizes and of dead letters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Tenant.
    pub tenant_id: String,
    /// Session.
    pub session_id: String,
    /// Normal form of the event id.
    pub event_id: String,
    /// The station, where it is known: over HTTP by a create, or the only one of the device.
    pub station_id: Option<String>,
    /// The device, where it is known.
    pub device_id: Option<String>,
    /// The farm where it may act, where that is known.
    #[serde(default)]
    pub farm_id: Option<String>,
    /// The barn where it may act, where that is known.
    #[serde(default)]
    pub barn_id: Option<String>,
    /// When it happened, by the device's clock.
    pub occurred_at: Timestamp,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Trace id.
    pub trace_id: String,
    /// What to do.
    pub command: Command,
    /// How a repetition is known; `None` when the rows alone tell.
    #[serde(skip)]
    pub mark: Option<Mark>,
    /// The dead letter this order comes from.
    #[serde(skip)]
    pub letter_id: Option<Uuid>,
}

/// Where an order came from, for the dedupe mark.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// The topic, or `http:<route>`.
    pub topic: String,
    /// Hex SHA-256 of the body.
    pub hash: String,
}

impl Mark {
    /// Whether the order came over HTTP.
    #[must_use]
    pub fn is_of_call(&self) -> bool {
        self.topic.starts_with("http:")
    }
}

/// What a session is told to do.
///
/// It repeats the steps of a station and is a type of its own: a [`Step`] is what the wire says today, while this is read
/// from rows that older engines wrote as well, has the place with it, and knows what no station says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Begin, at the time of the order.
    Create {
        /// Farm.
        farm_id: String,
        /// Barn.
        barn_id: String,
        /// The device that weighs.
        device_id: String,
        /// Its station.
        station_id: String,
        /// The batch of animals, where known.
        batch_id: Option<String>,
    },
    /// Take a weight.
    Weight {
        /// A finite number, kg.
        weight_kg: f64,
    },
    /// Take an image.
    Image {
        /// The media id.
        media_object_id: String,
        /// Which camera.
        image_role: Option<String>,
        /// Hex SHA-256 that the device declares.
        sha256: Option<String>,
    },
    /// End.
    Finalize {
        /// When it ended, by the station's word.
        finalized_at: Option<Timestamp>,
    },
    /// Take an image, an inference result, or both; the session must be there.
    Attach {
        /// The media id.
        media_object_id: Option<String>,
        /// The inference result.
        result_id: Option<String>,
    },
    /// Be cancelled unless something has happened since.
    Cancel {
        /// The last change that counts as idle.
        idle_since: Timestamp,
    },
    /// Give up finalizes that have waited too long.
    Expire,
}

impl Command {
    /// The command of a station's step in a place.
    #[must_use]
    pub fn of(step: Step, farm_id: &str, barn_id: &str, device_id: &str, station_id: &str) -> Self {
        match step {
            Step::Create { batch_id } => Self::Create {
                farm_id: farm_id.to_owned(),
                barn_id: barn_id.to_owned(),
                device_id: device_id.to_owned(),
                station_id: station_id.to_owned(),
                batch_id,
            },
            Step::Weight { weight_kg } => Self::Weight { weight_kg },
            Step::Image { media_object_id, image_role, sha256 } => {
                Self::Image { media_object_id, image_role, sha256 }
            }
            Step::Finalize { finalized_at } => Self::Finalize { finalized_at },
        }
    }

    /// The type of event it stands for.
    #[must_use]
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::Create { .. } => SESSION_CREATED,
            Self::Weight { .. } => WEIGHT_RECORDED,
            Self::Image { .. } | Self::Attach { .. } => IMAGE_CAPTURED,
            Self::Finalize { .. } | Self::Expire | Self::Cancel { .. } => SESSION_FINALIZED,
        }
    }

    /// The image it brings.
    #[must_use]
    pub fn media_object_id(&self) -> Option<&str> {
        match self {
            Self::Image { media_object_id, .. } => Some(media_object_id),
            Self::Attach { media_object_id, .. } => media_object_id.as_deref(),
            Self::Create { .. }
            | Self::Weight { .. }
            | Self::Finalize { .. }
            | Self::Cancel { .. }
            | Self::Expire => None,
        }
    }

    /// The hash that the device declares of the image it brings.
    #[must_use]
    pub fn declared_sha256(&self) -> Option<&str> {
        if let Self::Image { sha256, .. } = self { sha256.as_deref() } else { None }
    }
}

impl Order {
    /// An order of the engine itself, which no device knows of.
    #[must_use]
    pub fn own(tenant_id: &str, session_id: &str, command: Command, now: Timestamp) -> Self {
        Self {
            tenant_id: tenant_id.to_owned(),
            session_id: session_id.to_owned(),
            event_id: String::new(),
            station_id: None,
            device_id: None,
            farm_id: None,
            barn_id: None,
            occurred_at: now,
            received_at: now,
            trace_id: String::new(),
            command,
            mark: None,
            letter_id: None,
        }
    }

    /// Who sends it, as far as it is known.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender {
            station_id: self.station_id.clone(),
            device_id: self.device_id.clone(),
            farm_id: self.farm_id.clone(),
            barn_id: self.barn_id.clone(),
        }
    }

    /// The same order from this sender.
    #[must_use]
    pub fn sent_by(self, sender: Sender) -> Self {
        let Sender { station_id, device_id, farm_id, barn_id } = sender;
        Self { station_id, device_id, farm_id, barn_id, ..self }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Parked finalizes and dead letters outlive the engine that wrote them.
    #[test]
    fn an_order_that_an_older_engine_kept_is_read() {
        let image = json!({"Image": {"media_object_id": "m-1", "image_role": null}});
        let finalize = json!({"Finalize": {"finalized_at": "2026-02-12T09:32:28Z"}});
        for command in [image, finalize, json!({"Weight": {"weight_kg": 0.2}})] {
            let kept = json!({"tenant_id": "t-001", "session_id": "s-1", "event_id": "e-1", "station_id": "st-01",
                "device_id": "wv-001", "occurred_at": "2026-02-12T09:32:15Z", "received_at": "2026-02-12T09:32:16Z",
                "trace_id": "tr-1", "command": command});
            let order = serde_json::from_value::<Order>(kept);
            assert!(order.is_ok(), "{command}: {order:?}");
        }
    }
}

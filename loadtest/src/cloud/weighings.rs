//! What the cloud knows of weighings: each session, and each picture and the weight that was read from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use schema::wire::event::{
    INFERENCE_COMPLETED, MEDIA_STORED, SESSION_AMENDED, SESSION_CREATED, SESSION_FINALIZED, WEIGHT_RECORDED,
};

/// A session as its events told it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeenSession {
    /// Its id.
    pub session_id: String,
    /// `weighvision.session.created` events.
    pub created: u64,
    /// `weighvision.session.finalized` events.
    pub finalized: u64,
    /// `weighvision.weight.recorded` events.
    pub weights: u64,
    /// Of the end or of the greatest amendment.
    pub image_count: u64,
}

/// A picture as its events told it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeenImage {
    /// Its id.
    pub media_id: String,
    /// `media.stored` events.
    pub stored: u64,
    /// `inference.completed` events.
    pub inferred: u64,
    /// The weight of the last of them, kilograms.
    pub predicted_kg: Option<f64>,
}

/// Everything of all tenants.
#[derive(Debug, Default)]
pub(crate) struct Weighings {
    sessions: BTreeMap<(String, String), SeenSession>,
    images: BTreeMap<(String, String), SeenImage>,
}

impl Weighings {
    /// Takes an event that was accepted for the first time.
    pub(crate) fn take(&mut self, tenant_id: &str, session_id: &str, event_type: &str, payload: &str) {
        match event_type {
            SESSION_CREATED | SESSION_FINALIZED | SESSION_AMENDED | WEIGHT_RECORDED => {
                self.session(tenant_id, session_id).take(event_type, &parse(payload));
            }
            MEDIA_STORED | INFERENCE_COMPLETED => {
                let payload = parse(payload);
                self.image(tenant_id, payload["media_id"].as_str().unwrap_or_default())
                    .take(event_type, &payload);
            }
            _ => {}
        }
    }

    /// Sessions of a tenant.
    pub(crate) fn sessions(&self, tenant_id: &str) -> Vec<SeenSession> {
        let is_asked = |((tenant, _), _): &(&(String, String), &SeenSession)| tenant == tenant_id;
        self.sessions.iter().filter(is_asked).map(|(_, session)| session.clone()).collect()
    }

    /// Pictures of a tenant.
    pub(crate) fn images(&self, tenant_id: &str) -> Vec<SeenImage> {
        let is_asked = |((tenant, _), _): &(&(String, String), &SeenImage)| tenant == tenant_id;
        self.images.iter().filter(is_asked).map(|(_, image)| image.clone()).collect()
    }

    fn session(&mut self, tenant_id: &str, session_id: &str) -> &mut SeenSession {
        let session = self.sessions.entry((tenant_id.to_owned(), session_id.to_owned())).or_default();
        session.session_id = session_id.to_owned();
        session
    }

    fn image(&mut self, tenant_id: &str, media_id: &str) -> &mut SeenImage {
        let image = self.images.entry((tenant_id.to_owned(), media_id.to_owned())).or_default();
        image.media_id = media_id.to_owned();
        image
    }
}

impl SeenSession {
    fn take(&mut self, event_type: &str, payload: &Value) {
        let counter = match event_type {
            SESSION_CREATED => &mut self.created,
            SESSION_FINALIZED => &mut self.finalized,
            WEIGHT_RECORDED => &mut self.weights,
            // An amendment may overtake another one; the greater count is the later.
            _ => return self.image_count = self.image_count.max(image_count(payload)),
        };
        *counter += 1;
        self.image_count = self.image_count.max(image_count(payload));
    }
}

impl SeenImage {
    fn take(&mut self, event_type: &str, payload: &Value) {
        if event_type == MEDIA_STORED {
            self.stored += 1;
        } else {
            self.inferred += 1;
            self.predicted_kg = payload["predicted_weight_kg"].as_f64();
        }
    }
}

fn image_count(payload: &Value) -> u64 {
    payload["image_count"].as_u64().unwrap_or_default()
}

fn parse(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or_default()
}

//! What the session endpoints are told: bodies read key by key, with all problems named at once.

use schema::clock::Timestamp;
use schema::id;
use schema::wire::time;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::error::Error;
use crate::http::query::Problems;

const NOT_AN_ID: &str = "must have 1 to 128 bytes and neither control characters nor any of / + #";
const NOT_AN_EVENT_ID: &str = "must have 1 to 200 bytes and no control characters";

/// Reads the keys of a body.
struct Keys<'a> {
    body: &'a Value,
    problems: Problems,
}

impl<'a> Keys<'a> {
    /// Of a body about the session of the path.
    fn about(session_id: &str, body: &'a Value) -> Self {
        let mut keys = Self { body, problems: Problems::default() };
        if !id::is_id(session_id) {
            keys.problems.push("id", NOT_AN_ID);
        }
        keys
    }

    fn optional(&mut self, key: &str, is_good: fn(&str) -> bool, problem: &str) -> Option<String> {
        let value = self.body.get(key).filter(|value| !value.is_null())?;
        let text = value.as_str().filter(|text| is_good(text));
        if text.is_none() {
            self.problems.push(key, if value.is_string() { problem } else { "must be a text" });
        }
        text.map(str::to_owned)
    }

    fn required(&mut self, key: &str, is_good: fn(&str) -> bool, problem: &str) -> String {
        self.demand(key);
        self.optional(key, is_good, problem).unwrap_or_default()
    }

    fn id(&mut self, key: &str) -> String {
        self.required(key, id::is_id, NOT_AN_ID)
    }

    fn event_id(&mut self) -> String {
        self.required("eventId", id::is_event_id, NOT_AN_EVENT_ID)
    }

    fn optional_time(&mut self, key: &str) -> Option<Timestamp> {
        let text = self.optional(key, |text| time::parse(text).is_some(), "is not a time")?;
        time::parse(&text)
    }

    fn time(&mut self, key: &str) -> Timestamp {
        self.demand(key);
        self.optional_time(key).unwrap_or_default()
    }

    fn number(&mut self, key: &str) -> f64 {
        self.demand(key);
        let value = self.body.get(key).filter(|value| !value.is_null());
        let number = value.and_then(Value::as_f64).filter(|number| number.is_finite());
        if value.is_some() && number.is_none() {
            self.problems.push(key, "must be a number");
        }
        number.unwrap_or_default()
    }

    fn demand(&mut self, key: &str) {
        if self.body.get(key).is_none_or(Value::is_null) {
            self.problems.push(key, "is required");
        }
    }
}

/// A session that begins.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"sessionId": "20260212_093215",
    "eventId": "be6ead4e-49b4-4366-a96b-edf9725f68bf", "tenantId": "t-001", "farmId": "f-001", "barnId": "b-001",
    "deviceId": "wv-001", "stationId": "st-01", "startAt": "2026-02-12T09:32:15.052Z", "batchId": null}))]
pub(in crate::http) struct CreateBody {
    /// Session, unique in the tenant.
    pub(super) session_id: String,
    /// Key of the event: the same as of its copy over MQTT.
    pub(super) event_id: String,
    /// Tenant.
    pub(super) tenant_id: String,
    /// Farm.
    pub(super) farm_id: String,
    /// Barn.
    pub(super) barn_id: String,
    /// The device that weighs.
    pub(super) device_id: String,
    /// Its station.
    pub(super) station_id: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub(super) start_at: Timestamp,
    /// The batch of animals.
    pub(super) batch_id: Option<String>,
}

impl CreateBody {
    pub(super) fn of(body: &Value) -> Result<Self, Error> {
        let mut keys = Keys { body, problems: Problems::default() };
        let create = Self {
            session_id: keys.id("sessionId"),
            event_id: keys.event_id(),
            tenant_id: keys.id("tenantId"),
            farm_id: keys.id("farmId"),
            barn_id: keys.id("barnId"),
            device_id: keys.id("deviceId"),
            station_id: keys.id("stationId"),
            start_at: keys.time("startAt"),
            batch_id: keys.optional("batchId", id::is_event_id, NOT_AN_EVENT_ID),
        };
        keys.problems.finish()?;
        Ok(create)
    }
}

/// A weight of a session.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"tenantId": "t-001", "weightKg": 0.2,
    "occurredAt": "2026-02-12T09:32:15.052Z", "eventId": "b90ef830-1448-40a2-9455-16158bd54c0e"}))]
pub(in crate::http) struct BindWeightBody {
    /// Tenant.
    pub(super) tenant_id: String,
    /// The weight, kg.
    pub(super) weight_kg: f64,
    /// When the scale said so.
    #[schema(value_type = String, format = DateTime)]
    pub(super) occurred_at: Timestamp,
    /// Key of the event: the same as of its copy over MQTT.
    pub(super) event_id: String,
}

impl BindWeightBody {
    pub(super) fn of(session_id: &str, body: &Value) -> Result<Self, Error> {
        let mut keys = Keys::about(session_id, body);
        let bind = Self {
            tenant_id: keys.id("tenantId"),
            weight_kg: keys.number("weightKg"),
            occurred_at: keys.time("occurredAt"),
            event_id: keys.event_id(),
        };
        keys.problems.finish()?;
        Ok(bind)
    }
}

/// An image of a session.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"tenantId": "t-001",
    "mediaObjectId": "eea13fa2-0fdd-5f21-b9ac-55c544ad6dc5", "occurredAt": "2026-02-12T09:32:15.052Z",
    "eventId": "55b0a79a-cce6-4419-b5ea-ea5fbe623070"}))]
pub(in crate::http) struct BindMediaBody {
    /// Tenant.
    pub(super) tenant_id: String,
    /// The media id.
    pub(super) media_object_id: String,
    /// When it was taken.
    #[schema(value_type = String, format = DateTime)]
    pub(super) occurred_at: Timestamp,
    /// Key of the event: the same as of its copy over MQTT.
    pub(super) event_id: String,
}

impl BindMediaBody {
    pub(super) fn of(session_id: &str, body: &Value) -> Result<Self, Error> {
        let mut keys = Keys::about(session_id, body);
        let bind = Self {
            tenant_id: keys.id("tenantId"),
            media_object_id: keys.id("mediaObjectId"),
            occurred_at: keys.time("occurredAt"),
            event_id: keys.event_id(),
        };
        keys.problems.finish()?;
        Ok(bind)
    }
}

/// What to attach: at least one of image and result.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"media_id": "eea13fa2-0fdd-5f21-b9ac-55c544ad6dc5", "inference_result_id": null,
    "captured_at": "2026-02-12T09:32:15.052Z"}))]
pub(in crate::http) struct AttachBody {
    /// The media id.
    pub(super) media_id: Option<String>,
    /// The inference result.
    pub(super) inference_result_id: Option<String>,
    /// When the image was taken; absent: now.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) captured_at: Option<Timestamp>,
}

impl AttachBody {
    pub(super) fn of(session_id: &str, body: &Value) -> Result<Self, Error> {
        let mut keys = Keys::about(session_id, body);
        let attach = Self {
            media_id: keys.optional("media_id", id::is_id, NOT_AN_ID),
            inference_result_id: keys.optional("inference_result_id", id::is_id, NOT_AN_ID),
            captured_at: keys.optional_time("captured_at"),
        };
        let has_none = |key: &str| body.get(key).is_none_or(Value::is_null);
        if has_none("media_id") && has_none("inference_result_id") {
            keys.problems.push("media_id", "name an image or an inference result");
        }
        keys.problems.finish()?;
        Ok(attach)
    }
}

/// The end of a session.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"tenantId": "t-001",
    "eventId": "19eb1489-7e18-43b0-8a3a-c7a4da2e1b08", "occurredAt": "2026-02-12T09:32:15.052Z"}))]
pub(in crate::http) struct FinalizeBody {
    /// Tenant.
    pub(super) tenant_id: String,
    /// Key of the event: the same as of its copy over MQTT.
    pub(super) event_id: String,
    /// When it ended; when that is not after its beginning, the time of the call counts.
    #[schema(value_type = String, format = DateTime)]
    pub(super) occurred_at: Timestamp,
}

impl FinalizeBody {
    pub(super) fn of(session_id: &str, body: &Value) -> Result<Self, Error> {
        let mut keys = Keys::about(session_id, body);
        let finalize = Self {
            tenant_id: keys.id("tenantId"),
            event_id: keys.event_id(),
            occurred_at: keys.time("occurredAt"),
        };
        keys.problems.finish()?;
        Ok(finalize)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_problem_of_a_body_is_named() {
        let body = json!({"weightKg": "5", "occurredAt": "soon", "eventId": 7});
        let error = BindWeightBody::of("a/b", &body).expect_err("a bad body");
        let expected = "id: must have 1 to 128 bytes and neither control characters nor any of / + #; \
            tenantId: is required; weightKg: must be a number; occurredAt: is not a time; eventId: must be a text";
        assert_eq!(error.message, expected);
        let error = AttachBody::of("s", &json!({"media_id": null})).expect_err("a bad body");
        assert_eq!(error.message, "media_id: name an image or an inference result");
    }
}

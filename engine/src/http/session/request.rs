//! What the session endpoints are told: bodies read key by key, with all problems named at once.

use actors::session::order::Command;
use schema::clock::Timestamp;
use schema::id;
use utoipa::ToSchema;

use crate::http::body::JsonBody;
use crate::http::error::Error;
use crate::http::fields::{Fields, Vocabulary};
use crate::http::query::NOT_AN_ID;

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
    pub(super) fn of(body: &JsonBody) -> Result<Self, Error> {
        let mut fields = Fields::spoken(body, Vocabulary::Camel)?;
        let create = Self {
            session_id: fields.id("session_id"),
            event_id: fields.event_id("event_id"),
            tenant_id: fields.id("tenant_id"),
            farm_id: fields.id("farm_id"),
            barn_id: fields.id("barn_id"),
            device_id: fields.id("device_id"),
            station_id: fields.id("station_id"),
            start_at: fields.time("start_at"),
            batch_id: fields.optional_id("batch_id"),
        };
        fields.finish()?;
        Ok(create)
    }
}

/// A weight of a session.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"tenantId": "t-001", "weightKg": 0.2,
    "occurredAt": "2026-02-12T09:32:15.052Z", "eventId": "b90ef830-1448-40a2-9455-16158bd54c0e"}))]
#[expect(dead_code, reason = "documents the body that is read key by key")]
pub(in crate::http) struct BindWeightBody {
    /// Tenant.
    tenant_id: String,
    /// The weight, kg.
    weight_kg: f64,
    /// When the scale said so.
    #[schema(value_type = String, format = DateTime)]
    occurred_at: Timestamp,
    /// Key of the event: the same as of its copy over MQTT.
    event_id: String,
}

/// An image of a session.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"tenantId": "t-001",
    "mediaObjectId": "eea13fa2-0fdd-5f21-b9ac-55c544ad6dc5", "occurredAt": "2026-02-12T09:32:15.052Z",
    "eventId": "55b0a79a-cce6-4419-b5ea-ea5fbe623070"}))]
#[expect(dead_code, reason = "documents the body that is read key by key")]
pub(in crate::http) struct BindMediaBody {
    /// Tenant.
    tenant_id: String,
    /// The media id.
    media_object_id: String,
    /// When it was taken.
    #[schema(value_type = String, format = DateTime)]
    occurred_at: Timestamp,
    /// Key of the event: the same as of its copy over MQTT.
    event_id: String,
}

/// The end of a session.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"tenantId": "t-001",
    "eventId": "19eb1489-7e18-43b0-8a3a-c7a4da2e1b08", "occurredAt": "2026-02-12T09:32:15.052Z"}))]
#[expect(dead_code, reason = "documents the body that is read key by key")]
pub(in crate::http) struct FinalizeBody {
    /// Tenant.
    tenant_id: String,
    /// Key of the event: the same as of its copy over MQTT.
    event_id: String,
    /// When it ended; when that is not after its beginning, the time of the call counts.
    #[schema(value_type = String, format = DateTime)]
    occurred_at: Timestamp,
}

/// What a device reports of the session in the path: one of the three bodies above.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) tenant_id: String,
    pub(super) event_id: String,
    pub(super) occurred_at: Timestamp,
    pub(super) command: Command,
}

impl Report {
    /// A [`BindWeightBody`].
    pub(super) fn of_weight(session_id: &str, body: &JsonBody) -> Result<Self, Error> {
        Self::of(session_id, body, |fields| Command::Weight { weight_kg: fields.number("weight_kg") })
    }

    /// A [`BindMediaBody`].
    pub(super) fn of_image(session_id: &str, body: &JsonBody) -> Result<Self, Error> {
        Self::of(session_id, body, |fields| {
            let media_object_id = fields.id("media_object_id");
            Command::Image { media_object_id, image_role: None, sha256: None }
        })
    }

    /// A [`FinalizeBody`].
    pub(super) fn of_end(session_id: &str, body: &JsonBody) -> Result<Self, Error> {
        Self::of(session_id, body, |_| Command::Finalize { finalized_at: None })
    }

    fn of(
        session_id: &str,
        body: &JsonBody,
        command: impl FnOnce(&mut Fields) -> Command,
    ) -> Result<Self, Error> {
        let mut fields = about(session_id, body, Vocabulary::Camel)?;
        let report = Self {
            tenant_id: fields.id("tenant_id"),
            command: command(&mut fields),
            occurred_at: fields.time("occurred_at"),
            event_id: fields.event_id("event_id"),
        };
        fields.finish()?;
        Ok(report)
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
    pub(super) fn of(session_id: &str, body: &JsonBody) -> Result<Self, Error> {
        let mut fields = about(session_id, body, Vocabulary::Snake)?;
        let attach = Self {
            media_id: fields.optional_id("media_id"),
            inference_result_id: fields.optional_id("inference_result_id"),
            captured_at: fields.optional_time("captured_at"),
        };
        if !fields.is_given("media_id") && !fields.is_given("inference_result_id") {
            fields.problem("media_id", "name an image or an inference result");
        }
        fields.finish()?;
        Ok(attach)
    }
}

/// The keys of a body about the session of the path.
fn about(session_id: &str, body: &JsonBody, vocabulary: Vocabulary) -> Result<Fields, Error> {
    let mut fields = Fields::spoken(body, vocabulary)?;
    if !id::is_id(session_id) {
        fields.problem("id", NOT_AN_ID);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_problem_of_a_body_is_named() {
        let json_body = |body: Value| JsonBody(body.to_string().into());
        let body = json!({"weightKg": "5", "occurredAt": "soon", "eventId": 7});
        let error = Report::of_weight("a/b", &json_body(body)).expect_err("a bad body");
        let expected = "id: must have 1 to 128 bytes and neither control characters nor any of / + #; \
            tenantId: is required; weightKg: must be a number; occurredAt: is not a time; eventId: must be a text";
        assert_eq!(error.message, expected);
        let error = AttachBody::of("s", &json_body(json!({"media_id": null}))).expect_err("a bad body");
        assert_eq!(error.message, "media_id: name an image or an inference result");
    }
}

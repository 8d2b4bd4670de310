//! What the session endpoints answer.

use schema::id::Uuid;
use schema::store::session::{Image, Weight};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::time::Time;

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "sessionId": "20260212_093215",
    "tenantId": "t-001", "farmId": "f-001", "barnId": "b-001", "deviceId": "wv-001", "stationId": "st-01",
    "batchId": null, "status": "finalized", "startAt": "2026-02-12T09:32:15.052Z",
    "endAt": "2026-02-12T09:32:28.660Z", "initialWeightKg": 0.2, "finalWeightKg": 0.2, "imageCount": 2,
    "inferenceResultId": null, "createdAt": "2026-02-12T09:32:28.300Z", "updatedAt": "2026-02-12T09:32:28.700Z"}))]
pub(in crate::http) struct SessionRow {
    /// Row id.
    pub(super) id: Uuid,
    /// Session, unique in the tenant.
    pub(super) session_id: String,
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
    /// The batch of animals.
    pub(super) batch_id: Option<String>,
    /// `created`, `finalized` or `cancelled`.
    pub(super) status: &'static str,
    /// When it began.
    pub(super) start_at: Time,
    /// When it ended.
    pub(super) end_at: Option<Time>,
    /// The earliest weight, kg.
    pub(super) initial_weight_kg: Option<f64>,
    /// The latest weight of a finalized session, kg.
    pub(super) final_weight_kg: Option<f64>,
    /// Different images bound to it.
    pub(super) image_count: i32,
    /// The newest inference result.
    pub(super) inference_result_id: Option<String>,
    /// When it was stored.
    pub(super) created_at: Time,
    /// When it last changed.
    pub(super) updated_at: Time,
}

/// A session with its weights.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SessionView {
    #[serde(flatten)]
    pub(super) session: SessionRow,
    /// The earliest first; at most 1000.
    pub(super) weights: Vec<WeightRow>,
}

/// A weight.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct WeightRow {
    /// Row id.
    id: Uuid,
    /// Session.
    #[schema(example = "20260212_093215")]
    session_id: String,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// The weight, kg.
    #[schema(example = 0.2)]
    weight_kg: f64,
    /// When the scale said so.
    occurred_at: Time,
    /// Its event.
    event_id: String,
    /// Trace id.
    trace_id: Option<String>,
    /// When it was stored.
    created_at: Time,
}

impl From<Weight> for WeightRow {
    fn from(row: Weight) -> Self {
        Self {
            id: row.id,
            session_id: row.session_id,
            tenant_id: row.tenant_id,
            weight_kg: row.weight_kg,
            occurred_at: row.occurred_at.into(),
            event_id: row.event_id,
            trace_id: row.trace_id,
            created_at: row.created_at.into(),
        }
    }
}

/// An image bound to a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ImageRow {
    /// Row id.
    id: Uuid,
    /// Session.
    #[schema(example = "20260212_093215")]
    session_id: String,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// The media id.
    media_object_id: String,
    /// When it was taken.
    occurred_at: Time,
    /// Its event.
    event_id: String,
    /// Trace id.
    trace_id: Option<String>,
    /// Whether the session is there.
    is_bound: bool,
    /// When it was stored.
    created_at: Time,
}

impl From<Image> for ImageRow {
    fn from(row: Image) -> Self {
        Self {
            id: row.id,
            session_id: row.session_id,
            tenant_id: row.tenant_id,
            media_object_id: row.media_object_id,
            occurred_at: row.occurred_at.into(),
            event_id: row.event_id,
            trace_id: row.trace_id,
            is_bound: row.is_bound,
            created_at: row.created_at.into(),
        }
    }
}

/// What was attached.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Attachment {
    /// The session.
    pub(super) session: SessionRow,
    /// The image, when one was named.
    pub(super) media_binding: Option<ImageRow>,
}

/// A finalize that waits for its session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ParkedFinalize {
    /// `parked`.
    #[schema(example = "parked")]
    pub(super) status: &'static str,
    /// Session.
    #[schema(example = "20260212_093215")]
    pub(super) session_id: String,
    /// Its event.
    pub(super) event_id: String,
}

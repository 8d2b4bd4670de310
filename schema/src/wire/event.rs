//! Events: the types devices send, the types the cloud receives, and the payloads of the latter.

use serde::Serialize;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::wire::time;

/// The only event type of telemetry topics.
pub const TELEMETRY_READING: &str = "telemetry.reading";
/// What a bare status message is lifted to.
pub const STATUS: &str = "device.status";

/// To the cloud: a stored reading.
pub const TELEMETRY_INGESTED: &str = "telemetry.ingested";
/// To the cloud: a closed aggregate bucket, when switched on.
pub const TELEMETRY_AGGREGATED: &str = "telemetry.aggregated";
/// From a station and to the cloud: a weighing session begins.
pub const SESSION_CREATED: &str = "weighvision.session.created";
/// From a station and to the cloud: a weight of a session.
pub const WEIGHT_RECORDED: &str = "weighvision.weight.recorded";
/// From a station: an image of a session.
pub const IMAGE_CAPTURED: &str = "weighvision.image.captured";
/// From a station: another name for an image of a session.
pub const MEDIA_BOUND: &str = "media.bound";
/// From a station: another name for an image of a session; to the cloud: an image is stored.
pub const MEDIA_STORED: &str = "media.stored";
/// From a station and to the cloud: a weighing session ends.
pub const SESSION_FINALIZED: &str = "weighvision.session.finalized";
/// To the cloud: a session changed after it was finalized.
pub const SESSION_AMENDED: &str = "weighvision.session.amended";
/// To the cloud: a model has looked at an image.
pub const INFERENCE_COMPLETED: &str = "inference.completed";

/// Payload of [`MEDIA_STORED`] to the cloud.
#[derive(Debug, Serialize)]
pub struct MediaStored<'a> {
    /// The image.
    pub media_id: Uuid,
    /// The same.
    pub object_id: Uuid,
    /// Its key.
    pub object_key: &'a str,
    /// The same.
    pub path: &'a str,
    /// Its bucket.
    pub bucket: &'a str,
    /// Its entity tag, without quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<&'a str>,
    /// When it was taken.
    #[serde(serialize_with = "time::serialize")]
    pub captured_at: Timestamp,
    /// Its type.
    pub mime_type: &'a str,
    /// Its size.
    pub size_bytes: i64,
    /// Hex SHA-256 of its bytes, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<&'a str>,
    /// Its session, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<&'a str>,
    /// Tenant.
    pub tenant_id: &'a str,
    /// Farm.
    pub farm_id: &'a str,
    /// Barn.
    pub barn_id: &'a str,
    /// The camera.
    pub device_id: &'a str,
}

/// Payload of [`TELEMETRY_INGESTED`].
#[derive(Debug, Serialize)]
pub struct TelemetryIngested<'a> {
    /// Row id in `telemetry_raw`.
    pub telemetry_raw_id: Uuid,
    /// Tenant of the device.
    pub tenant_id: &'a str,
    /// The measuring device.
    pub device_id: &'a str,
    /// What was measured.
    pub metric_type: &'a str,
    /// The value, in `unit`.
    pub metric_value: f64,
    /// The unit as the device names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'a str>,
    /// When it was measured.
    #[serde(serialize_with = "time::serialize")]
    pub occurred_at: Timestamp,
}

/// Payload of [`SESSION_CREATED`].
#[derive(Debug, Serialize)]
pub struct SessionCreated<'a> {
    /// The session and its place.
    #[serde(flatten)]
    pub session: SessionPlace<'a>,
    /// The batch of animals, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<&'a str>,
    /// When it began.
    #[serde(serialize_with = "time::serialize")]
    pub start_at: Timestamp,
}

/// A session and its place, in every payload about it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SessionPlace<'a> {
    /// Session.
    pub session_id: &'a str,
    /// Tenant.
    pub tenant_id: &'a str,
    /// Farm.
    pub farm_id: &'a str,
    /// Barn.
    pub barn_id: &'a str,
    /// The device that weighs.
    pub device_id: &'a str,
    /// Its station.
    pub station_id: &'a str,
}

/// Payload of [`WEIGHT_RECORDED`].
#[derive(Debug, Serialize)]
pub struct WeightRecorded<'a> {
    /// The session and its place.
    #[serde(flatten)]
    pub session: SessionPlace<'a>,
    /// The weight.
    pub weight_kg: f64,
    /// When the scale said so.
    #[serde(serialize_with = "time::serialize")]
    pub occurred_at: Timestamp,
}

/// Payload of [`SESSION_FINALIZED`].
#[derive(Debug, Serialize)]
pub struct SessionFinalized<'a> {
    /// The session and its place.
    #[serde(flatten)]
    pub session: SessionPlace<'a>,
    /// The batch of animals, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<&'a str>,
    /// The last weight; left out when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_weight_kg: Option<f64>,
    /// Images bound to it.
    pub image_count: i32,
    /// When it began.
    #[serde(serialize_with = "time::serialize")]
    pub start_at: Timestamp,
    /// When it ended.
    #[serde(serialize_with = "time::serialize")]
    pub end_at: Timestamp,
}

/// Payload of [`SESSION_AMENDED`].
#[derive(Debug, Serialize)]
pub struct SessionAmended<'a> {
    /// The session and its place.
    #[serde(flatten)]
    pub session: SessionPlace<'a>,
    /// The last weight now; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_weight_kg: Option<f64>,
    /// Images bound to it now.
    pub image_count: i32,
    /// 1 for the first amendment.
    pub amendment: i32,
    /// `weight` or `image`.
    pub cause: &'static str,
    /// The late child's event.
    pub cause_event_id: &'a str,
    /// The last weight before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_final_weight_kg: Option<f64>,
    /// Images bound before.
    pub previous_image_count: i32,
}

/// Payload of [`INFERENCE_COMPLETED`].
#[derive(Debug, Serialize)]
pub struct InferenceCompleted<'a> {
    /// Row id in `inference_results`.
    pub inference_result_id: Uuid,
    /// The image.
    pub media_id: Uuid,
    /// Its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<&'a str>,
    /// The weight, kg. It is always there, and null when there is no bird in the image: that is a result, too.
    pub predicted_weight_kg: Option<f64>,
    /// From 0 to 1.
    pub confidence: f64,
    /// The model that said it.
    pub model_version: &'a str,
    /// When.
    #[serde(serialize_with = "time::serialize")]
    pub occurred_at: Timestamp,
    /// Tenant of the camera.
    pub tenant_id: &'a str,
    /// Its farm.
    pub farm_id: &'a str,
    /// Its barn.
    pub barn_id: &'a str,
    /// The camera.
    pub device_id: &'a str,
}

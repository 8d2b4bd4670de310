//! Readings over HTTP: taken in, listed, aggregated, counted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::Duration;
use schema::id::Uuid;
use schema::store::aggregate::{self, Aggregate, BucketPlace};
use schema::store::page::Place;
use schema::store::telemetry::{self as rows, StoredReading, TimeRange};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::chart::{self, ChartBody, ChartQuery};
use super::cursor::{self, Micros, ReadingKey};
use super::error::Error;
use super::query::Params;
use super::time::Time;

pub(super) mod intake;

/// What a list of readings is narrowed to.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read one by one")]
pub(super) struct RangeQuery {
    /// Tenant.
    #[param(example = "t-001")]
    tenant_id: String,
    /// One device of it.
    #[param(example = "d-001")]
    device_id: Option<String>,
    /// First time, inclusive.
    #[param(format = DateTime, example = "2026-02-12T00:00:00Z")]
    start_time: Option<String>,
    /// Last time, inclusive.
    #[param(format = DateTime, example = "2026-02-12T23:59:59.999Z")]
    end_time: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
}

/// The values of [`RangeQuery`], as far as they could be read.
pub(super) struct Range {
    tenant_id: String,
    device_id: Option<String>,
    start: Option<schema::clock::Timestamp>,
    end: Option<schema::clock::Timestamp>,
    limit: i64,
}

impl Range {
    pub(super) fn of(params: &mut Params) -> Self {
        Self {
            tenant_id: params.required_id("tenant_id"),
            device_id: params.id("device_id"),
            start: params.time("start_time"),
            end: params.time("end_time"),
            limit: params.limit(),
        }
    }

    /// The range for a statement, once the caller may see the tenant.
    pub(super) fn allowed(&self, call: &Call) -> Result<TimeRange<'_>, Error> {
        call.read_tenant(Some(&self.tenant_id))?;
        Ok(TimeRange {
            tenant_id: &self.tenant_id,
            device_id: self.device_id.as_deref(),
            start: self.start,
            end: self.end,
            limit: self.limit,
        })
    }
}

/// A stored reading.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadingRow {
    /// Row id.
    id: Uuid,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// Farm, where known.
    #[schema(example = "f-001")]
    farm_id: Option<String>,
    /// Barn, where known.
    #[schema(example = "b-001")]
    barn_id: Option<String>,
    /// The measuring device.
    #[schema(example = "d-001")]
    device_id: String,
    /// What was measured.
    #[schema(example = "temperature")]
    metric_type: String,
    /// The value.
    #[schema(example = 25.5)]
    metric_value: f64,
    /// Its unit.
    #[schema(example = "celsius")]
    unit: Option<String>,
    /// When it was measured.
    occurred_at: Time,
    /// When it was stored.
    ingested_at: Time,
}

impl From<StoredReading> for ReadingRow {
    fn from(row: StoredReading) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            device_id: row.device_id,
            metric_type: row.metric_type,
            metric_value: row.metric_value,
            unit: row.unit,
            occurred_at: row.occurred_at.into(),
            ingested_at: row.ingested_at.into(),
        }
    }
}

/// Readings, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadingList {
    readings: Vec<ReadingRow>,
    /// How many there are in this list.
    count: usize,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Lists readings, newest first.
#[utoipa::path(get, path = "/api/v1/telemetry/readings", tag = "telemetry", params(RangeQuery),
    responses((status = 200, description = "The readings", body = ReadingList)))]
pub(super) async fn list_readings(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<ReadingList>, Error> {
    let (range, after) = (Range::of(&mut params), params.after::<ReadingKey>());
    params.finish()?;
    let range = range.allowed(&call)?;
    let read = async |conn: &mut _| rows::readings(conn, &range, after.map(Place::from)).await;
    let found = state.reads.run("readings", read).await?;
    let place = |last: &StoredReading| Place { at: last.occurred_at, id: last.id };
    let next = cursor::behind(&found, range.limit, |last| ReadingKey::from(place(last)));
    let readings: Vec<_> = found.into_iter().map(ReadingRow::from).collect();
    Ok(Json(ReadingList { count: readings.len(), readings, next }))
}

/// Readings of one device and metric over one stretch of time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AggregateRow {
    /// Row id.
    id: Uuid,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// The measuring device.
    #[schema(example = "d-001")]
    device_id: String,
    /// `1m`, `1h` or `1d`.
    #[schema(example = "1h")]
    window: String,
    /// First instant of the bucket.
    bucket_start_at: Time,
    /// First instant after it.
    bucket_end_at: Time,
    /// What was measured.
    #[schema(example = "temperature")]
    metric_type: String,
    /// Mean.
    avg_value: f64,
    /// Smallest value.
    min_value: f64,
    /// Largest value.
    max_value: f64,
    /// Readings in the bucket.
    count: i32,
}

impl From<Aggregate> for AggregateRow {
    fn from(row: Aggregate) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            device_id: row.device_id,
            window: row.window,
            bucket_start_at: row.bucket_start_at.into(),
            bucket_end_at: row.bucket_end_at.into(),
            metric_type: row.metric_type,
            avg_value: row.avg_value,
            min_value: row.min_value,
            max_value: row.max_value,
            count: row.count,
        }
    }
}

/// A bucket's place in the list, as its cursors have it.
#[derive(Serialize, Deserialize)]
struct AggregateKey(Micros, String, String);

impl cursor::Key for AggregateKey {
    const LIST: &'static str = "aggregates";
}

impl AggregateKey {
    fn of(last: &Aggregate) -> Self {
        Self(Micros(last.bucket_start_at), last.device_id.clone(), last.metric_type.clone())
    }
}

impl From<AggregateKey> for BucketPlace {
    fn from(AggregateKey(start_at, device_id, metric_type): AggregateKey) -> Self {
        Self { start_at: start_at.0, device_id, metric_type }
    }
}

/// Aggregates, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AggregateList {
    aggregates: Vec<AggregateRow>,
    /// How many there are in this list.
    count: usize,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// The stretch of time of an aggregate.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameter that is read by hand")]
pub(super) struct WindowQuery {
    /// `1m`, `1h` or `1d`.
    #[param(default = "1h")]
    window: Option<String>,
}

const WINDOWS: [(&str, &str); 3] = [("1m", "1m"), ("1h", "1h"), ("1d", "1d")];

/// Lists aggregates that lie wholly within the range, newest first. With `bucket` it is a chart: columns for each device and
/// metric, in buckets of a time zone, with what was wrong with the sensors.
#[utoipa::path(get, path = "/api/v1/telemetry/aggregates", tag = "telemetry", params(RangeQuery, WindowQuery, ChartQuery),
    responses((status = 200, description = "The aggregates, or the chart", body = AggregateAnswer)))]
pub(super) async fn list_aggregates(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<AggregateAnswer>, Error> {
    if params.is_given("bucket") {
        return Ok(Json(AggregateAnswer::Columns(chart::read(&state, &call, params).await?)));
    }
    let range = Range::of(&mut params);
    let window = params.one_of("window", &WINDOWS).unwrap_or("1h");
    let metric_type = params.id("metric_type");
    let after = params.after::<AggregateKey>().map(BucketPlace::from);
    params.finish()?;
    let range = range.allowed(&call)?;
    let read = async |conn: &mut _| {
        aggregate::aggregates(conn, &range, window, metric_type.as_deref(), after.as_ref()).await
    };
    let found = state.reads.run("aggregates", read).await?;
    let next = cursor::behind(&found, range.limit, AggregateKey::of);
    let aggregates: Vec<_> = found.into_iter().map(AggregateRow::from).collect();
    Ok(Json(AggregateAnswer::Rows(AggregateList { count: aggregates.len(), aggregates, next })))
}

/// Rows, or columns where `bucket` is given.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum AggregateAnswer {
    /// Without `bucket`.
    Rows(AggregateList),
    /// With `bucket`.
    Columns(ChartBody),
}

/// Which tenant is counted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameter that is read by hand")]
pub(super) struct TenantQuery {
    /// Tenant; may be named by `x-tenant-id` or the credential instead.
    #[param(example = "t-001")]
    tenant_id: Option<String>,
}

/// How busy telemetry is. The operator page reads these names.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TelemetryMetrics {
    /// Readings stored during the last minute.
    ingestion_rate_per_minute: i64,
    /// Readings stored.
    total_readings: i64,
    /// Aggregate rows.
    total_aggregates: i64,
}

/// Counts readings for the operator page.
#[utoipa::path(get, path = "/api/v1/telemetry/metrics", tag = "telemetry", params(TenantQuery),
    responses((status = 200, description = "The counts", body = TelemetryMetrics)))]
pub(super) async fn telemetry_metrics(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<TelemetryMetrics>, Error> {
    let named = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.read_tenant(named.as_deref())?;
    let since = state.clock.now() - Duration::minutes(1);
    let count = async |conn: &mut _| {
        let totals = rows::totals(conn, tenant_id.as_deref()).await?;
        Ok((totals, rows::stored_since(conn, tenant_id.as_deref(), since).await?))
    };
    let (totals, ingestion_rate_per_minute) = state.reads.run("telemetry_metrics", count).await?;
    Ok(Json(TelemetryMetrics {
        ingestion_rate_per_minute,
        total_readings: totals.readings,
        total_aggregates: totals.aggregates,
    }))
}

/// How much telemetry there is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TelemetryStats {
    /// Readings stored.
    total_readings: i64,
    /// Aggregate rows.
    total_aggregates: i64,
    /// Time of the newest reading; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reading_at: Option<Time>,
    /// Whose they are; left out when they are those of all tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<String>,
}

/// Counts readings.
#[utoipa::path(get, path = "/api/v1/telemetry/stats", tag = "telemetry", params(TenantQuery),
    responses((status = 200, description = "The counts", body = TelemetryStats)))]
pub(super) async fn telemetry_stats(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<TelemetryStats>, Error> {
    let named = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.read_tenant(named.as_deref())?;
    let count = async |conn: &mut _| rows::totals(conn, tenant_id.as_deref()).await;
    let totals = state.reads.run("telemetry_stats", count).await?;
    Ok(Json(TelemetryStats {
        total_readings: totals.readings,
        total_aggregates: totals.aggregates,
        last_reading_at: totals.last_reading_at.map(Time),
        tenant_id,
    }))
}

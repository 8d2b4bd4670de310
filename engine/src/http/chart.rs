//! Charts over HTTP: columns of several devices, in buckets of a time zone.

use actors::chart::{self, Ask, Bucket, Chart, ChartError, DEVICES_MAX, Line};
use chrono::NaiveDate;
use schema::store::fault::Fault;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::error::Error;
use super::query::Params;
use super::time::Time;

/// What is charted. `device_id` may be given up to 50 times here, `start_time` and `end_time` are those of the buckets, and
/// `limit` means nothing.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct ChartQuery {
    /// Only this metric.
    #[param(example = "temperature")]
    metric_type: Option<String>,
    /// Makes it a chart: `5m`, `15m`, `1h` or `1d`.
    bucket: Option<String>,
    /// Whose hours and midnights: a name of the IANA database. Those of the barn where one is named and known, else UTC's.
    #[param(example = "Asia/Bangkok")]
    tz: Option<String>,
    /// The devices that the allowlist has in this barn, where none is named.
    #[param(example = "b-001")]
    barn_id: Option<String>,
    /// Farm of the barn, where several have one of its name.
    farm_id: Option<String>,
}

/// A stretch of time in which a sensor could not be believed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FaultBody {
    /// `range`, `spike`, `rate`, `stuck`, `gap`, `neighbors` or `clock`.
    #[schema(example = "stuck")]
    test: String,
    /// `suspect`, `missing` or `fail`.
    #[schema(example = "suspect")]
    level: String,
    /// Its first reading.
    from: Time,
    /// Its last.
    until: Time,
    /// How many readings are flagged.
    #[schema(example = 31)]
    readings: i64,
}

impl From<Fault> for FaultBody {
    fn from(fault: Fault) -> Self {
        Self {
            test: fault.test,
            level: fault.level,
            from: fault.from_at.into(),
            until: fault.until_at.into(),
            readings: fault.readings,
        }
    }
}

/// One metric of one device: columns of one length, in the order of time. Buckets without readings are not among them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SeriesBody {
    #[schema(example = "d-001")]
    device_id: String,
    #[schema(example = "temperature")]
    metric_type: String,
    /// When each bucket begins.
    t: Vec<Time>,
    /// Of `1d` alone: the day of each bucket where the zone is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    day: Option<Vec<NaiveDate>>,
    min: Vec<f64>,
    avg: Vec<f64>,
    max: Vec<f64>,
    /// Readings in each bucket.
    count: Vec<i64>,
    /// What was wrong with the sensor in this time. Its values are told all the same.
    faults: Vec<FaultBody>,
}

/// A chart.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"bucket": "5m", "tz": "Asia/Bangkok", "series": [{"device_id": "d-001", "metric_type": "temperature",
    "t": ["2026-02-12T09:30:00.000Z"], "min": [27.1], "avg": [27.3], "max": [27.4], "count": [5], "faults": []}]}))]
pub(super) struct ChartBody {
    /// `5m`, `15m`, `1h` or `1d`.
    bucket: &'static str,
    /// Whose hours and midnights.
    tz: &'static str,
    /// By device and metric.
    series: Vec<SeriesBody>,
}

impl ChartBody {
    fn of(chart: Chart, bucket: Bucket) -> Self {
        let days = |line: &Line| line.points.iter().filter_map(|point| chart.day(point.bucket)).collect();
        let series = |line: &Line| SeriesBody {
            device_id: line.device_id.clone(),
            metric_type: line.metric_type.clone(),
            t: line
                .points
                .iter()
                .filter_map(|point| chart.edges.get(point.bucket))
                .map(|at| Time(*at))
                .collect(),
            day: (bucket == Bucket::Day).then(|| days(line)),
            min: line.points.iter().map(|point| point.min).collect(),
            avg: line.points.iter().map(|point| point.avg).collect(),
            max: line.points.iter().map(|point| point.max).collect(),
            count: line.points.iter().map(|point| point.count).collect(),
            faults: line.faults.iter().cloned().map(FaultBody::from).collect(),
        };
        Self {
            bucket: bucket.as_str(),
            tz: chart.zone.name(),
            series: chart.lines.iter().map(series).collect(),
        }
    }
}

/// Reads the chart that a call asks for.
///
/// # Errors
/// When the query cannot be read, asks for too much or for another tenant's, and when the database fails.
pub(super) async fn read(state: &AppState, call: &Call, mut params: Params) -> Result<ChartBody, Error> {
    let buckets = Bucket::ALL.map(|bucket| (bucket.as_str(), bucket));
    let (tenant_id, devices) = (params.id("tenant_id"), params.ids("device_id"));
    let bucket = params.one_of("bucket", &buckets).unwrap_or(Bucket::Hour);
    let ask = Ask {
        tenant_id: String::new(),
        farm_id: params.id("farm_id"),
        barn_id: params.id("barn_id"),
        metric_type: params.id("metric_type"),
        from: params.time("start_time"),
        to: params.time("end_time"),
        zone: params.zone("tz"),
        devices,
        bucket,
    };
    params.finish()?;
    if ask.devices.len() > DEVICES_MAX {
        return Err(ChartError::Devices(ask.devices.len()).into());
    }
    let ask = Ask { tenant_id: call.tenant(tenant_id.as_deref())?, ..ask };
    let chart = chart::read(&state.reads, &ask, state.clock.now()).await?;
    Ok(ChartBody::of(chart, bucket))
}

impl From<ChartError> for Error {
    fn from(error: ChartError) -> Self {
        match error {
            ChartError::Store(error) => error.into(),
            ChartError::Nobody
            | ChartError::Backwards
            | ChartError::Buckets(..)
            | ChartError::Devices(_)
            | ChartError::TooMuch
            | ChartError::Farms => Self::validation(error.to_string()),
        }
    }
}

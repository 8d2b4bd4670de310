//! How cameras agree with scales, over HTTP.

use std::sync::Arc;

use actors::flock::agreement::{Agreement, Comparison};
use axum::Json;
use axum::extract::{Path, State};
use chrono::NaiveDate;
use schema::id::Uuid;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::auth::Call;
use super::error::Error;
use super::flock::{OfTenant, known};
use super::query::Params;

/// Bias and limits of agreement (Bland and Altman 1986). What cannot be said is null.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgreementBody {
    /// Mean of the differences, camera − scale.
    bias: f64,
    /// Half of the width of its 95 % interval.
    bias_half_width: Option<f64>,
    /// Standard deviation of the differences (n − 1).
    deviation: Option<f64>,
    /// Bias − 1.96 deviations.
    lower: Option<f64>,
    /// Bias + 1.96 deviations.
    upper: Option<f64>,
    /// Half of the width of the 95 % interval of either limit.
    limit_half_width: Option<f64>,
}

impl From<Agreement> for AgreementBody {
    fn from(agreement: Agreement) -> Self {
        let Agreement { bias, bias_half_width, deviation, lower, upper, limit_half_width } = agreement;
        Self { bias, bias_half_width, deviation, lower, upper, limit_half_width }
    }
}

/// How one model's readings of pictures differ from the scales.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComparisonLine {
    /// Null over all days of the flock.
    #[schema(value_type = Option<String>, format = Date)]
    day: Option<NaiveDate>,
    /// The camera; null over all of them.
    #[schema(example = "wv-001")]
    device_id: Option<String>,
    /// What two versions say is never put together.
    #[schema(example = "barn-7-2026-12")]
    model_version: String,
    /// Pairs of a scale's weight and a camera's.
    n: u32,
    /// Fewer than 30: no verdict.
    is_n_too_small: bool,
    /// In kilograms.
    kg: AgreementBody,
    /// In percent of the mean of both.
    percent: AgreementBody,
}

impl From<Comparison> for ComparisonLine {
    fn from(line: Comparison) -> Self {
        Self {
            day: line.day,
            device_id: line.device_id,
            model_version: line.model_version,
            n: line.n,
            is_n_too_small: line.is_n_too_small,
            kg: line.kilograms.into(),
            percent: line.percent.into(),
        }
    }
}

/// How the cameras of a flock agree with its scales: by model over everything, then by camera, then day by day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"flock_id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "lines": [{"day": "2026-02-09",
    "device_id": "wv-001", "model_version": "barn-7-2026-12", "n": 1943, "is_n_too_small": false,
    "kg": {"bias": 0.012, "bias_half_width": 0.004, "deviation": 0.09, "lower": -0.164, "upper": 0.188, "limit_half_width": 0.007},
    "percent": {"bias": 0.5, "bias_half_width": 0.2, "deviation": 4.0, "lower": -7.3, "upper": 8.3, "limit_half_width": 0.3}}]}))]
pub(super) struct ComparisonBody {
    flock_id: Uuid,
    lines: Vec<ComparisonLine>,
}

/// Compares the weights that cameras saw with those of the scales, weighing by weighing. They are in no mean together.
#[utoipa::path(get, path = "/api/v1/flocks/{id}/comparison", tag = "flocks",
    params(("id" = Uuid, Path, description = "The flock"), OfTenant),
    responses((status = 200, description = "The comparison", body = ComparisonBody)))]
pub(super) async fn show_comparison(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<ComparisonBody>, Error> {
    let tenant_id = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let (flock, lines) = state.book.comparison(&tenant_id, known(&id)?).await?;
    Ok(Json(ComparisonBody {
        flock_id: flock.id,
        lines: lines.into_iter().map(ComparisonLine::from).collect(),
    }))
}

//! What a monitor reads.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::error::{Code, Error};

pub(super) mod doctor;
pub(super) mod status;

/// The text format of Prometheus.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Shows all metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"),
        (status = 404, description = "NOT_FOUND: metrics.prometheus is off")))]
pub(super) async fn prometheus(State(state): State<Arc<AppState>>) -> Result<Response, Error> {
    let render = state.render_metrics.as_ref();
    let render = render.ok_or_else(|| Error::new(Code::NotFound, "metrics.prometheus is off"))?;
    Ok(([(CONTENT_TYPE, PROMETHEUS_TEXT)], render()).into_response())
}

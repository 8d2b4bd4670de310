//! The counters of the ingress, and the tokens devices call with.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker::Identity;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::AppState;
use super::auth::{ClientCertificate, Grounds, Token, refused};
use super::error::{Code, Error};
use super::time::Time;

/// The route of tokens, as signs of life name it.
const DEVICE_TOKEN: &str = "/api/v1/ingress/device-token";

/// What came in since the process started. The four counters at the top are what the operator page reads.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IngressStatsBody {
    /// When the process started.
    #[serde(rename = "startedAt")]
    started_at: Time,
    /// Whether the broker, embedded or external, is usable.
    #[serde(rename = "mqttConnected")]
    mqtt_connected: bool,
    /// When the newest message arrived; null before the first.
    #[serde(rename = "lastMessageAt")]
    last_message_at: Option<Time>,
    /// Messages that arrived.
    messages_total: u64,
    /// Of these, duplicates.
    messages_deduped_total: u64,
    /// Of these, refused ones.
    messages_invalid_total: u64,
    /// All counters, by their old names.
    counters: IngressCounters,
    /// The newest refusal of each reason.
    #[serde(rename = "lastErrors")]
    #[schema(value_type = Object)]
    last_errors: BTreeMap<&'static str, String>,
}

/// The counters by the names of the services the engine replaced.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "they are names on the wire")]
pub(super) struct IngressCounters {
    messages_received_total: u64,
    messages_valid_total: u64,
    messages_invalid_total: u64,
    messages_deduped_total: u64,
    messages_processing_errors_total: u64,
    routed_edge_telemetry_timeseries_total: u64,
    routed_edge_telemetry_timeseries_success_total: u64,
    routed_edge_weighvision_session_total: u64,
    routed_edge_weighvision_session_success_total: u64,
    routed_device_last_seen_total: u64,
    routed_device_last_seen_success_total: u64,
}

/// Shows what came in since the process started.
#[utoipa::path(get, path = "/api/v1/ingress/stats", tag = "ingress",
    responses((status = 200, description = "The counters", body = IngressStatsBody)))]
pub(super) async fn ingress_stats(State(state): State<Arc<AppState>>) -> Json<IngressStatsBody> {
    let stats = state.ingress.snapshot();
    Json(IngressStatsBody {
        started_at: stats.started_at.into(),
        mqtt_connected: (state.is_mqtt_connected)(),
        last_message_at: stats.last_message_at.map(Time),
        messages_total: stats.received,
        messages_deduped_total: stats.deduped,
        messages_invalid_total: stats.invalid,
        counters: IngressCounters {
            messages_received_total: stats.received,
            messages_valid_total: stats.valid,
            messages_invalid_total: stats.invalid,
            messages_deduped_total: stats.deduped,
            messages_processing_errors_total: stats.processing_errors,
            routed_edge_telemetry_timeseries_total: stats.telemetry[0],
            routed_edge_telemetry_timeseries_success_total: stats.telemetry[1],
            routed_edge_weighvision_session_total: stats.weighvision[0],
            routed_edge_weighvision_session_success_total: stats.weighvision[1],
            routed_device_last_seen_total: stats.status[0],
            routed_device_last_seen_success_total: stats.status[1],
        },
        last_errors: stats.last_errors,
    })
}

/// A device token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9…", "token_type": "Bearer", "expires_in": 600}))]
pub(super) struct DeviceToken {
    /// To be sent as `authorization: Bearer`.
    token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Seconds it is good for.
    expires_in: i64,
}

/// Issues a token to a device that shows its user name and password (HTTP Basic) or its client certificate.
#[utoipa::path(post, path = "/api/v1/ingress/device-token", tag = "ingress", security(("devicePassword" = [])),
    responses((status = 200, description = "A token", body = DeviceToken),
        (status = 401, description = "UNAUTHORIZED: user name, password or certificate are not valid"),
        (status = 503, description = "CONFIG_ERROR: auth.jwt_secrets is not set")))]
pub(super) async fn device_token(
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    certificate: Option<axum::Extension<ClientCertificate>>,
) -> Result<Response, Response> {
    let shown = match headers.get(AUTHORIZATION) {
        Some(header) => login(&state, header).await.map_err(IntoResponse::into_response)?,
        None => certificate.map(|axum::Extension(certificate)| Grounds::Certificate(certificate)),
    };
    let grounds = shown.ok_or_else(unauthorized)?;
    let identity = grounds.identity();
    if !is_let_in(&state, identity).await.map_err(IntoResponse::into_response)? {
        return Err(unauthorized());
    }
    state.signs_of_life.note(identity.tenant_id.as_str(), identity.device_id.as_str(), DEVICE_TOKEN);
    let token = state.authority.now().tokens.issue(&grounds, state.clock.now()).ok_or_else(|| {
        Error::new(Code::ConfigError, "auth.jwt_secrets is not set, so no token can be signed")
            .into_response()
    })?;
    let Token { text: token, lifetime_seconds: expires_in } = token;
    let body = Json(DeviceToken { token, token_type: "Bearer", expires_in });
    Ok(([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], body).into_response())
}

/// The device a login belongs to, and its password.
async fn login(state: &AppState, header: &HeaderValue) -> Result<Option<Grounds>, Error> {
    let Some((username, password)) = basic(header.as_bytes()) else { return Ok(None) };
    let verified = state.credentials.verify(&username, &password).await?;
    Ok(verified.map(|verified| Grounds::Password(verified.identity, verified.credential)))
}

/// User name and password of an HTTP Basic header; a user name that no column can hold belongs to nobody.
fn basic(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let username = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    (!username.contains('\0')).then(|| (username, decoded[colon + 1..].to_vec()))
}

/// Whether the allowlist has an enabled row of the device.
async fn is_let_in(state: &AppState, identity: &Identity) -> Result<bool, Error> {
    let row = state
        .allowlist
        .device_row(identity.tenant_id.as_str(), identity.device_id.as_str(), Instant::now())
        .await?;
    Ok(row.is_some_and(|row| row.is_enabled))
}

fn unauthorized() -> Response {
    let error = refused(Code::Unauthorized, "bad_login", "user name, password or certificate are not valid");
    let mut response = error.into_response();
    let challenge = HeaderValue::from_static("Basic realm=\"farmiq-edge\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_header_is_read_up_to_its_first_colon() {
        let read = |text: &str| basic(text.as_bytes());
        let header = format!("Basic {}", STANDARD.encode("dev:pa:ss"));
        assert_eq!(read(&header), Some(("dev".to_owned(), b"pa:ss".to_vec())));
        assert_eq!(read(&header.replace("Basic", "bASIC")), Some(("dev".to_owned(), b"pa:ss".to_vec())));
        assert_eq!(read("Basic ????"), None);
        assert_eq!(read(&format!("Basic {}", STANDARD.encode("no colon"))), None);
        assert_eq!(read(&format!("Basic {}", STANDARD.encode("nul\0:x"))), None);
        assert_eq!(read("Bearer abc"), None);
    }
}

//! The counters of the ingress, and the tokens devices call with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors::credentials::{Asker, NotVerified, Port};
use axum::Json;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{Extensions, HeaderMap};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker::Identity;
use broker::guesses::Source;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::AppState;
use super::auth::{ClientCertificate, Grounds, Token, refused};
use super::connections::Visitor;
use super::error::{Code, Error, RETRY_AFTER_SECONDS};
use super::frame::ToldAt;
use super::time::Time;

/// Seconds a login may wait for its turn at hashing.
const LOGIN_SECONDS_MAX: u64 = 10;
/// What keeps a token out of every cache.
const NO_STORE: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
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
        (status = 401, description = "UNAUTHORIZED: user name, password or certificate are not valid; told the later, the \
            more often it happens"),
        (status = 429, description = "RATE_LIMITED: too many logins at once; see Retry-After"),
        (status = 503, description = "CONFIG_ERROR: auth.jwt_secrets is not set")))]
pub(super) async fn device_token(
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<([(HeaderName, HeaderValue); 1], Json<DeviceToken>), Response> {
    let grounds = Login::of(&headers, &extensions).check(&state).await?;
    let identity = grounds.identity();
    state.signs_of_life.note(identity.tenant_id.as_str(), identity.device_id.as_str(), DEVICE_TOKEN);
    let token = state.authority.now().tokens.issue(&grounds, state.clock.now()).ok_or_else(|| {
        Error::new(Code::ConfigError, "auth.jwt_secrets is not set, so no token can be signed")
            .into_response()
    })?;
    let Token { text: token, lifetime_seconds: expires_in } = token;
    Ok(([NO_STORE], Json(DeviceToken { token, token_type: "Bearer", expires_in })))
}

/// What a device shows for a token. It stands behind the same protection as a login over MQTT: a wrong credential is
/// counted with those of the other port, and its refusal waits.
struct Login {
    source: Source,
    asked_at: Instant,
    shown: Shown,
}

enum Shown {
    Password(String, Vec<u8>),
    Certificate(ClientCertificate),
    Nothing,
}

impl Login {
    fn of(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let shown = match headers.get(AUTHORIZATION) {
            Some(header) => basic(header.as_bytes()).map(|(name, password)| Shown::Password(name, password)),
            None => extensions.get::<ClientCertificate>().cloned().map(Shown::Certificate),
        };
        let shown = shown.unwrap_or(Shown::Nothing);
        Self { source: Visitor::source(extensions), asked_at: Instant::now(), shown }
    }

    /// What a token is given for.
    async fn check(self, state: &AppState) -> Result<Grounds, Response> {
        let grounds = match &self.shown {
            Shown::Password(name, password) => {
                let deadline = self.asked_at + Duration::from_secs(LOGIN_SECONDS_MAX);
                let asker = Asker { source: self.source, port: Port::Http, deadline };
                let verified = state.credentials.verify(name, password, asker).await;
                let verified = verified.map_err(|error| self.not_verified(state, error))?;
                verified.map(|verified| Grounds::Password(verified.identity, verified.credential))
            }
            Shown::Certificate(certificate) => Some(Grounds::Certificate(certificate.clone())),
            Shown::Nothing => None,
        };
        let Some(grounds) = grounds else { return Err(self.wrong(state)) };
        if !is_let_in(state, grounds.identity()).await.map_err(IntoResponse::into_response)? {
            return Err(self.wrong(state));
        }
        if let Some(name) = self.username() {
            state.guesses.right_credential(self.source, name);
        }
        Ok(grounds)
    }

    fn username(&self) -> Option<&str> {
        match &self.shown {
            Shown::Password(name, _) => Some(name),
            Shown::Certificate(_) | Shown::Nothing => None,
        }
    }

    fn wrong(&self, state: &AppState) -> Response {
        let delay = state.guesses.wrong_credential(self.source, self.username(), Instant::now());
        self.told_after(delay, unauthorized())
    }

    /// Whoever has guessed is told late that there is no turn, so that it does not come again at once.
    fn not_verified(&self, state: &AppState, error: NotVerified) -> Response {
        match error {
            NotVerified::Busy(_) => {
                let delay = state.guesses.wait_of(self.source, Instant::now());
                let error = Error::new(Code::RateLimited, "too many logins wait for their turn");
                self.told_after(delay, error.retry_after(RETRY_AFTER_SECONDS).into_response())
            }
            NotVerified::Store(error) => Error::from(error).into_response(),
        }
    }

    fn told_after(&self, delay: Duration, mut refusal: Response) -> Response {
        refusal.extensions_mut().insert(ToldAt(self.asked_at + delay));
        refusal
    }
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

//! The one shape of every error answer, and the closed list of its codes.

use std::borrow::Cow;
use std::sync::Arc;

use actors::budget::Spent;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response as HttpResponse, StatusCode};
use axum::response::{IntoResponse, Response};
use schema::store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// Seconds after which a client may try again when the engine or its database is short of something.
pub(super) const RETRY_AFTER_SECONDS: u32 = 1;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident;)*) => {
        /// A machine-readable error code; each has one HTTP status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum Code { $($(#[$doc])* $name),* }

        impl Code {
            /// Every code.
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it travels.
                    pub(super) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The status of an answer with this code.
                    pub(super) fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }
        }
    };
}

codes! {
    /// A parameter or a key of the body is missing or wrong.
    ValidationError = "VALIDATION_ERROR", BAD_REQUEST;
    /// The body is not JSON.
    BodyNotJson = "BODY_NOT_JSON", BAD_REQUEST;
    /// Neither credential, header nor query names a tenant.
    MissingTenant = "MISSING_TENANT", BAD_REQUEST;
    /// The body is said to be something else than JSON.
    UnsupportedContentType = "UNSUPPORTED_CONTENT_TYPE", BAD_REQUEST;
    /// No, a bad or an expired credential.
    Unauthorized = "UNAUTHORIZED", UNAUTHORIZED;
    /// Tenants of credential, header, query and body differ.
    TenantMismatch = "TENANT_MISMATCH", FORBIDDEN;
    /// Device, farm, barn or station differ from those of the credential or the allowlist.
    ScopeMismatch = "SCOPE_MISMATCH", FORBIDDEN;
    /// The device has no enabled row in the allowlist.
    DeviceNotAllowed = "DEVICE_NOT_ALLOWED", FORBIDDEN;
    /// The station has no enabled row in the allowlist.
    StationNotAllowed = "STATION_NOT_ALLOWED", FORBIDDEN;
    /// The signature of an upload URL is wrong.
    SignatureInvalid = "SIGNATURE_INVALID", FORBIDDEN;
    /// An upload URL has expired.
    UrlExpired = "URL_EXPIRED", FORBIDDEN;
    /// The credential is good, but not for this.
    Forbidden = "FORBIDDEN", FORBIDDEN;
    /// There is no such path.
    NotFound = "NOT_FOUND", NOT_FOUND;
    /// The path does not know this method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED;
    /// The image is not in the store.
    ObjectNotFound = "OBJECT_NOT_FOUND", NOT_FOUND;
    /// The image has another size than declared.
    SizeMismatch = "SIZE_MISMATCH", CONFLICT;
    /// The image has another content type than declared.
    ContentTypeMismatch = "CONTENT_TYPE_MISMATCH", CONFLICT;
    /// The session belongs to another station.
    SessionConflict = "SESSION_CONFLICT", CONFLICT;
    /// The session is cancelled.
    SessionClosed = "SESSION_CLOSED", CONFLICT;
    /// The device has a password already, or none that is good.
    DeviceConflict = "DEVICE_CONFLICT", CONFLICT;
    /// What is in the flock's book stands against it.
    BookConflict = "BOOK_CONFLICT", CONFLICT;
    /// The image cannot be decoded, so that there is no small copy of it.
    ImageUndecodable = "IMAGE_UNDECODABLE", CONFLICT;
    /// The alarm, its rule or its drill is not in a state for this.
    AlarmConflict = "ALARM_CONFLICT", CONFLICT;
    /// Another image was completed under this URL.
    AlreadyCompleted = "ALREADY_COMPLETED", CONFLICT;
    /// Too many upload URLs for one device, or too many logins at once.
    RateLimited = "RATE_LIMITED", TOO_MANY_REQUESTS;
    /// The store of the images does not answer.
    StorageUnavailable = "STORAGE_UNAVAILABLE", SERVICE_UNAVAILABLE;
    /// The volume of the images is nearly full.
    InsufficientStorage = "INSUFFICIENT_STORAGE", INSUFFICIENT_STORAGE;
    /// The body is larger than the limit.
    BodyTooLarge = "BODY_TOO_LARGE", PAYLOAD_TOO_LARGE;
    /// A bug.
    InternalError = "INTERNAL_ERROR", INTERNAL_SERVER_ERROR;
    /// Too many requests in flight, or one that took too long.
    NotReady = "NOT_READY", SERVICE_UNAVAILABLE;
    /// A setting is missing that this call needs.
    ConfigError = "CONFIG_ERROR", SERVICE_UNAVAILABLE;
    /// The database does not answer.
    DatabaseUnavailable = "DATABASE_UNAVAILABLE", SERVICE_UNAVAILABLE;
}

/// Why a call failed. It becomes an answer without a body, whose body is written by [`render`] once the trace id is at hand.
#[derive(Clone, Debug)]
pub(super) struct Error {
    /// What a program looks at.
    pub code: Code,
    /// What a person reads.
    pub message: Cow<'static, str>,
    /// What lies behind it, for the log alone.
    pub cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// Seconds after which the caller may try again, where the code alone does not say.
    pub retry_after_seconds: Option<u32>,
}

impl Error {
    /// An error that is the caller's.
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), cause: None, retry_after_seconds: None }
    }

    /// The same, with the seconds after which the caller may try again.
    pub(super) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    /// A parameter or a body that is wrong; several problems are joined with `; `.
    pub(super) fn validation(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::ValidationError, message)
    }

    /// The database did not do what was asked of it.
    pub(super) fn database_unavailable() -> Self {
        Self::new(Code::DatabaseUnavailable, "the database does not answer")
    }
}

impl From<Spent> for Error {
    fn from(spent: Spent) -> Self {
        Self { cause: Some(Arc::new(spent)), ..Self::new(Code::NotReady, "too much waits for the database") }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let answer = if error.is_data() {
            Self::new(Code::InternalError, "internal error")
        } else {
            Self::database_unavailable()
        };
        Self { cause: Some(Arc::new(error)), ..answer }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The body of every error answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"error": {"code": "VALIDATION_ERROR", "message": "limit: must be a whole number from 1 to 1000",
    "traceId": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f"}}))]
pub(super) struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// The inside of [`ErrorBody`].
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorDetail {
    /// What a program looks at.
    pub code: &'static str,
    /// What a person reads; several problems are joined with `; `.
    pub message: String,
    /// The trace id of the call, also in the header `x-trace-id`.
    pub trace_id: String,
}

impl ErrorDetail {
    /// The inside for one error of one call.
    pub(super) fn of(error: &Error, trace_id: &str) -> Self {
        Self { code: error.code.as_str(), message: error.message.to_string(), trace_id: trace_id.to_owned() }
    }
}

/// Marks an answer that is made for people, whatever its status; an extension of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForPeople;

/// Writes the body of an error answer. An answer that some layer made without a code, such as an unknown file of the
/// documentation, gets the code of its status, so that no other shape leaves the engine.
pub(super) fn render(response: Response, trace_id: &str) -> (Response, Option<Error>) {
    let error = response.extensions().get::<Error>().cloned().or_else(|| foreign(&response));
    let Some(error) = error else { return (response, None) };
    let (mut parts, _) = response.into_parts();
    parts.status = error.code.status();
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    match parts.status {
        StatusCode::UNAUTHORIZED if !parts.headers.contains_key(WWW_AUTHENTICATE) => {
            parts.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            parts.headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        _ => {}
    }
    let body = ErrorBody { error: ErrorDetail::of(&error, trace_id) };
    let bytes = serde_json::to_vec(&body).expect("texts always serialize");
    (HttpResponse::from_parts(parts, bytes.into()), Some(error))
}

/// The error of an answer that failed without saying so in our words; JSON bodies are somebody's own document.
fn foreign(response: &Response) -> Option<Error> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    let is_for_people = response.extensions().get::<ForPeople>().is_some();
    if !is_error || is_json || is_for_people {
        return None;
    }
    let fallback = if status.is_client_error() { Code::ValidationError } else { Code::InternalError };
    let code = Code::ALL.iter().copied().find(|code| code.status() == status).unwrap_or(fallback);
    Some(Error::new(code, status.canonical_reason().unwrap_or("error")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        let count = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }

    #[test]
    fn an_answer_of_a_foreign_layer_gets_the_code_of_its_status() {
        let (_, error) = render(StatusCode::NOT_FOUND.into_response(), "t");
        assert_eq!(error.map(|error| error.code), Some(Code::NotFound));
        let (response, error) = render(StatusCode::UNPROCESSABLE_ENTITY.into_response(), "t");
        assert_eq!(error.map(|error| error.code), Some(Code::ValidationError));
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "no status but those that are described");
        let mut page = StatusCode::NOT_FOUND.into_response();
        page.extensions_mut().insert(ForPeople);
        let (_, error) = render(page, "t");
        assert!(error.is_none(), "a page says it in words");
        let (_, error) = render(StatusCode::OK.into_response(), "t");
        assert!(error.is_none());
    }
}

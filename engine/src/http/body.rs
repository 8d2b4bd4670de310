//! Bodies: read with a limit, and refused in our words when they are no JSON.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use serde_json::Value;

use super::AppState;
use super::error::{Code, Error};

/// A whole request body, at most `http.body_bytes_max` long.
#[derive(Debug)]
pub(super) struct JsonBody(pub Bytes);

impl FromRequest<Arc<AppState>> for JsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Self, Error> {
        let bytes_max = state.settings.body_bytes_max;
        if declared_length(request.headers()).is_some_and(|length| length > bytes_max) {
            return Err(too_large(bytes_max));
        }
        let is_json = is_json(request.headers());
        // The router's limit ends the reading of a body that does not say how long it is.
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let is_too_large = rejection.status() == Code::BodyTooLarge.status();
            if is_too_large { too_large(bytes_max) } else { Error::validation("body: ended too early") }
        })?;
        if !bytes.is_empty() && !is_json {
            return Err(Error::new(Code::UnsupportedContentType, "content-type: must be application/json"));
        }
        Ok(Self(bytes))
    }
}

impl JsonBody {
    /// The body as an object; an empty body is an empty object.
    ///
    /// # Errors
    /// `BODY_NOT_JSON`, and `VALIDATION_ERROR` for JSON that is no object or has a text no column can hold.
    pub(super) fn object(&self) -> Result<Value, Error> {
        if self.0.is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        let value: Value = serde_json::from_slice(&self.0).map_err(|_| not_json())?;
        if !value.is_object() {
            return Err(Error::validation("body: must be an object"));
        }
        if has_nul(&value) {
            return Err(Error::validation("body: has a NUL character, which cannot be stored"));
        }
        Ok(value)
    }
}

/// Whether any text in a value has the one character that the database refuses.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The refusal of a body that is not JSON.
pub(super) fn not_json() -> Error {
    Error::new(Code::BodyNotJson, "body is not valid JSON")
}

fn too_large(bytes_max: usize) -> Error {
    Error::new(Code::BodyTooLarge, format!("body is larger than {bytes_max} bytes"))
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body without a type is taken for JSON; a form or plain text is not, since a browser sends these to anybody.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_body_with_a_text_no_column_can_hold_is_refused() {
        let check = |text: &'static str, expected: Option<Code>| {
            let refused = JsonBody(Bytes::from_static(text.as_bytes())).object().err();
            assert_eq!(refused.map(|error| error.code), expected, "{text}");
        };
        check("", None);
        check(r#"{"a":["\\u0000"]}"#, None);
        check(r#"{"a":[{"b":"x\u0000"}]}"#, Some(Code::ValidationError));
        check(r#"{"a\u0000":1}"#, Some(Code::ValidationError));
        check(r#"["a"]"#, Some(Code::ValidationError));
        check(r#"{"a":1e999}"#, Some(Code::BodyNotJson));
    }

    #[test]
    fn what_counts_as_json() {
        let check = |text: &'static str, expected| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(text))].into_iter().collect();
            assert_eq!(is_json(&headers), expected, "{text}");
        };
        check("application/json", true);
        check("Application/JSON; charset=utf-8", true);
        check("application/problem+json", true);
        check("text/plain", false);
        check("application/x-www-form-urlencoded", false);
        assert!(is_json(&HeaderMap::new()));
    }
}

//! The body that asks for a job: each key in `snake_case` or `camelCase`.

use schema::id::{self, Uuid};
use serde_json::Value;

use crate::http::error::Error;
use crate::http::query::Problems;

/// Bytes the key of an image may have.
const KEY_BYTES_MAX: usize = 1024;

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Request {
    pub(super) tenant_id: Option<String>,
    pub(super) media_id: Option<Uuid>,
    pub(super) object_key: Option<String>,
    pub(super) farm_id: Option<String>,
    pub(super) barn_id: Option<String>,
    pub(super) device_id: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) trace_id: Option<String>,
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` with every problem.
    pub(super) fn of(body: &Value) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let mut text = |snake: &str, camel: &str, is_good: &dyn Fn(&str) -> bool, problem: &str| {
            let found = [snake, camel].into_iter().find_map(|name| {
                let value = body.get(name).filter(|value| !value.is_null())?;
                Some((name, value))
            });
            let (name, value) = found?;
            let good = value.as_str().filter(|text| is_good(text));
            if good.is_none() {
                problems.push(name, problem);
            }
            good.map(str::to_owned)
        };
        let id_problem = "must be a text of 1 to 128 bytes without control characters and any of / + #";
        let mut id = |snake: &str, camel: &str| text(snake, camel, &id::is_id, id_problem);
        let mut request = Self {
            tenant_id: id("tenant_id", "tenantId"),
            farm_id: id("farm_id", "farmId"),
            barn_id: id("barn_id", "barnId"),
            device_id: id("device_id", "deviceId"),
            session_id: id("session_id", "sessionId"),
            ..Self::default()
        };
        let is_key =
            |text: &str| (1..=KEY_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        let is_uuid = |text: &str| text.parse::<Uuid>().is_ok();
        let trace_problem = "must be a text of 1 to 200 bytes without control characters";
        request.trace_id = text("trace_id", "traceId", &id::is_event_id, trace_problem);
        let key_problem = "must be a text of 1 to 1024 bytes without control characters";
        request.object_key = text("object_key", "objectKey", &is_key, key_problem);
        let media_id = text("media_id", "mediaId", &is_uuid, "must be a UUID");
        request.media_id = media_id.and_then(|text| text.parse().ok());
        problems.finish()?;
        if request.media_id.is_none() && request.object_key.is_none() {
            return Err(Error::validation("media_id: this or object_key is required"));
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_vocabularies_are_read() {
        let media_id = "226550f6-c262-5647-a6c9-2545e81f2a84";
        let snake = json!({"tenant_id": "t-1", "media_id": media_id, "session_id": "s", "job_type": 7});
        let camel = json!({"tenantId": "t-1", "mediaId": media_id, "sessionId": "s"});
        let read = |body| Request::of(&body).map_err(|error| error.message).unwrap();
        assert_eq!(read(snake), read(camel));
    }

    #[test]
    fn every_problem_is_named() {
        let message = |body| Request::of(&body).unwrap_err().message.into_owned();
        assert_eq!(message(json!({})), "media_id: this or object_key is required");
        let broken = message(json!({"tenantId": 5, "media_id": "x", "object_key": ""}));
        for name in ["tenantId: ", "media_id: must be a UUID", "object_key: "] {
            assert!(broken.contains(name), "{broken}");
        }
    }
}

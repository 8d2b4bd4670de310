//! The body that asks for a job.

use schema::id::Uuid;

use crate::http::body::JsonBody;
use crate::http::error::Error;
use crate::http::fields::Fields;

/// What is asked for.
#[derive(Debug, PartialEq)]
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
    pub(super) fn of(body: &JsonBody) -> Result<Self, Error> {
        let mut fields = Fields::of(body)?;
        let request = Self {
            tenant_id: fields.optional_id("tenant_id"),
            media_id: fields.optional_uuid("media_id"),
            object_key: fields.optional_text("object_key"),
            farm_id: fields.optional_id("farm_id"),
            barn_id: fields.optional_id("barn_id"),
            device_id: fields.optional_id("device_id"),
            session_id: fields.optional_id("session_id"),
            trace_id: fields.optional_event_id("trace_id"),
        };
        if !fields.is_given("media_id") && !fields.is_given("object_key") {
            fields.problem("media_id", "this or object_key is required");
        }
        fields.finish()?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Value) -> Result<Request, String> {
        Request::of(&JsonBody(body.to_string().into())).map_err(|error| error.message.into_owned())
    }

    #[test]
    fn each_key_is_read_in_either_spelling() {
        let media_id = "226550f6-c262-5647-a6c9-2545e81f2a84";
        let snake = json!({"tenant_id": "t-1", "media_id": media_id, "session_id": "s", "job_type": 7});
        let camel = json!({"tenantId": "t-1", "mediaId": media_id, "sessionId": "s"});
        let mixed = json!({"tenantId": "t-1", "media_id": media_id, "sessionId": "s"});
        let expected = read(&snake);
        assert!(expected.is_ok(), "{expected:?}");
        assert_eq!(read(&camel), expected);
        assert_eq!(read(&mixed), expected);
    }

    #[test]
    fn every_problem_is_named() {
        let message = |body: Value| read(&body).expect_err("a bad body");
        assert_eq!(message(json!({})), "media_id: this or object_key is required");
        let broken = message(json!({"tenantId": 5, "media_id": "x", "object_key": ""}));
        for name in ["tenantId: ", "media_id: must be a UUID", "object_key: "] {
            assert!(broken.contains(name), "{broken}");
        }
    }
}

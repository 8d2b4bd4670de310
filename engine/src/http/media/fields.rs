//! The keys of a body in either vocabulary, `snake_case` or `camelCase`.

use schema::clock::Timestamp;
use schema::{id, wire};
use serde_json::{Map, Value};

use crate::http::body::JsonBody;
use crate::http::error::Error;
use crate::http::query::Problems;

/// Bytes a text may have that is no id.
const TEXT_BYTES_MAX: usize = 1024;

/// The keys of one body. Every problem is named at once.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// Whether the body speaks `camelCase`: it names `tenantId` and no `tenant_id`.
    pub(super) is_camel: bool,
    problems: Problems,
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is no object.
    pub(super) fn of(body: &JsonBody) -> Result<Self, Error> {
        let Value::Object(map) = body.object()? else {
            return Err(Error::validation("body: must be an object"));
        };
        let is_camel = map.contains_key("tenantId") && !map.contains_key("tenant_id");
        Ok(Self { map, is_camel, problems: Problems::default() })
    }

    /// The id of a tenant, a device and the like, which must be there.
    pub(super) fn id(&mut self, name: &str) -> String {
        let id = self.optional_id(name);
        self.required(name, id)
    }

    /// An id that may be missing.
    pub(super) fn optional_id(&mut self, name: &str) -> Option<String> {
        let problem = "must have 1 to 128 bytes and neither control characters nor any of / + #";
        self.checked(name, id::is_id, problem)
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, name: &str) -> String {
        let text = self.optional_text(name);
        self.required(name, text)
    }

    /// A text that may be missing.
    pub(super) fn optional_text(&mut self, name: &str) -> Option<String> {
        let is_good =
            |text: &str| (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        self.checked(name, is_good, "must have 1 to 1024 bytes and no control characters")
    }

    /// A trace id that may be missing.
    pub(super) fn trace_id(&mut self) -> Option<String> {
        self.checked("trace_id", id::is_event_id, "must have 1 to 200 bytes and no control characters")
    }

    /// A time that may be missing.
    pub(super) fn time(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.optional_text(name)?;
        let time = wire::time::parse(&text);
        if time.is_none() {
            self.problem(name, "is not a time");
        }
        time
    }

    /// A number of bytes that may be missing.
    pub(super) fn bytes(&mut self, name: &str) -> Option<i64> {
        let value = self.value(name)?.as_i64().filter(|bytes| *bytes >= 0);
        if value.is_none() {
            self.problem(name, "must be a whole number that is not negative");
        }
        value
    }

    /// Notes a problem with a key, which is named as the body names it.
    pub(super) fn problem(&mut self, name: &str, problem: &str) {
        let spelled = self.spelled(name);
        self.problems.push(&spelled, problem);
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` with all problems when there are any.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.problems.finish()
    }

    fn required(&mut self, name: &str, value: Option<String>) -> String {
        if value.is_none() && self.value(name).is_none() {
            self.problem(name, "is required");
        }
        value.unwrap_or_default()
    }

    fn checked(&mut self, name: &str, is_good: impl Fn(&str) -> bool, problem: &str) -> Option<String> {
        let Some(text) = self.value(name)?.as_str().map(str::to_owned) else {
            self.problem(name, "must be a text");
            return None;
        };
        if !is_good(&text) {
            self.problem(name, problem);
            return None;
        }
        Some(text)
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.map.get(&self.spelled(name)).filter(|value| !value.is_null())
    }

    fn spelled(&self, name: &str) -> String {
        if !self.is_camel {
            return name.to_owned();
        }
        let mut words = name.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |spelled, word| {
            let (head, tail) = word.split_at(word.len().min(1));
            spelled + &head.to_ascii_uppercase() + tail
        })
    }
}

//! The keys of a JSON body: read one by one, in `snake_case` or `camelCase`, with every problem named at once.

use actors::flock::desk::BIRDS_MAX;
use chrono::NaiveDate;
use schema::clock::Timestamp;
use schema::id::{self, Uuid};
use schema::wire;
use serde_json::{Map, Value};

use super::body::JsonBody;
use super::error::Error;
use super::query::{NOT_A_DAY, NOT_AN_EVENT_ID, NOT_AN_ID, Problems, parse_day};

/// Bytes a text may have that is no id.
const TEXT_BYTES_MAX: usize = 1024;

/// How a body spells its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// `tenant_id`.
    Snake,
    /// `tenantId`.
    Camel,
}

/// The keys of one body, which are asked for in `snake_case`.
///
/// Each key is found in either spelling, the one of the body first. For jobs it has to be so; a body about an image is
/// all in one vocabulary, and reads the same. What hangs on the vocabulary of a whole body is left to whoever reads it.
pub(super) struct Fields {
    map: Map<String, Value>,
    vocabulary: Vocabulary,
    problems: Problems,
}

impl Fields {
    /// Reads a body that may speak either vocabulary: `camelCase` when it names `tenantId` and no `tenant_id`.
    ///
    /// # Errors
    /// `BODY_NOT_JSON`; `VALIDATION_ERROR` when it is no object.
    pub(super) fn of(body: &JsonBody) -> Result<Self, Error> {
        let mut fields = Self::spoken(body, Vocabulary::Snake)?;
        if fields.map.contains_key("tenantId") && !fields.map.contains_key("tenant_id") {
            fields.vocabulary = Vocabulary::Camel;
        }
        Ok(fields)
    }

    /// The tenant that a body names which names nothing else; `None` when it names none.
    ///
    /// # Errors
    /// As [`Fields::of`], and `VALIDATION_ERROR` when it is no id.
    pub(super) fn tenant_alone(body: &JsonBody) -> Result<Option<String>, Error> {
        let mut fields = Self::of(body)?;
        let tenant_id = fields.optional_id("tenant_id");
        fields.finish()?;
        Ok(tenant_id)
    }

    /// Reads a body of this vocabulary.
    ///
    /// # Errors
    /// `BODY_NOT_JSON`; `VALIDATION_ERROR` when it is no object.
    pub(super) fn spoken(body: &JsonBody, vocabulary: Vocabulary) -> Result<Self, Error> {
        let Value::Object(map) = body.object()? else {
            return Err(Error::validation("body: must be an object"));
        };
        Ok(Self { map, vocabulary, problems: Problems::default() })
    }

    /// The vocabulary of the body.
    pub(super) fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    /// Whether there is anything under this key.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The id of a tenant, a device and the like, which must be there.
    pub(super) fn id(&mut self, name: &str) -> String {
        let id = self.optional_id(name);
        self.required(name, id)
    }

    /// An id that may be missing.
    pub(super) fn optional_id(&mut self, name: &str) -> Option<String> {
        self.checked(name, id::is_id, NOT_AN_ID)
    }

    /// The id of an event, which must be there.
    pub(super) fn event_id(&mut self, name: &str) -> String {
        let id = self.optional_event_id(name);
        self.required(name, id)
    }

    /// The id of an event, a trace or a batch that may be missing.
    pub(super) fn optional_event_id(&mut self, name: &str) -> Option<String> {
        self.checked(name, id::is_event_id, NOT_AN_EVENT_ID)
    }

    /// A UUID that may be missing.
    pub(super) fn optional_uuid(&mut self, name: &str) -> Option<Uuid> {
        let text = self.checked(name, |text| Uuid::try_parse(text).is_ok(), "must be a UUID")?;
        Uuid::try_parse(&text).ok()
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

    /// A time that must be there.
    pub(super) fn time(&mut self, name: &str) -> Timestamp {
        let time = self.optional_time(name);
        self.required(name, time)
    }

    /// A time that may be missing.
    pub(super) fn optional_time(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.checked(name, |text| wire::time::parse(text).is_some(), "is not a time")?;
        wire::time::parse(&text)
    }

    /// A finite number that must be there.
    pub(super) fn number(&mut self, name: &str) -> f64 {
        let number = self.value(name).and_then(Value::as_f64).filter(|number| number.is_finite());
        if number.is_none() && self.is_given(name) {
            self.problem(name, "must be a number");
        }
        self.required(name, number)
    }

    /// A number of bytes that may be missing.
    pub(super) fn optional_bytes(&mut self, name: &str) -> Option<i64> {
        let bytes = self.value(name)?.as_i64().filter(|bytes| *bytes >= 0);
        if bytes.is_none() {
            self.problem(name, "must be a whole number that is not negative");
        }
        bytes
    }

    /// A finite number within a range that may be missing.
    pub(super) fn optional_number(&mut self, name: &str, min: f64, max: f64) -> Option<f64> {
        let number = self.value(name)?.as_f64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.problem(name, &format!("must be a number from {min} to {max}"));
        }
        number
    }

    /// A number of birds that may be missing.
    pub(super) fn birds(&mut self, name: &str) -> Option<i32> {
        self.whole(name, 1, BIRDS_MAX)
    }

    /// A year that must be there.
    pub(super) fn year(&mut self, name: &str) -> i32 {
        let year = self.whole(name, 1900, 2200);
        self.required(name, year)
    }

    /// A whole number within a range that may be missing.
    pub(super) fn whole(&mut self, name: &str, min: i32, max: i32) -> Option<i32> {
        let number = self.value(name)?.as_i64().and_then(|number| i32::try_from(number).ok());
        let number = number.filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.problem(name, &format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    /// A day that must be there.
    pub(super) fn day(&mut self, name: &str) -> NaiveDate {
        let day = self.optional_day(name);
        self.required(name, day)
    }

    /// A day that may be missing.
    pub(super) fn optional_day(&mut self, name: &str) -> Option<NaiveDate> {
        parse_day(&self.checked(name, |text| parse_day(text).is_some(), NOT_A_DAY)?)
    }

    /// One of a few words, which may be missing.
    pub(super) fn optional_word(&mut self, name: &str, words: &[&str]) -> Option<String> {
        let problem = format!("must be one of {}", words.join(", "));
        self.checked(name, |text| words.contains(&text), &problem)
    }

    /// A yes or no; no when it is missing.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let Some(value) = self.value(name) else { return false };
        let flag = value.as_bool();
        if flag.is_none() {
            self.problem(name, "must be true or false");
        }
        flag.unwrap_or_default()
    }

    /// A text of many lines, which must be there.
    pub(super) fn long_text(&mut self, name: &str) -> String {
        let text = self.checked(name, |_| true, "must be a text");
        self.required(name, text)
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

    fn required<T: Default>(&mut self, name: &str, value: Option<T>) -> T {
        if !self.is_given(name) {
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

    /// Null counts as nothing.
    fn value(&self, name: &str) -> Option<&Value> {
        self.map.get(&self.spelled(name)).filter(|value| !value.is_null())
    }

    /// The key as the body spells it; for one that is not there, as the body would.
    fn spelled(&self, name: &str) -> String {
        let (own, other) = match self.vocabulary {
            Vocabulary::Snake => (name.to_owned(), camel_case(name)),
            Vocabulary::Camel => (camel_case(name), name.to_owned()),
        };
        let is_there = |key: &str| self.map.get(key).is_some_and(|value| !value.is_null());
        if is_there(&other) && !is_there(&own) { other } else { own }
    }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |spelled, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        spelled + &head.to_ascii_uppercase() + tail
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(body: &Value) -> Fields {
        Fields::of(&JsonBody(body.to_string().into())).expect("an object")
    }

    #[test]
    fn a_key_is_found_in_either_spelling_and_its_own_goes_first() {
        let check = |body: Value, expected: Option<&str>| {
            assert_eq!(fields(&body).optional_id("device_id").as_deref(), expected, "{body}");
        };
        check(json!({"device_id": "a"}), Some("a"));
        check(json!({"tenantId": "t", "deviceId": "a"}), Some("a"));
        check(json!({"tenantId": "t", "device_id": "a"}), Some("a"));
        check(json!({"tenant_id": "t", "deviceId": "a"}), Some("a"));
        check(json!({"tenant_id": "t", "device_id": "a", "deviceId": "b"}), Some("a"));
        check(json!({"tenantId": "t", "device_id": "a", "deviceId": "b"}), Some("b"));
        check(json!({"tenantId": "t", "device_id": "a", "deviceId": null}), Some("a"));
        check(json!({"tenantId": "t"}), None);
    }

    #[test]
    fn a_problem_has_the_name_that_the_body_uses() {
        let check = |body: Value, expected: &str| {
            let mut fields = fields(&body);
            fields.id("tenant_id");
            fields.id("device_id");
            fields.number("weight_kg");
            fields.optional_bytes("size_bytes");
            fields.optional_uuid("media_id");
            let message = fields.finish().expect_err("a bad body").message;
            assert_eq!(message, expected, "{body}");
        };
        check(
            json!({"tenantId": "t", "device_id": 7, "sizeBytes": -1}),
            "device_id: must be a text; weightKg: is required; sizeBytes: must be a whole number that is not negative",
        );
        check(
            json!({"deviceId": "d", "weight_kg": "5", "media_id": "m"}),
            "tenant_id: is required; weight_kg: must be a number; media_id: must be a UUID",
        );
    }
}

//! Query parameters: read one by one, with every problem named at once.

use actors::flock::calendar::Zone;
use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use chrono::{Datelike, NaiveDate};
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::{id, wire};

use super::cursor::{self, DeviceKey, Key};
use super::error::Error;

/// Rows a list may have.
pub(super) const LIST_ROWS_MAX: i64 = 1000;
/// Rows of a list when the caller does not say.
pub(super) const LIST_ROWS_DEFAULT: i64 = 100;

/// What is wrong with an id of a tenant, a device and the like.
pub(super) const NOT_AN_ID: &str = "must have 1 to 128 bytes and neither control characters nor any of / + #";
/// What is wrong with the id of an event.
pub(super) const NOT_AN_EVENT_ID: &str = "must have 1 to 200 bytes and no control characters";

/// What is wrong with a cursor.
pub(super) const NOT_A_CURSOR: &str = "must be what this list had as next";

/// What is wrong with a day.
pub(super) const NOT_A_DAY: &str = "must be a day such as 2026-01-05";

/// Reads a day between the years 2000 and 2199.
pub(super) fn parse_day(text: &str) -> Option<NaiveDate> {
    let is_written = text.len() == "2026-01-05".len();
    text.parse::<NaiveDate>().ok().filter(|day| is_written && (2000..2200).contains(&day.year()))
}

/// Collects what is wrong with a request, so that the caller learns all of it.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    /// Notes one problem with one parameter or key.
    pub(super) fn push(&mut self, name: &str, problem: &str) {
        self.0.push(format!("{name}: {problem}"));
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` with all problems when there are any.
    pub(super) fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::validation(self.0.join("; "))) }
    }
}

/// The query parameters of a request. Unknown ones are ignored; an empty one counts as absent.
#[derive(Debug)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    problems: Problems,
}

impl Params {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Error::validation("query: cannot be read"))?;
        Ok(Self { pairs, problems: Problems::default() })
    }

    /// A parameter as it was sent.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let mut values = self.pairs.iter().filter(|(key, value)| key == name && !value.is_empty());
        let first = values.next().map(|(_, value)| value.clone());
        if values.next().is_some() {
            self.problems.push(name, "is given more than once");
        }
        if first.as_deref().is_some_and(|text| text.contains('\0')) {
            self.problems.push(name, "has a NUL character, which no column can hold");
        }
        first
    }

    /// A parameter that is the id of a tenant, a device and the like.
    pub(super) fn id(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if !id::is_id(&text) {
            self.problems.push(name, NOT_AN_ID);
        }
        Some(text)
    }

    /// A parameter that may be given several times, each time an id.
    pub(super) fn ids(&mut self, name: &str) -> Vec<String> {
        let values = self.pairs.iter().filter(|(key, value)| key == name && !value.is_empty());
        let mut values: Vec<String> = values.map(|(_, value)| value.clone()).collect();
        if values.iter().any(|value| !id::is_id(value)) {
            self.problems.push(name, NOT_AN_ID);
        }
        values.sort_unstable();
        values.dedup();
        values
    }

    /// Whether a parameter is given.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, value)| key == name && !value.is_empty())
    }

    /// A parameter that is a time zone.
    pub(super) fn zone(&mut self, name: &str) -> Option<Zone> {
        let zone = Zone::parse(&self.text(name)?);
        if zone.is_none() {
            self.problems.push(name, "is not a time zone of the IANA database, such as Asia/Bangkok");
        }
        zone
    }

    /// A parameter that must be there.
    pub(super) fn required_id(&mut self, name: &str) -> String {
        let id = self.id(name);
        if id.is_none() {
            self.problems.push(name, "is required");
        }
        id.unwrap_or_default()
    }

    /// The parameter `after`: where a list goes on.
    pub(super) fn after<K: Key>(&mut self) -> Option<K> {
        let key = cursor::decode(&self.text("after")?);
        if key.is_none() {
            self.problems.push("after", NOT_A_CURSOR);
        }
        key
    }

    /// The parameter `after` of the list of devices, which may also be written `tenant/device`.
    pub(super) fn after_device(&mut self) -> Option<DeviceKey> {
        let text = self.text("after")?;
        let written = text.split_once('/').map(|(tenant, device)| DeviceKey(tenant.into(), device.into()));
        let key = written.or_else(|| cursor::decode(&text));
        if key.is_none() {
            self.problems.push("after", NOT_A_CURSOR);
        }
        key
    }

    /// The parameter `after`, or `before`, as lists of what people did called it once: the id of a row was good there.
    pub(super) fn after_or_before<K: Key + From<Uuid>>(&mut self) -> Option<K> {
        let Some(text) = self.text("before") else { return self.after() };
        let key = Uuid::try_parse(&text).map(K::from).ok().or_else(|| cursor::decode(&text));
        if key.is_none() {
            self.problems.push("before", NOT_A_CURSOR);
        }
        key
    }

    /// A parameter that is a time.
    pub(super) fn time(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.text(name)?;
        // A plus sign that was not encoded arrives as a space; no time has a space where its zone begins.
        let time = wire::time::parse(&text).or_else(|| {
            let (clock, zone) = text.rsplit_once(' ')?;
            wire::time::parse(&format!("{clock}+{zone}"))
        });
        if time.is_none() {
            self.problems.push(name, "is not a time");
        }
        time
    }

    /// A parameter that is a day.
    pub(super) fn day(&mut self, name: &str) -> Option<NaiveDate> {
        let day = self.text(name)?.parse().ok().filter(|day: &NaiveDate| (1970..=9999).contains(&day.year()));
        if day.is_none() {
            self.problems.push(name, "is not a day such as 2026-02-12");
        }
        day
    }

    /// A day that must be there.
    pub(super) fn required_day(&mut self, name: &str) -> NaiveDate {
        let day = self.text(name).as_deref().and_then(parse_day);
        if day.is_none() {
            self.problems.push(name, NOT_A_DAY);
        }
        day.unwrap_or_default()
    }

    /// A number within a range.
    pub(super) fn number(&mut self, name: &str, min: f64, max: f64) -> Option<f64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.problems.push(name, &format!("must be a number from {min} to {max}"));
        }
        number
    }

    /// The parameter `event_type`: any text that the database can hold.
    pub(super) fn event_type(&mut self) -> Option<String> {
        let text = self.text("event_type")?;
        if !id::is_event_id(&text) {
            self.problems.push("event_type", NOT_AN_EVENT_ID);
        }
        Some(text)
    }

    /// How many rows are wanted.
    pub(super) fn limit(&mut self) -> i64 {
        self.limit_up_to(LIST_ROWS_MAX)
    }

    /// How many rows are wanted, where a list has fewer than others.
    pub(super) fn limit_up_to(&mut self, rows_max: i64) -> i64 {
        let Some(text) = self.text("limit") else { return LIST_ROWS_DEFAULT };
        let limit = text.parse().ok().filter(|limit| (1..=rows_max).contains(limit));
        if limit.is_none() {
            self.problems.push("limit", &format!("must be a whole number from 1 to {rows_max}"));
        }
        limit.unwrap_or(LIST_ROWS_DEFAULT)
    }

    /// A parameter that is one of a few words.
    pub(super) fn one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.problems.push(name, &format!("must be one of {}", words.join(", ")));
        }
        found
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` with all problems when there are any.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.problems.finish()
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::of(&parts.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        let uri: Uri = format!("/x?{query}").parse().expect("a path");
        Params::of(&uri).expect("a query")
    }

    fn message(params: Params) -> Option<String> {
        params.finish().err().map(|error| error.message.into_owned())
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let mut params = params("limit=0&start_time=yesterday&device_id=a%2Fb");
        assert_eq!(params.required_id("tenant_id"), "");
        params.id("device_id");
        assert_eq!(params.time("start_time"), None);
        assert_eq!(params.limit(), LIST_ROWS_DEFAULT);
        let expected = "tenant_id: is required; \
            device_id: must have 1 to 128 bytes and neither control characters nor any of / + #; \
            start_time: is not a time; limit: must be a whole number from 1 to 1000";
        assert_eq!(message(params).as_deref(), Some(expected));
    }

    #[test]
    fn limits_end_at_a_thousand() {
        for (text, is_good) in
            [("1", true), ("1000", true), ("1001", false), ("-1", false), ("ten", false), ("1.5", false)]
        {
            let mut params = params(&format!("limit={text}"));
            params.limit();
            assert_eq!(params.finish().is_ok(), is_good, "{text}");
        }
    }

    #[test]
    fn a_plus_sign_that_was_not_encoded_is_read_as_an_offset() {
        let mut params = params("start_time=2026-02-12T09:00:00+07:00&end_time=2026-02-12%2009:00:00");
        let expected = wire::time::parse("2026-02-12T02:00:00Z");
        assert_eq!(params.time("start_time"), expected);
        assert_eq!(params.time("end_time"), wire::time::parse("2026-02-12T09:00:00Z"));
    }

    #[test]
    fn a_parameter_may_be_given_once() {
        let mut params = params("tenant_id=a&tenant_id=b");
        params.required_id("tenant_id");
        assert_eq!(message(params).as_deref(), Some("tenant_id: is given more than once"));
    }
}

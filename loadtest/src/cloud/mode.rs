//! The ways in which the pretend cloud can fail, switched at run time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What the cloud does to the next requests. As JSON: `{"mode":"429","retry_after":"2"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// Works.
    #[default]
    Ok,
    /// Nobody listens: new connections are refused, open ones are cut. The port stays reserved.
    Refuse,
    /// Reads the request and never answers.
    Hang,
    /// Works, but the answer takes this long.
    Slow {
        /// Added to every answer.
        latency_ms: u64,
    },
    /// Takes the batch, then cuts the connection instead of answering.
    LoseAnswer,
    /// Any other status.
    Status {
        /// HTTP status.
        code: u16,
    },
    /// Service unavailable.
    #[serde(rename = "503")]
    Unavailable,
    /// Authentication failed.
    #[serde(rename = "401")]
    Unauthorized,
    /// Not allowed.
    #[serde(rename = "403")]
    Forbidden,
    /// No such path.
    #[serde(rename = "404")]
    NotFound,
    /// Too many requests.
    #[serde(rename = "429")]
    Throttled {
        /// Value of `Retry-After`, seconds or a date; without it the header is missing.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Refuses the batches that hold one of these events with 400; without ids, every batch, even an empty one.
    #[serde(rename = "400")]
    Poison {
        /// Event ids.
        #[serde(default)]
        ids: HashSet<String>,
    },
    /// Refuses larger bodies with 413.
    #[serde(rename = "413")]
    TooLarge {
        /// Largest body that passes.
        bytes_max: usize,
    },
    /// A captive portal: 200 with a web page.
    Captive,
    /// 302 to somewhere else.
    Redirect,
    /// Rejects these events by name; all others are taken.
    RejectIds {
        /// Text of the error by event id.
        ids: HashMap<String, String>,
        /// Whether the event is marked as seen although it was rejected, so that a resend is a duplicate.
        #[serde(default)]
        marks: bool,
    },
    /// Rejects the first event of each batch with an error that does not say which.
    RejectWithoutIds,
    /// Says one event was rejected and lists no error.
    CountMismatch,
    /// Takes the batch and answers 200 with an object that has no counters.
    BareOk,
}

impl Mode {
    /// Whether a listening socket must not exist.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        *self == Self::Refuse
    }
}

/// A mode and how long it holds. As JSON the mode's own keys, `seconds` and `requests` side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What to do.
    #[serde(flatten)]
    pub mode: Mode,
    /// Back to `ok` after this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Back to `ok` after this many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
}

impl From<Mode> for Plan {
    fn from(mode: Mode) -> Self {
        Self { mode, seconds: None, requests: None }
    }
}

/// A plan under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behavior {
    mode: Mode,
    until: Option<Instant>,
    requests_left: Option<u64>,
}

impl Behavior {
    pub(crate) fn new(plan: Plan, now: Instant) -> Self {
        let seconds = plan.seconds.map(|seconds| seconds.clamp(0.0, 86_400.0));
        let until = seconds.map(|seconds| now + Duration::from_secs_f64(seconds));
        Self { mode: plan.mode, until, requests_left: plan.requests }
    }

    /// The mode at this moment.
    pub(crate) fn mode_at(&self, now: Instant) -> Mode {
        let is_over = self.until.is_some_and(|until| now >= until) || self.requests_left == Some(0);
        if is_over { Mode::Ok } else { self.mode.clone() }
    }

    /// The mode of one more request, which uses up one of a limited number.
    pub(crate) fn take(&mut self, now: Instant) -> Mode {
        let mode = self.mode_at(now);
        if let Some(left) = &mut self.requests_left {
            *left = left.saturating_sub(1);
        }
        mode
    }

    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_they_are_documented() {
        let check = |text: &str, mode: Mode| {
            assert_eq!(serde_json::from_str::<Plan>(text).unwrap().mode, mode, "{text}");
        };
        check(r#"{"mode":"ok"}"#, Mode::Ok);
        check(r#"{"mode":"refuse","seconds":3}"#, Mode::Refuse);
        check(r#"{"mode":"503","requests":2}"#, Mode::Unavailable);
        check(r#"{"mode":"429","retry_after":"2"}"#, Mode::Throttled { retry_after: Some("2".into()) });
        check(r#"{"mode":"413","bytes_max":9}"#, Mode::TooLarge { bytes_max: 9 });
        check(r#"{"mode":"400","ids":["a"]}"#, Mode::Poison { ids: HashSet::from(["a".into()]) });
        check(r#"{"mode":"status","code":418}"#, Mode::Status { code: 418 });
        let ids = HashMap::from([("a".to_owned(), "broker down".to_owned())]);
        check(r#"{"mode":"reject_ids","ids":{"a":"broker down"}}"#, Mode::RejectIds { ids, marks: false });
    }

    #[test]
    fn a_plan_ends_after_its_requests_or_its_seconds() {
        let now = Instant::now();
        let mut twice = Behavior::new(Plan { requests: Some(2), ..Mode::Unavailable.into() }, now);
        let modes = [twice.take(now), twice.take(now), twice.take(now)];
        assert_eq!(modes, [Mode::Unavailable, Mode::Unavailable, Mode::Ok]);
        let brief = Behavior::new(Plan { seconds: Some(1.0), ..Mode::Hang.into() }, now);
        assert_eq!(brief.mode_at(now), Mode::Hang);
        assert_eq!(brief.mode_at(now + Duration::from_secs(1)), Mode::Ok);
    }
}

//! What an answer of the cloud means: one pure function over the table of answers.

use std::collections::HashSet;
use std::time::Duration;

use chrono::DateTime;
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::wire::batch::Receipt;
use schema::wire::time;
use serde_json::Value;

/// The longest wait that a cloud may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// The shortest wait after a refusal for load, whatever the cloud asks for.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Characters of a foreign text that are kept.
const TEXT_CHARS_MAX: usize = 300;

/// Error code of rows that could not be delivered.
pub const CLOUD_REQUEST_FAILED: &str = "CLOUD_REQUEST_FAILED";
/// Error code of rows for which the cloud did not know us.
pub const CLOUD_AUTH_FAILED: &str = "CLOUD_AUTH_FAILED";
/// Error code of rows for which the cloud had no time.
pub const CLOUD_THROTTLED: &str = "CLOUD_THROTTLED";
/// Error code of an event the cloud refused by name.
pub const CLOUD_EVENT_REJECTED: &str = "CLOUD_EVENT_REJECTED";
/// Error code of an event whose batch of one the cloud refused while it took an empty one.
pub const CLOUD_BATCH_REJECTED: &str = "CLOUD_BATCH_REJECTED";

/// What came back for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing, or not the whole of it.
    Lost {
        /// Whether the time ran out.
        is_timeout: bool,
        /// What happened.
        text: String,
    },
    /// A whole response.
    Response {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, as it was sent.
        retry_after: Option<String>,
        /// Body.
        body: Vec<u8>,
    },
}

/// What kind of trouble keeps a batch from being taken: the label of `sync.send_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No answer, or one of somebody else.
    Network,
    /// No answer in time.
    Timeout,
    /// The cloud is in trouble itself.
    Server,
    /// The cloud has no time for us.
    Throttled,
    /// The cloud does not know us.
    Auth,
    /// The cloud refuses every batch, even an empty one.
    Batch,
}

impl Kind {
    /// The text of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Server => "server",
            Self::Throttled => "throttled",
            Self::Auth => "auth",
            Self::Batch => "batch",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Network | Self::Timeout | Self::Server | Self::Batch => CLOUD_REQUEST_FAILED,
            Self::Throttled => CLOUD_THROTTLED,
            Self::Auth => CLOUD_AUTH_FAILED,
        }
    }
}

/// Nobody knows what became of the batch; it goes again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Of what kind.
    pub kind: Kind,
    /// Error code of the rows.
    pub code: &'static str,
    /// Error text of the rows.
    pub message: String,
    /// How long the cloud wants to be left alone.
    pub wait: Option<Duration>,
    /// The cloud's clock minus ours, when the answer tells it.
    pub skew_ms: Option<i64>,
}

impl Trouble {
    /// Trouble of a kind that asks for no wait of its own.
    #[must_use]
    pub fn new(kind: Kind, message: String) -> Self {
        Self { kind, code: kind.code(), message, wait: None, skew_ms: None }
    }
}

/// An event refused by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its position in the batch.
    pub position: usize,
    /// Why.
    pub text: String,
}

/// What an answer means for the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All events are acknowledged but the refused ones.
    Taken {
        /// Refused by name.
        refused: Vec<Refused>,
        /// Events the cloud had already.
        duplicated: u64,
    },
    /// The batch is refused as a whole, or some of it in a way that does not say what: send smaller ones.
    Split {
        /// Why.
        text: String,
    },
    /// Try again later.
    Later(Trouble),
}

/// Decides what `answer` means for a batch of these events.
///
/// | answer | verdict |
/// |---|---|
/// | 2xx, JSON object without `rejected` counter and without errors | all taken |
/// | 2xx, as many errors as `rejected`, each naming another event of the batch | taken but these |
/// | 2xx, errors and counter disagree, or an error names no event of the batch | split |
/// | 2xx without a JSON object, 3xx | later (network): somebody else has answered |
/// | 400, 413, 422 | split |
/// | 401, 403 | later (auth) |
/// | 429 | later (throttled), after `Retry-After` |
/// | any other status | later (server) |
/// | no answer | later (network, timeout) |
#[must_use]
pub fn decide(answer: &Answer, ids: &[Uuid], now: Timestamp) -> Verdict {
    let (status, retry_after, body) = match answer {
        Answer::Lost { is_timeout, text } => {
            let kind = if *is_timeout { Kind::Timeout } else { Kind::Network };
            return Verdict::Later(Trouble::new(kind, text.clone()));
        }
        Answer::Response { status, retry_after, body } => (*status, retry_after.as_deref(), body.as_slice()),
    };
    match status {
        200..=299 => match Receipt::read(body) {
            Some(receipt) => read_receipt(&receipt, ids),
            None => Verdict::Later(Trouble::new(
                Kind::Network,
                format!("answered {status} without a JSON object: this is not the cloud"),
            )),
        },
        300..=399 => Verdict::Later(Trouble::new(Kind::Network, format!("answered {status}: a redirect"))),
        400 | 413 | 422 => Verdict::Split { text: describe(status, body) },
        401 | 403 => Verdict::Later(Trouble {
            skew_ms: skew_ms(body, now),
            ..Trouble::new(Kind::Auth, describe(status, body))
        }),
        429 => Verdict::Later(Trouble {
            wait: retry_after.and_then(|text| wait_asked_for(text, now)),
            ..Trouble::new(Kind::Throttled, describe(status, body))
        }),
        _ => Verdict::Later(Trouble::new(Kind::Server, describe(status, body))),
    }
}

fn read_receipt(receipt: &Receipt, ids: &[Uuid]) -> Verdict {
    if receipt.rejected.is_none() && receipt.errors.is_empty() {
        return Verdict::Taken { refused: Vec::new(), duplicated: receipt.duplicated };
    }
    let position = |id: Uuid| ids.iter().position(|known| *known == id);
    let refused: Vec<Refused> = receipt
        .errors
        .iter()
        .filter_map(|error| {
            Some(Refused { position: position(error.event_id?)?, text: shortened(&error.error) })
        })
        .collect();
    let named: HashSet<usize> = refused.iter().map(|refused| refused.position).collect();
    let rejected = receipt.rejected.unwrap_or(0);
    let is_attributable = named.len() == receipt.errors.len() && named.len() as u64 == rejected;
    if is_attributable {
        return Verdict::Taken { refused, duplicated: receipt.duplicated };
    }
    let text =
        format!("{rejected} rejected, {} errors that name {} events", receipt.errors.len(), named.len());
    Verdict::Split { text }
}

/// `Retry-After` in seconds or as an HTTP date.
fn wait_asked_for(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let asked = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = DateTime::parse_from_rfc2822(text).ok()?;
            (at.to_utc() - now).to_std().unwrap_or(Duration::ZERO)
        }
    };
    Some(asked.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

/// The cloud's clock minus ours: from the time it tells, else from the difference it has computed itself.
fn skew_ms(body: &[u8], now: Timestamp) -> Option<i64> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let places = [&body, &body["error"], &body["error"]["details"]];
    let find = |name: &str| places.iter().map(|place| &place[name]).find(|value| !value.is_null());
    let server_ms = find("serverTime").and_then(|value| match value.as_str() {
        Some(text) => time::parse(text).map(|time| time.timestamp_millis()),
        None => value.as_i64(),
    });
    let told_by_time = server_ms.map(|ms| ms.saturating_sub(now.timestamp_millis()));
    told_by_time.or_else(|| find("skewMs").and_then(Value::as_i64).map(i64::saturating_neg))
}

/// The status and, where the body has one, its error text.
fn describe(status: u16, body: &[u8]) -> String {
    let text = serde_json::from_slice::<Value>(body).ok().and_then(|body| {
        let places = [
            &body["error"]["message"],
            &body["message"],
            &body["error"]["code"],
            &body["error"],
            &body["code"],
        ];
        places.into_iter().find_map(Value::as_str).map(shortened)
    });
    match text {
        Some(text) => format!("answered {status}: {text}"),
        None => format!("answered {status}"),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;

//! The webhook: a POST of the whole message as JSON, signed, tried again a few times.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use schema::clock::Clock;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::post::{Call, Carriage, attempts_max, send, timeout_seconds};
use super::{Failure, Message, Receipt, Way, WayError, secret};

/// Milliseconds since 1970 at which a try was signed.
pub const TIMESTAMP_HEADER: &str = "x-farmiq-timestamp";
/// `sha256=` and the HMAC over timestamp, a dot and the body, in hexadecimal.
pub const SIGNATURE_HEADER: &str = "x-farmiq-signature";
/// The same for every try of one telling, so that a receiver takes it once.
const IDEMPOTENCY_HEADER: &str = "x-idempotency-key";

/// What a webhook is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where messages are posted, http or https.
    pub url: String,
    /// The file of the secret that messages are signed with; none means they are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac_secret_file: Option<PathBuf>,
    /// CA of the receiver's certificate (PEM file); none means the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// Longest time of one try.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// Tries before it is a failure.
    #[serde(default = "attempts_max")]
    pub attempts_max: u32,
}

/// A webhook.
pub struct Webhook {
    name: String,
    settings: WebhookSettings,
    clock: Clock,
}

impl Webhook {
    /// A webhook of this name.
    #[must_use]
    pub fn new(name: &str, settings: WebhookSettings, clock: Clock) -> Self {
        Self { name: name.to_owned(), settings, clock }
    }

    fn url(&self) -> Result<Url, WayError> {
        Url::parse(&self.settings.url)
            .map_err(|error| WayError::new(&self.name, Failure::Broken, error, "correct its url"))
    }

    fn carriage(&self, attempts_max: u32) -> Carriage<'_> {
        Carriage {
            tls_ca: self.settings.tls_ca.as_ref(),
            try_max: Duration::from_secs(self.settings.timeout_seconds),
            attempts_max,
        }
    }
}

#[async_trait]
impl Way for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn patience(&self) -> Duration {
        // The waits between the tries are less than one more try.
        Duration::from_secs(self.settings.timeout_seconds) * (self.settings.attempts_max + 1)
    }

    async fn tell(&self, message: &Message) -> Result<Receipt, WayError> {
        let secret = secret::read(&self.name, self.settings.hmac_secret_file.as_ref()).await?;
        let body = serde_json::to_vec(message).expect("texts, numbers and times become JSON");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = format!(
            "{}-{}-{}-{}",
            message.alarm_id,
            message.occurrence,
            message.telling,
            message.kind.as_str()
        );
        headers.insert(
            HeaderName::from_static(IDEMPOTENCY_HEADER),
            HeaderValue::from_str(&key).expect("a UUID, numbers and a word"),
        );
        let call = Call { way: &self.name, method: Method::POST, url: self.url()?, headers, body };
        let sign = |headers: &mut HeaderMap| {
            let Some(secret) = &secret else { return };
            let timestamp_ms = self.clock.now().timestamp_millis();
            headers.insert(HeaderName::from_static(TIMESTAMP_HEADER), HeaderValue::from(timestamp_ms));
            let signed = HeaderValue::from_str(&signature(secret, timestamp_ms, &call.body));
            headers.insert(HeaderName::from_static(SIGNATURE_HEADER), signed.expect("hexadecimal"));
        };
        let answered = send(&call, &self.carriage(self.settings.attempts_max), sign).await?;
        Ok(Receipt { way: self.name.clone(), detail: answered.detail(), confirmed_by: None, latency_ms: 0 })
    }

    /// The address answers at all: what it says to a HEAD does not matter.
    async fn reach(&self) -> Result<String, WayError> {
        secret::read(&self.name, self.settings.hmac_secret_file.as_ref()).await?;
        let url = self.url()?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let call =
            Call { way: &self.name, method: Method::HEAD, url, headers: HeaderMap::new(), body: Vec::new() };
        match send(&call, &self.carriage(1), |_| {}).await {
            Ok(_) => Ok(format!("{host} answers")),
            Err(error) if error.failure == Failure::Refused => Ok(format!("{host} answers")),
            Err(error) => Err(error),
        }
    }
}

/// The value of [`SIGNATURE_HEADER`].
#[must_use]
pub fn signature(secret: &str, timestamp_ms: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(format!("{timestamp_ms}.").as_bytes());
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

//! ntfy, on the box or beside it: phones that keep a connection to it get the message without the internet.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::post::{Call, Carriage, attempts_max, send, timeout_seconds};
use super::{Class, Failure, Language, Message, Receipt, Way, WayError, secret};

/// What ntfy is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NtfySettings {
    /// The address of the server, http or https, such as `http://10.0.0.5:2586`.
    pub url: String,
    /// The topic that the phones have subscribed to.
    pub topic: String,
    /// The file of the access token, where the topic needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// CA of the server's certificate (PEM file); none means the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// The page that a tap on the message opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub click: Option<String>,
    /// The language of the people.
    #[serde(default)]
    pub language: Language,
    /// Longest time of one try.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// Tries before it is a failure.
    #[serde(default = "attempts_max")]
    pub attempts_max: u32,
}

/// An ntfy server and a topic of it.
pub struct Ntfy {
    name: String,
    settings: NtfySettings,
}

impl Ntfy {
    /// A way of this name.
    #[must_use]
    pub fn new(name: &str, settings: NtfySettings) -> Self {
        Self { name: name.to_owned(), settings }
    }

    fn url(&self, path: &str) -> Result<Url, WayError> {
        let joined = Url::parse(&self.settings.url).and_then(|url| url.join(path));
        joined.map_err(|error| WayError::new(&self.name, Failure::Broken, error, "correct its url"))
    }

    fn carriage(&self, attempts_max: u32) -> Carriage<'_> {
        Carriage {
            tls_ca: self.settings.tls_ca.as_ref(),
            try_max: Duration::from_secs(self.settings.timeout_seconds),
            attempts_max,
        }
    }

    async fn headers(&self) -> Result<HeaderMap, WayError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = secret::read(&self.name, self.settings.token_file.as_ref()).await? {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                let what = "the token has characters that fit into no header";
                WayError::new(&self.name, Failure::Broken, what, "make a new one with `ntfy token add`")
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

#[async_trait]
impl Way for Ntfy {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "ntfy"
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.timeout_seconds) * (self.settings.attempts_max + 1)
    }

    async fn tell(&self, message: &Message) -> Result<Receipt, WayError> {
        let language = self.settings.language;
        let mut body = json!({
            "topic": self.settings.topic,
            "title": message.headline(language),
            "message": message.body(language),
            "priority": priority(message),
            "tags": [tag(message), message.class.as_str(), message.rule],
        });
        if let Some(click) = &self.settings.click {
            body["click"] = click.as_str().into();
        }
        let call = Call {
            way: &self.name,
            method: Method::POST,
            url: self.url("/")?,
            headers: self.headers().await?,
            body: body.to_string().into_bytes(),
        };
        let answered = send(&call, &self.carriage(self.settings.attempts_max), |_| {}).await?;
        Ok(Receipt { way: self.name.clone(), detail: answered.detail(), confirmed_by: None, latency_ms: 0 })
    }

    /// The server says that it is well, and that the token may read the topic's account.
    async fn reach(&self) -> Result<String, WayError> {
        let call = Call {
            way: &self.name,
            method: Method::GET,
            url: self.url("/v1/health")?,
            headers: self.headers().await?,
            body: Vec::new(),
        };
        send(&call, &self.carriage(1), |_| {}).await?;
        Ok(format!("{} is well", call.url.host_str().unwrap_or_default()))
    }
}

/// From 1 to 5, which rings through a silent phone.
fn priority(message: &Message) -> u8 {
    match (message.is_call(), message.class) {
        (false, _) => 2,
        (true, Class::Critical) => 5,
        (true, Class::High) => 4,
        (true, Class::Low) => 3,
    }
}

/// The picture before the title.
fn tag(message: &Message) -> &'static str {
    match (message.is_call(), message.class) {
        (false, _) => "white_check_mark",
        (true, Class::Critical) => "rotating_light",
        (true, Class::High | Class::Low) => "warning",
    }
}

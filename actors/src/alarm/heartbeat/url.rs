//! Beats that are posted to an address: a second box, or a watcher outside that rings when they stop.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::SendBeat;
use crate::alarm::way::post::{Call, Carriage, send};

/// The longest time of a request: the next beat comes anyway.
const SEND_MAX: Duration = Duration::from_secs(5);
/// What the settings call it.
const NAME: &str = "alarms.heartbeat_url";

/// Posts beats as JSON, once each.
pub struct BeatUrl {
    url: Url,
    tls_ca: Option<PathBuf>,
}

impl BeatUrl {
    /// `None` when this is no address.
    #[must_use]
    pub fn new(url: &str, tls_ca: Option<PathBuf>) -> Option<Self> {
        Some(Self { url: Url::parse(url).ok()?, tls_ca })
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let call = Call { way: NAME, method: Method::POST, url: self.url.clone(), headers, body };
        let carriage = Carriage { tls_ca: self.tls_ca.as_ref(), try_max: SEND_MAX, attempts_max: 1 };
        send(&call, &carriage, |_| {}).await.map(drop).map_err(|error| error.what)
    }
}

impl SendBeat for BeatUrl {
    fn send(self: Arc<Self>, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        Box::pin(async move { self.post(body).await })
    }
}

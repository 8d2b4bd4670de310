//! The HTTP client of the cloud: one configured host, no redirects, no proxy but the configured one, bounded answers.

use std::error::Error;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use broker::LinkTls;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Request, RequestBuilder, Response, Url};
use schema::clock::Clock;
use schema::id::Uuid;

use super::answer::Answer;
use super::sign::{CloudAuth, signature, signed_path};

mod line;

use line::{Dialer, Lines};

/// Bytes of an answer that are read; a longer one is none.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Characters of an error text that are kept.
const TEXT_CHARS_MAX: usize = 300;
/// Where the cloud is greeted.
const HANDSHAKE_PATH: &str = "/api/v1/edge/diagnostics/handshake";

/// How to reach the cloud.
#[derive(Clone, Debug)]
pub struct CloudSettings {
    /// Where batches are posted.
    pub url: String,
    /// How the engine proves who it is.
    pub auth: CloudAuth,
    /// Value of the `authorization` header, in every mode. Empty for none.
    pub authorization: String,
    /// More headers, in every mode.
    pub headers: Vec<(String, String)>,
    /// Whom it trusts to be the cloud, and what it shows of itself.
    pub tls: LinkTls,
    /// The proxy on the way, `http://` or `https://`, with a user and a password if it wants them: never logged.
    pub proxy: Option<String>,
    /// Seconds for a whole request.
    pub timeout_seconds: u64,
    /// Seconds without any exchange after which the cloud is greeted.
    pub handshake_seconds: u64,
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The URL is none.
    #[error("read cloud.url")]
    Url,
    /// A header has a forbidden character.
    #[error("read the header {name} for the cloud")]
    Header {
        /// Its name.
        name: String,
    },
    /// The address of the proxy is none.
    #[error("read cloud.proxy")]
    Proxy,
}

/// Whether this is the address of a proxy that can be used.
#[must_use]
pub fn is_proxy(address: &str) -> bool {
    Dialer::new(LinkTls::default(), Some(address)).is_some()
}

/// The client.
#[derive(Debug)]
pub(crate) struct Cloud {
    lines: Lines,
    batch_url: Url,
    handshake_url: Url,
    headers: HeaderMap,
    auth: CloudAuth,
    timeout: Duration,
    clock: Clock,
    /// The last timestamp that was signed: no two requests have the same.
    signed_ms: AtomicI64,
}

impl Cloud {
    pub(crate) fn new(settings: &CloudSettings, clock: Clock) -> Result<Self, CloudError> {
        // An error means that somebody has installed a provider before; there is only one in this program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let batch_url = Url::parse(&settings.url).map_err(|_| CloudError::Url)?;
        let handshake_url = batch_url.join(HANDSHAKE_PATH).map_err(|_| CloudError::Url)?;
        let dialer = Dialer::new(settings.tls.clone(), settings.proxy.as_deref()).ok_or(CloudError::Proxy)?;
        Ok(Self {
            lines: Lines::new(dialer),
            batch_url,
            handshake_url,
            headers: static_headers(settings)?,
            auth: settings.auth.clone(),
            timeout: Duration::from_secs(settings.timeout_seconds),
            clock,
            signed_ms: AtomicI64::new(0),
        })
    }

    /// Posts a batch. It is signed here, anew for every attempt.
    pub(crate) async fn post(&self, tenant_id: &str, batch_id: Uuid, body: String) -> Answer {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let Ok(tenant) = HeaderValue::from_bytes(tenant_id.as_bytes()) else {
            return Answer::Lost { is_timeout: false, text: "the tenant id fits into no header".to_owned() };
        };
        headers.insert("x-tenant-id", tenant);
        let id = HeaderValue::from_str(&batch_id.hyphenated().to_string()).expect("a UUID is plain text");
        for name in ["x-request-id", "x-trace-id", "x-idempotency-key"] {
            headers.insert(name, id.clone());
        }
        self.prove(&mut headers, "POST", &self.batch_url, body.as_bytes());
        self.exchange(|client| client.post(self.batch_url.clone()).headers(headers).body(body)).await
    }

    /// Greets the cloud. In one of its modes it understands a GET only when that is announced as JSON without content.
    pub(crate) async fn handshake(&self) -> Answer {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        self.prove(&mut headers, "GET", &self.handshake_url, b"");
        self.exchange(|client| client.get(self.handshake_url.clone()).headers(headers)).await
    }

    fn prove(&self, headers: &mut HeaderMap, method: &str, url: &Url, body: &[u8]) {
        match &self.auth {
            CloudAuth::None => {}
            CloudAuth::ApiKey(key) => {
                headers
                    .insert("x-api-key", secret(key).expect("the key was checked when the client was made"));
            }
            CloudAuth::Hmac(key) => {
                let timestamp_ms = self.unused_timestamp_ms();
                let value = signature(key, timestamp_ms, method, signed_path(url.path()), body);
                headers.insert("x-edge-timestamp", HeaderValue::from(timestamp_ms));
                headers.insert("x-edge-signature", secret(&value).expect("hex is plain text"));
            }
        }
    }

    fn unused_timestamp_ms(&self) -> i64 {
        let now_ms = self.clock.now().timestamp_millis();
        let step = |last: i64| Some(if last >= now_ms && last - now_ms < 1000 { last + 1 } else { now_ms });
        let last = self.signed_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        step(last.expect("the step never refuses")).expect("the step never refuses")
    }

    /// Asks over the line that stands, and leaves it when what comes back is not what the cloud says when all is well:
    /// perhaps its name leads elsewhere by now.
    async fn exchange(&self, request: impl FnOnce(&Client) -> RequestBuilder) -> Answer {
        let line = match self.lines.current().await {
            Ok(line) => line,
            Err(error) => return lost(false, &error),
        };
        let answer = match request(&line.client).timeout(self.timeout).build() {
            Ok(request) => self.receive(&line.client, request).await,
            Err(error) => Err(error),
        };
        let answer = answer.unwrap_or_else(|error| lost(error.is_timeout(), &error));
        if !is_of_a_cloud_at_work(&answer) {
            self.lines.leave(&line).await;
        }
        answer
    }

    async fn receive(&self, client: &Client, request: Request) -> Result<Answer, reqwest::Error> {
        let mut response: Response = client.execute(request).await?;
        let status = response.status().as_u16();
        if let Some(encoding) = unknown_encoding(response.headers()) {
            let text = format!("answered {status} with content-encoding {encoding}, which was not asked for");
            return Ok(Answer::Lost { is_timeout: false, text: text.chars().take(TEXT_CHARS_MAX).collect() });
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let text = format!("answered {status} with more than {ANSWER_BYTES_MAX} bytes");
                return Ok(Answer::Lost { is_timeout: false, text });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer::Response { status, retry_after, body })
    }
}

fn static_headers(settings: &CloudSettings) -> Result<HeaderMap, CloudError> {
    let refuse = |name: &str| CloudError::Header { name: name.to_owned() };
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let key = HeaderName::try_from(name.as_str()).map_err(|_| refuse(name))?;
        headers.insert(key, secret(value).ok_or_else(|| refuse(name))?);
    }
    if !settings.authorization.is_empty() {
        headers
            .insert(AUTHORIZATION, secret(&settings.authorization).ok_or_else(|| refuse("authorization"))?);
    }
    if let CloudAuth::ApiKey(key) = &settings.auth {
        secret(key).ok_or_else(|| refuse("x-api-key"))?;
    }
    // The lengths and encodings of bodies are ours to tell.
    for name in ["content-length", "content-encoding", "transfer-encoding", "host"] {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(headers)
}

/// How an answer is written, if not plainly.
fn unknown_encoding(headers: &HeaderMap) -> Option<String> {
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    let encodings = encodings.map(|encoding| String::from_utf8_lossy(encoding.as_bytes()).into_owned());
    let encodings: Vec<_> = encodings.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")).collect();
    (!encodings.is_empty()).then(|| encodings.join(", "))
}

/// Whether an answer is one that a cloud gives that works: it takes a batch, or refuses it.
fn is_of_a_cloud_at_work(answer: &Answer) -> bool {
    match answer {
        Answer::Lost { .. } => false,
        Answer::Response { status: 200..=299, body, .. } => body.trim_ascii_start().starts_with(b"{"),
        Answer::Response { status, .. } => matches!(status, 400 | 413 | 422),
    }
}

/// A header value that no log shows.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The innermost cause says most; the URL is left out, since it may hold a secret.
fn lost(is_timeout: bool, error: &(dyn Error + 'static)) -> Answer {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let is_plain = error.downcast_ref::<reqwest::Error>().is_some() && error.source().is_none();
    let text = if is_plain { "the request failed".to_owned() } else { cause.to_string() };
    let text = match broker::tls::advice(&text) {
        _ if is_timeout => "no answer in time".to_owned(),
        Some(advice) => format!("{text}: {advice}"),
        None => text,
    };
    Answer::Lost { is_timeout, text: text.chars().take(TEXT_CHARS_MAX).collect() }
}

#[cfg(test)]
mod tests {
    use schema::clock::Timestamp;

    use super::*;

    fn settings(auth: CloudAuth) -> CloudSettings {
        CloudSettings {
            url: "http://127.0.0.1:9/api/v1/edge/batch?x=1".to_owned(),
            auth,
            authorization: "Bearer a".to_owned(),
            headers: vec![
                ("Authorization".to_owned(), "Bearer b".to_owned()),
                ("x-site".to_owned(), "7".to_owned()),
            ],
            tls: LinkTls::default(),
            proxy: None,
            timeout_seconds: 1,
            handshake_seconds: 60,
        }
    }

    #[test]
    fn the_handshake_is_at_the_origin_and_settings_come_before_static_headers() {
        let cloud = Cloud::new(&settings(CloudAuth::None), Clock::system()).unwrap();
        assert_eq!(cloud.handshake_url.as_str(), "http://127.0.0.1:9/api/v1/edge/diagnostics/handshake");
        assert_eq!(cloud.headers[AUTHORIZATION], "Bearer a");
        assert_eq!(cloud.headers["x-site"], "7");
    }

    #[test]
    fn no_timestamp_is_signed_twice() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH + chrono::Duration::seconds(1));
        let cloud = Cloud::new(&settings(CloudAuth::Hmac("s".to_owned())), clock.clone()).unwrap();
        assert_eq!([cloud.unused_timestamp_ms(), cloud.unused_timestamp_ms()], [1000, 1001]);
        clock.advance(chrono::Duration::milliseconds(5));
        assert_eq!(cloud.unused_timestamp_ms(), 1005);
    }

    #[test]
    fn settings_that_fit_into_no_header_are_refused() {
        let bad = CloudSettings { authorization: "a\nb".to_owned(), ..settings(CloudAuth::None) };
        assert!(matches!(Cloud::new(&bad, Clock::system()), Err(CloudError::Header { .. })));
        assert!(Cloud::new(&settings(CloudAuth::ApiKey("\n".to_owned())), Clock::system()).is_err());
        let bad = CloudSettings { url: "cloud".to_owned(), ..settings(CloudAuth::None) };
        assert!(matches!(Cloud::new(&bad, Clock::system()), Err(CloudError::Url)));
        let bad = CloudSettings { proxy: Some("socks://x y".to_owned()), ..settings(CloudAuth::None) };
        assert!(matches!(Cloud::new(&bad, Clock::system()), Err(CloudError::Proxy)));
    }

    #[tokio::test]
    async fn nobody_listening_is_a_lost_answer() {
        let cloud = Cloud::new(&settings(CloudAuth::None), Clock::system()).unwrap();
        let answer = cloud.post("t", schema::id::new_id(), "{}".to_owned()).await;
        let Answer::Lost { is_timeout: false, text } = answer else { panic!("{answer:?}") };
        assert!(text.contains("refused"), "{text}");
    }

    /// Answers one request so, and returns where.
    async fn answering(answer: &'static str) -> (String, tokio::task::JoinSet<String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v1/edge/batch", listener.local_addr().unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let bytes = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..bytes]).to_lowercase()
        });
        (url, tasks)
    }

    #[tokio::test]
    async fn an_answer_is_asked_for_as_it_is_and_one_in_another_encoding_is_named() {
        let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x01";
        let (url, mut asked) = answering(gzip).await;
        let cloud = Cloud::new(&CloudSettings { url, ..settings(CloudAuth::None) }, Clock::system()).unwrap();
        let answer = cloud.handshake().await;
        let Answer::Lost { is_timeout: false, text } = answer else { panic!("{answer:?}") };
        assert_eq!(text, "answered 200 with content-encoding gzip, which was not asked for");
        let asked = asked.join_next().await.unwrap().unwrap();
        assert!(asked.contains("accept-encoding: identity\r\n"), "{asked}");

        let plain = "HTTP/1.1 200 OK\r\ncontent-encoding: Identity\r\ncontent-length: 2\r\n\r\n{}";
        let (url, _asked) = answering(plain).await;
        let cloud = Cloud::new(&CloudSettings { url, ..settings(CloudAuth::None) }, Clock::system()).unwrap();
        assert!(matches!(cloud.handshake().await, Answer::Response { status: 200, .. }));
    }

    #[test]
    fn only_a_cloud_at_work_keeps_its_connections() {
        let check = |status, body: &str, expected| {
            let answer = Answer::Response { status, retry_after: None, body: body.into() };
            assert_eq!(is_of_a_cloud_at_work(&answer), expected, "{status} {body}");
        };
        check(200, " {\"accepted\":1}", true);
        check(200, "<html>Sign in</html>", false);
        check(204, "", false);
        for status in [400, 413, 422] {
            check(status, "", true);
        }
        for status in [301, 401, 403, 404, 408, 429, 500, 502, 503] {
            check(status, "{}", false);
        }
    }
}

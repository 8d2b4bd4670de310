//! The HTTP of ways: one request, no redirects, no proxy, a bounded answer, and tries again where that can help.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use broker::LinkTls;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode, Url};
use tokio::time::{Instant, sleep, timeout};

use super::{DETAIL_BYTES_MAX, Failure, WayError, bounded};

/// The wait before the second try; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// Longest time of one try, unless it is set.
pub(super) fn timeout_seconds() -> u64 {
    10
}

/// Tries before it is a failure, unless they are set.
pub(super) fn attempts_max() -> u32 {
    3
}

/// What is sent where.
pub(in crate::alarm) struct Call<'a> {
    /// For words.
    pub(in crate::alarm) way: &'a str,
    /// How.
    pub(in crate::alarm) method: Method,
    /// Where.
    pub(in crate::alarm) url: Url,
    /// What goes before the body; secrets are marked as such.
    pub(in crate::alarm) headers: HeaderMap,
    /// The body.
    pub(in crate::alarm) body: Vec<u8>,
}

/// How it is sent.
pub(in crate::alarm) struct Carriage<'a> {
    /// The CA of the other side; `None` means those of the system.
    pub(in crate::alarm) tls_ca: Option<&'a PathBuf>,
    /// Longest time of one try, and of all tries together.
    pub(in crate::alarm) try_max: Duration,
    /// Tries, at least one.
    pub(in crate::alarm) attempts_max: u32,
}

/// What came back.
pub(in crate::alarm) struct Answered {
    pub(in crate::alarm) status: StatusCode,
    /// As much of the body as is kept.
    pub(in crate::alarm) text: String,
}

impl Answered {
    /// Status and body in one line.
    pub(in crate::alarm) fn detail(&self) -> String {
        format!("{} {}", self.status, self.text).trim().to_owned()
    }
}

/// Sends a call. `sign` adds what is new in each try.
///
/// # Errors
/// When nobody answers, or the other side refuses; a refusal that will not change is not tried again.
pub(in crate::alarm) async fn send(
    call: &Call<'_>,
    carriage: &Carriage<'_>,
    sign: impl Fn(&mut HeaderMap) + Send + Sync,
) -> Result<Answered, WayError> {
    let client = client(call.way, carriage).await?;
    let (mut wait, mut attempt) = (RETRY_FIRST, 0);
    loop {
        attempt += 1;
        let answer = once(&client, call, carriage.try_max, &sign).await;
        let is_last = attempt >= carriage.attempts_max;
        match answer {
            Ok(answer) if answer.status.is_success() => return Ok(answer),
            Ok(answer) if is_last || !is_passing(answer.status) => return Err(refused(call, &answer)),
            Err(error) if is_last => return Err(error),
            Ok(_) | Err(_) => {}
        }
        sleep(wait).await;
        wait *= 2;
    }
}

async fn once(
    client: &Client,
    call: &Call<'_>,
    try_max: Duration,
    sign: &(impl Fn(&mut HeaderMap) + Sync),
) -> Result<Answered, WayError> {
    let mut headers = call.headers.clone();
    sign(&mut headers);
    let request =
        client.request(call.method.clone(), call.url.clone()).headers(headers).body(call.body.clone());
    let began_at = Instant::now();
    let exchange = async {
        let mut response = request.send().await?;
        let status = response.status();
        let mut body = Vec::new();
        while body.len() < DETAIL_BYTES_MAX
            && let Some(chunk) = response.chunk().await?
        {
            body.extend_from_slice(&chunk);
        }
        Ok(Answered { status, text: bounded(&String::from_utf8_lossy(&body)) })
    };
    match timeout(try_max, exchange).await {
        Ok(Ok(answered)) => Ok(answered),
        Ok(Err(error)) => Err(lost(call, &error)),
        Err(_) => {
            let what = format!("no answer from {} in {} ms", host(&call.url), began_at.elapsed().as_millis());
            let advice = "see that the server runs and that the network of the barn reaches it";
            Err(WayError::new(call.way, Failure::TimedOut, what, advice))
        }
    }
}

async fn client(way: &str, carriage: &Carriage<'_>) -> Result<Client, WayError> {
    let tls = LinkTls { ca: carriage.tls_ca.cloned(), own: None };
    let broken = |error: &dyn Error| {
        let what = format!("TLS cannot be prepared: {}", innermost(error));
        WayError::new(way, Failure::Broken, what, "check tls_ca, and who may read it")
    };
    let tls = tls.read().await.map_err(|error| broken(&error))?;
    let client = Client::builder()
        .use_preconfigured_tls(std::sync::Arc::unwrap_or_clone(tls))
        .redirect(Policy::none())
        .no_proxy()
        .user_agent("farmiq-edge")
        .build();
    client.map_err(|error| broken(&error))
}

/// Whether the same request may succeed later.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

fn refused(call: &Call<'_>, answer: &Answered) -> WayError {
    let advice = match answer.status.as_u16() {
        401 | 403 => "check the secret or the token in its file, and what the server lets it do",
        404 | 405 => "check the address in the settings of this way",
        413 => "let the server take messages of a few kilobytes",
        300..=399 => "write the address that it redirects to into the settings: redirects are not followed",
        _ => "look into the log of the server",
    };
    let what = format!("{} answered {}", host(&call.url), answer.detail());
    WayError::new(call.way, Failure::Refused, what, advice)
}

/// The URL is left out, since it may hold a secret.
fn lost(call: &Call<'_>, error: &reqwest::Error) -> WayError {
    let cause = innermost(error);
    let what = format!("{} cannot be reached: {cause}", host(&call.url));
    let advice = broker::tls::advice(&cause)
        .unwrap_or("see that the server runs and that the network of the barn reaches it");
    WayError::new(call.way, Failure::Unreachable, what, advice)
}

fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

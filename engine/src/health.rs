//! Asks the engine that runs on this machine how it is: for containers, which may have no shell.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{StatusCode, request};
use broker::tls::connect_unverified;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Http, Secret};

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(4);
/// The header of an operator's key.
const API_KEY: &str = "x-api-key";
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether the process lives.
    Lives,
    /// Whether it can do its work.
    IsReady,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody answers.
    #[error("no engine answers on {address}: {source}")]
    Silent {
        /// Who was asked.
        address: SocketAddr,
        /// What happened instead.
        source: io::Error,
    },
    /// Something answers, but not as it should.
    #[error("{address} answers {status}{detail}")]
    Unwell {
        /// Who was asked.
        address: SocketAddr,
        /// The status of its answer.
        status: StatusCode,
        /// What it says it waits for.
        detail: String,
    },
}

/// Asks the engine that listens as configured, over TLS where its port speaks nothing else.
///
/// # Errors
/// When it does not answer, or not well.
pub async fn ask(http: &Http, question: Question) -> Result<&'static str, HealthError> {
    let (path, good) = match question {
        Question::Lives => ("/api/health", "healthy"),
        Question::IsReady => ("/api/ready", "ready"),
    };
    let address = local(http.listen);
    let silent = |source| HealthError::Silent { address, source };
    let (status, body) = fetch(http, path, None, ANSWER_BYTES_MAX).await.map_err(silent)?;
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == StatusCode::OK && said["status"] == good {
        return Ok(good);
    }
    let detail = said["waits_for"].as_str().map(|what| format!(", it waits for: {what}")).unwrap_or_default();
    Err(HealthError::Unwell { address, status, detail })
}

/// What the engine that listens as configured answers to a GET, with the key of an operator where one is given.
pub(crate) async fn fetch(
    http: &Http,
    path: &str,
    key: Option<&Secret>,
    bytes_max: usize,
) -> io::Result<(StatusCode, Bytes)> {
    call(http, (Request::get(path), Bytes::new()), key, (bytes_max, ANSWER)).await
}

/// What it answers to a POST of JSON, within so many bytes and a time.
pub(crate) async fn post(
    http: &Http,
    path: &str,
    key: Option<&Secret>,
    body: &serde_json::Value,
    limits: (usize, Duration),
) -> io::Result<(StatusCode, Bytes)> {
    let body = Bytes::from(body.to_string());
    let asked =
        Request::post(path).header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, body.len());
    call(http, (asked, body), key, limits).await
}

async fn call(
    http: &Http,
    (asked, body): (request::Builder, Bytes),
    key: Option<&Secret>,
    (bytes_max, answer_max): (usize, Duration),
) -> io::Result<(StatusCode, Bytes)> {
    let address = local(http.listen);
    let mut asked = asked.header(HOST, address.to_string());
    if let Some(key) = key {
        asked = asked.header(API_KEY, key.expose());
    }
    let asked = asked.body(Full::new(body)).map_err(io::Error::other)?;
    let get = async {
        let stream = TcpStream::connect(address).await?;
        if http.tls_cert.is_some() {
            exchange(connect_unverified(stream, address.ip()).await?, asked, bytes_max).await
        } else {
            exchange(stream, asked, bytes_max).await
        }
    };
    timeout(answer_max, get).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        Ok((status, body.map_err(io::Error::other)?.to_bytes()))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(io::Error::other)?;
            answer.await
        }
    }
}

/// Where a listener is reached from this machine.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_asked_at_the_loopback_address() {
        let check = |listen: &str, expected: &str| {
            assert_eq!(local(listen.parse().unwrap()), expected.parse().unwrap());
        };
        check("0.0.0.0:3000", "127.0.0.1:3000");
        check("[::]:3000", "[::1]:3000");
        check("192.0.2.7:80", "192.0.2.7:80");
    }
}

//! A small HTTP client: one request, one connection, encrypted if the URL says so, the body read line by line.

use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::stream::{Stream, Tls};

/// Longest line of an answer.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Whom requests over https trust, when the command line names a CA.
static TRUSTED: OnceLock<Tls> = OnceLock::new();

/// Has requests over https trust the CAs of this client from now on, rather than the system's. The first call counts.
pub fn trust(tls: &Tls) {
    TRUSTED.get_or_init(|| tls.clone());
}

/// Fetches `path` from `base` (`http://host:port` or `https://host:port`) and gives each line of the answer to `take`.
///
/// # Errors
/// When the server cannot be reached, answers anything but 2xx, or sends what is no text.
pub async fn get_lines(base: &str, path: &str, mut take: impl FnMut(&str)) -> Result<()> {
    let authority = authority(base)?;
    let request = Request::get(path).header("host", authority).body(Full::<Bytes>::default())?;
    let mut line = Vec::new();
    exchange(base, request, async |response| {
        if !response.status().is_success() {
            bail!("the answer is {}", response.status());
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("read the answer")?;
            for byte in frame.data_ref().into_iter().flatten() {
                if *byte == b'\n' {
                    take(std::str::from_utf8(&line).context("read a line of the answer")?);
                    line.clear();
                } else if line.len() < LINE_BYTES_MAX {
                    line.push(*byte);
                } else {
                    bail!("a line of the answer is longer than {LINE_BYTES_MAX} bytes");
                }
            }
        }
        if !line.is_empty() {
            take(std::str::from_utf8(&line).context("read a line of the answer")?);
        }
        Ok(())
    })
    .await
    .with_context(|| format!("GET {base}{path}"))
}

/// Sends a whole request and returns status and body; for tests and short answers.
///
/// # Errors
/// When the server cannot be reached or breaks off.
pub async fn call(base: &str, request: Request<Full<Bytes>>) -> Result<(u16, Bytes)> {
    exchange(base, request, async |response| {
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await.context("read the answer")?.to_bytes()))
    })
    .await
}

/// The `host:port` of a URL; the port may be missing, if it is the usual one.
///
/// # Errors
/// When the URL is neither http nor https.
pub fn authority(base: &str) -> Result<&str> {
    parts(base).map(|(_, authority, _)| authority)
}

/// The path of a URL with what follows it; empty when it has none.
///
/// # Errors
/// When the URL is neither http nor https.
pub fn path(base: &str) -> Result<&str> {
    parts(base).map(|(_, _, path)| path)
}

/// Whether a URL is encrypted, its `host:port`, and its path.
fn parts(base: &str) -> Result<(bool, &str, &str)> {
    let (is_encrypted, rest) = match base.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => bail!("{base:?} starts with neither http:// nor https://"),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok((is_encrypted, authority, path))
}

async fn connect(base: &str) -> Result<Stream> {
    let (is_encrypted, authority, _) = parts(base)?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let usual = if is_encrypted { ":443" } else { ":80" };
    let address = format!("{authority}{}", if has_port { "" } else { usual });
    let stream = TcpStream::connect(&address).await.with_context(|| format!("connect to {address}"))?;
    let tls = match TRUSTED.get() {
        _ if !is_encrypted => None,
        Some(tls) => Some(tls.clone()),
        None => Some(Tls::trusting_system()?),
    };
    let host = address.rsplit_once(':').map_or(authority, |(host, _)| host);
    let tls = tls.map(|tls| tls.named(host.trim_matches(['[', ']']))).transpose()?;
    Stream::over(stream, base, tls.as_ref()).await
}

async fn exchange<T>(
    base: &str,
    request: Request<Full<Bytes>>,
    consume: impl AsyncFnOnce(Response<Incoming>) -> Result<T>,
) -> Result<T> {
    let stream = connect(base).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("start HTTP")?;
    let work = async {
        let response = sender.send_request(request).await.context("send the request")?;
        consume(response).await
    };
    let drive = async {
        // How a connection ends shows in the work; what was received is still to be read after its end.
        drop(connection.await);
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        result = work => result,
        never = drive => match never {},
    }
}

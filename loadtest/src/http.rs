//! A small HTTP client: one request, one connection, the body read line by line.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest line of an answer.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Fetches `path` from `base` (`http://host:port`) and gives each line of the answer to `take`.
///
/// # Errors
/// When the server cannot be reached, answers anything but 2xx, or sends what is no text.
pub async fn get_lines(base: &str, path: &str, mut take: impl FnMut(&str)) -> Result<()> {
    let authority = authority(base)?;
    let request = Request::get(path).header("host", authority).body(Full::<Bytes>::default())?;
    let mut line = Vec::new();
    exchange(authority, request, async |response| {
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
    exchange(authority(base)?, request, async |response| {
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await.context("read the answer")?.to_bytes()))
    })
    .await
}

/// The `host:port` of a URL.
///
/// # Errors
/// When the URL is not http.
pub fn authority(base: &str) -> Result<&str> {
    let rest =
        base.strip_prefix("http://").with_context(|| format!("{base:?} does not start with http://"))?;
    Ok(rest.split('/').next().unwrap_or(rest))
}

async fn exchange<T>(
    authority: &str,
    request: Request<Full<Bytes>>,
    consume: impl AsyncFnOnce(Response<Incoming>) -> Result<T>,
) -> Result<T> {
    let stream = TcpStream::connect(authority).await.with_context(|| format!("connect to {authority}"))?;
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

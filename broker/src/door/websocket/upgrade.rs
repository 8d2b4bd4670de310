//! The upgrade of an HTTP request to a WebSocket that carries MQTT.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{CONNECTION, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::door::websocket::WebSocket;

/// Where MQTT is to be found.
const PATH: &str = "/mqtt";
/// What the client must offer and is told [MQTT-6.0.0-3, MQTT-6.0.0-4].
const SUBPROTOCOL: &str = "mqtt";
/// Bytes of buffers that live only as long as the upgrade.
const UPGRADE_BUFFER_BYTES: usize = 1 << 10;

/// Why a client did not get its WebSocket. How long it takes is the caller's to bound; the bytes of its request are
/// bounded here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The request was understood, and answered with this status.
    #[error("the request was answered with {0}")]
    Answered(StatusCode),
    /// It was no request, or the stream failed.
    #[error("upgrade to a WebSocket")]
    Failed(#[source] Box<Error>),
}

impl From<Error> for UpgradeError {
    fn from(error: Error) -> Self {
        if let Error::Http(response) = &error {
            return Self::Answered(response.status());
        }
        Self::Failed(Box::new(error))
    }
}

/// The pages that may open a WebSocket; all may when none is named.
///
/// A browser tells from which page a request comes and lets any page ask. Where a server knows its visitors by cookies,
/// a strange page could act in their name; here nothing of that kind is looked at, and a page knows no more than the
/// user name and the password that it sends itself. The list is for sites that let clients in by what a browser adds
/// on its own: a certificate, or being in the house when no credential is needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(pub(crate) Vec<String>);

impl Origins {
    /// Whoever names no origin is no browser.
    fn may_open(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(ORIGIN) else { return true };
        self.0.is_empty() || self.0.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }
}

/// Makes a WebSocket of a stream.
pub(crate) async fn upgrade<S>(stream: S, origins: &Origins) -> Result<WebSocket<S>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(UPGRADE_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(UPGRADE_BUFFER_BYTES);
    let upgraded = accept_hdr_async_with_config(stream, Judge { origins }, Some(config)).await?;
    // The client may send nothing between its request and our answer, so that nothing of it was read.
    Ok(WebSocket::new(upgraded.into_inner()))
}

struct Judge<'a> {
    origins: &'a Origins,
}

impl Callback for Judge<'_> {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        if request.uri().path() != PATH {
            return Err(refused(StatusCode::NOT_FOUND, "MQTT is at /mqtt\n"));
        }
        if !self.origins.may_open(request.headers()) {
            return Err(refused(StatusCode::FORBIDDEN, "this origin is not allowed\n"));
        }
        if !offers_mqtt(request.headers()) {
            return Err(refused(StatusCode::BAD_REQUEST, "offer the subprotocol mqtt\n"));
        }
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        Ok(response)
    }
}

fn offers_mqtt(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|offer| offer.split(',')).any(|name| name.trim() == SUBPROTOCOL)
}

fn refused(status: StatusCode, reason: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(reason.to_owned()));
    *response.status_mut() = status;
    let length = HeaderValue::from(reason.len());
    response.headers_mut().insert(HeaderName::from_static("content-length"), length);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

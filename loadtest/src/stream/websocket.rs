//! A WebSocket as a stream of bytes, the way MQTT goes through it: binary messages whose borders mean nothing.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream as Messages};
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::Stream;

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    messages: WebSocketStream<Stream>,
    /// What of the last message was not read yet.
    rest: Bytes,
}

impl WebSocket {
    /// Asks for the protocol `mqtt` on a connection that stands.
    pub(super) async fn open(stream: Stream, authority: &str, path: &str) -> Result<Self> {
        // Encryption was settled below; the request only names host and path.
        let mut request = format!("ws://{authority}{path}").into_client_request().context("name the path")?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
        let (messages, _) = client_async(request, stream).await.context("upgrade the connection")?;
        Ok(Self { messages, rest: Bytes::new() })
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.messages).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::other("a broker sends no text in a WebSocket")));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let count = buffer.remaining().min(self.rest.len());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.messages).poll_ready(context)).map_err(to_io)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.messages).start_send(message).map_err(to_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_flush(context).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_close(context).map_err(to_io)
    }
}

fn to_io(error: Error) -> io::Error {
    if let Error::Io(error) = error { error } else { io::Error::other(error) }
}

//! MQTT in the binary frames of a WebSocket: a byte stream like any other to the rest of the door.
//!
//! Payloads are unmasked where they were read and passed on as they come, so that a frame of any length costs no memory
//! of its own and need not begin or end with a packet. tokio-tungstenite does the upgrade and reads the frame headers.

mod frames;
mod upgrade;

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};

use crate::door::websocket::frames::{Fault, Frames, Heard};
pub(crate) use crate::door::websocket::upgrade::{Origins, upgrade};

/// Bytes of one frame that we send; the next bytes begin another.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Bytes of answers to pings that wait for a slow reader; further pings are not answered.
const PONG_BYTES_MAX: usize = 1 << 10;

/// First bytes of the frames that we send: complete, and of this kind.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;
/// Reason of a close frame that answers another, or says goodbye.
const CLOSE_NORMAL: u16 = 1000;

/// A stream that was upgraded.
pub(crate) struct WebSocket<S> {
    stream: S,
    frames: Frames,
    /// What was framed and not yet taken by the stream.
    unsent: BytesMut,
    /// The close frame was sent, or is in `unsent`; nothing may follow it.
    has_closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    fn new(stream: S) -> Self {
        Self { stream, frames: Frames::default(), unsent: BytesMut::new(), has_closed: false }
    }

    /// Offers the stream everything that waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent.has_remaining() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.unsent))?;
            if count == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, code: u16) {
        if !self.has_closed {
            self.has_closed = true;
            self.unsent.put_slice(&[CLOSE, 2]);
            self.unsent.put_u16(code);
        }
    }

    fn answer_pings(&mut self) {
        for ping in self.frames.take_pings() {
            if !self.has_closed && self.unsent.len() + ping.len() <= PONG_BYTES_MAX {
                put_header(&mut self.unsent, PONG, ping.len());
                self.unsent.put_slice(&ping);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.frames.are_over() {
            let begin = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let raw = &mut buffer.filled_mut()[begin..];
            if raw.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let heard = this.frames.take_apart(raw);
            this.answer_pings();
            let failed = match heard {
                Heard::Payload(count) => {
                    buffer.set_filled(begin + count);
                    None
                }
                Heard::Close(count) => {
                    buffer.set_filled(begin + count);
                    this.close(CLOSE_NORMAL);
                    None
                }
                Heard::Fault(fault) => {
                    buffer.set_filled(begin);
                    this.close(fault.close_code());
                    Some(fault)
                }
            };
            // Nobody waits for this: what the stream does not take now goes out with the next write.
            if let Poll::Ready(Err(error)) = this.poll_send(context) {
                return Poll::Ready(Err(error));
            }
            if let Some(fault) = failed {
                // An encrypted stream keeps what it was given until it is flushed.
                let _ = Pin::new(&mut this.stream).poll_flush(context)?;
                return Poll::Ready(Err(fault.into()));
            }
            if buffer.filled().len() > begin {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        if this.has_closed {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let bytes = &bytes[..bytes.len().min(FRAME_BYTES_MAX)];
        put_header(&mut this.unsent, BINARY, bytes.len());
        this.unsent.put_slice(bytes);
        // The frame is ours now, whatever becomes of it: a stream that fails says so next time too.
        let _ = this.poll_send(context)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close(CLOSE_NORMAL);
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::InvalidData, fault)
    }
}

/// Appends the header of a frame of at most [`FRAME_BYTES_MAX`].
fn put_header(out: &mut BytesMut, first: u8, length: usize) {
    out.reserve(4 + length);
    out.put_u8(first);
    match u8::try_from(length) {
        Ok(short @ ..=125) => out.put_u8(short),
        Ok(_) | Err(_) => {
            out.put_u8(126);
            out.put_u16(u16::try_from(length).expect("frames are shorter than 64 KiB"));
        }
    }
}

#[cfg(test)]
mod tests;

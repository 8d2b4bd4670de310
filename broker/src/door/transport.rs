//! The two byte buffers of a connection and the stream between them, whatever the stream is.

use bytes::BytesMut;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::door::outbox::Outbox;

/// Bytes one read may bring: what an idle connection costs, and what a busy one grows to.
const READ_BYTES_MIN: usize = 2 << 10;
const READ_BYTES_MAX: usize = 16 << 10;
/// A buffer that held more bytes than this is given back as soon as it is empty.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// A byte stream with its buffers. Reading and writing may be dropped at any point and lose nothing.
pub(crate) struct Transport<S> {
    pub(crate) inbox: BytesMut,
    pub(crate) outbox: Outbox,
    pub(crate) reader: Incoming<S>,
    pub(crate) writer: Outgoing<S>,
}

/// The reading side.
pub(crate) struct Incoming<S> {
    half: ReadHalf<S>,
    read_bytes: usize,
    /// The buffer held a large packet.
    is_large: bool,
}

/// The writing side.
pub(crate) struct Outgoing<S> {
    half: WriteHalf<S>,
    /// The stream may hold back what was written: encryption keeps what the socket did not take.
    must_flush: bool,
}

impl<S: AsyncRead + AsyncWrite> Transport<S> {
    pub(crate) fn new(stream: S) -> Self {
        let (half, writer) = io::split(stream);
        Self {
            inbox: BytesMut::new(),
            outbox: Outbox::default(),
            reader: Incoming { half, read_bytes: READ_BYTES_MIN, is_large: false },
            writer: Outgoing { half: writer, must_flush: false },
        }
    }

    /// Reads once; false at the end of the stream.
    pub(crate) async fn read(&mut self) -> io::Result<bool> {
        self.reader.read(&mut self.inbox, 0).await
    }

    /// Writes everything that waits.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while self.has_unsent() {
            self.writer.write(&mut self.outbox).await?;
        }
        Ok(())
    }

    /// Whether something is still on its way to the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty() || self.writer.must_flush
    }
}

impl<S: AsyncRead> Incoming<S> {
    /// Reads once into `inbox`, with room for `missing` more bytes of a large packet; false at the end of the stream.
    pub(crate) async fn read(&mut self, inbox: &mut BytesMut, missing: usize) -> io::Result<bool> {
        if inbox.is_empty() && self.is_large {
            *inbox = BytesMut::new();
            self.is_large = false;
        }
        let room = self.read_bytes.max(missing);
        self.is_large |= inbox.len() + room > KEPT_BYTES_MAX;
        inbox.reserve(room);
        let count = self.half.read_buf(inbox).await?;
        if count >= self.read_bytes {
            self.read_bytes = READ_BYTES_MAX.min(self.read_bytes * 2);
        }
        Ok(count > 0)
    }
}

impl<S: AsyncWrite> Outgoing<S> {
    /// Writes once, as much of `outbox` as the stream takes, and has the stream send what it holds back.
    pub(crate) async fn write(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        if !outbox.is_empty() {
            if self.half.write_buf(outbox).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            outbox.tidy();
            self.must_flush = true;
        }
        if outbox.is_empty() {
            self.half.flush().await?;
            self.must_flush = false;
        }
        Ok(())
    }

    /// Says that nothing more will be written.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.half.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Bytes of a buffer, wherever in it the next byte goes.
    fn room(buffer: &mut BytesMut) -> usize {
        buffer.reserve(1);
        buffer.capacity()
    }

    #[tokio::test]
    async fn a_buffer_that_held_much_is_given_back() {
        let (ours, mut theirs) = duplex(2 << 20);
        let mut transport = Transport::new(ours);
        transport.outbox.tail().extend_from_slice(&vec![0; 1 << 20]);
        transport.flush().await.unwrap();
        assert!(room(transport.outbox.tail()) <= KEPT_BYTES_MAX);
        theirs.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
        theirs.write_all(&vec![0; 1 << 20]).await.unwrap();
        while transport.inbox.len() < 1 << 20 {
            let missing = (1 << 20) - transport.inbox.len();
            transport.reader.read(&mut transport.inbox, missing).await.unwrap();
        }
        transport.inbox.clear();
        theirs.write_all(b"x").await.unwrap();
        transport.read().await.unwrap();
        assert_eq!(&*transport.inbox, b"x");
        transport.inbox.clear();
        assert!(room(&mut transport.inbox) <= KEPT_BYTES_MAX);
    }
}

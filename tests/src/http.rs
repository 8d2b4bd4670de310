//! HTTP spoken byte by byte, over a stream of any kind.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An answer, whose length was stated.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Everything before the body, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends one request, whose `head` has its first line and headers, without a line break at the end.
///
/// # Errors
/// When the connection is over.
pub async fn send<S>(stream: &mut S, head: &str, body: &str) -> std::io::Result<()>
where
    S: AsyncWriteExt + Unpin,
{
    let length = body.len();
    let request = format!("{head}\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await
}

/// Reads one answer.
///
/// # Errors
/// When the connection ends before.
///
/// # Panics
/// When it is no HTTP.
pub async fn receive<S>(stream: &mut S) -> std::io::Result<Answer>
where
    S: AsyncReadExt + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("a head is text").to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).expect("a length")];
    stream.read_exact(&mut body).await?;
    Ok(Answer { status, head, body: String::from_utf8(body).expect("a body is text") })
}

/// Sends one request and reads its answer.
///
/// # Errors
/// When the connection ends before.
pub async fn exchange<S>(stream: &mut S, head: &str, body: &str) -> std::io::Result<Answer>
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    send(stream, head, body).await?;
    receive(stream).await
}

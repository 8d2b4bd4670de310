//! A client of server-sent events: a connection of its own, whose events come one by one.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// An open stream of events.
pub struct Events {
    body: Incoming,
    text: String,
    _connection: JoinSet<()>,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What to come back with.
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// What it tells.
    pub data: Value,
}

impl Events {
    /// Opens a stream.
    ///
    /// # Panics
    /// When nobody listens, or the answer is no stream of events.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        let mut request = Request::builder().uri(path).header("host", address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body(), text: String::new(), _connection: tasks }
    }

    /// The next event; `None` at the end of the stream, however it ends.
    ///
    /// # Panics
    /// When nothing comes for longer than anybody waits, or what comes is no event.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
                    block.lines().find_map(value)
                };
                if let Some(name) = field("event") {
                    let data = serde_json::from_str(&field("data").expect("data")).expect("JSON");
                    return Some(Event { id: field("id"), name, data });
                }
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("a sign of life")?.ok()?;
            if let Some(bytes) = frame.data_ref() {
                self.text.push_str(std::str::from_utf8(bytes).expect("text"));
            }
        }
    }

    /// The next event of a name.
    ///
    /// # Panics
    /// When the stream ends before.
    pub async fn named(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if event.name == name {
                return event;
            }
        }
    }
}

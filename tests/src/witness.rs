//! A witness between devices and an engine: passes every request on, and remembers what was answered with success.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::settings::free_address;
use crate::wait::until;

/// A request and its success.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its method.
    pub method: Method,
    /// Its path, without what was asked.
    pub path: String,
    /// Its body.
    pub request: Bytes,
    /// The body of the answer; null when that was no JSON.
    pub answer: Value,
}

/// The witness. It ends with the test.
pub struct Witness {
    address: SocketAddr,
    answered: Arc<Mutex<Vec<Answered>>>,
    _tasks: JoinSet<()>,
}

impl Witness {
    /// A witness before the engine of this address, which may come and go.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(engine: SocketAddr) -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let answered = Arc::new(Mutex::default());
        let (shared, mut tasks) = (Arc::clone(&answered), JoinSet::new());
        tasks.spawn(async move {
            // Connections belong to this task, and end with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a listener");
                let answered = Arc::clone(&shared);
                let service = service_fn(move |request| pass_on(engine, Arc::clone(&answered), request));
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { drop(serving.await) });
            }
        });
        Self { address, answered, _tasks: tasks }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was answered with success so far.
    ///
    /// # Panics
    /// When a connection has panicked.
    #[must_use]
    pub fn answered(&self) -> Vec<Answered> {
        self.answered.lock().expect("nothing panics while it holds the lock").clone()
    }

    /// Waits until so many more requests were answered with success.
    ///
    /// # Panics
    /// When they never are.
    pub async fn progress(&self, more: usize) {
        let count = || self.answered.lock().expect("nothing panics while it holds the lock").len();
        let before = count();
        until("more requests are answered", async || count() >= before + more).await;
    }
}

/// An engine that breaks off leaves the device without an answer: the error closes its connection.
async fn pass_on(
    engine: SocketAddr,
    answered: Arc<Mutex<Vec<Answered>>>,
    request: Request<Incoming>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let body = body.collect().await?.to_bytes();
    let request = Request::from_parts(parts, Full::from(body.clone()));
    let (status, answer) = loadtest::http::call(&format!("http://{engine}"), request).await?;
    if (200..300).contains(&status) {
        let answer = serde_json::from_slice(&answer).unwrap_or_default();
        let success = Answered { method, path, request: body, answer };
        answered.lock().expect("nothing panics while it holds the lock").push(success);
    }
    Ok(Response::builder().status(status).body(Full::from(answer))?)
}

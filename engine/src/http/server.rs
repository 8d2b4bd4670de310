//! The listener: connections taken, limited and ended.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use schema::metrics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::Face;
use super::connections::{Seat, Visitor};
use super::frame::Complaint;
use super::health;
use super::tls::{Encryption, Greeted};

/// Seconds a client may take for the head of a request, and a connection may idle.
const HEADER_READ_SECONDS_MAX: u64 = 10;
/// Seconds requests may take to end once the engine shuts down: less than the whole engine has.
const SHUTDOWN_SECONDS_MAX: u64 = 6;
/// Bytes of the head of a request.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Seconds after which a connection is asked to end, so that none is held for ever by a client that reads nothing.
const CONNECTION_SECONDS_MAX: u64 = 600;
/// Seconds a connection has to end once it is asked to: a whole request and its answer.
const CONNECTION_END_SECONDS_MAX: u64 = 90;
/// Wait after the listener failed, usually for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes, then lets the requests in flight end. A listener that fails is asked again. With
/// `encryption` the port speaks TLS and nothing else.
pub async fn serve(
    listener: TcpListener,
    face: Face,
    encryption: Option<Encryption>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let watch = encryption.clone();
    let watch = async {
        match watch {
            Some(encryption) => encryption.watch().await,
            None => std::future::pending().await,
        }
    };
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown, watch);
    tokio::select! {
        () = &mut shutdown => {}
        never = &mut watch => match never {},
        never = face.state.complaints.sum_up() => match never {},
        never = health::watch(&face.state) => match never {},
        () = accept_all(&listener, &face, encryption.as_ref(), &closed, &mut connections) => {}
    }
    drop(listener);
    closing.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(SHUTDOWN_SECONDS_MAX), ended).await.is_err() {
        tracing::warn!("requests did not end in time and were given up");
        connections.shutdown().await;
    }
}

/// Takes connections for ever. Whoever finds no place is closed at once, so that nobody waits behind others unseen.
async fn accept_all(
    listener: &TcpListener,
    face: &Face,
    encryption: Option<&Encryption>,
    closed: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    loop {
        tokio::select! {
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match face.connections.seat(peer) {
                    Some(seat) => {
                        let visit = Visit::new(stream, peer, seat, face.router.clone(), closed.clone());
                        connections.spawn(visit.run(encryption.cloned()));
                    }
                    None => refuse(face, peer),
                },
                Err(error) => {
                    if face.state.complaints.has_room(Complaint::Accept) {
                        tracing::warn!(%error, "connection not accepted, trying again");
                    }
                    sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
}

fn refuse(face: &Face, peer: SocketAddr) {
    metrics::http_connections_refused().increment(1);
    if face.state.complaints.has_room(Complaint::Full) {
        tracing::warn!(%peer, "connection refused: all places are taken");
    }
}

/// A connection that was taken.
struct Visit {
    stream: TcpStream,
    seat: Seat,
    visitor: Visitor,
    router: Router,
}

impl Visit {
    fn new(
        stream: TcpStream,
        peer: SocketAddr,
        seat: Seat,
        router: Router,
        closed: watch::Receiver<bool>,
    ) -> Self {
        // Answers are small; without this the last part of one waits for an acknowledgement.
        drop(stream.set_nodelay(true));
        let hang_up = Arc::default();
        let visitor = Visitor { peer, is_in_reserve: seat.is_reserved(), closed, hang_up };
        Self { stream, seat, visitor, router }
    }

    async fn run(mut self, encryption: Option<Encryption>) {
        let taken_away = self.seat.taken_away();
        let hang_up = Arc::clone(&self.visitor.hang_up);
        tokio::select! {
            () = self.serve(encryption) => {}
            () = taken_away => {}
            () = hang_up.notified() => {}
        }
    }

    async fn serve(self, encryption: Option<Encryption>) {
        let Self { stream, seat, visitor, router } = self;
        let Some(encryption) = encryption else {
            return connection(stream, router, seat, visitor, std::future::pending()).await;
        };
        let mut closed = visitor.closed.clone();
        let greeted = tokio::select! {
            greeted = encryption.greet(stream) => greeted,
            _ = closed.wait_for(|is_closed| *is_closed) => return,
        };
        match greeted {
            Ok(Greeted { stream, certificate, chain }) => {
                let router = match certificate {
                    Some(certificate) => router.layer(Extension(certificate)),
                    None => router,
                };
                connection(stream, router, seat, visitor, encryption.distrusts(chain.as_ref())).await;
            }
            Err(error) => {
                let cause = schema::store::cause(&error);
                tracing::debug!(peer = %visitor.peer, %error, cause, "client turned away");
            }
        }
    }
}

/// Serves the requests of one connection. It ends when it is too old, the engine stops, or its client is `distrusted`;
/// the request it is at is answered.
async fn connection<S>(
    stream: S,
    router: Router,
    seat: Seat,
    visitor: Visitor,
    distrusted: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut closed = visitor.closed.clone();
    let is_lasting = !visitor.is_in_reserve;
    let seat = Arc::new(seat);
    let service = router.map_request(move |mut request: Request<Incoming>| {
        seat.has_request();
        request.extensions_mut().insert(visitor.clone());
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_READ_SECONDS_MAX))
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(is_lasting)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return log_end(ended),
        () = distrusted => {}
        _ = closed.wait_for(|is_closed| *is_closed) => {}
        () = sleep(Duration::from_secs(CONNECTION_SECONDS_MAX)) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(Duration::from_secs(CONNECTION_END_SECONDS_MAX), connection).await {
        log_end(ended);
    }
}

/// A connection that breaks is the client's affair.
fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "connection task failed");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, oneshot};

    use super::*;
    use crate::config::Config;
    use crate::http::Connections;

    #[tokio::test]
    async fn a_request_in_flight_ends_before_the_listener_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (arrived, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, waiting) = (Arc::clone(&arrived), Arc::clone(&finish));
        let handler = async move || {
            told.notify_one();
            waiting.notified().await;
            "done"
        };
        let router = Router::new().route("/", get(handler));
        let (stop, stopped) = oneshot::channel::<()>();
        let connections = Connections::new(2, 2);
        let state = Arc::new(crate::http::tests::state(&Config::default()));
        let face = Face { router, connections, state };
        let server = serve(listener, face, None, async { drop(stopped.await) });
        let client = async {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
            arrived.notified().await;
            stop.send(()).expect("the server runs");
            finish.notify_one();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer, then the end");
            answer
        };
        let ((), answer) = tokio::join!(server, client);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with("done"), "{answer}");
        assert!(TcpStream::connect(address).await.is_err());
    }
}

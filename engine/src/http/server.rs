//! The listener: connections taken, limited and ended.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::Layer;

use super::tls::{Encryption, Greeted};

/// Connections at most; the next ones wait in the backlog of the socket.
const CONNECTIONS_MAX: usize = 1024;
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
const ACCEPT_RETRY_SECONDS: u64 = 1;

/// Where a request comes from; an extension of every request of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves until `shutdown` completes, then lets the requests in flight end. A listener that fails is asked again. With
/// `encryption` the port speaks TLS and nothing else.
pub async fn serve(
    listener: TcpListener,
    router: Router,
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
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown, watch);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            never = &mut watch => match never {},
            Some(ended) = connections.join_next() => report(ended),
            (stream, peer, permit) = accept(&listener, &permits) => {
                let (router, encryption, closed) = (router.clone(), encryption.clone(), closed.clone());
                connections.spawn(async move {
                    match encryption {
                        Some(encryption) => encrypted(stream, peer, router, &encryption, closed).await,
                        None => connection(stream, peer, router, std::future::pending(), closed).await,
                    }
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(SHUTDOWN_SECONDS_MAX), ended).await.is_err() {
        tracing::warn!("requests did not end in time and were given up");
        connections.shutdown().await;
    }
}

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, Peer, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Answers are small; without this the last part of one waits for an acknowledgement.
                drop(stream.set_nodelay(true));
                return (stream, Peer(address), permit);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed, trying again");
                sleep(Duration::from_secs(ACCEPT_RETRY_SECONDS)).await;
            }
        }
    }
}

/// Serves one connection behind TLS; its requests carry whom the client's certificate names.
async fn encrypted(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    encryption: &Encryption,
    mut closed: watch::Receiver<bool>,
) {
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
            connection(stream, peer, router, encryption.distrusts(chain.as_ref()), closed).await;
        }
        Err(error) => {
            let cause = schema::store::cause(&error);
            tracing::debug!(%error, cause, "client turned away");
        }
    }
}

/// Serves the requests of one connection. It ends when it is too old, the engine stops, or its client is `distrusted`;
/// the request it is at is answered.
async fn connection<S>(
    stream: S,
    peer: Peer,
    router: Router,
    distrusted: impl Future<Output = ()>,
    mut closed: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = Extension(peer).layer(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_READ_SECONDS_MAX))
        .max_buf_size(HEADER_BYTES_MAX)
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
        let server = serve(listener, router, None, async { drop(stopped.await) });
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

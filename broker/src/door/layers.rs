//! From an accepted socket to MQTT: what lies between is taken off, layer by layer, within the time a login may take.

use std::error::Error;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::door::admission::admit;
use crate::door::caller::Caller;
use crate::door::connection::Connection;
use crate::door::listener::Layers;
use crate::door::shared::{Phase, Shared};
use crate::door::transport::Transport;
use crate::door::websocket;
use crate::stats::Refusal;
use crate::tls::HandshakeError;

/// One connection from its first byte to the end of its last delivery.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, layers: Layers, mut caller: Caller) {
    let Some(tls) = layers.tls else {
        return upgrade(shared, stream, layers.has_websocket, caller).await;
    };
    let mut phase = shared.phase.clone();
    let greeted = tokio::select! {
        greeted = timeout_at(caller.deadline, Box::pin(tls.accept(stream))) => greeted.unwrap_or(Err(HandshakeError::TooSlow)),
        _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
    };
    match greeted {
        Ok((stream, chain)) => {
            caller.chain = chain;
            upgrade(shared, stream, layers.has_websocket, caller).await;
        }
        Err(error) => {
            if shared.refuse(Refusal::Handshake) {
                tracing::info!(peer = %caller.peer, error = &error as &dyn Error, "client refused: TLS");
            }
        }
    }
}

/// Takes a stream out of its WebSocket, if it comes in one.
async fn upgrade<S>(shared: Arc<Shared>, stream: S, has_websocket: bool, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !has_websocket {
        return converse(shared, stream, caller).await;
    }
    let mut phase = shared.phase.clone();
    let upgraded = tokio::select! {
        upgraded = timeout_at(caller.deadline, websocket::upgrade(stream, &shared.origins)) => upgraded,
        _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
    };
    match upgraded {
        Ok(Ok(stream)) => converse(shared, stream, caller).await,
        Ok(Err(error)) => {
            if shared.refuse(Refusal::Upgrade) {
                tracing::info!(peer = %caller.peer, error = &error as &dyn Error, "client refused: WebSocket");
            }
        }
        Err(_) => {
            if shared.refuse(Refusal::Upgrade) {
                tracing::info!(peer = %caller.peer, "client refused: no WebSocket in time");
            }
        }
    }
}

/// A stream of MQTT, from its CONNECT to the end of its last delivery.
pub(crate) async fn converse<S>(shared: Arc<Shared>, stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite,
{
    let transport = Transport::new(stream);
    // Each part of a connection's life in a box of its own, so that the task of one that only waits for its last commit is
    // small: there may be many of them while the database is slow.
    if let Some(admitted) = Box::pin(admit(&shared, transport, caller)).await {
        Connection::new(shared, admitted).run().await;
    }
}

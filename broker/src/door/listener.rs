//! The sockets of a door, and what lies between each of them and MQTT.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::door::settings::{Addresses, DoorError, DoorSettings};
use crate::tls::Tls;

/// Clients the system has wait to be accepted, as far as its own limit (`somaxconn`) allows: after a power cut all devices
/// come at once, and whoever finds no room is put off for seconds or turned away.
const BACKLOG_MAX: u32 = 4096;

/// A peer that was silent for so long is asked by the system whether it is still there,
const PEER_SILENCE: Duration = Duration::from_secs(60);
/// again after this time,
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// and is gone when it answered none of so many questions.
const PROBES: u32 = 4;
/// A peer is gone as well when it confirmed nothing of what was sent to it for so long: it is not asked meanwhile.
#[cfg(target_os = "linux")]
const UNCONFIRMED_MAX: Duration = Duration::from_secs(120);

/// What a client passes through before it speaks MQTT.
#[derive(Clone)]
pub(crate) struct Layers {
    /// What encrypts.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Whether MQTT comes in a WebSocket.
    pub(crate) has_websocket: bool,
}

/// A socket that is listened on.
struct Listener {
    socket: TcpListener,
    layers: Layers,
    local_addr: SocketAddr,
}

impl Listener {
    fn bind(address: SocketAddr, layers: Layers) -> Result<Self, DoorError> {
        let failed = |source| DoorError::Listen { address, source };
        let socket = listen(address).map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, layers, local_addr })
    }
}

/// Sets up an accepted socket. Answers are small and must not wait for each other. A peer that lost its power or its network
/// says nothing more, and one whose keep-alive is zero or very long is missed by nobody above TCP: the system asks for it.
pub(crate) fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(PEER_SILENCE).with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive.with_retries(PROBES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNCONFIRMED_MAX))?;
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What is left of the connections of an engine that ended is no obstacle.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG_MAX)
}

/// All sockets of a door.
pub(crate) struct Listeners {
    listeners: Vec<Listener>,
    /// Who is asked first: whoever comes next to the one that was served last, so that a flood at one starves none.
    first: usize,
}

impl Listeners {
    /// Opens every listener that is asked for; says where.
    pub(crate) fn open(
        settings: &DoorSettings,
        tls: Option<&Arc<Tls>>,
    ) -> Result<(Self, Addresses), DoorError> {
        let mut addresses = Addresses::default();
        let mut listeners = Vec::new();
        for (asked, is_encrypted, has_websocket, bound) in [
            (settings.listen, false, false, &mut addresses.plain),
            (settings.listen_tls, true, false, &mut addresses.tls),
            (settings.listen_ws, false, true, &mut addresses.ws),
            (settings.listen_wss, true, true, &mut addresses.wss),
        ] {
            let Some(address) = asked else { continue };
            let tls = match (is_encrypted, tls) {
                (true, Some(tls)) => Some(Arc::clone(tls)),
                (true, None) => return Err(DoorError::NoCertificate { address }),
                (false, _) => {
                    tracing::warn!(%address, "the MQTT listener is not encrypted: for development only");
                    None
                }
            };
            let listener = Listener::bind(address, Layers { tls, has_websocket })?;
            *bound = Some(listener.local_addr);
            listeners.push(listener);
        }
        Ok((Self { listeners, first: 0 }, addresses))
    }

    /// Waits for the next client of any of them; says what it has to pass through. Dropping the future loses nobody.
    pub(crate) async fn accept(&mut self) -> (io::Result<(TcpStream, SocketAddr)>, Layers) {
        let count = self.listeners.len();
        poll_fn(|context| {
            for position in (self.first..self.first + count).map(|position| position % count) {
                let Listener { socket, layers, .. } = &self.listeners[position];
                if let Poll::Ready(accepted) = socket.poll_accept(context) {
                    self.first = position + 1;
                    return Poll::Ready((accepted, layers.clone()));
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a peer that is gone may hold its place.
    const GONE_MAX: Duration = Duration::from_secs(5 * 60);

    #[tokio::test]
    async fn the_system_asks_for_the_peer_of_every_accepted_socket() {
        let settings = DoorSettings { listen: Some(([127, 0, 0, 1], 0).into()), ..DoorSettings::default() };
        let (mut listeners, addresses) = Listeners::open(&settings, None).unwrap();
        let address = addresses.plain.unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listeners.accept().await.0.unwrap();
        set_up(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        let probes = socket.tcp_keepalive_retries().unwrap();
        let asked = socket.tcp_keepalive_time().unwrap() + socket.tcp_keepalive_interval().unwrap() * probes;
        assert!(asked < GONE_MAX, "{asked:?}");
        #[cfg(target_os = "linux")]
        assert!(socket.tcp_user_timeout().unwrap().unwrap() < GONE_MAX);
    }
}

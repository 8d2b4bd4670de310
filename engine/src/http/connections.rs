//! Places for connections: so many in all and of one address, and a reserve for whoever asks whether the engine lives.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Extensions;
use broker::guesses::Source;
use broker::places::{Place, Places};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// Connections beyond the ordinary ones, for health, readiness and metrics alone.
pub(crate) const RESERVED_MAX: usize = 32;

/// The places of a listener. Cloning shares them.
#[derive(Clone)]
pub struct Connections {
    ordinary: Arc<Semaphore>,
    of_address: Places,
    reserve: Arc<Mutex<Reserve>>,
}

/// A connection's place, until it is dropped.
pub(super) enum Seat {
    /// Any request is answered.
    Ordinary { _permit: OwnedSemaphorePermit, _place: Place },
    /// Requests that look at the engine's life are answered, and others told to come again.
    Reserved(Reserved),
}

/// Who is at the other end of a connection; an extension of its requests.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) peer: SocketAddr,
    /// Whether all ordinary places are taken, or all of its address.
    pub(super) is_in_reserve: bool,
    /// Becomes true when the engine ends.
    pub(super) closed: watch::Receiver<bool>,
    /// Told when the connection is to end at once, whatever is on its way.
    pub(super) hang_up: Arc<Notify>,
}

impl Visitor {
    /// Where a request comes from; requests that came over no socket are the machine's own.
    pub(super) fn source(extensions: &Extensions) -> Source {
        let peer = extensions.get::<Self>().map(|visitor| visitor.peer);
        Source::of(peer.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |peer| peer.ip()))
    }
}

impl Connections {
    /// So many places, and so many of them for one address.
    #[must_use]
    pub fn new(connections_max: usize, per_address_max: usize) -> Self {
        Self {
            ordinary: Arc::new(Semaphore::new(connections_max)),
            of_address: Places::new(per_address_max),
            reserve: Arc::default(),
        }
    }

    /// A place for a client; `None` when even the reserve is busy.
    pub(super) fn seat(&self, peer: SocketAddr) -> Option<Seat> {
        let ordinary = Arc::clone(&self.ordinary).try_acquire_owned().ok();
        match ordinary.zip(self.of_address.take(Source::of(peer.ip()))) {
            Some((permit, place)) => Some(Seat::Ordinary { _permit: permit, _place: place }),
            None => Reserved::take(&self.reserve).map(Seat::Reserved),
        }
    }
}

impl Seat {
    pub(super) fn is_reserved(&self) -> bool {
        match self {
            Self::Ordinary { .. } => false,
            Self::Reserved(_) => true,
        }
    }

    /// Notes that a request has arrived: its connection is not cut off any more.
    pub(super) fn has_request(&self) {
        match self {
            Self::Ordinary { .. } => {}
            Self::Reserved(reserved) => lock(&reserved.reserve).keep(reserved.number),
        }
    }

    /// What waits until the place is needed by somebody else; it can be had once.
    pub(super) fn taken_away(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let cut = match self {
            Self::Ordinary { .. } => None,
            Self::Reserved(reserved) => reserved.cut.take(),
        };
        async {
            let is_cut = match cut {
                Some(cut) => cut.await.is_ok(),
                None => false,
            };
            if !is_cut {
                std::future::pending().await
            }
        }
    }
}

/// The connections in reserve. One more takes the place of the oldest that has not said what it wants, so that nobody
/// keeps a place by silence.
#[derive(Default)]
struct Reserve {
    count: usize,
    last_number: u64,
    silent: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// A place in reserve.
pub(super) struct Reserved {
    number: u64,
    cut: Option<oneshot::Receiver<()>>,
    reserve: Arc<Mutex<Reserve>>,
}

impl Reserved {
    fn take(reserve: &Arc<Mutex<Reserve>>) -> Option<Self> {
        let mut places = lock(reserve);
        if places.count >= RESERVED_MAX {
            let (_, oldest) = places.silent.pop_front()?;
            // It may have ended by itself.
            let _ = oldest.send(());
        }
        places.count += 1;
        places.last_number += 1;
        let number = places.last_number;
        let (tell, cut) = oneshot::channel();
        places.silent.push_back((number, tell));
        Some(Self { number, cut: Some(cut), reserve: Arc::clone(reserve) })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut reserve = lock(&self.reserve);
        reserve.count -= 1;
        reserve.keep(self.number);
    }
}

impl Reserve {
    /// Takes a connection off the list of those that may be cut off.
    fn keep(&mut self, number: u64) {
        self.silent.retain(|(silent, _)| *silent != number);
    }
}

/// Every change is complete before anything can panic.
fn lock(reserve: &Mutex<Reserve>) -> MutexGuard<'_, Reserve> {
    reserve.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 50_000))
    }

    #[test]
    fn whoever_finds_no_ordinary_place_is_seated_in_reserve() {
        let connections = Connections::new(3, 2);
        let seats: Vec<_> = [1, 1, 1, 2, 2].map(|host| connections.seat(peer(host)).expect("a seat")).into();
        let is_reserved: Vec<_> = seats.iter().map(Seat::is_reserved).collect();
        assert_eq!(is_reserved, [false, false, true, false, true]);
        drop(seats);
        assert!(!connections.seat(peer(1)).expect("a seat").is_reserved());
        assert_eq!(lock(&connections.reserve).count, 0);
    }

    #[tokio::test]
    async fn in_reserve_the_oldest_that_is_silent_makes_room() {
        let connections = Connections::new(0, 1);
        let mut seats: Vec<_> =
            (0..RESERVED_MAX).map(|_| connections.seat(peer(1)).expect("a seat")).collect();
        seats[0].has_request();
        let _newest = connections.seat(peer(1)).expect("a seat");
        seats[1].taken_away().await;
        seats.remove(1);
        seats.iter().for_each(Seat::has_request);
        _newest.has_request();
        assert!(connections.seat(peer(1)).is_none(), "all of them have something to say");
    }
}

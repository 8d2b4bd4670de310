//! The body of a stream: what waits for its reader, and the work that feeds it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::super::AppState;
use super::course::{Course, Viewer};
use super::places::Place;
use super::{EVENTS_WAITING_MAX, sync};

/// Events for one reader. Dropping it ends the work.
pub(super) struct StreamBody {
    events: mpsc::Receiver<Bytes>,
    _work: JoinSet<()>,
    _place: Place,
}

/// Begins a stream.
pub(super) fn open(state: Arc<AppState>, viewer: Viewer, seen: Option<&str>, place: Place) -> StreamBody {
    // The last event has a place that nobody takes away.
    let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX + 1);
    let mut work = JoinSet::new();
    let (told, sync) = watch::channel(None);
    if viewer.is_shown_sync() {
        work.spawn(sync::watch(Arc::clone(&state), viewer.tenant_id().to_owned(), told));
    }
    work.spawn(Course::new(state, viewer, seen, sync, sender).run());
    StreamBody { events, _work: work, _place: place }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.events.poll_recv(context).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

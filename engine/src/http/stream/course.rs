//! The course of one stream: what it tells, when, and why it ends.

use std::sync::Arc;

use actors::alarm::feed::{Notice, Told};
use bytes::Bytes;
use schema::metrics;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, sleep_until, timeout};

use super::super::AppState;
use super::super::auth::{Authority, Caller, Kept, Tenants};
use super::super::board::{Asked, LatestBody};
use super::super::connections::Visitor;
use super::super::time::Time;
use super::sync::Glance;
use super::{
    BOARD_EVERY, ENTRIES_PER_EVENT_MAX, FAREWELL_MAX, JUDGED_EVERY, PING_EVERY, RETRY_MS, STALLED_MAX,
    STREAM_MAX,
};

/// Who looks, and at what.
pub(super) struct Viewer {
    pub(super) caller: Caller,
    pub(super) kept: Kept,
    pub(super) asked: Asked,
    /// The connection; `None` when it came over no socket.
    pub(super) visitor: Option<Visitor>,
}

impl Viewer {
    pub(super) fn tenant_id(&self) -> &str {
        &self.asked.tenant_id
    }

    /// The outbox is the operators' business.
    pub(super) fn is_shown_sync(&self) -> bool {
        match self.caller {
            Caller::Operator(_) | Caller::Anyone | Caller::Compat => true,
            Caller::Device(_) => false,
        }
    }

    /// The box's own alarms are of no tenant: those may see them who may see every tenant.
    fn is_shown(&self, notice: &Notice) -> bool {
        if notice.tenant_id.is_empty() {
            return match &self.caller {
                Caller::Operator(operator) => operator.tenants == Tenants::All,
                Caller::Anyone | Caller::Compat => true,
                Caller::Device(_) => false,
            };
        }
        notice.tenant_id == self.asked.tenant_id && self.asked.includes(&notice.farm_id, &notice.barn_id)
    }
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The engine stops.
    Stopping,
    /// Its caller may not call any more.
    Removed,
    /// Its reader took nothing for too long.
    Slow,
    /// It has been open for as long as one may be.
    Renew,
    /// Its reader has gone.
    Gone,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Removed => "removed",
            Self::Slow => "slow",
            Self::Renew => "renew",
            Self::Gone => "gone",
        }
    }
}

/// What was told, by the numbers of the board and of the alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) board: u64,
    pub(super) alarms: u64,
}

impl Cursor {
    /// The id of an event.
    pub(super) fn id(self, epoch: u32) -> String {
        format!("{epoch:08x}.{}.{}", self.board, self.alarms)
    }

    /// Reads an id of this life of the engine.
    pub(super) fn parse(id: &str, epoch: u32) -> Option<Self> {
        let mut parts = id.split('.');
        let is_own = u32::from_str_radix(parts.next()?, 16) == Ok(epoch);
        let (board, alarms) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (is_own && parts.next().is_none()).then_some(Self { board, alarms })
    }
}

/// A stream at work.
pub(super) struct Course {
    state: Arc<AppState>,
    viewer: Viewer,
    cursor: Cursor,
    /// Why everything is to be asked for again, where it is.
    resync: Option<&'static str>,
    /// Whether the next event of the board has all values.
    is_full: bool,
    authority: watch::Receiver<Arc<Authority>>,
    sync: watch::Receiver<Option<Glance>>,
    events: mpsc::Sender<Bytes>,
}

impl Course {
    pub(super) fn new(
        state: Arc<AppState>,
        viewer: Viewer,
        seen: Option<&str>,
        sync: watch::Receiver<Option<Glance>>,
        events: mpsc::Sender<Bytes>,
    ) -> Self {
        let anew = Cursor { board: 0, alarms: *state.alarm_feed.watch().borrow() };
        let known = seen.and_then(|id| Cursor::parse(id, state.streams.epoch));
        let known = known.filter(|known| known.board <= state.board.version());
        let (cursor, resync) = match (seen, known) {
            (None, _) => (anew, None),
            (Some(_), None) => (anew, Some("restart")),
            (Some(_), Some(known)) => match state.alarm_feed.since(known.alarms) {
                Told::All(_) => (known, None),
                Told::Gap(_) => (anew, Some("gap")),
            },
        };
        let (authority, is_full) = (state.authority.watch(), cursor.board == 0);
        Self { state, viewer, cursor, resync, is_full, authority, sync, events }
    }

    /// Tells until it ends, and says why.
    pub(super) async fn run(mut self) {
        let farewell = self.events.clone().try_reserve_owned();
        let end = self.tell().await.unwrap_or_else(|end| end);
        metrics::stream_ended(end.as_str()).increment(1);
        let Viewer { visitor, asked, .. } = self.viewer;
        tracing::debug!(tenant_id = asked.tenant_id, reason = end.as_str(), "live stream ended");
        if let Ok(farewell) = farewell {
            farewell.send(event(None, "end", &json!({"reason": end.as_str()})));
        }
        drop(self.events);
        // Whoever takes it now ends the body, and this with it.
        if end == End::Slow {
            sleep(FAREWELL_MAX).await;
            if let Some(visitor) = visitor {
                visitor.hang_up.notify_one();
            }
        }
    }

    async fn tell(&mut self) -> Result<End, End> {
        let mut alarms = self.state.alarm_feed.watch();
        let mut closed = self.viewer.visitor.as_ref().map(|visitor| visitor.closed.clone());
        let started = Instant::now();
        let mut board = interval(BOARD_EVERY);
        board.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut judged = interval_at(started + JUDGED_EVERY, JUDGED_EVERY);
        judged.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ping = interval_at(started + PING_EVERY, PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.send(Bytes::from(format!("retry: {RETRY_MS}\n\n"))).await?;
        if let Some(reason) = self.resync.take() {
            self.send_event("resync", &json!({"reason": reason})).await?;
        }
        self.tell_alarms().await?;
        loop {
            tokio::select! {
                biased;
                () = is_closed(&mut closed) => return Err(End::Stopping),
                _ = self.authority.changed() => self.judge().await?,
                _ = alarms.changed() => self.tell_alarms().await?,
                _ = judged.tick() => self.judge().await?,
                _ = board.tick() => self.tell_board().await?,
                Ok(()) = self.sync.changed() => self.tell_sync().await?,
                _ = ping.tick() => self.send(Bytes::from_static(b": ping\n\n")).await?,
                () = sleep_until(started + STREAM_MAX) => return Ok(End::Renew),
                () = self.events.closed() => return Ok(End::Gone),
            }
        }
    }

    /// Whether its caller would be let in now. A database that does not answer puts nobody out.
    async fn judge(&mut self) -> Result<(), End> {
        let judged = timeout(JUDGED_EVERY, self.viewer.kept.is_still_in(&self.state, &self.viewer.caller));
        if judged.await.unwrap_or(true) { Ok(()) } else { Err(End::Removed) }
    }

    async fn tell_board(&mut self) -> Result<(), End> {
        let now = self.state.clock.now();
        let asked = &self.viewer.asked;
        let (latest, newest) = self.state.board.since(&asked.tenant_id, asked.view(), self.cursor.board, now);
        let is_full = std::mem::take(&mut self.is_full);
        if latest.is_empty() && !is_full {
            self.cursor.board = newest;
            return Ok(());
        }
        let tenant_id = self.viewer.asked.tenant_id.clone();
        let mut latest = latest.into_iter().peekable();
        let mut is_first = is_full;
        loop {
            let some: Vec<_> = latest.by_ref().take(ENTRIES_PER_EVENT_MAX).collect();
            // What follows is told under a later number; behind the last one, nothing is left.
            self.cursor.board = match (latest.peek(), some.last()) {
                (Some(_), Some(last)) => last.version,
                (Some(_) | None, _) => newest,
            };
            let state = &self.state;
            let body = |latest| LatestBody::of(state, &tenant_id, latest, now);
            let entries: Vec<_> = some.into_iter().map(body).collect();
            let data = BoardEvent { now: now.into(), full: is_first, entries };
            let data = serde_json::to_value(&data).unwrap_or_default();
            self.send_event("board", &data).await?;
            is_first = false;
            if latest.peek().is_none() {
                return Ok(());
            }
        }
    }

    async fn tell_alarms(&mut self) -> Result<(), End> {
        let notices = match self.state.alarm_feed.since(self.cursor.alarms) {
            Told::All(notices) => notices,
            Told::Gap(newest) => {
                self.cursor.alarms = newest;
                return self.send_event("resync", &json!({"reason": "gap"})).await;
            }
        };
        for (number, notice) in notices {
            self.cursor.alarms = number;
            if self.viewer.is_shown(&notice) {
                self.send_event("alarm", &alarm(&notice)).await?;
            }
        }
        Ok(())
    }

    async fn tell_sync(&mut self) -> Result<(), End> {
        let glance = self.sync.borrow_and_update().clone();
        match glance {
            Some(glance) => self.send_event("sync", &serde_json::to_value(&glance).unwrap_or_default()).await,
            None => Ok(()),
        }
    }

    async fn send_event(&mut self, name: &str, data: &Value) -> Result<(), End> {
        let id = self.cursor.id(self.state.streams.epoch);
        self.send(event(Some(&id), name, data)).await
    }

    /// Hands an event to the reader, who may take its time, but not for ever.
    async fn send(&mut self, event: Bytes) -> Result<(), End> {
        let mut closed = self.viewer.visitor.as_ref().map(|visitor| visitor.closed.clone());
        let stalled_at = Instant::now() + STALLED_MAX;
        loop {
            tokio::select! {
                permit = self.events.reserve() => {
                    permit.map_err(|_| End::Gone)?.send(event);
                    return Ok(());
                }
                () = is_closed(&mut closed) => return Err(End::Stopping),
                () = sleep_until(stalled_at) => return Err(End::Slow),
                _ = self.authority.changed() => {}
            }
            self.judge().await?;
        }
    }
}

/// Waits until the engine ends.
async fn is_closed(closed: &mut Option<watch::Receiver<bool>>) {
    match closed {
        // Without a server nobody closes it.
        Some(closed) => drop(closed.wait_for(|is_closed| *is_closed).await),
        None => std::future::pending().await,
    }
}

/// What an event of the board tells.
#[derive(Serialize)]
struct BoardEvent {
    now: Time,
    /// Whether these are all values there are, with the events behind it up to the next one that says so: the beginning.
    full: bool,
    entries: Vec<LatestBody>,
}

fn alarm(notice: &Notice) -> Value {
    json!({"alarm_id": notice.alarm_id, "farm_id": notice.farm_id, "barn_id": notice.barn_id,
        "rule_id": notice.rule_id, "place": notice.place, "class": notice.class.as_str(),
        "state": notice.state.as_str(), "value": notice.value, "limit": notice.limit, "unit": notice.unit,
        "happened_at": Time(notice.happened_at)})
}

/// An event on the wire. JSON has no line breaks of its own.
fn event(id: Option<&str>, name: &str, data: &Value) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    Bytes::from(format!("{id}event: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_by_the_life_that_wrote_it() {
        let cursor = Cursor { board: 812, alarms: 4 };
        let id = cursor.id(0x5f3a);
        assert_eq!(id, "00005f3a.812.4");
        assert_eq!(Cursor::parse(&id, 0x5f3a), Some(cursor));
        assert_eq!(Cursor::parse(&id, 0x5f3b), None);
        for odd in
            ["", ".", "00005f3a", "00005f3a.1", "00005f3a.1.2.3", "00005f3a.-1.2", "x.1.2", "00005f3a.1.é"]
        {
            assert_eq!(Cursor::parse(odd, 0x5f3a), None, "{odd}");
        }
    }
}

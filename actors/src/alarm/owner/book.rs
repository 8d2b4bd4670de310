//! What is to be written, in its order, and who waits for it. Nothing is told before its row is there, unless the database
//! does not take it: then it is told all the same, and written when the database is back.

use std::collections::VecDeque;
use std::time::Duration;

use ractor::RpcReplyPort;
use schema::clock::Timestamp;
use schema::store::alarm::telling::{self, DrillRow, ResultRow, TellingRow};
use schema::store::alarm::{self as rows, AlarmRow};
use schema::store::audit::{self, Deed as Written};
use schema::store::{Conn, Store, StoreError};
use tokio::time::Instant;
use uuid::Uuid;

use super::Done;
use crate::alarm::house::{ActError, Change, Due};

/// Rows of one transaction.
const BATCH_OPS_MAX: usize = 200;
/// What waits for a database that is away; beyond it what became of tellings is lost, and never a transition.
const WAITING_OPS_MAX: usize = 20_000;
/// After so long nobody waits for the database any more.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);

/// Something to write.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A step of an alarm.
    Change(Box<Change>),
    /// A telling, before it begins.
    Claim(Box<(AlarmRow, TellingRow)>),
    /// What became of it by one way.
    Result(Box<ResultRow>),
    /// A drill begins.
    Drill(Box<DrillRow>),
    /// A drill has its answer, or none in time.
    Answer { alarm_id: Uuid, occurrence: i64, at: Option<Timestamp>, by: Option<String> },
}

impl Op {
    /// The alarm that something happened to.
    fn changed(&self) -> Option<&AlarmRow> {
        match self {
            Self::Change(change) => Some(&change.row),
            Self::Claim(_) | Self::Result(_) | Self::Drill(_) | Self::Answer { .. } => None,
        }
    }
}

/// Who waits for a row.
pub(super) enum Waiter {
    /// A telling.
    Telling(Box<Due>),
    /// A person.
    Reply(RpcReplyPort<Result<Done, ActError>>, Box<AlarmRow>),
}

/// The book; see the head of this file.
#[derive(Default)]
pub(super) struct Book {
    /// What is not written yet, the oldest first.
    waiting: VecDeque<(Instant, Op)>,
    /// The number of the first of these.
    first: u64,
    waiters: VecDeque<(u64, Waiter)>,
    is_writing: bool,
    batch_max: usize,
    is_refused: bool,
}

impl Book {
    pub(super) fn push(&mut self, op: Op, now: Instant) {
        let is_full = self.waiting.len() >= WAITING_OPS_MAX;
        if is_full && matches!(op, Op::Result(_)) {
            return;
        }
        self.waiting.push_back((now, op));
    }

    /// Whoever waits for everything that is in the book by now.
    pub(super) fn wait(&mut self, waiter: Waiter) {
        self.waiters.push_back((self.first + self.waiting.len() as u64, waiter));
    }

    /// Whether everything is written.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next transaction, if none is under way.
    pub(super) fn next_batch(&mut self) -> Option<Vec<Op>> {
        if self.is_writing || self.waiting.is_empty() {
            return None;
        }
        self.is_writing = true;
        let count = if self.batch_max == 0 { BATCH_OPS_MAX } else { self.batch_max };
        Some(self.waiting.iter().take(count).map(|(_, op)| op.clone()).collect())
    }

    /// A transaction has ended: the alarms that it wrote, each as it was after its last step.
    pub(super) fn written(&mut self, count: usize, outcome: Result<(), StoreError>) -> Vec<AlarmRow> {
        self.is_writing = false;
        match outcome {
            Ok(()) => {
                let rows =
                    self.waiting.iter().take(count).filter_map(|(_, op)| op.changed()).cloned().collect();
                self.drop_first(count);
                self.batch_max = (self.batch_max * 2).min(BATCH_OPS_MAX);
                if std::mem::take(&mut self.is_refused) {
                    tracing::info!(waiting = self.waiting.len(), "alarms are written down again");
                }
                return rows;
            }
            Err(error) if error.is_data() || error.is_missing_parent() => {
                if count == 1 {
                    tracing::error!(%error, op = ?self.waiting.front(), "a row of alarms cannot be written");
                    self.drop_first(1);
                }
                self.batch_max = 1;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_refused, true) {
                    tracing::warn!(%error, "alarms cannot be written down now, and are told all the same");
                }
            }
        }
        Vec::new()
    }

    fn drop_first(&mut self, count: usize) {
        drop(self.waiting.drain(..count.min(self.waiting.len())));
        self.first += count as u64;
    }

    /// Those who need not wait any longer, and whether what they waited for is written.
    pub(super) fn take_ready(&mut self, now: Instant) -> Vec<(Waiter, bool)> {
        let mut ready = Vec::new();
        while let Some((until, _)) = self.waiters.front() {
            let is_written = *until <= self.first;
            let is_late = self.is_refused
                || self.waiting.front().is_some_and(|(at, _)| now.duration_since(*at) >= PATIENCE);
            if !is_written && !is_late {
                break;
            }
            if let Some((_, waiter)) = self.waiters.pop_front() {
                ready.push((waiter, is_written));
            }
        }
        ready
    }
}

/// Writes a batch in one transaction.
pub(super) async fn write(store: &Store, ops: &[Op]) -> Result<(), StoreError> {
    let work = async |conn: &Conn| {
        for op in ops {
            write_op(conn, op).await?;
        }
        Ok(())
    };
    store.run("alarm_write", async |conn| conn.transaction("alarm_write", work).await).await
}

async fn write_op(conn: &Conn, op: &Op) -> Result<(), StoreError> {
    match op {
        Op::Change(change) => {
            put(conn, &change.row).await?;
            for event in &change.events {
                rows::add_event(conn, event).await?;
            }
            if let Some(deed) = &change.deed {
                let tenants = [change.row.tenant_id.clone()];
                let is_box = change.row.tenant_id.is_empty();
                let target = change.row.id.to_string();
                let written = Written {
                    action: deed.action,
                    tenants: (!is_box).then_some(&tenants[..]),
                    target: Some(&target),
                    detail: deed.detail.clone(),
                };
                audit::record(conn, &deed.author, &written, change.row.updated_at).await?;
            }
        }
        Op::Claim(claim) => {
            let (row, telling) = &**claim;
            put(conn, row).await?;
            telling::claim(conn, telling).await?;
        }
        Op::Result(result) => telling::put_result(conn, result).await?,
        Op::Drill(drill) => telling::put_drill(conn, drill).await?,
        Op::Answer { alarm_id, occurrence, at, by } => {
            telling::answer_drill(conn, (*alarm_id, *occurrence), *at, by.as_deref()).await?;
        }
    }
    Ok(())
}

/// Writes a row of which this engine is the owner. One that has moved on was written by a transaction whose end nobody heard
/// of; one that is gone was removed by hand.
async fn put(conn: &Conn, row: &AlarmRow) -> Result<(), StoreError> {
    if rows::put(conn, row).await? {
        return Ok(());
    }
    if rows::lock(conn, None, row.id).await?.is_none() {
        rows::put(conn, &AlarmRow { revision: 0, ..row.clone() }).await?;
    }
    Ok(())
}

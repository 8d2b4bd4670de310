//! Reads the files once more, at the pace of the play, and gives each message to its device shortly before it is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{Semaphore, watch};

use schema::clock::Timestamp;

use super::player::{Due, Queue, Shared};
use super::rewrite::{Rewriter, Take};
use super::scan::{Scan, sender};
use super::{Settings, Shift, after};
use crate::connection::Device;
use crate::mqtt::Publish;
use crate::recording::Message;
use crate::recording::reader::Reader;
use crate::traffic::Said;

/// How long before its time a message is read.
const AHEAD: Duration = Duration::from_secs(2);
/// Memory of all messages that are read and not answered, in units of [`UNIT_BYTES`]: 128 MiB.
const ROOM_UNITS: u32 = 128 * 1024;
/// Bytes of a unit.
const UNIT_BYTES: usize = 1024;
/// Pause between two rounds without pauses of their own.
const ROUND_GAP: Duration = Duration::from_secs(1);

/// Gives every message to its device; returns how many there were. Stops early when `stop` becomes true.
///
/// A device that cannot keep up fills the room, and then everybody waits: what is sent too late then counts from when
/// it was due all the same.
pub(super) async fn feed(
    settings: &Settings,
    scan: &Scan,
    shared: &Arc<Shared>,
    queues: &BTreeMap<Device, Arc<Queue>>,
    mut stop: watch::Receiver<bool>,
) -> Result<u64> {
    let rewriter = Rewriter::new(settings.renews_ids, settings.seed);
    let room = Arc::new(Semaphore::new(usize::try_from(ROOM_UNITS).unwrap_or(usize::MAX)));
    let (started, started_at) = (Instant::now(), shared.clock.now());
    let mut fed = 0;
    for round in 0..settings.loops {
        let before = (scan.length() + ROUND_GAP) * u32::try_from(round).unwrap_or(u32::MAX);
        let mut reader = Reader::new(settings.files.clone());
        let mut index = scan.messages * round as u64;
        while let Some(message) = reader.next_message()? {
            let recorded = (message.at - scan.first_at).to_std().unwrap_or_default() + before;
            let due_after = settings.pace.due_after(index, recorded);
            index += 1;
            let due_at = after(started, due_after);
            if due_at > Instant::now() + AHEAD {
                tokio::select! {
                    () = tokio::time::sleep_until((due_at - AHEAD).into()) => {}
                    _ = stop.wait_for(|is_stopped| *is_stopped) => return Ok(fed),
                }
            }
            let shift = shift(settings.shift, scan, &message, started_at, due_after, before);
            for copy in 0..settings.copies {
                let take = Take { round, copy, shift };
                let message = rewriter.rewrite(message.clone(), take);
                let units = u32::try_from(1 + message.payload.len() / UNIT_BYTES).unwrap_or(u32::MAX);
                let permits = Arc::clone(&room).acquire_many_owned(units.min(ROOM_UNITS));
                let room = tokio::select! {
                    room = permits => room.context("find room for a message")?,
                    _ = stop.wait_for(|is_stopped| *is_stopped) => return Ok(fed),
                };
                let said = Said::of(&message.topic, &message.payload);
                let queue = queues.get(&sender(&message, &said));
                let queue = queue.context("a message is of somebody who was not there at first")?;
                let publish = Publish {
                    topic: message.topic.into(),
                    payload: message.payload,
                    qos: message.qos,
                    is_retained: message.is_retained,
                    properties: message.properties.encode()?.into(),
                };
                queue.push(Due { at: due_at, publish, said, room });
                fed += 1;
            }
        }
    }
    Ok(fed)
}

/// By how much the times of a message are moved.
fn shift(
    shift: Option<Shift>,
    scan: &Scan,
    message: &Message,
    started_at: Timestamp,
    due_after: Duration,
    before: Duration,
) -> Option<chrono::Duration> {
    let long = |duration: Duration| chrono::Duration::from_std(duration).unwrap_or_default();
    match shift? {
        Shift::ToDue => Some(started_at + long(due_after) - message.at),
        Shift::EndsNow => Some(started_at - scan.last_at + long(before)),
    }
}

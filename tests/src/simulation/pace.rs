//! A sender at an even pace, with a cloud and a database that never fail: how many requests it makes, how often it looks, and
//! how long an event takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actors::sync::ports::Ports;
use actors::sync::{SyncHub, SyncSettings};
use chrono::DateTime;
use schema::clock::Clock;
use schema::store::{Store, StoreSettings};
use schema::wire::event::TELEMETRY_INGESTED;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::cloud::{ModelCloud, Rules};
use super::outbox::{ModelOutbox, NewRow};

/// How often it is looked how old the oldest event is.
const STEP: Duration = Duration::from_millis(50);

/// What a pace came to.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Events that were queued.
    pub events: u64,
    /// Requests that the cloud read.
    pub requests: u64,
    /// Looks for something to send.
    pub looks: u64,
    /// The longest that an event waited until it was acknowledged, seconds, to a step.
    pub slowest_seconds: f64,
}

/// Queues so many events a second for so many seconds, each with a wake-up, as the writers of an engine do.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn pace(per_second: u32, seconds: u32) -> Pace {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be made").block_on(run(per_second, seconds))
}

async fn run(per_second: u32, seconds: u32) -> Pace {
    let clock = Clock::following(DateTime::from_timestamp(1_780_000_000, 0).expect("a time"));
    let rules = Rules { timeout: Duration::from_secs(60), is_alone: true, is_steady: true };
    let cloud = Arc::new(ModelCloud::new(HashMap::new(), rules, 1));
    let outbox = Arc::new(ModelOutbox::new(Arc::clone(&cloud), None, 2));
    let store = Store::new(&StoreSettings::new("host=/nowhere user=nobody", "simulation")).expect("a URL");
    let settings = SyncSettings {
        edge_id: "edge".to_owned(),
        cloud: None,
        is_sending: true,
        partitions: 4,
        batch_events_max: 500,
        batch_bytes_max: 1_000_000,
        lease_seconds: 300,
        rejections_max: 3,
        backoff_seconds_max: 300,
        poll_ms: 1_000,
        drain_ms: 10_000,
    };
    let line = Arc::clone(&cloud) as _;
    let ports = Ports { rows: outbox.seen_by("edge"), line: Some(line), chance: Arc::new(|| 1.0) };
    let hub = SyncHub::simulated(settings, ports, store, clock.clone());
    let mut senders = JoinSet::new();
    for partition in 0..hub.partitions() {
        senders.spawn(hub.send(partition));
    }
    hub.wake();
    let (started, mut queued, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    let steps = seconds * 1000 / u32::try_from(STEP.as_millis()).expect("small");
    for step in 1..=steps {
        tokio::time::sleep_until(started + STEP * step).await;
        let due = u64::from(per_second) * u64::from(step) / 20;
        while queued < due {
            queued += 1;
            let (id, device) = (Uuid::from_u128(u128::from(queued)), format!("d-{}", queued % 64));
            let group = i16::try_from(queued % 16).expect("below 16");
            let event_type = TELEMETRY_INGESTED;
            outbox.queue(NewRow { id, group, device, session: None, event_type }, clock.now());
            hub.wake();
        }
        let age = outbox.oldest_at().and_then(|at| (clock.now() - at).to_std().ok());
        slowest = slowest.max(age.unwrap_or_default());
    }
    let (requests, _) = cloud.counts();
    Pace { events: queued, requests, looks: outbox.looks(), slowest_seconds: slowest.as_secs_f64() }
}

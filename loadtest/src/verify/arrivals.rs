//! What the cloud has, in the order in which it came.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use schema::wire::time;

use crate::cloud::log;
use crate::ids;

/// An event as the cloud took it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arrival {
    /// Its place in the order of all arrivals.
    pub place: usize,
    /// Number of the batch it came in.
    pub batch: u64,
    /// Its type.
    pub event_type: String,
    /// Its device; empty without one.
    pub device_id: String,
    /// Its session; empty without one.
    pub session_id: String,
    /// When it happened, milliseconds.
    pub at_millis: i64,
    /// The part of its payload that is compared.
    pub payload: Payload,
    /// Whether the cloud had refused it before.
    pub was_refused: bool,
}

/// The part of a payload that is compared.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Payload {
    /// Metric of a reading.
    pub metric_type: Option<String>,
    /// Value of a reading.
    pub metric_value: Option<f64>,
    /// Unit of a reading.
    pub unit: Option<String>,
    /// Kilograms of a weight.
    pub weight_kg: Option<f64>,
}

#[derive(Deserialize)]
struct Event {
    event_id: String,
    event_type: String,
    tenant_id: String,
    #[serde(default)]
    device_id: String,
    #[serde(default)]
    session_id: String,
    occurred_at: String,
    payload: Box<RawValue>,
}

/// Everything the cloud has.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// By tenant and event id.
    pub by_id: HashMap<(String, u128), Arrival>,
    /// Ids that came without their event, when the cloud kept no log.
    pub ids: HashSet<u128>,
    /// Whether contents and order are known.
    pub has_log: bool,
    /// Events whose ids are no UUIDs in lower case.
    pub odd: Vec<String>,
}

impl Arrivals {
    /// Reads the file of events that the cloud wrote.
    ///
    /// # Errors
    /// When it cannot be read or an event lacks what every event has.
    pub fn read(path: &Path) -> Result<Self> {
        let mut arrivals = Self { has_log: true, ..Self::default() };
        let mut refused = HashSet::new();
        log::read(path, |decision| {
            refused.extend(decision.refused);
            match decision.event {
                Some(event) => arrivals.take(decision.batch, event, &refused),
                None => Ok(()),
            }
        })?;
        Ok(arrivals)
    }

    fn take(&mut self, batch: u64, raw: &RawValue, refused: &HashSet<String>) -> Result<()> {
        let event: Event = serde_json::from_str(raw.get()).with_context(|| format!("read {}", raw.get()))?;
        let Some(id) = ids::parse(&event.event_id) else {
            self.odd.push(event.event_id);
            return Ok(());
        };
        let arrival = Arrival {
            place: self.by_id.len(),
            batch,
            event_type: event.event_type,
            device_id: event.device_id,
            session_id: event.session_id,
            at_millis: time::parse(&event.occurred_at).map_or(i64::MIN, |at| at.timestamp_millis()),
            // What is not compared may have any shape.
            payload: serde_json::from_str(event.payload.get()).unwrap_or_default(),
            was_refused: refused.contains(&event.event_id),
        };
        self.ids.insert(id);
        self.by_id.insert((event.tenant_id, id), arrival);
        Ok(())
    }

    /// Whether an event is there.
    #[must_use]
    pub fn has(&self, tenant: &str, id: u128) -> bool {
        match self.has_log {
            true => self.by_id.contains_key(&(tenant.to_owned(), id)),
            false => self.ids.contains(&id),
        }
    }
}

//! Weighing stations as they really are: a camera that uploads over HTTP, and a line that publishes over MQTT.

pub mod agent;
mod camera;
mod line;
pub mod vision;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::mqtt::Login;
use crate::publisher::Meter;

pub use camera::Upload;

/// How a station reaches the engine.
#[derive(Clone, Debug)]
pub struct Access {
    /// `host:port` of the broker.
    pub broker: String,
    /// `http://host:port` of the HTTP API.
    pub edge: String,
    /// Identity on MQTT.
    pub login: Login,
    /// Where messages are counted.
    pub meter: Arc<Meter>,
    /// Where everything else is counted.
    pub tally: Arc<Tally>,
}

/// What many stations count together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Weighings that went through.
    pub weighings: AtomicU64,
    /// Pictures that were uploaded.
    pub images: AtomicU64,
    /// Attempts that failed and were made again.
    pub retries: AtomicU64,
    /// Calls and captures that were given up.
    pub failures: AtomicU64,
}

impl Tally {
    /// The counts in words.
    #[must_use]
    pub fn line(&self) -> String {
        let [weighings, images, retries, failures] =
            [&self.weighings, &self.images, &self.retries, &self.failures]
                .map(|counter| counter.load(Ordering::Relaxed));
        format!("{weighings} weighings, {images} images, {retries} attempts repeated, {failures} given up")
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A weighing of which everything was answered or acknowledged: what the cloud must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weighed {
    /// Its session.
    pub session_id: String,
    /// The weight the pictures were drawn for.
    pub true_kg: f64,
    /// Weights that were bound to it.
    pub weights: usize,
    /// Media ids of its pictures.
    pub media_ids: Vec<String>,
    /// Event ids that the cloud must see.
    pub event_ids: Vec<String>,
}

/// How often and how soon an attempt is made again.
struct Patience<'a> {
    tally: &'a Tally,
    wait_seconds: std::slice::Iter<'static, u64>,
}

impl<'a> Patience<'a> {
    fn new(tally: &'a Tally, wait_seconds: &'static [u64]) -> Self {
        Self { tally, wait_seconds: wait_seconds.iter() }
    }

    /// Waits until it is time for the next attempt; gives the error back when there is none.
    async fn after(&mut self, error: anyhow::Error) -> Result<()> {
        let Some(seconds) = self.wait_seconds.next() else {
            count(&self.tally.failures);
            return Err(error);
        };
        count(&self.tally.retries);
        tokio::time::sleep(Duration::from_secs(*seconds)).await;
        Ok(())
    }
}

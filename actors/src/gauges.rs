//! Gauges that are read from the database: a value that cannot be had is shown as none, not as what it once was.

use schema::metrics::{self, Gauge};
use schema::store::StoreError;

/// Some gauges that one look feeds. That it failed is said once, and does not keep anybody from other work.
#[derive(Clone, Debug)]
pub struct Measured {
    name: &'static str,
    is_failing: bool,
}

impl Measured {
    /// Gauges by the name that stands for them in logs.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, is_failing: false }
    }

    /// Passes on what was found, or makes the gauges show nothing.
    pub fn found<T>(
        &mut self,
        outcome: Result<T, StoreError>,
        gauges: impl IntoIterator<Item = Gauge>,
    ) -> Option<T> {
        match outcome {
            Ok(found) => {
                self.is_failing = false;
                Some(found)
            }
            Err(error) => {
                gauges.into_iter().for_each(|gauge| gauge.set(metrics::UNKNOWN));
                self.failed(&error);
                None
            }
        }
    }

    fn failed(&mut self, error: &StoreError) {
        let (gauges, cause) = (self.name, schema::store::cause(error));
        if error.is_outage() || std::mem::replace(&mut self.is_failing, true) {
            tracing::debug!(gauges, %error, cause, "gauges cannot be read");
        } else {
            tracing::warn!(gauges, %error, cause, "gauges cannot be read, they show nothing meanwhile");
        }
    }
}

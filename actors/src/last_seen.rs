//! Signs of life of devices that call over HTTP: noted in memory, and written together now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use schema::clock::Clock;
use schema::store::device::{self, Seen};
use schema::store::{Store, StoreError};

use crate::chore::Chore;

/// When devices last called. Cloning shares what is noted.
#[derive(Clone)]
pub struct SignsOfLife {
    store: Store,
    clock: Clock,
    /// How often they are written; each device is written once then.
    every: Duration,
    /// By tenant and device. Only devices that are let in are noted, which bounds it.
    noted: Arc<Mutex<HashMap<(String, String), Seen>>>,
}

impl SignsOfLife {
    /// Nothing noted yet.
    #[must_use]
    pub fn new(store: Store, clock: Clock, every: Duration) -> Self {
        Self { store, clock, every, noted: Arc::default() }
    }

    /// Notes that a device which is let in has called this route.
    pub fn note(&self, tenant_id: &str, device_id: &str, route: &str) {
        let seen = Seen {
            tenant_id: tenant_id.to_owned(),
            device_id: device_id.to_owned(),
            at: self.clock.now(),
            topic: format!("http:{route}"),
        };
        self.noted().insert((tenant_id.to_owned(), device_id.to_owned()), seen);
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<(String, String), Seen>> {
        self.noted.lock().expect("nothing panics while it holds the lock")
    }
}

impl Chore for SignsOfLife {
    const NAME: &'static str = "signs_of_life";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let noted = std::mem::take(&mut *self.noted());
        if noted.is_empty() {
            return Ok(self.every);
        }
        let (signs, now) = (noted.values().collect::<Vec<_>>(), self.clock.now());
        let written =
            self.store.run("devices_seen", async |conn| device::seen(conn, &signs, now).await).await;
        if let Err(error) = written {
            let mut newer = self.noted();
            for (device, seen) in noted {
                newer.entry(device).or_insert(seen);
            }
            return Err(error);
        }
        Ok(self.every)
    }
}

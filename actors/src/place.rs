//! Where devices are: the desk where that is said, and what is known of it in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use schema::clock::Clock;
use schema::store::audit::{self, Action, Author, Deed};
use schema::store::place::{self as rows, Place};
use schema::store::{Conn, Store, StoreError};
use serde_json::json;

use crate::chore::Chore;

/// How often places are read again, since another engine or a shell may have changed them.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// Places as they were last read. Cloning shares them.
#[derive(Clone)]
pub struct Places {
    store: Store,
    known: Arc<ArcSwap<Known>>,
}

/// By tenant and device, the places of the device and of its metrics.
type Known = HashMap<String, HashMap<String, Vec<Arc<Place>>>>;

impl Places {
    /// None is known yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, known: Arc::default() }
    }

    /// The place of a metric of a device: its own, else that of the device.
    #[must_use]
    pub fn of(&self, tenant_id: &str, device_id: &str, metric_type: &str) -> Option<Arc<Place>> {
        let known = self.known.load();
        let places = known.get(tenant_id)?.get(device_id)?;
        let named = |name: &str| places.iter().find(|place| place.metric_type == name);
        named(metric_type).or_else(|| named("")).cloned()
    }

    /// Reads them again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let places = self.store.run("places", async |conn| rows::all(conn).await).await?;
        let mut known = Known::new();
        for place in places {
            let of_tenant = known.entry(place.tenant_id.clone()).or_default();
            of_tenant.entry(place.device_id.clone()).or_default().push(Arc::new(place));
        }
        self.known.store(Arc::new(known));
        Ok(())
    }
}

impl Chore for Places {
    const NAME: &'static str = "places";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        self.refresh().await?;
        Ok(REFRESH_EVERY)
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no such device.
    #[error("there is no such device: let it in first")]
    NoDevice,
    /// The device has no such place.
    #[error("nobody has said where this is")]
    NoPlace,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says where devices are. Cloning shares the database.
#[derive(Clone)]
pub struct PlaceDesk {
    /// The database, to write.
    pub store: Store,
    /// The same, to look.
    pub reads: Store,
    /// Wall time.
    pub clock: Clock,
    /// What is known in memory, which is told at once.
    pub places: Places,
}

impl PlaceDesk {
    /// Places of a tenant, of a device or a barn where these are named.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        tenant_id: &str,
        device_id: Option<&str>,
        barn_id: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Place>, StoreError> {
        let read = async |conn: &mut Conn| rows::list(conn, tenant_id, device_id, barn_id, limit).await;
        self.reads.run("places", read).await
    }

    /// Says where a device is, or one of its metrics.
    ///
    /// # Errors
    /// [`PlaceError::NoDevice`], and when the database fails.
    pub async fn put(&self, place: Place, author: &Author) -> Result<Place, PlaceError> {
        let place = Place { updated_at: self.clock.now(), ..place };
        let detail = json!({"metric_type": metric_of(&place.metric_type), "role": place.role, "zone": place.zone,
            "height_cm": place.height_cm, "weight": place.weight});
        let tenants = [place.tenant_id.clone()];
        let deed = Deed {
            action: Action::PlacePut,
            tenants: Some(&tenants),
            target: Some(&place.device_id),
            detail,
        };
        let write = async |conn: &Conn| {
            let is_known = rows::put(conn, &place).await?;
            if is_known {
                audit::record(conn, author, &deed, place.updated_at).await?;
            }
            Ok(is_known)
        };
        let work = async |conn: &mut Conn| conn.transaction("place_put", write).await;
        if !self.store.run("place_put", work).await? {
            return Err(PlaceError::NoDevice);
        }
        self.tell().await;
        Ok(place)
    }

    /// Forgets where a device is, or one of its metrics.
    ///
    /// # Errors
    /// [`PlaceError::NoPlace`], and when the database fails.
    pub async fn remove(
        &self,
        tenant_id: &str,
        device_id: &str,
        metric_type: &str,
        author: &Author,
    ) -> Result<(), PlaceError> {
        let tenants = [tenant_id.to_owned()];
        let detail = json!({"metric_type": metric_of(metric_type)});
        let deed =
            Deed { action: Action::PlaceRemove, tenants: Some(&tenants), target: Some(device_id), detail };
        let now = self.clock.now();
        let write = async |conn: &Conn| {
            let was_there = rows::remove(conn, tenant_id, device_id, metric_type).await?;
            if was_there {
                audit::record(conn, author, &deed, now).await?;
            }
            Ok(was_there)
        };
        let work = async |conn: &mut Conn| conn.transaction("place_remove", write).await;
        if !self.store.run("place_remove", work).await? {
            return Err(PlaceError::NoPlace);
        }
        self.tell().await;
        Ok(())
    }

    /// What is written holds, whether or not it can be read at once: the chore comes round.
    async fn tell(&self) {
        if let Err(error) = self.places.refresh().await {
            tracing::debug!(%error, "places could not be read again at once");
        }
    }
}

/// The metric of a place, where it has one of its own.
#[must_use]
pub fn metric_of(metric_type: &str) -> Option<&str> {
    (!metric_type.is_empty()).then_some(metric_type)
}

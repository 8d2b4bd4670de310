//! The allowlists as one snapshot in memory, read again every few seconds and when somebody would be turned away.
//!
//! Since a refusal is for good, it is never made from a snapshot that is older than the question: whoever is let in and
//! speaks at once is heard.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use broker::Identity;
use broker::tls::Subject;
use schema::clock::Clock;
use schema::id::TenantId;
use schema::metrics;
use schema::store::device::{self, Allowed, Allowlist as List};
use schema::store::{Store, StoreError};
use schema::wire::reject::{Reason, Reject};
use schema::wire::topic::Place;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::chore::Chore;

/// Whoever is not allowed causes a fresh look at the database, but not sooner than this after the last one,
const STRANGER_REFRESH_MIN: Duration = Duration::from_millis(50);
/// and not sooner than this many times the duration of the last one, so that strangers cannot keep the database busy.
const STRANGER_REFRESH_FACTOR: u32 = 20;
/// At the latest it may after this, so that nobody who was let in a moment ago waits for long.
const STRANGER_REFRESH_MAX: Duration = Duration::from_millis(200);

/// Who may speak. Cloning shares the snapshot.
#[derive(Clone)]
pub struct Allowlist {
    store: Store,
    clock: Clock,
    /// Strangers of a tenant that may wait for approval, in each list; `None`: none is entered.
    provision_rows_max: Option<i64>,
    /// A change takes effect within this time, even when nobody tells of it.
    refresh_every: Duration,
    snapshot: Arc<ArcSwapOption<Snapshot>>,
    /// Counts the snapshots that were taken.
    generation: Arc<AtomicU64>,
    refreshing: Arc<Mutex<()>>,
}

/// Rows by tenant and id. Two levels, so that a lookup needs no owned key.
type Rows = HashMap<String, HashMap<String, Allowed>>;

struct Snapshot {
    devices: Rows,
    stations: Rows,
    /// Ids of devices that more than one tenant has ever had.
    ambiguous_ids: HashSet<String>,
    taken_at: Instant,
    /// When whoever is not allowed may cause another look.
    stale_at: Instant,
}

impl Allowlist {
    /// An empty snapshot; the first question fills it.
    #[must_use]
    pub fn new(store: Store, clock: Clock, provision_rows_max: Option<i64>, refresh_every: Duration) -> Self {
        let (snapshot, generation, refreshing) = (Arc::default(), Arc::default(), Arc::default());
        Self { store, clock, provision_rows_max, refresh_every, snapshot, generation, refreshing }
    }

    /// Takes a snapshot that is newer than this call.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        self.look_again(Instant::now()).await
    }

    /// Changes with each new snapshot, after it was taken.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a device may act at a place, as of `asked_at` or later; the row when it may.
    ///
    /// # Errors
    /// When the device is not allowed by the snapshot and the database cannot be asked.
    pub async fn device(
        &self,
        place: &Place,
        id: &str,
        asked_at: Instant,
    ) -> Result<Result<Allowed, Reject>, StoreError> {
        self.judge(List::Devices, place, id, asked_at).await
    }

    /// Whether a station may act at a place, as of `asked_at` or later; the row when it may.
    ///
    /// # Errors
    /// When the station is not allowed by the snapshot and the database cannot be asked.
    pub async fn station(
        &self,
        place: &Place,
        id: &str,
        asked_at: Instant,
    ) -> Result<Result<Allowed, Reject>, StoreError> {
        self.judge(List::Stations, place, id, asked_at).await
    }

    /// A device's row as of `asked_at` or later, whatever it says, or `None` for a stranger. A call that asks for many
    /// devices asks with one time, so that it waits once.
    ///
    /// # Errors
    /// When the device is not enabled by the snapshot and the database cannot be asked.
    pub async fn device_row(
        &self,
        tenant_id: &str,
        id: &str,
        asked_at: Instant,
    ) -> Result<Option<Allowed>, StoreError> {
        self.row(List::Devices, tenant_id, id, asked_at).await
    }

    /// A station's row as of `asked_at` or later, like [`Allowlist::device_row`].
    ///
    /// # Errors
    /// When the station is not enabled by the snapshot and the database cannot be asked.
    pub async fn station_row(
        &self,
        tenant_id: &str,
        id: &str,
        asked_at: Instant,
    ) -> Result<Option<Allowed>, StoreError> {
        self.row(List::Stations, tenant_id, id, asked_at).await
    }

    async fn row(
        &self,
        list: List,
        tenant_id: &str,
        id: &str,
        asked_at: Instant,
    ) -> Result<Option<Allowed>, StoreError> {
        let row = self.known(list, tenant_id, id);
        if row.as_ref().is_some_and(|row| row.is_enabled) {
            return Ok(row);
        }
        self.look_again(asked_at).await?;
        Ok(self.known(list, tenant_id, id))
    }

    /// The tenant that has a device of this id; `None` when none has, or several have or have ever had.
    ///
    /// # Errors
    /// When the database has to be asked and cannot be.
    pub async fn tenant_of(&self, device_id: &str) -> Result<Option<TenantId>, StoreError> {
        let tenant = || self.snapshot.load().as_deref().and_then(|snapshot| snapshot.tenant_of(device_id));
        if let Some(tenant_id) = tenant() {
            return Ok(Some(tenant_id));
        }
        self.look_again(Instant::now()).await?;
        Ok(tenant())
    }

    /// The device a certificate stands for; `None` when it leaves its tenant out and not exactly one has, and has ever had,
    /// such a device.
    ///
    /// # Errors
    /// When the tenant is looked for and the database cannot be asked.
    pub async fn identity(&self, subject: &Subject) -> Result<Option<Identity>, StoreError> {
        let tenant_id = match &subject.tenant_id {
            Some(tenant_id) => Some(tenant_id.clone()),
            None => self.tenant_of(subject.device_id.as_str()).await?,
        };
        Ok(tenant_id.map(|tenant_id| Identity { tenant_id, device_id: subject.device_id.clone() }))
    }

    /// A device's row in the snapshot as it is, without waiting.
    #[must_use]
    pub fn known_device(&self, tenant_id: &str, id: &str) -> Option<Allowed> {
        self.known(List::Devices, tenant_id, id)
    }

    fn known(&self, list: List, tenant_id: &str, id: &str) -> Option<Allowed> {
        self.snapshot.load().as_deref()?.find(list, tenant_id, id).cloned()
    }

    async fn judge(
        &self,
        list: List,
        place: &Place,
        id: &str,
        asked_at: Instant,
    ) -> Result<Result<Allowed, Reject>, StoreError> {
        let known = || self.known(list, place.tenant_id.as_str(), id).map(|row| judge(list, row, place));
        if let Some(Ok(row)) = known() {
            return Ok(Ok(row));
        }
        self.look_again(asked_at).await?;
        match (known(), self.provision_rows_max) {
            (Some(judgement), _) => Ok(judgement),
            (None, Some(rows_max)) if self.provision(list, place, id, rows_max).await? => {
                Ok(Err(pending(list).into()))
            }
            (None, _) => Ok(Err(not_allowed(list).into())),
        }
    }

    /// Enters a stranger; `false`: there is no room for it.
    async fn provision(
        &self,
        list: List,
        place: &Place,
        id: &str,
        rows_max: i64,
    ) -> Result<bool, StoreError> {
        let row = [place.tenant_id.as_str(), id, place.farm_id.as_str(), place.barn_id.as_str()];
        let now = self.clock.now();
        let enter = async |conn: &mut _| device::provision(conn, list, row, rows_max, now).await;
        let is_entered = self.store.run("provision", enter).await?;
        if !is_entered {
            metrics::ingress_provision_full().increment(1);
        }
        Ok(is_entered)
    }

    /// Waits for a snapshot that was begun after `asked_at`. All who wait share one, so that those who are turned away
    /// keep neither the database busy nor each other waiting for long.
    async fn look_again(&self, asked_at: Instant) -> Result<(), StoreError> {
        let _turn = self.refreshing.lock().await;
        let current = self.snapshot.load_full();
        if let Some(snapshot) = current {
            if snapshot.taken_at > asked_at {
                return Ok(());
            }
            sleep_until(snapshot.stale_at).await;
        }
        self.read().await
    }

    /// Takes a new snapshot. One turn at a time.
    async fn read(&self) -> Result<(), StoreError> {
        let taken_at = Instant::now();
        let read = self.store.run("allowlists", async |conn| device::allowlists(conn).await).await?;
        let pause = taken_at.elapsed() * STRANGER_REFRESH_FACTOR;
        let stale_at = taken_at + pause.clamp(STRANGER_REFRESH_MIN, STRANGER_REFRESH_MAX);
        let snapshot = Snapshot {
            devices: by_tenant(read.devices),
            stations: by_tenant(read.stations),
            ambiguous_ids: read.ambiguous_ids.into_iter().collect(),
            taken_at,
            stale_at,
        };
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl Chore for Allowlist {
    const NAME: &'static str = "allowlist";
    /// A change is to take effect soon.
    const RETRY_MAX: Duration = Self::RETRY;
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let _turn = self.refreshing.lock().await;
        self.read().await?;
        Ok(self.refresh_every)
    }
}

impl Snapshot {
    fn find(&self, list: List, tenant_id: &str, id: &str) -> Option<&Allowed> {
        let rows = match list {
            List::Devices => &self.devices,
            List::Stations => &self.stations,
        };
        rows.get(tenant_id)?.get(id)
    }

    /// The only tenant that has this device, and that has ever had one of its id.
    fn tenant_of(&self, device_id: &str) -> Option<TenantId> {
        if self.ambiguous_ids.contains(device_id) {
            return None;
        }
        let mut tenants = self.devices.iter().filter(|(_, rows)| rows.contains_key(device_id));
        let (tenant_id, _) = tenants.next()?;
        if tenants.next().is_some() { None } else { TenantId::new(tenant_id).ok() }
    }
}

fn by_tenant(rows: Vec<Allowed>) -> Rows {
    let mut by_tenant = Rows::new();
    for row in rows {
        by_tenant.entry(row.tenant_id.clone()).or_default().insert(row.id.clone(), row);
    }
    by_tenant
}

/// Step 8 of the checks. `enabled` alone decides; a missing farm or barn in the row is a wildcard.
fn judge(list: List, row: Allowed, place: &Place) -> Result<Allowed, Reject> {
    let (farm_mismatch, barn_mismatch) = match list {
        List::Devices => (Reason::DeviceFarmMismatch, Reason::DeviceBarnMismatch),
        List::Stations => (Reason::StationFarmMismatch, Reason::StationBarnMismatch),
    };
    if !row.is_enabled {
        return Err(if row.is_pending { pending(list) } else { not_allowed(list) }.into());
    }
    if row.farm_id.as_deref().is_some_and(|farm_id| farm_id != place.farm_id.as_str()) {
        return Err(Reject::of(farm_mismatch, "farm_id"));
    }
    if row.barn_id.as_deref().is_some_and(|barn_id| barn_id != place.barn_id.as_str()) {
        return Err(Reject::of(barn_mismatch, "barn_id"));
    }
    Ok(row)
}

fn not_allowed(list: List) -> Reason {
    match list {
        List::Devices => Reason::DeviceNotAllowed,
        List::Stations => Reason::StationNotAllowed,
    }
}

fn pending(list: List) -> Reason {
    match list {
        List::Devices => Reason::DevicePending,
        List::Stations => Reason::StationPending,
    }
}

#[cfg(test)]
mod tests {
    use schema::id::{BarnId, FarmId};

    use super::*;

    fn place() -> Place {
        Place {
            tenant_id: TenantId::new("t").expect("an id"),
            farm_id: FarmId::new("f").expect("an id"),
            barn_id: BarnId::new("b").expect("an id"),
        }
    }

    fn row(farm: Option<&str>, barn: Option<&str>, is_enabled: bool, is_pending: bool) -> Allowed {
        Allowed {
            tenant_id: "t".to_owned(),
            id: "d".to_owned(),
            farm_id: farm.map(str::to_owned),
            barn_id: barn.map(str::to_owned),
            station_id: None,
            is_enabled,
            is_pending,
        }
    }

    #[test]
    fn enabled_alone_decides_and_missing_places_are_wildcards() {
        let check = |row: Allowed, list, expected: Option<Reason>| {
            assert_eq!(
                judge(list, row.clone(), &place()).err().map(|reject| reject.reason),
                expected,
                "{row:?}"
            );
        };
        check(row(None, None, true, true), List::Devices, None);
        check(row(Some("f"), Some("b"), true, false), List::Stations, None);
        check(row(None, None, false, true), List::Devices, Some(Reason::DevicePending));
        check(row(None, None, false, true), List::Stations, Some(Reason::StationPending));
        check(row(None, None, false, false), List::Devices, Some(Reason::DeviceNotAllowed));
        check(row(None, None, false, false), List::Stations, Some(Reason::StationNotAllowed));
        check(row(Some("x"), Some("x"), true, false), List::Devices, Some(Reason::DeviceFarmMismatch));
        check(row(None, Some("x"), true, false), List::Devices, Some(Reason::DeviceBarnMismatch));
        check(row(Some("x"), None, true, false), List::Stations, Some(Reason::StationFarmMismatch));
        check(row(Some("f"), Some("x"), true, false), List::Stations, Some(Reason::StationBarnMismatch));
    }
}

//! Where weighing stations are let in and silenced. A change takes effect at once on every engine of the database, which
//! tells them.

use schema::clock::Clock;
use schema::id::{BarnId, FarmId, StationId, TenantId};
use schema::store::audit::Author;
use schema::store::station::{self, Station};
use schema::store::{Store, StoreError};

/// Lets stations in. Cloning shares the database.
#[derive(Clone, Debug)]
pub struct StationDesk {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
}

/// A station to let in.
#[derive(Clone, Debug)]
pub struct NewStation {
    /// Tenant.
    pub tenant_id: TenantId,
    /// The station.
    pub station_id: StationId,
    /// Its farm.
    pub farm_id: FarmId,
    /// Its barn.
    pub barn_id: BarnId,
}

impl StationDesk {
    /// Lets a station speak for its barn. One that is there already is moved, or comes back.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add(&self, new: &NewStation, author: &Author) -> Result<Option<Station>, StoreError> {
        let names = [new.tenant_id.as_str(), new.station_id.as_str()];
        let place = [new.farm_id.as_str(), new.barn_id.as_str()];
        let now = self.clock.now();
        let write = async |conn: &mut _| {
            station::allow(conn, names, place, author, now).await?;
            station::find(conn, names[0], names[1]).await
        };
        self.store.run("add_station", write).await
    }

    /// Silences a station at once. Says what it is now; `None` when nobody knows it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke(&self, names: [&str; 2], author: &Author) -> Result<Option<Station>, StoreError> {
        let now = self.clock.now();
        let write = async |conn: &mut _| {
            station::revoke(conn, names, author, now).await?;
            station::find(conn, names[0], names[1]).await
        };
        self.store.run("revoke_station", write).await
    }

    /// Stations of these tenants (`None` means of all) behind this place in the order by tenant and station.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        tenants: Option<&[String]>,
        after: (&str, &str),
        limit: i64,
    ) -> Result<Vec<Station>, StoreError> {
        let read = async |conn: &mut _| station::list(conn, tenants, after, limit).await;
        self.store.run("stations", read).await
    }
}

//! Answers the door's questions: credentials from the database, scopes from the allowlist's snapshot.

use std::time::Duration;

use async_trait::async_trait;
use broker::{Gatekeeper, Identity, Login, Scope};
use schema::id::{BarnId, FarmId, StationId};
use schema::store::device::Allowed;

use crate::allowlist::Allowlist;
use crate::credentials::Credentials;
use crate::database::DatabaseHealth;

/// The gatekeeper of the embedded broker.
pub struct DeviceGatekeeper {
    /// Checks passwords.
    pub credentials: Credentials,
    /// Knows scopes.
    pub allowlist: Allowlist,
    /// Knows whether anything can be committed.
    pub database: DatabaseHealth,
    /// Whether clients without a credential are let in.
    pub is_anonymous_allowed: bool,
}

#[async_trait]
impl Gatekeeper for DeviceGatekeeper {
    async fn login(&self, username: Option<&str>, password: Option<&[u8]>, client_id: &str) -> Login {
        let Some(username) = username else {
            return if self.is_anonymous_allowed { Login::Anonymous } else { Login::Refused };
        };
        match self.credentials.verify(username, password.unwrap_or_default()).await {
            Ok(Some(identity)) => self.enabled(identity).await,
            Ok(None) => Login::Refused,
            Err(error) => {
                tracing::warn!(client_id, %error, "login could not be checked");
                Login::Unavailable
            }
        }
    }

    fn scope(&self, identity: &Identity) -> Option<Scope> {
        let row = self.allowlist.known_device(identity.tenant_id.as_str(), identity.device_id.as_str())?;
        if row.is_enabled { scope(&row) } else { None }
    }

    fn stalled_for(&self) -> Duration {
        self.database.stalled_for()
    }
}

impl DeviceGatekeeper {
    /// A credential alone is not enough: the device's row must be there and enabled.
    async fn enabled(&self, identity: Identity) -> Login {
        match self.allowlist.device_row(identity.tenant_id.as_str(), identity.device_id.as_str()).await {
            Ok(Some(row)) if row.is_enabled => Login::Device(identity),
            Ok(_) => Login::Refused,
            Err(_) => Login::Unavailable,
        }
    }
}

/// A row's scope. A row whose farm, barn or station is no id matches no topic and allows nothing.
fn scope(row: &Allowed) -> Option<Scope> {
    Some(Scope {
        farm_id: row.farm_id.as_deref().map(FarmId::new).transpose().ok()?,
        barn_id: row.barn_id.as_deref().map(BarnId::new).transpose().ok()?,
        station_id: row.station_id.as_deref().map(StationId::new).transpose().ok()?,
    })
}

//! Where a device that a body names may act: the token, then the allowlist.

use tokio::time::Instant;

use super::{Call, Scope, agrees_with_token, refused, tenant_mismatch};
use crate::http::AppState;
use crate::http::error::{Code, Error};

/// A device and its place, as a body names them.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct DevicePlace<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// Farm.
    pub farm_id: &'a str,
    /// Barn.
    pub barn_id: &'a str,
    /// The device.
    pub device_id: &'a str,
    /// Its station, where the body names one.
    pub station_id: Option<&'a str>,
}

impl Call {
    /// Checks that the call may act for this device: tenant, then what the token says, then the allowlist.
    ///
    /// # Errors
    /// `TENANT_MISMATCH`, `SCOPE_MISMATCH`, `DEVICE_NOT_ALLOWED`, and when the allowlist cannot be asked.
    pub(in crate::http) async fn check_device(
        &self,
        state: &AppState,
        place: DevicePlace<'_>,
    ) -> Result<(), Error> {
        if !self.may_act_for(place.tenant_id) {
            return Err(tenant_mismatch());
        }
        if self.scope().is_some_and(|scope| !agrees(scope, place)) {
            return Err(scope_mismatch());
        }
        let row = state.allowlist.device_row(place.tenant_id, place.device_id, Instant::now()).await?;
        let row = row.filter(|row| row.is_enabled);
        let row = row.ok_or_else(device_not_allowed)?;
        let is_in_place = row.farm_id.as_deref().is_none_or(|farm_id| farm_id == place.farm_id)
            && row.barn_id.as_deref().is_none_or(|barn_id| barn_id == place.barn_id)
            && agrees_with_token(row.station_id.as_deref(), place.station_id);
        if is_in_place { Ok(()) } else { Err(scope_mismatch()) }
    }
}

fn agrees(scope: &Scope, place: DevicePlace<'_>) -> bool {
    scope.device_id == place.device_id
        && agrees_with_token(scope.farm_id.as_deref(), Some(place.farm_id))
        && agrees_with_token(scope.barn_id.as_deref(), Some(place.barn_id))
        && agrees_with_token(scope.station_id.as_deref(), place.station_id)
}

/// A call of a device, or for one, that has no enabled row.
pub(in crate::http) fn device_not_allowed() -> Error {
    refused(Code::DeviceNotAllowed, "device", "device is not enabled")
}

/// A call that reaches beyond its place.
pub(in crate::http) fn scope_mismatch() -> Error {
    refused(
        Code::ScopeMismatch,
        "scope",
        "device, farm, barn, station or key are not those of the credential or the allowlist",
    )
}

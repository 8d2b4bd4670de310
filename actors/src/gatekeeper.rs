//! Answers the door's questions: credentials from the database, scopes from the allowlist's snapshot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use broker::{CredentialId, Gatekeeper, Identity, Login, Scope, Shown};
use schema::id::{BarnId, FarmId, StationId};
use schema::store::StoreError;
use schema::store::device::Allowed;
use tokio::time::Instant;

use crate::allowlist::Allowlist;
use crate::credentials::{Asker, Credentials, NotVerified, Port};
use crate::database::DatabaseHealth;
use crate::operators::Operators;

/// The gatekeeper of the embedded broker.
pub struct DeviceGatekeeper {
    /// Checks passwords.
    pub credentials: Credentials,
    /// Knows operators.
    pub operators: Operators,
    /// Knows scopes.
    pub allowlist: Allowlist,
    /// Knows whether anything can be committed.
    pub database: DatabaseHealth,
    /// Whether clients without a credential are let in.
    pub is_anonymous_allowed: bool,
    /// Whether the last login could not be checked: the log hears of it once.
    pub is_failing: AtomicBool,
}

#[async_trait]
impl Gatekeeper for DeviceGatekeeper {
    async fn login(&self, shown: Shown<'_>) -> Login {
        match self.identify(shown).await {
            Ok(login) => {
                self.is_failing.store(false, Ordering::Relaxed);
                login
            }
            Err(NotVerified::Busy(error)) => {
                tracing::debug!(%error, "login not checked in time");
                Login::Unavailable
            }
            Err(NotVerified::Store(error)) => {
                let was_failing = self.is_failing.swap(true, Ordering::Relaxed);
                if was_failing || error.is_outage() {
                    tracing::debug!(%error, "login could not be checked");
                } else {
                    tracing::warn!(%error, "logins cannot be checked");
                }
                Login::Unavailable
            }
        }
    }

    fn scope(&self, identity: &Identity) -> Option<Scope> {
        let row = self.allowlist.known_device(identity.tenant_id.as_str(), identity.device_id.as_str())?;
        if row.is_enabled { scope(&row) } else { None }
    }

    fn generation(&self) -> u64 {
        self.allowlist.generation()
    }

    async fn still_accepts(&self, credentials: &[CredentialId]) -> Option<Vec<bool>> {
        let is_operator = |credential: &CredentialId| Operators::is_asked(&credential.username);
        let passwords: Vec<_> = credentials.iter().filter(|id| !is_operator(id)).cloned().collect();
        let mut passwords = self.still_accepts_passwords(&passwords).await.into_iter();
        let answer = |credential: &CredentialId| {
            if is_operator(credential) {
                self.operators.still_accept(credential)
            } else {
                passwords.next().expect("there is an answer for each")
            }
        };
        Some(credentials.iter().map(answer).collect())
    }

    fn stalled_for(&self) -> Duration {
        self.database.stalled_for()
    }
}

impl DeviceGatekeeper {
    /// Nobody is put out for want of an answer.
    async fn still_accepts_passwords(&self, passwords: &[CredentialId]) -> Vec<bool> {
        if passwords.is_empty() {
            return Vec::new();
        }
        self.credentials.still_accepts(passwords).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "passwords in use could not be checked");
            vec![true; passwords.len()]
        })
    }

    async fn identify(&self, shown: Shown<'_>) -> Result<Login, NotVerified> {
        if let Some(name) = shown.username.filter(|name| Operators::is_asked(name)) {
            return Ok(self.operator(name, shown));
        }
        let certified = match shown.certificate {
            Some(subject) => Some(self.allowlist.identity(subject).await?),
            None => None,
        };
        let named = match shown.username {
            Some(name) => {
                let asker = Asker { source: shown.source, port: Port::Mqtt, deadline: shown.deadline };
                Some(self.credentials.verify(name, shown.password.unwrap_or_default(), asker).await?)
            }
            None => None,
        };
        Ok(match (certified, named) {
            (None, None) if self.is_anonymous_allowed => Login::Anonymous,
            (Some(Some(identity)), None) => self.enabled(identity, None).await?,
            (None, Some(Some(named))) => self.enabled(named.identity, Some(named.credential)).await?,
            (Some(Some(identity)), Some(Some(named))) if identity == named.identity => {
                self.enabled(identity, Some(named.credential)).await?
            }
            (Some(_), _) | (None, Some(None) | None) => Login::Refused,
        })
    }

    /// Whoever shows a device's certificate is that device, and no operator.
    fn operator(&self, username: &str, shown: Shown<'_>) -> Login {
        let found = self.operators.find(username, shown.password.unwrap_or_default());
        match found.filter(|_| shown.certificate.is_none()) {
            Some((operator, credential)) => Login::Operator { operator, credential: Some(credential) },
            None => Login::Refused,
        }
    }

    /// A credential alone is not enough: the device's row must be there and enabled.
    async fn enabled(
        &self,
        identity: Identity,
        credential: Option<CredentialId>,
    ) -> Result<Login, StoreError> {
        let row = self
            .allowlist
            .device_row(identity.tenant_id.as_str(), identity.device_id.as_str(), Instant::now())
            .await?;
        let is_enabled = row.is_some_and(|row| row.is_enabled);
        Ok(if is_enabled { Login::Device { identity, credential } } else { Login::Refused })
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

#[cfg(test)]
mod tests {
    use broker::{Operator, Tenants};
    use schema::clock::Clock;
    use schema::store::{Store, StoreSettings};

    use super::*;

    #[tokio::test]
    async fn a_key_that_has_gone_is_not_accepted_any_more_whatever_the_database_says() {
        let store = Store::new(&StoreSettings {
            pool_max: 1,
            statement_timeout_seconds: 1,
            ..StoreSettings::new("host=/nonexistent user=nobody dbname=nothing", "test")
        });
        let store = store.expect("the address can be read");
        let operator = |name: &str| Operator { name: name.into(), tenants: Tenants::All };
        let operators = Operators::new([(operator("ops"), "one"), (operator("console"), "two")]);
        let (_, ops) = operators.find("operator:ops", b"one").expect("it is known");
        let (_, console) = operators.find("operator:console", b"two").expect("it is known");
        let device = CredentialId { username: "t-001/d-001".into(), mark: [7; 32] };
        let (clock, refresh) = (Clock::system(), Duration::from_secs(5));
        let gatekeeper = DeviceGatekeeper {
            credentials: Credentials::new(store.clone(), clock.clone(), broker::guesses::Guesses::default()),
            operators: operators.clone(),
            allowlist: Allowlist::new(store, clock, None, refresh),
            database: DatabaseHealth::default(),
            is_anonymous_allowed: false,
            is_failing: AtomicBool::new(false),
        };
        let shown = [ops.clone(), device.clone(), console.clone()];
        assert_eq!(gatekeeper.still_accepts(&shown).await, Some(vec![true, true, true]));
        operators.replace([(operator("console"), "two")]);
        assert_eq!(gatekeeper.still_accepts(&shown).await, Some(vec![false, true, true]));
        assert_eq!(gatekeeper.still_accepts(&[ops, console]).await, Some(vec![false, true]));
    }
}

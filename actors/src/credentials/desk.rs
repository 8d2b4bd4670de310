//! Where devices get their passwords: generated, shown once, replaced with an overlap, taken back.

use std::time::Duration;

use argon2::password_hash::SaltString;
use rand::Rng;
use schema::clock::{Clock, Timestamp};
use schema::id::{BarnId, DeviceId, FarmId, StationId, TenantId};
use schema::store::audit::Author;
use schema::store::credential::{self, Hashes, Known, NewDevice};
use schema::store::{Store, StoreError};
use tokio::sync::Semaphore;

use crate::credentials::{HASHING_MAX, hashing, mosquitto};

/// Seconds the password before may stay good at most: a year.
pub const OVERLAP_SECONDS_MAX: u64 = 366 * 86_400;
/// Random bytes of a password: 192 bits, 32 characters.
const PASSWORD_BYTES: usize = 24;
/// Bytes of a salt.
const SALT_BYTES: usize = 16;
/// Bytes of a user name.
const USERNAME_BYTES_MAX: usize = 256;
/// The digits of a password: none needs to be quoted in a URL, a shell or a file.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// New passwords are hashed as many at a time as shown ones.
static MINTING: Semaphore = Semaphore::const_new(HASHING_MAX);

/// Makes credentials. Cloning shares the database.
#[derive(Clone, Debug)]
pub struct DeviceDesk {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// How long the password before stays good, when nobody says.
    pub overlap: Duration,
}

/// A device to let in.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// Tenant.
    pub tenant_id: TenantId,
    /// The device.
    pub device_id: DeviceId,
    /// Its farm.
    pub farm_id: FarmId,
    /// Its barn.
    pub barn_id: BarnId,
    /// Its only station; `None` means any of its barn.
    pub station_id: Option<StationId>,
    /// Its user name; unless given, `tenant/device`, which no other device can have.
    pub username: Option<String>,
}

/// A password on its way to its device. Nobody can show it again.
#[derive(Clone)]
pub struct Issued {
    /// User name.
    pub username: String,
    /// The password.
    pub password: String,
    /// Until when the one before is good, too; `None` when there is none.
    pub old_is_good_until: Option<Timestamp>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The user name would not get through a header or a file.
    #[error(
        "the user name {0:?} must have 1 to 256 bytes and neither control characters nor a colon: choose another"
    )]
    Username(String),
    /// The user name is that of another device.
    #[error("the user name {0:?} belongs to another device: choose another")]
    UsernameTaken(String),
    /// The device has a password that is good.
    #[error("the device has a password already: rotate it, or revoke the device first")]
    HasPassword,
    /// There is no such device.
    #[error("there is no such device")]
    Unknown,
    /// The device has no password, or was revoked.
    #[error("the device has no password that is good: add it again to give it one")]
    NoPassword,
    /// The overlap of the last rotation is not over.
    #[error("the device has two passwords that are good{}: wait for it to end, or rotate without overlap, which ends both", until(.0))]
    UnderWay(Option<Timestamp>),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn until(end: &Option<Timestamp>) -> String {
    end.map(|end| format!(", the older one until {}", schema::wire::time::format(end))).unwrap_or_default()
}

impl DeviceDesk {
    /// Lets a device in and gives it a password. One that was revoked comes back.
    ///
    /// # Errors
    /// [`DeskError`] when it has a password, the user name will not do, or the database fails.
    pub async fn add(&self, newcomer: &Newcomer, author: &Author) -> Result<Issued, DeskError> {
        let (tenant_id, device_id) = (newcomer.tenant_id.as_str(), newcomer.device_id.as_str());
        let username = newcomer.username.clone().unwrap_or_else(|| format!("{tenant_id}/{device_id}"));
        if !is_username(&username) {
            return Err(DeskError::Username(username));
        }
        let minted = Minted::new().await;
        let new = NewDevice {
            tenant_id,
            device_id,
            farm_id: newcomer.farm_id.as_str(),
            barn_id: newcomer.barn_id.as_str(),
            station_id: newcomer.station_id.as_ref().map(StationId::as_str),
        };
        let now = self.clock.now();
        let write =
            async |conn: &mut _| credential::add(conn, new, &username, minted.hashes(), author, now).await;
        match self.store.run("add_device", write).await {
            Ok(true) => Ok(Issued { username, password: minted.password, old_is_good_until: None }),
            Ok(false) => Err(DeskError::HasPassword),
            Err(error) if error.is_replay() => Err(DeskError::UsernameTaken(username)),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a device another password. The one before stays good for a while, or ends at once with an overlap of zero.
    ///
    /// # Errors
    /// [`DeskError`] when it has none, has two already, or the database fails.
    pub async fn rotate(
        &self,
        tenant_id: &str,
        device_id: &str,
        overlap: Option<Duration>,
        author: &Author,
    ) -> Result<Issued, DeskError> {
        let now = self.clock.now();
        let overlap = overlap.unwrap_or(self.overlap);
        let ends_at =
            chrono::Duration::from_std(overlap).ok().and_then(|overlap| now.checked_add_signed(overlap));
        let overlap_ends_at = ends_at.filter(|_| !overlap.is_zero());
        let minted = Minted::new().await;
        let device = (tenant_id, device_id);
        let write = async |conn: &mut _| {
            credential::rotate(conn, device, minted.hashes(), overlap_ends_at, author, now).await
        };
        match self.store.run("rotate_credential", write).await? {
            Some(username) => {
                Ok(Issued { username, password: minted.password, old_is_good_until: overlap_ends_at })
            }
            None => Err(self.why_not_rotated(tenant_id, device_id).await?),
        }
    }

    async fn why_not_rotated(&self, tenant_id: &str, device_id: &str) -> Result<DeskError, StoreError> {
        let Some(known) = self.find(tenant_id, device_id).await? else { return Ok(DeskError::Unknown) };
        Ok(match known.credential {
            Some(credential) if credential.is_enabled => DeskError::UnderWay(credential.overlap_ends_at),
            Some(_) | None => DeskError::NoPassword,
        })
    }

    /// Puts a device out at once, whatever it comes with.
    ///
    /// # Errors
    /// [`DeskError`] when nobody knows it, or the database fails.
    pub async fn revoke(&self, tenant_id: &str, device_id: &str, author: &Author) -> Result<(), DeskError> {
        let now = self.clock.now();
        let write = async |conn: &mut _| credential::revoke(conn, tenant_id, device_id, author, now).await;
        if self.store.run("revoke_device", write).await? { Ok(()) } else { Err(DeskError::Unknown) }
    }

    /// A device as it is let in, or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, tenant_id: &str, device_id: &str) -> Result<Option<Known>, StoreError> {
        let since = self.refused_since();
        let read = async |conn: &mut _| credential::find(conn, tenant_id, device_id, since).await;
        self.store.run("known_device", read).await
    }

    /// Devices of these tenants (`None` means of all) behind this place in the order by tenant and device.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        tenants: Option<&[String]>,
        after: (&str, &str),
        limit: i64,
    ) -> Result<Vec<Known>, StoreError> {
        let since = self.refused_since();
        let read = async |conn: &mut _| credential::list(conn, tenants, after, limit, since).await;
        self.store.run("known_devices", read).await
    }

    /// Since when refusals are told of a device.
    fn refused_since(&self) -> Timestamp {
        self.clock.now() - chrono::Duration::days(1)
    }
}

/// Whether a user name gets through HTTP Basic and a line of Mosquitto's files.
fn is_username(text: &str) -> bool {
    (1..=USERNAME_BYTES_MAX).contains(&text.len())
        && text.trim() == text
        && !text.starts_with('#')
        && !text.chars().any(|c| c.is_control() || c == ':')
}

/// A new password and what is stored of it.
struct Minted {
    password: String,
    argon2: String,
    mosquitto: String,
}

impl Minted {
    async fn new() -> Self {
        let password = password();
        let (salt, mosquitto_salt) = (random::<SALT_BYTES>(), random::<{ mosquitto::SALT_BYTES }>());
        let plain = password.clone();
        let turn = MINTING.acquire().await.expect("nobody closes it");
        let work = tokio::task::spawn_blocking(move || {
            // The turn lasts as long as the work, whoever waits for it.
            let _turn = turn;
            let salt = SaltString::encode_b64(&salt).expect("a salt of sixteen bytes");
            let argon2 = hashing::hash(plain.as_bytes(), &salt);
            (argon2, mosquitto::hash(plain.as_bytes(), mosquitto_salt))
        });
        let (argon2, mosquitto) = work.await.expect("hashing does not panic");
        Self { password, argon2, mosquitto }
    }

    fn hashes(&self) -> Hashes<'_> {
        Hashes { argon2: &self.argon2, mosquitto: &self.mosquitto }
    }
}

/// A password of random digits. The first is a letter, so that no program takes it for an option.
fn password() -> String {
    let bytes = random::<{ PASSWORD_BYTES / 3 * 4 }>();
    let digit = |(place, byte): (usize, u8)| {
        let among = if place == 0 { 32 } else { DIGITS.len() };
        char::from(DIGITS[usize::from(byte) % among])
    };
    bytes.into_iter().enumerate().map(digit).collect()
}

fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    // It is seeded by the system and meant for secrets.
    rand::rng().fill(&mut bytes[..]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_need_no_quotes() {
        let (one, two) = (password(), password());
        assert_ne!(one, two);
        for password in [one, two] {
            assert_eq!(password.len(), 32);
            assert!(password.bytes().all(|byte| DIGITS.contains(&byte)), "{password}");
            assert!(password.starts_with(|c: char| c.is_ascii_alphabetic()), "{password}");
        }
    }

    #[test]
    fn a_user_name_gets_through_a_header_and_a_line() {
        for (text, is_good) in [
            ("t-001/d-001", true),
            ("ümlaut and space", true),
            ("", false),
            ("a:b", false),
            ("a\nb", false),
            (" a", false),
            ("#a", false),
            (&*"x".repeat(257), false),
        ] {
            assert_eq!(is_username(text), is_good, "{text:?}");
        }
    }

    #[tokio::test]
    async fn what_is_stored_of_a_password_fits_it() {
        use argon2::{Argon2, PasswordHash, PasswordVerifier};
        let minted = Minted::new().await;
        let hash = PasswordHash::new(&minted.argon2).expect("a hash");
        assert_eq!(hash.algorithm.as_str(), "argon2id");
        assert!(Argon2::default().verify_password(minted.password.as_bytes(), &hash).is_ok());
        assert!(minted.mosquitto.starts_with("$7$"), "{}", minted.mosquitto);
    }
}

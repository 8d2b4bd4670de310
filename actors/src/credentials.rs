//! Passwords of devices: argon2id hashes, checked off the runtime, with a memory for what was checked lately.

pub mod desk;
mod hashing;
pub mod mosquitto;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use broker::guesses::Guesses;
use broker::{CredentialId, Identity};
use hmac::{Hmac, Mac};
use rand::Rng;
use schema::clock::Clock;
use schema::id::{DeviceId, TenantId};
use schema::store::device::{self, Credential};
use schema::store::{Store, StoreError};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::credentials::hashing::{Hashing, Turn};

pub use crate::credentials::hashing::{Asker, Busy, HASHING_MAX, Port, hash};

/// How long a verified password that nobody shows is remembered; until then it need not be hashed again. The row is read
/// every time, so a revocation or a new password takes effect at once.
const VERIFIED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Verified passwords remembered at most.
const VERIFIED_MAX: usize = 20_000;
/// How long a password that was found to be stored still is believed to be, when nobody tells of a change.
const CURRENT_FOR: Duration = Duration::from_secs(5);

/// A password that was right.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The device it stands for.
    pub identity: Identity,
    /// Which of the stored passwords it was.
    pub credential: CredentialId,
}

/// Why nobody can tell whether a password is right.
#[derive(Debug, thiserror::Error)]
pub enum NotVerified {
    /// There was no turn at hashing in time.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The database cannot be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks passwords. Cloning shares the memory.
#[derive(Clone)]
pub struct Credentials {
    store: Store,
    clock: Clock,
    guesses: Guesses,
    hashing: Hashing,
    /// Makes what is remembered of a password useless to whoever reads this memory and nothing else of the process.
    secret: Arc<[u8; 32]>,
    verified: Arc<Mutex<HashMap<[u8; 32], Instant>>>,
    current: Arc<Mutex<Current>>,
}

/// Passwords that were found to be stored, of those that devices came with.
#[derive(Default)]
struct Current {
    /// Counts how often everything was forgotten.
    forgotten: u64,
    found_at: HashMap<CredentialId, Instant>,
}

impl Credentials {
    /// Nothing verified yet.
    #[must_use]
    pub fn new(store: Store, clock: Clock, guesses: Guesses) -> Self {
        let (hashing, verified, current) = (Hashing::default(), Arc::default(), Arc::default());
        let secret = Arc::new(rand::rng().random());
        Self { store, clock, guesses, hashing, secret, verified, current }
    }

    /// Whom a user name and password stand for, or `None`. Whoever answers notes in the memory of guesses what came of it,
    /// and tells a refusal as long after the question as that memory says: then nobody sees by the time whether there is
    /// such a user.
    ///
    /// # Errors
    /// When the database cannot be asked, or there is no turn at hashing in time.
    pub async fn verify(
        &self,
        username: &str,
        password: &[u8],
        asker: Asker,
    ) -> Result<Option<Verified>, NotVerified> {
        let credential =
            self.store.run("credential", async |conn| device::credential(conn, username).await).await?;
        let Some(credential) = credential else {
            // A stranger's invention waits in line like a known name, and costs no hash.
            drop(self.turn(username, asker).await?);
            return Ok(None);
        };
        let Some(identity) = identity(&credential) else { return Ok(None) };
        for hash in credential.hashes(self.clock.now()) {
            if self.matches(hash, username, password, asker).await? {
                let credential = CredentialId { username: username.into(), mark: mark(hash) };
                return Ok(Some(Verified { identity, credential }));
            }
        }
        Ok(None)
    }

    /// Which of these passwords are still stored for an enabled user, one answer each.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn still_accepts(&self, credentials: &[CredentialId]) -> Result<Vec<bool>, StoreError> {
        let mut usernames: Vec<&str> = credentials.iter().map(|credential| &*credential.username).collect();
        usernames.sort_unstable();
        usernames.dedup();
        let rows =
            self.store.run("credentials", async |conn| device::credentials(conn, &usernames).await).await?;
        let now = self.clock.now();
        let accepted: HashSet<(&str, [u8; 32])> = (rows.iter())
            .flat_map(|row| row.hashes(now).map(|hash| (row.username.as_str(), mark(hash))))
            .collect();
        Ok(credentials.iter().map(|known| accepted.contains(&(&*known.username, known.mark))).collect())
    }

    /// Whether a password that let somebody in is still stored for an enabled user. For a few seconds the answer is that of
    /// the last time, unless the database told of a change.
    ///
    /// # Errors
    /// When the database has to be asked and cannot be.
    pub async fn is_current(&self, credential: &CredentialId) -> Result<bool, StoreError> {
        let forgotten = {
            let current = self.current();
            if current.found_at.get(credential).is_some_and(|at| at.elapsed() < CURRENT_FOR) {
                return Ok(true);
            }
            current.forgotten
        };
        let is_accepted = self.still_accepts(std::slice::from_ref(credential)).await? == [true];
        let mut current = self.current();
        if current.found_at.len() >= VERIFIED_MAX {
            current.found_at.clear();
        }
        // What was read before a change is not remembered after it.
        if is_accepted && current.forgotten == forgotten {
            current.found_at.insert(credential.clone(), Instant::now());
        }
        Ok(is_accepted)
    }

    /// Something has changed: whatever was found is looked up again. A login reads the row in any case.
    pub fn forget_current(&self) {
        let mut current = self.current();
        current.forgotten += 1;
        current.found_at.clear();
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("nothing panics while it holds the lock")
    }

    async fn matches(
        &self,
        hash: &str,
        username: &str,
        password: &[u8],
        asker: Asker,
    ) -> Result<bool, NotVerified> {
        let key = fingerprint(&self.secret, hash, password);
        if self.is_remembered(&key) {
            return Ok(true);
        }
        let turn = self.turn(username, asker).await?;
        self.guesses.attempt(asker.source, username, Instant::now());
        let is_match = hashing::verify(turn, hash.to_owned(), password.to_vec()).await;
        if is_match {
            self.remember(key);
        }
        Ok(is_match)
    }

    async fn turn(&self, username: &str, asker: Asker) -> Result<Turn, Busy> {
        let is_suspect = self.guesses.is_suspect(asker.source, username);
        self.hashing.turn(asker, username, is_suspect).await
    }

    fn is_remembered(&self, key: &[u8; 32]) -> bool {
        let mut verified = self.verified.lock().expect("nothing panics while it holds the lock");
        let at = verified.get_mut(key).filter(|at| at.elapsed() < VERIFIED_FOR);
        at.map(|at| *at = Instant::now()).is_some()
    }

    fn remember(&self, key: [u8; 32]) {
        let mut verified = self.verified.lock().expect("nothing panics while it holds the lock");
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, at| at.elapsed() < VERIFIED_FOR);
        }
        if verified.len() < VERIFIED_MAX {
            verified.insert(key, Instant::now());
        }
    }
}

fn fingerprint(secret: &[u8; 32], hash: &str, password: &[u8]) -> [u8; 32] {
    let hmac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length is taken");
    hmac.chain_update(hash).chain_update([0]).chain_update(password).finalize().into_bytes().into()
}

fn mark(hash: &str) -> [u8; 32] {
    Sha256::digest(hash).into()
}

fn identity(credential: &Credential) -> Option<Identity> {
    let tenant_id = TenantId::new(&credential.tenant_id).ok()?;
    let device_id = DeviceId::new(&credential.device_id).ok()?;
    Some(Identity { tenant_id, device_id })
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn what_is_remembered_of_a_password_depends_on_a_secret_of_the_process() {
        let of = |secret, hash, password: &str| fingerprint(&[secret; 32], hash, password.as_bytes());
        assert_eq!(of(1, "hash", "password"), of(1, "hash", "password"));
        assert_ne!(of(1, "hash", "password"), of(2, "hash", "password"));
        assert_ne!(of(1, "hash", "password"), of(1, "another", "password"));
        assert_ne!(of(1, "hash", "password"), of(1, "hash", "passwords"));
    }
}

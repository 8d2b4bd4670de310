//! The lock that makes a pass the work of one engine at a time. The server releases it when the connection ends.

use crate::store::{Conn, Store, StoreError};

pub(super) const TAKE: &str = "-- retention_lock
SELECT pg_try_advisory_lock(hashtextextended('farmiq/retention', 0))";

pub(super) const RELEASE: &str = "-- retention_unlock
SELECT pg_advisory_unlock(hashtextextended('farmiq/retention', 0))";

/// The right to run a pass. Dropped, it ends with its connection, which the server may notice a little later.
pub struct PassLock(Conn);

impl PassLock {
    /// Takes the lock; `None` while another engine has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(store: &Store) -> Result<Option<Self>, StoreError> {
        // Wrapped before the lock is asked for, so that a pass that is cut right here leaves no lock in the pool.
        let lock = Self(store.keep().await?);
        let is_taken: bool = lock.0.query_one(TAKE, &[]).await?.get(0);
        Ok(is_taken.then_some(lock))
    }

    /// Releases the lock at once, so that whoever comes next finds it free.
    ///
    /// # Errors
    /// When the database fails. The lock ends with the connection then.
    pub async fn release(self) -> Result<(), StoreError> {
        self.0.query_one(RELEASE, &[]).await.map(drop)
    }
}

impl std::fmt::Debug for PassLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PassLock")
    }
}

impl Drop for PassLock {
    fn drop(&mut self) {
        // Returned to the pool, the connection would keep the lock.
        self.0.give_up();
    }
}

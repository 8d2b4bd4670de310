//! Which engine owns the alarms: the one that holds an advisory lock, until its connection ends. Two owners would ring each
//! alarm twice.

use crate::store::{Conn, Store, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[TAKE];

const TAKE: &str = "-- alarm_owner_lock
SELECT pg_try_advisory_lock(hashtextextended('farmiq/alarms', 0))";

/// The right to own the alarms. Dropped, it ends with its connection.
pub struct Ownership {
    conn: Conn,
}

impl Ownership {
    /// Takes it; `None` while another engine has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(store: &Store) -> Result<Option<Self>, StoreError> {
        // Wrapped before the lock is asked for, so that an attempt that is cut right here leaves no lock in the pool.
        let ownership = Self { conn: store.keep().await? };
        let is_taken: bool = ownership.conn.query_one(TAKE, &[]).await?.get(0);
        Ok(is_taken.then_some(ownership))
    }

    /// Whether the connection that holds it still lives, as far as this side can tell.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.conn.is_closed()
    }
}

impl std::fmt::Debug for Ownership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ownership").field("is_connected", &self.is_connected()).finish_non_exhaustive()
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        // Returned to the pool, the connection would keep the lock.
        self.conn.give_up();
    }
}

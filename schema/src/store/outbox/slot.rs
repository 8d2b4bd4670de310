//! The name under which an engine holds leases: its own while it is the only one of that name, a numbered one otherwise.
//!
//! Leases outlive a crash, and the next life of the same engine takes its own back at once. Two living engines with the
//! same name, such as two replicas on one host, would take each other's. So a name belongs to whoever holds its advisory
//! lock, which the server releases when that process's connection ends.

use std::sync::Arc;

use crate::store::{Conn, Store, StoreError};

/// Engines of one name at most.
const SLOTS_MAX: i64 = 64;

pub(super) const TAKE_SLOT: &str = "-- take_slot
SELECT pg_try_advisory_lock(hashtextextended('farmiq/' || $1, $2))";

/// A name, and the connection whose lock makes it ours.
pub struct Slot {
    name: Arc<str>,
    conn: Conn,
}

impl Slot {
    /// Takes the first free name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(store: &Store, edge_id: &str) -> Result<Self, StoreError> {
        let conn = store.keep().await?;
        for number in 0..SLOTS_MAX {
            if conn.query_one(TAKE_SLOT, &[&edge_id, &number]).await?.get(0) {
                let name = if number == 0 { edge_id.to_owned() } else { format!("{edge_id}#{number}") };
                return Ok(Self { name: name.into(), conn });
            }
        }
        // Nobody will recognize this name in a next life; its leases run out.
        let name = format!("{edge_id}#{}", crate::id::new_id());
        Ok(Self { name: name.into(), conn })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Whether the lock is still held, as far as this side can tell.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.conn.is_closed()
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Returned to the pool, the connection would keep the lock.
        self.conn.give_up();
    }
}

//! Which engine keeps the lasting sessions: the one that holds an advisory lock, until its connection ends.
//!
//! Two engines would number the messages of one queue each by itself, and end each other's sessions. So whatever is written
//! to sessions is written on the connection that holds the lock: an engine that has lost the lock cannot write. After its
//! connection broke, an engine takes the lock again and goes on, provided that no other engine had it meanwhile: each new
//! keeper raises the epoch.

use crate::store::{Conn, Store, StoreError};

pub(super) const TAKE: &str = "-- mqtt_keeper_lock
SELECT pg_try_advisory_lock(hashtextextended('farmiq/mqtt-sessions', 0))";

pub(super) const RAISE: &str = "-- mqtt_keeper_raise
INSERT INTO mqtt_keeper (id, epoch) VALUES (1, 1)
ON CONFLICT (id) DO UPDATE SET epoch = mqtt_keeper.epoch + 1 RETURNING epoch";

pub(super) const EPOCH: &str = "-- mqtt_keeper_epoch
SELECT epoch FROM mqtt_keeper WHERE id = 1";

/// The right to keep lasting sessions. Dropped, it ends with its connection.
pub struct Keeper {
    conn: Conn,
    epoch: i64,
}

/// What became of an attempt to have the lock once more.
#[derive(Debug)]
pub enum Retaken {
    /// Nobody had the sessions meanwhile.
    Kept(Box<Keeper>),
    /// The server has not noticed yet that the old connection is gone.
    NotYet,
    /// Another engine has or had them.
    Replaced,
}

impl Keeper {
    /// Takes the lock; `None` while another engine has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(store: &Store) -> Result<Option<Self>, StoreError> {
        let Some(mut keeper) = Self::lock(store, 0).await? else { return Ok(None) };
        keeper.epoch = keeper.conn.query_one(RAISE, &[]).await?.get(0);
        Ok(Some(keeper))
    }

    /// Takes the lock again for the engine that had it in this epoch.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_again(store: &Store, epoch: i64) -> Result<Retaken, StoreError> {
        let keeper = Self::lock(store, epoch).await?;
        let current = match &keeper {
            Some(keeper) => epoch_of(&keeper.conn).await?,
            None => store.run("mqtt_keeper_epoch", async |conn| epoch_of(conn).await).await?,
        };
        Ok(match keeper {
            _ if current != epoch => Retaken::Replaced,
            Some(keeper) => Retaken::Kept(Box::new(keeper)),
            None => Retaken::NotYet,
        })
    }

    /// The epoch in which the lock is held.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether the connection that holds the lock still lives, as far as this side can tell.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.conn.is_closed()
    }

    /// Runs named work on the connection that holds the lock, which is given up when it is broken or does not answer.
    ///
    /// # Errors
    /// Those of the work, and [`StoreError::Unanswered`].
    pub async fn run<T>(
        &mut self,
        store: &Store,
        name: &'static str,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.conn.is_closed() {
            return Err(StoreError::Unanswered { name });
        }
        store.run_on(&mut self.conn, name, work).await
    }

    async fn lock(store: &Store, epoch: i64) -> Result<Option<Self>, StoreError> {
        // Wrapped before the lock is asked for, so that an attempt that is cut right here leaves no lock in the pool.
        let keeper = Self { conn: store.keep().await?, epoch };
        let is_taken: bool = keeper.conn.query_one(TAKE, &[]).await?.get(0);
        Ok(is_taken.then_some(keeper))
    }
}

async fn epoch_of(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_opt(EPOCH, &[]).await?.map_or(0, |row| row.get(0)))
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Returned to the pool, the connection would keep the lock.
        self.conn.give_up();
    }
}

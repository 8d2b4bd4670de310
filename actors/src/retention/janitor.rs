//! What every part of a pass works with, and how it may fail.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::Days;
use schema::clock::Timestamp;
use schema::clock::watch::ClockWatch;
use schema::store::{Store, StoreError};
use tokio::time::Instant;

use super::RetentionSettings;
use super::held::HeldTables;
use super::trouble::Troubles;
use crate::media::store::{MediaStore, MediaStoreError};

/// Files of one page of a listing.
pub(super) const LISTED_PER_PAGE: usize = 1000;
/// The longest rest between two chunks.
const REST_MAX: Duration = Duration::from_secs(1);

/// Why a part of a pass failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The place of the images.
    #[error(transparent)]
    Media(#[from] MediaStoreError),
    /// Others were at work on it.
    #[error("a table is in use, it goes with a later pass")]
    Busy,
    /// Some files stay for now.
    #[error("{0} files could not be deleted, the next pass tries again")]
    FilesLeft(u64),
    /// Another engine has the lock.
    #[error("another engine runs a pass")]
    Elsewhere,
}

/// Whoever runs a pass.
pub(super) struct Janitor {
    pub(super) settings: RetentionSettings,
    pub(super) store: Store,
    pub(super) watch: ClockWatch,
    pub(super) media: Arc<dyn MediaStore>,
    /// What keeps passes from deleting.
    pub(super) troubles: Troubles,
    /// Tables that are over and kept.
    pub(super) held: HeldTables,
    /// Where the last look for files without a row ended.
    pub(super) listed_to: tokio::sync::Mutex<Option<String>>,
}

impl Janitor {
    pub(super) fn new(
        settings: RetentionSettings,
        store: Store,
        watch: ClockWatch,
        media: Arc<dyn MediaStore>,
    ) -> Self {
        Self {
            settings,
            store,
            watch,
            media,
            troubles: Troubles::default(),
            held: HeldTables::default(),
            listed_to: tokio::sync::Mutex::default(),
        }
    }
}

/// A time, so many days earlier.
pub(super) fn days_before(now: Timestamp, days: u64) -> Timestamp {
    now.checked_sub_days(Days::new(days)).unwrap_or(Timestamp::MIN_UTC)
}

/// Does a piece of work and then rests as long as it took, so that others have at least half of the database.
pub(super) async fn rested<T>(work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let outcome = work.await;
    tokio::time::sleep(started.elapsed().min(REST_MAX)).await;
    outcome
}

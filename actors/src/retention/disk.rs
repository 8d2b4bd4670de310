//! The watch over the volumes: how full they are, as metrics, and a word to retention when the images need room.

use std::path::PathBuf;
use std::time::Duration;

use schema::metrics;
use schema::store::{Store, StoreError};

use super::RetentionHub;
use crate::chore::Chore;
use crate::disk;

/// Looks at the volumes.
#[derive(Clone)]
pub struct DiskWatch {
    /// Whom to tell when room is needed.
    pub hub: RetentionHub,
    /// The database, which may know where it lies.
    pub store: Store,
    /// Where it lies, when its server is ours.
    pub own_database: Option<PathBuf>,
    /// The volume of the box.
    pub root: PathBuf,
    /// Seconds between two looks.
    pub check_seconds: u64,
    /// Whether room was needed at the last look.
    pub was_full: bool,
    /// The same of the volume of the database.
    pub was_database_full: bool,
}

impl Chore for DiskWatch {
    const NAME: &'static str = "disk";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let media = self.hub.0.janitor.settings.media_root.clone();
        show("root", Some(self.root.clone()));
        show("media", media);
        self.look_for_room();
        let directory = disk::database_place(self.own_database.as_deref(), &self.store).await?;
        show("db", directory.clone());
        self.look_for_database_room(directory);
        Ok(Duration::from_secs(self.check_seconds))
    }
}

impl DiskWatch {
    fn look_for_database_room(&mut self, directory: Option<PathBuf>) {
        let hub = &self.hub.0;
        let full = directory.filter(|place| hub.janitor.lacks_database_room(place));
        let is_full = full.is_some();
        if is_full && !self.was_database_full {
            tracing::warn!(
                "the volume of the database has too little room: events that the cloud has go before their time, then \
                 aggregates of one minute"
            );
        } else if self.was_database_full && !is_full {
            tracing::info!("the volume of the database has room again");
        }
        self.was_database_full = is_full;
        if let Some(place) = full {
            hub.database_place.store(Some(std::sync::Arc::new(place)));
            hub.database_room.wake();
        }
    }

    fn look_for_room(&mut self) {
        let is_full = self.hub.0.janitor.is_room_needed();
        if is_full && !self.was_full {
            tracing::warn!("the media volume has too little room, uploads are refused until there is more");
        } else if self.was_full && !is_full {
            tracing::info!("the media volume has room again");
        }
        self.was_full = is_full;
        let settings = &self.hub.0.janitor.settings;
        // What a dry run would delete is said by its passes.
        if is_full && settings.is_emergency_delete && !settings.is_dry_run {
            self.hub.0.room.wake();
        }
    }
}

fn show(volume: &'static str, place: Option<PathBuf>) {
    let Some(space) = place.and_then(|place| disk::space(&place).ok()) else { return };
    metrics::disk_used_ratio(volume).set(space.used_ratio());
    metrics::disk_free_bytes(volume).set(space.free_bytes as f64);
}

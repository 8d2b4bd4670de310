//! The parts of a pass that deal with images by their rows: old ones, and room in an emergency.

use schema::clock::Timestamp;
use schema::metrics;
use schema::store::retention::images::{self, Choice, Image, Place};
use schema::store::retention::lock::PassLock;

use super::janitor::{Janitor, PassError, days_before, rested};
use super::mark::Standing;
use super::report::Report;
use crate::disk;
use crate::media::store::ObjectRef;

impl Janitor {
    pub(super) async fn images(&self, standing: Standing, now: Timestamp, report: &mut Report) {
        // In a wrong place each file would seem to be gone, and its row would go.
        if !standing.knows_files() {
            return;
        }
        let before = days_before(now, self.settings.media_days);
        let outcome = self.delete_images(Choice::Old { before }, Place::start(), report, |_| true).await;
        report.note("media_objects", outcome);
        // What is older has had its turn.
        self.make_room(standing, Place::at(before), now, report).await;
    }

    /// Makes room outside of a pass, because the disk has become too full. An engine that runs a pass does it itself.
    pub(super) async fn make_room_now(&self) {
        let now = self.watch.now();
        let mut report = Report::new(now, false);
        match PassLock::take(&self.store).await {
            Ok(Some(lock)) => {
                match self.look_at_store(false).await {
                    Ok(standing) => self.make_room(standing, Place::start(), now, &mut report).await,
                    Err(error) => report.note("store", Err(error)),
                }
                report.note("lock", lock.release().await);
            }
            Ok(None) => {}
            Err(error) => report.note("lock", Err(error)),
        }
    }

    /// Deletes the oldest images of finalized sessions behind `after` until there is room again, where that is wanted. A dry
    /// run takes the room for made that it has counted. Images that another database may know are not taken early.
    async fn make_room(&self, standing: Standing, after: Place, now: Timestamp, report: &mut Report) {
        let is_wanted = |report: &Report| {
            let pretended_bytes = if report.is_dry_run { report.freed_bytes } else { 0 };
            self.lacks_room(pretended_bytes)
        };
        if standing != Standing::Own || !self.settings.is_emergency_delete || !is_wanted(report) {
            return;
        }
        let files_before = report.deleted_files;
        let early = Choice::Early { now };
        let outcome = self.delete_images(early, after, report, is_wanted).await;
        report.note("emergency", outcome);
        let files = report.deleted_files - files_before;
        if files == 0 {
            return;
        }
        if !report.is_dry_run {
            metrics::retention_emergency_files().increment(files);
        }
        tracing::warn!(
            deleted_files = files,
            dry_run = report.is_dry_run,
            is_room_still_needed = self.is_room_needed(),
            "the media volume is full, images of finalized sessions go before their time"
        );
    }

    /// Whether the volume of the images has too little room. One that cannot be asked has enough.
    pub(super) fn is_room_needed(&self) -> bool {
        self.lacks_room(0)
    }

    /// The same if so many bytes more were free.
    fn lacks_room(&self, pretended_bytes: u64) -> bool {
        let root = self.settings.media_root.as_deref();
        root.and_then(|root| disk::space(root).ok()).is_some_and(|space| {
            space.free_bytes.saturating_add(pretended_bytes) < self.settings.free_bytes_min
        })
    }

    /// Deletes images behind `after` from the oldest on, chunk by chunk, for as long as it is wanted.
    async fn delete_images(
        &self,
        choice: Choice,
        after: Place,
        report: &mut Report,
        is_wanted: impl Fn(&Report) -> bool,
    ) -> Result<(), PassError> {
        let (mut next, mut files_left) = (Some(after), 0);
        while let Some(after) = next.take_if(|_| is_wanted(report)) {
            let due = async |conn: &mut _| images::due(conn, choice, &after).await;
            let chunk = self.store.run("due_images", due).await?;
            files_left += rested(self.delete_chunk(&chunk.images, report)).await?;
            next = chunk.next;
        }
        if files_left > 0 { Err(PassError::FilesLeft(files_left)) } else { Ok(()) }
    }

    /// Deletes the files of these images, then the rows of those whose files are gone. Says how many files are left.
    async fn delete_chunk(&self, images: &[Image], report: &mut Report) -> Result<u64, PassError> {
        if report.is_dry_run {
            images.iter().for_each(|image| report.file(image.size_bytes));
            report.rows("media_objects", images.len() as u64);
            return Ok(0);
        }
        let (mut gone, mut store) = (Vec::new(), Ok(()));
        for image in images {
            let object = ObjectRef { object_key: image.object_key.clone(), path: image.path.clone() };
            if self.delete_file(&object, report).await {
                gone.push(image);
                continue;
            }
            // Is it this file, or the store as a whole? Then each of the others would be waited for in vain.
            store = self.media.probe().await;
            if store.is_err() {
                break;
            }
        }
        let delete = async |conn: &mut _| images::delete(conn, &gone).await;
        report.rows("media_objects", self.store.run("delete_images", delete).await?);
        store?;
        Ok((images.len() - gone.len()) as u64)
    }

    /// Deletes a file and says whether it is gone; one that was not there is gone as well.
    pub(super) async fn delete_file(&self, object: &ObjectRef, report: &mut Report) -> bool {
        match self.media.delete(object).await {
            Ok(freed) => {
                let copies = self.settings.thumbnails.forget(&object.object_key).await;
                freed.into_iter().chain(copies).for_each(|bytes| report.file(bytes));
                true
            }
            Err(error) => {
                let cause = schema::store::cause(&error);
                tracing::warn!(object_key = object.object_key, %error, cause, "a file could not be deleted");
                false
            }
        }
    }
}

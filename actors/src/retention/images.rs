//! The parts of a pass that deal with files: old images, files that nobody knows, and room in an emergency.

use std::collections::HashSet;

use chrono::Duration;
use schema::clock::Timestamp;
use schema::metrics;
use schema::store::retention::images::{self, Choice, Image, Place};
use schema::store::retention::lock::PassLock;

use super::pass::{Janitor, PassError, rested};
use super::report::Report;
use crate::disk;
use crate::media::store::{ListedObject, ObjectRef};

/// Age of a file without a row from which on nobody will come back for it.
const STRANGER_AGE: Duration = Duration::days(7);
/// Age of a file that is still being written from which on nobody writes it.
const DRAFT_AGE: Duration = Duration::days(1);
/// How the name of a file ends that is still being written.
const DRAFT_SUFFIX: &str = ".part";
/// Files of one page of a listing.
const LISTED_PER_PAGE: usize = 1000;
/// Pages that one pass looks at; the next one goes on behind them.
const PAGES_PER_PASS: usize = 100;

impl Janitor {
    pub(super) async fn images(&self, report: &mut Report) {
        let before = self.days_ago(self.settings.media_days);
        let outcome = self.delete_images(Choice::Old { before }, Place::start(), report, |_| true).await;
        report.note("media_objects", outcome);
        let outcome = self.delete_strangers(report).await;
        report.note("orphans", outcome);
        // What is older has had its turn.
        self.make_room(Place::at(before), report).await;
    }

    /// Makes room outside of a pass, because the disk has become too full. An engine that runs a pass does it itself.
    pub(super) async fn make_room_now(&self) {
        let mut report = Report::new(self.clock.now(), false);
        match PassLock::take(&self.store).await {
            Ok(Some(lock)) => {
                self.make_room(Place::start(), &mut report).await;
                report.note("lock", lock.release().await);
            }
            Ok(None) => {}
            Err(error) => report.note("lock", Err(error)),
        }
    }

    /// Deletes the oldest images of finalized sessions behind `after` until there is room again, where that is wanted. A dry
    /// run takes the room for made that it has counted.
    async fn make_room(&self, after: Place, report: &mut Report) {
        let is_wanted = |report: &Report| {
            let pretended_bytes = if report.is_dry_run { report.freed_bytes } else { 0 };
            self.lacks_room(pretended_bytes)
        };
        if !self.settings.is_emergency_delete || !is_wanted(report) {
            return;
        }
        let files_before = report.deleted_files;
        let early = Choice::Early { now: self.clock.now() };
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
    async fn delete_file(&self, object: &ObjectRef, report: &mut Report) -> bool {
        match self.media.delete(object).await {
            Ok(freed) => {
                freed.into_iter().for_each(|bytes| report.file(bytes));
                true
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(object_key = object.object_key, %error, cause, "a file could not be deleted");
                false
            }
        }
    }

    /// Deletes files that no row knows: uploads that were never completed, and drafts that a crash left behind.
    async fn delete_strangers(&self, report: &mut Report) -> Result<(), PassError> {
        let mut listed_to = self.listed_to.lock().await;
        let (mut after, mut files_left) = (listed_to.clone(), 0);
        for _ in 0..PAGES_PER_PASS {
            let page = self.media.list(after.as_deref(), LISTED_PER_PAGE).await?;
            files_left += rested(self.delete_strangers_of(&page, report)).await?;
            let is_last = page.len() < LISTED_PER_PAGE;
            after = page.into_iter().next_back().map(|object| object.place).filter(|_| !is_last);
            if is_last {
                break;
            }
        }
        if !report.is_dry_run {
            *listed_to = after;
        }
        if files_left > 0 { Err(PassError::FilesLeft(files_left)) } else { Ok(()) }
    }

    async fn delete_strangers_of(
        &self,
        page: &[ListedObject],
        report: &mut Report,
    ) -> Result<u64, PassError> {
        let (now, is_directory) = (self.clock.now(), self.settings.media_root.is_some());
        let aged: Vec<_> = page.iter().filter(|object| is_abandoned(object, is_directory, now)).collect();
        let places: Vec<&str> = aged.iter().map(|object| object.place.as_str()).collect();
        let ask =
            async |conn: &mut _| images::strangers(conn, &places, &self.settings.bucket, is_directory).await;
        let strangers: HashSet<String> = self.store.run("strangers", ask).await?.into_iter().collect();
        let mut files_left = 0;
        for object in aged.iter().filter(|object| strangers.contains(&object.place)) {
            if report.is_dry_run {
                report.file(object.size_bytes);
            } else if !self.delete_file(&object.object(), report).await {
                files_left += 1;
            }
        }
        Ok(files_left)
    }
}

/// Whether a file has a name that an image of ours could have, and an age at which nobody comes back for it: what lies
/// elsewhere in the directory or the bucket is somebody else's.
fn is_abandoned(object: &ListedObject, is_directory: bool, now: Timestamp) -> bool {
    let depth = object.place.split('/').count();
    let is_ours = if is_directory { matches!(depth, 5 | 6) } else { object.place.starts_with("tenants/") };
    let is_draft = is_directory && object.place.ends_with(DRAFT_SUFFIX);
    let age = if is_draft { DRAFT_AGE } else { STRANGER_AGE };
    is_ours && object.modified_at < now - age
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn only_old_files_in_places_of_ours_are_abandoned() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let check = |place: &str, is_directory: bool, hours: i64, expected: bool| {
            let object = ListedObject {
                place: place.to_owned(),
                size_bytes: 1,
                modified_at: now - Duration::hours(hours),
            };
            assert_eq!(is_abandoned(&object, is_directory, now), expected, "{place} after {hours} h");
        };
        check("t/f/b/s/20260212T093215.052Z_m.jpg", true, 169, true);
        check("t/f/b/s/20260212T093215.052Z_m.jpg", true, 167, false);
        check("t/f/b/monitoring/d/20260212T093215.052Z_m.jpg", true, 169, true);
        check("t/f/b/s/.x.part", true, 25, true);
        check("t/f/b/s/.x.part", true, 23, false);
        check("lost+found/x", true, 10_000, false);
        check("backup.tar", true, 10_000, false);
        check("tenants/t/farms/f/barns/b/devices/d/images/2026/02/12/x.jpg", false, 169, true);
        check("tenants/t/farms/f/barns/b/devices/d/images/2026/02/12/x.part", false, 25, false);
        check("backup/t/f/b/x", false, 10_000, false);
    }
}

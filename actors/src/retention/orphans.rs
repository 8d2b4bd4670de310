//! Files that no row knows, and those of uploads that were never completed. Only what the engine itself could have named is
//! looked at, only in a store that is marked as ours, and a pass that would take much of it asks a person first.

use std::collections::HashSet;

use chrono::Duration;
use schema::clock::Timestamp;
use schema::metrics;
use schema::store::retention::images;

use super::PassOrder;
use super::janitor::{Janitor, LISTED_PER_PAGE, PassError, rested};
use super::mark::Standing;
use super::report::Report;
use super::trouble::Trouble;
use crate::media::name;
use crate::media::store::{ListedObject, ObjectRef};

/// Age of a file without a row from which on nobody will come back for it.
const ORPHAN_AGE: Duration = Duration::days(7);
/// Age of a file that is still being written from which on nobody writes it.
const DRAFT_AGE: Duration = Duration::days(1);
/// Pages that one pass looks at; the next one goes on behind them.
const PAGES_PER_PASS: usize = 100;
/// Of so many files that a pass looked at, one may go without an order.
const LOOKED_AT_PER_ORPHAN_MIN: usize = 10;

impl Janitor {
    /// Deletes files that no row knows: what a crash left behind.
    pub(super) async fn orphans(
        &self,
        standing: Standing,
        now: Timestamp,
        order: PassOrder,
        report: &mut Report,
    ) -> Result<(), PassError> {
        if let Some(trouble) = standing.trouble() {
            report.refuse("orphans", &trouble);
            return Ok(());
        }
        let mut listed_to = self.listed_to.lock().await;
        let walk = self.walk(listed_to.clone(), now).await?;
        let trouble = walk.trouble(order.confirms_orphans);
        let kept = if trouble.is_some() { walk.orphans.len() } else { 0 };
        metrics::retention_orphans_kept().set(f64::from(u32::try_from(kept).unwrap_or(u32::MAX)));
        self.troubles.note("orphans", trouble.clone());
        if let Some(trouble) = trouble {
            report.refuse("orphans", &trouble);
            return Ok(());
        }
        let mut files_left = 0;
        for page in walk.orphans.chunks(LISTED_PER_PAGE) {
            files_left += rested(self.delete_orphans(page, report)).await?;
        }
        if !report.is_dry_run {
            *listed_to = walk.after;
        }
        if files_left > 0 { Err(PassError::FilesLeft(files_left)) } else { Ok(()) }
    }

    /// Looks at the next pages and deletes nothing.
    async fn walk(&self, after: Option<String>, now: Timestamp) -> Result<Walk, PassError> {
        let ours = self.ours().await?;
        let mut walk = Walk { after, looked_at: 0, orphans: Vec::new() };
        for _ in 0..PAGES_PER_PASS {
            let page = self.media.list(walk.after.as_deref(), LISTED_PER_PAGE).await?;
            walk.looked_at += page.iter().filter(|object| ours.is_named(&object.place)).count();
            let aged = page.iter().filter(|object| ours.is_abandoned(object, now));
            let unknown = rested(self.unknown(aged.clone())).await?;
            walk.orphans.extend(aged.filter(|object| unknown.contains(&object.place)).cloned());
            let is_last = page.len() < LISTED_PER_PAGE;
            walk.after = page.into_iter().next_back().map(|object| object.place).filter(|_| !is_last);
            if is_last {
                break;
            }
        }
        Ok(walk)
    }

    /// Deletes those of these files that still have no row, and says how many are left.
    async fn delete_orphans(&self, page: &[ListedObject], report: &mut Report) -> Result<u64, PassError> {
        let unknown = self.unknown(page.iter()).await?;
        let mut files_left = 0;
        for object in page.iter().filter(|object| unknown.contains(&object.place)) {
            if report.is_dry_run {
                report.file(object.size_bytes);
            } else if !self.delete_file(&object.object(), report).await {
                files_left += 1;
            }
        }
        Ok(files_left)
    }

    /// Deletes what came for uploads that expired before this time, then their rows.
    pub(super) async fn expired_uploads(
        &self,
        standing: Standing,
        before: Timestamp,
        report: &mut Report,
    ) -> Result<(), PassError> {
        if !standing.knows_files() {
            return Ok(());
        }
        if report.is_dry_run {
            let count = async |conn: &mut _| images::count_expired(conn, before).await;
            report.rows("media_uploads", self.store.run("count_expired_uploads", count).await?);
            return Ok(());
        }
        let (mut next, mut files_left) = (Some(images::Place::start()), 0);
        while let Some(after) = next {
            let expired = async |conn: &mut _| images::expired(conn, before, &after).await;
            let chunk = self.store.run("expired_uploads", expired).await?;
            files_left += rested(self.delete_expired(&chunk.images, report)).await?;
            next = chunk.next;
        }
        if files_left > 0 { Err(PassError::FilesLeft(files_left)) } else { Ok(()) }
    }

    async fn delete_expired(&self, uploads: &[images::Image], report: &mut Report) -> Result<u64, PassError> {
        let is_directory = self.settings.media_root.is_some();
        let (mut gone, mut store) = (Vec::new(), Ok(()));
        for upload in uploads {
            let object = ObjectRef { object_key: upload.object_key.clone(), path: upload.path.clone() };
            // A name that is not ours has no file of ours.
            let is_ours = match &object.path {
                Some(path) if is_directory => name::is_path(path),
                None if is_directory => false,
                _ => name::is_key(&object.object_key),
            };
            if !is_ours || self.delete_file(&object, report).await {
                gone.push(upload);
                continue;
            }
            store = self.media.probe().await;
            if store.is_err() {
                break;
            }
        }
        let delete = async |conn: &mut _| images::delete_expired(conn, &gone).await;
        report.rows("media_uploads", self.store.run("delete_expired_uploads", delete).await?);
        store?;
        Ok((uploads.len() - gone.len()) as u64)
    }

    /// Which of these files have no row.
    pub(super) async fn unknown(
        &self,
        files: impl Iterator<Item = &ListedObject>,
    ) -> Result<HashSet<String>, PassError> {
        let places: Vec<&str> = files.map(|object| object.place.as_str()).collect();
        let ask = async |conn: &mut _| images::unknown(conn, &places, &self.settings.bucket).await;
        Ok(self.store.run("unknown_files", ask).await?.into_iter().collect())
    }

    /// What the names of our own files are like.
    pub(super) async fn ours(&self) -> Result<Ours, PassError> {
        if self.settings.media_root.is_some() {
            return Ok(Ours::Directory);
        }
        let places = self.store.run("known_places", async |conn| images::places(conn).await).await?;
        let prefix = |place: &images::Barn| {
            name::key_prefix_of(&place.tenant_id, place.farm_id.as_deref(), place.barn_id.as_deref())
        };
        Ok(Ours::Bucket(places.iter().map(prefix).collect()))
    }
}

/// What a pass looked at.
struct Walk {
    /// Where the next pass goes on.
    after: Option<String>,
    /// Files that are named like ours.
    looked_at: usize,
    /// Of these, the old ones without a row.
    orphans: Vec<ListedObject>,
}

impl Walk {
    /// Why it must not be deleted what was found.
    fn trouble(&self, is_confirmed: bool) -> Option<Trouble> {
        let (orphans, looked_at) = (self.orphans.len(), self.looked_at);
        let is_much = orphans * LOOKED_AT_PER_ORPHAN_MIN > looked_at;
        (is_much && !is_confirmed).then(|| Trouble {
            reason: "more than a tenth of the files are unknown to the database",
            detail: format!(
                "{orphans} of {looked_at} are kept; if nobody needs them, order janitor/run?confirm_orphans=true"
            ),
        })
    }
}

/// What the names of our own files are like.
pub(super) enum Ours {
    /// In a directory, which is ours as a whole.
    Directory,
    /// In a bucket, where others may keep theirs: they begin like this.
    Bucket(Vec<String>),
}

impl Ours {
    /// Whether the engine could have given a file this name.
    fn is_named(&self, place: &str) -> bool {
        self.is_image(place) || self.is_draft(place)
    }

    /// Whether it could have given it to an image.
    pub(super) fn is_image(&self, place: &str) -> bool {
        match self {
            Self::Directory => name::is_path(place),
            Self::Bucket(prefixes) => {
                name::is_key(place) && prefixes.iter().any(|prefix| place.starts_with(prefix))
            }
        }
    }

    /// Whether it could have given it to a file that is still being written.
    fn is_draft(&self, place: &str) -> bool {
        matches!(self, Self::Directory) && name::is_draft_path(place)
    }

    /// Whether a file has such a name, and an age at which nobody comes back for it.
    fn is_abandoned(&self, object: &ListedObject, now: Timestamp) -> bool {
        let age = if self.is_draft(&object.place) { DRAFT_AGE } else { ORPHAN_AGE };
        self.is_named(&object.place) && object.modified_at < now - age
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use schema::id::Uuid;

    use super::*;

    #[test]
    fn only_old_files_with_names_of_ours_are_abandoned() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let id = Uuid::from_u128(7);
        let bucket = Ours::Bucket(vec![name::key_prefix_of("t", Some("f"), Some("b"))]);
        let check = |ours: &Ours, place: &str, hours: i64, expected: bool| {
            let object = ListedObject {
                place: place.to_owned(),
                size_bytes: 1,
                modified_at: now - Duration::hours(hours),
            };
            assert_eq!(ours.is_abandoned(&object, now), expected, "{place} after {hours} h");
        };
        let image = format!("20260212T093215.052Z_{id}.jpg");
        check(&Ours::Directory, &format!("t/f/b/s/{image}"), 169, true);
        check(&Ours::Directory, &format!("t/f/b/s/{image}"), 167, false);
        check(&Ours::Directory, &format!("t/f/b/monitoring/d/{image}"), 169, true);
        check(&Ours::Directory, &format!("t/f/b/s/.{id}.part"), 25, true);
        check(&Ours::Directory, &format!("t/f/b/s/.{id}.part"), 23, false);
        check(&Ours::Directory, "t/f/b/s/IMG_0001.jpg", 10_000, false);
        check(&Ours::Directory, &format!("home/photos/{image}"), 10_000, false);
        check(&Ours::Directory, &image, 10_000, false);
        let key = format!("tenants/t/farms/f/barns/b/devices/d/images/2026/02/12/{id}.jpg");
        check(&bucket, &key, 169, true);
        check(&bucket, &key, 167, false);
        check(&bucket, &key.replace("barns/b/", "barns/b1/"), 10_000, false);
        check(&bucket, &format!("t/f/b/s/{image}"), 10_000, false);
    }

    #[test]
    fn more_than_a_tenth_is_never_taken_without_an_order() {
        let check = |orphans: usize, looked_at: usize, expected: bool| {
            let object =
                ListedObject { place: String::new(), size_bytes: 0, modified_at: Timestamp::UNIX_EPOCH };
            let walk = Walk { after: None, looked_at, orphans: vec![object; orphans] };
            assert_eq!(walk.trouble(false).is_none(), expected, "{orphans} of {looked_at}");
            assert_eq!(walk.trouble(true), None);
        };
        check(0, 0, true);
        check(1, 10, true);
        check(1, 9, false);
        check(100, 1000, true);
        check(101, 1000, false);
        check(5, 5, false);
    }
}

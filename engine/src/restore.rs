//! `farmiq-edge restore`: puts a backup into an empty directory, checks it, and says what it does not have.
//!
//! Nothing is ever written over: the place must be empty, the database is unpacked beside its place and moved there once
//! every byte of it is checked, and a restore that fails takes away what it wrote. The drill does all of it in a scratch
//! directory, while the engine goes on working.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use schema::clock::{Clock, Timestamp};
use schema::store::audit::{self, Action, Deed};
use schema::store::survey::{self, Counts};
use schema::store::{Store, StoreError};
use schema::wire::time::format as time;
use serde::Serialize;
use serde_json::json;

use crate::author::author;
use crate::backup::belongings::Belongings;
use crate::backup::manifest::{self, Manifest, Place};
use crate::backup::progress::Progress;
use crate::backup::shelf::Shelf;
use crate::backup::vault::Vault;
use crate::backup::{self, BackupError, bytes_of, check_room, failed, images, pieces};
use crate::cluster::Cluster;
use crate::cluster::copy::{Running, UNFINISHED};
use crate::config::{Config, MediaBackend};

/// The database while it is unpacked, below the data directory.
const DRAFT: &str = "postgres.restore";
/// The scratch directory of a drill, below the data directory.
const DRILL: &str = "drill";
/// Rows of images that are compared with their files at once.
const PAGE_ROWS: i64 = 1000;
/// Missing images that are named.
const NAMED_MAX: usize = 5;

/// What is wished.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Where the backups lie, instead of `backup.target`.
    pub source: Option<String>,
    /// The file of the passphrase, instead of `backup.passphrase`.
    pub passphrase_file: Option<PathBuf>,
    /// Which backup; `None` means the newest.
    pub backup: Option<String>,
    /// Whether everything goes to a scratch directory, and away again.
    pub is_drill: bool,
    /// That directory.
    pub scratch: Option<PathBuf>,
}

/// What a restored box holds, and what it does not.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The name of the backup.
    pub backup: String,
    /// The box it was written by.
    pub edge_id: String,
    /// Whether it was a drill.
    pub is_drill: bool,
    /// The version of the server.
    pub postgres_major: u32,
    /// The moment that the database shows.
    pub database_at: Timestamp,
    /// From then to the restore: what came in meanwhile is not in the backup.
    pub gap_seconds: i64,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// What the database held a moment before it was copied.
    pub counts_before: Counts,
    /// What it holds now.
    pub counts: Counts,
    /// Files of images.
    pub image_files: usize,
    /// Rows whose image is not there, and some of their paths.
    pub images_missing: usize,
    /// Some of their paths.
    pub missing: Vec<String>,
    /// Whether the images lie in a bucket, which was not copied.
    pub are_images_left_out: bool,
    /// Where the configuration file lies now.
    pub configuration: Option<PathBuf>,
    /// The name that this machine gives itself, where that is another one.
    pub other_name: Option<String>,
    /// Seconds it took.
    pub took_seconds: f64,
}

impl Report {
    /// Whether everything is there that was there when the backup was made.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.counts.readings >= self.counts_before.readings
            && self.counts.newest_reading_at >= self.counts_before.newest_reading_at
            && self.counts.credentials >= self.counts_before.credentials
            && self.images_missing == 0
    }
}

/// Restores a backup, or tries how it would be.
///
/// # Errors
/// When the place is not empty, or the backup is not as it was written. Nothing is left of it then.
pub async fn run(wish: &Wish, config: &Config) -> Result<Report, BackupError> {
    let started = tokio::time::Instant::now();
    let passphrase = backup::passphrase(wish.passphrase_file.as_deref(), &config.backup)?;
    let shelf = Shelf::open(wish.source.as_deref(), &config.backup)?;
    let vault = manifest::open(&shelf, &passphrase).await?;
    let place = Place(&shelf, &vault);
    let id = match &wish.backup {
        Some(id) => id.clone(),
        None => place.ids().await?.into_iter().next().ok_or(BackupError::NoBackup(None))?,
    };
    let manifest = place.get(&id).await?;
    let site = if wish.is_drill { Site::of_drill(wish, config)? } else { Site::of(config)? };
    let source = Source { shelf: &shelf, vault: &vault, manifest: &manifest };
    let mut report = site.restore(source).await?;
    report.is_drill = wish.is_drill;
    report.other_name = (manifest.edge_id != config.edge.id).then(|| config.edge.id.clone());
    report.took_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// A backup.
#[derive(Clone, Copy)]
struct Source<'a> {
    shelf: &'a Shelf,
    vault: &'a Vault,
    manifest: &'a Manifest,
}

/// Where a backup is restored.
struct Site {
    data_dir: PathBuf,
    media_root: PathBuf,
    /// Whether the images belong there, and not into a bucket.
    has_images: bool,
    is_drill: bool,
}

impl Site {
    fn of(config: &Config) -> Result<Self, BackupError> {
        if config.database.url.is_some() {
            return Err(BackupError::External);
        }
        let has_images = config.media.backend_in_use() == MediaBackend::Filesystem;
        Ok(Self {
            data_dir: config.edge.data_dir.clone(),
            media_root: config.media.root.clone(),
            has_images,
            is_drill: false,
        })
    }

    fn of_drill(wish: &Wish, config: &Config) -> Result<Self, BackupError> {
        let data_dir = wish.scratch.clone().unwrap_or_else(|| config.edge.data_dir.join(DRILL));
        Ok(Self { media_root: data_dir.join("media"), data_dir, has_images: true, is_drill: true })
    }

    /// Puts everything in place and checks it, or leaves nothing.
    async fn restore(&self, source: Source<'_>) -> Result<Report, BackupError> {
        // Whoever runs here has the lock, and is named before it is said that the directory is not empty.
        let cluster = Cluster::hold_to_fill(&self.data_dir).await?;
        let _hold = cluster.hold_on();
        self.check_empty()?;
        let unfinished = self.data_dir.join(UNFINISHED);
        fs::write(&unfinished, &source.manifest.id).map_err(failed("write", &unfinished))?;
        let filled = self.fill(cluster, source).await;
        if filled.is_err() || self.is_drill {
            self.clear();
        }
        for unfinished in [self.media_root.join(UNFINISHED), unfinished] {
            absent_is_fine(fs::remove_file(&unfinished)).map_err(failed("remove", &unfinished))?;
        }
        if self.is_drill {
            let _ = fs::remove_dir_all(&self.data_dir);
        }
        filled
    }

    /// Puts everything in place and checks it; the server that does so is stopped again.
    async fn fill(&self, mut cluster: Cluster, source: Source<'_>) -> Result<Report, BackupError> {
        let manifest = source.manifest;
        let images_bytes: u64 = manifest.images.iter().map(|image| image.bytes).sum();
        check_room(&self.data_dir, manifest.database_bytes)?;
        check_room(&self.media_root, images_bytes)?;
        let progress = Progress::new();
        self.restore_database(&mut cluster, source, &progress).await?;
        let configuration = self.restore_files(source, images_bytes, &progress).await?;
        progress.begins("starting PostgreSQL on it, and counting");
        let running = Running::start(cluster).await?;
        let examined = self.examine(&running, manifest).await;
        running.end().await;
        progress.ends();
        let mut report = examined?;
        report.configuration = configuration;
        Ok(report)
    }

    async fn restore_database(
        &self,
        cluster: &mut Cluster,
        Source { shelf, vault, manifest }: Source<'_>,
        progress: &Progress,
    ) -> Result<(), BackupError> {
        let draft = cluster.make_draft(DRAFT)?;
        progress.counts("reading the database", bytes_of(&manifest.database));
        pieces::read_into(&draft, shelf, vault, &manifest.database, progress).await?;
        cluster.take_all(&draft)?;
        cluster.use_version_of(&draft).await?;
        progress.begins("checking every byte of the database");
        cluster.verify_copy(&draft).await?;
        Ok(cluster.put_in_place(&draft)?)
    }

    async fn restore_files(
        &self,
        Source { shelf, vault, manifest }: Source<'_>,
        images_bytes: u64,
        progress: &Progress,
    ) -> Result<Option<PathBuf>, BackupError> {
        let root = &self.media_root;
        if self.has_images && !manifest.are_images_left_out {
            fs::create_dir_all(root).map_err(failed("create", root))?;
            let unfinished = root.join(UNFINISHED);
            fs::write(&unfinished, "").map_err(failed("write", &unfinished))?;
            progress.counts("reading the images", images_bytes);
            images::restore(root, &manifest.images, shelf, vault, progress).await?;
        }
        let belongings = Belongings::read(shelf, vault, &manifest.belongings, progress).await?;
        belongings.restore(&self.data_dir, root)
    }

    async fn examine(&self, running: &Running, manifest: &Manifest) -> Result<Report, BackupError> {
        let store = backup::store(&running.url())?;
        let counts = store.run_at_leisure("survey", async |conn| survey::counts(conn).await).await?;
        let (images_missing, missing) = self.missing_images(&store, manifest).await?;
        let now = Clock::system().now();
        if !self.is_drill {
            write_down(&store, manifest, now).await?;
        }
        Ok(Report {
            backup: manifest.id.clone(),
            edge_id: manifest.edge_id.clone(),
            is_drill: self.is_drill,
            postgres_major: manifest.postgres_major,
            database_at: manifest.database_at,
            gap_seconds: (now - manifest.database_at).num_seconds(),
            database_bytes: manifest.database_bytes,
            counts_before: manifest.counts.clone(),
            counts,
            image_files: manifest.images.len(),
            images_missing,
            missing,
            are_images_left_out: manifest.are_images_left_out,
            configuration: None,
            other_name: None,
            took_seconds: 0.0,
        })
    }

    /// Images of which the database has the row, and the directory not the file: how many, and some of them.
    async fn missing_images(
        &self,
        store: &Store,
        manifest: &Manifest,
    ) -> Result<(usize, Vec<String>), StoreError> {
        let (mut count, mut missing, mut after) = (0, Vec::new(), String::new());
        if manifest.are_images_left_out || !self.has_images {
            return Ok((count, missing));
        }
        loop {
            let page = async |conn: &mut _| survey::image_paths(conn, &after, PAGE_ROWS).await;
            let page = store.run("image_paths", page).await?;
            let Some((last, _)) = page.last() else { return Ok((count, missing)) };
            let last = last.clone();
            for (path, bytes) in page {
                let found = fs::metadata(self.media_root.join(&path)).map(|found| found.len());
                let is_there =
                    found.is_ok_and(|found| bytes.is_none_or(|bytes| u64::try_from(bytes) == Ok(found)));
                if !is_there {
                    count += 1;
                    missing.extend((missing.len() < NAMED_MAX).then_some(path));
                }
            }
            after = last;
        }
    }

    /// Fails when something is there already. What a restore left that was cut off goes first: no engine can have run on it.
    fn check_empty(&self) -> Result<(), BackupError> {
        if self.data_dir.join(UNFINISHED).exists() {
            self.clear();
        }
        let is_ours = |name: &str| matches!(name, "farmiq-edge.lock" | "edge-id" | UNFINISHED | "media");
        if has_any(&self.data_dir, is_ours)? {
            return Err(BackupError::Occupied(self.data_dir.clone()));
        }
        if self.has_images && has_any(&self.media_root, |_| false)? {
            return Err(BackupError::Occupied(self.media_root.clone()));
        }
        Ok(())
    }

    /// Takes away what a restore wrote here, which the two marks vouch for.
    fn clear(&self) {
        for name in ["postgres", DRAFT, "socket"] {
            let _ = fs::remove_dir_all(self.data_dir.join(name));
        }
        for place in Belongings::places(&self.data_dir) {
            let _ = fs::remove_file(place);
        }
        if !self.media_root.join(UNFINISHED).exists() {
            return;
        }
        let entries = fs::read_dir(&self.media_root).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Whether a directory holds anything but what has one of these names.
fn has_any(directory: &Path, is_ours: impl Fn(&str) -> bool) -> Result<bool, BackupError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("list", directory)(error)),
    };
    Ok(entries.flatten().any(|entry| !entry.file_name().to_str().is_some_and(&is_ours)))
}

/// Tells the audit log of the restored database what happened to it.
async fn write_down(store: &Store, manifest: &Manifest, now: Timestamp) -> Result<(), StoreError> {
    let author = author();
    let gap_seconds = (now - manifest.database_at).num_seconds();
    let detail = json!({"database_at": time(manifest.database_at), "gap_seconds": gap_seconds});
    let deed = Deed { action: Action::Restore, tenants: None, target: Some(&manifest.id), detail };
    store.run("audit_restore", async |conn| audit::record(conn, &author, &deed, now).await).await
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_drill { "drill" } else { "restored" };
        let Self { backup, edge_id, counts, .. } = self;
        writeln!(f, "{what:<10} {backup} of {edge_id}, in {:.1} s", self.took_seconds)?;
        writeln!(
            f,
            "database   PostgreSQL {}, {:.1} MiB, every byte as the server gave it; it started and answers",
            self.postgres_major,
            self.database_bytes as f64 / (1024.0 * 1024.0)
        )?;
        let newest = counts.newest_reading_at.map_or("none".to_owned(), time);
        let before = self.counts_before.readings;
        writeln!(
            f,
            "readings   {}, the newest came in at {newest}; {before} before the copy began",
            counts.readings
        )?;
        writeln!(f, "sessions   {}; devices with a password {}", counts.sessions, counts.credentials)?;
        writeln!(
            f,
            "outbox     {} events wait for the cloud and are offered again; those it has it answers as duplicates",
            counts.unacknowledged
        )?;
        self.images(f)?;
        writeln!(
            f,
            "gap        {} from {} to now: what came in meanwhile is not in this backup. The cloud has what was sent; \
             readings that were acknowledged and not sent are lost",
            spelled(self.gap_seconds),
            time(self.database_at)
        )?;
        if let Some(path) = &self.configuration {
            writeln!(
                f,
                "settings   the configuration file of the backup is {}; start with --config",
                path.display()
            )?;
        }
        if let Some(name) = self.other_name.as_ref().filter(|_| !self.is_drill) {
            writeln!(
                f,
                "name       this machine calls itself {name}: set FARMIQ_EDGE__ID={edge_id}, or the cloud sees another box"
            )?;
        }
        let verdict = if self.is_whole() { "whole" } else { "NOT WHOLE: see the lines above" };
        writeln!(f, "result     {verdict}")
    }
}

impl Report {
    fn images(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.are_images_left_out {
            return writeln!(f, "images     not in the backup: they lie in a bucket");
        }
        write!(
            f,
            "images     {} rows, {} files, {} missing",
            self.counts.images, self.image_files, self.images_missing
        )?;
        if !self.missing.is_empty() {
            write!(f, ": {}", self.missing.join(", "))?;
        }
        writeln!(f)
    }
}

/// A time in words.
fn spelled(seconds: i64) -> String {
    let time = TimeDelta::seconds(seconds.max(0));
    match (time.num_days(), time.num_hours() % 24, time.num_minutes() % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_spelled_by_its_size() {
        for (seconds, words) in
            [(0, "0 s"), (59, "59 s"), (3599, "59 min"), (7980, "2 h 13 min"), (266_400, "3 d 2 h")]
        {
            assert_eq!(spelled(seconds), words);
        }
    }
}

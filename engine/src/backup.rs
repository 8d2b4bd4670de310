//! `farmiq-edge backup`: writes a whole box to another disk or a bucket, while it works.
//!
//! The database comes first and the images second, so that every image of which the copy has the row is there. A backup is
//! whole once its manifest is written, which is the last thing. Images never change, so each is written once for all
//! backups of a place; it goes with the last backup that names it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schema::clock::{Clock, Timestamp};
use schema::store::survey::{self, Counts};
use schema::store::{Store, StoreError, StoreSettings};
use schema::wire::time::format as time;
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterError;
use crate::cluster::copy::{Running, size_bytes};
use crate::config::{Backup, Config, Loaded, MediaBackend, Secret};

pub mod belongings;
pub mod images;
pub mod last;
pub mod manifest;
pub mod pieces;
pub mod progress;
pub mod shelf;
pub mod vault;
pub(crate) mod watch;

use last::LastBackup;
use manifest::{Manifest, Place};
use pieces::Piece;
use progress::Progress;
use shelf::{Shelf, ShelfError};
use vault::{Keyring, Vault, VaultError};

/// Where a copy of the database lies, below the data directory, until it is written to the place of backups.
const SCRATCH: &str = "backup.draft";
/// Room that must be left on the volume of the scratch directory besides the copy: PostgreSQL writes on.
const ROOM_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// How a size is shown.
const MIB: f64 = 1024.0 * 1024.0;

/// Why there is no backup, or why none is restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database is not ours to copy.
    #[error(
        "database.url names a server of its own, which has backups of its own: docs/backup.md shows pg_dump and restore"
    )]
    External,
    /// Nobody says what to seal it with.
    #[error(
        "no passphrase: use --passphrase-file FILE, or set backup.passphrase (or FARMIQ_BACKUP__PASSPHRASE_FILE); `openssl rand -hex 32 > backup.key` makes a good one"
    )]
    NoPassphrase,
    /// Another box has its backups there.
    #[error(
        "the backups there are those of the box {theirs}, and this one is {ours}: give each box a place of its own, or set edge.id"
    )]
    OtherBox {
        /// Whose they are.
        theirs: String,
        /// Who we are.
        ours: String,
    },
    /// There is no backup.
    #[error("there is no whole backup{}", .0.as_ref().map(|id| format!(" {id}")).unwrap_or_default())]
    NoBackup(Option<String>),
    /// A copy does not fit.
    #[error("{} has {free_mib} MiB free, and {wanted_mib} MiB are needed: make room, or name another place with --scratch", .place.display())]
    NoRoom {
        /// The directory.
        place: PathBuf,
        /// What there is.
        free_mib: u64,
        /// What there should be.
        wanted_mib: u64,
    },
    /// Something is in the directory that is to be restored.
    #[error("{} holds something already: a backup is restored into an empty directory alone; move it away first", .0.display())]
    Occupied(PathBuf),
    /// The manifest is of a newer program.
    #[error("the backup was written by a newer farmiq-edge ({0}); restore it with that program")]
    Newer(String),
    /// A file could not be read or written.
    #[error("{attempt} {}", .path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The archive of the database cannot be packed or unpacked.
    #[error("{attempt}")]
    Archive {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The key, or something that was changed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The place of backups.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wished.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Where it goes, instead of `backup.target`.
    pub target: Option<String>,
    /// The file of the passphrase, instead of `backup.passphrase`.
    pub passphrase_file: Option<PathBuf>,
    /// How many are kept, instead of `backup.keep`.
    pub keep: Option<usize>,
    /// Where the copy of the database lies meanwhile.
    pub scratch: Option<PathBuf>,
}

/// What was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The name of the backup.
    pub id: String,
    /// The moment that the copy of the database shows.
    pub database_at: Timestamp,
    /// Bytes of the database before they were packed.
    pub database_bytes: u64,
    /// Bytes that were written for it.
    pub written_bytes: u64,
    /// Images that the backup names.
    pub images: usize,
    /// Images of them that were new.
    pub images_new: usize,
    /// Whether the images lie in a bucket, which is not copied.
    pub are_images_left_out: bool,
    /// Older backups that were deleted.
    pub deleted: Vec<String>,
    /// Seconds it took.
    pub took_seconds: f64,
    /// What the person should know.
    pub remarks: Vec<String>,
}

/// Writes a backup.
///
/// # Errors
/// When it is not whole; what was written of it goes with the next one.
pub async fn run(wish: &Wish, loaded: &Loaded) -> Result<Report, BackupError> {
    let (config, clock) = (&loaded.config, Clock::system());
    let started = tokio::time::Instant::now();
    let opened = open_for_writing(wish, config).await?;
    let id = manifest::new_id(clock.now());
    let progress = Progress::new();
    progress.begins("looking for the database");
    let running = Running::find_or_start(&config.edge.data_dir).await?;
    let copied = copy_database(&running, wish, loaded, &opened, &id, &progress).await;
    running.end().await;
    let mut manifest = copied?;
    let mut images_new = 0;
    if config.media.backend_in_use() == MediaBackend::Filesystem {
        let written = images::write(&config.media.root, &opened.shelf, &opened.vault, &progress).await?;
        (manifest.images, images_new) = (written.images, written.new);
    } else {
        manifest.are_images_left_out = true;
    }
    progress.begins("writing the manifest");
    Place(&opened.shelf, &opened.vault).put(&manifest).await?;
    let keep = wish.keep.unwrap_or(config.backup.keep);
    let deleted = Place(&opened.shelf, &opened.vault).prune(keep).await?;
    let remarks = remarks(config, &opened.shelf);
    let report = Report {
        id,
        database_at: manifest.database_at,
        database_bytes: manifest.database_bytes,
        written_bytes: manifest.database.iter().map(|piece| piece.bytes).sum(),
        images: manifest.images.len(),
        images_new,
        are_images_left_out: manifest.are_images_left_out,
        deleted,
        took_seconds: started.elapsed().as_secs_f64(),
        remarks,
    };
    LastBackup::of(&report).write(&config.edge.data_dir)?;
    progress.ends();
    Ok(report)
}

/// The place of backups with its key, made when it is new.
struct Opened {
    shelf: Shelf,
    vault: Vault,
}

async fn open_for_writing(wish: &Wish, config: &Config) -> Result<Opened, BackupError> {
    if config.database.url.is_some() {
        return Err(BackupError::External);
    }
    let passphrase = passphrase(wish.passphrase_file.as_deref(), &config.backup)?;
    let shelf = Shelf::open(wish.target.as_deref(), &config.backup)?;
    let Some(bytes) = shelf.find(manifest::KEYRING).await? else {
        let (keyring, vault) = Keyring::make(&config.edge.id, &passphrase)?;
        shelf.put(manifest::KEYRING, keyring.to_bytes()).await?;
        return Ok(Opened { shelf, vault });
    };
    let keyring = Keyring::from_bytes(&bytes)?;
    if keyring.edge_id != config.edge.id {
        return Err(BackupError::OtherBox { theirs: keyring.edge_id, ours: config.edge.id.clone() });
    }
    let vault = keyring.open(&passphrase)?;
    Ok(Opened { shelf, vault })
}

/// What backups are sealed with.
pub(crate) fn passphrase(file: Option<&Path>, settings: &Backup) -> Result<Secret, BackupError> {
    let Some(file) = file else { return settings.passphrase.clone().ok_or(BackupError::NoPassphrase) };
    let text = fs::read_to_string(file).map_err(failed("read", file))?;
    Ok(Secret::from(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Copies the database, with what belongs to it, and begins the manifest.
async fn copy_database(
    running: &Running,
    wish: &Wish,
    loaded: &Loaded,
    Opened { shelf, vault }: &Opened,
    id: &str,
    progress: &Progress,
) -> Result<Manifest, BackupError> {
    let config = &loaded.config;
    let data_dir = fs::canonicalize(&config.edge.data_dir).map_err(failed("find", &config.edge.data_dir))?;
    let scratch = Scratch::make(running, wish.scratch.clone().unwrap_or_else(|| data_dir.join(SCRATCH)))?;
    check_room(&scratch.0, size_bytes(&data_dir.join("postgres")))?;
    let clock = Clock::system();
    let counts = counts(&running.url()).await?;
    // Before the database: the marker of the images must not be newer than the database that is compared with it.
    let belongings = belongings::collect(loaded)?;
    let folder = manifest::folder(id);
    let belongings = belongings.write(shelf, vault, &folder).await?;
    progress.begins("copying the database, and checking every byte of the copy");
    running.copy_to(&scratch.0).await?;
    let database_at = clock.now();
    let database_bytes = size_bytes(&scratch.0);
    progress.counts("writing the database", database_bytes);
    let database =
        pieces::write_directory(&scratch.0, shelf, vault, &format!("{folder}/database"), progress).await?;
    Ok(Manifest {
        format: manifest::FORMAT,
        id: id.to_owned(),
        edge_id: config.edge.id.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        postgres_major: running.major(),
        database_at,
        database_bytes,
        counts,
        database,
        belongings,
        images: Vec::new(),
        are_images_left_out: false,
    })
}

/// What a database holds, counted without haste.
pub(crate) async fn counts(url: &str) -> Result<Counts, BackupError> {
    let store = store(url)?;
    Ok(store.run_at_leisure("survey", async |conn| survey::counts(conn).await).await?)
}

pub(crate) fn store(url: &str) -> Result<Store, BackupError> {
    let settings = StoreSettings { pool_max: 1, ..StoreSettings::new(url, "farmiq-edge backup") };
    Ok(Store::new(&settings)?)
}

/// Fails when a copy of so many bytes does not fit.
pub(crate) fn check_room(place: &Path, bytes: u64) -> Result<(), BackupError> {
    let space = actors::disk::space(place).map_err(failed("look for room in", place))?;
    let wanted = bytes.saturating_add(bytes / 10).saturating_add(ROOM_BYTES_MIN);
    if space.free_bytes >= wanted {
        return Ok(());
    }
    let mib = |bytes: u64| bytes / (1024 * 1024);
    Err(BackupError::NoRoom {
        place: place.to_owned(),
        free_mib: mib(space.free_bytes),
        wanted_mib: mib(wanted),
    })
}

/// A directory that goes when nobody needs it any more.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// A new one, which the server of the cluster can write. What an earlier one left behind goes first.
    fn make(running: &Running, path: PathBuf) -> Result<Self, BackupError> {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        running.make_scratch(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the person should know of a backup that is whole.
fn remarks(config: &Config, shelf: &Shelf) -> Vec<String> {
    let mut remarks = Vec::new();
    let device = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).ok().map(|found| found.dev())
    };
    if let Some(directory) = shelf.directory()
        && device(directory) == device(&config.edge.data_dir)
    {
        let text = format!(
            "{} is on the disk of the box itself: when that dies, both are gone",
            directory.display()
        );
        remarks.push(text);
    }
    if config.media.backend_in_use() != MediaBackend::Filesystem {
        remarks.push(
            "the images lie in a bucket and are not copied: see to its versions and replicas".to_owned(),
        );
    }
    remarks
}

pub(crate) fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { attempt, path, source }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "backup     {} is whole, and took {:.1} s", self.id, self.took_seconds)?;
        writeln!(
            f,
            "database   {:.1} MiB as of {}, every byte as the server gave it; {:.1} MiB written",
            self.database_bytes as f64 / MIB,
            time(self.database_at),
            self.written_bytes as f64 / MIB
        )?;
        if !self.are_images_left_out {
            writeln!(f, "images     {}, of which {} were new", self.images, self.images_new)?;
        }
        if !self.deleted.is_empty() {
            writeln!(f, "deleted    {}", self.deleted.join(", "))?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(f, "note       {remark}"))
    }
}

/// The whole backups of a place, the newest first, in words.
///
/// # Errors
/// When the place cannot be read.
pub async fn list(wish: &Wish, config: &Config) -> Result<String, BackupError> {
    let shelf = Shelf::open(wish.target.as_deref(), &config.backup)?;
    let passphrase = passphrase(wish.passphrase_file.as_deref(), &config.backup)?;
    let vault = manifest::open(&shelf, &passphrase).await?;
    let place = Place(&shelf, &vault);
    let mut text = String::new();
    for id in place.ids().await? {
        let manifest = place.get(&id).await?;
        text.push_str(&format!(
            "{id}  {:>8.1} MiB  {:>9} readings  {:>6} images  PostgreSQL {}\n",
            manifest.database_bytes as f64 / MIB,
            manifest.counts.readings,
            manifest.images.len(),
            manifest.postgres_major
        ));
    }
    Ok(if text.is_empty() { "no whole backup\n".to_owned() } else { text })
}

/// Bytes of pieces together.
pub(crate) fn bytes_of(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.bytes).sum()
}

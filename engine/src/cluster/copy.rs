//! Copies of a private cluster: taken while its server runs, checked byte by byte, and put in place.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Cluster, ClusterError, files, url};

/// A file in a data directory that a restore is filling, or filled in part when it was cut off. No server is started beside
/// it.
pub const UNFINISHED: &str = "restore.unfinished";

/// Longest time a copy of the database, or its check, may take.
const COPY: Duration = Duration::from_secs(6 * 3600);
/// Longest time for a server to end in order that was started for a copy alone.
const END: Duration = Duration::from_secs(60);

/// A cluster whose server runs, whoever runs it.
#[derive(Debug)]
pub struct Running {
    cluster: Cluster,
    /// Whether the server was started for us, and ends with our work.
    is_ours: bool,
}

impl Running {
    /// The server of a data directory: the one that an engine runs there, else one that is started.
    ///
    /// # Errors
    /// When there is no cluster, or its server cannot be started.
    pub async fn find_or_start(data_dir: &Path) -> Result<Self, ClusterError> {
        if !data_dir.join("postgres").join("PG_VERSION").exists() {
            return Err(ClusterError::Absent(data_dir.to_owned()));
        }
        match Cluster::hold(data_dir).await {
            Ok(cluster) => Self::start(cluster).await,
            Err(ClusterError::InUse(_)) => {
                let cluster = Cluster::beside(data_dir).await?;
                Ok(Self { cluster, is_ours: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Starts the server of a cluster that is held.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(mut cluster: Cluster) -> Result<Self, ClusterError> {
        cluster.start_or_adopt().await?;
        Ok(Self { cluster, is_ours: true })
    }

    /// Stops the server, if it was started for this.
    pub async fn end(mut self) {
        if self.is_ours {
            self.cluster.stop(Instant::now() + END).await;
        }
    }

    /// The connection string of its database.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url()
    }

    /// The version of the server, such as 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.cluster.binaries.major
    }

    /// Makes a directory that only the owner of the server can enter.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to somebody else.
    pub fn make_scratch(&self, path: &Path) -> Result<(), ClusterError> {
        self.cluster.make_private_directory(path)
    }

    /// Copies the whole cluster into a directory that is empty or not there, as it stands at the end of the copy, and
    /// compares every byte with the checksums that the server gave.
    ///
    /// # Errors
    /// When the server does not give the copy, or the copy differs from what it gave.
    pub async fn copy_to(&self, target: &Path) -> Result<(), ClusterError> {
        let socket =
            url(&self.cluster.socket_directory).replace("user=farmiq dbname=farmiq", "user=postgres");
        let source = format!("{socket} application_name='farmiq-edge backup'");
        let target_text = target.display().to_string();
        let arguments = [
            "--dbname",
            &source,
            "--pgdata",
            &target_text,
            "--format=plain",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--manifest-checksums=SHA256",
            "--no-password",
        ];
        self.cluster.run_within(COPY, "pg_basebackup", &arguments, "").await?;
        self.cluster.verify_copy(target).await
    }
}

/// As long as it lives, no other engine has the data directory.
#[derive(Debug)]
pub struct Hold {
    _lock: Option<Arc<File>>,
}

impl Cluster {
    /// Takes a data directory in order to fill it with a copy, also one whose last restore was cut off.
    ///
    /// # Errors
    /// As [`Cluster::hold`].
    pub async fn hold_to_fill(data_dir: &Path) -> Result<Self, ClusterError> {
        fs::create_dir_all(data_dir).map_err(files("create", data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(files("find", data_dir))?;
        let lock = super::lock(&data_dir)?;
        let is_cut_off = data_dir.join(UNFINISHED).exists();
        let mut cluster = Self::of(data_dir, Some(lock)).await?;
        if is_cut_off {
            // A restore that was killed leaves the server running with which it counted.
            cluster.clear_away().await?;
        }
        Ok(cluster)
    }

    /// What keeps other engines out, also when this cluster is gone.
    #[must_use]
    pub fn hold_on(&self) -> Hold {
        Hold { _lock: self.lock.clone() }
    }

    /// Compares a copy with the checksums that belong to it.
    ///
    /// # Errors
    /// When it is not what the server gave.
    pub async fn verify_copy(&self, copy: &Path) -> Result<(), ClusterError> {
        let copy_text = copy.display().to_string();
        self.run_within(COPY, "pg_verifybackup", &["--quiet", &copy_text], "").await.map(drop)
    }

    /// Gives everything below a directory to the owner of the server.
    ///
    /// # Errors
    /// When it cannot be given.
    pub fn take_all(&self, directory: &Path) -> Result<(), ClusterError> {
        let Some(owner) = &self.owner else { return Ok(()) };
        let ids = (Some(owner.uid), Some(owner.gid));
        walk(directory, &mut |path| chown(path, ids.0, ids.1)).map_err(files("hand over", directory))
    }

    /// Where its files are, or will be.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a directory for a copy beside its place, which only the owner of the server can enter.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_draft(&self, name: &str) -> Result<PathBuf, ClusterError> {
        let draft = self.data_dir.join(name);
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(files("remove", &draft))?;
        }
        self.make_private_directory(&draft)?;
        Ok(draft)
    }

    /// Moves a whole copy into the place of the cluster, where none is.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn put_in_place(&self, draft: &Path) -> Result<(), ClusterError> {
        fs::rename(draft, &self.directory).map_err(files("move into place", &self.directory))?;
        super::sync_directory(&self.data_dir).map_err(files("sync", &self.data_dir))
    }
}

/// Bytes of all files below a directory. What goes away meanwhile counts as nothing.
#[must_use]
pub fn size_bytes(directory: &Path) -> u64 {
    let mut sum = 0;
    let _ = walk(directory, &mut |path| {
        sum += fs::symlink_metadata(path).map_or(0, |found| if found.is_file() { found.len() } else { 0 });
        Ok(())
    });
    sum
}

/// Visits a directory and everything below it; links are not followed.
fn walk(path: &Path, visit: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    visit(path)?;
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        match walk(&entry?.path(), visit) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            walked => walked?,
        }
    }
    Ok(())
}

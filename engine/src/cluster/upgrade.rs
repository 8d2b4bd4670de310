//! A new major version of PostgreSQL: the private cluster is copied into one of that version, and the old one is kept.
//!
//! The copy is made beside the cluster by `pg_upgrade`, which leaves the old files as they are, and takes their place in one
//! step. Whatever cuts it off before leaves a cluster that starts as ever, and the next try begins anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::Signal;
use schema::store::retention::mark;
use schema::store::{Store, StoreError, StoreSettings};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::binaries::Binaries;
use super::copy::size_bytes;
use super::server::LOOK_AGAIN;
use super::{Cluster, ClusterError, Stage, files, process, settings};

/// The copy while it is made, below the data directory.
const DRAFT: &str = "postgres.upgrade";
/// Longest time the copy may take.
const COPY: Duration = Duration::from_secs(12 * 3600);
/// Longest time for a server to end in order.
const END: Duration = Duration::from_secs(120);
/// Room that must be left besides the copy.
const ROOM_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// Where the settings of an operator begin in `postgresql.conf`.
const OWN_SETTINGS: &str = "# Add your own settings below this line.";
/// The script that `pg_upgrade` leaves behind.
const SCRIPT: &str = "delete_old_cluster.sh";

/// Why a cluster was not brought to another version. It starts as ever.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// There is no newer version.
    #[error(
        "no newer PostgreSQL than {from} is installed{}; on Debian or Ubuntu: `sudo apt-get install postgresql-NN`, and keep \
         {from} installed until the upgrade is done",
        .wanted.map(|wanted| format!(" ({wanted} was asked for)")).unwrap_or_default()
    )]
    NothingNewer {
        /// The version of the cluster.
        from: u32,
        /// The version that was asked for.
        wanted: Option<u32>,
    },
    /// The copy does not fit.
    #[error("the copy needs {wanted_mib} MiB and {free_mib} MiB are free beside {}; the old cluster is kept until `cluster forget-old`", .place.display())]
    NoRoom {
        /// The data directory.
        place: PathBuf,
        /// What there is.
        free_mib: u64,
        /// What there should be.
        wanted_mib: u64,
    },
    /// An older cluster is kept already.
    #[error("{} is still kept from the last upgrade: `farmiq-edge cluster forget-old` removes it", .0.display())]
    Kept(PathBuf),
    /// There is nothing to forget.
    #[error("no old cluster is kept in {}", .0.display())]
    NothingKept(PathBuf),
    /// The copy was not finished.
    #[error(
        "the copy was not finished, and is removed again; the old cluster is as it was: start the engine, or try again"
    )]
    Cut(#[source] Box<UpgradeError>),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was done.
#[derive(Debug)]
pub struct Upgraded {
    /// The version before.
    pub from: u32,
    /// The version now.
    pub to: u32,
    /// Where the old cluster is.
    pub kept: PathBuf,
}

/// Brings the cluster of a data directory to a newer version: to this one, else to the newest that is installed.
///
/// # Errors
/// When there is none, no room, or a program of PostgreSQL fails. The cluster starts as ever then.
pub async fn upgrade(data_dir: &Path, to: Option<u32>) -> Result<Upgraded, UpgradeError> {
    if !data_dir.join("postgres").join("PG_VERSION").exists() {
        return Err(ClusterError::Absent(data_dir.to_owned()).into());
    }
    let mut old = Cluster::hold(data_dir).await?;
    let from = old.binaries.major;
    old.settle_exchange()?;
    let binaries =
        Binaries::newer_than(from, to).await.ok_or(UpgradeError::NothingNewer { from, wanted: to })?;
    let kept = old.kept_place(from);
    if let Some(kept) = old.kept() {
        return Err(UpgradeError::Kept(kept));
    }
    old.check_room()?;
    old.end_orphans().await;
    let is_own = old.end_in_order().await?;
    let mut new = old.successor(binaries);
    if let Err(error) = new.become_copy_of(&old, is_own).await {
        new.discard().await;
        return Err(UpgradeError::Cut(Box::new(error)));
    }
    old.exchange_with(&new)?;
    old.settle_exchange()?;
    Ok(Upgraded { from, to: new.binaries.major, kept })
}

/// Removes the old cluster that an upgrade kept.
///
/// # Errors
/// When none is kept, or an engine holds the directory.
pub async fn forget_old(data_dir: &Path) -> Result<PathBuf, UpgradeError> {
    let cluster = Cluster::hold(data_dir).await?;
    cluster.settle_exchange()?;
    let kept = cluster.kept().ok_or_else(|| UpgradeError::NothingKept(data_dir.to_owned()))?;
    fs::remove_dir_all(&kept).map_err(files("remove", &kept))?;
    Ok(kept)
}

impl Cluster {
    /// The same place for a cluster of another version, which is made beside this one.
    fn successor(&self, binaries: Binaries) -> Self {
        Self {
            binaries,
            owner: self.owner.clone(),
            data_dir: self.data_dir.clone(),
            directory: self.data_dir.join(DRAFT),
            socket_directory: self.socket_directory.clone(),
            stage: watch::Sender::new(Stage::Making),
            server: None,
            is_room_little: false,
            lock: self.lock.clone(),
        }
    }

    /// Is made, filled and finished; its server is stopped again.
    async fn become_copy_of(&mut self, old: &Self, is_own: bool) -> Result<(), UpgradeError> {
        self.clear_away().await?;
        self.fill_from(old).await?;
        self.start_server().await?;
        let finished = self.finish(is_own).await;
        self.stop(Instant::now() + END).await;
        finished
    }

    /// Gives the room of a copy back that was not finished: the old cluster may need it to start.
    async fn discard(&mut self) {
        self.end_orphans().await;
        if let Err(error) = self.clear_away().await {
            tracing::warn!(%error, "end the server of the copy");
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "remove the copy");
        }
    }

    /// Where the cluster of this version is kept after an upgrade.
    fn kept_place(&self, major: u32) -> PathBuf {
        self.data_dir.join(format!("postgres.{major}"))
    }

    /// The old cluster that is kept, if any.
    fn kept(&self) -> Option<PathBuf> {
        let is_kept = |path: &PathBuf| path.join("PG_VERSION").exists();
        (1..self.binaries.major + 1).rev().map(|major| self.kept_place(major)).find(is_kept)
    }

    /// Ends what an upgrade left running that was cut off.
    async fn end_orphans(&self) {
        let orphans = process::all_of(&self.socket_directory);
        for pid in &orphans {
            self.signal(*pid, Signal::KILL).await;
        }
        while orphans.iter().any(|pid| process::is_alive(*pid)) {
            sleep(LOOK_AGAIN).await;
        }
    }

    fn check_room(&self) -> Result<(), UpgradeError> {
        let bytes = size_bytes(&self.directory);
        let wanted = bytes + bytes / 5 + ROOM_BYTES_MIN;
        let space = actors::disk::space(&self.data_dir).map_err(files("look for room in", &self.data_dir))?;
        if space.free_bytes >= wanted {
            return Ok(());
        }
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let (free_mib, wanted_mib) = (mib(space.free_bytes), mib(wanted));
        Err(UpgradeError::NoRoom { place: self.data_dir.clone(), free_mib, wanted_mib })
    }

    /// Has the server read its log and end in order, as a copy needs it. Says whether the images are this database's own.
    async fn end_in_order(&mut self) -> Result<bool, UpgradeError> {
        self.start_or_adopt().await?;
        let identity = async |conn: &mut _| mark::identity(conn).await;
        let known = self.store()?.run("store_identity", identity).await;
        self.stop(Instant::now() + END).await;
        // Without the table there are no images either.
        Ok(known.ok().flatten().is_some_and(|known| known.is_own))
    }

    fn store(&self) -> Result<Store, StoreError> {
        Store::new(&StoreSettings {
            pool_max: 1,
            ..StoreSettings::new(&self.url(), "farmiq-edge cluster upgrade")
        })
    }

    /// Makes the cluster of the new version and copies the old one into it.
    async fn fill_from(&self, old: &Self) -> Result<(), ClusterError> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory).map_err(files("remove", &self.directory))?;
        }
        self.make_private_directory(&self.directory)?;
        self.make_private_directory(&self.socket_directory)?;
        let directory = self.directory.display().to_string();
        let mut arguments = vec![
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--auth-local=trust",
            "--auth-host=reject",
            "-D",
            &directory,
        ];
        arguments.extend(self.checksums_as(old).await?);
        self.run("initdb", &arguments, "").await?;
        settings::include_ours(&self.directory).map_err(files("write the settings in", &self.directory))?;
        self.copy_from(old).await?;
        self.take_settings_of(old).map_err(files("write the settings in", &self.directory))
    }

    /// Both must have checksums, or neither.
    async fn checksums_as(&self, old: &Self) -> Result<Option<&'static str>, ClusterError> {
        /// The first version that makes checksums unless it is told not to.
        const BY_DEFAULT: u32 = 18;
        let directory = old.directory.display().to_string();
        let said = old.run("pg_controldata", &["-D", &directory], "").await?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = said.lines().find_map(|line| line.strip_prefix("Data page checksum version:"));
        let has_checksums = line.is_some_and(|version| version.trim() != "0");
        Ok(match has_checksums {
            true => Some("--data-checksums"),
            false if self.binaries.major >= BY_DEFAULT => Some("--no-data-checksums"),
            false => None,
        })
    }

    async fn copy_from(&self, old: &Self) -> Result<(), ClusterError> {
        let text = |path: &Path| path.display().to_string();
        let (old_data, new_data) = (text(&old.directory), text(&self.directory));
        let (old_programs, new_programs) = (text(&old.binaries.directory), text(&self.binaries.directory));
        let sockets = text(&self.socket_directory);
        let arguments = [
            "--old-datadir",
            &old_data,
            "--new-datadir",
            &new_data,
            "--old-bindir",
            &old_programs,
            "--new-bindir",
            &new_programs,
            "--socketdir",
            &sockets,
            "--username",
            "postgres",
        ];
        let copied = self.run_in(&self.socket_directory, COPY, "pg_upgrade", &arguments, "").await;
        let _ = fs::remove_file(self.socket_directory.join(SCRIPT));
        copied.map(drop)
    }

    /// What the operator set: below our line, and with ALTER SYSTEM.
    fn take_settings_of(&self, old: &Self) -> std::io::Result<()> {
        let read = |name: &str| fs::read_to_string(old.directory.join(name));
        if let Some((_, own)) = read("postgresql.conf")?.split_once(OWN_SETTINGS) {
            let path = self.directory.join("postgresql.conf");
            let text = fs::read_to_string(&path)?;
            fs::write(&path, text.trim_end().to_owned() + own)?;
        }
        fs::write(self.directory.join("postgresql.auto.conf"), read("postgresql.auto.conf")?)
    }

    /// Tells the new server what the old one knew besides the data.
    async fn finish(&self, is_own: bool) -> Result<(), UpgradeError> {
        if is_own {
            let keep = async |conn: &mut _| mark::carry_over(conn).await;
            self.store()?.run("carry_over_store", keep).await?;
        }
        let sockets = self.socket_directory.display().to_string();
        let port = super::PORT.to_string();
        let arguments =
            ["--all", "--analyze-only", "--host", &sockets, "--port", &port, "--username", "postgres"];
        self.run_within(COPY, "vacuumdb", &arguments, "").await?;
        Ok(())
    }

    /// Changes places with the copy, in one step.
    fn exchange_with(&self, new: &Self) -> Result<(), ClusterError> {
        let exchanged = renameat_with(CWD, &self.directory, CWD, &new.directory, RenameFlags::EXCHANGE);
        exchanged.map_err(|error| files("change places with", &self.directory)(error.into()))
    }

    /// After the exchange, the old cluster lies where the copy was made; it moves to where it is kept.
    fn settle_exchange(&self) -> Result<(), ClusterError> {
        let draft = self.data_dir.join(DRAFT);
        let major = |directory: &Path| -> Option<u32> {
            fs::read_to_string(directory.join("PG_VERSION")).ok()?.trim().parse().ok()
        };
        if let (Some(old), Some(new)) = (major(&draft), major(&self.directory))
            && old < new
        {
            let kept = self.kept_place(old);
            fs::rename(&draft, &kept).map_err(files("keep the old cluster as", &kept))?;
        }
        super::sync_directory(&self.data_dir).map_err(files("sync", &self.data_dir))
    }
}

//! Where the programs of PostgreSQL are.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::ClusterError;
use crate::config::Environment;

/// Directories that hold one directory per version, each with a `bin`.
const VERSIONED: [&str; 2] = ["/usr/lib/postgresql", "/usr/local/lib/postgresql"];
/// The oldest version the engine is meant for.
const MAJOR_MIN: u32 = 14;

/// The programs of one version.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) directory: PathBuf,
    /// The version, such as 15.
    pub(super) major: u32,
}

impl Binaries {
    /// The programs that fit the cluster in this directory: of its version when it is there, else the newest.
    pub(super) async fn find(cluster: &Path) -> Result<Self, ClusterError> {
        let version_of_cluster = fs::read_to_string(cluster.join("PG_VERSION")).ok();
        let wanted: Option<u32> = version_of_cluster.and_then(|text| text.trim().parse().ok());
        let found = Self::all().await;
        let fits =
            |binaries: &Self| wanted.map_or(binaries.major >= MAJOR_MIN, |wanted| binaries.major == wanted);
        let newest = found.into_iter().filter(fits).max_by_key(|binaries| binaries.major);
        newest.ok_or_else(|| ClusterError::NotInstalled {
            wanted: wanted.map_or(format!("{MAJOR_MIN} or newer"), |major| major.to_string()),
            package: wanted.map_or("postgresql".to_owned(), |major| format!("postgresql-{major}")),
        })
    }

    /// The newest programs that are newer than a version, or those of the version that is wanted.
    pub(super) async fn newer_than(major: u32, wanted: Option<u32>) -> Option<Self> {
        let fits = |found: &Self| found.major > major && wanted.is_none_or(|wanted| found.major == wanted);
        Self::all().await.into_iter().filter(fits).max_by_key(|found| found.major)
    }

    async fn all() -> Vec<Self> {
        let mut found = Vec::new();
        for directory in candidates(&Environment::of_process()) {
            if let Some(major) = major(&directory).await {
                found.push(Self { directory, major });
            }
        }
        found
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }
}

/// Directories that hold the programs: those of the search path first, with links followed, then the usual places.
fn candidates(environment: &Environment) -> Vec<PathBuf> {
    let path = environment.get("PATH").unwrap_or_default();
    let in_path = path.split(':').filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let versions = VERSIONED.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
    let all = in_path.chain(versions.map(|entry| entry.path().join("bin")));
    let mut directories: Vec<PathBuf> = all.filter_map(|directory| holder(&directory)).collect();
    directories.sort();
    directories.dedup();
    directories
}

/// The directory in which the server program of this directory really lies, when its companions lie there too.
fn holder(directory: &Path) -> Option<PathBuf> {
    let server = fs::canonicalize(directory.join("postgres")).ok()?;
    let holder = server.parent()?;
    let is_whole = ["initdb", "pg_ctl"].iter().all(|program| holder.join(program).is_file());
    is_whole.then(|| holder.to_owned())
}

/// The version, out of a line such as `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`.
async fn major(directory: &Path) -> Option<u32> {
    let output = Command::new(directory.join("postgres")).arg("--version").output().await.ok()?;
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = line.split_whitespace().nth(2)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

//! The file in which a server says that it runs, and whether that is still true.

use std::fs;
use std::path::{Path, PathBuf};

use super::{ClusterError, files};

/// What a server says about itself in its directory; after a crash the file stays behind.
pub(super) struct PidFile {
    /// The number of the server's process.
    pub(super) pid: u32,
    /// Where its socket is.
    pub(super) socket_directory: PathBuf,
    /// Whether it takes connections.
    pub(super) is_ready: bool,
}

impl PidFile {
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join("postmaster.pid")).ok()?;
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number).copied().unwrap_or_default();
        Some(Self {
            pid: line(0).parse().ok()?,
            socket_directory: line(4).into(),
            is_ready: line(7) == "ready",
        })
    }

    /// Whether the process of this number is the server of this directory, which it has as its working directory.
    pub(super) fn is_of(&self, directory: &Path) -> bool {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).is_ok_and(|cwd| cwd == directory)
    }

    /// Takes the file away when its number now belongs to another process, for PostgreSQL would take that process for
    /// a running server. When there is no such process PostgreSQL sees by itself that the file is stale.
    pub(super) fn remove_if_taken_over(&self, directory: &Path) -> Result<(), ClusterError> {
        if !Path::new(&format!("/proc/{}", self.pid)).exists() {
            return Ok(());
        }
        let path = directory.join("postmaster.pid");
        tracing::warn!(path = %path.display(), "removed the process id file of a server that is gone");
        fs::remove_file(&path).map_err(files("remove", &path))
    }
}

//! What the server logged, to say why a start failed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A place in what the server logged.
pub(super) struct ServerLog {
    directory: PathBuf,
    newest: Option<(PathBuf, u64)>,
}

impl ServerLog {
    /// The end of the log of the server in this directory.
    pub(super) fn end(cluster: &Path) -> Self {
        let directory = cluster.join("log");
        Self { newest: newest_file(&directory), directory }
    }

    /// What was logged after this place.
    pub(super) fn what_followed(&self) -> Option<String> {
        let (path, _) = newest_file(&self.directory)?;
        let text = fs::read_to_string(&path).ok()?;
        let seen = self.newest.as_ref().filter(|(seen, _)| *seen == path).map_or(0, |(_, length)| *length);
        text.get(usize::try_from(seen).ok()?..).map(str::to_owned)
    }
}

/// The file of a directory that was written last, and its length.
fn newest_file(directory: &Path) -> Option<(PathBuf, u64)> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let files = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    let newest = files.max_by_key(|(_, found)| (found.mtime(), found.mtime_nsec()));
    newest.map(|(path, found)| (path, found.len()))
}

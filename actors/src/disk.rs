//! How full a volume is.

use std::io;
use std::path::{Path, PathBuf};

use schema::store::{Store, StoreError, health};

/// The room of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that a program may still write.
    pub free_bytes: u64,
    /// Bytes of the whole volume.
    pub total_bytes: u64,
}

impl Space {
    /// The share that is in use, from 0 to 1.
    #[must_use]
    pub fn used_ratio(self) -> f64 {
        if self.total_bytes == 0 { 0.0 } else { 1.0 - self.free_bytes as f64 / self.total_bytes as f64 }
    }
}

/// Where the database lies on this machine: in `own`, when the server is ours, else where the server says. `None` when it
/// does not say, as to a role without `pg_read_all_settings`, and on another machine, where its path means nothing here.
///
/// # Errors
/// When the database fails.
pub async fn database_place(own: Option<&Path>, store: &Store) -> Result<Option<PathBuf>, StoreError> {
    if let Some(own) = own {
        return Ok(Some(own.to_owned()));
    }
    let said = store.run("data_directory", async |conn| health::data_directory(conn).await).await?;
    Ok(said.map(PathBuf::from).filter(|place| place.exists()))
}

/// The room of the volume on which `place` lies, or will lie once it is made. It asks the kernel alone, which answers
/// from memory.
///
/// # Errors
/// When the volume cannot be asked.
pub fn space(place: &Path) -> io::Result<Space> {
    let existing = place.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let volume = rustix::fs::statvfs(existing)?;
    Ok(Space {
        free_bytes: volume.f_bavail.saturating_mul(volume.f_frsize),
        total_bytes: volume.f_blocks.saturating_mul(volume.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_made_yet_has_the_room_of_its_volume() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = space(directory.path()).expect("a volume");
        let there = space(&directory.path().join("a/b/c")).expect("a volume");
        assert_eq!(here.total_bytes, there.total_bytes);
        assert!(here.total_bytes >= here.free_bytes);
        assert!((0.0..=1.0).contains(&here.used_ratio()));
    }
}

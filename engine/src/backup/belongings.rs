//! What belongs to a box besides its data: the configuration, and what it made once and cannot make again.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use actors::media::store::MARKER;

use super::pieces::{self, Piece};
use super::progress::Progress;
use super::shelf::Shelf;
use super::vault::Vault;
use super::{BackupError, failed};
use crate::config::{Loaded, MediaBackend};
use crate::first_keys::KEPT_FILES;

/// The folder of what is kept in the data directory.
const KEPT: &str = "kept";
/// The configuration file.
const CONFIGURATION: &str = "configuration.toml";
/// The marker of the images.
const STORE: &str = "store";
/// What the configuration file is called in the data directory of a box that was restored.
pub const RESTORED_CONFIGURATION: &str = "restored-configuration.toml";
/// Bytes of one file.
const BYTES_MAX: u64 = 1024 * 1024;

/// Small files by their names in the archive.
pub(crate) struct Belongings(Vec<(String, Vec<u8>)>);

/// Reads them from a box.
pub(super) fn collect(loaded: &Loaded) -> Result<Belongings, BackupError> {
    let config = &loaded.config;
    let mut wanted: Vec<(String, PathBuf)> =
        KEPT_FILES.iter().map(|name| (format!("{KEPT}/{name}"), config.edge.data_dir.join(name))).collect();
    wanted.extend(loaded.file.clone().map(|file| (CONFIGURATION.to_owned(), file)));
    if config.media.backend_in_use() == MediaBackend::Filesystem {
        wanted.push((STORE.to_owned(), config.media.root.join(MARKER)));
    }
    let mut files = Vec::new();
    for (name, path) in wanted {
        match fs::read(&path) {
            Ok(contents) => files.push((name, contents)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path)(error)),
        }
    }
    Ok(Belongings(files))
}

impl Belongings {
    pub(super) async fn write(
        self,
        shelf: &Shelf,
        vault: &Vault,
        folder: &str,
    ) -> Result<Vec<Piece>, BackupError> {
        let pack = move |archive: &mut tar::Builder<pieces::Packer>| {
            for (name, contents) in &self.0 {
                let mut header = tar::Header::new_gnu();
                header.set_size(contents.len() as u64);
                header.set_mode(0o600);
                archive.append_data(&mut header, name, contents.as_slice())?;
            }
            Ok(())
        };
        pieces::write(shelf, vault, &format!("{folder}/belongings"), pack).await
    }

    pub(crate) async fn read(
        shelf: &Shelf,
        vault: &Vault,
        written: &[Piece],
        progress: &Progress,
    ) -> Result<Self, BackupError> {
        let unpack = |archive: &mut tar::Archive<pieces::Unpacker>| {
            let mut files = Vec::new();
            for entry in archive.entries()? {
                let entry = entry?;
                let name = entry.path()?.display().to_string();
                let mut contents = Vec::new();
                entry.take(BYTES_MAX).read_to_end(&mut contents)?;
                files.push((name, contents));
            }
            Ok(Self(files))
        };
        pieces::read(shelf, vault, written, progress, unpack).await
    }

    /// Puts them in place, and says where the configuration file lies now.
    pub(crate) fn restore(&self, data_dir: &Path, media_root: &Path) -> Result<Option<PathBuf>, BackupError> {
        let mut configuration = None;
        for (name, contents) in &self.0 {
            let kept = KEPT_FILES.iter().find(|kept| *name == format!("{KEPT}/{kept}"));
            let place = match (kept, name.as_str()) {
                (Some(kept), _) => data_dir.join(kept),
                (None, CONFIGURATION) => {
                    let place = data_dir.join(RESTORED_CONFIGURATION);
                    configuration = Some(place.clone());
                    place
                }
                (None, STORE) if media_root.is_dir() => media_root.join(MARKER),
                (None, _) => continue,
            };
            put(&place, contents).map_err(failed("write", &place))?;
        }
        Ok(configuration)
    }

    /// Where [`Belongings::restore`] may have put something below the data directory.
    pub(crate) fn places(data_dir: &Path) -> Vec<PathBuf> {
        let names = KEPT_FILES.iter().copied().chain([RESTORED_CONFIGURATION]);
        names.map(|name| data_dir.join(name)).collect()
    }
}

fn put(place: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(place)?;
    file.write_all(contents)?;
    file.sync_all()
}

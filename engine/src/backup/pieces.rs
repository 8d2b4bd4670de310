//! A directory as an archive that is packed, cut into pieces, and sealed piece by piece; and the way back.
//!
//! Packing and unpacking happen on a thread of their own. One piece at a time waits between it and the place of backups, so
//! that memory holds three pieces at most, however large the database is.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::BackupError;
use super::progress::Progress;
use super::shelf::Shelf;
use super::vault::{Vault, VaultError};

/// Bytes of a piece before it is sealed.
const PIECE_BYTES: usize = 16 * 1024 * 1024;

/// A piece of an archive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Piece {
    /// Its name in the place of backups.
    pub name: String,
    /// Its bytes as they lie there.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
}

/// Writes everything below a directory.
///
/// # Errors
/// When a file cannot be read, or a piece cannot be written.
pub async fn write_directory(
    directory: &Path,
    shelf: &Shelf,
    vault: &Vault,
    name: &str,
    progress: &Progress,
) -> Result<Vec<Piece>, BackupError> {
    let (directory, progress) = (directory.to_owned(), progress.clone());
    let pack = move |archive: &mut tar::Builder<Packer>| {
        archive.follow_symlinks(false);
        add_directory(archive, &directory, Path::new(""), &progress)
    };
    write(shelf, vault, name, pack).await
}

/// Writes what is put into an archive.
///
/// # Errors
/// When it cannot be packed, or a piece cannot be written.
pub(super) async fn write(
    shelf: &Shelf,
    vault: &Vault,
    name: &str,
    pack: impl FnOnce(&mut tar::Builder<Packer>) -> io::Result<()> + Send + 'static,
) -> Result<Vec<Piece>, BackupError> {
    let (tell, mut told) = mpsc::channel(1);
    let packing = spawn_blocking(move || {
        let packer = GzEncoder::new(PieceWriter { piece: Vec::new(), tell }, Compression::fast());
        let mut archive = tar::Builder::new(packer);
        pack(&mut archive)?;
        archive.into_inner()?.finish()?.finish()
    });
    let mut pieces = Vec::new();
    while let Some(plain) = told.recv().await {
        let name = format!("{name}.{:04}", pieces.len());
        let sealed = vault.seal(&name, &plain);
        let (bytes, sha256) = (sealed.len() as u64, hex::encode(Sha256::digest(&sealed)));
        shelf.put(&name, sealed).await?;
        pieces.push(Piece { name, bytes, sha256 });
    }
    joined(packing).await.map_err(|source| BackupError::Archive { attempt: "pack an archive", source })?;
    Ok(pieces)
}

/// What an archive is packed with.
pub(super) type Packer = GzEncoder<PieceWriter>;

/// Unpacks everything into a directory, and opens every piece, whatever becomes of it.
///
/// # Errors
/// When a piece is missing or was changed, or a file cannot be written.
pub async fn read_into(
    directory: &Path,
    shelf: &Shelf,
    vault: &Vault,
    pieces: &[Piece],
    progress: &Progress,
) -> Result<(), BackupError> {
    let directory = directory.to_owned();
    let unpack = move |archive: &mut tar::Archive<Unpacker>| {
        archive.set_preserve_permissions(true);
        archive.set_overwrite(false);
        for entry in archive.entries()? {
            let mut entry = entry?;
            if !entry.unpack_in(&directory)? {
                return Err(io::Error::other("the archive has a path that leaves its directory"));
            }
        }
        Ok(())
    };
    read(shelf, vault, pieces, progress, unpack).await
}

/// Reads an archive, and opens every piece, whatever becomes of it.
///
/// # Errors
/// When a piece is missing or was changed, or the archive cannot be read.
pub(super) async fn read<T: Send + 'static>(
    shelf: &Shelf,
    vault: &Vault,
    pieces: &[Piece],
    progress: &Progress,
    unpack: impl FnOnce(&mut tar::Archive<Unpacker>) -> io::Result<T> + Send + 'static,
) -> Result<T, BackupError> {
    let (tell, told) = mpsc::channel(1);
    let unpacking = spawn_blocking(move || {
        let mut archive = tar::Archive::new(GzDecoder::new(PieceReader { piece: Vec::new(), read: 0, told }));
        let value = unpack(&mut archive)?;
        // What follows the last file belongs to the checksum.
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
        Ok(value)
    });
    for piece in pieces {
        let sealed = shelf.get(&piece.name).await?;
        if hex::encode(Sha256::digest(&sealed)) != piece.sha256 {
            return Err(VaultError::Broken(piece.name.clone()).into());
        }
        let plain = vault.open(&piece.name, sealed)?;
        progress.add(piece.bytes);
        // Whoever unpacks may have failed already; what is broken is found all the same.
        let _ = tell.send(plain).await;
    }
    drop(tell);
    joined(unpacking).await.map_err(|source| BackupError::Archive { attempt: "unpack an archive", source })
}

/// What an archive is unpacked with.
pub(super) type Unpacker = GzDecoder<PieceReader>;

async fn joined<T>(task: JoinHandle<io::Result<T>>) -> io::Result<T> {
    task.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn add_directory(
    archive: &mut tar::Builder<Packer>,
    directory: &Path,
    below: &Path,
    progress: &Progress,
) -> io::Result<()> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(directory.join(below))?
        .map(|entry| entry.map(|entry| below.join(entry.file_name())))
        .collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        let path = directory.join(&name);
        let found = std::fs::symlink_metadata(&path)?;
        archive.append_path_with_name(&path, &name)?;
        if found.is_dir() {
            add_directory(archive, directory, &name, progress)?;
        } else {
            progress.add(found.len());
        }
    }
    Ok(())
}

/// Cuts what is written into pieces, and hands each over once it is full.
pub(super) struct PieceWriter {
    piece: Vec<u8>,
    tell: mpsc::Sender<Vec<u8>>,
}

impl PieceWriter {
    fn finish(mut self) -> io::Result<()> {
        self.hand_over()
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.tell.blocking_send(piece).map_err(|_| io::Error::other("the place of backups takes no more"))
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fitting = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..fitting]);
        if self.piece.len() == PIECE_BYTES {
            self.hand_over()?;
        }
        Ok(fitting)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads pieces as they come.
pub(super) struct PieceReader {
    piece: Vec<u8>,
    read: usize,
    told: mpsc::Receiver<Vec<u8>>,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            match self.told.blocking_recv() {
                Some(piece) => (self.piece, self.read) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.read);
        buffer[..count].copy_from_slice(&self.piece[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::backup::vault::Keyring;
    use crate::config::Secret;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_comes_back_as_it_was_and_a_piece_that_was_touched_is_refused() {
        let (from, to, place) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // Random bytes do not shrink, so that there is more than one piece.
        let noise: Vec<u8> = (0..PIECE_BYTES / 4 * 5).map(|_| rand::random()).collect();
        fs::create_dir_all(from.path().join("base/empty")).unwrap();
        fs::write(from.path().join("base/1"), &noise).unwrap();
        fs::write(from.path().join("PG_VERSION"), "15\n").unwrap();
        let shelf = Shelf::Directory(place.path().to_owned());
        let (_, vault) = Keyring::make("edge-1", &Secret::from("correct horse".to_owned())).unwrap();
        let progress = Progress::new();
        let pieces =
            write_directory(from.path(), &shelf, &vault, "backups/x/database", &progress).await.unwrap();
        assert_eq!(pieces.len(), 2);
        read_into(to.path(), &shelf, &vault, &pieces, &progress).await.unwrap();
        assert_eq!(fs::read(to.path().join("base/1")).unwrap(), noise);
        assert_eq!(fs::read_to_string(to.path().join("PG_VERSION")).unwrap(), "15\n");
        assert!(to.path().join("base/empty").is_dir());

        let last = place.path().join(&pieces[1].name);
        let mut bytes = fs::read(&last).unwrap();
        bytes[100] ^= 1;
        fs::write(&last, &bytes).unwrap();
        let again = tempfile::tempdir().unwrap();
        let error = read_into(again.path(), &shelf, &vault, &pieces, &progress).await.unwrap_err();
        assert!(error.to_string().contains("database.0001"), "{error}");
        fs::remove_file(&last).unwrap();
        let error = read_into(again.path(), &shelf, &vault, &pieces, &progress).await.unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

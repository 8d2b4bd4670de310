//! What belongs to a backup, and which backups a place has.
//!
//! ```text
//! keyring.json                      the key of the place, sealed with the passphrase
//! backups/ID/database.0000 …        the database, packed, in pieces
//! backups/ID/belongings.0000        the configuration and the kept secrets
//! backups/ID/SHA256SUMS             to check the pieces without the passphrase: sha256sum -c
//! backups/ID/manifest               the list of all of it; with it the backup is whole
//! images/ab/…                       images, each once for all backups that name it
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::{Read, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use schema::clock::Timestamp;
use schema::store::survey::Counts;
use serde::{Deserialize, Serialize};

use super::BackupError;
use super::images::{IMAGES, Image};
use super::pieces::Piece;
use super::shelf::Shelf;
use super::vault::{Keyring, Vault};
use crate::config::Secret;

/// The file of the key.
pub const KEYRING: &str = "keyring.json";
/// The only format there is so far.
pub const FORMAT: u32 = 1;
/// The folder of all backups.
const BACKUPS: &str = "backups";
/// The name of a manifest in its folder.
const MANIFEST: &str = "manifest";
/// How a backup is named: by the time it was begun.
const ID_FORMAT: &str = "%Y%m%dT%H%M%SZ";
/// Bytes of a manifest once it is unpacked: four million images.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What belongs to a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub(super) format: u32,
    /// Its name.
    pub id: String,
    /// The box.
    pub edge_id: String,
    /// The version of the program that wrote it.
    pub program: String,
    /// The version of its server, such as 15.
    pub postgres_major: u32,
    /// The moment that the copy of the database shows.
    pub database_at: Timestamp,
    /// Bytes of the database when it is unpacked.
    pub database_bytes: u64,
    /// What the database held a moment before it was copied.
    pub counts: Counts,
    /// The database.
    pub database: Vec<Piece>,
    /// The configuration and the kept secrets.
    pub belongings: Vec<Piece>,
    /// The images.
    pub images: Vec<Image>,
    /// Whether the images lie in a bucket, which is not copied.
    pub are_images_left_out: bool,
}

/// The name of a backup that is begun now.
#[must_use]
pub fn new_id(now: Timestamp) -> String {
    now.format(ID_FORMAT).to_string()
}

/// The folder of a backup.
#[must_use]
pub fn folder(id: &str) -> String {
    format!("{BACKUPS}/{id}")
}

/// Opens the key of a place.
///
/// # Errors
/// When there is none, or the passphrase is not its own.
pub async fn open(shelf: &Shelf, passphrase: &Secret) -> Result<Vault, BackupError> {
    let bytes = shelf.find(KEYRING).await?.ok_or(BackupError::NoBackup(None))?;
    Ok(Keyring::from_bytes(&bytes)?.open(passphrase)?)
}

/// A place of backups with its key.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a>(pub &'a Shelf, pub &'a Vault);

impl Place<'_> {
    /// The names of all whole backups, the newest first.
    ///
    /// # Errors
    /// When the place cannot be read.
    pub async fn ids(self) -> Result<Vec<String>, BackupError> {
        let names = self.0.list(BACKUPS).await?;
        let mut ids: Vec<String> =
            names.iter().filter_map(|name| whole_id(name)).map(str::to_owned).collect();
        ids.reverse();
        Ok(ids)
    }

    /// The manifest of a backup.
    ///
    /// # Errors
    /// When there is none, it was changed, or a newer program wrote it.
    pub async fn get(self, id: &str) -> Result<Manifest, BackupError> {
        let Self(shelf, vault) = self;
        let name = format!("{}/{MANIFEST}", folder(id));
        let sealed = shelf.find(&name).await?.ok_or_else(|| BackupError::NoBackup(Some(id.to_owned())))?;
        let packed = vault.open(&name, sealed)?;
        let mut text = Vec::new();
        let read = GzDecoder::new(packed.as_slice()).take(MANIFEST_BYTES_MAX).read_to_end(&mut text);
        read.map_err(|source| BackupError::Archive { attempt: "unpack the manifest", source })?;
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        if value["format"] != FORMAT {
            let program = value["program"].as_str().unwrap_or("of a version that cannot be read");
            return Err(BackupError::Newer(program.to_owned()));
        }
        serde_json::from_value(value).map_err(|error| BackupError::Newer(error.to_string()))
    }

    /// Writes a manifest, with which its backup is whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn put(self, manifest: &Manifest) -> Result<(), BackupError> {
        let Self(shelf, vault) = self;
        let folder = folder(&manifest.id);
        let sums = sums(manifest);
        shelf.put(&format!("{folder}/SHA256SUMS"), sums.into_bytes()).await?;
        let text = serde_json::to_vec(manifest).expect("texts, numbers and times become JSON");
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        let packed = packer.write_all(&text).and_then(|()| packer.finish());
        let name = format!("{folder}/{MANIFEST}");
        let sealed = vault.seal(&name, &packed.expect("memory can be written"));
        Ok(shelf.put(&name, sealed).await?)
    }

    /// Deletes what is not one of the newest `keep` backups, and images that none of them names. Says which backups went.
    ///
    /// # Errors
    /// When something cannot be read or deleted; the next time goes on.
    pub async fn prune(self, keep: usize) -> Result<Vec<String>, BackupError> {
        let Self(shelf, _) = self;
        let whole = self.ids().await?;
        let (kept, gone) = whole.split_at(keep.min(whole.len()));
        // First the manifests: a backup that is being deleted is not whole any more.
        for id in gone {
            shelf.delete(&format!("{}/{MANIFEST}", folder(id))).await?;
        }
        let mut is_any_gone = !gone.is_empty();
        for name in shelf.list(BACKUPS).await? {
            let id = name.split('/').nth(1).unwrap_or_default();
            if !kept.iter().any(|kept| kept == id) {
                shelf.delete(&name).await?;
                is_any_gone = true;
            }
        }
        if is_any_gone {
            self.prune_images(kept).await?;
        }
        Ok(gone.to_vec())
    }

    async fn prune_images(self, kept: &[String]) -> Result<(), BackupError> {
        let mut named = BTreeSet::new();
        for id in kept {
            named.extend(self.get(id).await?.images.into_iter().map(|image| image.object));
        }
        for name in self.0.list(IMAGES).await? {
            if !named.contains(&name) {
                self.0.delete(&name).await?;
            }
        }
        Ok(())
    }
}

/// The backup whose manifest has this name.
fn whole_id(name: &str) -> Option<&str> {
    name.strip_prefix(BACKUPS)?.strip_prefix('/')?.strip_suffix(MANIFEST)?.strip_suffix('/')
}

/// The checksums of the pieces, as `sha256sum -c` reads them.
fn sums(manifest: &Manifest) -> String {
    let mut text = String::new();
    for piece in manifest.belongings.iter().chain(&manifest.database) {
        let name = piece.name.rsplit('/').next().unwrap_or(&piece.name);
        let _ = writeln!(text, "{}  {name}", piece.sha256);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(id: &str, images: &[&str]) -> Manifest {
        let image = |object: &&str| Image {
            path: format!("t/f/b/s/{object}.jpg"),
            bytes: 1,
            modified_ns: 0,
            object: (*object).to_owned(),
        };
        Manifest {
            format: FORMAT,
            id: id.to_owned(),
            edge_id: "edge-1".to_owned(),
            program: "0.1.0".to_owned(),
            postgres_major: 15,
            database_at: schema::wire::time::parse("2026-11-30T11:30:00Z").unwrap(),
            database_bytes: 7,
            counts: Counts::default(),
            database: Vec::new(),
            belongings: Vec::new(),
            images: images.iter().map(image).collect(),
            are_images_left_out: false,
        }
    }

    #[tokio::test]
    async fn only_the_newest_backups_stay_and_the_images_that_they_name() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::Directory(directory.path().to_owned());
        let (_, vault) = Keyring::make("edge-1", &Secret::from("correct horse".to_owned())).unwrap();
        let place = Place(&shelf, &vault);
        for image in ["images/aa/1", "images/aa/2", "images/aa/3", "images/aa/stray"] {
            shelf.put(image, b"x".to_vec()).await.unwrap();
        }
        let backups: [(&str, &[&str]); 3] = [
            ("20261128T020000Z", &["images/aa/1"]),
            ("20261129T020000Z", &["images/aa/1", "images/aa/2"]),
            ("20261130T020000Z", &["images/aa/2", "images/aa/3"]),
        ];
        for (id, images) in backups {
            shelf.put(&format!("{}/database.0000", folder(id)), b"x".to_vec()).await.unwrap();
            place.put(&manifest(id, images)).await.unwrap();
        }
        shelf.put("backups/20261127T020000Z/database.0000", b"half".to_vec()).await.unwrap();
        assert_eq!(place.ids().await.unwrap(), ["20261130T020000Z", "20261129T020000Z", "20261128T020000Z"]);
        assert_eq!(place.prune(2).await.unwrap(), ["20261128T020000Z"]);
        assert_eq!(place.ids().await.unwrap(), ["20261130T020000Z", "20261129T020000Z"]);
        assert_eq!(shelf.list("images").await.unwrap(), ["images/aa/1", "images/aa/2", "images/aa/3"]);
        assert!(!directory.path().join("backups/20261127T020000Z").exists());
        place.prune(1).await.unwrap();
        assert_eq!(shelf.list("images").await.unwrap(), ["images/aa/2", "images/aa/3"]);
        assert!(matches!(place.get("20261129T020000Z").await, Err(BackupError::NoBackup(_))));
    }
}

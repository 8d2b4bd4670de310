//! Where backups lie: a directory, such as a mounted disk, or a bucket. Both hold objects under names with slashes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use actors::media::s3::S3Settings;
use actors::media::s3::archive::{Archive, ArchiveError};
use tokio::task::spawn_blocking;

use crate::config::{Backup, Secret};

/// How the address of a bucket begins.
const S3: &str = "s3://";
/// How the name of a file ends that is still being written.
const DRAFT: &str = ".part";

/// Why the place of backups cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Nobody says where backups go.
    #[error(
        "no place for backups is named: use --to (or --from) DIR or s3://BUCKET/PREFIX, or set backup.target"
    )]
    Unnamed,
    /// The directory is not there. It is not made, since it may be the place of a disk that is not mounted.
    #[error("there is no directory {}: mount its disk, or make it with `mkdir`", .0.display())]
    Absent(PathBuf),
    /// The address of the bucket is none.
    #[error("{0} is no address of a bucket: write it as s3://BUCKET/PREFIX")]
    Address(String),
    /// A file cannot be read or written.
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
    /// The bucket does not answer as it should.
    #[error(transparent)]
    Bucket(#[from] ArchiveError),
    /// An object that should be there is not.
    #[error("{0} is missing from the place of backups")]
    Missing(String),
}

/// A place of backups.
#[derive(Clone, Debug)]
pub enum Shelf {
    /// A directory.
    Directory(PathBuf),
    /// A bucket, and how all keys in it begin.
    Bucket(Box<Archive>, String),
}

impl Shelf {
    /// The place with this name, a directory or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// When there is no such directory, or the name is no address.
    pub fn open(target: Option<&str>, settings: &Backup) -> Result<Self, ShelfError> {
        let target = target.or(settings.target.as_deref()).ok_or(ShelfError::Unnamed)?;
        let Some(address) = target.strip_prefix(S3) else {
            let path = PathBuf::from(target);
            return if path.is_dir() { Ok(Self::Directory(path)) } else { Err(ShelfError::Absent(path)) };
        };
        let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
        if bucket.is_empty() {
            return Err(ShelfError::Address(target.to_owned()));
        }
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self::Bucket(Box::new(Archive::new(&bucket_settings(bucket, settings))), prefix))
    }

    /// The directory, where it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(root) => Some(root),
            Self::Bucket(..) => None,
        }
    }

    /// Writes an object, whole or not at all, so that it is there after a power cut.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn put(&self, name: &str, contents: Vec<u8>) -> Result<(), ShelfError> {
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                blocking("write", path, move |path| write(path, &contents)).await
            }
            Self::Bucket(archive, prefix) => Ok(archive.put(&format!("{prefix}{name}"), contents).await?),
        }
    }

    /// Reads an object; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn find(&self, name: &str) -> Result<Option<Vec<u8>>, ShelfError> {
        match self {
            Self::Directory(root) => {
                let read = |path: &Path| absent_as(None, fs::read(path).map(Some));
                blocking("read", root.join(name), read).await
            }
            Self::Bucket(archive, prefix) => Ok(archive.get(&format!("{prefix}{name}")).await?),
        }
    }

    /// Reads an object that is there.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub async fn get(&self, name: &str) -> Result<Vec<u8>, ShelfError> {
        self.find(name).await?.ok_or_else(|| ShelfError::Missing(name.to_owned()))
    }

    /// The names of all whole objects in a folder, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, ShelfError> {
        let mut names = match self {
            Self::Directory(root) => {
                let name = folder.to_owned();
                let list = move |path: &Path| {
                    let mut names = Vec::new();
                    absent_as((), collect(path, &name, &mut names)).map(|()| names)
                };
                blocking("list", root.join(folder), list).await?
            }
            Self::Bucket(archive, prefix) => {
                let keys = archive.list(&format!("{prefix}{folder}/")).await?;
                keys.iter().filter_map(|key| key.strip_prefix(prefix.as_str())).map(str::to_owned).collect()
            }
        };
        names.sort();
        Ok(names)
    }

    /// Deletes an object, if it is there.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn delete(&self, name: &str) -> Result<(), ShelfError> {
        match self {
            Self::Directory(root) => blocking("delete", root.join(name), delete).await,
            Self::Bucket(archive, prefix) => Ok(archive.delete(&format!("{prefix}{name}")).await?),
        }
    }
}

fn bucket_settings(bucket: &str, settings: &Backup) -> S3Settings {
    let text = |secret: &Option<Secret>| {
        secret.as_ref().map(|secret| secret.expose().to_owned()).unwrap_or_default()
    };
    S3Settings {
        endpoint: settings.endpoint.as_ref().map(|url| url.as_str().to_owned()),
        presign_endpoint: None,
        access_key: text(&settings.access_key),
        secret_key: text(&settings.secret_key),
        region: settings.region.clone(),
        bucket: bucket.to_owned(),
        is_bucket_made: false,
    }
}

async fn blocking<T: Send + 'static>(
    attempt: &'static str,
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, ShelfError> {
    let task = {
        let path = path.clone();
        spawn_blocking(move || work(&path))
    };
    let outcome = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    outcome.map_err(|source| ShelfError::File { attempt, path, source })
}

/// Written beside and renamed.
fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(DRAFT);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

/// Deletes a file, and its folder with the last one.
fn delete(path: &Path) -> io::Result<()> {
    absent_as((), fs::remove_file(path))?;
    if let Some(folder) = path.parent() {
        // It fails as long as something is in it.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

fn collect(folder: &Path, name: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(own) = entry.file_name().into_string() else { continue };
        let name = format!("{name}/{own}");
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &name, names)?;
        } else if !name.ends_with(DRAFT) {
            names.push(name);
        }
    }
    Ok(())
}

fn absent_as<T>(nothing: T, outcome: io::Result<T>) -> io::Result<T> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(nothing),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_keeps_objects_whole_and_lists_none_that_is_half_written() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().to_str().unwrap();
        let shelf = Shelf::open(Some(name), &crate::config::Config::default().backup).unwrap();
        assert_eq!(shelf.list("images").await.unwrap(), Vec::<String>::new());
        shelf.put("images/ab/2", b"two".to_vec()).await.unwrap();
        shelf.put("images/aa/1", b"one".to_vec()).await.unwrap();
        shelf.put("images/aa/1", b"again".to_vec()).await.unwrap();
        fs::write(directory.path().join("images/aa/3.part"), b"half").unwrap();
        assert_eq!(shelf.list("images").await.unwrap(), ["images/aa/1", "images/ab/2"]);
        assert_eq!(shelf.get("images/aa/1").await.unwrap(), b"again");
        shelf.delete("images/ab/2").await.unwrap();
        shelf.delete("images/ab/2").await.unwrap();
        assert!(!directory.path().join("images/ab").exists());
        assert_eq!(shelf.find("images/ab/2").await.unwrap(), None);
        assert!(matches!(shelf.get("images/ab/2").await, Err(ShelfError::Missing(_))));
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_made() {
        let settings = crate::config::Config::default().backup;
        let open = |target| Shelf::open(target, &settings);
        assert!(matches!(open(Some("/nowhere/usb")), Err(ShelfError::Absent(_))));
        assert!(matches!(open(None), Err(ShelfError::Unnamed)));
        assert!(matches!(open(Some("s3:///x")), Err(ShelfError::Address(_))));
        assert!(matches!(open(Some("s3://b/x/")), Ok(Shelf::Bucket(_, prefix)) if prefix == "x/"));
    }
}

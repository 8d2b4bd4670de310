//! The images of a directory: each is written once, and named by every backup that has it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::progress::Progress;
use super::shelf::Shelf;
use super::vault::{Vault, VaultError};
use super::{BackupError, failed};

/// The folder of all images in a place of backups.
pub(super) const IMAGES: &str = "images";

/// An image of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Where it lies below the root.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, in nanoseconds since 1970.
    pub modified_ns: u64,
    /// Its name in the place of backups.
    pub object: String,
}

/// What was written.
pub(super) struct Written {
    /// Every image there is.
    pub(super) images: Vec<Image>,
    /// How many of them the place did not have.
    pub(super) new: usize,
}

/// Writes all images that the place does not have.
pub(super) async fn write(
    root: &Path,
    shelf: &Shelf,
    vault: &Vault,
    progress: &Progress,
) -> Result<Written, BackupError> {
    progress.begins("looking for new images");
    let listed = {
        let root = root.to_owned();
        spawn_blocking(move || list(&root)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    };
    let listed = listed.map_err(failed("list the images in", root))?;
    let there: BTreeSet<String> = shelf.list(IMAGES).await?.into_iter().collect();
    progress.counts("writing images", listed.iter().map(|(_, bytes)| bytes).sum());
    let mut written = Written { images: Vec::with_capacity(listed.len()), new: 0 };
    for (path, bytes) in listed {
        progress.add(bytes);
        let place = root.join(&path);
        let known =
            measure(&place).map_err(failed("look at", &place))?.map(|found| image(&path, found, vault));
        // An image that went meanwhile was old enough, or expired.
        let Some(mut image) = known else { continue };
        if !there.contains(&image.object) {
            let Some((found, contents)) = read(&place).map_err(failed("read", &place))? else { continue };
            image = self::image(&path, found, vault);
            shelf.put(&image.object, vault.seal(&image.object, &contents)).await?;
            written.new += 1;
        }
        written.images.push(image);
    }
    Ok(written)
}

/// Writes all images of a backup below a root, each with the time it had.
pub(crate) async fn restore(
    root: &Path,
    images: &[Image],
    shelf: &Shelf,
    vault: &Vault,
    progress: &Progress,
) -> Result<(), BackupError> {
    for image in images {
        let place = place_of(root, &image.path).ok_or_else(|| VaultError::Broken(image.object.clone()))?;
        let contents = vault.open(&image.object, shelf.get(&image.object).await?)?;
        if contents.len() as u64 != image.bytes {
            return Err(VaultError::Broken(image.object.clone()).into());
        }
        put(&place, &contents, image.modified_ns).map_err(failed("write", &place))?;
        progress.add(image.bytes);
    }
    // One sync for all of them.
    let synced = File::open(root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
    synced.map_err(failed("sync", root))
}

/// The place of a path, which must be made of plain names.
fn place_of(root: &Path, path: &str) -> Option<PathBuf> {
    let is_plain =
        !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    is_plain.then(|| root.join(path))
}

fn put(place: &Path, contents: &[u8], modified_ns: u64) -> io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create_new(place)?;
    file.write_all(contents)?;
    file.set_modified(UNIX_EPOCH + Duration::from_nanos(modified_ns))
}

/// Size and time of a file.
#[derive(Clone, Copy)]
struct Found {
    bytes: u64,
    modified_ns: u64,
}

impl Found {
    fn of(metadata: &fs::Metadata) -> io::Result<Self> {
        let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { bytes: metadata.len(), modified_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) })
    }
}

fn image(path: &str, Found { bytes, modified_ns }: Found, vault: &Vault) -> Image {
    let name = vault.name_of(&format!("{path}\n{bytes}\n{modified_ns}"));
    let object = format!("{IMAGES}/{}/{name}", &name[..2]);
    Image { path: path.to_owned(), bytes, modified_ns, object }
}

fn measure(place: &Path) -> io::Result<Option<Found>> {
    match fs::metadata(place) {
        Ok(metadata) => Found::of(&metadata).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An image as one file handle shows it: a name may be given to another file meanwhile.
fn read(place: &Path) -> io::Result<Option<(Found, Vec<u8>)>> {
    let mut file = match File::open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = Found::of(&file.metadata()?)?;
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    Ok(Some((found, contents)))
}

/// Every file below the root with its size, in order. What begins with a dot is a marker, or still being written.
fn list(root: &Path) -> io::Result<Vec<(String, u64)>> {
    let (mut files, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            // Empty folders go when their last image does.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if name.starts_with('.') {
                continue;
            } else if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let bytes = entry.metadata().map_or(0, |found| found.len());
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::vault::Keyring;
    use crate::config::Secret;

    #[tokio::test]
    async fn an_image_is_written_once_and_comes_back_with_its_time() {
        let (root, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shelf = Shelf::Directory(place.path().to_owned());
        let (_, vault) = Keyring::make("edge-1", &Secret::from("correct horse".to_owned())).unwrap();
        let progress = Progress::new();
        let folder = root.path().join("t/f/b/s");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("1.jpg"), b"one").unwrap();
        fs::write(folder.join(".2.part"), b"half").unwrap();
        let first = write(root.path(), &shelf, &vault, &progress).await.unwrap();
        assert_eq!((first.images.len(), first.new), (1, 1));
        fs::write(folder.join("3.jpg"), b"three").unwrap();
        let second = write(root.path(), &shelf, &vault, &progress).await.unwrap();
        assert_eq!((second.images.len(), second.new), (2, 1));
        assert_eq!(second.images[0], first.images[0]);
        let sealed = fs::read(place.path().join(&first.images[0].object)).unwrap();
        assert!(!sealed.windows(3).any(|window| window == b"one"));

        let again = tempfile::tempdir().unwrap();
        restore(again.path(), &second.images, &shelf, &vault, &progress).await.unwrap();
        let (was, is) = (folder.join("3.jpg"), again.path().join("t/f/b/s/3.jpg"));
        assert_eq!(fs::read(&is).unwrap(), b"three");
        assert_eq!(measure(&is).unwrap().unwrap().modified_ns, measure(&was).unwrap().unwrap().modified_ns);

        let climbing = Image { path: "../x".to_owned(), ..second.images[0].clone() };
        assert!(restore(again.path(), &[climbing], &shelf, &vault, &progress).await.is_err());
    }
}

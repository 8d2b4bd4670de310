//! Small copies of images, for lists of them: made when somebody asks, kept in a directory of this engine up to so many
//! bytes, and gone with their image.
//!
//! One is made at a time, by a thread of its own, within the limits that inference has: a picture that would fill the
//! memory is refused by its header. Whoever asks waits for a turn, and only so many do; what devices send goes on beside it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::store::{MediaStore, MediaStoreError, ObjectRef, Part};
use crate::inference::image::{IMAGE_BYTES_MAX, ImageRefusal, decode};

/// The widths there are, pixels. A picture that is smaller is not made larger.
pub const WIDTHS: [u32; 4] = [160, 320, 640, 1280];
/// The quality of the copies, percent.
const JPEG_QUALITY: u8 = 80;
/// Calls that wait for a turn at most.
const WAITING_MAX: usize = 32;
/// The share of the limit down to which the oldest copies go when it is reached: a quarter of them is made room for.
const KEPT_OF_FOUR: u64 = 3;
/// Hex digits of a copy's name: 128 bits of a hash.
const NAME_DIGITS: usize = 32;
/// Begins the name of a copy that is being written.
const DRAFT: &str = ".draft-";

/// Makes and keeps small copies. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Thumbnails(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Where copies are kept; `None` when none are.
    shelf: Option<Shelf>,
    turn: Arc<Semaphore>,
    waiting: Semaphore,
}

/// Why there is no small copy.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// The image is not in the store.
    #[error("the image is not in the store")]
    Absent,
    /// Too many wait already.
    #[error("too many small copies are waited for")]
    Busy,
    /// The image cannot be decoded.
    #[error(transparent)]
    Refused(#[from] ImageRefusal),
    /// A decoder gave up in a way that it should not.
    #[error("the decoder failed")]
    DecoderFailed,
    /// The store of the images failed.
    #[error(transparent)]
    Media(#[from] MediaStoreError),
}

impl Thumbnails {
    /// Copies that are kept in a directory, of at most so many bytes together.
    #[must_use]
    pub fn new(directory: PathBuf, bytes_max: u64) -> Self {
        let shelf = Shelf { directory, bytes_max, used_bytes: Mutex::default() };
        Self::of((bytes_max > 0).then_some(shelf))
    }

    /// Copies that are made each time and kept nowhere.
    #[must_use]
    pub fn unkept() -> Self {
        Self::of(None)
    }

    fn of(shelf: Option<Shelf>) -> Self {
        let (turn, waiting) = (Arc::new(Semaphore::new(1)), Semaphore::new(WAITING_MAX));
        Self(Arc::new(Shared { shelf, turn, waiting }))
    }

    /// The JPEG copy of an image, of this width or, where that is less, of its own.
    ///
    /// # Errors
    /// [`ThumbnailError`].
    pub async fn show(
        &self,
        media: &dyn MediaStore,
        object: &ObjectRef,
        width: u32,
    ) -> Result<Bytes, ThumbnailError> {
        let key = object.object_key.as_str();
        if let Some(kept) = self.kept(key, width).await {
            return Ok(kept);
        }
        let _place = self.0.waiting.try_acquire().map_err(|_| ThumbnailError::Busy)?;
        let turn = Arc::clone(&self.0.turn).acquire_owned().await.expect("nobody closes it");
        // Somebody may have asked for the same a moment ago.
        if let Some(kept) = self.kept(key, width).await {
            return Ok(kept);
        }
        let picture = read(media, object).await?;
        let work = spawn_blocking(move || {
            // The turn lasts as long as the work, whoever waits for it.
            let _turn = turn;
            shrink(&picture, width)
        });
        let copy = work.await.map_err(|error| {
            tracing::error!(object_key = key, %error, "a decoder gave up on an image");
            ThumbnailError::DecoderFailed
        })??;
        if self.keep(key, width, copy.clone()).await && media.head(object).await?.is_none() {
            // The image went while its copy was made.
            self.forget(key).await;
        }
        Ok(copy)
    }

    /// Removes the copies of an image that is deleted; says how many bytes each freed.
    pub async fn forget(&self, object_key: &str) -> Vec<u64> {
        let work = {
            let object_key = object_key.to_owned();
            move |shelf: &Shelf| shelf.forget(&object_key)
        };
        self.on_shelf(work).await.unwrap_or_default()
    }

    async fn kept(&self, object_key: &str, width: u32) -> Option<Bytes> {
        let name = name(object_key, width);
        self.on_shelf(move |shelf| fs::read(shelf.place(&name)).ok().map(Bytes::from)).await?
    }

    /// Keeps a copy; whoever asks gets it also when that fails.
    async fn keep(&self, object_key: &str, width: u32, copy: Bytes) -> bool {
        let name = name(object_key, width);
        let kept = self.on_shelf(move |shelf| shelf.keep(&name, &copy)).await;
        kept.is_some_and(|kept| {
            kept.inspect_err(|error| tracing::warn!(%error, "a small copy of an image could not be kept"))
                .is_ok()
        })
    }

    /// Does file work off the threads that serve; `None` without a shelf.
    async fn on_shelf<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> T + Send + 'static,
    ) -> Option<T> {
        self.0.shelf.as_ref()?;
        let shared = Arc::clone(&self.0);
        let work = spawn_blocking(move || shared.shelf.as_ref().map(work));
        work.await.expect("file work does not panic")
    }
}

/// Reads an image that is no larger than what is decoded.
async fn read(media: &dyn MediaStore, object: &ObjectRef) -> Result<Vec<u8>, ThumbnailError> {
    let mut open = media.open(object, Part::Whole).await?.ok_or(ThumbnailError::Absent)?;
    let too_large = |bytes| ThumbnailError::Refused(ImageRefusal::TooManyBytes { bytes });
    if open.meta.size_bytes > IMAGE_BYTES_MAX as u64 {
        return Err(too_large(open.meta.size_bytes));
    }
    let mut picture = Vec::new();
    while let Some(chunk) = open.body.chunk().await? {
        picture.extend_from_slice(&chunk);
        if picture.len() > IMAGE_BYTES_MAX {
            return Err(too_large(picture.len() as u64));
        }
    }
    Ok(picture)
}

/// The small copy of a picture, standing as its EXIF data says.
fn shrink(picture: &[u8], width: u32) -> Result<Bytes, ImageRefusal> {
    let image = decode(picture, true)?;
    let small = if image.width() > width { image.thumbnail(width, u32::MAX) } else { image };
    let mut copy = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut copy, JPEG_QUALITY);
    small.to_rgb8().write_with_encoder(encoder).map_err(ImageRefusal::Undecodable)?;
    Ok(copy.into())
}

/// The name of a copy. The key of an image is its identity, and has characters that file names should not have.
fn name(object_key: &str, width: u32) -> String {
    format!("{}-{width}.jpg", stem(object_key))
}

fn stem(object_key: &str) -> String {
    let mut digits = hex::encode(Sha256::digest(object_key));
    digits.truncate(NAME_DIGITS);
    digits
}

/// A directory of copies.
#[derive(Debug)]
struct Shelf {
    directory: PathBuf,
    bytes_max: u64,
    /// `None` until it was counted.
    used_bytes: Mutex<Option<u64>>,
}

/// A copy that lies on the shelf.
struct Kept {
    path: PathBuf,
    bytes: u64,
    made_at: SystemTime,
}

impl Shelf {
    /// Copies are spread over 256 directories.
    fn place(&self, name: &str) -> PathBuf {
        self.directory.join(&name[..2]).join(name)
    }

    fn keep(&self, name: &str, copy: &[u8]) -> io::Result<()> {
        let mut used_bytes = self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place(name);
        let directory = place.parent().unwrap_or(&self.directory);
        fs::create_dir_all(directory)?;
        let draft = directory.join(format!("{DRAFT}{name}"));
        let written = fs::write(&draft, copy).and_then(|()| fs::rename(&draft, &place));
        written.inspect_err(|_| drop(fs::remove_file(&draft)))?;
        // What is counted has the new one already.
        let added = match *used_bytes {
            Some(used) => used.saturating_add(copy.len() as u64),
            None => self.copies()?.iter().map(|copy| copy.bytes).sum(),
        };
        *used_bytes = Some(if added > self.bytes_max { self.make_room()? } else { added });
        Ok(())
    }

    fn forget(&self, object_key: &str) -> Vec<u64> {
        let mut used_bytes = self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let remove = |width: u32| {
            let place = self.place(&name(object_key, width));
            let bytes = fs::metadata(&place).ok()?.len();
            fs::remove_file(&place).ok().map(|()| bytes)
        };
        let freed: Vec<u64> = WIDTHS.into_iter().filter_map(remove).collect();
        *used_bytes = used_bytes.map(|used| used.saturating_sub(freed.iter().sum()));
        freed
    }

    /// Removes the oldest copies until a quarter of the limit is free; says how many bytes are left.
    fn make_room(&self) -> io::Result<u64> {
        let mut copies = self.copies()?;
        copies.sort_by_key(|copy| copy.made_at);
        let mut used: u64 = copies.iter().map(|copy| copy.bytes).sum();
        let goal = self.bytes_max / 4 * KEPT_OF_FOUR;
        for copy in copies {
            if used <= goal {
                break;
            }
            fs::remove_file(&copy.path)?;
            used -= copy.bytes;
        }
        Ok(used)
    }

    fn copies(&self) -> io::Result<Vec<Kept>> {
        let mut copies = Vec::new();
        for directory in entries(&self.directory)? {
            if !directory.file_type()?.is_dir() {
                continue;
            }
            for file in entries(&directory.path())? {
                let meta = file.metadata()?;
                if meta.is_file() {
                    let made_at = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    copies.push(Kept { path: file.path(), bytes: meta.len(), made_at });
                }
            }
        }
        Ok(copies)
    }
}

/// The entries of a directory; none of one that is not there.
fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;

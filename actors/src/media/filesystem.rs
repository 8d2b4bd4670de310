//! Images in a directory: written beside their place, made durable, and renamed into it.
//!
//! A path below the root is made of ids that were cleaned before, and is checked again here: no text of a client
//! reaches the file system unchanged.

use std::fs;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use schema::clock::Timestamp;
use schema::id::{Uuid, new_id};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;

use super::name::DRAFT_SUFFIX;
use super::store::{
    ListedObject, MARKER, MediaStore, MediaStoreError, ObjectBody, ObjectMeta, ObjectRef, OpenObject, Part,
    UploadOffer,
};

/// Bytes of one chunk when an image is read.
const CHUNK_BYTES: usize = 64 * 1024;
/// How often a directory is made again that a deletion removed at the same time.
const MAKE_ATTEMPTS_MAX: u32 = 3;

/// How the directory is used.
#[derive(Clone)]
pub struct FilesystemSettings {
    /// The directory.
    pub root: PathBuf,
    /// Address of this box as devices see it, without a slash at the end.
    pub public_base_url: String,
    /// What signs upload URLs: never logged.
    pub upload_secret: String,
}

/// A directory of images. Cloning shares it.
#[derive(Clone)]
pub struct FilesystemStore(Arc<FilesystemSettings>);

impl FilesystemStore {
    /// A store in a directory, which is made when it is first needed.
    #[must_use]
    pub fn new(settings: FilesystemSettings) -> Self {
        Self(Arc::new(settings))
    }

    /// Whether an upload URL carries our signature for this image; compared in constant time.
    #[must_use]
    pub fn is_signed(&self, upload: SignedUpload<'_>, signature_hex: &str) -> bool {
        // Hex has two spellings of a digit; ours is the lower one.
        let is_lower = !signature_hex.bytes().any(|byte| byte.is_ascii_uppercase());
        hex::decode(signature_hex)
            .is_ok_and(|signature| is_lower && self.mac(upload).verify_slice(&signature).is_ok())
    }

    /// Begins to write the image that will lie at `path`. Whatever lies there stays until the commit.
    ///
    /// # Errors
    /// When the directory cannot be written, or has no room.
    pub async fn begin(&self, path: &str) -> Result<Draft, MediaStoreError> {
        let target = self.place(path)?;
        let root = self.0.root.clone();
        let (draft, file) = blocking("begin an image", move || make_draft(&root, &target)).await?;
        Ok(Draft { file: File::from_std(file), paths: draft, hash: Sha256::new(), size_bytes: 0 })
    }

    fn mac(&self, upload: SignedUpload<'_>) -> Hmac<Sha256> {
        let SignedUpload { media_id, object_key, content_type, expires } = upload;
        let secret = self.0.upload_secret.as_bytes();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length is good");
        mac.update(format!("PUT\n{media_id}\n{object_key}\n{content_type}\n{expires}").as_bytes());
        mac
    }

    /// The place of a path below the root, which must be made of plain names.
    fn place(&self, path: &str) -> Result<PathBuf, MediaStoreError> {
        let is_plain = !path.is_empty()
            && !path.contains('\0')
            && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_plain {
            return Err(MediaStoreError::unavailable("find an image", "its path leaves the directory"));
        }
        Ok(self.0.root.join(path))
    }

    fn place_of(&self, object: &ObjectRef) -> Result<Option<PathBuf>, MediaStoreError> {
        object.path.as_deref().map(|path| self.place(path)).transpose()
    }
}

/// What the signature of an upload URL covers.
#[derive(Clone, Copy, Debug)]
pub struct SignedUpload<'a> {
    /// The image.
    pub media_id: Uuid,
    /// Its key.
    pub object_key: &'a str,
    /// Its type.
    pub content_type: &'a str,
    /// When the URL expires, seconds since the epoch.
    pub expires: i64,
}

#[async_trait]
impl MediaStore for FilesystemStore {
    async fn upload_url(&self, offer: UploadOffer<'_>) -> Result<String, MediaStoreError> {
        let UploadOffer { media_id, object_key, content_type, expires_at, .. } = offer;
        let expires = expires_at.timestamp();
        let mac = self.mac(SignedUpload { media_id, object_key, content_type, expires });
        let signature = hex::encode(mac.finalize().into_bytes());
        let base = &self.0.public_base_url;
        Ok(format!("{base}/api/v1/media/uploads/{media_id}?expires={expires}&signature={signature}"))
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectMeta>, MediaStoreError> {
        let Some(place) = self.place_of(object)? else { return Ok(None) };
        blocking("look at an image", move || absent_as_none(file_meta(&place))).await
    }

    async fn open(&self, object: &ObjectRef, part: Part) -> Result<Option<OpenObject>, MediaStoreError> {
        let Some(place) = self.place_of(object)? else { return Ok(None) };
        let open = move || absent_as_none(open_at(&place, part.first_byte()));
        let Some((size_bytes, file)) = blocking("open an image", open).await? else { return Ok(None) };
        let meta = ObjectMeta { size_bytes, etag: None, content_type: None };
        let left_bytes = part.bytes_of(size_bytes);
        Ok(Some(OpenObject { meta, body: Box::new(FileBody { file: File::from_std(file), left_bytes }) }))
    }

    async fn delete(&self, object: &ObjectRef) -> Result<Option<u64>, MediaStoreError> {
        let Some(place) = self.place_of(object)? else { return Ok(None) };
        let root = self.0.root.clone();
        blocking("delete an image", move || absent_as_none(delete_file(&root, &place))).await
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<ListedObject>, MediaStoreError> {
        let (root, after) = (self.0.root.clone(), after.map(PathBuf::from).unwrap_or_default());
        let list = move || {
            let mut found = Vec::new();
            collect(&root, Path::new(""), &after, limit, &mut found)?;
            Ok(found)
        };
        blocking("list the images", list).await
    }

    async fn put_marker(&self, text: &str) -> Result<(), MediaStoreError> {
        let mut draft = self.begin(MARKER).await?;
        draft.write(text.as_bytes()).await?;
        draft.finish().await?.commit().await
    }

    async fn probe(&self) -> Result<(), MediaStoreError> {
        let root = self.0.root.clone();
        let probe = move || {
            use rustix::fs::{Access, access};
            fs::create_dir_all(&root)?;
            Ok(access(&root, Access::WRITE_OK | Access::EXEC_OK)?)
        };
        blocking("write to the directory of images", probe).await
    }

    fn is_directory(&self) -> bool {
        true
    }
}

/// An image that is being written. Dropped before its commit, it leaves nothing behind.
pub struct Draft {
    file: File,
    paths: DraftPaths,
    hash: Sha256,
    size_bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its size.
    pub size_bytes: u64,
    /// Hex SHA-256 of its bytes.
    pub sha256: String,
}

impl Draft {
    /// Adds bytes.
    ///
    /// # Errors
    /// When they cannot be written, or there is no room for them.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), MediaStoreError> {
        self.hash.update(chunk);
        self.size_bytes += chunk.len() as u64;
        self.file.write_all(chunk).await.map_err(failed("write an image"))
    }

    /// What was written so far.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn content(&mut self) -> Result<Vec<u8>, MediaStoreError> {
        const ATTEMPT: &str = "read an image that is being written";
        self.file.flush().await.map_err(failed(ATTEMPT))?;
        let draft = self.paths.draft.clone();
        blocking(ATTEMPT, move || fs::read(draft)).await
    }

    /// Ends the writing: what was written is durable now, under a name that nobody looks for.
    ///
    /// # Errors
    /// As for [`Draft::write`].
    pub async fn finish(mut self) -> Result<FinishedDraft, MediaStoreError> {
        self.file.flush().await.map_err(failed("write an image"))?;
        self.file.sync_all().await.map_err(failed("make an image durable"))?;
        let written = Written { size_bytes: self.size_bytes, sha256: hex::encode(self.hash.finalize()) };
        Ok(FinishedDraft { paths: self.paths, written })
    }
}

/// An image that is written and not yet in its place. Dropped before its commit, it leaves nothing behind.
pub struct FinishedDraft {
    paths: DraftPaths,
    /// What was written.
    pub written: Written,
}

impl FinishedDraft {
    /// Puts the image into its place, where it replaces what lay there.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub async fn commit(self) -> Result<(), MediaStoreError> {
        let mut paths = self.paths;
        blocking("put an image into its place", move || {
            fs::rename(&paths.draft, &paths.target)?;
            paths.is_committed = true;
            sync_directory(parent(&paths.target))
        })
        .await
    }
}

struct DraftPaths {
    draft: PathBuf,
    target: PathBuf,
    is_committed: bool,
}

impl Drop for DraftPaths {
    fn drop(&mut self) {
        if !self.is_committed {
            // One short call; retention removes what a crash or a failure leaves.
            drop(fs::remove_file(&self.draft));
        }
    }
}

struct FileBody {
    file: File,
    /// Of the part that was asked for.
    left_bytes: u64,
}

#[async_trait]
impl ObjectBody for FileBody {
    async fn chunk(&mut self) -> Result<Option<Bytes>, MediaStoreError> {
        let left_bytes = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES.min(left_bytes)).limit(left_bytes);
        let read = self.file.read_buf(&mut chunk).await.map_err(failed("read an image"))?;
        self.left_bytes -= read as u64;
        Ok((read > 0).then(|| chunk.into_inner().freeze()))
    }
}

/// Runs work that may wait for a disk outside the runtime's own threads.
async fn blocking<T: Send + 'static>(
    attempt: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, MediaStoreError> {
    spawn_blocking(work).await.expect("the work does not panic").map_err(failed(attempt))
}

fn failed(attempt: &'static str) -> impl FnOnce(io::Error) -> MediaStoreError {
    move |source| {
        let is_full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
        if is_full.contains(&source.kind()) {
            return MediaStoreError::Full { attempt, source };
        }
        MediaStoreError::unavailable(attempt, source)
    }
}

fn absent_as_none<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn file_meta(place: &Path) -> io::Result<ObjectMeta> {
    let size_bytes = file_size(&fs::File::open(place)?)?;
    Ok(ObjectMeta { size_bytes, etag: None, content_type: None })
}

fn open_at(place: &Path, first_byte: u64) -> io::Result<(u64, fs::File)> {
    let mut file = fs::File::open(place)?;
    let size_bytes = file_size(&file)?;
    file.seek(SeekFrom::Start(first_byte))?;
    Ok((size_bytes, file))
}

fn file_size(file: &fs::File) -> io::Result<u64> {
    let meta = file.metadata()?;
    if meta.is_file() { Ok(meta.len()) } else { Err(ErrorKind::NotFound.into()) }
}

/// Makes the file that is written to, in the directory of its target so that it can be renamed.
fn make_draft(root: &Path, target: &Path) -> io::Result<(DraftPaths, fs::File)> {
    let draft = parent(target).join(format!(".{}{DRAFT_SUFFIX}", new_id()));
    let mut attempt = 1;
    loop {
        make_directories(root, parent(target))?;
        match fs::OpenOptions::new().write(true).create_new(true).open(&draft) {
            Err(error) if error.kind() == ErrorKind::NotFound && attempt < MAKE_ATTEMPTS_MAX => attempt += 1,
            outcome => {
                let paths = DraftPaths { draft, target: target.to_owned(), is_committed: outcome.is_err() };
                return Ok((paths, outcome?));
            }
        }
    }
}

/// Makes the directories from the root down to `directory`, each of them durable.
fn make_directories(root: &Path, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let mut place = root.to_owned();
    for part in directory.strip_prefix(root).expect("a place lies below the root").components() {
        let above = place.clone();
        place.push(part);
        match fs::create_dir(&place) {
            Ok(()) => sync_directory(&above)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn delete_file(root: &Path, place: &Path) -> io::Result<u64> {
    let size_bytes = file_size(&fs::File::open(place)?)?;
    fs::remove_file(place)?;
    // Directories go with their last image; one that is not empty refuses.
    let above = place.ancestors().skip(1).take_while(|above| *above != root);
    for directory in above {
        if fs::remove_dir(directory).is_err() {
            break;
        }
    }
    Ok(size_bytes)
}

/// Adds the files below `directory`, which is relative to the root, that come after `after`, until there are `limit`.
fn collect(
    root: &Path,
    directory: &Path,
    after: &Path,
    limit: usize,
    found: &mut Vec<ListedObject>,
) -> io::Result<()> {
    let Some(entries) = absent_as_none(fs::read_dir(root.join(directory)))? else { return Ok(()) };
    let mut entries: Vec<_> = entries.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if found.len() >= limit {
            return Ok(());
        }
        let place = directory.join(entry.file_name());
        let is_behind = place.as_path() > after;
        if entry.file_type()?.is_dir() {
            if is_behind || after.starts_with(&place) {
                collect(root, &place, after, limit, found)?;
            }
        } else if is_behind && let Some(listed) = listed(&entry, &place)? {
            found.push(listed);
        }
    }
    Ok(())
}

/// A file of a listing; `None` for what is no file, has no name of ours, or has just been deleted.
fn listed(entry: &fs::DirEntry, place: &Path) -> io::Result<Option<ListedObject>> {
    let Some(meta) = absent_as_none(entry.metadata())?.filter(fs::Metadata::is_file) else { return Ok(None) };
    let Some(place) = place.to_str() else { return Ok(None) };
    let modified_at = Timestamp::from(meta.modified()?);
    Ok(Some(ListedObject { place: place.to_owned(), size_bytes: meta.len(), modified_at }))
}

fn parent(place: &Path) -> &Path {
    place.parent().expect("a place lies below the root")
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;

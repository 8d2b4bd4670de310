//! What is generated once and kept in the data directory: the name of the box, and secrets of its own.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::value::Secret;

/// Random bytes in a generated secret.
const SECRET_BYTES: usize = 32;
/// Bytes of the shortest secret that is used.
pub const SECRET_BYTES_MIN: usize = 32;
/// Nobody else may read what is kept.
const MODE: u32 = 0o600;

/// A generated value could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("nothing can be kept in {path}")]
pub struct KeptError {
    path: PathBuf,
    source: io::Error,
}

/// A value that is kept, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<T> {
    /// The value.
    pub value: T,
    /// Whether it was there.
    pub origin: KeptOrigin,
}

/// Where a kept value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptOrigin {
    /// It was kept by an earlier start.
    Found,
    /// There was none, so it was made.
    Made,
    /// What was there was empty or too short to be used, so it was made anew.
    MadeAnew,
}

/// The secret of this name in the directory; the first call makes it. One that is too short to be safe is never used.
///
/// # Errors
/// When the directory cannot be made, read or written.
pub fn kept_secret(directory: &Path, name: &str) -> Result<Kept<Secret>, KeptError> {
    let generate = || hex::encode(rand::random::<[u8; SECRET_BYTES]>());
    let is_fit = |text: &str| text.len() >= SECRET_BYTES_MIN;
    let Kept { value, origin } = kept(&directory.join(name), generate, is_fit)?;
    Ok(Kept { value: Secret::from(value), origin })
}

/// The generated name of this box.
pub(super) fn kept_name(directory: &Path) -> Result<Kept<String>, KeptError> {
    let generate = || format!("edge-{}", hex::encode(rand::random::<[u8; 4]>()));
    kept(&directory.join("edge-id"), generate, schema::id::is_id)
}

fn kept(
    path: &Path,
    generate: impl FnOnce() -> String,
    is_fit: impl FnOnce(&str) -> bool,
) -> Result<Kept<String>, KeptError> {
    read_or_make(path, generate, is_fit).map_err(|source| KeptError { path: path.to_owned(), source })
}

fn read_or_make(
    path: &Path,
    generate: impl FnOnce() -> String,
    is_fit: impl FnOnce(&str) -> bool,
) -> io::Result<Kept<String>> {
    // Bytes, since a torn file need not be a text.
    let origin = match fs::read(path) {
        Ok(bytes) => match std::str::from_utf8(&bytes).map(str::trim) {
            Ok(text) if is_fit(text) => {
                return Ok(Kept { value: text.to_owned(), origin: KeptOrigin::Found });
            }
            Ok(_) | Err(_) => KeptOrigin::MadeAnew,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => KeptOrigin::Made,
        Err(error) => return Err(error),
    };
    let value = generate();
    write(path, &value)?;
    Ok(Kept { value, origin })
}

/// Written beside and renamed, so that a crash never leaves half a secret behind.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
    // The draft may be there from before, with another mode.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(value.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(directory: &Path, contents: Option<&[u8]>) -> (KeptOrigin, String) {
        let path = directory.join("secret");
        if let Some(contents) = contents {
            fs::write(&path, contents).expect("a file can be written");
        }
        let kept = kept_secret(directory, "secret").expect("the directory can be written");
        (kept.origin, kept.value.expose().to_owned())
    }

    #[test]
    fn a_secret_is_made_once_and_one_that_is_empty_or_short_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let (origin, first) = fate(directory.path(), None);
        assert_eq!((origin, first.len()), (KeptOrigin::Made, 64));
        assert_eq!(fate(directory.path(), None), (KeptOrigin::Found, first.clone()));
        for torn in [b"".as_slice(), b" \n", b"0123456789abcdef0123456789abcde\n", b"\xff\xfe"] {
            let (origin, value) = fate(directory.path(), Some(torn));
            assert_eq!((origin, value.len()), (KeptOrigin::MadeAnew, 64), "{torn:?}");
            assert_ne!(value, first);
            assert_eq!(fate(directory.path(), None), (KeptOrigin::Found, value));
        }
        let mode = fs::metadata(directory.path().join("secret")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_name_that_is_none_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        for torn in ["", "a/b"] {
            fs::write(directory.path().join("edge-id"), torn).expect("a file can be written");
            let kept = kept_name(directory.path()).expect("the directory can be written");
            assert!(kept.origin == KeptOrigin::MadeAnew && kept.value.starts_with("edge-"), "{kept:?}");
        }
    }
}

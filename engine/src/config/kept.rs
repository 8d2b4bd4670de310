//! What is generated once and kept in the data directory: the name of the box, and secrets of its own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::value::Secret;

/// Random bytes in a generated secret.
const SECRET_BYTES: usize = 32;

/// A generated value could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("nothing can be kept in {path}")]
pub struct KeptError {
    path: PathBuf,
    source: io::Error,
}

/// The secret of this name in the directory; the first call makes it.
///
/// # Errors
/// When the directory cannot be made, read or written.
pub fn kept_secret(directory: &Path, name: &str) -> Result<Secret, KeptError> {
    kept(&directory.join(name), || hex::encode(rand::random::<[u8; SECRET_BYTES]>())).map(Secret::from)
}

/// The generated name of this box.
pub(super) fn kept_name(directory: &Path) -> Result<String, KeptError> {
    kept(&directory.join("edge-id"), || format!("edge-{}", hex::encode(rand::random::<[u8; 4]>())))
}

fn kept(path: &Path, generate: impl FnOnce() -> String) -> Result<String, KeptError> {
    read_or_make(path, generate).map_err(|source| KeptError { path: path.to_owned(), source })
}

fn read_or_make(path: &Path, generate: impl FnOnce() -> String) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map(|text| text.trim().to_owned()),
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // Written beside and renamed, so that a crash never leaves half a secret behind.
    let draft = path.with_extension("draft");
    let value = generate();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(value.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(value)
}

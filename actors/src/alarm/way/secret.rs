//! Secrets of ways: each in a file of its own, read anew for every message, so that a changed one counts at once. What is
//! read is never shown.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::{Failure, WayError};

/// Bytes of a secret.
const SECRET_BYTES_MAX: usize = 16 * 1024;

/// The text of the file without the line break at its end; `None` when no file is named.
///
/// # Errors
/// When it cannot be read, or there is nothing in it.
pub(super) async fn read(way: &str, path: Option<&PathBuf>) -> Result<Option<String>, WayError> {
    let Some(path) = path else { return Ok(None) };
    let read = tokio::fs::read_to_string(path).await.map_err(|error| broken(way, path, error))?;
    let secret = read.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
        return Err(broken(way, path, format!("it holds none, or more than {SECRET_BYTES_MAX} bytes")));
    }
    Ok(Some(secret.to_owned()))
}

fn broken(way: &str, path: &Path, error: impl Display) -> WayError {
    let what = format!("the secret in {} cannot be used: {error}", path.display());
    WayError::new(way, Failure::Broken, what, "write it there, readable for the user of the engine alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_the_text_of_its_file_and_what_is_wrong_is_said_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let missing = read("phones", Some(&path)).await.unwrap_err();
        assert!(missing.failure == Failure::Broken && missing.what.contains("token"), "{missing}");
        std::fs::write(&path, "hush\r\n").unwrap();
        assert_eq!(read("phones", Some(&path)).await.unwrap().as_deref(), Some("hush"));
        std::fs::write(&path, "\n").unwrap();
        assert!(read("phones", Some(&path)).await.is_err());
        assert_eq!(read("phones", None).await.unwrap(), None);
    }
}

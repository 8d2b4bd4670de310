//! Programs of others that the tests use, installed with Python's package manager.

use std::path::{Path, PathBuf};

/// A program of the tests' own Python environment.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin").join(name);
    assert!(
        program.exists(),
        "{name} is not installed: run `make test`, or python3 -m venv target/venv && \
         target/venv/bin/pip install -r tests/requirements.txt"
    );
    program
}

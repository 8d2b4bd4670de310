//! A wall clock for one process that the test sets while the process runs: libfaketime, preloaded. The monotonic clock
//! stays the machine's.

use std::path::{Path, PathBuf};

use chrono::Duration;
use tempfile::NamedTempFile;

use crate::settings::Settings;

/// Where Debian and Ubuntu put the library, below the directory of the architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clock. It runs on from whatever it was set to.
pub struct FakeTime {
    file: NamedTempFile,
}

impl FakeTime {
    /// A clock that is off by so much.
    ///
    /// # Panics
    /// When there is no room for a file.
    #[must_use]
    pub fn off_by(offset: Duration) -> Self {
        let clock = Self { file: NamedTempFile::new().expect("a file can be made") };
        clock.set(offset);
        clock
    }

    /// Sets the clock: how far it is ahead of the machine's.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, offset: Duration) {
        let next = self.file.path().with_extension("next");
        std::fs::write(&next, format!("{:+}\n", offset.num_seconds())).expect("a file can be written");
        std::fs::rename(&next, self.file.path()).expect("a file can be replaced");
    }

    /// Has a process live by this clock.
    #[must_use]
    pub fn of(&self, settings: Settings) -> Settings {
        settings
            .with_variable("LD_PRELOAD", &library().display().to_string())
            .with_variable("FAKETIME_TIMESTAMP_FILE", &self.file.path().display().to_string())
            .with_variable("FAKETIME_NO_CACHE", "1")
            .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .with_variable("DONT_FAKE_MONOTONIC", "1")
    }
}

fn library() -> PathBuf {
    let directories = std::fs::read_dir("/usr/lib").expect("the system has libraries");
    let mut candidates = directories.flatten().map(|directory| directory.path().join(LIBRARY));
    candidates.find(|path| Path::exists(path)).expect("libfaketime is installed: deploy/prerequisites test")
}

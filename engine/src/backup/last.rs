//! When the last backup was written: a file in the data directory, which the running engine reads for its metric.

use std::fs;
use std::path::Path;

use schema::clock::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BackupError, Report, failed};

/// The name of the file.
pub const FILE: &str = "last-backup.json";

/// The last backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastBackup {
    /// Its name.
    pub id: String,
    /// The moment that it shows.
    pub database_at: Timestamp,
}

impl LastBackup {
    pub(super) fn of(report: &Report) -> Self {
        Self { id: report.id.clone(), database_at: report.database_at }
    }

    pub(super) fn write(&self, data_dir: &Path) -> Result<(), BackupError> {
        let path = data_dir.join(FILE);
        let draft = path.with_extension("draft");
        let text = serde_json::to_vec(self).expect("texts and times become JSON");
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path));
        written.map_err(failed("write", &path))
    }

    /// The last backup of a box; `None` when there is none that is known here.
    #[must_use]
    pub fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(data_dir.join(FILE)).ok()?).ok()
    }
}

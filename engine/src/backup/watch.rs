//! The watch over the age of the last backup, which is a metric of the running engine.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use actors::chore::Chore;
use schema::clock::Clock;
use schema::metrics;

use super::last::LastBackup;

/// Shows how old the last backup is.
#[derive(Clone)]
pub(crate) struct BackupWatch {
    /// Where the last backup is noted.
    pub(crate) data_dir: PathBuf,
    /// Wall time.
    pub(crate) clock: Clock,
    /// Seconds between two looks.
    pub(crate) check_seconds: u64,
}

impl Chore for BackupWatch {
    const NAME: &'static str = "backup";
    type Error = Infallible;

    async fn run(&mut self) -> Result<Duration, Infallible> {
        let age = LastBackup::read(&self.data_dir).map(|last| self.clock.now() - last.database_at);
        let seconds = age.map_or(metrics::UNKNOWN, |age| age.as_seconds_f64().max(0.0));
        metrics::backup_age_seconds().set(seconds);
        Ok(Duration::from_secs(self.check_seconds))
    }
}

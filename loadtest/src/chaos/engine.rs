//! An engine of a run, told everything by its environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use super::cluster::free_address;
use super::process::{Process, Recipe};
use crate::bench::process::{open_files, resident_kib};
use crate::http;

/// Longest wait until the engine says it is ready.
const READY_MAX: Duration = Duration::from_secs(90);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Lines of its log that are shown when it does not come up.
const LINES_SHOWN: usize = 20;
/// Where Debian and Ubuntu put libfaketime, below the directory of the architecture.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// An engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) process: Process,
    mqtt: SocketAddr,
    http: SocketAddr,
}

/// What engines of one run have in common.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) program: &'a Path,
    pub(crate) home: &'a Path,
    /// Where it finds the database and the cloud: lines that can be cut.
    pub(crate) database_url: &'a str,
    pub(crate) cloud_url: &'a str,
    /// Where images lie, the same for all engines.
    pub(crate) media: &'a Path,
    pub(crate) clock: Option<&'a FakeClock>,
}

impl Engine {
    /// Starts an engine of this name.
    pub(crate) fn start(name: &str, common: &Common<'_>) -> Result<Self> {
        let directory = common.home.join(name);
        std::fs::create_dir_all(&directory).context("make a directory for the engine")?;
        let (mqtt, http) = (free_address()?, free_address()?);
        let keys = [
            ("DATABASE__URL", common.database_url.to_owned()),
            // A connection that hangs is given up soon.
            ("DATABASE__STATEMENT_TIMEOUT_SECONDS", "5".to_owned()),
            ("EDGE__ID", name.to_owned()),
            ("EDGE__DATA_DIR", directory.display().to_string()),
            ("MQTT__MODE", "embedded".to_owned()),
            ("BROKER__LISTEN", mqtt.to_string()),
            ("BROKER__ALLOW_ANONYMOUS", "true".to_owned()),
            ("HTTP__LISTEN", http.to_string()),
            ("AUTH__MODE", "compat".to_owned()),
            ("MEDIA__BACKEND", "filesystem".to_owned()),
            ("MEDIA__ROOT", common.media.display().to_string()),
            ("MEDIA__PUBLIC_BASE_URL", format!("http://{http}")),
            ("MEDIA__PRESIGN_PER_MINUTE", "60000".to_owned()),
            ("MEDIA__UPLOAD_SECRET", "a secret that every engine of a run shares".to_owned()),
            ("MEDIA__IMPLICIT_GRACE_SECONDS", "3".to_owned()),
            ("INFERENCE__LEASE_SECONDS", "5".to_owned()),
            // An attempt that a kill ends counts against the job.
            ("INFERENCE__ATTEMPTS_MAX", "100".to_owned()),
            ("CLOUD__URL", common.cloud_url.to_owned()),
            ("CLOUD__TIMEOUT_SECONDS", "4".to_owned()),
            ("OUTBOX__BACKOFF_SECONDS_MAX", "2".to_owned()),
            ("OUTBOX__LEASE_SECONDS", "5".to_owned()),
            // The cloud refuses single events as long as the fault lasts, and takes them in the end.
            ("OUTBOX__REJECTIONS_MAX", "1000".to_owned()),
            ("OUTBOX__BATCH_EVENTS_MAX", "50".to_owned()),
            ("RETENTION__FREE_DISK_GB_MIN", "0".to_owned()),
            ("RETENTION__DATABASE_FREE_GB_MIN", "0".to_owned()),
            ("METRICS__STATSD_ADDRESS", String::new()),
            ("LOG__LEVEL", "info".to_owned()),
        ];
        let mut variables: Vec<_> =
            keys.into_iter().map(|(key, value)| (format!("FARMIQ_{key}"), value)).collect();
        variables.extend(common.clock.map(FakeClock::variables).into_iter().flatten());
        let recipe = Recipe {
            program: common.program.to_owned(),
            arguments: vec!["run".to_owned()],
            variables,
            directory,
            log: common.home.join(format!("{name}.log")),
        };
        Ok(Self { process: Process::start(recipe)?, mqtt, http })
    }

    /// Where devices connect.
    pub(crate) fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    /// Its HTTP API.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Whether it says that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        let asking = tokio::time::timeout(ANSWER_MAX, async {
            http::get_lines(&self.base(), "/api/ready", |_| {}).await.is_ok()
        });
        asking.await.unwrap_or(false)
    }

    /// Waits until it says that it is ready, and says how long that took.
    pub(crate) async fn until_ready(&self) -> Result<Duration> {
        let started = Instant::now();
        while !self.is_ready().await {
            if started.elapsed() > READY_MAX {
                let log = self.process.log().await;
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
                bail!("the engine is not ready after {} s:\n{tail}", READY_MAX.as_secs());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(started.elapsed())
    }

    /// Resident memory in KiB and open file handles.
    pub(crate) async fn usage(&self) -> Result<(u64, usize)> {
        let pid = self.process.pid().await?;
        Ok((resident_kib(pid)?, open_files(pid)?))
    }
}

/// Makes the tables.
pub(crate) async fn migrate(program: &Path, database_url: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("migrate").env_clear().env("FARMIQ_DATABASE__URL", database_url);
    let output = command.output().await.context("run farmiq-edge migrate")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "farmiq-edge migrate failed: {errors}");
    Ok(())
}

/// A wall clock that can be set while processes live by it; the monotonic clock stays the machine's.
#[derive(Debug)]
pub(crate) struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    /// A clock that is right; `None` where libfaketime is not installed.
    pub(crate) fn new(home: &Path) -> Result<Option<Self>> {
        let directories = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut libraries = directories.map(|directory| directory.path().join(FAKETIME));
        let Some(library) = libraries.find(|path| Path::exists(path)) else { return Ok(None) };
        let clock = Self { library, file: home.join("clock") };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// Sets it to so many seconds ahead of the machine's.
    pub(crate) fn set(&self, seconds: i64) -> Result<()> {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).context("write the clock")?;
        std::fs::rename(&next, &self.file).context("set the clock")
    }

    fn variables(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // Reading the file at every look at the clock would cost more than everything else.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

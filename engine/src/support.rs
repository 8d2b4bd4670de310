//! `farmiq-edge support`: one archive with what somebody needs who is to help from afar, without a secret and without a
//! payload.
//!
//! Whatever cannot be had is left out and named; a database that is away is the usual reason to ask for help. Every text
//! passes through the [`Mask`] on its way into the archive, whoever wrote it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use schema::clock::Clock;
use schema::store::{Store, StoreError, StoreSettings, health as database_health, migration, survey};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::config::{Config, Environment, Loaded};
use crate::{doctor, first_keys, health};

mod mask;
mod system;
mod tail;

use mask::Mask;

/// Bytes of all texts together before they are packed. They become about a tenth.
const BYTES_MAX: usize = 20 * 1024 * 1024;
/// Bytes of one answer of the running engine.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Lines of the journal that are asked for.
const JOURNAL_LINES: &str = "10000";
/// Longest wait for the journal.
const JOURNAL: Duration = Duration::from_secs(10);
/// The unit whose journal is asked for.
const UNIT: &str = "farmiq-edge";
/// How an archive is named by default.
const NAME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
#[error("write {}", .path.display())]
pub struct SupportError {
    path: PathBuf,
    source: io::Error,
}

/// What is wished.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The file to write.
    pub out: Option<PathBuf>,
    /// The engine's log, where it goes to a file.
    pub log: Option<PathBuf>,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The archive.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// The texts in it.
    pub texts: Vec<String>,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, bytes, texts, missing } = self;
        writeln!(f, "{}: {} texts, {} KiB", file.display(), texts.len(), bytes.div_ceil(1024))?;
        missing.iter().try_for_each(|missing| writeln!(f, "left out: {missing}"))?;
        writeln!(
            f,
            "Secrets are masked and payloads are not in it. Look through it before you send it: tar xzf FILE"
        )
    }
}

/// Writes the archive.
///
/// # Errors
/// When the file cannot be written.
pub async fn run(wish: &Wish, loaded: &Loaded, judged: doctor::Command) -> Result<Report, SupportError> {
    let config = &loaded.config;
    let now = Clock::system().now();
    let name = format!("farmiq-support-{}-{}.tar.gz", config.edge.id, now.format(NAME_FORMAT));
    let file = wish.out.clone().unwrap_or_else(|| PathBuf::from(name.replace('/', "_")));
    let mut bundle = Bundle::new(Mask::of(config, &Environment::of_process()));
    bundle.put("version.txt", &system::version(config, now));
    bundle.put("configuration.toml", &loaded.effective());
    bundle.put("system.txt", &system::describe(config));
    bundle.put("doctor.txt", &doctor::report(&doctor::examine(loaded, judged).await));
    engine(config, &mut bundle).await;
    database(config, &mut bundle).await;
    logs(wish, config, &mut bundle).await;
    bundle.write(file)
}

/// What the running engine says of itself.
async fn engine(config: &Config, bundle: &mut Bundle) {
    let key = first_keys::operator_key(config);
    for (name, path) in [
        ("engine/health.json", "/api/health"),
        ("engine/ready.json", "/api/ready"),
        ("engine/status.json", "/api/v1/ops/edge/status"),
        ("engine/sync.json", "/api/v1/sync/state"),
        ("engine/ledger.json", "/api/v1/ledger"),
        ("engine/janitor.json", "/api/v1/janitor/state"),
        ("engine/metrics.txt", "/metrics"),
    ] {
        match health::fetch(&config.http, path, key.as_ref(), ANSWER_BYTES_MAX).await {
            Ok((status, body)) if status.is_success() || path == "/api/ready" => {
                bundle.put(name, &String::from_utf8_lossy(&body));
            }
            Ok((status, _)) => bundle.lacks(name, format!("the engine answers {status}")),
            Err(error) => bundle.lacks(name, format!("no engine answers: {error}")),
        }
    }
}

/// What the database comes to. It is asked with short statements on connections of its own.
async fn database(config: &Config, bundle: &mut Bundle) {
    let url = config.database.url.as_ref().map(|url| url.expose().to_owned());
    let Some(url) = url.or_else(|| Cluster::running(&config.edge.data_dir)) else {
        return bundle.lacks("database", "no database runs here".to_owned());
    };
    let settings =
        StoreSettings { pool_max: 1, read_pool_max: 1, ..StoreSettings::new(&url, "farmiq-edge support") };
    if let Err(error) = look_at_database(&settings, bundle).await {
        let cause = schema::store::cause(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        bundle.lacks("database", format!("{error}{cause}"));
    }
}

async fn look_at_database(settings: &StoreSettings, bundle: &mut Bundle) -> Result<(), StoreError> {
    let store = Store::new(settings)?.reads();
    let conn = store.conn().await?;
    let version = database_health::server_version(&conn).await?;
    bundle.put(
        "database/version.txt",
        &format!("PostgreSQL {version}\n{:?}\n", migration::standing(&conn).await?),
    );
    bundle.put("database/settings.txt", &(survey::settings(&conn).await?.join("\n") + "\n"));
    bundle.put("database/activity.json", &lines(&survey::activity(&conn).await?));
    bundle.put("database/sizes.json", &lines(&survey::sizes(&conn).await?));
    let extents = survey::extents(&conn, Clock::system().now()).await?;
    bundle.put("database/extents.json", &lines(&[extents]));
    Ok(())
}

/// One object per line.
fn lines(rows: &[impl Serialize]) -> String {
    let line = |row| serde_json::to_string(row).expect("texts, numbers and times become JSON") + "\n";
    rows.iter().map(line).collect()
}

/// The last lines of the engine's log, and of the private server's.
async fn logs(wish: &Wish, config: &Config, bundle: &mut Bundle) {
    match &wish.log {
        Some(log) => match tail::last_lines(log) {
            Ok(text) => bundle.put("log/engine.log", &text),
            Err(error) => bundle.lacks("log/engine.log", format!("{}: {error}", log.display())),
        },
        None => match journal().await {
            Some(text) => bundle.put("log/engine.log", &text),
            None => bundle.lacks(
                "log/engine.log",
                "the log is not in the journal of this machine: give its file with --log, or add what `podman logs` or \
                 `kubectl logs` shows"
                    .to_owned(),
            ),
        },
    }
    match tail::server_log(&config.edge.data_dir.join("postgres").join("log")) {
        Ok(Some(text)) => bundle.put("log/postgres.log", &text),
        Ok(None) => {}
        Err(error) => bundle.lacks("log/postgres.log", error.to_string()),
    }
}

/// The journal of the unit; `None` on machines without one.
async fn journal() -> Option<String> {
    let mut command = Command::new("journalctl");
    command.args([
        "--unit",
        UNIT,
        "--lines",
        JOURNAL_LINES,
        "--output",
        "short-iso",
        "--no-pager",
        "--quiet",
    ]);
    let output = timeout(JOURNAL, command.kill_on_drop(true).output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success() && !text.trim().is_empty()).then_some(text)
}

/// Texts on their way into the archive.
struct Bundle {
    mask: Mask,
    texts: Vec<(String, String)>,
    bytes: usize,
    missing: Vec<String>,
}

impl Bundle {
    fn new(mask: Mask) -> Self {
        Self { mask, texts: Vec::new(), bytes: 0, missing: Vec::new() }
    }

    /// Takes a text in, masked; its beginning goes when there is no room for all of it.
    fn put(&mut self, name: &str, text: &str) {
        let masked = self.mask.apply(text);
        let room = BYTES_MAX - self.bytes;
        let end = tail::end_of(&masked, room).to_owned();
        if end.len() < masked.len() {
            self.missing.push(format!("the beginning of {name}: {} bytes", masked.len() - end.len()));
        }
        self.bytes += end.len();
        self.texts.push((name.to_owned(), end));
    }

    fn lacks(&mut self, name: &str, reason: String) {
        self.missing.push(format!("{name}: {}", self.mask.apply(&reason)));
    }

    fn write(mut self, file: PathBuf) -> Result<Report, SupportError> {
        let contents = self.contents();
        self.texts.push(("CONTENTS".to_owned(), contents));
        let failed = |source| SupportError { path: file.clone(), source };
        let bytes = pack(&file, &self.texts).map_err(failed)?;
        let texts = self.texts.into_iter().map(|(name, _)| name).collect();
        Ok(Report { file, bytes, texts, missing: self.missing })
    }

    /// What is in the archive with its checksums, and what is not.
    fn contents(&self) -> String {
        let line = |(name, text): &(String, String)| {
            format!("{}  {name}\n", hex::encode(Sha256::digest(text.as_bytes())))
        };
        let mut contents: String = self.texts.iter().map(line).collect();
        for missing in &self.missing {
            contents.push_str(&format!("left out: {missing}\n"));
        }
        contents
    }
}

fn pack(path: &Path, texts: &[(String, String)]) -> io::Result<u64> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(&file, Compression::default()));
    for (name, text) in texts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("farmiq-support/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(File::metadata(&file)?.len())
}

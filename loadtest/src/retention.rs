//! Measures what retention costs those who write: how long its locks keep writers out, and how fast readings are
//! acknowledged without a pass and during one that deletes a million rows.

mod janitor;
mod past;
mod table;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::sync::watch::{self as signal};

use crate::bench::edge::Edge;
use crate::bench::{self, Bench, engine};
use crate::cloud::{self, PretendCloud};
use crate::publisher::Meter;
use crate::report::{note, say};

use janitor::{CLEANED_APART, Janitor, Pass};
use past::Past;
use table::Row;
use watch::{Sights, watch};

/// The smallest past: every kind of row is in it.
pub const ROWS_MIN: u64 = 10_000;
/// The largest past.
pub const ROWS_MAX: u64 = 20_000_000;
/// No lock that keeps writers out may be held for longer.
pub const LOCK_MAX: Duration = Duration::from_secs(1);

/// Readings arrive for so long before anything is measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// The name under which the engine connects to its database begins so.
const APPLICATION: &str = "farmiq-edge ";

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A migrated database that can be thrown away.
    pub database_url: String,
    /// The engine's program.
    pub engine: PathBuf,
    /// Rows that are old enough to be deleted.
    pub rows: u64,
    /// Readings per second that arrive all the time.
    pub incoming_rate: f64,
    /// How long readings are watched without a pass.
    pub quiet: Duration,
}

/// Runs the whole benchmark and prints its tables. Returns whether everything old went, nothing else did, and no lock
/// was held for longer than [`LOCK_MAX`].
///
/// # Errors
/// When the database or the engine cannot be used, or somebody stopped the run.
pub async fn run(settings: Settings, stop: signal::Receiver<bool>) -> Result<bool> {
    let mut bench = open(&settings).await?;
    let media = tempfile::tempdir().context("make a directory of images")?;
    let past = Past::new(settings.rows, &bench.limits_place.tenant);
    past.fill(&bench, media.path(), &stop).await?;
    engine::enable(&bench).await?;
    let cloud = PretendCloud::start(cloud::Settings::default()).await?;
    let mut edge = start(&settings, &cloud.url(), &media)?;
    bench.settings.engine_pid = Some(edge.pid()?);
    bench.settings.broker = edge.broker().to_string();
    edge.until_ready().await?;
    let outcome = Measurement { settings: &settings, bench: &bench, past: &past, stop: &stop }
        .run(&Janitor::at(edge.base()))
        .await
        .with_context(|| format!("the engine said:\n{}", edge.log_tail()))?;
    edge.end().await?;
    cloud.shutdown().await;
    let left = past.left(&bench, media.path()).await?;
    say("");
    say(table::render(&outcome.rows).trim_end());
    say("");
    say(table::render_deleted(&outcome.deleted, past.expected()).trim_end());
    outcome.tell();
    left.tell();
    Ok(outcome.is_flawless(&past) && left.is_as_expected())
}

async fn open(settings: &Settings) -> Result<Bench> {
    Bench::open(bench::Settings::arriving(settings.database_url.clone(), settings.incoming_rate)).await
}

/// An engine whose own passes are dry, so that it deletes nothing before it is told to; dedupe marks have no such setting,
/// but they are made later.
fn start(settings: &Settings, cloud_url: &str, media: &TempDir) -> Result<Edge> {
    let media = media.path().to_str().context("the directory of images has a strange name")?;
    let variables = [
        ("FARMIQ_CLOUD__URL", cloud_url),
        ("FARMIQ_AUTH__MODE", "compat"),
        ("FARMIQ_MEDIA__ROOT", media),
        ("FARMIQ_RETENTION__DRY_RUN", "true"),
        ("FARMIQ_INGRESS__DEDUPE_CLEANUP_MINUTES", "1"),
    ];
    Edge::start(&settings.engine, &settings.database_url, &variables)
}

/// What is measured on a running engine.
struct Measurement<'a> {
    settings: &'a Settings,
    bench: &'a Bench,
    past: &'a Past,
    stop: &'a signal::Receiver<bool>,
}

/// What came out.
struct Outcome {
    rows: Vec<Row>,
    dry: Pass,
    pass: Pass,
    took: Duration,
    deleted: janitor::Deleted,
    sights: Sights,
}

impl Measurement<'_> {
    async fn run(&self, janitor: &Janitor) -> Result<Outcome> {
        let dry = janitor.count().await?;
        note(format!("a dry run counted {} rows and {} files", dry.rows, dry.files));
        let quiet = async {
            tokio::time::sleep(self.settings.quiet).await;
            Ok(())
        };
        let ((), without) = self.measure("without a pass", async { Ok(()) }, quiet).await?;
        self.past.fill_marks(self.bench).await?;
        // The marks go when their time has come, and the pass begins with them, so that both are at work at once.
        let marks_go = janitor.until_deleted("ingress_dedupe", 1);
        let work = async {
            let started = Instant::now();
            let pass = janitor.run(self.past.expected()["media_objects"]).await?;
            let took = started.elapsed();
            for table in CLEANED_APART {
                janitor.until_deleted(table, self.past.expected()[table]).await?;
            }
            Ok((pass, took))
        };
        let ((pass, took), with) = self.measure("with the pass", marks_go, work).await?;
        let deleted = janitor.deleted().await?;
        let sights = with.sights.clone();
        Ok(Outcome { rows: vec![without, with], dry, pass, took, deleted, sights })
    }

    /// Publishes all the time, and measures from the moment on at which `begin` and the warm-up are over until `work` is
    /// done.
    async fn measure<T>(
        &self,
        name: &str,
        begin: impl Future<Output = Result<()>>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Row)> {
        self.bench.settle().await;
        note(format!("{name}: starting"));
        let meter = Arc::new(Meter::default());
        let (stop_publishing, stopped) = signal::channel(false);
        let publishing = engine::publish_until(self.bench, &meter, self.settings.incoming_rate, stopped);
        let measuring = async {
            let measured = async {
                tokio::time::sleep(WARM_UP).await;
                begin.await?;
                meter.reset_latency();
                let (acknowledged, gauge, started) =
                    (meter.acknowledged(), self.bench.gauge().await?, Instant::now());
                let (done, sights) = watch(self.bench, APPLICATION, work).await?;
                let elapsed = started.elapsed();
                let used = self.bench.gauge().await?.since(&gauge);
                ensure!(!*self.stop.borrow(), "stopped before the end");
                let events = meter.acknowledged() - acknowledged;
                Ok((done, Row::new(name, events, elapsed, used, &meter, sights)))
            };
            let measured = measured.await;
            stop_publishing.send_replace(true);
            measured
        };
        let (measured, published) = tokio::join!(measuring, publishing);
        published.context("publish readings")?;
        measured
    }
}

impl Outcome {
    fn tell(&self) {
        say("");
        say(format!(
            "the pass took {:.1} s for {} rows and {} files; a dry run had counted {} rows and {} files",
            self.took.as_secs_f64(),
            self.pass.rows,
            self.pass.files,
            self.dry.rows,
            self.dry.files
        ));
        if let Some(error) = &self.pass.error {
            say(format!("the pass says: {error}"));
        }
        for line in self.sights.lines() {
            say(line);
        }
    }

    fn is_flawless(&self, past: &Past) -> bool {
        let is_complete = self.pass.error.is_none() && past.is_deleted(&self.deleted);
        is_complete && self.sights.lock_longest() <= LOCK_MAX
    }
}

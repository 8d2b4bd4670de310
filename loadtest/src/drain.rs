//! Measures how a backlog goes to the cloud: what one claim costs beside a small and a large one, how fast an engine
//! drains it, and how fast while readings arrive.

mod backlog;
mod claims;
mod course;
mod table;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::watch;

use schema::store::bench::unsent_count;

use crate::bench::edge::Edge;
use crate::bench::{self, Bench, engine, process};
use crate::cloud::{self, PretendCloud, Verdict};
use crate::publisher::Meter;
use crate::report::{note, say};

use backlog::Filler;
use course::{Course, Goal};
use table::Row;

/// The smallest backlog: a few batches.
pub const ROWS_MIN: u64 = 10_000;
/// The largest backlog.
pub const ROWS_MAX: u64 = 100_000_000;

/// Rows that wait when claims beside a small backlog are measured.
const SMALL_BACKLOG: u64 = 1000;
/// Violations that are shown one by one.
const VIOLATIONS_SHOWN_MAX: usize = 10;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A migrated database whose outbox is empty.
    pub database_url: String,
    /// The engine's program.
    pub engine: PathBuf,
    /// Events that wait when an engine begins.
    pub rows: u64,
    /// Readings per second that arrive during the last measurement.
    pub incoming_rate: f64,
}

/// Runs the whole benchmark and prints one table. Returns whether every event arrived, and as the contract says.
///
/// # Errors
/// When the database or the engine cannot be used, the engine stops sending, or somebody stopped the run.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<bool> {
    let mut drain = Drain::open(settings, stop).await?;
    let mut rows = drain.measure_claims().await?;
    let mut is_flawless = true;
    for incoming_rate in [None, Some(drain.settings.incoming_rate)] {
        drain.filler.fill_up_to(&drain.bench, drain.settings.rows, &drain.stop).await?;
        drain.bench.settle().await;
        let measured = drain.measure_engine(incoming_rate).await?;
        is_flawless &= measured.is_flawless();
        rows.push(measured);
    }
    say("");
    say(table::render(&rows).trim_end());
    Ok(is_flawless)
}

/// What every measurement needs.
struct Drain {
    settings: Settings,
    bench: Bench,
    filler: Filler,
    stop: watch::Receiver<bool>,
}

impl Drain {
    async fn open(settings: Settings, stop: watch::Receiver<bool>) -> Result<Self> {
        let bench =
            Bench::open(bench::Settings::arriving(settings.database_url.clone(), settings.incoming_rate))
                .await?;
        let unsent = unsent(&bench).await?;
        anyhow::ensure!(
            unsent == 0,
            "{unsent} events wait in this database and would go to a pretend cloud: use one that can be thrown away"
        );
        engine::enable(&bench).await?;
        let filler = Filler::new(settings.rows);
        Ok(Self { settings, bench, filler, stop })
    }

    /// Claims beside a small backlog, then beside the large one, which stays.
    async fn measure_claims(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for waiting in [SMALL_BACKLOG, self.settings.rows] {
            self.filler.fill_up_to(&self.bench, waiting, &self.stop).await?;
            let row = claims::measure(&self.bench, &mut self.filler, &self.stop).await?;
            note(format!("{}: {}", row.name, row.claim_line()));
            rows.push(row);
        }
        Ok(rows)
    }

    /// Starts an engine and a cloud, and follows the backlog until it is gone.
    async fn measure_engine(&mut self, incoming_rate: Option<f64>) -> Result<Row> {
        let name = match incoming_rate {
            None => format!("engine, {} waiting", self.filler.waiting()),
            Some(rate) => format!("engine, {} waiting, {rate:.0}/s arriving", self.filler.waiting()),
        };
        note(format!("{name}: starting"));
        let stored_before = self.bench.stored().await?;
        let cloud = PretendCloud::start(cloud::Settings::default()).await?;
        let mut edge = Edge::start(
            &self.settings.engine,
            &self.settings.database_url,
            &[("FARMIQ_CLOUD__URL", &cloud.url())],
        )?;
        self.bench.settings.engine_pid = Some(edge.pid()?);
        self.bench.settings.broker = edge.broker().to_string();
        edge.until_ready().await?;
        let meter = Arc::new(Meter::default());
        let goal = Goal { rows: self.filler.waiting(), incoming: incoming_rate.map(|rate| (&*meter, rate)) };
        let (stop_publishing, stopped) = watch::channel(false);
        let follow = async {
            let course = course::follow(&self.bench, &cloud, &mut edge, &goal, &self.stop).await;
            stop_publishing.send_replace(true);
            course
        };
        let (course, published) = tokio::join!(follow, publish(&self.bench, &meter, incoming_rate, stopped));
        let course = course.with_context(|| format!("the engine said:\n{}", edge.log_tail()))?;
        published.context("publish readings meanwhile")?;
        course::until_settled(&self.bench, &cloud, &mut edge).await?;
        let peak_kib = process::resident_kib_max(edge.pid()?).ok();
        edge.end().await?;
        let stored = u64::try_from(self.bench.stored().await? - stored_before).unwrap_or(0);
        let expected = self.filler.take_all() + stored;
        let verdict = cloud.shutdown().await;
        let acknowledged = meter.acknowledged();
        tell(&name, &course, &verdict, expected);
        if incoming_rate.is_some() {
            note(format!(
                "{name}: {acknowledged} readings acknowledged over MQTT, {stored} stored, p50 {:.1} ms, p99 {:.1} ms",
                meter.latency_ms(0.5),
                meter.latency_ms(0.99)
            ));
        }
        let is_lossless = stored >= acknowledged && verdict.accepted == expected;
        let latency_ms = incoming_rate.map(|_| (meter.latency_ms(0.5), meter.latency_ms(0.99)));
        Ok(Row::of_engine(name, course, peak_kib, latency_ms, verdict.violations_total, is_lossless))
    }
}

/// Publishes at a steady rate, if at all, until it is told to stop.
async fn publish(
    bench: &Bench,
    meter: &Arc<Meter>,
    rate: Option<f64>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    match rate {
        None => Ok(()),
        Some(rate) => engine::publish_until(bench, meter, rate, stopped).await,
    }
}

fn tell(name: &str, course: &Course, verdict: &Verdict, expected: u64) {
    note(format!(
        "{name}: {:.0} events/s, {} of {expected} accepted, {} duplicated, {} rejected, {} violations",
        course.rate(),
        verdict.accepted,
        verdict.duplicated,
        verdict.rejected,
        verdict.violations_total
    ));
    for violation in verdict.violations.iter().take(VIOLATIONS_SHOWN_MAX) {
        note(format!("  {}: {}", violation.kind, violation.detail));
    }
}

/// Rows in the outbox.
async fn unsent(bench: &Bench) -> Result<u64> {
    let conn = bench.store.conn().await.context("connect to the database")?;
    let unsent = unsent_count(&conn).await.context("count what waits")?;
    Ok(u64::try_from(unsent).unwrap_or(0))
}

//! The processes that are watched during a run: the engine and its PostgreSQL, by process id or by their metrics.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::bench::process;
use crate::http;
use crate::publisher::Meter;
use crate::report::{self, Live};
use crate::timeline::{Timeline, Usage};

/// How often the metrics of the engine are asked for.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// How long they may take: a play stands still meanwhile, and is read two seconds ahead.
const SCRAPE_WAIT_MAX: Duration = Duration::from_millis(500);

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The engine's process on this machine.
    pub engine_pid: Option<u32>,
    /// The postmaster's process on this machine; its children count with it.
    pub postgres_pid: Option<u32>,
    /// `http://host:port/metrics` (or https) of an engine elsewhere.
    pub metrics_url: Option<String>,
    /// An operator key for it.
    pub key: Option<String>,
}

/// Processes under watch.
#[derive(Debug, Default)]
pub struct Watched {
    settings: Settings,
    cpu_before: [Option<Duration>; 2],
    /// What the metrics said last: memory in MiB, CPU seconds now and before.
    scraped: Option<(f64, f64, Option<f64>)>,
    /// The version the metrics named.
    engine: Option<String>,
}

impl Watched {
    /// Begins.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Version and commit of the engine, once its metrics were read.
    #[must_use]
    pub fn engine(&self) -> Option<&str> {
        self.engine.as_deref()
    }

    /// Does some work; shows meanwhile how it goes, and notes what the processes use.
    pub async fn beside<T>(
        &mut self,
        work: impl Future<Output = T>,
        meter: &Meter,
        timeline: &Timeline,
        live: &mut Live,
    ) -> T {
        tokio::pin!(work);
        let mut redraw = tokio::time::interval(report::REDRAW_EVERY);
        let mut scrape = tokio::time::interval(SCRAPE_EVERY);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = scrape.tick() => {
                    // A metric that cannot be had leaves a hole in the curve.
                    drop(tokio::time::timeout(SCRAPE_WAIT_MAX, self.scrape()).await);
                }
                _ = redraw.tick() => {
                    if let Some(error) = meter.take_error() {
                        live.keep(&format!("connection lost: {error}"));
                    }
                    timeline.tick(|since| self.usage(since));
                    let elapsed = timeline.started().elapsed();
                    live.show(meter.acknowledged(), &report::publish_line(meter, elapsed));
                }
            }
        }
    }

    /// Memory and CPU of each since the last call, so much time ago. A process that is gone is left out.
    pub fn usage(&mut self, since: Duration) -> Vec<Usage> {
        let mut found = Vec::new();
        let pids = [("engine", self.settings.engine_pid), ("PostgreSQL", self.settings.postgres_pid)];
        for (at, (name, pid)) in pids.into_iter().enumerate() {
            let Some(pid) = pid else { continue };
            let (Ok(cpu), Ok(kib)) = (process::family_cpu(pid), process::family_kib(pid)) else {
                self.cpu_before[at] = None;
                continue;
            };
            let busy = self.cpu_before[at].replace(cpu).map_or(Duration::ZERO, |it| cpu.saturating_sub(it));
            let cores = busy.as_secs_f64() / since.as_secs_f64().max(1e-3);
            found.push(Usage { name: name.to_owned(), memory_mib: process::kib_to_mib(kib), cores });
        }
        if let Some((memory_mib, cpu, before)) = self.scraped {
            let cores = (cpu - before.unwrap_or(cpu)).max(0.0) / since.as_secs_f64().max(1e-3);
            self.scraped = Some((memory_mib, cpu, Some(cpu)));
            found.push(Usage { name: "engine".to_owned(), memory_mib, cores });
        }
        found
    }

    /// Asks for the metrics, where there is a URL; what they say is part of the next usage.
    ///
    /// # Errors
    /// When they are not to be had.
    pub async fn scrape(&mut self) -> Result<()> {
        let Some(url) = &self.settings.metrics_url else { return Ok(()) };
        let text = fetch_metrics(url, self.settings.key.as_deref()).await?;
        let (memory, cpu) = read_metrics(&text).with_context(|| format!("read the metrics of {url}"))?;
        self.engine = read_version(&text).or(self.engine.take());
        let before = self.scraped.and_then(|(_, _, before)| before);
        self.scraped = Some((memory / 1024.0 / 1024.0, cpu, before));
        Ok(())
    }
}

async fn fetch_metrics(url: &str, key: Option<&str>) -> Result<String> {
    let authority = http::authority(url)?;
    let path = Some(http::path(url)?).filter(|path| !path.is_empty());
    let mut request = Request::get(path.unwrap_or("/metrics")).header("host", authority);
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    let (status, body) = http::call(url, request.body(Full::<Bytes>::default())?).await?;
    if status != 200 {
        bail!("{url} answered {status}");
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Bytes of memory, and CPU seconds since the start.
fn read_metrics(text: &str) -> Result<(f64, f64)> {
    let value = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.with_context(|| format!("there is no {name}"))
    };
    Ok((value("process_resident_memory_bytes")?, value("process_cpu_seconds_total")?))
}

/// `VERSION (COMMIT)`, as the metric that names the engine has them.
fn read_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("engine_info{"))?;
    let label = |name: &str| {
        let rest = line.split_once(&format!("{name}=\""))?.1;
        rest.split_once('"').map(|(value, _)| value)
    };
    let (version, commit) = (label("version")?, label("commit")?);
    Some(if commit.is_empty() { version.to_owned() } else { format!("{version} ({commit})") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_named_by_its_metrics() {
        let text = |commit: &str| {
            format!(
                "other 1\nengine_info{{edge_id=\"b-1\",version=\"1.2.3\",commit=\"{commit}\",env=\"dev\"}} 1\n"
            )
        };
        assert_eq!(read_version(&text("abc")).as_deref(), Some("1.2.3 (abc)"));
        assert_eq!(read_version(&text("")).as_deref(), Some("1.2.3"));
        assert_eq!(read_version("engine_up 1\n"), None);
    }

    #[test]
    fn the_own_process_is_seen_and_a_dead_one_is_left_out() {
        let settings = Settings {
            engine_pid: Some(std::process::id()),
            postgres_pid: Some(u32::MAX),
            ..Settings::default()
        };
        let usage = Watched::new(settings).usage(Duration::from_secs(1));
        assert_eq!(usage.len(), 1);
        assert!(usage[0].name == "engine" && usage[0].memory_mib > 1.0, "{usage:?}");
    }
}

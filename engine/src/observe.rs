//! What can be seen of the engine from outside: its log lines and its metrics.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

use crate::config::{Config, HostPort, LogLevel};

mod json;
mod statsd;

use json::JsonLines;
use statsd::Recorder;

/// Time between two reports to statsd, and between two tidyings of the histograms.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// What the last report may take: the resolver that it asks may never answer, and the program is about to end.
const LAST_REPORT_MAX: Duration = Duration::from_millis(500);
/// Crates that say at `info` what only their authors want to know.
const CHATTY: [&str; 4] = ["rumqttd", "rumqttc", "hyper", "tokio_postgres"];
/// A crate that logs as errors what it returns, which is logged where it is dealt with.
const TALKATIVE: &str = "lapin";
/// Upper bounds of durations, seconds. Among them are those that are promised: a finalize in 3 s, an image in 15 s.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 3.0, 10.0, 15.0, 30.0];
/// Upper bounds of durations, milliseconds.
const MILLISECONDS: [f64; 10] = [1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 60_000.0];
/// Upper bounds of counts and of sizes.
const POWERS_OF_FOUR: [f64; 11] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// One JSON object a line on stdout, for machines.
    Json,
    /// Short lines on stderr, for a person at a terminal.
    Terminal,
}

/// What is logged, while it can be changed.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging. A second call in the same process changes nothing: tests start many engines.
pub fn log(config: &Config, style: LogStyle) {
    let (filter, handle) = reload::Layer::new(filter(config.log.level));
    let registry = tracing_subscriber::registry();
    let started = match style {
        LogStyle::Json => {
            let lines = JsonLines::new(speaker(config));
            registry.with(lines.with_filter(filter)).try_init()
        }
        LogStyle::Terminal => {
            let lines =
                tracing_subscriber::fmt::layer().compact().with_target(false).with_writer(std::io::stderr);
            registry.with(lines.with_filter(filter)).try_init()
        }
    };
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Logs from this level on, from now on.
pub fn set_log_level(level: LogLevel) {
    if let Some(Err(error)) = FILTER.get().map(|handle| handle.reload(filter(level))) {
        tracing::error!(%error, "change the level of the log");
    }
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let quiet = CHATTY.map(|target| (target, level.min(LevelFilter::WARN)));
    Targets::new().with_default(level).with_targets(quiet).with_target(TALKATIVE, LevelFilter::OFF)
}

/// Who speaks, in log lines and to statsd, so that the barns behind one collector can be told apart.
fn speaker(config: &Config) -> [(&'static str, String); 4] {
    [
        ("service", config.log.service.clone()),
        ("env", config.edge.env.clone()),
        ("version", config.edge.version.clone()),
        ("edge_id", config.edge.id.clone()),
    ]
}

/// The metrics of this process; there is one recorder, however many engines a test starts.
static METRICS: OnceLock<Metrics> = OnceLock::new();

/// Everything that was counted and measured, and where it goes.
pub struct Metrics {
    prometheus: PrometheusHandle,
    recorder: Arc<Recorder>,
    statsd_address: Option<(String, u16)>,
    process: metrics_process::Collector,
}

/// Starts counting; a second call in the same process gives what the first one made.
pub fn metrics(config: &Config) -> &'static Metrics {
    METRICS.get_or_init(|| {
        let prometheus = prometheus().build_recorder();
        let handle = prometheus.handle();
        let recorder = Arc::new(Recorder::new(prometheus, speaker(config)));
        if metrics::set_global_recorder(Arc::clone(&recorder)).is_err() {
            tracing::warn!("metrics were already recorded elsewhere, so they are not exported");
        }
        schema::metrics::describe();
        let edge = &config.edge;
        schema::metrics::engine_info(&edge.id, &edge.version, &edge.commit, &edge.env).set(1.0);
        let process = metrics_process::Collector::default();
        process.describe();
        let statsd_address = config.metrics.statsd_address.as_ref().map(HostPort::host_and_port);
        Metrics { prometheus: handle, recorder, statsd_address, process }
    })
}

/// The text of `GET /metrics`; empty before [`metrics`] was called.
pub fn render_metrics() -> String {
    let render = |metrics: &Metrics| {
        metrics.process.collect();
        without_unknown(&metrics.prometheus.render())
    };
    METRICS.get().map(render).unwrap_or_default()
}

/// The series of a gauge that show something: the value of its first label, empty where it has none, and the gauge's.
pub fn gauges(name: &str) -> Vec<(String, f64)> {
    METRICS.get().map(|metrics| metrics.recorder.gauges(name)).unwrap_or_default()
}

/// Leaves out the series whose value cannot be had ([`schema::metrics::UNKNOWN`]).
fn without_unknown(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(" NaN")).collect()
}

impl Metrics {
    /// Reports for as long as it is polled.
    pub async fn report(&self) -> Infallible {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.report_once().await;
        }
    }

    /// Reports the last seconds of a program that ends. A report that does not get through in time is given up.
    pub async fn report_last(&self) {
        if tokio::time::timeout(LAST_REPORT_MAX, self.report_once()).await.is_err() {
            tracing::debug!("the last report to statsd took too long");
        }
    }

    /// Reports what has changed since the last time.
    async fn report_once(&self) {
        self.prometheus.run_upkeep();
        self.process.collect();
        let Some((host, port)) = self.statsd_address.clone() else { return };
        let recorder = Arc::clone(&self.recorder);
        match tokio::task::spawn_blocking(move || recorder.send_changes(&host, port)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "send metrics to statsd"),
            Err(error) => tracing::error!(%error, "the report to statsd panicked"),
        }
    }
}

fn prometheus() -> PrometheusBuilder {
    let buckets: [(&str, &[f64]); 4] = [
        ("_seconds", &SECONDS),
        ("_ms", &MILLISECONDS),
        ("_events", &POWERS_OF_FOUR),
        ("_bytes", &POWERS_OF_FOUR),
    ];
    buckets.into_iter().fold(PrometheusBuilder::new(), |builder, (suffix, bounds)| {
        let matcher = Matcher::Suffix(suffix.to_owned());
        builder.set_buckets_for_metric(matcher, bounds).expect("the lists of bounds are not empty")
    })
}

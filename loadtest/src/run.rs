//! The file of a run: what was run and what came of it, as JSON that `report` draws and other programs read.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use schema::clock::Timestamp;

use crate::bench::process;
use crate::timeline::{Mark, Percentiles, Row, Span, Timeline};

/// What a run file calls its format.
const FORMAT: &str = "farmiq-loadtest-run";
/// The version that is written; no other is read.
const VERSION: u32 = 1;

/// Refusals of one kind from one device.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Refusal {
    /// The device, as `tenant/device`.
    pub device: String,
    /// Reason code of the CONNACK or PUBACK.
    pub code: u8,
    /// What the code means.
    pub reason: String,
    /// Messages.
    pub messages: u64,
}

/// Whether a run is as it should be.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is.
    pub passed: bool,
    /// What is wrong, or what was checked.
    pub reasons: Vec<String>,
}

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Run {
    format: String,
    version: u32,
    /// The command: `replay`, `barn`, ...
    pub command: String,
    /// Version of this program.
    pub program: String,
    /// Version of the engine, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The machine this program ran on.
    pub machine: String,
    /// What it was told, by name.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// What chance was drawn from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Sums, by name: `published`, `acknowledged`, `refused`, ...
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    /// Percentiles of the whole run, by the name of their [`Span`].
    #[serde(default)]
    pub latency: BTreeMap<String, Percentiles>,
    /// The curves.
    #[serde(default)]
    pub series: Vec<Row>,
    /// What happened at which time.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// Who was refused.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// The end of it.
    pub verdict: Verdict,
}

impl Run {
    /// A run that has ended, without figures so far.
    #[must_use]
    pub fn new(command: &str, started: Timestamp, ended: Timestamp) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            command: command.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            engine: None,
            started,
            ended,
            machine: process::machine(),
            settings: BTreeMap::new(),
            seed: None,
            counts: BTreeMap::new(),
            latency: BTreeMap::new(),
            series: Vec::new(),
            marks: Vec::new(),
            refusals: Vec::new(),
            verdict: Verdict::default(),
        }
    }

    /// Takes latencies, curves and marks of a timeline that has ended.
    pub fn take(&mut self, timeline: &Timeline) {
        for span in Span::ALL {
            if let Some(percentiles) = timeline.percentiles(span) {
                self.latency.insert(span.as_str().to_owned(), percentiles);
            }
        }
        (self.series, self.marks) = timeline.finish();
    }

    /// Seconds it took.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        let millis = (self.ended - self.started).num_milliseconds().max(0);
        #[expect(clippy::cast_precision_loss, reason = "a run is shorter than 2^52 milliseconds")]
        let millis = millis as f64;
        millis / 1000.0
    }

    /// Acknowledged messages per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.counts.get("acknowledged").copied().unwrap_or(0) as f64 / self.seconds().max(1e-3)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no run of this version.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || {
            let text = std::fs::read_to_string(path)?;
            let run: Self = serde_json::from_str(&text).context("it is no file of a run")?;
            ensure!(run.format == FORMAT, "it is no file of a run");
            ensure!(run.version == VERSION, "version {} of run files is not known here", run.version);
            Ok(run)
        };
        read().with_context(|| format!("read {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::clock::Clock;

    #[test]
    fn a_run_is_written_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let now = Clock::system().now();
        let mut run = Run::new("replay", now, now + chrono::Duration::seconds(2));
        run.counts.insert("acknowledged".into(), 50);
        run.take(&Timeline::start());
        run.write(&path).unwrap();
        assert_eq!(Run::read(&path).unwrap(), run);
        assert!((run.rate() - 25.0).abs() < 0.01);
        std::fs::write(&path, "{}").unwrap();
        assert!(format!("{:#}", Run::read(&path).unwrap_err()).contains("no file of a run"));
    }
}

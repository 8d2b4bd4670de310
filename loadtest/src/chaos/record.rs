//! What came of a run, and its file for a report.

use schema::clock::Timestamp;

use crate::run::{self, Verdict};
use crate::timeline::{Mark, Row};
use crate::verify::findings::Findings;

/// A fault as it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// Seconds from the start of the run.
    pub at_seconds: f64,
    /// When it was over.
    pub ends_seconds: f64,
    /// What it was.
    pub name: String,
    /// What is worth telling, or why it was skipped.
    pub note: String,
    /// Whether it could not be done on this machine.
    pub is_skipped: bool,
}

/// What the engine used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, KiB.
    pub engine_kib: u64,
    /// File handles.
    pub engine_files: usize,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// When it began.
    pub started_at: Timestamp,
    /// When devices left.
    pub ended_at: Timestamp,
    /// What decided its faults.
    pub seed: u64,
    /// Versions of the engine and of PostgreSQL.
    pub versions: Vec<String>,
    /// Its faults.
    pub faults: Vec<Happened>,
    /// Its course.
    pub series: Vec<Row>,
    /// Before the first fault.
    pub usage_before: Usage,
    /// After the quiet phase, with the same devices.
    pub usage_after: Usage,
    /// From the end of the last fault until the engine was ready and devices were answered again.
    pub recovered_seconds: Option<f64>,
    /// Processes that ended by themselves and were started again.
    pub surprises: Vec<String>,
    /// What was found in the end.
    pub findings: Findings,
}

impl Course {
    /// The file of the run, as a report reads it.
    #[must_use]
    pub fn file(&self) -> run::Run {
        let mut file = run::Run::new("chaos", self.started_at, self.ended_at);
        file.seed = Some(self.seed);
        file.engine = self.versions.first().cloned();
        for (name, value) in [
            ("versions", self.versions.join(", ")),
            ("memory before, KiB", self.usage_before.engine_kib.to_string()),
            ("memory after, KiB", self.usage_after.engine_kib.to_string()),
            ("file handles before", self.usage_before.engine_files.to_string()),
            ("file handles after", self.usage_after.engine_files.to_string()),
        ] {
            file.settings.insert(name.to_owned(), value);
        }
        file.counts = self.findings.figures();
        file.counts.insert("faults".to_owned(), self.faults.len() as u64);
        file.series.clone_from(&self.series);
        for fault in &self.faults {
            let word = if fault.is_skipped { "skipped: " } else { "" };
            let what = format!("{word}{} {}", fault.name, fault.note).trim_end().to_owned();
            file.marks.push(Mark { at_s: fault.at_seconds, what });
        }
        let mut reasons = self.findings.lines();
        reasons.extend(self.surprises.iter().cloned());
        file.verdict = Verdict { passed: self.findings.is_good(), reasons };
        file
    }
}

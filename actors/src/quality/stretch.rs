//! Findings put together: what one test finds again and again is one stretch of time, which is what is stored.

use chrono::Duration;
use schema::clock::Timestamp;

use super::series::Finding;
use super::{Level, Test};

/// Findings that are no farther apart are of one stretch.
const JOINED_WITHIN: Duration = Duration::minutes(10);
/// The longest stretch; what lasts longer is several, end to end.
pub const LONGEST: Duration = Duration::days(1);
/// Stretches of one finding at most: the end of what lasts longer than a month is told.
const PIECES_MAX: usize = 31;
/// Stretches that one series remembers: of a test and level there is seldom more than one that is not over.
const STRETCHES_MAX: usize = 64;

/// A stretch of time in which one test found something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// The test.
    pub test: Test,
    /// How sure it is.
    pub level: Level,
    /// From this reading on,
    pub from: Timestamp,
    /// up to this one.
    pub until: Timestamp,
    /// Readings that are flagged.
    pub readings: i64,
    /// The value of the last.
    pub value: Option<f64>,
    is_written: bool,
}

/// The stretches of one series.
#[derive(Debug, Clone, Default)]
pub struct Stretches(Vec<Stretch>);

impl Stretches {
    /// Adds a finding to the newest stretch that it goes on with, or begins one. What a finding says of the time before that
    /// stretch is in those before it.
    pub fn note(&mut self, finding: &Finding) {
        let goes_on = |stretch: &&mut Stretch| {
            stretch.test == finding.test
                && stretch.level == finding.level
                && finding.from <= stretch.until + JOINED_WITHIN
                && finding.until >= stretch.from
        };
        let mut first = finding.from;
        if let Some(stretch) = self.0.iter_mut().rev().find(goes_on) {
            if finding.until.signed_duration_since(stretch.from) <= LONGEST {
                return stretch.extend(finding, finding.until);
            }
            first = first.max(stretch.until);
        }
        let mut until = finding.until;
        for _ in 0..PIECES_MAX {
            let from = first.max(until - LONGEST);
            self.begin(finding, from, until);
            if from == first {
                break;
            }
            until = from;
        }
    }

    fn begin(&mut self, finding: &Finding, from: Timestamp, until: Timestamp) {
        // Two of one beginning would be one row.
        let twin = self.0.iter_mut().find(|stretch| stretch.test == finding.test && stretch.from == from);
        if let Some(stretch) = twin {
            stretch.level = stretch.level.max(finding.level);
            return stretch.extend(finding, until);
        }
        if self.0.len() == STRETCHES_MAX {
            self.0.remove(0);
        }
        let Finding { test, level, readings, value, .. } = *finding;
        let readings = i64::from(readings);
        self.0.push(Stretch { test, level, from, until, readings, value, is_written: false });
    }

    /// Those that changed since they were taken last. Those that nothing can be added to any more at `at` are forgotten.
    pub fn take_changed(&mut self, at: Timestamp) -> Vec<Stretch> {
        let changed: Vec<_> = self.0.iter().filter(|stretch| !stretch.is_written).copied().collect();
        self.0.iter_mut().for_each(|stretch| stretch.is_written = true);
        self.0.retain(|stretch| at.signed_duration_since(stretch.until) <= JOINED_WITHIN);
        changed
    }

    /// How many there are in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Stretch {
    fn extend(&mut self, finding: &Finding, until: Timestamp) {
        self.until = self.until.max(until);
        self.readings += i64::from(finding.readings);
        self.value = finding.value.or(self.value);
        self.is_written = false;
    }
}

//! One metric of one device as the tests see it: a few of its last readings, its rhythm, and what is wrong with it now.

use chrono::Duration;
use schema::clock::Timestamp;

use super::rhythm::Rhythm;
use super::{Level, Limits, Test, limits_of};

/// A device's clock may be so far ahead.
const CLOCK_AHEAD_MAX: Duration = Duration::minutes(10);
/// What comes in later than this after its time is odd, though a buffer that was emptied late explains it.
const CLOCK_BEHIND_MAX: Duration = Duration::hours(24);
/// Readings farther apart than this, or than silence, are not held against each other.
const NEAR_MAX: Duration = Duration::minutes(10);
/// So many equal values at least are stuck.
const EQUAL_MIN: u32 = 5;
/// For so long a probe must be apart from the others.
const APART_FOR: Duration = Duration::minutes(15);
/// How often it is held against the others.
const COMPARED_EVERY: Duration = Duration::seconds(30);

/// A reading, as the tests need it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heard {
    /// Its value, in the unit of the limits.
    pub value: f64,
    /// When it was measured, by its device.
    pub occurred_at: Timestamp,
    /// When it came in.
    pub received_at: Timestamp,
    /// The time that it counts for: that of its device, unless that is far ahead.
    pub at: Timestamp,
}

/// What a test found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// The test.
    pub test: Test,
    /// How sure it is.
    pub level: Level,
    /// From this reading on,
    pub from: Timestamp,
    /// up to this one.
    pub until: Timestamp,
    /// Readings that are flagged by it and were not before.
    pub readings: u32,
    /// The value of the last.
    pub value: Option<f64>,
}

/// What is wrong now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// By which test.
    pub test: Test,
    /// How sure it is.
    pub level: Level,
    /// Since which reading.
    pub since: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    value: f64,
    at: Timestamp,
}

/// Equal values without a break.
#[derive(Debug, Clone, Copy)]
struct Run {
    value: f64,
    since: Timestamp,
    count: u32,
    is_told: bool,
}

/// The readings of one metric of one device.
#[derive(Debug, Clone)]
pub struct Series {
    limits: Option<&'static Limits>,
    last: Option<Point>,
    before: Option<Point>,
    heard_at: Option<Timestamp>,
    rhythm: Rhythm,
    run: Option<Run>,
    apart_since: Option<Timestamp>,
    compared_at: Option<Timestamp>,
    standing: Vec<Standing>,
    /// Whether readings may have come in that were not heard.
    is_deaf: bool,
}

impl Series {
    /// The readings of a metric, of which none was heard yet.
    #[must_use]
    pub fn new(metric: &str) -> Self {
        Self {
            limits: limits_of(metric),
            last: None,
            before: None,
            heard_at: None,
            rhythm: Rhythm::default(),
            run: None,
            apart_since: None,
            compared_at: None,
            standing: Vec::new(),
            is_deaf: false,
        }
    }

    /// Takes a reading and says what the tests found. One that is older than the newest is held against what can be, and
    /// not against its neighbors in time.
    pub fn hear(&mut self, heard: &Heard, is_outside: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let range = self.limits.and_then(|limits| limits.range(heard.value, is_outside));
        let clock = clock(heard);
        findings.extend(range.map(|level| of_one(Test::Range, level, heard)));
        findings.extend(clock.map(|level| of_one(Test::Clock, level, heard)));
        if self.last.is_some_and(|last| heard.at < last.at) {
            return findings;
        }
        self.stands(Test::Range, range, heard.at);
        self.stands(Test::Clock, clock, heard.at);
        self.heard_at = Some(heard.received_at);
        let point = Point { value: heard.value, at: heard.at };
        match self.last {
            Some(last) if last.at == heard.at => self.last = Some(point),
            Some(last) => {
                self.follow(last, point, &mut findings);
                (self.before, self.last) = (Some(last), Some(point));
            }
            None => self.last = Some(point),
        }
        self.hold(point, &mut findings);
        findings
    }

    /// Holds a reading against the one before it.
    fn follow(&mut self, last: Point, point: Point, findings: &mut Vec<Finding>) {
        let interval = point.at.signed_duration_since(last.at);
        let was_deaf = std::mem::take(&mut self.is_deaf);
        let silent_after = self.rhythm.silent_after();
        let near = silent_after.unwrap_or(NEAR_MAX).max(NEAR_MAX);
        if !was_deaf {
            if silent_after.is_some_and(|silent| interval >= silent) {
                let (test, level) = (Test::Gap, Level::Missing);
                let (from, until) = (last.at, point.at);
                findings.push(Finding { test, level, from, until, readings: 0, value: None });
            }
            self.rhythm.note(interval);
        }
        if interval >= near || was_deaf {
            self.run = None;
            self.stands(Test::Rate, None, point.at);
            return;
        }
        let Some(limits) = self.limits else { return };
        if let Some(before) = self.before.filter(|before| last.at.signed_duration_since(before.at) < near)
            && let Some(level) = limits.spike(before.value, last.value, point.value)
        {
            let (from, value) = (last.at, Some(last.value));
            findings.push(Finding { test: Test::Spike, level, from, until: from, readings: 1, value });
        }
        let rate = limits.is_too_fast(point.value - last.value, interval).then_some(Level::Suspect);
        findings.extend(rate.map(|level| of_point(Test::Rate, level, point)));
        self.stands(Test::Rate, rate, point.at);
    }

    /// Holds a reading against those that had the same value.
    fn hold(&mut self, point: Point, findings: &mut Vec<Finding>) {
        let Some(stuck) = self.limits.and_then(|limits| limits.stuck.as_ref()) else { return };
        let same = self.run.as_mut().filter(|run| (run.value - point.value).abs() <= stuck.tolerance);
        let Some(run) = same.filter(|_| !(stuck.but_not)(point.value)) else {
            self.run = Some(Run { value: point.value, since: point.at, count: 1, is_told: false });
            return self.stands(Test::Stuck, None, point.at);
        };
        run.count = run.count.saturating_add(1);
        let suspect_after = Duration::minutes(stuck.minutes);
        let lasts = point.at.signed_duration_since(run.since);
        if run.count < EQUAL_MIN || lasts < suspect_after {
            return;
        }
        let readings = if std::mem::replace(&mut run.is_told, true) { 1 } else { run.count };
        let (since, fails_at) = (run.since, run.since + suspect_after + suspect_after);
        let level = if lasts >= suspect_after + suspect_after { Level::Fail } else { Level::Suspect };
        let from = if level == Level::Fail { fails_at } else { since };
        findings.push(Finding {
            test: Test::Stuck,
            level,
            from,
            until: point.at,
            readings,
            value: Some(point.value),
        });
        self.stands(Test::Stuck, Some(level), since);
    }

    /// Whether it is time to hold its newest value against those of the others.
    #[must_use]
    pub fn wants_comparison(&self) -> bool {
        let Some(last) = self.last else { return false };
        let is_due =
            self.compared_at.is_none_or(|at| last.at.signed_duration_since(at).abs() >= COMPARED_EVERY);
        is_due && self.limits.is_some_and(Limits::has_neighbors)
    }

    /// Holds its newest value against the median of all, itself among them; `None` when they are too few.
    pub fn compare(&mut self, median: Option<f64>) -> Option<Finding> {
        let (last, limits) = (self.last?, self.limits?);
        self.compared_at = Some(last.at);
        if !median.is_some_and(|median| limits.is_apart(last.value, median)) {
            self.apart_since = None;
            self.stands(Test::Neighbors, None, last.at);
            return None;
        }
        let since = *self.apart_since.get_or_insert(last.at);
        if last.at.signed_duration_since(since) < APART_FOR {
            return None;
        }
        self.stands(Test::Neighbors, Some(Level::Suspect), since);
        Some(Finding { from: since, ..of_point(Test::Neighbors, Level::Suspect, last) })
    }

    /// The newest value and its time.
    #[must_use]
    pub fn newest(&self) -> Option<(f64, Timestamp)> {
        self.last.map(|last| (last.value, last.at))
    }

    /// Since when it is silent at `now` by the engine's clock, where that is too long.
    #[must_use]
    pub fn silent_since(&self, now: Timestamp) -> Option<Timestamp> {
        let heard_at = self.heard_at?;
        (now.signed_duration_since(heard_at) >= self.rhythm.silent_after()?).then_some(heard_at)
    }

    /// What is wrong at `now`, by the engine's clock.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Vec<Standing> {
        let mut standing = self.standing.clone();
        let silent_since = self.silent_since(now);
        standing.extend(silent_since.map(|since| Standing { test: Test::Gap, level: Level::Missing, since }));
        standing.sort_by_key(|standing| std::cmp::Reverse((standing.level, standing.test)));
        standing
    }

    /// Notes that readings may have come in unheard: nothing is made of the time up to `now`.
    pub fn was_deaf(&mut self, now: Timestamp) {
        self.is_deaf = true;
        self.before = None;
        self.heard_at = self.heard_at.map(|heard_at| heard_at.max(now));
    }

    /// Goes on where an earlier life of the engine left a value that was stuck.
    pub fn resume_stuck(&mut self, value: f64, since: Timestamp, level: Level) {
        let Some(stuck) = self.limits.and_then(|limits| limits.stuck.as_ref()) else { return };
        // A failure began after twice the time.
        let before = if level == Level::Fail { 2 * stuck.minutes } else { 0 };
        let since = since - Duration::minutes(before);
        self.run = Some(Run { value, since, count: EQUAL_MIN, is_told: true });
        self.stands(Test::Stuck, Some(level), since);
    }

    /// Notes whether a test finds something in the newest reading.
    fn stands(&mut self, test: Test, level: Option<Level>, at: Timestamp) {
        let known = self.standing.iter().position(|standing| standing.test == test);
        match (known, level) {
            (Some(place), None) => drop(self.standing.swap_remove(place)),
            (Some(place), Some(level)) => self.standing[place].level = level,
            (None, Some(level)) => self.standing.push(Standing { test, level, since: at }),
            (None, None) => {}
        }
    }
}

fn clock(heard: &Heard) -> Option<Level> {
    let ahead = heard.occurred_at.signed_duration_since(heard.received_at);
    (ahead > CLOCK_AHEAD_MAX || -ahead > CLOCK_BEHIND_MAX).then_some(Level::Suspect)
}

fn of_one(test: Test, level: Level, heard: &Heard) -> Finding {
    of_point(test, level, Point { value: heard.value, at: heard.at })
}

fn of_point(test: Test, level: Level, point: Point) -> Finding {
    Finding { test, level, from: point.at, until: point.at, readings: 1, value: Some(point.value) }
}

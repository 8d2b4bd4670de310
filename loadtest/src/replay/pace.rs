//! When a message of a recording is due.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The longest a play may last: nobody waits for more than ten years.
const SECONDS_MAX: f64 = 315_576_000.0;

/// What decides how fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tempo {
    /// As fast as the windows of the connections allow.
    Max,
    /// With the pauses of the recording, so many times as fast.
    Factor(f64),
    /// So many messages per second, whatever the pauses were.
    PerSecond(f64),
}

/// How the tempo changes on the way.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Course {
    /// Not at all.
    #[default]
    Steady,
    /// From nothing to the whole tempo within this time.
    Ramp(Duration),
    /// The tempo times each of these in turn for this long; the last one stays.
    Steps(Vec<f64>, Duration),
}

/// Tempo and course together.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// How fast.
    pub tempo: Tempo,
    /// How that changes.
    pub course: Course,
}

/// A factor, or `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(pub Tempo);

impl FromStr for Speed {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "max" {
            return Ok(Self(Tempo::Max));
        }
        let factor: f64 =
            text.trim_start_matches(['x', '×']).parse().context("a speed is max or a number")?;
        ensure!((0.01..=10_000.0).contains(&factor), "a speed is between 0.01 and 10000");
        Ok(Self(Tempo::Factor(factor)))
    }
}

impl Pace {
    /// When the message is due, counted from the start of the play: it is number `index` and was recorded `recorded`
    /// after the first, all rounds counted.
    #[must_use]
    pub fn due_after(&self, index: u64, recorded: Duration) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a play has fewer than 2^52 messages")]
        let steady = match self.tempo {
            Tempo::Max => return Duration::ZERO,
            Tempo::Factor(factor) => recorded.as_secs_f64() / factor,
            Tempo::PerSecond(rate) => index as f64 / rate,
        };
        Duration::from_secs_f64(self.course.stretch(steady).clamp(0.0, SECONDS_MAX))
    }
}

impl Course {
    /// When the work is done that takes `steady` seconds at the whole tempo.
    fn stretch(&self, steady: f64) -> f64 {
        match self {
            Self::Steady => steady,
            Self::Ramp(length) => {
                // Up to the time t of a ramp of length l, t² / 2l is done: half of l when it ends.
                let length = length.as_secs_f64();
                if steady < length / 2.0 { (2.0 * steady * length).sqrt() } else { steady + length / 2.0 }
            }
            Self::Steps(factors, length) => {
                let length = length.as_secs_f64();
                let (mut left, mut elapsed) = (steady, 0.0);
                for (at, factor) in factors.iter().enumerate() {
                    let is_last = at + 1 == factors.len();
                    if is_last || left <= factor * length {
                        return elapsed + left / factor;
                    }
                    left -= factor * length;
                    elapsed += length;
                }
                elapsed + left
            }
        }
    }

    /// Reads the factors of steps, such as `1,2,5`.
    ///
    /// # Errors
    /// When one of them is no positive number.
    pub fn parse_steps(text: &str) -> Result<Vec<f64>> {
        let factors: Result<Vec<f64>, _> = text.split(',').map(|step| step.trim().parse::<f64>()).collect();
        let factors = factors.context("steps are numbers with commas between them")?;
        if factors.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) {
            bail!("a step is more than 0");
        }
        Ok(factors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(tempo: Tempo, course: Course, index: u64, recorded_seconds: f64) -> f64 {
        let pace = Pace { tempo, course };
        pace.due_after(index, Duration::from_secs_f64(recorded_seconds)).as_secs_f64()
    }

    #[test]
    fn a_tempo_is_a_factor_a_rate_or_none() {
        assert_eq!(due(Tempo::Factor(10.0), Course::Steady, 5, 100.0), 10.0);
        assert_eq!(due(Tempo::Factor(0.1), Course::Steady, 5, 100.0), 1000.0);
        assert_eq!(due(Tempo::PerSecond(20.0), Course::Steady, 5, 100.0), 0.25);
        assert_eq!(due(Tempo::Max, Course::Ramp(Duration::from_secs(9)), 5, 100.0), 0.0);
    }

    #[test]
    fn a_ramp_costs_half_its_length_and_never_runs_backwards() {
        let ramp = || Course::Ramp(Duration::from_secs(10));
        assert_eq!(due(Tempo::PerSecond(1.0), ramp(), 5, 0.0), 10.0);
        assert_eq!(due(Tempo::PerSecond(1.0), ramp(), 50, 0.0), 55.0);
        let times: Vec<_> = (0..20).map(|index| due(Tempo::PerSecond(1.0), ramp(), index, 0.0)).collect();
        assert!(times.is_sorted() && times[1] > 4.0, "{times:?}");
    }

    #[test]
    fn steps_follow_each_other_and_the_last_stays() {
        let steps = || Course::Steps(vec![1.0, 2.0, 5.0], Duration::from_secs(10));
        let check = |index, expected| {
            assert_eq!(due(Tempo::PerSecond(1.0), steps(), index, 0.0), expected, "{index}")
        };
        check(5, 5.0);
        check(10, 10.0);
        check(20, 15.0);
        check(30, 20.0);
        check(130, 40.0);
    }

    #[test]
    fn speeds_and_steps_are_read_as_documented() {
        assert_eq!("max".parse::<Speed>().unwrap(), Speed(Tempo::Max));
        assert_eq!("0.1".parse::<Speed>().unwrap(), Speed(Tempo::Factor(0.1)));
        assert_eq!("x10".parse::<Speed>().unwrap(), Speed(Tempo::Factor(10.0)));
        for bad in ["0", "-1", "fast", "1e9"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
        assert_eq!(Course::parse_steps("1, 2.5").unwrap(), [1.0, 2.5]);
        assert!(Course::parse_steps("1,0").is_err());
    }
}

//! Thresholds such as `p99>50ms` or `refused>0`: what must not be, for the exit status.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use crate::run::Run;
use crate::timeline::{Percentiles, Span};

/// How a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    More,
    AtLeast,
    Less,
    AtMost,
    Equal,
}

/// The two-letter signs come first, so that `>=` is not read as `>`.
const RELATIONS: [(&str, Relation); 5] = [
    (">=", Relation::AtLeast),
    ("<=", Relation::AtMost),
    ("==", Relation::Equal),
    (">", Relation::More),
    ("<", Relation::Less),
];

/// A figure of a run and the values it must not have.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    figure: String,
    relation: Relation,
    value: f64,
    text: String,
}

impl FromStr for Threshold {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let sign = RELATIONS.iter().find_map(|(sign, relation)| Some((text.find(sign)?, sign, *relation)));
        let Some((at, sign, relation)) = sign else {
            bail!("{text:?} compares nothing: expected a figure, one of > >= < <= ==, and a value")
        };
        let figure = text[..at].trim().to_owned();
        ensure!(!figure.is_empty(), "{text:?} names no figure");
        let value = parse_value(text[at + sign.len()..].trim())?;
        Ok(Self { figure, relation, value, text: text.to_owned() })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// A number, or a time that becomes one of milliseconds.
fn parse_value(text: &str) -> Result<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic() || c == 'µ').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "" | "ms" | "/s" => 1.0,
        "us" | "µs" => 1e-3,
        "s" => 1e3,
        "min" => 60e3,
        _ => bail!("{unit:?} is none of: us, ms, s, min"),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number * factor),
        _ => bail!("{text:?} is no value"),
    }
}

impl Threshold {
    fn is_broken_by(&self, figure: f64) -> bool {
        match self.relation {
            Relation::More => figure > self.value,
            Relation::AtLeast => figure >= self.value,
            Relation::Less => figure < self.value,
            Relation::AtMost => figure <= self.value,
            Relation::Equal => (figure - self.value).abs() < f64::EPSILON,
        }
    }
}

/// A figure of a run by its name: a count, `rate`, `seconds`, or a percentile such as `p99` (from when messages were
/// due), `sent.p99.9`, `connect.max`.
#[must_use]
pub fn figure(run: &Run, name: &str) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    if let Some(count) = run.counts.get(name) {
        return Some(*count as f64);
    }
    match name {
        "rate" => return Some(run.rate()),
        "seconds" => return Some(run.seconds()),
        _ => {}
    }
    let (span, percentile) = Span::ALL
        .iter()
        .find_map(|span| Some((span.as_str(), name.strip_prefix(span.as_str())?.strip_prefix('.')?)))
        .unwrap_or((Span::Due.as_str(), name));
    of(run.latency.get(span)?, percentile)
}

fn of(percentiles: &Percentiles, name: &str) -> Option<f64> {
    match name {
        "p50" => Some(percentiles.p50),
        "p90" => Some(percentiles.p90),
        "p99" => Some(percentiles.p99),
        "p99.9" | "p999" => Some(percentiles.p999),
        "max" => Some(percentiles.max),
        _ => None,
    }
}

/// What of these thresholds is broken by any of the runs.
///
/// # Errors
/// When no run has such a figure: a threshold that nothing is measured by must not pass.
pub fn broken(thresholds: &[Threshold], runs: &[Run]) -> Result<Vec<String>> {
    let mut reasons = Vec::new();
    for threshold in thresholds {
        let figures: Vec<f64> = runs.iter().filter_map(|run| figure(run, &threshold.figure)).collect();
        if figures.is_empty() {
            let mut known: Vec<_> = runs.iter().flat_map(|run| run.counts.keys().cloned()).collect();
            known.sort();
            known.dedup();
            bail!(
                "no figure is called {:?}; there are p50, p90, p99, p99.9, max, rate, seconds, {}",
                threshold.figure,
                known.join(", ")
            );
        }
        let values = figures.iter().filter(|value| threshold.is_broken_by(**value));
        reasons.extend(values.map(|value| format!("{threshold}: it is {}", short(*value))));
    }
    Ok(reasons)
}

/// A figure with as many digits as one wants to read.
#[must_use]
pub fn short(value: f64) -> String {
    if value.fract().abs() < f64::EPSILON {
        format!("{value:.0}")
    } else if value >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The figures of a run, one a line, and its verdict.
#[must_use]
pub fn summary(run: &Run) -> Vec<String> {
    let counts: Vec<_> = run
        .counts
        .iter()
        .filter(|(name, count)| **count > 0 || ["acknowledged", "refused"].contains(&name.as_str()))
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let mut lines = vec![format!("{} in {:.1} s, {:.0}/s", counts.join(", "), run.seconds(), run.rate())];
    for span in Span::ALL {
        if let Some(it) = run.latency.get(span.as_str()) {
            lines.push(format!(
                "{:<9} p50 {} ms, p90 {} ms, p99 {} ms, p99.9 {} ms, max {} ms",
                span.as_str(),
                short(it.p50),
                short(it.p90),
                short(it.p99),
                short(it.p999),
                short(it.max)
            ));
        }
    }
    lines.push(if run.verdict.passed { "passed".to_owned() } else { "failed:".to_owned() });
    lines.extend(run.verdict.reasons.iter().map(|reason| format!("  {reason}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::clock::Clock;

    fn run() -> Run {
        let now = Clock::system().now();
        let mut run = Run::new("replay", now, now + chrono::Duration::seconds(10));
        run.counts.insert("acknowledged".into(), 1000);
        run.counts.insert("refused".into(), 3);
        let due = Percentiles { p50: 1.0, p90: 5.0, p99: 60.0, p999: 80.0, max: 90.0, count: 1000 };
        run.latency.insert("due".into(), due);
        run
    }

    #[test]
    fn a_threshold_is_broken_or_not() {
        let check = |text: &str, is_broken: bool| {
            let broken = broken(&[text.parse().unwrap()], &[run()]).unwrap();
            assert_eq!(!broken.is_empty(), is_broken, "{text}: {broken:?}");
        };
        check("p99>50ms", true);
        check("p99 > 0.06s", false);
        check("p99>=60", true);
        check("due.p99.9>80000us", false);
        check("max>89", true);
        check("refused>0", true);
        check("refused>3", false);
        check("rate<100", false);
        check("rate<101", true);
        check("acknowledged==1000", true);
    }

    #[test]
    fn what_nobody_measured_is_no_pass() {
        let error = broken(&["lost>0".parse().unwrap()], &[run()]).unwrap_err().to_string();
        assert!(error.contains("lost") && error.contains("acknowledged"), "{error}");
        assert!(broken(&["sent.p99>1".parse().unwrap()], &[run()]).is_err());
    }

    #[test]
    fn a_threshold_says_what_it_does_not_understand() {
        for bad in ["p99", ">5", "p99>fast", "p99>5 weeks", "p99>"] {
            assert!(bad.parse::<Threshold>().is_err(), "{bad}");
        }
    }
}

//! The air of a barn: what its probes say now, and how it was. Figures of the house are means of the probes that can be believed,
//! each by the weight of its place.

use actors::alarm::rule::{AMMONIA, CARBON_DIOXIDE, HUMIDITY, LIGHT, TEMPERATURE};
use actors::flock::climate::heat_index;

use super::chart::climate::{Bucket, Course};
use super::frame::Frame;
use super::text::Texts;
use super::words::{number, span};

/// A reading that is older shows nothing of the present.
pub(crate) const STALE_SECONDS: f64 = 600.0;
/// Below this it is night.
const DARK_LUX: f64 = 1.0;
/// Seconds of an hour.
const HOUR: f64 = 3600.0;

/// What a barn's air is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Air temperature.
    Temperature,
    /// Relative humidity.
    Humidity,
    /// NH3.
    Ammonia,
    /// CO2.
    CarbonDioxide,
    /// Illuminance.
    Light,
}

impl Metric {
    /// All of them, as a farmer asks for them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Temperature, Self::Humidity, Self::Ammonia, Self::CarbonDioxide, Self::Light];

    /// As devices name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Temperature => TEMPERATURE,
            Self::Humidity => HUMIDITY,
            Self::Ammonia => AMMONIA,
            Self::CarbonDioxide => CARBON_DIOXIDE,
            Self::Light => LIGHT,
        }
    }

    /// As people name it.
    pub(crate) fn word(self, t: &Texts) -> &'static str {
        match self {
            Self::Temperature => t.temperature,
            Self::Humidity => t.humidity,
            Self::Ammonia => t.ammonia,
            Self::CarbonDioxide => t.carbon_dioxide,
            Self::Light => t.light,
        }
    }

    /// Its unit.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Temperature => "°C",
            Self::Humidity => "%",
            Self::Ammonia | Self::CarbonDioxide => "ppm",
            Self::Light => "lux",
        }
    }

    /// Digits behind the point that mean something.
    pub(crate) fn places(self) -> usize {
        match self {
            Self::Temperature | Self::Ammonia => 1,
            Self::Humidity | Self::CarbonDioxide | Self::Light => 0,
        }
    }

    /// What may not be passed (Directive 2007/43/EC, annex II).
    pub(crate) fn limit(self) -> Option<f64> {
        match self {
            Self::Ammonia => Some(20.0),
            Self::CarbonDioxide => Some(3000.0),
            Self::Temperature | Self::Humidity | Self::Light => None,
        }
    }
}

/// What a probe says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probe {
    /// Its device.
    pub(crate) device_id: String,
    /// What it says it of, as devices name it.
    pub(crate) metric: String,
    /// How much.
    pub(crate) value: f64,
    /// Its unit, where the device says.
    pub(crate) unit: Option<String>,
    /// How old it is, seconds.
    pub(crate) age_seconds: f64,
    /// What is wrong with it, in a word of its test; the worst first.
    pub(crate) faults: Vec<&'static str>,
    /// Whether it cannot be believed.
    pub(crate) is_failing: bool,
    /// Where it is.
    pub(crate) zone: Option<String>,
    /// What it stands for; `None` while nobody has said, which counts as inside.
    pub(crate) role: Option<&'static str>,
    /// What it counts.
    pub(crate) weight: f64,
}

impl Probe {
    fn is_of_house(&self) -> bool {
        self.role.is_none_or(|role| matches!(role, "inside" | "air" | "light"))
    }

    fn counts(&self, metric: Metric) -> bool {
        self.metric == metric.name()
            && self.is_of_house()
            && self.weight > 0.0
            && !self.is_failing
            && self.age_seconds <= STALE_SECONDS
    }
}

/// What the house says of a metric now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Now {
    /// Mean of its probes, by their weights.
    pub(crate) mean: f64,
    /// Least.
    pub(crate) min: f64,
    /// Most.
    pub(crate) max: f64,
    /// Probes that count.
    pub(crate) probes: usize,
    /// How old the oldest of them is, seconds.
    pub(crate) age_seconds: f64,
}

/// What the house says of a metric now; `None` when nobody who can be believed says anything.
pub(crate) fn now_of(probes: &[Probe], metric: Metric) -> Option<Now> {
    let counting: Vec<&Probe> = probes.iter().filter(|probe| probe.counts(metric)).collect();
    let weight: f64 = counting.iter().map(|probe| probe.weight).sum();
    if counting.is_empty() || weight <= 0.0 {
        return None;
    }
    let values = counting.iter().map(|probe| probe.value);
    Some(Now {
        mean: counting.iter().map(|probe| probe.value * probe.weight).sum::<f64>() / weight,
        min: values.clone().fold(f64::INFINITY, f64::min),
        max: values.fold(f64::NEG_INFINITY, f64::max),
        probes: counting.len(),
        age_seconds: counting.iter().map(|probe| probe.age_seconds).fold(0.0, f64::max),
    })
}

/// How the birds feel: the temperature-humidity index now.
pub(crate) fn heat_of(probes: &[Probe]) -> Option<f64> {
    let (air, wet) = (now_of(probes, Metric::Temperature)?, now_of(probes, Metric::Humidity)?);
    Some(heat_index(air.mean, wet.mean))
}

/// What one metric of one device was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Its device.
    pub(crate) device_id: String,
    /// As devices name it.
    pub(crate) metric: String,
    /// Buckets, in their order.
    pub(crate) buckets: Vec<Bucket>,
    /// Whether it is of the house.
    pub(crate) is_of_house: bool,
}

/// A stretch of time that is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    /// Seconds from edge to edge.
    pub(crate) seconds: f64,
    /// Seconds of a bucket.
    pub(crate) step_seconds: f64,
    /// Where words stand: seconds, word.
    pub(crate) hours: Vec<(f64, String)>,
}

/// The picture of a metric over a stretch of time; `None` when there was nothing.
pub(crate) fn course(
    f: &Frame,
    id: &str,
    metric: Metric,
    window: &Window,
    lines: &[Line],
    wanted: Option<(f64, f64)>,
) -> Option<Told> {
    let probes: Vec<Vec<Bucket>> = lines
        .iter()
        .filter(|line| line.metric == metric.name() && line.is_of_house)
        .map(|line| line.buckets.clone())
        .collect();
    let mean = mean_of(&probes);
    let (first, last) = (mean.first()?, mean.last()?);
    let low = mean.iter().map(|bucket| bucket.min).fold(f64::INFINITY, f64::min);
    let high = mean.iter().map(|bucket| bucket.max).fold(f64::NEG_INFINITY, f64::max);
    let places = metric.places();
    let finding = format!(
        "{} {} – {} {}: {} {}",
        f.t.lowest_highest,
        number(low, places),
        number(high, places),
        metric.unit(),
        span(f.t, last.at_seconds - first.at_seconds),
        f.t.in_sight
    );
    let course = Course {
        id,
        seconds: window.seconds,
        step_seconds: window.step_seconds,
        hours: window.hours.clone(),
        nights: nights(lines, window),
        probes,
        mean: mean.clone(),
        wanted,
        limit: metric.limit(),
    };
    let picture = course.draw(metric.word(f.t), &finding, metric.unit())?;
    Some(Told { picture, finding, mean })
}

/// A picture with its finding, and what its line is made of.
pub(crate) struct Told {
    pub(crate) picture: String,
    pub(crate) finding: String,
    pub(crate) mean: Vec<Bucket>,
}

/// What several probes come to, bucket by bucket.
fn mean_of(probes: &[Vec<Bucket>]) -> Vec<Bucket> {
    let mut all: Vec<Bucket> = probes.iter().flatten().copied().collect();
    all.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds));
    all.chunk_by(|a, b| (a.at_seconds - b.at_seconds).abs() < 1.0)
        .map(|same| Bucket {
            at_seconds: same[0].at_seconds,
            min: same.iter().map(|bucket| bucket.min).fold(f64::INFINITY, f64::min),
            mean: same.iter().map(|bucket| bucket.mean).sum::<f64>() / same.len() as f64,
            max: same.iter().map(|bucket| bucket.max).fold(f64::NEG_INFINITY, f64::max),
        })
        .collect()
}

/// When it was dark, by the probes of light.
fn nights(lines: &[Line], window: &Window) -> Vec<(f64, f64)> {
    let lit: Vec<Vec<Bucket>> =
        lines.iter().filter(|line| line.metric == LIGHT).map(|line| line.buckets.clone()).collect();
    let mut nights: Vec<(f64, f64)> = Vec::new();
    for bucket in mean_of(&lit).iter().filter(|bucket| bucket.mean < DARK_LUX) {
        let until = bucket.at_seconds + window.step_seconds;
        match nights.last_mut() {
            Some(night) if bucket.at_seconds - night.1 < HOUR => night.1 = until,
            Some(_) | None => nights.push((bucket.at_seconds, until)),
        }
    }
    nights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(value: f64) -> Probe {
        Probe {
            device_id: "d-1".into(),
            metric: TEMPERATURE.into(),
            value,
            unit: None,
            age_seconds: 20.0,
            faults: Vec::new(),
            is_failing: false,
            zone: None,
            role: None,
            weight: 1.0,
        }
    }

    #[test]
    fn a_house_is_what_its_believable_probes_say_now() {
        let probes = [
            probe(24.0),
            Probe { weight: 3.0, ..probe(28.0) },
            Probe { is_failing: true, ..probe(60.0) },
            Probe { role: Some("outside"), ..probe(40.0) },
            Probe { age_seconds: STALE_SECONDS + 1.0, ..probe(10.0) },
            Probe { metric: HUMIDITY.into(), ..probe(70.0) },
        ];
        let now = now_of(&probes, Metric::Temperature).unwrap();
        assert_eq!((now.mean, now.min, now.max, now.probes), (27.0, 24.0, 28.0, 2));
        assert!(heat_of(&probes).is_some() && heat_of(&probes[..2]).is_none());
        assert_eq!(now_of(&probes, Metric::Ammonia), None);
    }

    #[test]
    fn probes_come_together_bucket_by_bucket_and_nights_are_dark() {
        let bucket = |at_seconds, mean| Bucket { at_seconds, min: mean - 1.0, mean, max: mean + 1.0 };
        let mean = mean_of(&[vec![bucket(0.0, 20.0), bucket(300.0, 22.0)], vec![bucket(300.0, 26.0)]]);
        assert_eq!(mean, [bucket(0.0, 20.0), Bucket { at_seconds: 300.0, min: 21.0, mean: 24.0, max: 27.0 }]);
        let light = |at_seconds, mean| Bucket { at_seconds, min: mean, mean, max: mean };
        let line = Line {
            device_id: "l".into(),
            metric: LIGHT.into(),
            buckets: vec![light(0.0, 0.0), light(900.0, 0.2), light(1800.0, 20.0), light(7200.0, 0.0)],
            is_of_house: true,
        };
        let window = Window { seconds: 86_400.0, step_seconds: 900.0, hours: Vec::new() };
        assert_eq!(nights(&[line], &window), [(0.0, 1800.0), (7200.0, 8100.0)]);
    }
}

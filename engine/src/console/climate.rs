//! The page of the climate: each metric over a stretch of time, the air of today by the law's measures, and every probe.

use actors::flock::house::HouseDay;
use askama::Template;

use super::air::{Metric, Probe, Told, now_of};
use super::barn::age;
use super::frame::Frame;
use super::icon;
use super::text::Texts;
use super::weights::{Fact, Tag, encoded};
use super::words::{number, span};

/// Seconds of a minute.
const MINUTE: f64 = 60.0;
/// Seconds of an hour.
const HOUR: f64 = 3600.0;

/// The page.
#[derive(Template)]
#[template(path = "climate.html")]
pub(crate) struct ClimatePage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: Climate,
}

/// What is to be seen.
pub(crate) struct Climate {
    /// Name in the address, word, whether one is there.
    pub(crate) spans: Vec<(&'static str, String, bool)>,
    /// Seconds between two looks at what is new.
    pub(crate) throttle: u32,
    pub(crate) charts: Vec<MetricChart>,
    pub(crate) house: Vec<Fact>,
    pub(crate) probes: Vec<ProbeRow>,
}

/// A metric over a stretch of time.
pub(crate) struct MetricChart {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) now: Option<String>,
    pub(crate) picture: String,
    pub(crate) says: String,
    /// Time, least, mean, most.
    pub(crate) rows: Vec<(String, String, String, String)>,
}

impl MetricChart {
    /// A metric with its picture; `when` writes the time of a bucket.
    pub(crate) fn of(
        f: &Frame,
        metric: Metric,
        told: Told,
        probes: &[Probe],
        when: impl Fn(f64) -> String,
    ) -> Self {
        let places = metric.places();
        let row = |bucket: &super::chart::climate::Bucket| {
            let values = [bucket.min, bucket.mean, bucket.max].map(|value| number(value, places));
            let [min, mean, max] = values;
            (when(bucket.at_seconds), min, mean, max)
        };
        Self {
            id: metric.name(),
            name: metric.word(f.t),
            unit: metric.unit(),
            now: now_of(probes, metric).map(|now| number(now.mean, places)),
            rows: told.mean.iter().rev().map(row).collect(),
            picture: told.picture,
            says: told.finding,
        }
    }
}

/// A probe in a line.
pub(crate) struct ProbeRow {
    pub(crate) device: String,
    pub(crate) href: String,
    pub(crate) what: String,
    pub(crate) value: String,
    /// Seconds, and the same in words.
    pub(crate) age: (u64, String),
    pub(crate) place: String,
    pub(crate) tag: Tag,
}

/// What is said of a metric that people may not know by its name.
pub(crate) fn metric_word(t: &Texts, metric: &str) -> String {
    let known = Metric::ALL.into_iter().find(|known| known.name() == metric);
    known.map_or_else(|| metric.replace('_', " "), |known| known.word(t).to_owned())
}

fn role_word(t: &Texts, role: Option<&str>) -> &'static str {
    match role {
        Some("outside") => t.role_outside,
        Some("water") => t.role_water,
        Some("scale") => t.role_scale,
        Some("light") => t.role_light,
        Some("air") => t.role_air,
        Some(_) | None => t.role_inside,
    }
}

/// What is wrong with a value, in words.
pub(crate) fn quality(t: &Texts, probe: &Probe) -> Tag {
    let words: Vec<&str> = probe.faults.iter().map(|fault| fault_word(t, fault)).collect();
    let (class, name) = match (probe.is_failing, words.is_empty()) {
        (_, true) => ("good", "ok"),
        (true, false) => ("act", "act"),
        (false, false) => ("look", "look"),
    };
    let text = if words.is_empty() { t.sound.to_owned() } else { words.join(", ") };
    Tag { class, icon: icon::svg(name), text }
}

fn fault_word(t: &Texts, fault: &str) -> &'static str {
    match fault {
        "range" => t.fault_range,
        "spike" => t.fault_spike,
        "rate" => t.fault_rate,
        "stuck" => t.fault_stuck,
        "gap" => t.fault_gap,
        "neighbors" => t.fault_neighbors,
        _ => t.fault_clock,
    }
}

/// Where a probe is, in words.
pub(crate) fn place_of(t: &Texts, probe: &Probe) -> String {
    let role = role_word(t, probe.role);
    probe.zone.as_ref().map_or_else(|| role.to_owned(), |zone| format!("{role} · {zone}"))
}

impl ProbeRow {
    /// A probe in a line.
    pub(crate) fn of(t: &Texts, probe: &Probe) -> Self {
        let known = Metric::ALL.into_iter().find(|metric| metric.name() == probe.metric);
        let places = known.map_or(1, Metric::places);
        let unit = known.map(Metric::unit).or(probe.unit.as_deref()).unwrap_or_default();
        Self {
            device: probe.device_id.clone(),
            href: encoded(&probe.device_id),
            what: metric_word(t, &probe.metric),
            value: format!("{} {unit}", number(probe.value, places)),
            age: age(t, probe.age_seconds),
            place: place_of(t, probe),
            tag: quality(t, probe),
        }
    }
}

/// The air of a day by the measures of the law.
pub(crate) fn house_facts(t: &Texts, day: &HouseDay) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(found) = day.temperature_c {
        let range = format!("°C ({} – {})", number(found.min, 1), number(found.max, 1));
        facts.push(Fact::new(t.temperature, number(found.mean, 1), range));
    }
    if let Some(found) = day.humidity_percent {
        facts.push(Fact::new(t.humidity, number(found.mean, 0), "%"));
    }
    if let Some(heat) = day.heat_index {
        facts.push(Fact::new(t.heat_index, number(heat.max, 1), t.highest));
    }
    if let Some(minutes) = day.ammonia_minutes_over {
        facts.push(Fact::new(t.ammonia_over, span(t, minutes * MINUTE), ""));
    }
    if let Some(minutes) = day.carbon_dioxide_minutes_over {
        facts.push(Fact::new(t.carbon_over, span(t, minutes * MINUTE), ""));
    }
    if let Some(light) = day.light {
        facts.push(Fact::new(t.dark_hours, span(t, light.dark_hours * HOUR), ""));
        facts.push(Fact::new(t.dark_longest, span(t, light.dark_longest_hours * HOUR), ""));
    }
    facts
}

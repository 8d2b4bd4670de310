//! The first page: whether the barn needs anybody, and how it is.

use actors::flock::book::DayFacts;
use askama::Template;
use schema::id::Uuid;

use super::air::{Metric, Probe, heat_of, now_of};
use super::alarms::AlarmView;
use super::chart::climate::Bucket;
use super::chart::spark;
use super::frame::Frame;
use super::text::Texts;
use super::words::{NOTHING, maybe, number, signed, span};

/// Alarms that are shown before everything else.
pub(crate) const ALARMS_FIRST: usize = 3;
/// By how much the air may be off its set point, °C.
pub(crate) const WANTED_HALF: f64 = 1.5;

/// The page.
#[derive(Template)]
#[template(path = "barn.html")]
pub(crate) struct BarnPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: Barn,
}

/// What is to be seen.
pub(crate) struct Barn {
    /// The most urgent alarms that stand.
    pub(crate) alarms: Vec<AlarmView>,
    /// How many stand.
    pub(crate) standing: usize,
    pub(crate) tiles: Vec<Tile>,
    pub(crate) course: Option<String>,
    pub(crate) course_says: String,
    pub(crate) has_wanted: bool,
    pub(crate) waiting: Option<String>,
    pub(crate) losses: Option<Losses>,
}

/// A figure with its age.
pub(crate) struct Tile {
    pub(crate) name: &'static str,
    pub(crate) href: &'static str,
    pub(crate) value: String,
    pub(crate) unit: String,
    pub(crate) says: String,
    /// Seconds, and the same in words.
    pub(crate) age: Option<(u64, String)>,
    pub(crate) spark: Option<String>,
    pub(crate) is_stale: bool,
}

/// What was lost today.
pub(crate) struct Losses {
    pub(crate) flock: Uuid,
    pub(crate) so_far: String,
    /// Makes a form that is sent twice known.
    pub(crate) reference: String,
}

impl Losses {
    /// What was lost on the day of a flock.
    pub(crate) fn of(t: &Texts, flock: Uuid, day: Option<&DayFacts>, reference: String) -> Self {
        let (dead, culled) = day.map_or((0, 0), |day| (day.dead, day.culled));
        let so_far = format!("{} {dead} · {} {culled}", t.dead.to_lowercase(), t.culled.to_lowercase());
        Self { flock, so_far, reference }
    }
}

/// An age in seconds, and in words.
pub(crate) fn age(t: &Texts, seconds: f64) -> (u64, String) {
    (seconds.max(0.0) as u64, span(t, seconds))
}

/// The tiles of the air.
pub(crate) fn air_tiles(t: &Texts, probes: &[Probe], wanted_c: Option<f64>, day: &[Bucket]) -> Vec<Tile> {
    vec![temperature(t, probes, wanted_c, day), humidity(t, probes), gases(t, probes)]
}

fn temperature(t: &Texts, probes: &[Probe], wanted_c: Option<f64>, day: &[Bucket]) -> Tile {
    let now = now_of(probes, Metric::Temperature);
    let off = now.zip(wanted_c).map(|(now, wanted)| {
        format!("{} °C {} {}", signed(now.mean - wanted, 1), t.from_set_point, number(wanted, 1))
    });
    let range = now.filter(|now| now.probes > 1);
    let range = range.map(|now| format!("{} – {}", number(now.min, 1), number(now.max, 1)));
    Tile {
        name: t.temperature,
        href: "/climate",
        value: maybe(now.map(|now| now.mean), 1),
        unit: "°C".to_owned(),
        says: [off, range].into_iter().flatten().collect::<Vec<_>>().join(" · "),
        age: now.map(|now| age(t, now.age_seconds)),
        spark: spark::draw(&day.iter().map(|bucket| Some(bucket.mean)).collect::<Vec<_>>()),
        is_stale: now.is_none(),
    }
}

fn humidity(t: &Texts, probes: &[Probe]) -> Tile {
    let now = now_of(probes, Metric::Humidity);
    Tile {
        name: t.humidity,
        href: "/climate",
        value: maybe(now.map(|now| now.mean), 0),
        unit: "%".to_owned(),
        says: heat_of(probes).map(|heat| format!("{} {}", t.heat_index, number(heat, 1))).unwrap_or_default(),
        age: now.map(|now| age(t, now.age_seconds)),
        spark: None,
        is_stale: now.is_none(),
    }
}

fn gases(t: &Texts, probes: &[Probe]) -> Tile {
    let (ammonia, carbon) = (now_of(probes, Metric::Ammonia), now_of(probes, Metric::CarbonDioxide));
    let carbon_says = carbon.map(|now| format!("CO₂ {} / 3,000", number(now.mean, 0)));
    let says = [Some(format!("{} 20", t.limit)), carbon_says];
    let oldest = [ammonia, carbon]
        .into_iter()
        .flatten()
        .map(|now| now.age_seconds)
        .fold(None, |most: Option<f64>, age| Some(most.map_or(age, |most| most.max(age))));
    Tile {
        name: t.ammonia,
        href: "/climate",
        value: maybe(ammonia.map(|now| now.mean), 1),
        unit: "ppm".to_owned(),
        says: says.into_iter().flatten().collect::<Vec<_>>().join(" · "),
        age: oldest.map(|seconds| age(t, seconds)),
        spark: None,
        is_stale: ammonia.is_none(),
    }
}

/// The tile of the weights: the last day that has some.
pub(crate) fn weight_tile(t: &Texts, days: &[DayFacts], today: chrono::NaiveDate) -> Tile {
    let shown = super::weights::day_on_show(days);
    let is_today = shown.is_some_and(|day| day.day == today);
    let half = shown.and_then(|day| day.half_width_kg).map(|half| format!(" ± {}", number(half, 2)));
    let deviation = shown.and_then(|day| day.deviation_percent);
    let deviation = deviation.map(|value| format!("{} % {}", signed(value, 1), t.standard.to_lowercase()));
    let n = shown.map(|day| format!("n = {}", number(f64::from(day.n), 0)));
    let when = shown.filter(|_| !is_today).map(|day| format!("{} {}", t.day, day.age_days));
    Tile {
        name: t.weight,
        href: "/weights",
        value: shown.and_then(|day| day.mean_kg).map_or_else(|| NOTHING.to_owned(), |mean| number(mean, 2)),
        unit: format!("{}{}", t.kg, half.unwrap_or_default()),
        says: [deviation, n, when].into_iter().flatten().collect::<Vec<_>>().join(" · "),
        age: None,
        spark: spark::draw(&days.iter().map(|day| day.mean_kg).collect::<Vec<_>>()),
        is_stale: !is_today,
    }
}

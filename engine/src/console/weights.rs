//! The page of the weights: what the days of a flock say, in words, figures and charts.

use actors::flock::book::DayFacts;
use actors::flock::growth::Forecast;
use actors::flock::sample::{Bin, Summary};
use actors::flock::scales::Scale;
use actors::flock::standard::Standard;
use askama::Template;
use chrono::{Days, NaiveDate};
use schema::store::flock::Flock;

use super::chart::growth::{Growth, Mean, Outlook};
use super::chart::histogram::Spread;
use super::frame::Frame;
use super::icon;
use super::text::Texts;
use super::words::{date, maybe, number, short_date, signed};

/// Days of an axis at least: most flocks are gone then.
const AXIS_DAYS: i64 = 42;
/// Grams of a kilogram.
const GRAMS: f64 = 1000.0;

/// The page.
#[derive(Template)]
#[template(path = "weights.html")]
pub(crate) struct WeightsPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// The flock in a line.
    pub(crate) flock: Option<String>,
    /// What is to be seen; `None` without a flock.
    pub(crate) view: Option<Weights>,
}

/// A verdict with its shape.
pub(crate) struct Tag {
    /// How it looks.
    pub(crate) class: &'static str,
    /// Its shape.
    pub(crate) icon: String,
    /// Its words.
    pub(crate) text: String,
}

/// A figure with its name.
pub(crate) struct Fact {
    /// What it is.
    pub(crate) name: &'static str,
    /// How much.
    pub(crate) value: String,
    /// Of what.
    pub(crate) unit: String,
}

impl Fact {
    /// A figure.
    pub(crate) fn new(name: &'static str, value: String, unit: impl Into<String>) -> Self {
        Self { name, value, unit: unit.into() }
    }
}

/// A row of the table.
pub(crate) struct DayRow {
    pub(crate) age: i64,
    pub(crate) iso: NaiveDate,
    pub(crate) date: String,
    pub(crate) mean: String,
    pub(crate) half: String,
    pub(crate) standard: String,
    pub(crate) deviation: String,
    pub(crate) n: u32,
    pub(crate) cv: String,
    pub(crate) uniformity: String,
}

/// What is to be seen.
pub(crate) struct Weights {
    pub(crate) day_word: String,
    pub(crate) is_stale: bool,
    pub(crate) tag: Option<Tag>,
    pub(crate) mean: Option<String>,
    pub(crate) half: Option<String>,
    pub(crate) says: String,
    pub(crate) standard: Option<String>,
    pub(crate) growth: String,
    pub(crate) has_hands: bool,
    pub(crate) forecast: Option<String>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) spread: Option<String>,
    pub(crate) spread_says: String,
    pub(crate) bars: Vec<(String, usize)>,
    /// Scales beside each other, where there are several.
    pub(crate) scales: Vec<ScaleRow>,
    pub(crate) csv: String,
    pub(crate) days: Vec<DayRow>,
}

/// A scale in a line.
pub(crate) struct ScaleRow {
    pub(crate) name: String,
    pub(crate) n: String,
    /// Against the others, percent.
    pub(crate) apart: String,
    pub(crate) tag: Tag,
}

impl ScaleRow {
    fn of(t: &Texts, scale: &Scale) -> Self {
        let (class, name, text) = match (scale.apart_percent, scale.is_apart()) {
            (None, _) => ("", "wait", t.too_few),
            (Some(_), false) => ("good", "ok", t.scale_agrees),
            (Some(_), true) => ("look", "look", t.scale_apart),
        };
        Self {
            name: scale.station_id.clone(),
            n: number(scale.n as f64, 0),
            apart: scale.apart_percent.map_or_else(|| maybe(None, 1), |apart| signed(apart, 1)),
            tag: Tag { class, icon: icon::svg(name), text: text.to_owned() },
        }
    }
}

/// What is known of a flock's weights.
pub(crate) struct Known<'a> {
    /// The flock.
    pub(crate) flock: &'a Flock,
    /// Its days.
    pub(crate) days: &'a [DayFacts],
    /// What it is compared with, and what that is called.
    pub(crate) standard: Option<(&'a str, &'a Standard)>,
    /// What is expected, and by which day.
    pub(crate) forecast: Option<(i64, Forecast)>,
    /// The weight that it is expected to have, grams.
    pub(crate) target_g: Option<f64>,
    /// How the weights of the day on show are spread.
    pub(crate) spread: Option<(&'a Summary, &'a [Bin])>,
    /// The scales beside each other.
    pub(crate) scales: &'a [Scale],
    /// Today in the barn.
    pub(crate) today: NaiveDate,
}

/// The day on show: the last one with weighings.
pub(crate) fn day_on_show(days: &[DayFacts]) -> Option<&DayFacts> {
    days.iter().rev().find(|day| day.n > 0)
}

impl Weights {
    /// What is to be seen of what is known.
    pub(crate) fn of(f: &Frame, known: &Known<'_>) -> Self {
        let t = f.t;
        let shown = day_on_show(known.days);
        let day_word = shown.map_or_else(
            || t.today.to_owned(),
            |day| {
                let when =
                    if day.day == known.today { t.today.to_owned() } else { short_date(f.lang, day.day) };
                format!("{when} · {} {}", t.day, day.age_days)
            },
        );
        let finding = shown.map_or_else(|| t.no_weighings.to_owned(), |day| finding(t, day));
        let growth = growth_of(known);
        let (spread, bars) = spread_of(t, known);
        Self {
            day_word,
            is_stale: shown.is_none_or(|day| day.day != known.today),
            tag: shown.map(|day| verdict(t, day)),
            mean: shown.and_then(|day| day.mean_kg).map(|mean| number(mean, 2)),
            half: shown.and_then(|day| day.half_width_kg).map(|half| number(half, 2)),
            says: finding.clone(),
            standard: known.standard.map(|(name, _)| name.to_owned()),
            growth: growth.draw(t.growth, &finding, t.days_unit, t.kg),
            has_hands: !growth.hands.is_empty(),
            forecast: known.forecast.and_then(|(_, forecast)| expected(f, known, &forecast)),
            facts: shown.map(|day| facts(t, day)).unwrap_or_default(),
            spread,
            spread_says: shown.map(|day| spread_says(t, day)).unwrap_or_default(),
            bars,
            scales: match known.scales {
                [] | [_] => Vec::new(),
                scales => scales.iter().map(|scale| ScaleRow::of(t, scale)).collect(),
            },
            csv: format!(
                "/api/v1/flocks/{}/days.csv?tenant_id={}",
                known.flock.id,
                encoded(&known.flock.tenant_id)
            ),
            days: known.days.iter().rev().map(|day| row(f, day)).collect(),
        }
    }
}

/// A text as a part of a query.
pub(crate) fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let digit = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(digit).collect()
}

fn finding(t: &Texts, day: &DayFacts) -> String {
    let n = format!("{} {}", number(f64::from(day.n), 0), t.weighings.to_lowercase());
    match (day.deviation_percent, day.standard_g) {
        (Some(deviation), Some(standard)) => {
            format!(
                "{} % {} ({} {}) · {n}",
                signed(deviation, 1),
                t.standard.to_lowercase(),
                number(standard / GRAMS, 2),
                t.kg
            )
        }
        (None, Some(standard)) => format!("{} {} {} · {n}", t.standard, number(standard / GRAMS, 2), t.kg),
        (_, None) => n,
    }
}

fn verdict(t: &Texts, day: &DayFacts) -> Tag {
    let tag = |class, name, text: &str| Tag { class, icon: icon::svg(name), text: text.to_owned() };
    match day.verdict {
        Some("BELOW") => tag("look", "down", t.below),
        Some("ABOVE") => tag("good", "up", t.above),
        Some(_) => tag("good", "same", t.within),
        None => tag("", "wait", t.too_few),
    }
}

fn growth_of(known: &Known<'_>) -> Growth {
    let mean = |day: &DayFacts| {
        Some(Mean {
            age_days: day.age_days,
            mean_kg: day.mean_kg?,
            half_width_kg: day.half_width_kg,
            is_uncertain: day.is_n_too_small,
        })
    };
    let standard = known.standard.map(|(_, standard)| standard.days()).unwrap_or_default();
    let from = known.forecast.and_then(|(age, _)| {
        let day = known.days.iter().find(|day| day.age_days == age)?;
        Some((age, day.mean_corrected_kg.or(day.mean_kg)?))
    });
    let outlook = known.forecast.zip(known.target_g).zip(from).map(|(((_, forecast), target_g), from)| {
        Outlook { from, target_kg: target_g / GRAMS, ages: (forecast.earliest, forecast.latest) }
    });
    Growth {
        standard: standard.iter().map(|day| (f64::from(day.age_day), day.body_weight_g / GRAMS)).collect(),
        means: known.days.iter().filter_map(mean).collect(),
        hands: known.days.iter().filter_map(|day| Some((day.age_days, day.hand_mean_kg?))).collect(),
        outlook,
        age_days_max: AXIS_DAYS,
    }
}

fn spread_of(t: &Texts, known: &Known<'_>) -> (Option<String>, Vec<(String, usize)>) {
    let Some((summary, bins)) = known.spread else { return (None, Vec::new()) };
    let spread = Spread {
        bars: bins.iter().map(|bin| (bin.from, bin.to, bin.count)).collect(),
        mean_kg: summary.mean,
        deviation_kg: summary.deviation,
    };
    let rows = bins.iter().map(|bin| (format!("{} – {}", number(bin.from, 2), number(bin.to, 2)), bin.count));
    let finding = format!("{} {} {}", t.weight, number(summary.mean, 2), t.kg);
    (spread.draw(t.spread, &finding, t.kg), rows.collect())
}

fn spread_says(t: &Texts, day: &DayFacts) -> String {
    match day.uniformity_percent {
        Some(uniformity) => format!("{} {} % (±10 %)", t.uniformity, number(uniformity, 0)),
        None => String::new(),
    }
}

/// When the flock will have its weight: a range, since nobody knows the day.
fn expected(f: &Frame, known: &Known<'_>, forecast: &Forecast) -> Option<String> {
    let target = known.target_g? / GRAMS;
    let day = |age: f64| {
        // A forecast lies within the standard's days.
        let days = age.ceil().clamp(0.0, 1000.0) as u64;
        known.flock.placed_on.checked_add_days(Days::new(days))
    };
    let (first, last) = (day(forecast.earliest)?, day(forecast.latest)?);
    let when = if first == last {
        short_date(f.lang, first)
    } else {
        format!("{} – {}", short_date(f.lang, first), short_date(f.lang, last))
    };
    let ages = format!("{} – {}", number(forecast.earliest, 1), number(forecast.latest, 1));
    Some(format!("{} {}: {when} ({} {ages})", number(target, 2), f.t.kg, f.t.day.to_lowercase()))
}

fn facts(t: &Texts, day: &DayFacts) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new(
            t.deviation,
            day.deviation_percent.map_or_else(|| maybe(None, 1), |value| signed(value, 1)),
            "%",
        ),
        Fact::new(t.uniformity, maybe(day.uniformity_percent, 0), "% ±10 %"),
        Fact::new(t.cv, maybe(day.cv_percent, 1), "%"),
        Fact::new(
            t.daily_gain,
            day.daily_gain_g.map_or_else(|| maybe(None, 0), |value| signed(value, 0)),
            t.g,
        ),
        Fact::new(t.weekly_gain, maybe(day.weekly_gain_g, 0), t.g),
        Fact::new(t.lag, day.lag_days.map_or_else(|| maybe(None, 1), |value| signed(value, 1)), t.days_unit),
        Fact::new(t.weighings, number(f64::from(day.n), 0), ""),
    ];
    if let Some(corrected) = day.mean_corrected_kg.filter(|_| day.bias.is_some()) {
        facts.push(Fact::new(t.corrected, number(corrected, 2), t.kg));
    }
    let aside = day.n_two_birds + day.n_implausible + day.n_outliers;
    if aside > 0 {
        facts.push(Fact::new(t.outliers, number(f64::from(aside), 0), ""));
    }
    facts
}

fn row(f: &Frame, day: &DayFacts) -> DayRow {
    DayRow {
        age: day.age_days,
        iso: day.day,
        date: date(f.lang, day.day),
        mean: maybe(day.mean_kg, 3),
        half: maybe(day.half_width_kg, 3),
        standard: maybe(day.standard_g.map(|grams| grams / GRAMS), 3),
        deviation: day.deviation_percent.map_or_else(|| maybe(None, 1), |value| signed(value, 1)),
        n: day.n,
        cv: maybe(day.cv_percent, 1),
        uniformity: maybe(day.uniformity_percent, 0),
    }
}

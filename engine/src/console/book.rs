//! The flock's book: its flocks, a flock with what was written down, and the sheet to print.

use actors::flock::book::DayFacts;
use askama::Template;
use chrono::NaiveDate;
use schema::id::Uuid;
use schema::store::flock::Flock;
use schema::store::flock::record::{Kind, Record};

use super::alarms::Drill;
use super::frame::Frame;
use super::text::Texts;
use super::weights::Fact;
use super::words::{NOTHING, date, maybe, number, short_date};

/// Flocks.
#[derive(Template)]
#[template(path = "flocks.html")]
pub(crate) struct FlocksPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// The newest first.
    pub(crate) flocks: Vec<FlockRow>,
}

/// A flock in a line.
pub(crate) struct FlockRow {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) says: String,
    pub(crate) is_present: bool,
}

impl FlockRow {
    /// What is said of a flock.
    pub(crate) fn of(f: &Frame, flock: &Flock) -> Self {
        let until = flock.ended_on.map_or_else(String::new, |day| format!(" – {}", date(f.lang, day)));
        Self {
            id: flock.id,
            name: flock.batch_id.clone(),
            says: format!(
                "{}{until} · {} {} · {}",
                date(f.lang, flock.placed_on),
                number(f64::from(flock.birds), 0),
                f.t.birds_unit,
                flock.genetic_line_code
            ),
            is_present: flock.ended_on.is_none(),
        }
    }
}

/// A flock to place.
#[derive(Template)]
#[template(path = "flock_new.html")]
pub(crate) struct NewFlockPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What was wrong.
    pub(crate) wrong: Option<&'static str>,
    /// What was typed.
    pub(crate) v: NewFlockForm,
    /// Breeds with a standard.
    pub(crate) lines: Vec<String>,
    /// Sexes: word on the wire, word of people.
    pub(crate) sexes: Vec<(&'static str, &'static str)>,
    /// Whether nobody has said yet where the barn is.
    pub(crate) asks_zone: bool,
}

/// What was typed.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewFlockForm {
    pub(crate) placed_on: String,
    pub(crate) birds: String,
    pub(crate) line: String,
    pub(crate) sex: String,
    pub(crate) batch: String,
    pub(crate) target: String,
    pub(crate) area: String,
    pub(crate) zone: String,
    pub(crate) name: String,
}

/// The words for sexes.
pub(crate) fn sexes(t: &Texts) -> Vec<(&'static str, &'static str)> {
    vec![("AS_HATCHED", t.as_hatched), ("MALE", t.male), ("FEMALE", t.female)]
}

/// A flock.
#[derive(Template)]
#[template(path = "flock.html")]
pub(crate) struct FlockPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: FlockView,
}

/// A form for birds that were lost.
pub(crate) struct LossForm {
    pub(crate) kind: &'static str,
    pub(crate) label: &'static str,
    pub(crate) so_far: String,
    /// Makes a form that is sent twice known.
    pub(crate) reference: String,
}

/// What was written down, in a line.
pub(crate) struct RecordRow {
    pub(crate) id: Uuid,
    pub(crate) what: String,
    pub(crate) says: String,
    pub(crate) is_void: bool,
    pub(crate) is_correctable: bool,
}

/// What is to be seen of a flock.
pub(crate) struct FlockView {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) day_word: String,
    pub(crate) facts: Vec<Fact>,
    pub(crate) is_writable: bool,
    pub(crate) is_ending: bool,
    pub(crate) wrong: Option<&'static str>,
    pub(crate) losses: Vec<LossForm>,
    pub(crate) reference: String,
    pub(crate) kinds: Vec<(&'static str, &'static str)>,
    pub(crate) placed_on: NaiveDate,
    pub(crate) today: NaiveDate,
    pub(crate) records: Vec<RecordRow>,
}

/// The word for a kind of record, with its unit.
pub(crate) fn kind_word(t: &Texts, kind: Kind) -> &'static str {
    match kind {
        Kind::Mortality => t.kind_mortality,
        Kind::Cull => t.kind_cull,
        Kind::Thinning => t.kind_thinning,
        Kind::FeedDelivered => t.kind_feed_delivered,
        Kind::FeedLeft => t.kind_feed_left,
        Kind::FeedReturned => t.kind_feed_returned,
        Kind::FeedIntake => t.kind_feed_intake,
        Kind::WaterMeter => t.kind_water_meter,
        Kind::HandWeighing => t.kind_hand_weighing,
        Kind::Note => t.kind_note,
    }
}

/// The kinds of the form for everything but losses.
pub(crate) fn other_kinds(t: &Texts) -> Vec<(&'static str, &'static str)> {
    let is_other = |kind: &Kind| !matches!(kind, Kind::Mortality | Kind::Cull);
    Kind::ALL.into_iter().filter(is_other).map(|kind| (kind.as_str(), kind_word(t, kind))).collect()
}

/// What was written down, the newest first.
pub(crate) fn record_rows(f: &Frame, records: &[Record]) -> Vec<RecordRow> {
    let is_corrected = |id: Uuid| records.iter().any(|record| record.corrects == Some(id));
    records
        .iter()
        .map(|record| {
            let kind = Kind::parse(&record.kind);
            let name = kind.map_or(&*record.kind, |kind| kind_word(f.t, kind));
            let places = if record.value.is_some_and(|value| value.fract() == 0.0) { 0 } else { 3 };
            let value = record.value.map_or_else(String::new, |value| format!(": {}", number(value, places)));
            let is_void = record.is_void || is_corrected(record.id);
            RecordRow {
                id: record.id,
                what: format!("{name}{value}"),
                says: says(f, record),
                is_void,
                is_correctable: !is_void,
            }
        })
        .collect()
}

fn says(f: &Frame, record: &Record) -> String {
    let part = match record.part.as_deref() {
        Some("MORNING") => Some(f.t.morning.to_owned()),
        Some("EVENING") => Some(f.t.evening.to_owned()),
        Some(_) | None => None,
    };
    let author = record.author.rsplit(['/', ':']).next().unwrap_or(&record.author);
    let parts = [
        Some(date(f.lang, record.day)),
        part,
        record.birds.map(|birds| format!("{birds} {}", f.t.birds_unit)),
        record.cause.clone(),
        record.note.clone(),
        record.is_void.then(|| f.t.taken_back.to_owned()),
        Some(format!("{} {author}", f.t.by)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// Figures of a flock on a day.
pub(crate) fn facts(f: &Frame, flock: &Flock, day: Option<&DayFacts>) -> Vec<Fact> {
    let t = f.t;
    let mut facts = vec![
        Fact::new(t.placed_on, date(f.lang, flock.placed_on), ""),
        Fact::new(t.birds_placed, number(f64::from(flock.birds), 0), t.birds_unit),
        Fact::new(t.breed, flock.genetic_line_code.clone(), ""),
    ];
    let Some(day) = day else { return facts };
    let alive = 100.0 * f64::from(day.birds) / f64::from(flock.birds.max(1));
    facts.extend([
        Fact::new(t.birds_left, number(f64::from(day.birds), 0), t.birds_unit),
        Fact::new(t.cum_mortality, number(day.cum_mortality_percent, 2), "%"),
        Fact::new(t.mortality_guide, number(day.mortality_guide_percent, 2), "%"),
        Fact::new(t.liveability, number(alive, 1), "%"),
        Fact::new(t.weight, maybe(day.mean_corrected_kg.or(day.mean_kg), 2), t.kg),
    ]);
    let known = [
        (t.density, day.density_kg_per_m2, 1, "kg/m²"),
        (t.fcr, day.fcr.or(day.fcr_house), 3, ""),
        (t.fcr_gain, day.fcr_gain, 3, ""),
        (t.epef, day.epef, 0, ""),
    ];
    let known = known.into_iter().filter_map(|(name, value, places, unit)| {
        value.map(|value| Fact::new(name, number(value, places), unit))
    });
    facts.extend(known);
    facts
}

/// The sheet to print.
#[derive(Template)]
#[template(path = "sheet.html")]
pub(crate) struct SheetPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: Sheet,
}

/// What is on the sheet.
pub(crate) struct Sheet {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) printed: String,
    pub(crate) facts: Vec<Fact>,
    pub(crate) growth: String,
    pub(crate) days: Vec<SheetRow>,
    pub(crate) records: Vec<RecordRow>,
    /// Drills of its days, as evidence.
    pub(crate) drills: Vec<Drill>,
}

/// A day on the sheet.
pub(crate) struct SheetRow {
    pub(crate) age: i64,
    pub(crate) date: String,
    pub(crate) dead: u32,
    pub(crate) culled: u32,
    pub(crate) birds: String,
    pub(crate) cum_mortality: String,
    pub(crate) mean: String,
    pub(crate) standard: String,
    pub(crate) feed: String,
    pub(crate) water: String,
    pub(crate) temperature: String,
    pub(crate) humidity: String,
}

impl SheetRow {
    /// What is printed of a day.
    pub(crate) fn of(f: &Frame, day: &DayFacts) -> Self {
        let dash = |text: String| if text.is_empty() { NOTHING.to_owned() } else { text };
        Self {
            age: day.age_days,
            date: dash(short_date(f.lang, day.day)),
            dead: day.dead,
            culled: day.culled,
            birds: number(f64::from(day.birds), 0),
            cum_mortality: number(day.cum_mortality_percent, 2),
            mean: maybe(day.mean_kg, 2),
            standard: maybe(day.standard_g.map(|grams| grams / 1000.0), 2),
            feed: maybe(day.feed_intake_kg, 0),
            water: maybe(day.water_l, 0),
            temperature: maybe(day.temperature_c, 1),
            humidity: maybe(day.humidity_percent, 0),
        }
    }
}

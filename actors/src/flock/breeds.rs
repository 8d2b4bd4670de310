//! The breeders' objectives that come with the program, and standards as CSV.

use std::sync::LazyLock;

use schema::store::flock::standard::{StandardRow, StandardSet};

use super::standard::{Day, NotAStandard, Sex, Standard};

/// The tables, as the breeders published them.
const BREEDS: &str = include_str!("breeds.csv");
/// Days that a standard may have.
pub const DAYS_MAX: usize = 1000;
/// Bytes of a standard as CSV.
pub const CSV_BYTES_MAX: usize = 256 * 1024;

/// A standard and where it is from.
#[derive(Clone, Debug)]
pub struct Bundled {
    /// What it is.
    pub set: StandardSet,
    /// What it says.
    pub standard: Standard,
}

/// The standards that come with the program; they belong to no tenant.
#[must_use]
pub fn bundled() -> &'static [Bundled] {
    static BUNDLED: LazyLock<Vec<Bundled>> = LazyLock::new(read_bundled);
    &BUNDLED
}

/// By how much a cock of a breed is heavier than a hen at an age; `None` where no standards of both are known.
#[must_use]
pub fn male_to_female(genetic_line_code: &str, age_days: f64) -> Option<f64> {
    let of = |sex: Sex| {
        let is_it = |bundled: &&Bundled| {
            bundled.set.genetic_line_code == genetic_line_code && bundled.set.sex == sex.as_str()
        };
        bundled().iter().find(is_it)?.standard.body_weight_g(age_days)
    };
    Some(of(Sex::Male)? / of(Sex::Female)?)
}

fn read_bundled() -> Vec<Bundled> {
    const SETS: [(&str, Sex, &str); 4] = [
        ("ROSS308", Sex::AsHatched, "Aviagen, Ross 308/308 FF Broiler Performance Objectives"),
        ("ROSS308", Sex::Male, "Aviagen, Ross 308/308 FF Broiler Performance Objectives"),
        ("ROSS308", Sex::Female, "Aviagen, Ross 308/308 FF Broiler Performance Objectives"),
        ("COBB500", Sex::AsHatched, "Cobb-Vantress, Cobb500 Broiler Performance & Nutrition Supplement"),
    ];
    const YEAR: i32 = 2022;
    let rows: Vec<BreedRow> =
        reader(BREEDS).into_deserialize().map(|row| row.expect("our own table")).collect();
    SETS.into_iter()
        .map(|(line, sex, source)| {
            let is_of_set = |row: &&BreedRow| row.genetic_line_code == line && row.sex == sex.as_str();
            let days = rows.iter().filter(is_of_set).map(BreedRow::day).collect();
            let name = format!("{line} objective {YEAR}");
            let set = StandardSet {
                id: schema::id::bundled_standard_id(&name, sex.as_str()),
                tenant_id: String::new(),
                name,
                kind: "REFERENCE".to_owned(),
                genetic_line_code: line.to_owned(),
                sex: sex.as_str().to_owned(),
                source: source.to_owned(),
                year: YEAR,
                created_at: schema::clock::Timestamp::UNIX_EPOCH,
            };
            Bundled { set, standard: Standard::new(days).expect("our own table") }
        })
        .collect()
}

#[derive(serde::Deserialize)]
struct BreedRow {
    genetic_line_code: String,
    sex: String,
    age_day: u16,
    body_weight_g: f64,
    cum_feed_intake_g: Option<f64>,
}

impl BreedRow {
    fn day(&self) -> Day {
        let Self { age_day, body_weight_g, cum_feed_intake_g, .. } = *self;
        Day { age_day, body_weight_g, cum_feed_intake_g, flocks: None }
    }
}

/// Why a text is not a standard.
#[derive(Debug, thiserror::Error)]
pub enum NotReadable {
    /// It is longer than it may be.
    #[error("a standard has at most {CSV_BYTES_MAX} bytes and {DAYS_MAX} days")]
    TooLong,
    /// A line cannot be read.
    #[error("{0}")]
    Line(String),
    /// The lines are no standard.
    #[error(transparent)]
    Days(#[from] NotAStandard),
}

/// Reads a standard from CSV with the columns `age_day`, `body_weight_g` and `cum_feed_intake_g`; others are passed over, and feed may be left out.
///
/// # Errors
/// [`NotReadable`] with the line and what is wrong with it.
pub fn read_csv(text: &str) -> Result<Standard, NotReadable> {
    if text.len() > CSV_BYTES_MAX {
        return Err(NotReadable::TooLong);
    }
    let days = reader(text).into_deserialize().collect::<Result<Vec<Day>, _>>();
    let days = days.map_err(|error| NotReadable::Line(error.to_string()))?;
    if days.len() > DAYS_MAX {
        return Err(NotReadable::TooLong);
    }
    Ok(Standard::new(days)?)
}

fn reader(text: &str) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(text.as_bytes())
}

/// The days of a standard as rows.
#[must_use]
pub fn rows(standard: &Standard) -> Vec<StandardRow> {
    let row = |day: &Day| StandardRow {
        age_day: i32::from(day.age_day),
        body_weight_g: day.body_weight_g,
        cum_feed_intake_g: day.cum_feed_intake_g,
        flocks: day.flocks,
    };
    standard.days().iter().map(row).collect()
}

/// The standard of rows, which were one when they were written.
#[must_use]
pub fn of_rows(rows: &[StandardRow]) -> Option<Standard> {
    let day = |row: &StandardRow| {
        Some(Day {
            age_day: u16::try_from(row.age_day).ok()?,
            body_weight_g: row.body_weight_g,
            cum_feed_intake_g: row.cum_feed_intake_g,
            flocks: row.flocks,
        })
    };
    Standard::new(rows.iter().map(day).collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_say_what_the_breeders_say() {
        let weights = |name: usize, age: f64| bundled()[name].standard.body_weight_g(age).unwrap();
        assert_eq!(weights(0, 35.5), 2346.0);
        assert_eq!((weights(0, 35.0), weights(1, 35.0), weights(2, 35.0)), (2296.0, 2441.0, 2150.0));
        assert_eq!(weights(3, 42.0), 3278.0);
        assert!((male_to_female("ROSS308", 35.0).unwrap() - 1.135).abs() < 0.001);
        assert_eq!(male_to_female("COBB500", 35.0), None, "not known of both sexes");
        for bundled in bundled() {
            assert_eq!(bundled.standard.days().len(), 57, "{}", bundled.set.name);
        }
    }

    #[test]
    fn conversions_follow_from_the_tables() {
        use super::super::feed::{conversion, conversion_of_gain};
        for (table, age, of_weight, of_gain) in
            [(0, 35.0, 1.3985, 1.4258), (3, 42.0, 1.5558, 1.576), (3, 7.0, 0.891, 1.125)]
        {
            let standard = &bundled()[table].standard;
            let (weight, feed) =
                (standard.body_weight_g(age).unwrap(), standard.cum_feed_intake_g(age).unwrap());
            let chick = standard.body_weight_g(0.0).unwrap();
            assert!((conversion(feed, weight) - of_weight).abs() < 5e-4, "day {age}");
            assert!((conversion_of_gain(feed, weight, chick) - of_gain).abs() < 5e-4, "day {age}");
        }
    }

    #[test]
    fn both_sexes_together_are_the_flock_as_it_hatches() {
        for age in 0..=56 {
            let of = |i: usize| bundled()[i].standard.body_weight_g(f64::from(age)).unwrap();
            assert!((f64::midpoint(of(1), of(2)) - of(0)).abs() <= 1.0, "day {age}");
        }
    }

    #[test]
    fn a_standard_is_read_with_what_is_wrong_with_it() {
        let good = "age_day,body_weight_g,cum_feed_intake_g,fcr\n0,44,0,\n1,62,12,0.19\n";
        let read = read_csv(good).unwrap();
        assert_eq!(of_rows(&rows(&read)).unwrap(), read);
        for (text, wrong) in [
            ("age_day,body_weight_g,cum_feed_intake_g\n0,44,0\n", "two days"),
            ("age_day,body_weight_g,cum_feed_intake_g\n0,44,0\n2,62,12\n", "day 0 is not followed"),
            ("age_day,body_weight_g,cum_feed_intake_g\n0,44,0\n1,40,12\n", "day 1"),
            ("age_day,body_weight_g,cum_feed_intake_g\n0,44,0\n1,x,12\n", "line: 3"),
            ("age,weight\n0,44\n1,50\n", "missing field"),
        ] {
            let error = read_csv(text).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
        assert!(matches!(read_csv(&" ".repeat(CSV_BYTES_MAX + 1)), Err(NotReadable::TooLong)));
    }
}

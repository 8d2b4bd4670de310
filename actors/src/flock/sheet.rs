//! Records of a flock in a table, as people keep them elsewhere: read as a whole, or not at all.

use chrono::NaiveDate;
use schema::store::flock::Flock;
use schema::store::flock::record::Kind;
use serde::Deserialize;

use super::desk::NewRecord;

/// Bytes of a table.
pub const SHEET_BYTES_MAX: usize = 64 * 1024;
/// Records of a table.
pub const SHEET_RECORDS_MAX: usize = 1000;
/// Lines that are named when several are wrong.
const WRONG_LINES_MAX: usize = 10;

/// Why a table was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSheet {
    /// There is more of it than is read.
    #[error("a table has {SHEET_BYTES_MAX} bytes and {SHEET_RECORDS_MAX} lines at most")]
    TooLong,
    /// It has no line.
    #[error("the table has no line: its columns are day, kind, part, value, birds and note")]
    Empty,
    /// Lines of it do not fit.
    #[error("{}", told(.0))]
    Lines(Vec<(u64, String)>),
}

fn told(lines: &[(u64, String)]) -> String {
    let lines: Vec<String> = lines.iter().map(|(line, why)| format!("line {line}: {why}")).collect();
    lines.join("; ")
}

#[derive(Debug, Deserialize)]
struct Line {
    day: String,
    kind: String,
    #[serde(default)]
    part: Option<String>,
    #[serde(default)]
    value: Option<f64>,
    #[serde(default)]
    birds: Option<i32>,
    #[serde(default)]
    note: Option<String>,
}

/// The records of a table with the columns `day` (as 2026-02-12), `kind` (a word of [`Kind`]), `part` (`MORNING`, `EVENING` or
/// empty), `value`, `birds` and `note`; the last four may be missing. What stands in it twice is two records, and the same
/// table brought again is none: each has a reference made of what it says.
///
/// # Errors
/// [`BadSheet`], which names every line that does not fit, up to ten.
pub fn read(text: &str, flock: &Flock, today: NaiveDate) -> Result<Vec<NewRecord>, BadSheet> {
    if text.len() > SHEET_BYTES_MAX {
        return Err(BadSheet::TooLong);
    }
    let mut reader =
        csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(text.as_bytes());
    let (mut records, mut wrong) = (Vec::new(), Vec::new());
    for line in reader.deserialize::<Line>() {
        let at = records.len() + wrong.len();
        if at >= SHEET_RECORDS_MAX {
            return Err(BadSheet::TooLong);
        }
        let number = u64::try_from(at).unwrap_or(u64::MAX).saturating_add(2);
        match line.map_err(|error| why_not(&error)).and_then(|line| record_of(line, flock, today)) {
            Ok(record) => records.push(record),
            Err(why) => wrong.push((number, why)),
        }
        if wrong.len() >= WRONG_LINES_MAX {
            break;
        }
    }
    if !wrong.is_empty() {
        return Err(BadSheet::Lines(wrong));
    }
    if records.is_empty() {
        return Err(BadSheet::Empty);
    }
    refer(&mut records, flock);
    Ok(records)
}

fn why_not(error: &csv::Error) -> String {
    if let csv::ErrorKind::Deserialize { err, .. } = error.kind() {
        return err.kind().to_string();
    }
    "cannot be read".to_owned()
}

fn record_of(line: Line, flock: &Flock, today: NaiveDate) -> Result<NewRecord, String> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let day = NaiveDate::parse_from_str(&line.day, "%Y-%m-%d").map_err(|_| "day: write it as 2026-02-12")?;
    let last = flock.ended_on.unwrap_or(today).min(today);
    if !(flock.placed_on..=last).contains(&day) {
        return Err(format!("day: {day} is none of the flock's"));
    }
    let kind = Kind::parse(&line.kind.to_uppercase()).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
        format!("kind: none of {}", known.join(", "))
    })?;
    let part = given(line.part).map(|part| part.to_uppercase());
    if part.as_deref().is_some_and(|part| !matches!(part, "MORNING" | "EVENING")) {
        return Err("part: MORNING, EVENING or empty".to_owned());
    }
    let record = NewRecord {
        kind,
        day: Some(day),
        part,
        value: line.value,
        birds: line.birds.filter(|birds| kind == Kind::HandWeighing && *birds > 0),
        cause: None,
        note: given(line.note),
        external_ref: None,
        source: "API_IMPORT",
    };
    record.check().map_err(|error| error.to_string())?;
    Ok(record)
}

/// Gives each record the reference by which it is known when it comes again.
fn refer(records: &mut [NewRecord], flock: &Flock) {
    let says = |record: &NewRecord| {
        let NewRecord { kind, day, part, value, birds, note, .. } = record;
        let note = note.as_deref().unwrap_or_default();
        format!("{}/{day:?}/{part:?}/{value:?}/{birds:?}/{note}", kind.as_str())
    };
    let said: Vec<String> = records.iter().map(says).collect();
    for (index, record) in records.iter_mut().enumerate() {
        let before = said.iter().take(index).filter(|other| **other == said[index]).count();
        let id = schema::id::table_record_id(flock.id, &said[index], before);
        record.external_ref = Some(format!("table:{id}"));
    }
}

#[cfg(test)]
mod tests {
    use schema::clock::Timestamp;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn flock() -> Flock {
        Flock {
            id: schema::id::Uuid::nil(),
            tenant_id: "t-001".to_owned(),
            farm_id: "f-001".to_owned(),
            barn_id: "b-001".to_owned(),
            batch_id: "2026-01".to_owned(),
            genetic_line_code: "ROSS308".to_owned(),
            sex: "AS_HATCHED".to_owned(),
            placed_on: day("2026-01-05"),
            birds: 20_000,
            area_m2: None,
            target_weight_g: None,
            standard_set_id: None,
            ended_on: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn read_it(text: &str) -> Result<Vec<NewRecord>, BadSheet> {
        read(text, &flock(), day("2026-01-10"))
    }

    #[test]
    fn a_table_is_read_as_people_keep_it() {
        let text = "day,kind,part,value,birds,note\n# the first week\n2026-01-06,MORTALITY,MORNING,12,,\n\
                    2026-01-06,feed_intake,,250.5,,\n2026-01-07,HAND_WEIGHING,,0.085,100,by Somchai\n2026-01-07,NOTE,,,,vet was here\n";
        let records = read_it(text).unwrap();
        let told: Vec<_> = records.iter().map(|record| (record.kind, record.value, record.birds)).collect();
        assert_eq!(
            told,
            [
                (Kind::Mortality, Some(12.0), None),
                (Kind::FeedIntake, Some(250.5), None),
                (Kind::HandWeighing, Some(0.085), Some(100)),
                (Kind::Note, None, None)
            ]
        );
        let short = read_it("day,kind,value\n2026-01-06,CULL,3\n").unwrap();
        assert_eq!((short[0].kind, short[0].value), (Kind::Cull, Some(3.0)));
    }

    #[test]
    fn a_table_that_comes_again_has_the_same_references_and_twins_have_their_own() {
        let text = "day,kind,value\n2026-01-06,FEED_DELIVERED,5000\n2026-01-06,FEED_DELIVERED,5000\n";
        let references = |text: &str| -> Vec<_> {
            read_it(text).unwrap().into_iter().map(|one| one.external_ref).collect()
        };
        let (first, again) = (references(text), references(text));
        assert_eq!(first, again);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn a_table_that_does_not_fit_is_not_read_and_says_where() {
        let check = |text: &str, expected: &str| {
            let error = read_it(text).expect_err("it does not fit").to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "no line");
        check("day,kind,value\n2026-01-04,CULL,3\n", "line 2: day: 2026-01-04 is none of the flock's");
        check("day,kind,value\n2026-01-06,CULL,3\n06/01/2026,CULL,3\n", "line 3: day: write it as");
        check("day,kind,value\n2026-01-06,LOST,3\n", "line 2: kind: none of MORTALITY");
        check("day,kind,value\n2026-01-06,CULL,1.5\n", "line 2: value must be whole birds");
        check("day,kind,part,value\n2026-01-06,CULL,NOON,1\n", "line 2: part: ");
        check("day,kind,value\n2026-01-06,CULL,many\n", "line 2: ");
        check(&" ".repeat(SHEET_BYTES_MAX + 1), "at most");
        let many = format!("day,kind,value\n{}", "2026-01-06,CULL,1\n".repeat(SHEET_RECORDS_MAX + 1));
        check(&many, "at most");
    }
}
